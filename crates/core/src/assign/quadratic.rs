//! Doubly stochastic projection in the Frobenius norm: exactly sparse memberships.
//!
//! `Γ = argmin γ/2 ‖Γ‖² − <A, Γ>` over symmetric doubly stochastic matrices is `max(0, a_ij + t_i + t_j) / γ` for the `t` that
//! minimises `φ(t) = Σ max(0, a_ij + t_i + t_j)² / 2γ − 2 Σ t_i` (Lim, Vidal, Haeffele, "Doubly stochastic subspace
//! clustering", 2020, with a semismooth Newton method for the dual).

use rayon::prelude::*;

use super::sinkhorn::{Diagonal, conjugate_gradients};
use crate::error::{Error, Result};

/// Largest deviation of a row sum from one.
const TOLERANCE: f64 = 1e-7;
/// Newton steps; the dual is piecewise quadratic, so a handful suffices once the active set is right.
const MAX_STEPS: usize = 200;
/// Sufficient decrease of the line search.
const ARMIJO: f64 = 1e-4;

/// Projects a symmetric `side x side` affinity; `gamma` is the weight of the norm: the larger, the denser the result.
///
/// # Errors
/// [`Error::NotConverged`], for instance when no doubly stochastic matrix has the zero diagonal asked for (fewer than 2 rows).
///
/// # Panics
/// If the affinity does not have that side, or `gamma` is not positive.
pub fn project(affinity: &[f64], side: usize, gamma: f64, diagonal: Diagonal) -> Result<Vec<f64>> {
    assert!(affinity.len() == side * side && gamma > 0.0, "a square affinity and a positive weight");
    let dual = Dual { affinity, side, gamma, diagonal };
    // Every row at its own level: as if all entries were active.
    let mut t: Vec<f64> = (0..side)
        .map(|i| (gamma - affinity[i * side..(i + 1) * side].iter().sum::<f64>()) / (2 * side) as f64)
        .collect();
    let (mut value, mut sums) = dual.value(&t);
    for step in 0..MAX_STEPS {
        let error = sums.iter().map(|s| (s - 1.0).abs()).fold(0.0, f64::max);
        if error <= TOLERANCE {
            return Ok(dual.matrix(&t));
        }
        let direction = dual.direction(&t, &sums);
        let slope: f64 = 2.0 * direction.iter().zip(&sums).map(|(d, s)| d * (s - 1.0)).sum::<f64>();
        let mut length = 1.0;
        loop {
            let trial: Vec<f64> = t.iter().zip(&direction).map(|(t, d)| t + length * d).collect();
            let (reached, trial_sums) = dual.value(&trial);
            // Near the optimum the decrease drowns in rounding; the row sums still tell.
            let better = trial_sums.iter().map(|s| (s - 1.0).abs()).fold(0.0, f64::max) < 0.5 * error;
            if reached <= value + ARMIJO * length * slope || better {
                (t, value, sums) = (trial, reached, trial_sums);
                break;
            }
            length *= 0.5;
            if length < 1e-12 {
                return Err(Error::NotConverged {
                    what: "the quadratic projection",
                    iterations: step,
                    reached: error,
                    tolerance: TOLERANCE,
                });
            }
        }
    }
    let reached = sums.iter().map(|s| (s - 1.0).abs()).fold(0.0, f64::max);
    Err(Error::NotConverged { what: "the quadratic projection", iterations: MAX_STEPS, reached, tolerance: TOLERANCE })
}

struct Dual<'a> {
    affinity: &'a [f64],
    side: usize,
    gamma: f64,
    diagonal: Diagonal,
}

