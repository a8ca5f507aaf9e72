//! What the class subspaces look like: their angles to each other, and what each holds of its own samples.

use rayon::prelude::*;
use serde::Serialize;
use subspan_linalg::{Mat, eigh, frames, gemm, thin_svd};

use super::geometry::orthonormalize;
use super::labelled::Labelled;
use super::model::{Frames, Model, Scorer};
use super::samples::{for_blocks, normalize};
use crate::error::{Error, Result};

/// Cosines above this say little about their angle (the arc cosine is flat there): sines are used instead.
const NEARLY_ONE: f64 = 0.99;

/// Principal angles between all pairs of subspaces, radians, ascending: entry `a * C + b` holds `min(k_a, k_b)` of them.
///
/// Cost `C²/2` times (`2 k² n_cols` flop and the singular values of a `k x k` matrix), in parallel over pairs.
///
/// # Errors
/// [`Error::Linalg`] for frames that are not finite.
///
/// ```
/// use subspan::classify::{Frames, class_angles};
/// let lines = Frames { rows: vec![1.0, 0.0, 0.0, 1.0], offsets: vec![0, 1, 2] };
/// assert!((class_angles(&lines, 2)?[1][0].to_degrees() - 90.0).abs() < 1e-6);
/// # Ok::<(), subspan::Error>(())
/// ```
pub fn class_angles(classes: &Frames, n_cols: usize) -> Result<Vec<Vec<f64>>> {
    let bases: Vec<Vec<f64>> = classes
        .offsets
        .windows(2)
        .map(|o| {
            // Single precision is orthonormal to seven digits only.
            let rows = &classes.rows[o[0] * n_cols..o[1] * n_cols];
            let mut basis: Vec<f64> = rows.iter().map(|v| f64::from(*v)).collect();
            orthonormalize(&mut basis, n_cols)?;
            Ok(basis)
        })
        .collect::<Result<_>>()?;
    let n = bases.len();
    let pairs: Vec<(usize, usize)> = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect();
    let found: Vec<Vec<f64>> =
        pairs.par_iter().map(|(a, b)| angles(&bases[*a], &bases[*b], n_cols)).collect::<Result<_>>()?;
    let mut out: Vec<Vec<f64>> = (0..n * n).map(|i| vec![0.0; bases[i % n].len() / n_cols]).collect();
    for ((a, b), angles) in pairs.into_iter().zip(found) {
        out[b * n + a].clone_from(&angles);
        out[a * n + b] = angles;
    }
    Ok(out)
}

/// Angles between the spans of two orthonormal frames.
fn angles(a: &[f64], b: &[f64], n_cols: usize) -> Result<Vec<f64>> {
    // The smaller one's rows against the larger span.
    let (a, b) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let (ka, kb) = (a.len() / n_cols, b.len() / n_cols);
    let mut products = vec![0.0; kb * ka];
    frames::cross(b, a, n_cols, &mut products);
    let cosines = thin_svd(&Mat::from_vec(kb, ka, products.clone()))?.s;
    let mut out: Vec<f64> = cosines.iter().map(|c| c.min(1.0).acos()).collect();
    if cosines.first().is_some_and(|c| *c > NEARLY_ONE) {
        let mut residual = b.to_vec();
        for (row, coefficients) in residual.chunks_exact_mut(n_cols).zip(products.chunks_exact(ka)) {
            for (c, a) in coefficients.iter().zip(a.chunks_exact(n_cols)) {
                row.iter_mut().zip(a).for_each(|(r, a)| *r -= c * a);
            }
        }
        // Sines descend where cosines do: the largest cosine has the smallest sine.
        let sines = thin_svd(&Mat::from_vec(kb, n_cols, residual))?.s;
        for ((angle, cosine), sine) in out.iter_mut().zip(&cosines).zip(sines.iter().rev()) {
            if *cosine > NEARLY_ONE {
                *angle = sine.min(1.0).asin();
            }
        }
    }
    Ok(out)
}

