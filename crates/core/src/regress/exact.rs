//! The optimum over all rows with a proved gap: a pilot sample, then either globbed rounds (l1 and quantiles) or streamed
//! Newton passes (smooth losses). Memory is bounded by the pilot and the MID rows.

use std::borrow::Cow;

use subspan_linalg::{Mat, apply::RowFactor};

use super::condition::{Basis, Design, row_map};
use super::glob::{self, Groups, Split, Spread};
use super::smooth::Goal;
use super::solve::{self, Solved};
use super::table::{StreamTable, Table};
use super::{Job, separable};
use crate::error::{Error, Result};
use crate::observe::{metric, phase};
use crate::reshape::Shape;
use crate::{Sample, regress::Loss};

/// What the exact mode promises: `objective ≤ (1 + EXACT_GAP) · optimum`.
pub(super) const EXACT_GAP: f64 = 1e-8;

/// Sizes of the exact mode; tests shrink them to run the same rounds on small tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Rows of the pilot (method note, section 3.6).
    pub(super) pilot_rows: u64,
    /// Smallest half-share of rows in MID.
    pub(super) band: f64,
    /// Largest table, in bytes, that a full solve may copy into memory.
    pub(super) full_bytes: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self { pilot_rows: 50_000, band: 0.02, full_bytes: 8 << 30 }
    }
}

/// At this half-share the reduced problem is no longer worth its passes.
const FULL_BAND: f64 = 0.25;

/// Wrong rows, as a share of the globbed ones, that mean the band was too thin.
const TOO_MANY_WRONG: f64 = 0.01;

/// Rounds with the same band: each moves the wrong rows into MID, and two or three do.
const ROUNDS: usize = 6;

/// Gap of a reduced problem.
const REDUCED_TOLERANCE: f64 = 1e-10;

/// Gap of the pilot's fit: its sampling error is far larger.
const PILOT_TOLERANCE: f64 = 1e-5;

/// Exact fits and the rows that were solved for them.
pub(super) struct Exact {
    pub(super) fits: Vec<Solved>,
    /// `None` for all rows of the table.
    pub(super) rows_used: Option<u64>,
}

/// Solves a loss exactly.
///
/// # Errors
/// [`Error::NotConverged`] when the gap stays above [`EXACT_GAP`], what the source reports.
pub(super) fn run(job: &Job<'_>, plan: &Plan, warnings: &mut Vec<String>) -> Result<Exact> {
    match job.source.n_rows() {
        Some(n) if n <= 2 * plan.pilot_rows => return full(job, plan, f64::INFINITY, warnings),
        _ => {}
    }
    let Some(pilot) = job.sample(plan.pilot_rows)? else { return full(job, plan, f64::INFINITY, warnings) };
    match solve::pinball_levels(&job.config.loss) {
        Some((levels, times)) => globbed(job, plan, &pilot, &levels, times, warnings),
        None => streamed(job, &pilot, warnings),
    }
}

/// Share of MID for the error that a pilot of so many rows leaves.
fn first_band(plan: &Plan, n_features: usize, pilot: &Sample) -> f64 {
    plan.band.max((n_features as f64 / pilot.weights.len().max(1) as f64).sqrt())
}

/// A quantile on its way to the optimum.
struct Track {
    split: Split,
    groups: Groups,
    band: f64,
    best: Solved,
    rounds: usize,
}

