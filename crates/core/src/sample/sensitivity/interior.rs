//! The sensitivity of one row for `p = 1`: a primal-dual interior point method (Mehrotra's predictor and corrector).
//!
//! Primal: `min Σ(s + v)` subject to `Mx − s + v = 0`, `a·x = 1`, `s, v ≥ 0`. Dual: `max λ` subject to `MᵀY = λa`, `|Y| ≤ 1`.
//! Eliminating everything but `x` leaves a weighted least-squares problem per step, as in reweighted least squares, but the
//! iteration needs some fifteen steps where reweighting converges like its smoothing parameter allows. Every step certifies:
//! `λ|a·x| ≤ max|Y| ‖Mx‖₁` for every `x`.

use subspan_linalg::{Mat, apply, cholesky, gram};

use super::irls::Ratio;
use crate::sample::power::norm;

/// Steps; fifteen to twenty five are usual.
const MAX_ITERATIONS: usize = 100;

/// How far towards the boundary a step may go.
const TO_BOUNDARY: f64 = 0.9995;

/// Bounds `max |a·x| / ‖Mx‖₁` for orthonormal columns `M` (`m x r`) and a unit vector `a`.
pub(super) fn solve(m: &Mat, a: &[f64], tol: f64) -> Ratio {
    let (n, r) = (m.n_rows(), m.n_cols());
    // Feasible start: the least-squares solution x = a, and the dual Y = t Ma, λ = t (MᵀM = I) well inside the box.
    let mut x = a.to_vec();
    let mut residual = vec![0.0; n];
    apply::mul_vec(m.as_slice(), &x, &mut residual);
    let mut lambda = 0.5 / norm(&residual, f64::INFINITY);
    let mut dual: Vec<f64> = residual.iter().map(|v| lambda * v).collect();
    let slack = norm(&residual, 1.0) / n as f64;
    let mut s: Vec<f64> = residual.iter().map(|v| v.max(0.0) + slack).collect();
    let mut v: Vec<f64> = residual.iter().map(|v| (-v).max(0.0) + slack).collect();

    let mut ratio = Ratio { lower: 0.0, upper: f64::INFINITY, iterations: 0 };
    let mut step = Newton::new(n, r);
    for iteration in 0..=MAX_ITERATIONS {
        apply::mul_vec(m.as_slice(), &x, &mut residual);
        ratio.lower = ratio.lower.max(super::dot(a, &x).abs() / norm(&residual, 1.0));
        let mut error: Vec<f64> = a.iter().map(|v| -lambda * v).collect();
        apply::add_tr_mul_vec(m.as_slice(), &dual, &mut error);
        if lambda > 0.0 {
            // ‖x‖ = ‖Mx‖₂ ≤ ‖Mx‖₁ lets what is left of MᵀY − λa be a part of the bound.
            ratio.upper = ratio.upper.min((norm(&dual, f64::INFINITY) + norm(&error, 2.0)) / lambda);
        }
        ratio.iterations = iteration;
        if ratio.tight(1.0, tol) || iteration == MAX_ITERATIONS {
            break;
        }

        let gap = (0..n).map(|i| s[i] * (1.0 - dual[i]) + v[i] * (1.0 + dual[i])).sum::<f64>() / (2 * n) as f64;
        let primal_error: Vec<f64> = (0..n).map(|i| s[i] - v[i] - residual[i]).collect();
        let constraint_error = 1.0 - super::dot(a, &x);
        if !step.factor(m, a, &s, &v, &dual) {
            break;
        }
        for i in 0..n {
            step.c_s[i] = -s[i] * (1.0 - dual[i]);
            step.c_v[i] = -v[i] * (1.0 + dual[i]);
        }
        step.solve(m, a, &s, &v, &dual, &primal_error, &error, constraint_error);
        let (primal, dual_length) = step.lengths(&s, &v, &dual);
        let after = (0..n)
            .map(|i| {
                let y = dual_length * step.d_dual[i];
                (s[i] + primal * step.d_s[i]) * (1.0 - dual[i] - y)
                    + (v[i] + primal * step.d_v[i]) * (1.0 + dual[i] + y)
            })
            .sum::<f64>()
            / (2 * n) as f64;
        // Mehrotra: centre in proportion to the cube of how little the predictor alone achieves.
        let centre = gap * (after / gap).powi(3);
        for i in 0..n {
            step.c_s[i] += centre + step.d_s[i] * step.d_dual[i];
            step.c_v[i] += centre - step.d_v[i] * step.d_dual[i];
        }
        step.solve(m, a, &s, &v, &dual, &primal_error, &error, constraint_error);
        let (primal, dual_length) = step.lengths(&s, &v, &dual);
        if !(primal.is_finite() && dual_length.is_finite()) {
            break;
        }
        for i in 0..n {
            s[i] += primal * step.d_s[i];
            v[i] += primal * step.d_v[i];
            dual[i] += dual_length * step.d_dual[i];
        }
        x.iter_mut().zip(&step.d_x).for_each(|(x, d)| *x += primal * d);
        lambda += dual_length * step.d_lambda;
    }
    ratio
}

