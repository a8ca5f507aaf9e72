//! Self-representation by least squares: an affinity for subspaces that overlap.
//!
//! Each row is written as a combination of all others with a ridge `γ`. With `X` of unit rows and `H = X (XᵀX + γ I)⁻¹ Xᵀ`,
//! the coefficient of row `i` for row `j` is `H_ij / (1 − H_jj)`: no `n x n` inverse is needed, products of the images
//! `X (XᵀX + γ I)^(−½)` give `H` (Woodbury). The affinity is the mean of both absolute coefficients (Lim, Vidal, Haeffele,
//! "Doubly stochastic subspace clustering", 2020).

use rayon::prelude::*;
use subspan_linalg::{Mat, eigh, gemm, par_weighted_gram};

use super::prepare::BLOCK;
use crate::error::Result;

/// The ridge, relative to the mean eigenvalue of `XᵀX`.
const RIDGE: f64 = 0.1;

/// `(XᵀX + γ I)^(−½)` for unit rows of `p` values, each counting by its mass; `p x p`.
pub(crate) fn metric(rows: &[f32], p: usize, mass: &[f64]) -> Result<Vec<f32>> {
    let mut gram = Mat::zeros(p, p);
    for (part, mass) in rows.chunks(4096 * p).zip(mass.chunks(4096)) {
        let values: Vec<f64> = part.iter().map(|v| f64::from(*v)).collect();
        let g = par_weighted_gram(&values, p, mass);
        gram.as_mut_slice().iter_mut().zip(g.as_slice()).for_each(|(s, v)| *s += v);
    }
    let ridge = RIDGE * (0..p).map(|i| gram[(i, i)]).sum::<f64>() / p as f64;
    let e = eigh(&gram)?;
    let scaled = Mat::from_fn(p, p, |i, j| e.vectors[(i, j)] / (e.values[j].max(0.0) + ridge).sqrt());
    Ok(scaled.mul(&e.vectors.transpose()).as_slice().iter().map(|v| *v as f32).collect())
}

/// Images of rows of `p` values; each independent of the others.
pub(crate) fn images(rows: &[f32], p: usize, metric: &[f32]) -> Vec<f32> {
    let q = metric.len() / p;
    let mut out = vec![0f32; rows.len() / p * q];
    out.par_chunks_mut(BLOCK * q).zip(rows.par_chunks(BLOCK * p)).for_each(|(out, rows)| {
        let mut padded = rows.to_vec();
        padded.resize(BLOCK * p, 0.0);
        let mut images = vec![0f32; BLOCK * q];
        gemm::mul_transposed(&padded, metric, p, &mut images);
        out.copy_from_slice(&images[..out.len()]);
    });
    out
}

/// `1 / (1 − H_ii)` of images of `q` values.
pub(crate) fn weights(images: &[f32], q: usize) -> Vec<f32> {
    let leverage = |row: &[f32]| row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
    // A new row may have a leverage above one; the bound keeps it a neighbour of its kind, not of everyone.
    images.chunks_exact(q).map(|row| (1.0 / (1.0 - leverage(row)).max(0.05)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;
    use subspan_linalg::cholesky;

    #[test]
    fn coefficients_are_those_of_the_regressions() {
        let (n, p) = (12, 4);
        let mut rng = Stream::new(0, "rows").rng(0);
        let mut rows: Vec<f32> = (0..n * p).map(|_| rng.normal() as f32).collect();
        rows.chunks_exact_mut(p).for_each(super::super::prepare::to_unit);
        let m = metric(&rows, p, &vec![1.0; n]).unwrap();
        let y = images(&rows, p, &m);
        let w = weights(&y, p);
        let ridge = RIDGE * n as f64 / p as f64;
        for j in 0..n {
            // Regress row j on the others: min ‖x_j − Σ c_i x_i‖² + γ ‖c‖².
            let others: Vec<usize> = (0..n).filter(|i| *i != j).collect();
            let dot = |a: usize, b: usize| {
                (0..p).map(|c| f64::from(rows[a * p + c]) * f64::from(rows[b * p + c])).sum::<f64>()
            };
            let g = Mat::from_fn(n - 1, n - 1, |a, b| dot(others[a], others[b]) + if a == b { ridge } else { 0.0 });
            let c = cholesky(&g).unwrap().solve(&others.iter().map(|i| dot(*i, j)).collect::<Vec<_>>());
            for (i, expected) in others.iter().zip(c) {
                let h: f64 = (0..p).map(|c| f64::from(y[i * p + c]) * f64::from(y[j * p + c])).sum();
                assert!((h * f64::from(w[j]) - expected).abs() < 1e-5, "{} {expected}", h * f64::from(w[j]));
            }
        }
    }
}