/// One class's subspace and its own samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Portrait {
    /// Dimension of the subspace.
    pub k: usize,
    /// Samples of the class that are not zero.
    pub n_samples: usize,
    /// Mean squared length of the class's unit samples along each principal direction of its subspace, descending; 1 in all
    /// would mean that the subspace holds everything.
    pub energies: Vec<f64>,
    /// The same of the other classes' samples, in total.
    pub others_energy: f64,
    /// `(Σ e)² / Σ e²` of the energies: how many directions are in use.
    pub effective_dim: f64,
    /// For each direction, the rows of the class's samples that lie closest to it, closest first.
    pub nearest: Vec<Vec<usize>>,
}

/// Looks at every class's subspace with labelled samples, keeping the `n_nearest` closest ones per direction.
///
/// Cost: two passes of `2 n Σk n_cols` flop.
///
/// # Errors
/// [`Error::Parameter`] for a linear classifier, [`Error::Shape`] if the samples have another number of columns or classes, what
/// the source reports.
pub fn portraits(model: &Model, data: &Labelled<'_>, n_nearest: usize) -> Result<Vec<Portrait>> {
    let Scorer::Subspaces { frames, center, .. } = &model.scorer else {
        return Err(Error::parameter("model", "linear", "one of subspaces"));
    };
    let d = model.n_cols;
    for (what, found, expected) in
        [("a sample", data.n_cols(), d), ("the list of classes", data.n_classes(), model.classes.len())]
    {
        if found != expected {
            return Err(Error::Shape { what, found, expected });
        }
    }
    let all: Vec<usize> = (0..data.codes.len()).collect();
    let others = energy_of_others(data, frames, center.as_deref(), &all)?;
    let members = data.members(&all);
    let one = |(c, members): (usize, &Vec<usize>)| {
        let rows = &frames.rows[frames.offsets[c] * d..frames.offsets[c + 1] * d];
        portrait(data, members, rows, center.as_deref(), n_nearest, others[c])
    };
    members.iter().enumerate().map(one).collect()
}

fn portrait(
    data: &Labelled<'_>,
    members: &[usize],
    frame: &[f32],
    center: Option<&[f32]>,
    n_nearest: usize,
    others_energy: f64,
) -> Result<Portrait> {
    let (d, k) = (data.n_cols(), frame.len() / data.n_cols());
    let mut z = Vec::with_capacity(members.len() * k);
    let mut n_samples = 0;
    for_blocks(data.samples, members, |rows, x| {
        n_samples += rows.len() - normalize(x, d, center);
        let from = z.len();
        z.resize(from + rows.len() * k, 0f32);
        gemm::mul_transposed(x, frame, d, &mut z[from..]);
        Ok(())
    })?;
    // The principal directions inside the subspace: eigenvectors of the mean of z zᵀ.
    let mut moment = Mat::zeros(k, k);
    for z in z.chunks_exact(k) {
        for i in 0..k {
            for j in 0..k {
                moment[(i, j)] += f64::from(z[i]) * f64::from(z[j]) / n_samples.max(1) as f64;
            }
        }
    }
    let eigen = eigh(&moment)?;
    let energies: Vec<f64> = eigen.values.iter().rev().map(|v| v.max(0.0)).collect();
    let nearest = (0..k)
        .map(|j| {
            let direction = eigen.vectors.col(k - 1 - j);
            let along = |z: &[f32]| z.iter().zip(&direction).map(|(z, v)| f64::from(*z) * v).sum::<f64>().abs();
            let mut order: Vec<(f64, usize)> = z.chunks_exact(k).map(along).zip(members.iter().copied()).collect();
            order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            order.into_iter().take(n_nearest).map(|(_, row)| row).collect()
        })
        .collect();
    let (sum, squares) = energies.iter().fold((0.0, 0.0), |(s, q), e| (s + e, q + e * e));
    let effective_dim = if squares > 0.0 { sum * sum / squares } else { 0.0 };
    Ok(Portrait { k, n_samples, energies, others_energy, effective_dim, nearest })
}

