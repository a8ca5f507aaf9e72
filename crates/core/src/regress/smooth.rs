//! Smooth convex losses by damped Newton and reweighted least squares, each step with a dual bound.
//!
//! At coefficients `x` a row with predictor `η = a·x` has a loss `ℓ`, a slope `g = −dℓ/dη` and a curvature `h ≥ 0` (the second
//! derivative, or a majorant of it). The direction solves `(Σ h a aᵀ + K) dx = Σ g a − K x`, and then `y = g − h dη` satisfies
//! `Aᵀ y = K (x + dx)` exactly: a feasible point of the dual problem that no further work is needed for. One pass evaluates
//! the loss, slope and curvature at the next `x` and the dual value of the last direction.
//!
//! Nothing is kept per row, so the same code solves tables in memory and streams. Cost: one pass of `n (d+1)² + 6 n d` flop
//! per iteration.

use subspan_linalg::{Mat, apply, gram};

use super::normal::Normal;
use super::table::{TILE_ROWS, Table, Tile};
use crate::error::{Error, Result};
use crate::observe::{Observer, metric};

/// A loss of one row; `u` is the row's weight.
pub(super) trait SmoothLoss: Sync {
    /// `(ℓ, g, h)` at predictor `eta` and target `b`. `caution` in (0, 1] asks for a curvature between Newton's (0) and one
    /// that majorises the loss (1).
    fn at(&self, eta: f64, b: f64, u: f64, caution: f64) -> [f64; 3];

    /// Adds a row's part of the dual value at `y`; `eta` is the predictor of `x + dx`.
    fn add_dual(&self, sums: &mut DualSums, eta: f64, b: f64, u: f64, y: f64);

    /// The dual value: a lower bound of the optimum. `penalty` is `½ (x + dx)ᵀ K (x + dx)`.
    fn bound(&self, sums: &DualSums, penalty: f64) -> f64;

