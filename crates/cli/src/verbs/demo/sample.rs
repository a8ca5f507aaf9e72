//! Chapter two: how few flights stand for all of them, and what a uniform sample loses.

use serde::Serialize;
use serde_json::json;
use subspan::regress::{self, Loss, Mode};
use subspan::sample::{self, Config, Rule, Sample};
use subspan::{DenseRows, Silent};
use subspan_report::{count, percent, significant};

use super::Chapter;
use super::flights::{Flights, TARGET, carrier_name};
use crate::failure::Failure;
use crate::session::Session;
use crate::verbs::sample as verb;

/// The norm: sums of absolute residuals.
const P: f64 = 1.0;
/// Sample sizes of the curve.
const SIZES: [u64; 5] = [500, 1_000, 2_000, 4_000, 8_000];
/// The size the chapter talks about.
const SIZE: u64 = 2_000;
/// Samples per size and rule.
const SEEDS: u64 = 9;
/// Categories with fewer flights than this are looked at.
const RARE: u64 = 1_000;

/// One size of one rule's curve: excess of the objective over the optimum.
#[derive(Serialize)]
struct Point {
    rows: f64,
    low: f64,
    median: f64,
    high: f64,
}

/// All that one rule's samples of all sizes gave.
struct Trial {
    points: Vec<Point>,
    /// Of the samples of [`SIZE`] rows: the columns that have a row, and the fit (intercept last).
    at_size: Vec<(Vec<bool>, Vec<f64>)>,
}

/// Draws one sample for the record, then many to show how the error falls.
pub(super) fn chapter(flights: &mut Flights, session: &Session) -> Result<Chapter, Failure> {
    let watch = session.watch();
    let values = flights.with_constant();
    let table = DenseRows::new(&values, flights.n_cols() + 1)?;
    let config = Config::rows(P, SIZE);
    let chosen = sample::run(&table, &config, session.seed, &watch)?;
    let mut record = session.record("sample");
    record.inputs.push(flights.input.clone());
    verb::configure(&mut record, &config);
    record.configure("target", TARGET);
    record.configure("seeds of the curve", SEEDS);
    verb::results(&mut record, &chosen);

    watch.phase("repeat");
    let rule = trial(flights, &table, Rule::Auto, session, &watch)?;
    let uniform = trial(flights, &table, Rule::Uniform, session, &watch)?;
    let rare = rare_levels(flights, &rule, &uniform);
    let name = chosen.summary.rule.name();
    record.result("story", story(&chosen, &rule, &uniform, &rare));
    record.result(
        "error_by_rows",
        json!([
            {"rule": format!("importance ({name})"), "points": rule.points},
            {"rule": "uniform", "points": uniform.points},
        ]),
    );
    record.result("rare_levels", rare);
    session.close(&mut record, &watch);
    Ok(Chapter { title: "sample", record })
}

/// Fits samples of all sizes and seeds, and measures each fit over all flights.
fn trial(
    flights: &Flights,
    table: &DenseRows<'_>,
    rule: Rule,
    session: &Session,
    watch: &dyn subspan::Observer,
) -> Result<Trial, Failure> {
    let optimum = flights.optimum.as_ref().map_or(f64::NAN, |(_, objective)| *objective);
    let mut out = Trial { points: Vec::new(), at_size: Vec::new() };
    for rows in SIZES {
        let mut excess = Vec::new();
        for seed in (0..SEEDS).map(|k| session.seed.wrapping_add(k)) {
            if watch.cancelled() {
                return Err(Failure::Interrupted);
            }
            let config = Config { rule, certify: false, ..Config::rows(P, rows) };
            let sample = sample::run(table, &config, seed, &Silent)?;
            let x = l1_fit(&sample)?;
            excess.push(flights.l1_objective(&x) / optimum - 1.0);
            if rows == SIZE {
                out.at_size.push((present(&sample), x));
            }
        }
        excess.sort_by(f64::total_cmp);
        out.points.push(Point {
            rows: rows as f64,
            low: excess[0],
            median: excess[excess.len() / 2],
            high: excess[excess.len() - 1],
        });
    }
    Ok(out)
}

