//! Smooth convex losses by damped Newton and reweighted least squares, each step with a dual bound.
//!
//! At coefficients `x` a row with predictor `η = a·x` has a loss `ℓ`, a slope `g = −dℓ/dη` and a curvature `h ≥ 0` (the second
//! derivative, or a majorant of it). The direction solves `(Σ h a aᵀ + K) dx = Σ g a − K x`, and then `y = g − h dη` satisfies
//! `Aᵀ y = K (x + dx)` exactly: a feasible point of the dual problem that no further work is needed for. One pass evaluates
//! the loss, slope and curvature at the next `x` and the dual value of the last direction.
//!
//! Nothing is kept per row, so the same code solves tables in memory and streams. Cost: one pass of `n (d+1)² + 6 n d` flop
//! per iteration.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use subspan_linalg::Mat;

use super::normal::Normal;
use super::passes::{Along, CONFIDENT, Curvature, Evaluation, evaluate, losses};
use super::table::Table;
use crate::error::{Error, Result};
use crate::observe::{Observer, metric};

/// A loss of one row; `u` is the row's weight.
pub(super) trait SmoothLoss: Clone + Serialize + DeserializeOwned + Sync {
    /// Names of its passes: loss, slope and curvature at one place; the loss alone at several.
    const PASSES: [&'static str; 2];

    /// `(ℓ, g, h)` at predictor `eta` and target `b`. `caution` in (0, 1] asks for a curvature between Newton's (0) and one
    /// that majorises the loss (1).
    fn at(&self, eta: f64, b: f64, u: f64, caution: f64) -> [f64; 3];

    /// A curvature so small that `g − h dη` stays well inside what the dual allows, for any `dη` up to the one given.
    fn trimmed(&self, eta: f64, d_eta: f64, b: f64, u: f64) -> f64;

    /// Adds a row's part of the dual value at `y`; `eta` is the predictor of `x + dx`.
    fn add_dual(&self, sums: &mut DualSums, eta: f64, b: f64, u: f64, y: f64);

    /// The dual value: a lower bound of the optimum. `penalty` is `½ (x + dx)ᵀ K (x + dx)`.
    fn bound(&self, sums: &DualSums, penalty: f64) -> f64;

    /// The step to try first, given the relative gap; `short` after an iteration that gained little with the other choice.
    fn first_step(&self, gap: f64, short: bool) -> f64 {
        let _ = (gap, short);
        1.0
    }

    /// Whether the curvature is the same everywhere.
    fn quadratic(&self) -> bool {
        false
    }

    /// Below this a loss is rounding, given the loss of coefficients zero.
    fn exact_fit(&self, at_zero: f64) -> f64;

    /// Whether predictors with this smallest margin prove that no finite optimum exists.
    fn diverges(&self, smallest_margin: f64) -> bool {
        let _ = smallest_margin;
        false
    }
}

/// Sums of a dual point, in each loss's own meaning.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct DualSums {
    pub(super) linear: f64,
    pub(super) conjugate: f64,
    /// Largest ratio of a coordinate to its bound.
    pub(super) largest: f64,
    pub(super) infeasible: bool,
}

/// A minimiser and its proof.
#[derive(Debug, Clone)]
pub(super) struct Minimum {
    pub(super) coefficients: Vec<f64>,
    /// Losses and penalty at the coefficients.
    pub(super) objective: f64,
    /// Best dual value seen.
    pub(super) lower: f64,
    pub(super) iterations: usize,
    /// Absolute loss that counts as zero.
    pub(super) exact_fit: f64,
}

impl Minimum {
    /// `(objective − lower) / lower`, zero for an exact fit.
    pub(super) fn relative_gap(&self) -> f64 {
        relative_gap(self.objective, self.lower, self.exact_fit)
    }
}

/// `(objective − lower) / lower`; zero where the objective is rounding, infinite where nothing is proved.
pub(super) fn relative_gap(objective: f64, lower: f64, exact_fit: f64) -> f64 {
    if objective <= exact_fit {
        0.0
    } else if lower > 0.0 {
        (objective - lower).max(0.0) / lower
    } else {
        f64::INFINITY
    }
}

/// Settings of [`minimise`].
pub(super) struct Goal<'a> {
    /// Relative gap to reach.
    pub(super) tolerance: f64,
    /// Iterations to spend; what is reached then is returned.
    pub(super) max_iterations: usize,
    /// `K`, for a penalty `½ xᵀ K x`.
    pub(super) penalty: Option<&'a Mat>,
}

/// Trial steps of one line-search pass, halved each time.
const TRIALS: i32 = 10;

/// Relative increase of a loss that is rounding in a sum of many terms.
const ROUNDING: f64 = 1e-13;

/// An iteration that leaves more than this share of the gap was slow.
const GAINED: f64 = 0.5;

