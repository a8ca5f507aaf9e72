//! Chapter two: how few flights stand for all of them, and what a uniform sample loses.

use serde::Serialize;
use serde_json::json;
use subspan::regress::{self, Loss, Mode};
use subspan::sample::{self, Config, Rule, Sample};
use subspan::{DenseRows, Event, Observer, Silent};
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
const SEEDS: u64 = 5;
/// Categories with fewer flights than this are looked at.
const RARE: u64 = 1_000;

/// One size of one rule's curve, over its seeds.
#[derive(Serialize)]
struct Point {
    rows: f64,
    low: f64,
    median: f64,
    high: f64,
}

impl Point {
    fn of(rows: u64, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        Self { rows: rows as f64, low: values[0], median: values[values.len() / 2], high: values[last] }
    }
}

/// All that one rule's samples of all sizes gave.
struct Trial {
    /// Excess of the objective over the optimum.
    excess: Vec<Point>,
    /// Distance of the rare categories' effects from the optimum's, on average.
    effects: Vec<Point>,
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

    watch.event(Event::Phase { name: "repeat", total: Some(2 * SEEDS * SIZES.len() as u64) });
    let rare = rare_carriers(flights);
    let rule = trial(flights, &table, Rule::Auto, &rare, session, &watch)?;
    let uniform = trial(flights, &table, Rule::Uniform, &rare, session, &watch)?;
    let rare = compare(flights, &rare, &rule, &uniform);
    let name = chosen.summary.rule.name();
    record.result("story", story(&chosen, &rule, &uniform, &rare));
    let label = format!("importance ({name})");
    let curves = |ours: &[Point], theirs: &[Point]| json!([{"rule": label, "points": ours}, {"rule": "uniform", "points": theirs}]);
    record.result("error_by_rows", curves(&rule.excess, &uniform.excess));
    record.result("effect_error_by_rows", curves(&rule.effects, &uniform.effects));
    record.result("rare_levels", rare);
    session.close(&mut record, &watch);
    Ok(Chapter { title: "sample", record })
}

/// Fits samples of all sizes and seeds, and measures each fit over all flights.
fn trial(
    flights: &Flights,
    table: &DenseRows<'_>,
    rule: Rule,
    rare: &[usize],
    session: &Session,
    watch: &dyn Observer,
) -> Result<Trial, Failure> {
    let (best, optimum) = flights.optimum.clone().unwrap_or_default();
    let mut out = Trial { excess: Vec::new(), effects: Vec::new(), at_size: Vec::new() };
    for rows in SIZES {
        let (mut excess, mut effects) = (Vec::new(), Vec::new());
        for seed in (0..SEEDS).map(|k| session.seed.wrapping_add(k)) {
            if watch.cancelled() {
                return Err(Failure::Interrupted);
            }
            let config = Config { rule, certify: false, ..Config::rows(P, rows) };
            let sample = sample::run(table, &config, seed, &Silent)?;
            let x = l1_fit(&sample)?;
            excess.push(flights.l1_objective(&x) / optimum - 1.0);
            effects.push(rare.iter().map(|c| (x[*c] - best[*c]).abs()).sum::<f64>() / rare.len() as f64);
            watch.event(Event::Advance { steps: 1 });
            if rows == SIZE {
                out.at_size.push((present(&sample), x));
            }
        }
        out.excess.push(Point::of(rows, excess));
        out.effects.push(Point::of(rows, effects));
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
    /// Median distance of its effect from the optimum's, in units of the target; without a row its effect is taken as zero.
    rule_error: f64,
    uniform_error: f64,
}

/// Columns of the rare carriers, rarest first.
fn rare_carriers(flights: &Flights) -> Vec<usize> {
    let mut out = flights.levels("carrier");
    out.retain(|column| flights.count(*column) < RARE);
    out.sort_by_key(|column| flights.count(*column));
    out
}

fn compare(flights: &Flights, rare: &[usize], rule: &Trial, uniform: &Trial) -> Vec<RareLevel> {
    let (best, _) = flights.optimum.clone().unwrap_or_default();
    let found = |trial: &Trial, column: usize| trial.at_size.iter().filter(|(present, _)| present[column]).count();
    let error = |trial: &Trial, column: usize| {
        let errors = trial.at_size.iter().map(|(_, x)| (x[column] - best[column]).abs());
        Point::of(SIZE, errors.collect()).median
    };
    let one = |column: usize| {
        let level = flights.names[column].rsplit('=').next().unwrap_or_default();
        RareLevel {
            column: format!("{} ({level})", carrier_name(level)),
            rows: flights.count(column),
            seeds: SEEDS,
            rule: found(rule, column),
            uniform: found(uniform, column),
            rule_error: error(rule, column),
            uniform_error: error(uniform, column),
        }
    };
    rare.iter().map(|column| one(*column)).collect()
}

fn story(chosen: &Sample, rule: &Trial, uniform: &Trial, rare: &[RareLevel]) -> Vec<String> {
    let median = |points: &[Point]| points.iter().find(|p| p.rows == SIZE as f64).map_or(f64::NAN, |p| p.median);
    let cases = rare.len() * SEEDS as usize;
    let held = |f: fn(&RareLevel) -> usize| rare.iter().map(f).sum::<usize>();
    vec![
        format!(
            "{} of {} flights, chosen by importance ({}), give a fit {} above the optimum (median of {SEEDS} seeds); as many \
             uniform ones, {}.",
            count(chosen.summary.rows_out),
            count(chosen.summary.rows_in),
            chosen.summary.rule,
            percent(median(&rule.excess)),
            percent(median(&uniform.excess))
        ),
        format!(
            "What is rare tells them apart. {} carriers have fewer than {} flights: samples by importance hold them in {} of \
             {cases} cases, uniform ones in {}, and their effects are off by {} against {} minutes.",
            rare.len(),
            count(RARE),
            held(|l| l.rule),
            held(|l| l.uniform),
            significant(median(&rule.effects), 2),
            significant(median(&uniform.effects), 2)
        ),
    ]
}