    /// The step to try first, given the relative gap.
    fn first_step(&self, gap: f64) -> f64 {
        let _ = gap;
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
#[derive(Debug, Clone, Copy)]
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
    /// Largest |target-signed predictor| or residual is not tracked; the smallest `b η` is, for classifiers.
    pub(super) smallest_margin: f64,
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

/// What a pass finds at `x + step · dx`, and about the dual point of `(x, dx)`.
struct Evaluation {
    loss: f64,
    /// `Σ g a`, the target's column last.
    slope: Vec<f64>,
    /// Upper triangle of `Σ h [a, b] [a, b]ᵀ`; empty if not asked for.
    gram: Vec<f64>,
    dual: DualSums,
    smallest_margin: f64,
}

/// Where a pass evaluates.
struct Along<'a> {
    x: &'a [f64],
    dx: &'a [f64],
    step: f64,
    /// Caution used at `x`, for the dual point; `None` on the first pass, when there is no direction.
    caution_before: Option<f64>,
    caution: f64,
    with_gram: bool,
}

/// Trial steps of one line-search pass, halved each time.
const TRIALS: usize = 10;

/// Relative increase of a loss that is rounding in a sum of many terms.
const ROUNDING: f64 = 1e-13;

/// Newton's curvature, with just enough of the majorant that it is never singular where the majorant is not.
const CONFIDENT: f64 = 1e-4;

/// Iterations that start cautious.
const CAUTIOUS_ITERATIONS: usize = 2;

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
    let mut caution = 1.0;
    let penalty = |x: &[f64]| goal.penalty.map_or(0.0, |p| 0.5 * dot(x, &p.mul_vec(x)));
    let mut here = evaluate(
        table,
        loss,
        &Along { x: &x, dx: &zero, step: 0.0, caution_before: None, caution, with_gram: true },
    )?;
    let at_zero =
        if start.iter().all(|v| *v == 0.0) { here.loss } else { losses(table, loss, &zero, &zero, &[0.0])?[0] };
    let mut minimum = Minimum {
        coefficients: x.clone(),
        objective: here.loss + penalty(&x),
        lower: 0.0,
        iterations: 0,
        exact_fit: loss.exact_fit(at_zero),
        smallest_margin: here.smallest_margin,
    };
    let mut system = None;
    let mut stalled = 0;
    while minimum.iterations < goal.max_iterations && minimum.relative_gap() > goal.tolerance && stalled < 3 {
        minimum.iterations += 1;
        if system.is_none() || !loss.quadratic() {
            add_penalty(&mut here.gram, goal.penalty, k);
            system = Some(Normal::new(&here.gram, k + 1, k)?);
        }
        let mut right = here.slope[..k].to_vec();
        if let Some(p) = goal.penalty {
            right.iter_mut().zip(p.mul_vec(&x)).for_each(|(r, kx)| *r -= kx);
        }
        let dx = system.as_ref().map(|s| s.solve(&right)).unwrap_or_default();
        let target: Vec<f64> = x.iter().zip(&dx).map(|(x, d)| x + d).collect();

        let mut step = loss.first_step(minimum.relative_gap());
        let before = caution;
        caution = if minimum.iterations < CAUTIOUS_ITERATIONS { 1.0 } else { CONFIDENT };
        let along = |step, caution_before, caution, with_gram| Along {
            x: &x,
            dx: &dx,
            step,
            caution_before,
            caution,
            with_gram,
        };
        let mut next = evaluate(table, loss, &along(step, Some(before), caution, !loss.quadratic()))?;
        let bound = loss.bound(&next.dual, penalty(&target));
        if bound.is_finite() {
            minimum.lower = minimum.lower.max(bound);
        }
        let value = |e: &Evaluation, step: f64| {
            e.loss + penalty(&x.iter().zip(&dx).map(|(x, d)| x + step * d).collect::<Vec<_>>())
        };
        let ceiling = minimum.objective + ROUNDING * minimum.objective.abs();
        if !(value(&next, step) <= ceiling) {
            // A cautious curvature next time; now the best of ever shorter steps.
            caution = 1.0;
            let steps: Vec<f64> = (0..TRIALS).map(|i| step.min(1.0) * 0.5f64.powi(i as i32)).collect();
            let found = losses(table, loss, &x, &dx, &steps)?;
            let best = (0..TRIALS)
                .map(|i| {
                    let p = penalty(&x.iter().zip(&dx).map(|(x, d)| x + steps[i] * d).collect::<Vec<_>>());
                    (found[i] + p, steps[i])
                })
                .fold((f64::INFINITY, 0.0), |a, b| if b.0 < a.0 { b } else { a });
            if !(best.0 <= ceiling) {
                break;
            }
            step = best.1;
            next = evaluate(table, loss, &along(step, None, caution, !loss.quadratic()))?;
        }
        let reached = value(&next, step);
        let progress = minimum.objective - reached;
        stalled = if progress > ROUNDING * reached.abs() { 0 } else { stalled + 1 };
        x.iter_mut().zip(&dx).for_each(|(x, d)| *x += step * d);
        minimum.objective = reached;
        minimum.smallest_margin = next.smallest_margin;
        if goal.penalty.is_none() && loss.diverges(next.smallest_margin) {
            return Err(Error::Separable);
        }
        here = next;
        metric(observer, "relative_gap", minimum.relative_gap());
    }
    if loss.quadratic()
        && let Some(system) = &system
    {
        // The slope of the last pass pays for one more step of refinement.
        x.iter_mut().zip(system.solve(&here.slope[..k])).for_each(|(x, d)| *x += d);
    }
    minimum.lower = minimum.lower.min(minimum.objective);
    minimum.coefficients = x;
    Ok(minimum)
}

/// A lower bound of the optimum, and the loss at `x`: two passes.
///
/// # Errors
/// As [`minimise`].
pub(super) fn certify<L: SmoothLoss>(
    table: &impl Table,
    loss: &L,
    x: &[f64],
    penalty: Option<&Mat>,
    observer: &dyn Observer,
) -> Result<Minimum> {
    // One iteration, kept at x: a step of length zero never raises the loss.
    struct Stay<'l, L>(&'l L);
    impl<L: SmoothLoss> SmoothLoss for Stay<'_, L> {
        fn at(&self, eta: f64, b: f64, u: f64, caution: f64) -> [f64; 3] {
            self.0.at(eta, b, u, caution.min(CONFIDENT))
        }
        fn add_dual(&self, sums: &mut DualSums, eta: f64, b: f64, u: f64, y: f64) {
            self.0.add_dual(sums, eta, b, u, y);
        }
        fn bound(&self, sums: &DualSums, penalty: f64) -> f64 {
            self.0.bound(sums, penalty)
        }
        fn first_step(&self, _: f64) -> f64 {
            0.0
        }
        fn exact_fit(&self, at_zero: f64) -> f64 {
            self.0.exact_fit(at_zero)
        }
    }
    let goal = Goal { tolerance: 0.0, max_iterations: 1, penalty };
    minimise(table, &Stay(loss), x, &goal, observer)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_penalty(gram: &mut [f64], penalty: Option<&Mat>, k: usize) {
    if let Some(p) = penalty {
        for i in 0..k {
            for j in i..k {
                gram[i * (k + 1) + j] += p[(i, j)];
            }
        }
    }
}

