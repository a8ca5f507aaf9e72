//! The sensitivity of one row for `p > 1`, `p ≠ 2`: damped iteratively reweighted least squares with a dual bound at every step.
//!
//! `min ‖Mx‖_p` subject to `a·x = 1`. With weights `W`, `Q = MᵀWM` and `y = Q⁻¹a / (aᵀQ⁻¹a)`, the vector `Y = WMy` satisfies
//! `MᵀY = λa` with `λ = 1 / (aᵀQ⁻¹a)`; hence `λ|a·x| ≤ ‖Y‖_{p'} ‖Mx‖_p` for every `x` (Hölder), whatever the weights were. The
//! weights `|Mx|^(p−2)` make the bound tight at the optimum. For `p > 2` the step of length `1/(p−1)` towards `y` is Newton's;
//! for `p < 2` the full step always decreases the norm, by the rate `2 − p`. (Newton's longer step, and Newton's method on the
//! dual, save iterations there on well-behaved rows, but stall on heavy ones.)

use subspan_linalg::{Mat, apply, cholesky, gram};

use super::dot;
use crate::sample::power::{Power, norm};

/// Iterations of the final solve; only `p < 1.02` comes near it.
const MAX_ITERATIONS: usize = 300;

/// Residuals below this part of the largest are weighted as if they had this size.
const RESIDUAL_FLOOR: f64 = 1e-7;

/// Weights below this part of the largest would only make `Q` singular: they move the bound by less than rounding.
const WEIGHT_FLOOR: f64 = 1e-13;

/// Largest `p` solved from the least-squares start; larger ones are reached by doubling.
const DIRECT_P: f64 = 8.0;

/// Iterations and tolerance of the solves on the way to a large `p`.
const STAGE: (usize, f64) = (20, 1e-2);

/// Halvings of a step before the iteration counts as stalled.
const MAX_HALVINGS: usize = 40;

/// Bounds on `max |a·x| / ‖Mx‖_p`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ratio {
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) iterations: usize,
}

impl Ratio {
    /// Whether `(upper/lower)^p ≤ 1 + tol`.
    pub(super) fn tight(&self, p: f64, tol: f64) -> bool {
        (self.upper / self.lower).powf(p) <= 1.0 + tol
    }
}

/// Bounds `max |a·x| / ‖Mx‖_p` for orthonormal columns `M` (`m x r`) and a unit vector `a`.
pub(super) fn solve(m: &Mat, a: &[f64], p: f64, tol: f64) -> Ratio {
    // M has orthonormal columns, so the least-squares solution is x = a.
    let mut residual = vec![0.0; m.n_rows()];
    apply::mul_vec(m.as_slice(), a, &mut residual);
    let mut stage = p;
    while stage > DIRECT_P {
        stage /= 2.0;
    }
    let mut before = 0;
    while stage < p {
        before += iterate(m, a, &mut residual, stage, STAGE.1, STAGE.0).iterations;
        stage = p.min(2.0 * stage);
    }
    let last = iterate(m, a, &mut residual, p, tol, MAX_ITERATIONS);
    Ratio { iterations: before + last.iterations, ..last }
}

/// Starts from `residual = Mx` with `a·x = 1` and leaves the best such vector there.
fn iterate(m: &Mat, a: &[f64], residual: &mut Vec<f64>, p: f64, tol: f64, max_iterations: usize) -> Ratio {
    let (n, r) = (m.n_rows(), m.n_cols());
    let dual_p = p / (p - 1.0);
    // ‖x‖ = ‖Mx‖₂ ≤ this · ‖Mx‖_p: turns what rounding leaves of MᵀY − λa into a part of the bound.
    let two_over_p = (n as f64).powf((0.5 - p.recip()).max(0.0));
    let weight_power = Power::new(p - 2.0);
    let full_step = (p - 1.0).recip().min(1.0);

    let mut size = norm(residual, p);
    let mut ratio = Ratio { lower: size.recip(), upper: f64::INFINITY, iterations: 0 };
    let (mut weights, mut target, mut dual, mut trial) = (vec![0.0; n], vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let mut q = Mat::zeros(r, r);

    for iteration in 1..=max_iterations {
        let largest = norm(residual, f64::INFINITY);
        for (w, v) in weights.iter_mut().zip(residual.iter()) {
            *w = weight_power.of((v.abs() / largest).max(RESIDUAL_FLOOR)).max(WEIGHT_FLOOR);
        }
        q.as_mut_slice().fill(0.0);
        gram::add_weighted_gram(m.as_slice(), r, &weights, q.as_mut_slice());
        gram::symmetrize(q.as_mut_slice(), r);
        let Ok(factor) = cholesky(&q) else { break };
        let mut y = factor.solve(a);
        let inverse = dot(a, &y);
        if !(inverse > 0.0 && inverse.is_finite()) {
            break;
        }
        let lambda = inverse.recip();
        y.iter_mut().for_each(|v| *v *= lambda);

        apply::mul_vec(m.as_slice(), &y, &mut target);
        for ((d, w), t) in dual.iter_mut().zip(&weights).zip(&target) {
            *d = w * t;
        }
        let mut error: Vec<f64> = a.iter().map(|v| -lambda * v).collect();
        apply::add_tr_mul_vec(m.as_slice(), &dual, &mut error);
        ratio.upper = ratio.upper.min((norm(&dual, dual_p) + norm(&error, 2.0) * two_over_p) / lambda);
        ratio.iterations = iteration;

        let mut step = full_step;
        let mut improved = false;
        for _ in 0..MAX_HALVINGS {
            for ((t, v), y) in trial.iter_mut().zip(residual.iter()).zip(&target) {
                *t = v + step * (y - v);
            }
            let trial_size = norm(&trial, p);
            if trial_size < size {
                size = trial_size;
                improved = true;
                break;
            }
            step /= 2.0;
        }
        if improved {
            std::mem::swap(residual, &mut trial);
            ratio.lower = size.recip();
        }
        if !improved || ratio.tight(p, tol) {
            break;
        }
    }
    ratio
}