/// The weighted l1 fit of a sample of rows `[design, 1, target]`: `u |y - a x| = |u y - u a x|`, so scaled rows do it.
fn l1_fit(sample: &Sample) -> Result<Vec<f64>, Failure> {
    let d = sample.rows.n_cols();
    let mut scaled = sample.rows.as_slice().to_vec();
    for (row, weight) in scaled.chunks_exact_mut(d).zip(&sample.weights) {
        row.iter_mut().for_each(|v| *v *= weight);
    }
    let config = regress::Config { loss: Loss::L1, mode: Mode::Full, intercept: false, certify: false };
    let outcome = regress::run(&DenseRows::new(&scaled, d)?, &config, 0, &Silent)?;
    Ok(outcome.fits.into_iter().next().map_or_else(Vec::new, |fit| fit.coefficients))
}

/// For each column, whether some row of the sample has a value there.
fn present(sample: &Sample) -> Vec<bool> {
    let d = sample.rows.n_cols();
    let rows = sample.rows.as_slice();
    (0..d).map(|column| rows.chunks_exact(d).any(|row| row[column] != 0.0)).collect()
}

/// A rare category in the samples of [`SIZE`] rows.
#[derive(Serialize)]
struct RareLevel {
    column: String,
    rows: u64,
    seeds: u64,
    /// Samples that have a row of it, by the rule and by uniform sampling.
    rule: usize,
    uniform: usize,
    /// Median distance of its coefficient from the optimum's, in units of the target.
    rule_error: f64,
    uniform_error: f64,
}

/// The rare carriers, rarest first.
fn rare_levels(flights: &Flights, rule: &Trial, uniform: &Trial) -> Vec<RareLevel> {
    let optimum = flights.optimum.as_ref().map_or(&[][..], |(x, _)| x);
    let found = |trial: &Trial, column: usize| trial.at_size.iter().filter(|(present, _)| present[column]).count();
    let error = |trial: &Trial, column: usize| {
        let best = optimum.get(column).copied().unwrap_or(f64::NAN);
        let mut errors: Vec<f64> = trial.at_size.iter().map(|(_, x)| (x[column] - best).abs()).collect();
        errors.sort_by(f64::total_cmp);
        errors[errors.len() / 2]
    };
    let mut out: Vec<RareLevel> = flights
        .levels("carrier")
        .map(|(column, level)| RareLevel {
            column: format!("{} ({level})", carrier_name(level)),
            rows: flights.count(column),
            seeds: SEEDS,
            rule: found(rule, column),
            uniform: found(uniform, column),
            rule_error: error(rule, column),
            uniform_error: error(uniform, column),
        })
        .filter(|level| level.rows < RARE)
        .collect();
    out.sort_by_key(|level| level.rows);
    out
}

fn story(chosen: &Sample, rule: &Trial, uniform: &Trial, rare: &[RareLevel]) -> Vec<String> {
    let median = |trial: &Trial| trial.points.iter().find(|p| p.rows == SIZE as f64).map_or(f64::NAN, |p| p.median);
    let (ours, theirs) = (median(rule), median(uniform));
    let mut out = vec![format!(
        "{} of {} flights, chosen by {}, give a fit {} above the optimum (median of {SEEDS} seeds); as many uniform ones, {}.",
        count(chosen.summary.rows_out),
        count(chosen.summary.rows_in),
        chosen.summary.rule,
        percent(ours),
        percent(theirs)
    )];
    if let Some(level) = rare.first() {
        out.push(format!(
            "{}, {} flights in all, is in {} of {SEEDS} of these samples, and in {} of {SEEDS} uniform ones; its effect is off by \
             {} and {} minutes.",
            level.column,
            level.rows,
            level.rule,
            level.uniform,
            significant(level.rule_error, 2),
            significant(level.uniform_error, 2)
        ));
    }
    if let Some(c) = &chosen.certificate {
        out.push(format!("Over all linear models: {}.", verb::accuracy(Some(c))));
    }
    out
}
