//! Coding length: how many bits labels save, on features that the labels did not shape.
//!
//! All lengths are per row and in bits; `eps2` is the **squared** precision to which a row is to be known.

use rayon::prelude::*;
use subspan_linalg::{Mat, cholesky, par_weighted_gram};

use crate::error::Result;

/// Squared precision of coded rows.
pub(crate) const EPS2: f64 = 0.1;
/// Most dimensions of coded rows.
pub(crate) const DIMS: usize = 64;

/// Bits per row of coding unit rows (`n x d`) cluster by cluster, with the code of the labels (Ma, Derksen, Hong, Wright,
/// "Segmentation of multivariate mixed data via lossy data coding and compression", 2007):
/// `Σ_c (m_c + d)/2 · log det(I + d/(ε² m_c) F_cᵀF_c) − m_c log(m_c/m)`, with `m_c` the mass of a cluster and rows counting by
/// their mass.
///
/// # Errors
/// A factorization that fails on non-finite rows.
pub(crate) fn coding_length(rows: &[f32], d: usize, mass: &[f64], labels: &[u32], k: usize) -> Result<f64> {
    let m: f64 = mass.iter().sum();
    let parts: Vec<Result<f64>> = members(labels, k)
        .par_iter()
        .filter(|members| !members.is_empty())
        .map(|members| {
            let count: f64 = members.iter().map(|i| mass[*i]).sum();
            let scale = d as f64 / (EPS2 * count);
            let gram = gram(rows, d, mass, members);
            let g = Mat::from_fn(d, d, |i, j| f64::from(u8::from(i == j)) + scale * gram[(i, j)]);
            Ok(0.5 * (count + d as f64) * cholesky(&g)?.log_det() - count * (count / m).ln())
        })
        .collect();
    let mut total = 0.0;
    for part in parts {
        total += part?;
    }
    Ok(total / m / std::f64::consts::LN_2)
}

/// Mean bits per held-out row of coding it in the Gaussian of its cluster, as estimated from other rows, and its label
/// (up to a constant): `−log(m_c/m) + ½ log det(Σ_c d/ε²) + ½ xᵀ Σ_c⁻¹ x` with `Σ_c = (ε²/d) I + F_cᵀF_c/m_c`. `held` marks rows that
/// are coded; the others estimate. A cluster without estimating rows has the noise alone and half a row of mass.
///
/// # Errors
/// A factorization that fails on non-finite rows.
pub(crate) fn held_out_length(
    rows: &[f32],
    d: usize,
    mass: &[f64],
    labels: &[u32],
    k: usize,
    held: &[bool],
) -> Result<f64> {
    let all = members(labels, k);
    let of = |which: bool| held.iter().zip(mass).filter(|(h, _)| **h == which).map(|(_, m)| m).sum::<f64>();
    let fitted = of(false);
    let parts: Vec<Result<f64>> = all
        .par_iter()
        .map(|members| {
            let (coded, used): (Vec<usize>, Vec<usize>) = members.iter().partition(|i| held[**i]);
            if coded.is_empty() {
                return Ok(0.0);
            }
            let count: f64 = used.iter().map(|i| mass[*i]).sum();
            let noise = EPS2 / d as f64;
            let gram = gram(rows, d, mass, &used);
            let sigma = Mat::from_fn(d, d, |i, j| {
                let shared = if used.is_empty() { 0.0 } else { gram[(i, j)] / count };
                shared + if i == j { noise } else { 0.0 }
            });
            let factor = cholesky(&sigma)?;
            let fixed = -(count.max(0.5) / fitted).ln() + 0.5 * (factor.log_det() - d as f64 * noise.ln());
            Ok(coded
                .iter()
                .map(|i| {
                    let x: Vec<f64> = rows[i * d..(i + 1) * d].iter().map(|v| f64::from(*v)).collect();
                    mass[*i] * (fixed + 0.5 * factor.solve(&x).iter().zip(&x).map(|(a, b)| a * b).sum::<f64>())
                })
                .sum())
        })
        .collect();
    let mut total = 0.0;
    for part in parts {
        total += part?;
    }
    let coded = of(true);
    Ok(if coded > 0.0 { total / coded / std::f64::consts::LN_2 } else { 0.0 })
}

/// Rows of every label.
pub(crate) fn members(labels: &[u32], k: usize) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); k];
    for (i, label) in labels.iter().enumerate() {
        members[*label as usize].push(i);
    }
    members
}

fn gram(rows: &[f32], d: usize, mass: &[f64], members: &[usize]) -> Mat {
    let values: Vec<f64> = members.iter().flat_map(|i| &rows[i * d..(i + 1) * d]).map(|v| f64::from(*v)).collect();
    let mass: Vec<f64> = members.iter().map(|i| mass[*i]).collect();
    par_weighted_gram(&values, d, &mass)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cluster_held_out_is_a_gaussian_log_loss() {
        let rows = [0.6f32, 0.8, 1.0, 0.0, 0.0, 1.0, 0.8, -0.6];
        let found = held_out_length(&rows, 2, &[1.0; 4], &[0; 4], 1, &[false, false, false, true]).unwrap();
        // Σ = 0.05 I + F'F/3 with F'F = [[1.36, 0.48], [0.48, 1.64]].
        let (a, b, c) = (0.05 + 1.36 / 3.0, 0.16, 0.05 + 1.64 / 3.0);
        let det = a * c - b * b;
        let quadratic = (c * 0.64 - 2.0 * b * 0.8 * -0.6 + a * 0.36) / det;
        let expected = 0.5 * (det / 0.0025f64).ln() + 0.5 * quadratic;
        assert!((found - expected / std::f64::consts::LN_2).abs() < 1e-6, "{found}");
    }

    #[test]
    fn two_orthogonal_lines_are_cheaper_apart() {
        let rows: Vec<f32> = (0..40).flat_map(|i| if i % 2 == 0 { [1.0, 0.0] } else { [0.0, 1.0] }).collect();
        let apart: Vec<u32> = (0..40).map(|i| i % 2).collect();
        let even = [1.0; 40];
        let one = coding_length(&rows, 2, &even, &[0; 40], 1).unwrap();
        let two = coding_length(&rows, 2, &even, &apart, 2).unwrap();
        // One cluster: F'F = 20 I, so (40 + 2)/2 · 2 ln(1 + 2/(0.1 · 40) · 20) = 42 ln 11.
        assert!((one - 42.0 * 11f64.ln() / 40.0 / std::f64::consts::LN_2).abs() < 1e-9);
        // Two clusters of 20 on a line each: 2 · 22/2 · ln(1 + 2/(0.1 · 20) · 20) + 40 ln 2.
        assert!((two - (22.0 * 21f64.ln() + 40.0 * 2f64.ln()) / 40.0 / std::f64::consts::LN_2).abs() < 1e-9);
        assert!(two < one);
        // An empty cluster costs nothing.
        assert_eq!(two, coding_length(&rows, 2, &even, &apart, 5).unwrap());
        // Two rows of mass 20 are forty rows.
        let few = coding_length(&[1.0, 0.0, 0.0, 1.0], 2, &[20.0; 2], &[0, 1], 2).unwrap();
        assert!((two - few).abs() < 1e-12);
    }
}