/// The coefficients as a multiplier of rows that still carry the target.
fn fitted(x: &[f64]) -> Vec<f64> {
    x.iter().copied().chain([0.0]).collect()
}

fn evaluate<L: SmoothLoss>(table: &impl Table, loss: &L, along: &Along<'_>) -> Result<Evaluation> {
    let n_cols = table.n_features() + 1;
    let (x, dx) = (fitted(along.x), fitted(along.dx));
    table.pass(
        || Evaluation {
            loss: 0.0,
            slope: vec![0.0; n_cols],
            gram: if along.with_gram { vec![0.0; n_cols * n_cols] } else { Vec::new() },
            dual: DualSums { linear: 0.0, conjugate: 0.0, largest: 0.0, infeasible: false },
            smallest_margin: f64::INFINITY,
        },
        |out, Tile { rows, weights }| {
            let n = weights.len();
            let [mut eta, mut d_eta, mut slope, mut curvature] = [[0.0; TILE_ROWS]; 4];
            apply::mul_vec(rows, &x, &mut eta[..n]);
            if along.caution_before.is_some() || along.step != 0.0 {
                apply::mul_vec(rows, &dx, &mut d_eta[..n]);
            }
            for i in 0..n {
                let (b, u) = (rows[(i + 1) * n_cols - 1], weights[i]);
                if let Some(caution) = along.caution_before {
                    let [_, g, h] = loss.at(eta[i], b, u, caution);
                    loss.add_dual(&mut out.dual, eta[i] + d_eta[i], b, u, g - h * d_eta[i]);
                }
                let next = eta[i] + along.step * d_eta[i];
                let [l, g, h] = loss.at(next, b, u, along.caution);
                out.loss += l;
                out.smallest_margin = out.smallest_margin.min(if b > 0.5 { next } else { -next });
                (slope[i], curvature[i]) = (g, h);
            }
            apply::add_tr_mul_vec(rows, &slope[..n], &mut out.slope);
            if along.with_gram {
                gram::add_weighted_gram(rows, n_cols, &curvature[..n], &mut out.gram);
            }
        },
        |total, part| {
            total.loss += part.loss;
            total.slope.iter_mut().zip(&part.slope).for_each(|(t, p)| *t += p);
            total.gram.iter_mut().zip(&part.gram).for_each(|(t, p)| *t += p);
            total.dual.linear += part.dual.linear;
            total.dual.conjugate += part.dual.conjugate;
            total.dual.largest = total.dual.largest.max(part.dual.largest);
            total.dual.infeasible |= part.dual.infeasible;
            total.smallest_margin = total.smallest_margin.min(part.smallest_margin);
        },
    )
}

/// The losses at `x + step · dx` for several steps, in one pass.
fn losses<L: SmoothLoss>(table: &impl Table, loss: &L, x: &[f64], dx: &[f64], steps: &[f64]) -> Result<Vec<f64>> {
    let n_cols = table.n_features() + 1;
    let (x, dx) = (fitted(x), fitted(dx));
    table.pass(
        || vec![0.0; steps.len()],
        |out, Tile { rows, weights }| {
            let n = weights.len();
            let [mut eta, mut d_eta] = [[0.0; TILE_ROWS]; 2];
            apply::mul_vec(rows, &x, &mut eta[..n]);
            apply::mul_vec(rows, &dx, &mut d_eta[..n]);
            for (out, step) in out.iter_mut().zip(steps) {
                for i in 0..n {
                    *out += loss.at(eta[i] + step * d_eta[i], rows[(i + 1) * n_cols - 1], weights[i], 1.0)[0];
                }
            }
        },
        |total, part| total.iter_mut().zip(part).for_each(|(t, p)| *t += p),
    )
}

/// The largest residual `|b − η|` at `x`.
pub(super) fn largest_residual(table: &impl Table, x: &[f64]) -> Result<f64> {
    let n_cols = table.n_features() + 1;
    let x = fitted(x);
    table.pass(
        || 0.0f64,
        |out, Tile { rows, weights }| {
            let n = weights.len();
            let mut eta = [0.0; TILE_ROWS];
            apply::mul_vec(rows, &x, &mut eta[..n]);
            for i in 0..n {
                *out = out.max((rows[(i + 1) * n_cols - 1] - eta[i]).abs());
            }
        },
        |total, part| *total = total.max(part),
    )
}