/// Iterations that start cautious.
const CAUTIOUS_ITERATIONS: usize = 2;

/// Share of `Σ |y a|` up to which `Aᵀ y` counts as balanced: a tenth of the gap that the exact mode promises.
const BALANCED: f64 = 1e-9;

/// The linear system of a step: curvature and penalty.
struct Step<'a> {
    system: Normal,
    penalty: Option<&'a Mat>,
}

impl<'a> Step<'a> {
    fn new(mut gram: Vec<f64>, penalty: Option<&'a Mat>, k: usize) -> Result<Self> {
        if let Some(p) = penalty {
            for i in 0..k {
                for j in i..k {
                    gram[i * (k + 1) + j] += p[(i, j)];
                }
            }
        }
        Ok(Self { system: Normal::new(&gram, k + 1, k)?, penalty })
    }

    /// `dx` at `x`, where the losses slope by `slope`.
    fn direction(&self, slope: &[f64], x: &[f64]) -> Vec<f64> {
        let mut right = slope[..x.len()].to_vec();
        if let Some(p) = self.penalty {
            right.iter_mut().zip(p.mul_vec(x)).for_each(|(r, kx)| *r -= kx);
        }
        self.system.solve(&right)
    }
}

/// The dual value of the point that the evaluation saw at `target = x + dx`; zero if it is not feasible.
fn dual_value<L: SmoothLoss>(loss: &L, found: &Evaluation, penalty: Option<&Mat>, target: &[f64]) -> f64 {
    let pull = penalty.map(|p| p.mul_vec(target));
    let [balance, size] = &found.balance;
    for j in 0..target.len().min(balance.len()) {
        let wanted = pull.as_ref().map_or(0.0, |p| p[j]);
        if (balance[j] - wanted).abs() > BALANCED * (size[j] + wanted.abs()) {
            return 0.0;
        }
    }
    let bound = loss.bound(&found.dual, pull.map_or(0.0, |p| 0.5 * dot(&p, target)));
    if bound.is_finite() { bound } else { 0.0 }
}

fn moved(x: &[f64], step: f64, dx: &[f64]) -> Vec<f64> {
    x.iter().zip(dx).map(|(x, d)| x + step * d).collect()
}

/// Minimises `Σ ℓ + ½ xᵀ K x` from `start`.
///
/// Returns what it reached after `max_iterations` or when no step lowers the loss any more; the caller judges the gap.
///
/// # Errors
/// [`Error::Separable`] when the loss can be lowered for ever; [`Error::Cancelled`] and what the table reports.
pub(super) fn minimise<L: SmoothLoss>(
    table: &impl Table,
    loss: &L,
    start: &[f64],
    goal: &Goal<'_>,
    observer: &dyn Observer,
) -> Result<Minimum> {
    let k = table.n_features();
    let zero = vec![0.0; k];
    let mut x = start.to_vec();
    let penalised = |x: &[f64]| goal.penalty.map_or(0.0, |p| 0.5 * dot(x, &p.mul_vec(x)));
    let mut caution = 1.0;
    let mut here = evaluate(table, loss, &Along::at(&x, &zero, Curvature::Cautious(caution)))?;
    let at_zero =
        if start.iter().all(|v| *v == 0.0) { here.loss } else { losses(table, loss, &zero, &zero, &[0.0])?[0] };
    let mut minimum = Minimum {
        coefficients: Vec::new(),
        objective: here.loss + penalised(&x),
        lower: 0.0,
        iterations: 0,
        exact_fit: loss.exact_fit(at_zero),
    };
    let mut step_system: Option<Step<'_>> = None;
    let mut stalled = 0;
    let mut short = false;
    while minimum.iterations < goal.max_iterations && minimum.relative_gap() > goal.tolerance && stalled < STALLED {
        minimum.iterations += 1;
        let system = match step_system.take() {
            Some(system) if loss.quadratic() => system,
            _ => Step::new(std::mem::take(&mut here.gram), goal.penalty, k)?,
        };
        let dx = system.direction(&here.slope, &x);
        let gap = minimum.relative_gap();
        let mut step = loss.first_step(gap, short);
        let before = Curvature::Cautious(caution);
        caution = if minimum.iterations < CAUTIOUS_ITERATIONS { 1.0 } else { CONFIDENT };
        let gram = |caution| if loss.quadratic() { Curvature::None } else { Curvature::Cautious(caution) };
        let check = system.system.singular();
        let along = Along { x: &x, dx: &dx, step, dual: before, gram: gram(caution), trim: &[], check };
        let mut next = evaluate(table, loss, &along)?;
        minimum.lower = minimum.lower.max(dual_value(loss, &next, goal.penalty, &moved(&x, 1.0, &dx)));

        let total = |losses: f64, step: f64| losses + penalised(&moved(&x, step, &dx));
        let fell = |value: f64| value <= minimum.objective + ROUNDING * minimum.objective.abs();
        if !fell(total(next.loss, step)) {
            // Take the best of ever shorter steps, and a cautious curvature there.
            caution = 1.0;
            let halved = |halvings: std::ops::Range<i32>| -> Result<(f64, f64)> {
                let steps: Vec<f64> = halvings.map(|i| step.min(1.0) * 0.5f64.powi(i)).collect();
                let found = losses(table, loss, &x, &dx, &steps)?;
                Ok(found.iter().zip(&steps).fold((f64::INFINITY, 0.0), |best, (found, step)| {
                    let value = total(*found, *step);
                    if value < best.0 { (value, *step) } else { best }
                }))
            };
            let (mut best, mut at) = halved(0..TRIALS)?;
            let majorant = before == Curvature::Cautious(1.0);
            if majorant && !fell(best) {
                // Heavy tails to a high power: one row's curvature is all that the system sees.
                (best, at) = halved(TRIALS..4 * TRIALS)?;
            }
            if !fell(best) {
                if majorant {
                    break;
                }
                // Newton's direction leads nowhere from here; the majorant's always descends.
                here = evaluate(table, loss, &Along::at(&x, &zero, Curvature::Cautious(1.0)))?;
                continue;
            }
            step = at;
            next = evaluate(table, loss, &Along { step, dual: Curvature::None, gram: gram(caution), ..along })?;
        }
        let reached = total(next.loss, step);
        let progress = minimum.objective - reached;
        stalled = if progress > ROUNDING * reached.abs() { 0 } else { stalled + 1 };
        x = moved(&x, step, &dx);
        minimum.objective = reached;
        if goal.penalty.is_none() && loss.diverges(next.smallest_margin) {
            return Err(Error::Separable);
        }
        if minimum.relative_gap() > GAINED * gap {
            short = !short;
        }
        here = next;
        step_system = Some(system);
        metric(observer, "relative_gap", minimum.relative_gap());
    }
    if loss.quadratic()
        && let Some(system) = &step_system
    {
        // The slope of the last pass pays for one more step of refinement.
        let dx = system.direction(&here.slope, &x);
        x = moved(&x, 1.0, &dx);
    }
    minimum.lower = minimum.lower.min(minimum.objective);
    minimum.coefficients = x;
    Ok(minimum)
}

