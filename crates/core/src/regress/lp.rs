//! `Σ u |r|^p` for `p > 1`: reweighted least squares, which for `p ≥ 2` with step `1/(p − 1)` is Newton's method.
//!
//! With `W = u |r|^(p−2)` the direction goes to the weighted least-squares fit `x + dx`, and `y = W (r − A dx)` satisfies
//! `Aᵀ y = 0`. By Hölder's inequality `bᵀ y / ‖u^(−1/p) y‖_{p/(p−1)}` is at most the p-th root of the optimum (derived in the
//! method note, section 3.6). Above `p = 8` the optimum for half the exponent is the start (homotopy, after Adil, Peng and
//! Sachdeva, "Fast, provably convergent IRLS for p-norm regression", NeurIPS 2019).

use serde::{Deserialize, Serialize};

use super::passes;
use super::smooth::{self, DualSums, Goal, Minimum, SmoothLoss};
use super::table::Table;
use crate::error::Result;
use crate::observe::Observer;

/// The loss `|r|^p`, residuals measured in units of `scale`.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Lp {
    p: f64,
    scale: f64,
    /// Residuals below this (in units of `scale`) are weighed as if they were it.
    floor: f64,
}

impl Lp {
    /// The loss for residuals of up to `scale`.
    pub(super) fn new(p: f64, scale: f64) -> Self {
        let floor =
            if p >= 2.0 { SMALL_RESIDUAL.max(SMALL_WEIGHT.powf((p - 2.0).recip())) } else { SMALL_RESIDUAL_BELOW_TWO };
        Self { p, scale, floor }
    }

    /// What a loss in units of `scale^p` is in the target's own unit.
    pub(super) fn unit(&self) -> f64 {
        self.scale.powf(self.p)
    }
}

/// The share of the largest residual below which weights are held constant (method note, section 3.4).
const SMALL_RESIDUAL: f64 = 1e-7;

/// Likewise for `p < 2`, where small residuals weigh most; far enough below a typical residual of heavy-tailed data.
const SMALL_RESIDUAL_BELOW_TWO: f64 = 1e-12;

/// Smallest weight relative to the largest one: above it the normal equations stay regular.
const SMALL_WEIGHT: f64 = 1e-14;

/// The largest exponent that is solved from the least-squares fit at once.
const DIRECT: f64 = 8.0;

impl SmoothLoss for Lp {
    const PASSES: [&'static str; 2] = ["evaluate-lp", "losses-lp"];

    fn at(&self, eta: f64, b: f64, u: f64, _: f64) -> [f64; 3] {
        let r = b - eta;
        let size = (r / self.scale).abs();
        if self.p == 2.0 {
            return [u * size * size, u * r, u];
        }
        let weight = u * size.max(self.floor).powf(self.p - 2.0);
        let loss = if size >= self.floor { weight * size * size } else { u * size.powf(self.p) };
        [loss, weight * r, weight]
    }

    fn trimmed(&self, eta: f64, d_eta: f64, b: f64, u: f64) -> f64 {
        // The dual norm has the exponent p/(p − 1): a y within (1 + (p − 1)/p) of its own |r|^(p − 1) costs at most a factor e.
        let room = (b - eta).abs().max(self.floor * self.scale) * (self.p - 1.0) / self.p;
        self.at(eta, b, u, 1.0)[2] * (room / d_eta.abs()).min(1.0)
    }

    fn add_dual(&self, sums: &mut DualSums, eta: f64, b: f64, u: f64, y: f64) {
        let y = y / self.scale;
        sums.linear += y * ((b - eta) / self.scale);
        if u > 0.0 {
            let q = self.p / (self.p - 1.0);
            sums.conjugate += if self.p == 2.0 { y * y / u } else { (y.abs() / u).powf(q) * u };
        }
    }

    fn bound(&self, sums: &DualSums, _: f64) -> f64 {
        if sums.linear > 0.0 && sums.conjugate > 0.0 {
            (self.p * sums.linear.ln() - (self.p - 1.0) * sums.conjugate.ln()).exp()
        } else {
            0.0
        }
    }

    fn first_step(&self, gap: f64, short: bool) -> f64 {
        // Below two Newton's step is the longer one: quadratic where residuals stay away from zero, but one that should
        // become zero only changes its sign. The short step takes that one to zero.
        let newton = (self.p - 1.0).recip();
        if self.p >= 2.0 || (gap < NEAR && !short) { newton } else { 1.0 }
    }

    fn quadratic(&self) -> bool {
        self.p == 2.0
    }

    fn exact_fit(&self, at_zero: f64) -> f64 {
        at_zero * super::interior_point::EXACT_FIT.powf(self.p)
    }
}

/// Relative gap below which Newton's longer step is tried for `p < 2`.
const NEAR: f64 = 0.1;

/// Minimises `Σ u |r|^p`, from `start` or from zero. Objective and bound are in the target's own unit.
///
/// # Errors
/// What [`smooth::minimise`] reports.
pub(super) fn minimise(
    table: &impl Table,
    p: f64,
    start: Option<&[f64]>,
    goal: &Goal<'_>,
    observer: &dyn Observer,
) -> Result<Minimum> {
    let zero = vec![0.0; table.n_features()];
    let mut iterations = 0;
    let mut x = match start {
        Some(x) => x.to_vec(),
        None => {
            let squares = smooth::minimise(table, &Lp::new(2.0, 1.0), &zero, goal, observer)?;
            if p == 2.0 || squares.objective <= squares.exact_fit {
                let at_zero = if p == 2.0 { 0.0 } else { squares.exact_fit };
                return Ok(Minimum { exact_fit: squares.exact_fit.max(at_zero), ..squares });
            }
            iterations = squares.iterations;
            squares.coefficients
        }
    };
    let mut exponents = vec![p];
    if start.is_none() {
        while exponents.last().is_some_and(|q| *q > DIRECT) {
            exponents.push(exponents.last().copied().unwrap_or(p) / 2.0);
        }
    }
    exponents.reverse();
    for (stage, q) in exponents.iter().enumerate() {
        let scale = passes::largest_residual(table, &x)?;
        let loss = Lp::new(*q, if scale > 0.0 { scale } else { 1.0 });
        let last = stage + 1 == exponents.len();
        let goal = Goal { tolerance: if last { goal.tolerance } else { goal.tolerance.max(STAGE) }, ..*goal };
        let mut found = smooth::minimise(table, &loss, &x, &goal, observer)?;
        iterations += found.iterations;
        if last {
            let unit = loss.unit();
            found.objective *= unit;
            found.lower *= unit;
            found.exact_fit *= unit;
            found.iterations = iterations;
            return Ok(found);
        }
        x = found.coefficients;
    }
    unreachable!("the exponents end with p")
}

/// Relative gap at which a stage of the homotopy hands on.
const STAGE: f64 = 1e-2;
