//! Robust linear regression on a sample, on all rows, or exactly with a proof.
//!
//! | loss | solver | proof |
//! |---|---|---|
//! | l1, quantiles | Frisch-Newton interior point ([`interior_point`]) | its dual; for a sample or the exact mode the dual of a globbed problem ([`glob`]) |
//! | l2, l_p | reweighted least squares ([`lp`]) | Hölder's inequality at the step's own weights |
//! | Huber | Newton ([`huber`]) | the dual quadratic programme |
//! | logistic | Newton ([`logistic`]) | the entropy dual |
//!
//! A sampled fit draws rows `[a, 1, b]` by l_p importance, so that the sample's loss stands for the table's at every `x`.

mod condition;
mod config;
mod evaluate;
mod exact;
mod glob;
mod huber;
mod interior_point;
mod logistic;
mod lp;
mod normal;
mod offsets;
mod passes;
mod separable;
mod smooth;
mod solve;
mod table;
mod worker;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use config::{Config, Loss, Mode};
pub use worker::fold_chunk;

use crate::error::{Error, Result};
use crate::observe::{Observer, phase};
use crate::remote::{self, Pass};
use crate::reshape::{Reshaped, Shape};
use crate::rows::{RowBlock, RowSource};
use crate::sample::{self, Sample};
use condition::Design;
use solve::{Separation, Solved};
use table::StreamTable;

/// A fitted linear model.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The quantile, for [`Loss::Quantile`].
    pub quantile: Option<f64>,
    /// The constant term; zero without intercept.
    pub intercept: f64,
    /// One coefficient per feature column.
    pub coefficients: Vec<f64>,
    /// Plain sum of the losses over all rows, without the ridge penalty.
    pub objective: f64,
    /// Certified upper bound of `(objective − optimum) / optimum`, if one was computed; the penalty counts here. Zero when
    /// the objective is zero to working precision.
    pub relative_gap: Option<f64>,
    /// Solver iterations.
    pub iterations: usize,
}

/// All fits of a run (several for several quantiles, else one).
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// In the order of the quantiles asked for.
    pub fits: Vec<Fit>,
    /// Rows the solver worked on.
    pub rows_used: u64,
    /// Rows of the table.
    pub rows_in: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Fits a linear model of the **last** column of the source on all others.
///
/// # Errors
/// A parameter out of range, an empty table, separable classes, no convergence, what the source reports.
///
/// ```
/// use subspan::regress::{Config, Loss, Mode, run};
/// use subspan::{DenseRows, Silent};
/// // y = 1 + 2 x, but for one gross error: least absolute deviations do not mind.
/// let rows = [0.0, 1.0, 1.0, 3.0, 2.0, 5.0, 3.0, 700.0, 4.0, 9.0];
/// let config = Config { loss: Loss::L1, mode: Mode::Full, intercept: true, certify: false };
/// let fit = &run(&DenseRows::new(&rows, 2)?, &config, 0, &Silent)?.fits[0];
/// assert!((fit.intercept - 1.0).abs() < 1e-6 && (fit.coefficients[0] - 2.0).abs() < 1e-6);
/// # Ok::<(), subspan::Error>(())
/// ```
pub fn run(source: &dyn RowSource, config: &Config, seed: u64, observer: &dyn Observer) -> Result<Outcome> {
    run_with(source, config, seed, observer, &exact::Plan::default())
}

fn run_with(
    source: &dyn RowSource,
    config: &Config,
    seed: u64,
    observer: &dyn Observer,
    plan: &exact::Plan,
) -> Result<Outcome> {
    config.check()?;
    if source.n_cols() == 0 || (source.n_cols() == 1 && !config.intercept) {
        return Err(Error::Empty { what: "feature columns" });
    }
    if source.n_rows() == Some(0) {
        return Err(Error::Empty { what: "rows" });
    }
    let signs = match config.loss {
        Loss::Logistic { .. } => classes(source, observer)?,
        _ => false,
    };
    let offsets = if config.intercept { offsets::offsets(source, observer)? } else { Vec::new() };
    let shape = Shape { intercept: config.intercept, offsets, signs, map: None };
    let job = Job { source, config, seed, observer, shape };
    let mut warnings = Vec::new();
    let (solved, rows_used, proved) = match config.mode {
        Mode::Full => {
            let (fits, rows) = solve_all_rows(&job, &mut warnings)?;
            (fits, Some(rows), true)
        }
        Mode::Exact => {
            let exact = exact::run(&job, plan, &mut warnings)?;
            (exact.fits, exact.rows_used, true)
        }
        Mode::Rows(m) => {
            let (fits, rows, proved) = sampled(&job, m, &mut warnings)?;
            (fits, Some(rows), proved)
        }
    };
    finish(&job, solved, rows_used, proved, warnings)
}

