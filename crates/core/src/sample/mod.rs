//! Row sampling by l_p importance (Woodruff and Yasuda, "Sharper bounds for l_p sensitivity sampling", arXiv 2306.00732 v2).
//!
//! `run` reads as the method does: whiten the table, choose scores, draw rows by them (twice, for the two-stage rule), and
//! measure how well the rows stand for the table.

mod certificate;
mod certify;
mod config;
mod draws;
mod lewis;
mod lift;
mod merge_reduce;
mod outcome;
mod power;
mod scale;
mod scaled;
mod scores;
mod select;
mod sensitivity;
mod stages;
pub(crate) mod worker;

pub use certificate::{
    Search, Searched, WeightedTable, abs_power_sums, abs_power_sums_of, certificate_of_ratios, exact_certificate,
    lifted_certificate, search,
};
pub use config::{Config, Draw, Rule, Size};
pub use lift::{Lift, LiftedRows, MAX_LIFTED_COLUMNS, lifted_dim};
pub use merge_reduce::{MergeReduce, run_one_pass};
pub use outcome::{Certificate, CertificateKind, Sample, Summary};
pub use scores::{leverage_scores, lewis_weights};
pub use sensitivity::{
    Bounds, DEFAULT_FAILURE, DEFAULT_TOLERANCE, DEFAULT_TOTAL_DRAWS, SensitivitySolver, TotalSensitivity, sensitivities,
};
pub use worker::fold_chunk;

use subspan_linalg::Mat;

use crate::error::Result;
use crate::observe::Observer;
use crate::rows::RowSource;
use draws::{Draws, Table};
use scores::{Whitened, whitened_in_range};
use select::{Drawn, Kept};
use stages::{Facts, Stage, predicted_rows};

/// Rows at which the distortion stayed within `epsilon` in at least 49 of 50 draws: `(1.5 + 0.8 p)² d/ε²`, from the largest
/// `ε √(m/d)` seen for Gaussian rows, `d` from 2 to 40: 2.3 at p = 1, 2.6 at 1.5, 3.0 at 2 (heavy-tailed rows need fewer).
fn rows_for(epsilon: f64, p: f64, rank: usize) -> u64 {
    ((1.5 + 0.8 * p).powi(2) * rank as f64 / (epsilon * epsilon)).ceil() as u64
}

/// Draws a weighted sample of the table's rows.
///
/// The table is read twice for `p = 2` and for the two-stage rule, more often for Lewis weights of all rows. Memory is
/// bounded by the source's blocks and the sample, whatever the number of rows.
///
/// # Errors
/// A parameter out of range, an empty or all-zero table, what the source reports.
///
/// ```
/// use subspan::{DenseRows, Silent, sample};
/// let values: Vec<f64> = (0..40_000).map(|i| f64::from(i % 97) + f64::from(i % 5)).collect();
/// let table = DenseRows::new(&values, 4)?;
/// let sample = sample::run(&table, &sample::Config::rows(2.0, 500), 0, &Silent)?;
/// assert_eq!(sample.row_ids.len(), sample.weights.len());
/// assert!((sample.summary.score_sum - sample.summary.rank as f64).abs() < 1e-9);
/// # Ok::<(), subspan::Error>(())
/// ```
pub fn run(source: &dyn RowSource, config: &Config, seed: u64, observer: &dyn Observer) -> Result<Sample> {
    config.check()?;
    let (scaled, whitened) = whitened_in_range(source, observer)?;
    let mut sample = match &scaled {
        None => run_on(source, &whitened, config, seed, observer)?,
        Some(scaled) => run_on(scaled, &whitened, config, seed, observer)?,
    };
    if let Some(scaled) = scaled {
        scaled.unscale(sample.rows.as_mut_slice());
    }
    Ok(sample)
}

