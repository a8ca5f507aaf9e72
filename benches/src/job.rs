//! One library call on a table in memory, timed: our side of the comparison with rivals.
//!
//! The table is copied to memory as `f64` before anything is timed. A timing covers all that a caller with an array has to
//! do, the check for non-finite values included.

use std::io::{BufRead, Write};
use std::time::Instant;

use serde_json::{Value, json};
use subspan::regress::{self, Loss, Mode};
use subspan::rows::{DenseRows, RowSource};
use subspan::sample::{self, Rule, Size};
use subspan::{Result, Silent};
use subspan_io::{Table, TableOptions};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A row-major table.
struct Data {
    values: Vec<f64>,
    n_cols: usize,
}

impl Data {
    fn load(path: &str) -> Result<Self, Failure> {
        let table = Table::open(path, &TableOptions::default())?;
        let n_cols = table.n_cols();
        let mut values = Vec::with_capacity(n_cols * table.n_input_rows() as usize);
        for chunk in 0..table.n_chunks() {
            table.scan(chunk, &mut |block| {
                values.extend_from_slice(block.values);
                Ok(())
            })?;
        }
        Ok(Self { values, n_cols })
    }
}

/// A job as asked for.
struct Request {
    job: String,
    rows: u64,
    rule: Rule,
    threads: usize,
    repeats: u64,
    seed: u64,
    save: Option<String>,
}

impl Request {
    fn parse(job: &str, flags: &[&str]) -> Result<Self, Failure> {
        let mut request = Self {
            job: job.into(),
            rows: 2000,
            rule: Rule::Auto,
            threads: std::thread::available_parallelism()?.get(),
            repeats: 1,
            seed: 0,
            save: None,
        };
        for pair in flags.chunks(2) {
            let [flag, value] = pair else { return Err(format!("{} needs a value", pair[0]).into()) };
            match *flag {
                "--rows" => request.rows = value.parse()?,
                "--rule" => request.rule = value.parse()?,
                "--threads" => request.threads = value.parse()?,
                "--repeats" => request.repeats = value.parse()?,
                "--seed" => request.seed = value.parse()?,
                "--save" => request.save = Some((*value).into()),
                _ => return Err(format!("unknown flag {flag}").into()),
            }
        }
        Ok(request)
    }

    /// All repeats, on a thread pool of their own.
    fn run(&self, data: &Data) -> Result<Value, Failure> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build()?;
        let runs: Result<Vec<Value>, Failure> =
            (0..self.repeats).map(|k| pool.install(|| self.repeat(data, self.seed + k))).collect();
        Ok(json!({
            "job": self.job, "n_rows": data.values.len() / data.n_cols, "n_cols": data.n_cols, "rows": self.rows,
            "rule": self.rule, "threads": self.threads, "seed": self.seed, "repeats": runs?,
        }))
    }

    fn repeat(&self, data: &Data, seed: u64) -> Result<Value, Failure> {
        if self.job == "leverage" {
            return self.leverage(data);
        }
        let start = Instant::now();
        let source = DenseRows::new(&data.values, data.n_cols)?;
        let outcome = match (self.job.as_str(), self.rule) {
            ("full", _) => regress::run(&source, &l1(Mode::Full), seed, &Silent)?,
            ("exact", _) => regress::run(&source, &l1(Mode::Exact), seed, &Silent)?,
            ("l1", Rule::Auto) => regress::run(&source, &l1(Mode::Rows(self.rows)), seed, &Silent)?,
            ("l1", rule) => fit_on_sample(&source, rule, self.rows, seed)?,
            _ => return Err(format!("unknown job {}", self.job).into()),
        };
        let seconds = start.elapsed().as_secs_f64();
        let fit = outcome.fits.first().ok_or("no fit")?;
        Ok(json!({
            "seconds": seconds, "objective": fit.objective, "relative_gap": fit.relative_gap, "rows_used": outcome.rows_used,
            "iterations": fit.iterations, "warnings": outcome.warnings, "coefficients": fit.coefficients,
        }))
    }

    fn leverage(&self, data: &Data) -> Result<Value, Failure> {
        let start = Instant::now();
        let source = DenseRows::new(&data.values, data.n_cols)?;
        let checked = start.elapsed().as_secs_f64();
        let scores = sample::leverage_scores(&source, &Silent)?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(path) = &self.save {
            std::fs::write(path, scores.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        Ok(json!({ "seconds": seconds, "check_seconds": checked, "sum": scores.iter().sum::<f64>() }))
    }
}

fn l1(mode: Mode) -> regress::Config {
    regress::Config { loss: Loss::L1, mode, intercept: false, certify: false }
}

/// The same solver on rows drawn by a rule that the library would not choose for this loss; the objective is the sample's.
fn fit_on_sample(source: &DenseRows<'_>, rule: Rule, rows: u64, seed: u64) -> Result<regress::Outcome> {
    // Leverage is a rule for p = 2. Weights are reciprocal probabilities whatever the rule, so they fit any loss.
    let p = if rule == Rule::Leverage { 2.0 } else { 1.0 };
    let config = sample::Config { rule, size: Size::Rows(rows), certify: false, ..sample::Config::rows(p, rows) };
    let sample = sample::run(source, &config, seed, &Silent)?;
    let n_cols = sample.rows.n_cols();
    let mut values = sample.rows.into_vec();
    for (row, weight) in values.chunks_exact_mut(n_cols).zip(&sample.weights) {
        row.iter_mut().for_each(|v| *v *= weight);
    }
    regress::run(&DenseRows::new(&values, n_cols)?, &l1(Mode::Full), seed, &Silent)
}

/// `job JOB FILE [flags]`.
pub(crate) fn once(job: &str, file: &str, flags: &[&str]) -> Result<(), Failure> {
    let request = Request::parse(job, flags)?;
    println!("{}", request.run(&Data::load(file)?)?);
    Ok(())
}

/// `job serve FILE`: answers each line of the standard input with one line, a failure with `{"failure": ...}`.
pub(crate) fn serve(file: &str) -> Result<(), Failure> {
    let data = Data::load(file)?;
    let mut replies = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((job, flags)) = words.split_first() else { continue };
        let reply = Request::parse(job, flags).and_then(|request| request.run(&data));
        writeln!(replies, "{}", reply.unwrap_or_else(|e| json!({ "failure": e.to_string() })))?;
        replies.flush()?;
    }
    Ok(())
}
