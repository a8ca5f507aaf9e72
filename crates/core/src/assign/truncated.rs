//! The published layer in place of an exact projection: a few half-steps of Sinkhorn scaling, the last of them on rows.
//!
//! Ding et al. (ICCV 2023) and Chu et al. (ICLR 2024) keep the diagonal of the affinity, take five half-steps `u, v, u, v, u` from zero
//! and do not differentiate through `v`. What comes out is a softmax of each row with one bias per column,
//! `γ_ij = softmax_j((a_ij + v_j)/η)`: rows sum to one exactly, columns about, and the matrix is not symmetric.
//! [`super::sinkhorn::project`] is what clustering here uses; this is for comparison with that work.

use rayon::prelude::*;

/// Half-steps on columns, each between two on rows.
const COLUMN_STEPS: usize = 2;

/// The layer's membership of a `side x side` affinity at temperature `eta`: `γ` and the biases `v` of its columns.
///
/// # Panics
/// If the affinity does not have that side, or `eta` is not positive.
///
/// ```
/// let (gamma, bias) = subspan::assign::truncated::softmax_with_bias(&[1.0, 0.2, 0.2, 1.0], 2, 0.5);
/// assert!((gamma[0] + gamma[1] - 1.0).abs() < 1e-12 && bias[0] == bias[1]);
/// ```
pub fn softmax_with_bias(affinity: &[f64], side: usize, eta: f64) -> (Vec<f64>, Vec<f64>) {
    assert!(affinity.len() == side * side && eta > 0.0, "a square affinity and a positive temperature");
    let marginal = -(side as f64).ln();
    let mut bias = vec![0.0; side];
    for _ in 0..COLUMN_STEPS {
        let rows: Vec<f64> = affinity
            .par_chunks(side)
            .map(|row| eta * (marginal - log_sum_exp(row.iter().zip(&bias).map(|(a, v)| (a + v) / eta))))
            .collect();
        bias = (0..side)
            .into_par_iter()
            .map(|j| {
                let column = (0..side).map(|i| (affinity[i * side + j] + rows[i]) / eta);
                eta * (marginal - log_sum_exp(column))
            })
            .collect();
    }
    let mut gamma = vec![0.0; side * side];
    gamma.par_chunks_mut(side).zip(affinity.par_chunks(side)).for_each(|(out, row)| {
        let whole = log_sum_exp(row.iter().zip(&bias).map(|(a, v)| (a + v) / eta));
        for ((g, a), v) in out.iter_mut().zip(row).zip(&bias) {
            *g = ((a + v) / eta - whole).exp();
        }
    });
    (gamma, bias)
}

fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    largest + values.map(|v| (v - largest).exp()).sum::<f64>().ln()
}

/// The gradient with respect to the affinity of a loss whose gradient with respect to `γ` is `gradient`, the biases held fixed:
/// `γ_ij (g_ij − Σ_l γ_il g_il)/η`.
///
/// # Panics
/// If the matrices do not have the same square shape.
pub fn fixed_bias_gradient(gamma: &[f64], side: usize, gradient: &[f64], eta: f64) -> Vec<f64> {
    assert!(gamma.len() == side * side && gradient.len() == side * side, "square matrices");
    let mut out = vec![0.0; side * side];
    out.par_chunks_mut(side).zip(gamma.par_chunks(side)).zip(gradient.par_chunks(side)).for_each(
        |((out, gamma), gradient)| {
            let mean: f64 = gamma.iter().zip(gradient).map(|(g, d)| g * d).sum();
            for ((o, g), d) in out.iter_mut().zip(gamma).zip(gradient) {
                *o = g * (d - mean) / eta;
            }
        },
    );
    out
}
