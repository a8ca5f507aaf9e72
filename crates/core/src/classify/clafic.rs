//! CLAFIC (Watanabe): the leading eigenvectors of each class's uncentred correlation matrix, in closed form.

use rayon::prelude::*;
use subspan_linalg::{Mat, eigh, gemm, par_gram};

use super::geometry;
use super::labelled::Labelled;
use super::samples::{BLOCK, normalize};
use crate::draw::Stream;
use crate::error::{Error, Result};
use crate::observe::Observer;

/// Directions below this share of the largest eigenvalue are noise of single-precision data.
const RANK_CUT: f64 = 1e-10;

/// The leading directions of one class.
pub(crate) struct Spectrum {
    /// Eigenvalues of `Σ x̂ x̂ᵀ / n`, descending; their sum is at most one.
    pub(crate) values: Vec<f64>,
    /// One unit direction per value (`values.len() x n_cols`), the entry of largest magnitude positive.
    directions: Vec<f32>,
}

/// The up to `k` leading directions of every class among `rows`, classes in parallel.
///
/// Cost per class of `n` samples in `d` dimensions: `n d²` or `n² d` flop, whichever is less, and an eigenproblem of that side.
pub(crate) fn spectra(
    data: &Labelled<'_>,
    rows: &[usize],
    center: Option<&[f32]>,
    k: usize,
    observer: &dyn Observer,
) -> Result<Vec<Spectrum>> {
    let one = |members: &Vec<usize>| {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        spectrum(data, members, center, k)
    };
    data.members(rows).par_iter().map(one).collect()
}

fn spectrum(data: &Labelled<'_>, members: &[usize], center: Option<&[f32]>, k: usize) -> Result<Spectrum> {
    let (n, d) = (members.len(), data.n_cols());
    let block = |rows: &[usize]| -> Result<Vec<f64>> {
        let mut values = vec![0f32; rows.len() * d];
        data.samples.gather(rows, &mut values)?;
        normalize(&mut values, d, center);
        Ok(values.into_iter().map(f64::from).collect())
    };
    if n <= d {
        return Spectrum::of_rows(&block(members)?, d, k);
    }
    let mut sum = Mat::zeros(d, d);
    for rows in members.chunks(BLOCK) {
        let part = par_gram(&block(rows)?, d);
        sum.as_mut_slice().iter_mut().zip(part.as_slice()).for_each(|(s, p)| *s += p);
    }
    leading(&sum, n, k, |direction, _| direction)
}

/// The leading eigenvectors of a correlation matrix of `n` samples; `map` brings one, with its eigenvalue, to the samples' space.
fn leading(matrix: &Mat, n: usize, k: usize, map: impl Fn(Vec<f64>, f64) -> Vec<f64>) -> Result<Spectrum> {
    let eigen = eigh(matrix)?;
    let side = eigen.values.len();
    let largest = eigen.values.last().copied().unwrap_or(0.0);
    let kept = (0..side.min(k)).take_while(|i| eigen.values[side - 1 - i] > RANK_CUT * largest).count();
    let mut spectrum = Spectrum { values: Vec::new(), directions: Vec::new() };
    for i in 0..kept {
        let value = eigen.values[side - 1 - i];
        let direction = map(eigen.vectors.col(side - 1 - i), value);
        let peak = direction.iter().fold(0.0, |peak: f64, v| if v.abs() > peak.abs() { *v } else { peak });
        spectrum.directions.extend(direction.iter().map(|v| (v * peak.signum()) as f32));
        spectrum.values.push(value / n as f64);
    }
    Ok(spectrum)
}

impl Spectrum {
    /// Of rows in memory that are not many, through their inner products; `n² d` flop and an eigenproblem of side `n`.
    pub(crate) fn of_rows(rows: &[f64], d: usize, k: usize) -> Result<Self> {
        let n = rows.len() / d;
        let mut products = vec![0.0; n * n];
        gemm::mul_transposed(rows, rows, d, &mut products);
        leading(&Mat::from_vec(n, n, products), n, k, |direction, value| {
            let mut mapped = vec![0.0; d];
            gemm::mul(&direction, n, rows, d, &mut mapped);
            mapped.iter_mut().for_each(|v| *v /= value.sqrt());
            mapped
        })
    }

    /// The directions, unit rows.
    pub(crate) fn directions(&self) -> &[f32] {
        &self.directions
    }

    /// A frame of `k` rows: the leading directions, then random ones where the class has too few; and how many were random.
    pub(crate) fn frame(&self, k: usize, n_cols: usize, class: usize, seed: u64) -> Result<(Vec<f32>, usize)> {
        let own = self.values.len().min(k);
        let mut frame = self.directions[..own * n_cols].to_vec();
        if own < k {
            let mut rng = Stream::new(seed, "classify missing directions").rng(class as u64);
            frame.extend((0..(k - own) * n_cols).map(|_| rng.normal() as f32));
        }
        geometry::orthonormalize(&mut frame, n_cols)?;
        Ok((frame, k - own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;
    use crate::classify::DenseSamples;

    /// A class of `n` samples near a plane, and one elsewhere.
    fn near_a_plane(n: usize, d: usize) -> (Vec<f32>, Vec<u32>, Vec<f32>) {
        let mut rng = Stream::new(4, "plane").rng(0);
        let plane: Vec<f32> = geometry::random(&Stream::new(4, "basis"), 0, 2, d).unwrap();
        let mut values = Vec::new();
        for i in 0..2 * n {
            let (a, b) = (2.0 * rng.normal() as f32, rng.normal() as f32);
            values.extend((0..d).map(|j| {
                let noise = 1e-3 * rng.normal() as f32;
                if i < n { a * plane[j] + b * plane[d + j] + noise } else { 1.0 + noise }
            }));
        }
        let codes = (0..2 * n).map(|i| u32::from(i >= n)).collect();
        (values, codes, plane)
    }

    #[test]
    fn a_planted_plane_is_found_by_both_routes() {
        for (n, d) in [(200, 12), (10, 40)] {
            let (values, codes, plane) = near_a_plane(n, d);
            let samples = DenseSamples::new(&values, d).unwrap();
            let classes = ["a".to_string(), "b".to_string()];
            let data = Labelled::new(&samples, &codes, &classes).unwrap();
            let all: Vec<usize> = (0..2 * n).collect();
            let spectra = spectra(&data, &all, None, 2, &Silent).unwrap();
            let (frame, random) = spectra[0].frame(2, d, 0, 0).unwrap();
            let angle = geometry::span(&frame, d).unwrap().distance(&geometry::span(&plane, d).unwrap()).unwrap();
            assert!(random == 0 && angle < 0.01, "{n} x {d}: {angle}");
            assert!(spectra[0].values.iter().sum::<f64>() <= 1.0 + 1e-6);
        }
    }

    #[test]
    fn missing_directions_are_filled() {
        let (values, codes, _) = near_a_plane(3, 9);
        let samples = DenseSamples::new(&values, 9).unwrap();
        let classes = ["a".to_string(), "b".to_string()];
        let data = Labelled::new(&samples, &codes, &classes).unwrap();
        let spectra = spectra(&data, &[0, 1, 3], None, 4, &Silent).unwrap();
        let (frame, random) = spectra[1].frame(4, 9, 1, 0).unwrap();
        assert!(random == 3 && geometry::orthonormality_defect(&frame, 9) < 1e-6);
    }
}