/// For each class, the mean squared length of the projections of all other classes' samples.
fn energy_of_others(data: &Labelled<'_>, frames: &Frames, center: Option<&[f32]>, all: &[usize]) -> Result<Vec<f64>> {
    let (d, n_classes, dims) = (data.n_cols(), data.n_classes(), frames.rows.len() / data.n_cols());
    let (mut sums, mut counts) = (vec![0.0; n_classes], vec![0usize; n_classes]);
    for_blocks(data.samples, all, |rows, x| {
        normalize(x, d, center);
        let mut z = vec![0f32; rows.len() * dims];
        gemm::mul_transposed(x, &frames.rows, d, &mut z);
        for (row, z) in rows.iter().zip(z.chunks_exact(dims)) {
            for (c, o) in frames.offsets.windows(2).enumerate().filter(|(c, _)| *c != data.codes[*row] as usize) {
                sums[c] += z[o[0]..o[1]].iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
                counts[c] += 1;
            }
        }
        Ok(())
    })?;
    Ok(sums.iter().zip(counts).map(|(s, n)| s / n.max(1) as f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::DenseSamples;
    use crate::classify::geometry::{random, span};
    use crate::draw::Stream;

    #[test]
    fn angles_are_those_of_the_subspaces_also_where_they_nearly_meet() {
        let d = 12;
        let stream = Stream::new(1, "angles");
        let mut rows: Vec<f32> = (0..3).flat_map(|c| random::<f32>(&stream, c, 3, d).unwrap()).collect();
        // The last two classes: the first one's, turned by a millionth in one direction, and one of its directions alone.
        let first = rows[..3 * d].to_vec();
        let mut turned = first.clone();
        turned.iter_mut().zip(&rows[3 * d..6 * d]).take(d).for_each(|(t, o)| *t += 1e-3 * o);
        orthonormalize(&mut turned, d).unwrap();
        rows.extend(&turned);
        rows.extend(&first[..d]);
        let frames = Frames { rows, offsets: vec![0, 3, 6, 9, 12, 13] };
        let found = class_angles(&frames, d).unwrap();
        for a in 0..5 {
            for b in 0..5 {
                let basis = |c: usize| span(&frames.rows[frames.offsets[c] * d..frames.offsets[c + 1] * d], d).unwrap();
                let mut expected = basis(a).principal_angles(&basis(b)).unwrap();
                expected.sort_by(f64::total_cmp);
                for (f, e) in found[a * 5 + b].iter().zip(&expected) {
                    assert!((f - e).abs() < 1e-10, "{a} {b}: {f:e} {e:e}");
                }
            }
        }
        assert!(found[4][0] < 1e-7 && found[3][2] > 1e-4);
    }

    #[test]
    fn energies_and_nearest_samples_are_those_planted() {
        // Class a: mostly along the first axis, a third of it along the second; class b along the third.
        let rows = [[3.0f32, 0.0, 0.1], [0.0, 2.0, 0.0], [-5.0, 0.1, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]];
        let values = rows.concat();
        let samples = DenseSamples::new(&values, 3).unwrap();
        let classes = ["a".to_string(), "b".to_string()];
        let data = Labelled::new(&samples, &[0, 0, 0, 1, 1], &classes).unwrap();
        let turn = std::f32::consts::FRAC_1_SQRT_2;
        let frames = Frames { rows: vec![turn, turn, 0.0, turn, -turn, 0.0, 0.0, 0.0, 1.0], offsets: vec![0, 2, 3] };
        let model = Model {
            classes: classes.to_vec(),
            n_cols: 3,
            scorer: Scorer::Subspaces { frames, gamma: 25.0, center: None },
            temperature: 1.0,
            reconstruction: None,
        };
        let found = portraits(&model, &data, 2).unwrap();
        assert!((found[0].energies[0] - 2.0 / 3.0).abs() < 0.01 && (found[0].energies[1] - 1.0 / 3.0).abs() < 0.01);
        assert_eq!((&found[0].nearest[0], found[0].nearest[1][0]), (&vec![2, 0], 1));
        assert!((found[0].effective_dim - 1.8).abs() < 0.02 && found[0].others_energy == 0.0);
        assert_eq!((found[1].n_samples, found[1].energies[0]), (1, 1.0));
    }
}