fn run_on(
    source: &dyn RowSource,
    whitened: &Whitened,
    config: &Config,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Sample> {
    let table = Table { source, whitened, whole: true };
    let mut draws = Draws::new(config, seed, observer);
    draws.passes = whitened.passes;
    let rank = whitened.whitener.rank;
    let rows = match config.size {
        Size::Rows(m) => m,
        Size::Epsilon(epsilon) => rows_for(epsilon, config.p, rank),
    };
    let total_sensitivity = if config.p > 2.0 && config.rule == Rule::Auto {
        Some(match draws.lift(table)? {
            Some((_, lifted)) => lifted.whitener.rank as f64,
            None => draws.total_sensitivity(table)?.total,
        })
    } else {
        None
    };
    let facts = Facts {
        n_rows: whitened.n_rows,
        n_cols: source.n_cols(),
        rank,
        in_memory: source.dense().is_some(),
        rows,
        total_sensitivity,
    };
    let stages = stages::plan(config, &facts);
    let mut drawn = draws.draw(table, stages[0], "rows")?;
    let (rows_in, zero_rows) = (drawn.rows_in, drawn.zero_rows);
    let mut first = None;
    if let Some(stage) = stages.get(1) {
        let again = draws.draw_again(&drawn.kept, *stage)?;
        first = Some(std::mem::replace(&mut drawn, again).kept);
    }
    let certificate =
        if config.certify { Some(certify::certify(&mut draws, table, &drawn.kept, first)?) } else { None };
    let mut summary = summarize(config, &stages, &drawn, rows);
    summary.rows_in = rows_in;
    summary.zero_rows = zero_rows;
    summary.rank = rank;
    summary.condition = whitened.whitener.condition;
    summary.passes = draws.passes;
    summary.lewis_delta = draws.lewis_delta;
    summary.total_sensitivity = total_sensitivity;
    summary.predicted_rows = total_sensitivity.map_or_else(Vec::new, |s| predicted_rows(rank, s, config.p));
    Ok(into_sample(drawn.kept, summary, certificate))
}

fn into_sample(kept: Kept, summary: Summary, certificate: Option<Certificate>) -> Sample {
    let Kept { n_cols, ids, probabilities, values, records, .. } = kept;
    Sample {
        rows: Mat::from_vec(ids.len(), n_cols, values),
        weights: probabilities.iter().map(|q| q.recip()).collect(),
        row_ids: ids,
        probabilities,
        records,
        summary,
        certificate,
    }
}

/// The part of the summary that the last draw decides.
fn summarize(config: &Config, stages: &[Stage], drawn: &Drawn, rows: u64) -> Summary {
    let probabilities = &drawn.kept.probabilities;
    let (sum, squares) = probabilities.iter().fold((0.0, 0.0), |(s, t), q| (s + 1.0 / q, t + 1.0 / (q * q)));
    let certain_rows = probabilities.iter().filter(|q| **q == 1.0).count() as u64;
    let rule = stages.last().map_or(config.rule, |s| s.rule);
    let mut warnings = Vec::new();
    if drawn.kept.len() == 0 {
        warnings.push("the draw kept no row: ask for more rows".to_string());
    }
    if drawn.rows_expected > 1.05 * rows as f64 {
        warnings.push(format!(
            "{:.0} rows are expected instead of {rows}: fewer would risk losing a direction of the table",
            drawn.rows_expected
        ));
    }
    if config.draw == Draw::Systematic {
        warnings.push("systematic draws are unsafe on tables whose order is periodic".to_string());
    }
    if rule == Rule::Uniform {
        warnings.push("uniform sampling has no guarantee: a few heavy rows can decide a fit and be missed".to_string());
    }
    Summary {
        rule,
        p: config.p,
        draw: config.draw,
        score_sum: drawn.score_sum,
        rows_in: drawn.rows_in,
        rows_out: drawn.kept.len() as u64,
        rows_requested: rows,
        rows_expected: drawn.rows_expected,
        certain_rows,
        zero_rows: drawn.zero_rows,
        effective_rows: if squares > 0.0 { sum * sum / squares } else { 0.0 },
        rank: 0,
        condition: 0.0,
        passes: 0,
        scale: drawn.scale,
        stages: stages.iter().map(|s| s.rule.to_string()).collect(),
        lewis_delta: None,
        total_sensitivity: None,
        predicted_rows: Vec::new(),
        below_theory: rule != Rule::Uniform && drawn.scale < 1.0,
        order_dependent: false,
        warnings,
    }
}