/// Steps without progress that end the iteration.
const STALLED: usize = 3;

/// Directions of [`certify`]: the bound settles after two or three, heavy rows take more.
const TRIMS: usize = 6;

/// Relative gain of a bound below which [`certify`] stops.
const GAIN: f64 = 1e-3;

/// The loss at `x` and a lower bound of the optimum, for an `x` that need not be close to it: three to eight passes.
///
/// The Newton direction shows how far predictors may move; further directions, with the curvature trimmed where such moves
/// would leave the dual's bounds, give dual points that are feasible far from the optimum too.
///
/// # Errors
/// What the table reports.
pub(super) fn certify<L: SmoothLoss>(
    table: &impl Table,
    loss: &L,
    x: &[f64],
    penalty: Option<&Mat>,
) -> Result<Minimum> {
    let k = x.len();
    let zero = vec![0.0; k];
    let newton = Curvature::Cautious(CONFIDENT);
    let mut here = evaluate(table, loss, &Along::at(x, &zero, newton))?;
    let objective = here.loss + penalty.map_or(0.0, |p| 0.5 * dot(x, &p.mul_vec(x)));
    let mut reach: Vec<Vec<f64>> = Vec::new();
    let mut lower = 0.0f64;
    let mut dual = newton;
    for round in 0..=TRIMS {
        let system = Step::new(std::mem::take(&mut here.gram), penalty, k)?;
        let dx = system.direction(&here.slope, x);
        reach.push(dx.clone());
        let gram = if round < TRIMS { Curvature::Trimmed } else { Curvature::None };
        // The dual point of a trimmed direction was trimmed for the directions before it, the next Gram matrix for it too.
        let along = Along { dx: &dx, dual, trim: &reach, check: true, ..Along::at(x, &zero, gram) };
        here = evaluate(table, loss, &along)?;
        let bound = dual_value(loss, &here, penalty, &moved(x, 1.0, &dx));
        let settled = lower > 0.0 && bound <= lower + GAIN * (objective - lower).max(0.0);
        lower = lower.max(bound);
        if settled {
            break;
        }
        dual = Curvature::Trimmed;
    }
    Ok(Minimum {
        coefficients: x.to_vec(),
        objective,
        lower: lower.min(objective),
        iterations: 0,
        exact_fit: loss.exact_fit(losses(table, loss, &zero, &zero, &[0.0])?[0]),
    })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
