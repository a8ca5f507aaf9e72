//! Any loss on rows in memory.

use subspan_linalg::Mat;

use super::condition::{Basis, Design};
use super::config::Loss;
use super::huber::Huber;
use super::interior_point::{self, EXACT_FIT, Problem};
use super::logistic::Logistic;
use super::smooth::{self, Goal, Minimum};
use super::table::Table;
use super::{lp, separable};
use crate::error::{Error, Result};
use crate::observe::Observer;

/// A solved fit, in the units of the columns given.
#[derive(Debug, Clone)]
pub(super) struct Solved {
    /// One per feature column of the design, the constant column included.
    pub(super) coefficients: Vec<f64>,
    /// Weighted loss over the rows solved, with the penalty.
    pub(super) objective: f64,
    /// No coefficients do better than this on these rows.
    pub(super) lower: f64,
    /// A loss of this size is rounding.
    pub(super) exact_fit: f64,
    pub(super) iterations: usize,
}

impl Solved {
    pub(super) fn relative_gap(&self) -> f64 {
        smooth::relative_gap(self.objective, self.lower, self.exact_fit)
    }
}

/// Relative gap that the solvers reach in memory.
pub(super) const TOLERANCE: f64 = 1e-10;

/// Relative gap above which a fit counts as not converged, when rounding stops an iteration early.
pub(super) const ACCEPTED: f64 = 1e-8;

/// Iterations of a smooth loss: Newton needs 5 to 20, reweighting near `p = 1` a few hundred.
pub(super) const MAX_ITERATIONS: usize = 500;

/// The quantile and the factor that turn a piecewise linear loss into pinball losses; `None` for smooth losses.
pub(super) fn pinball_levels(loss: &Loss) -> Option<(Vec<f64>, f64)> {
    match loss {
        // |r| is twice the pinball loss of the median.
        Loss::L1 => Some((vec![0.5], 2.0)),
        Loss::Lp { p } if *p == 1.0 => Some((vec![0.5], 2.0)),
        Loss::Quantile { levels } => Some((levels.clone(), 1.0)),
        _ => None,
    }
}

/// The basis that a loss can be solved in.
pub(super) fn basis(loss: &Loss) -> Basis {
    match loss {
        Loss::Logistic { l2 } if *l2 > 0.0 => Basis::Scaled,
        _ => Basis::Whitened,
    }
}

/// The penalty `K` on the solvers' coefficients: `l2` on every slope, nothing on the constant column, which is the last.
pub(super) fn penalty(loss: &Loss, intercept: bool, factor: Option<&Mat>, n_features: usize) -> Option<Mat> {
    match loss {
        Loss::Logistic { l2 } if *l2 > 0.0 => Some(Mat::from_fn(n_features, n_features, |i, j| {
            let scale = factor.map_or(1.0, |f| f[(i, i)]);
            if i != j || (intercept && i + 1 == n_features) { 0.0 } else { l2 * scale * scale }
        })),
        _ => None,
    }
}

/// Whether classes must be checked for separation after the fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Separation {
    /// Only when margins have grown suspiciously large.
    WhenSuspicious,
    /// Always, and report the figure.
    Measure,
}

/// Solves `loss` on the design to a relative gap of [`TOLERANCE`]: one fit per quantile, else one.
///
/// # Errors
/// [`Error::NotConverged`], [`Error::Separable`], [`Error::Cancelled`].
pub(super) fn solve(
    design: &Design<'_>,
    loss: &Loss,
    intercept: bool,
    tolerance: f64,
    separation: Separation,
    warnings: &mut Vec<String>,
    observer: &dyn Observer,
) -> Result<Vec<Solved>> {
    if design.dependent {
        warnings.push("columns depend on each other: other coefficients give the same fit".into());
    }
    if let Some((levels, times)) = pinball_levels(loss) {
        return levels.iter().map(|t| pinball(design, *t, times, tolerance, None, observer)).collect();
    }
    let table = design.table(observer);
    let k = design.n_cols - 1;
    let penalty = penalty(loss, intercept, design.factor.as_ref(), k);
    let goal = Goal { tolerance, max_iterations: MAX_ITERATIONS, penalty: penalty.as_ref() };
    let found = smooth_minimum(&table, loss, design.target_scale, None, &goal, observer)?;
    if matches!(loss, Loss::Logistic { l2 } if *l2 == 0.0)
        && (separation == Separation::Measure || separable::suspicious(&table, &found.coefficients)?)
    {
        separable::check(design, warnings, observer)?;
    }
    judged(&found, tolerance)?;
    let unit = design.target_scale.powf(target_power(loss));
    Ok(vec![Solved {
        coefficients: design.coefficients(&found.coefficients),
        objective: found.objective * unit,
        lower: found.lower * unit,
        exact_fit: found.exact_fit * unit,
        iterations: found.iterations,
    }])
}

/// The power of the target's unit that a loss is measured in.
pub(super) fn target_power(loss: &Loss) -> f64 {
    match loss {
        Loss::L1 | Loss::Quantile { .. } => 1.0,
        Loss::L2 | Loss::Huber { .. } => 2.0,
        Loss::Lp { p } => *p,
        Loss::Logistic { .. } => 0.0,
    }
}

/// Minimises a smooth loss over a table whose targets are divided by `target_scale`, from `start` or from nothing.
///
/// # Errors
/// As [`smooth::minimise`].
pub(super) fn smooth_minimum(
    table: &impl Table,
    loss: &Loss,
    target_scale: f64,
    start: Option<&[f64]>,
    goal: &Goal<'_>,
    observer: &dyn Observer,
) -> Result<Minimum> {
    match loss {
        Loss::Lp { p } => lp::minimise(table, *p, start, goal, observer),
        Loss::Huber { delta } => {
            let huber = Huber { delta: delta / target_scale };
            let squares = match start {
                Some(x) => x.to_vec(),
                None => lp::minimise(table, 2.0, None, goal, observer)?.coefficients,
            };
            smooth::minimise(table, &huber, &squares, goal, observer)
        }
        Loss::Logistic { .. } => {
            let zero = vec![0.0; table.n_features()];
            smooth::minimise(table, &Logistic, start.unwrap_or(&zero), goal, observer)
        }
        Loss::L1 | Loss::L2 | Loss::Quantile { .. } => lp::minimise(table, 2.0, start, goal, observer),
    }
}

/// An error if the gap is not acceptable.
pub(super) fn judged(found: &Minimum, tolerance: f64) -> Result<()> {
    let reached = found.relative_gap();
    if reached <= tolerance.max(ACCEPTED) {
        return Ok(());
    }
    Err(Error::NotConverged { what: "the regression", iterations: found.iterations, reached, tolerance })
}

/// One quantile regression, its loss multiplied by `times`.
///
/// # Errors
/// As [`interior_point::solve`].
pub(super) fn pinball(
    design: &Design<'_>,
    level: f64,
    times: f64,
    tolerance: f64,
    start: Option<&[f64]>,
    observer: &dyn Observer,
) -> Result<Solved> {
    let problem =
        Problem { values: &design.values, n_cols: design.n_cols, weights: design.weights.as_deref(), level, tolerance };
    let found = interior_point::solve(&problem, start, observer)?;
    let unit = times * design.target_scale;
    Ok(Solved {
        coefficients: design.coefficients(&found.coefficients),
        objective: found.objective * unit,
        lower: found.lower * unit,
        exact_fit: found.at_zero * EXACT_FIT * unit,
        iterations: found.iterations,
    })
}