fn globbed(
    job: &Job<'_>,
    plan: &Plan,
    pilot: &Sample,
    levels: &[f64],
    times: f64,
    warnings: &mut Vec<String>,
) -> Result<Exact> {
    let table = job.table();
    let (design, spread) = pilot_design(pilot, job)?;
    phase(job.observer, "solve", None);
    let n_features = pilot.rows.n_cols() - 1;
    let band = first_band(plan, n_features, pilot);
    let mut waiting = Vec::new();
    for level in levels {
        let solved = solve::pinball(&design, *level, 1.0, PILOT_TOLERANCE, None, job.observer)?;
        waiting.push((waiting.len(), *level, solved, band));
    }
    let mut done: Vec<Option<Solved>> = vec![None; levels.len()];
    let mut rows_used = pilot.weights.len() as u64;
    let mut left_over: Option<f64> = None;
    while !waiting.is_empty() {
        // Split anew: one pass for all quantiles that start a band.
        let splits: Vec<Split> = waiting
            .iter()
            .map(|(_, level, solved, band)| Split {
                level: *level,
                coefficients: solved.coefficients.clone(),
                threshold: spread.threshold(pilot.rows.as_slice(), &pilot.weights, &solved.coefficients, 2.0 * band),
            })
            .collect();
        let groups = glob::split(&table, &spread, &splits)?;
        let mut tracks: Vec<(usize, Track)> = Vec::new();
        for (((index, _, solved, band), split), groups) in waiting.drain(..).zip(splits).zip(groups) {
            let best = Solved { objective: groups.objective, lower: 0.0, ..solved };
            tracks.push((index, Track { split, groups, band, best, rounds: 0 }));
        }
        while !tracks.is_empty() {
            let mut reduced = Vec::new();
            for (_, track) in &mut tracks {
                reduced.push(track.groups.solve(track.split.level, REDUCED_TOLERANCE, job.observer)?);
                rows_used = rows_used.max(track.groups.mid_ids.len() as u64 + 2);
            }
            let pairs: Vec<_> = tracks
                .iter()
                .zip(&reduced)
                .map(|((_, t), r)| (&t.split, &t.groups, r.coefficients.as_slice()))
                .collect();
            let verdicts = glob::check(&table, &pairs)?;
            let mut next = Vec::new();
            for (((index, mut track), solved), verdict) in tracks.drain(..).zip(reduced).zip(verdicts) {
                track.rounds += 1;
                let exact_fit = track.best.exact_fit.max(solved.exact_fit);
                let iterations = track.best.iterations + solved.iterations;
                let lower = track.best.lower.max(solved.lower.min(verdict.objective));
                track.best = if verdict.objective <= track.best.objective {
                    Solved { objective: verdict.objective, ..solved }
                } else {
                    track.best
                };
                track.best = Solved { lower, exact_fit, iterations, ..track.best };
                metric(job.observer, "relative_gap", track.best.relative_gap());
                let wrong = verdict.wrong_ids.len();
                if track.best.relative_gap() <= EXACT_GAP {
                    done[index] = Some(track.best);
                } else if wrong as f64 > TOO_MANY_WRONG * track.groups.globbed() as f64
                    || wrong == 0
                    || track.rounds >= ROUNDS
                {
                    let band = 2.0 * track.band;
                    if band >= FULL_BAND {
                        let gap = track.best.relative_gap();
                        left_over = Some(left_over.map_or(gap, |worst| worst.max(gap)));
                    } else {
                        waiting.push((index, track.split.level, track.best, band));
                    }
                } else {
                    track.groups.admit(&verdict);
                    next.push((index, track));
                }
            }
            tracks = next;
        }
    }
    if let Some(gap) = left_over {
        // Some band grew until the whole table is cheaper.
        let all = full(job, plan, gap, warnings)?;
        rows_used = all.rows_used.unwrap_or(rows_used);
        for (done, solved) in done.iter_mut().zip(all.fits) {
            done.get_or_insert(Solved {
                objective: solved.objective / times,
                lower: solved.lower / times,
                exact_fit: solved.exact_fit / times,
                ..solved
            });
        }
    }
    let fits = done
        .into_iter()
        .flatten()
        .map(|s| Solved { objective: s.objective * times, lower: s.lower * times, exact_fit: s.exact_fit * times, ..s })
        .collect();
    Ok(Exact { fits, rows_used: Some(rows_used) })
}

/// The pilot in the solvers' basis, and the spread of every row's residual.
fn pilot_design<'p>(pilot: &'p Sample, job: &Job<'_>) -> Result<(Design<'p>, Spread)> {
    let design = Design::new(
        Cow::Owned(pilot.rows.as_slice().to_vec()),
        pilot.rows.n_cols(),
        Some(Cow::Borrowed(&pilot.weights)),
        Basis::Whitened,
        job.observer,
    )?;
    let identity = Mat::identity(design.n_given);
    let spread = Spread::new(design.factor.as_ref().unwrap_or(&identity));
    Ok((design, spread))
}

