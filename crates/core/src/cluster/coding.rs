//! Coding length: how many bits labels save, on features that the labels did not shape.
//!
//! All lengths are per row and in bits; `eps2` is the **squared** precision to which a row is to be known.

use rayon::prelude::*;
use subspan_linalg::{Mat, cholesky, par_gram};

use crate::error::Result;

/// Squared precision of coded rows.
pub(crate) const EPS2: f64 = 0.1;
/// Most dimensions of coded rows.
pub(crate) const DIMS: usize = 64;

/// Bits per row of coding unit rows (`n x d`) cluster by cluster, with the code of the labels (Ma, Derksen, Hong, Wright,
/// "Segmentation of multivariate mixed data via lossy data coding and compression", 2007):
/// `Σ_c (m_c + d)/2 · log det(I + d/(ε² m_c) F_cᵀF_c) − m_c log(m_c/m)`.
///
/// # Errors
/// A factorization that fails on non-finite rows.
pub(crate) fn coding_length(rows: &[f32], d: usize, labels: &[u32], k: usize) -> Result<f64> {
    let m = labels.len() as f64;
    let parts: Vec<Result<f64>> = members(labels, k)
        .par_iter()
        .filter(|members| !members.is_empty())
        .map(|members| {
            let count = members.len() as f64;
            let scale = d as f64 / (EPS2 * count);
            let gram = gram(rows, d, members);
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

/// Rows of every label.
pub(crate) fn members(labels: &[u32], k: usize) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); k];
    for (i, label) in labels.iter().enumerate() {
        members[*label as usize].push(i);
    }
    members
}

fn gram(rows: &[f32], d: usize, members: &[usize]) -> Mat {
    let values: Vec<f64> = members.iter().flat_map(|i| &rows[i * d..(i + 1) * d]).map(|v| f64::from(*v)).collect();
    par_gram(&values, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_orthogonal_lines_are_cheaper_apart() {
        let rows: Vec<f32> = (0..40).flat_map(|i| if i % 2 == 0 { [1.0, 0.0] } else { [0.0, 1.0] }).collect();
        let apart: Vec<u32> = (0..40).map(|i| i % 2).collect();
        let one = coding_length(&rows, 2, &[0; 40], 1).unwrap();
        let two = coding_length(&rows, 2, &apart, 2).unwrap();
        // One cluster: F'F = 20 I, so (40 + 2)/2 · 2 ln(1 + 2/(0.1 · 40) · 20) = 42 ln 11.
        assert!((one - 42.0 * 11f64.ln() / 40.0 / std::f64::consts::LN_2).abs() < 1e-9);
        // Two clusters of 20 on a line each: 2 · 22/2 · ln(1 + 2/(0.1 · 20) · 20) + 40 ln 2.
        assert!((two - (22.0 * 21f64.ln() + 40.0 * 2f64.ln()) / 40.0 / std::f64::consts::LN_2).abs() < 1e-9);
        assert!(two < one);
        // An empty cluster costs nothing.
        assert_eq!(two, coding_length(&rows, 2, &apart, 5).unwrap());
    }
}