/// One regression: what every mode needs.
struct Job<'a> {
    source: &'a dyn RowSource,
    config: &'a Config,
    seed: u64,
    observer: &'a dyn Observer,
    shape: Shape,
}

impl Job<'_> {
    /// All rows, streamed.
    fn table(&self) -> StreamTable<'_> {
        StreamTable { source: self.source, shape: &self.shape, observer: self.observer }
    }

    /// About `rows` rows `[a, 1, b]`, drawn for the loss; `None` when that would be all of them.
    fn sample(&self, rows: u64) -> Result<Option<Sample>> {
        if self.source.n_rows().is_some_and(|n| n <= rows) {
            return Ok(None);
        }
        let p = match self.config.loss {
            Loss::L2 => 2.0,
            Loss::Lp { p } => p,
            _ => 1.0,
        };
        let config = sample::Config {
            certify: false,
            // Two passes, and at a fixed size as accurate as Lewis weights for p < 2 (method note, section 3.5).
            rule: if p < 2.0 { sample::Rule::RootLeverage } else { sample::Rule::Auto },
            augment: matches!(self.config.loss, Loss::Huber { .. } | Loss::Logistic { .. }),
            loss_floor: matches!(self.config.loss, Loss::Logistic { .. }),
            ..sample::Config::rows(p, rows)
        };
        let reshaped = Reshaped { source: self.source, shape: &self.shape };
        let plain = !self.shape.intercept && !self.shape.signs;
        match sample::run(if plain { self.source } else { &reshaped }, &config, self.seed, self.observer) {
            Ok(sample) => Ok(Some(sample)),
            Err(Error::AllZero) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Solves on all rows, in memory: borrowed where the source has them in the solver's form already.
fn solve_all_rows(job: &Job<'_>, warnings: &mut Vec<String>) -> Result<(Vec<Solved>, u64)> {
    let plain = !job.shape.intercept && !job.shape.signs;
    let values = match job.source.dense() {
        Some(values) if plain => Cow::Borrowed(values),
        _ => {
            phase(job.observer, "read", job.source.n_rows());
            Cow::Owned(table::collect(job.source, &job.shape, job.observer)?)
        }
    };
    let n_cols = job.shape.n_cols(job.source.n_cols());
    let n_rows = (values.len() / n_cols) as u64;
    if n_rows == 0 {
        return Err(Error::Empty { what: "rows" });
    }
    phase(job.observer, "solve", None);
    let loss = &job.config.loss;
    let design = Design::new(values, n_cols, None, solve::basis(loss), job.observer)?;
    let intercept = job.shape.intercept;
    let when = Separation::WhenSuspicious;
    let fits = solve::solve(&design, loss, intercept, solve::TOLERANCE, when, warnings, job.observer)?;
    Ok((fits, n_rows))
}

/// Solves on a sample of about `m` rows. The objective is not known yet unless a gap was asked for.
fn sampled(job: &Job<'_>, m: u64, warnings: &mut Vec<String>) -> Result<(Vec<Solved>, u64, bool)> {
    let Some(sample) = job.sample(m)? else {
        let (fits, rows) = solve_all_rows(job, warnings)?;
        return Ok((fits, rows, true));
    };
    phase(job.observer, "solve", None);
    let loss = &job.config.loss;
    let design = Design::new(
        Cow::Owned(sample.rows.as_slice().to_vec()),
        sample.rows.n_cols(),
        Some(Cow::Borrowed(&sample.weights)),
        solve::basis(loss),
        job.observer,
    )?;
    let (intercept, measure) = (job.shape.intercept, Separation::Measure);
    let mut fits = solve::solve(&design, loss, intercept, solve::TOLERANCE, measure, warnings, job.observer)?;
    drop(design);
    warnings.extend(sample.summary.warnings.iter().cloned());
    let rows_used = sample.weights.len() as u64;
    if !job.config.certify {
        return Ok((fits, rows_used, false));
    }
    phase(job.observer, "certify", None);
    match solve::pinball_levels(loss) {
        Some((levels, times)) => exact::certify_pinball(job, &sample, &levels, times, &mut fits)?,
        None => {
            let fit = &mut fits[0];
            let bound = evaluate::smooth_bound(&job.table(), loss, intercept, &fit.coefficients)?;
            (fit.objective, fit.lower, fit.exact_fit) = (bound.objective, bound.lower, bound.exact_fit);
        }
    }
    Ok((fits, rows_used, true))
}

/// Evaluates the fits on all rows, which are those used if no number says otherwise, and splits off the constant term.
fn finish(
    job: &Job<'_>,
    solved: Vec<Solved>,
    rows_used: Option<u64>,
    proved: bool,
    warnings: Vec<String>,
) -> Result<Outcome> {
    let levels = match &job.config.loss {
        Loss::Quantile { levels } => levels.clone(),
        _ => vec![0.5],
    };
    let coefficients: Vec<&[f64]> = solved.iter().map(|s| s.coefficients.as_slice()).collect();
    let all = evaluate::objectives(&job.table(), &job.config.loss, &levels, &coefficients)?;
    if all.at.iter().any(|objective| !objective.is_finite()) {
        return Err(Error::Overflow { what: "the loss over all rows" });
    }
    let fits = solved
        .iter()
        .enumerate()
        .map(|(i, s)| {
            let split = s.coefficients.len() - usize::from(job.config.intercept);
            let (coefficients, constant) = s.coefficients.split_at(split);
            let moved: f64 = coefficients.iter().zip(&job.shape.offsets).map(|(c, offset)| c * offset).sum();
            Fit {
                quantile: matches!(job.config.loss, Loss::Quantile { .. }).then(|| levels[i]),
                intercept: constant.first().copied().unwrap_or(0.0) - moved,
                coefficients: coefficients.to_vec(),
                objective: all.at[i],
                relative_gap: proved.then(|| s.relative_gap()).filter(|g| g.is_finite()),
                iterations: s.iterations,
            }
        })
        .collect();
    Ok(Outcome { fits, rows_used: rows_used.unwrap_or(all.n_rows), rows_in: all.n_rows, warnings })
}

/// Whether the classes are written 0 and 1 (and not −1 and +1).
fn classes(source: &dyn RowSource, observer: &dyn Observer) -> Result<bool> {
    match remote::run(source, &Classes, observer)? {
        (Some(zero), Some(minus)) => {
            let value = format!("0 in row {zero} and -1 in row {minus}");
            Err(Error::parameter("the target", value, "0 or 1, or -1 or +1, not both"))
        }
        (zero, _) => Ok(zero.is_some()),
    }
}

/// The first rows whose target is 0 and −1; any target that is no class is an error.
#[derive(Serialize, Deserialize)]
struct Classes;

impl Pass for Classes {
    const NAME: &'static str = "classes";
    type State = (Option<u64>, Option<u64>);

    fn start(&self, _: usize) -> Self::State {
        (None, None)
    }

    fn step(&self, (zero, minus): &mut Self::State, block: &RowBlock<'_>) -> Result<()> {
        for (i, row) in block.values.chunks_exact(block.n_cols).enumerate() {
            let target = row[block.n_cols - 1];
            if target == 0.0 {
                zero.get_or_insert(block.id(i));
            } else if target == -1.0 {
                minus.get_or_insert(block.id(i));
            } else if target != 1.0 {
                let value = format!("{target} in row {}", block.id(i));
                return Err(Error::parameter("the target", value, "0 or 1, or -1 or +1"));
            }
        }
        Ok(())
    }

    fn merge(&self, (zero, minus): &mut Self::State, part: Self::State) {
        *zero = zero.or(part.0);
        *minus = minus.or(part.1);
    }
}

#[cfg(test)]
mod tests;