impl Dual<'_> {
    /// `max(0, a_ij + t_i + t_j) / γ`.
    fn entry(&self, t: &[f64], i: usize, j: usize) -> f64 {
        if i == j && self.diagonal == Diagonal::Zero {
            return 0.0;
        }
        ((self.affinity[i * self.side + j] + (t[i] + t[j])) / self.gamma).max(0.0)
    }

    /// `φ` and the row sums.
    fn value(&self, t: &[f64]) -> (f64, Vec<f64>) {
        let rows: Vec<(f64, f64)> = (0..self.side)
            .into_par_iter()
            .map(|i| (0..self.side).map(|j| self.entry(t, i, j)).fold((0.0, 0.0), |(s, q), g| (s + g, q + g * g)))
            .collect();
        let squares: f64 = rows.iter().map(|r| r.1).sum();
        (0.5 * self.gamma * squares - 2.0 * t.iter().sum::<f64>(), rows.into_iter().map(|r| r.0).collect())
    }

    /// Newton's direction: `(2/γ)(diag(active per row) + active) d = −2 (sums − 1)`, slightly regularised.
    fn direction(&self, t: &[f64], sums: &[f64]) -> Vec<f64> {
        let n = self.side;
        let active: Vec<Vec<u32>> = (0..n)
            .into_par_iter()
            .map(|i| (0..n as u32).filter(|j| self.entry(t, i, *j as usize) > 0.0).collect())
            .collect();
        let right: Vec<f64> = sums.iter().map(|s| self.gamma * (1.0 - s)).collect();
        // Rows without active entries would leave the system singular.
        const RIDGE: f64 = 1e-6;
        conjugate_gradients(&right, 1e-6, 300, |x, out| {
            out.par_iter_mut().enumerate().for_each(|(i, out)| {
                let own = active[i].len() as f64 + RIDGE;
                *out = own * x[i] + active[i].iter().map(|j| x[*j as usize]).sum::<f64>();
            });
        })
        .0
    }

    fn matrix(&self, t: &[f64]) -> Vec<f64> {
        let n = self.side;
        let mut out = vec![0.0; n * n];
        out.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, row)| {
            row.iter_mut().enumerate().for_each(|(j, g)| *g = self.entry(t, i, j));
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    fn affinity(n: usize, seed: u64) -> Vec<f64> {
        let stream = Stream::new(seed, "affinity");
        (0..n * n)
            .map(|at| stream.uniform((at / n).min(at % n) as u64 * n as u64 + (at / n).max(at % n) as u64))
            .collect()
    }

    #[test]
    fn the_result_is_doubly_stochastic_sparse_and_optimal() {
        for (n, weight) in [(3, 1.0), (30, 0.5), (60, 4.0)] {
            let a = affinity(n, n as u64);
            let g = project(&a, n, weight, Diagonal::Zero).unwrap();
            for i in 0..n {
                assert!((g[i * n..(i + 1) * n].iter().sum::<f64>() - 1.0).abs() < 1e-6);
                assert_eq!(g[i * n + i], 0.0);
                assert!((0..n).all(|j| g[i * n + j] >= 0.0 && g[i * n + j] == g[j * n + i]));
            }
            if n > 3 {
                assert!(g.iter().filter(|g| **g == 0.0).count() > 2 * n, "sparse");
            }
            // No worse than any mixture with another doubly stochastic matrix.
            let flat = |i: usize, j: usize| if i == j { 0.0 } else { 1.0 / (n as f64 - 1.0) };
            let objective = |f: &dyn Fn(usize, usize) -> f64| {
                let mut sum = 0.0;
                for i in 0..n {
                    for j in 0..n {
                        sum += 0.5 * weight * f(i, j).powi(2) - a[i * n + j] * f(i, j);
                    }
                }
                sum
            };
            let best = objective(&|i, j| g[i * n + j]);
            for mix in [1e-3, 0.1, 1.0] {
                assert!(best <= objective(&|i, j| (1.0 - mix) * g[i * n + j] + mix * flat(i, j)) + 1e-7);
            }
        }
    }

    #[test]
    fn a_heavy_norm_spreads_evenly() {
        let n = 12;
        let g = project(&affinity(n, 1), n, 1e6, Diagonal::Keep).unwrap();
        assert!(g.iter().all(|g| (g - 1.0 / n as f64).abs() < 1e-5));
    }
}