/// One Newton system: factored once, solved for predictor and corrector.
struct Newton {
    /// Right-hand sides of `(1 − Y)∘s` and `(1 + Y)∘v`.
    c_s: Vec<f64>,
    c_v: Vec<f64>,
    d_s: Vec<f64>,
    d_v: Vec<f64>,
    d_dual: Vec<f64>,
    d_x: Vec<f64>,
    d_lambda: f64,
    weights: Vec<f64>,
    q: Mat,
    factor: Option<subspan_linalg::Cholesky>,
    /// `Q⁻¹a` and `aᵀQ⁻¹a`.
    q_inv_a: Vec<f64>,
    inverse: f64,
}

impl Newton {
    fn new(n: usize, r: usize) -> Self {
        let zeros = || vec![0.0; n];
        Self {
            c_s: zeros(),
            c_v: zeros(),
            d_s: zeros(),
            d_v: zeros(),
            d_dual: zeros(),
            d_x: vec![0.0; r],
            d_lambda: 0.0,
            weights: zeros(),
            q: Mat::zeros(r, r),
            factor: None,
            q_inv_a: Vec::new(),
            inverse: 0.0,
        }
    }

    /// `Q = Mᵀ D M`, `D = 1/(s/(1−Y) + v/(1+Y))`. False when `Q` is numerically singular: the solution cannot be improved.
    fn factor(&mut self, m: &Mat, a: &[f64], s: &[f64], v: &[f64], dual: &[f64]) -> bool {
        for (i, w) in self.weights.iter_mut().enumerate() {
            *w = (s[i] / (1.0 - dual[i]) + v[i] / (1.0 + dual[i])).recip();
        }
        self.q.as_mut_slice().fill(0.0);
        gram::add_weighted_gram(m.as_slice(), m.n_cols(), &self.weights, self.q.as_mut_slice());
        gram::symmetrize(self.q.as_mut_slice(), m.n_cols());
        let Ok(factor) = cholesky(&self.q) else { return false };
        self.q_inv_a = factor.solve(a);
        self.inverse = super::dot(a, &self.q_inv_a);
        self.factor = Some(factor);
        self.inverse > 0.0
    }

    /// The step for the current right-hand sides; `dual_error = MᵀY − λa`, `primal_error = s − v − Mx`.
    fn solve(
        &mut self,
        m: &Mat,
        a: &[f64],
        s: &[f64],
        v: &[f64],
        dual: &[f64],
        primal_error: &[f64],
        dual_error: &[f64],
        constraint_error: f64,
    ) {
        let Some(factor) = &self.factor else { return };
        let n = s.len();
        // ds = (c_s + s dY)/(1−Y), dv = (c_v − v dY)/(1+Y), M dx − ds + dv = primal_error  ⇒  dY = D (M dx − h).
        let h: Vec<f64> =
            (0..n).map(|i| self.c_s[i] / (1.0 - dual[i]) - self.c_v[i] / (1.0 + dual[i]) + primal_error[i]).collect();
        let weighted: Vec<f64> = h.iter().zip(&self.weights).map(|(h, w)| h * w).collect();
        let mut rhs: Vec<f64> = dual_error.iter().map(|e| -e).collect();
        apply::add_tr_mul_vec(m.as_slice(), &weighted, &mut rhs);
        let free = factor.solve(&rhs);
        self.d_lambda = (constraint_error - super::dot(a, &free)) / self.inverse;
        for ((d, f), q) in self.d_x.iter_mut().zip(&free).zip(&self.q_inv_a) {
            *d = f + self.d_lambda * q;
        }
        apply::mul_vec(m.as_slice(), &self.d_x, &mut self.d_dual);
        for i in 0..n {
            let y = self.weights[i] * (self.d_dual[i] - h[i]);
            self.d_dual[i] = y;
            self.d_s[i] = (self.c_s[i] + s[i] * y) / (1.0 - dual[i]);
            self.d_v[i] = (self.c_v[i] - v[i] * y) / (1.0 + dual[i]);
        }
    }

    /// The longest steps that keep `s, v > 0` (primal) and `|Y| < 1` (dual), at most one.
    fn lengths(&self, s: &[f64], v: &[f64], dual: &[f64]) -> (f64, f64) {
        let (mut primal, mut dual_length) = (1.0f64, 1.0f64);
        let limit = |value: f64, change: f64| if change < 0.0 { TO_BOUNDARY * value / -change } else { 1.0 };
        for i in 0..s.len() {
            primal = primal.min(limit(s[i], self.d_s[i])).min(limit(v[i], self.d_v[i]));
            dual_length =
                dual_length.min(limit(1.0 - dual[i], -self.d_dual[i])).min(limit(1.0 + dual[i], self.d_dual[i]));
        }
        (primal, dual_length)
    }
}