/// The certified lower bound of sampled l1 and quantile fits: one pass and one reduced problem each. Returns the objectives
/// over all rows with it.
///
/// # Errors
/// What the source reports.
pub(super) fn certify_pinball(
    job: &Job<'_>,
    sample: &Sample,
    levels: &[f64],
    times: f64,
    fits: &mut [Solved],
) -> Result<()> {
    let table = job.table();
    let (_, spread) = pilot_design(sample, job)?;
    let n_features = sample.rows.n_cols() - 1;
    let band = first_band(&Plan::default(), n_features, sample).min(FULL_BAND);
    let splits: Vec<Split> = levels
        .iter()
        .zip(fits.iter())
        .map(|(level, fit)| Split {
            level: *level,
            coefficients: fit.coefficients.clone(),
            threshold: spread.threshold(sample.rows.as_slice(), &sample.weights, &fit.coefficients, 2.0 * band),
        })
        .collect();
    let groups = glob::split(&table, &spread, &splits)?;
    for ((fit, mut groups), level) in fits.iter_mut().zip(groups).zip(levels) {
        let reduced = groups.solve(*level, REDUCED_TOLERANCE, job.observer)?;
        fit.objective = groups.objective * times;
        fit.lower = (reduced.lower * times).min(fit.objective);
    }
    Ok(())
}

/// What an exact fit is called that would need the whole table in memory.
const TOO_LARGE: &str = "the exact mode (on a table too large to be solved in memory)";

/// Bytes of the table in the solver's form, zero if its length is not known.
fn table_bytes(job: &Job<'_>) -> u64 {
    job.source.n_rows().unwrap_or(0).saturating_mul(8 * job.shape.n_cols(job.source.n_cols()) as u64)
}

/// Solves on all rows. `reached` is the gap proved so far, for the error of a table that does not fit.
fn full(job: &Job<'_>, plan: &Plan, reached: f64, warnings: &mut Vec<String>) -> Result<Exact> {
    let bytes = table_bytes(job);
    if job.source.dense().is_none() && bytes > plan.full_bytes {
        return Err(Error::NotConverged { what: TOO_LARGE, iterations: ROUNDS, reached, tolerance: EXACT_GAP });
    }
    let (fits, rows_used) = super::solve_all_rows(job, warnings)?;
    Ok(Exact { fits, rows_used: Some(rows_used) })
}

fn streamed(job: &Job<'_>, pilot: &Sample, warnings: &mut Vec<String>) -> Result<Exact> {
    let loss = &job.config.loss;
    let design = Design::new(
        Cow::Owned(pilot.rows.as_slice().to_vec()),
        pilot.rows.n_cols(),
        Some(Cow::Borrowed(&pilot.weights)),
        solve::basis(loss),
        job.observer,
    )?;
    phase(job.observer, "solve", None);
    let intercept = job.shape.intercept;
    let goal = |tolerance, penalty| Goal { tolerance, max_iterations: solve::MAX_ITERATIONS, penalty };
    let pilot_penalty = solve::penalty(loss, intercept, design.factor.as_ref(), design.n_cols - 1);
    let pilot_table = design.table(job.observer);
    let pilot_goal = goal(PILOT_TOLERANCE, pilot_penalty.as_ref());
    let start = match solve::smooth_minimum(&pilot_table, loss, design.target_scale, None, &pilot_goal, job.observer) {
        Ok(found) => Some(found.coefficients),
        // Separable rows of a sample need not be separable in the table.
        Err(Error::Separable) => None,
        Err(e) => return Err(e),
    };
    if matches!(loss, Loss::Logistic { l2 } if *l2 == 0.0)
        && let Some(x) = separable::separator(&design, warnings, job.observer)?
        && separable::separates(&job.table(), &x)?
    {
        return Err(Error::Separable);
    }

    // The pilot's basis is kept where the table needs one, unless it might miss a direction of the table.
    let keep = design.factor.as_ref().filter(|_| !design.fine && !design.dependent);
    let shape =
        Shape { map: keep.map(|f| RowFactor::new(&row_map(f, design.target_scale), false)), ..job.shape.clone() };
    let table = StreamTable { source: job.source, shape: &shape, observer: job.observer };
    let (start, scale) = match keep {
        Some(_) => (start, design.target_scale),
        None => (start.map(|x| design.coefficients(&x)), 1.0),
    };
    let penalty = solve::penalty(loss, intercept, keep, table.n_features());
    let goal = goal(EXACT_GAP, penalty.as_ref());
    let found = solve::smooth_minimum(&table, loss, scale, start.as_deref(), &goal, job.observer)?;
    solve::judged(&found, EXACT_GAP)?;
    let unit = scale.powf(solve::target_power(loss));
    let coefficients = match keep {
        Some(_) => design.coefficients(&found.coefficients),
        None => found.coefficients.clone(),
    };
    let solved = Solved {
        coefficients,
        objective: found.objective * unit,
        lower: found.lower * unit,
        exact_fit: found.exact_fit * unit,
        iterations: found.iterations,
    };
    Ok(Exact { fits: vec![solved], rows_used: None })
}
