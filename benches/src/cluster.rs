//! What clustering costs: one training step exact and by the shortcut, a fit with selection, the exact graph of nearest rows, predictions.

use std::time::Instant;

use serde_json::{Value, json};
use subspan::Silent;
use subspan::assign::sinkhorn::{Diagonal, Options, project, project_gradient};
use subspan::cluster::rate::fast::{fast_rate_gradient, groups};
use subspan::cluster::rate::{Columns, EPS2, rate_gradient};
use subspan::cluster::{self, Affinity, Clusters, Config, Features, Search};
use subspan::draw::Stream;
use subspan_linalg::gemm;

use crate::measure::{interleaved, machine, summary};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures something; the figures and raw data.
type Part = fn() -> Result<Value, Failure>;

/// Rows and values per row of a training step.
const BATCH: [usize; 2] = [1024, 128];
/// Clusters of generated rows.
const CLUSTERS: usize = 10;
/// Temperatures at which the membership of a step is made: a usual one, and the highest published one.
const ETAS: [f64; 2] = [0.1, 0.175];
/// Groups of columns of the shortcut.
const GROUPS: usize = 16;
const ROUNDS: usize = 5;

/// Unit rows near `CLUSTERS` subspaces of `dim` dimensions, noise of `noise` times their length.
fn rows(n: usize, d: usize, dim: usize, noise: f64) -> Vec<f32> {
    let stream = Stream::new(7, "bench rows");
    let mut rng = stream.rng(u64::MAX);
    let bases: Vec<f64> = (0..CLUSTERS * dim * d).map(|_| rng.normal() / (d as f64).sqrt()).collect();
    let mut out = vec![0f32; n * d];
    for (i, row) in out.chunks_exact_mut(d).enumerate() {
        let mut rng = stream.rng(i as u64);
        let basis = &bases[(i % CLUSTERS) * dim * d..][..dim * d];
        let mut values: Vec<f64> = (0..d).map(|_| noise * rng.normal() * (dim as f64 / d as f64).sqrt()).collect();
        for direction in basis.chunks_exact(d) {
            // A mean of one half keeps a cluster on one side of the origin.
            let along = 0.5 + rng.normal();
            values.iter_mut().zip(direction).for_each(|(v, b)| *v += along * b);
        }
        let length = values.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter_mut().zip(values).for_each(|(r, v)| *r = (v / length) as f32);
    }
    out
}

/// A batch with its membership.
struct Batch {
    rows: Vec<f32>,
    gamma64: Vec<f64>,
    gamma: Vec<f32>,
    eta: f64,
}

impl Batch {
    fn new(eta: f64) -> Self {
        let [n, d] = BATCH;
        let rows = rows(n, d, 12, 0.3);
        let mut products = vec![0f32; n * n];
        gemm::mul_transposed(&rows, &rows, d, &mut products);
        let affinity: Vec<f64> =
            (0..n * n).map(|at| f64::from(products[(at / n).min(at % n) * n + (at / n).max(at % n)].abs())).collect();
        let gamma64 = project(&affinity, n, eta, Diagonal::Zero, &Options::default()).gamma;
        let gamma = gamma64.iter().map(|g| *g as f32).collect();
        Self { rows, gamma64, gamma, eta }
    }

    fn exact(&self) -> subspan::Result<cluster::rate::Gradient<f32>> {
        rate_gradient(&self.rows, BATCH[1], &self.gamma, EPS2, Columns::Unit)
    }

    /// Groups are part of a step.
    fn fast(&self) -> subspan::Result<cluster::rate::Gradient<f32>> {
        let groups = groups(&self.gamma, &self.rows, BATCH[1], GROUPS, 0);
        fast_rate_gradient(&self.rows, BATCH[1], &self.gamma, EPS2, &groups)
    }

    /// Cosines of both gradients of the shortcut with the exact ones, and the relative difference of `Rc`.
    fn gate(&self) -> subspan::Result<[f64; 3]> {
        let (exact, fast) = (self.exact()?, self.fast()?);
        let cosine = |a: &[f64], b: &[f64]| {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let wide = |v: &[f32]| -> Vec<f64> { v.iter().map(|v| f64::from(*v)).collect() };
        let through = |g: &[f32]| project_gradient(&self.gamma64, BATCH[0], &wide(g), self.eta);
        Ok([
            cosine(&wide(&exact.rows), &wide(&fast.rows)),
            cosine(&through(&exact.membership), &through(&fast.membership)),
            (fast.rates.parts / exact.rates.parts - 1.0).abs(),
        ])
    }
}

/// One step alone, for a harness that looks at the memory of the process: `exact` or `fast`.
pub(crate) fn step(kind: &str, repeats: usize) -> Result<(), Failure> {
    let batch = Batch::new(ETAS[0]);
    let mut seconds = Vec::new();
    for _ in 0..repeats {
        let start = Instant::now();
        let found = if kind == "exact" { batch.exact()? } else { batch.fast()? };
        seconds.push(start.elapsed().as_secs_f64());
        std::hint::black_box(found);
    }
    println!("{}", json!({ "step": kind, "batch": BATCH, "seconds": seconds }));
    Ok(())
}

/// Runs all parts, or those named, prints a line each and writes raw data to `file`.
pub(crate) fn run(only: &[&str], file: Option<&str>) -> Result<(), Failure> {
    let wanted = |name: &str| only.is_empty() || only.contains(&name);
    let mut parts = serde_json::Map::new();
    let all: [(&str, Part); 5] =
        [("step", steps), ("sinkhorn", sinkhorn), ("graph", graph), ("predict", predict), ("fit", fit)];
    for (name, measure) in all.into_iter().filter(|(name, _)| wanted(name)) {
        let value = measure()?;
        println!("{name}: {value}");
        parts.insert(name.into(), value);
    }
    if let Some(file) = file {
        let record = json!({ "machine": machine(), "parts": parts });
        std::fs::write(file, serde_json::to_string_pretty(&record)? + "\n")?;
    }
    Ok(())
}

fn steps() -> Result<Value, Failure> {
    let mut out = Vec::new();
    for eta in ETAS {
        let batch = Batch::new(eta);
        let mut cases: Vec<Box<dyn FnMut() + '_>> = vec![
            Box::new(|| drop(std::hint::black_box(batch.exact()))),
            Box::new(|| drop(std::hint::black_box(batch.fast()))),
        ];
        let raw = interleaved(ROUNDS, &mut cases);
        drop(cases);
        let [rows, affinity, parts] = batch.gate()?;
        out.push(json!({
            "eta": eta, "batch": BATCH, "exact_seconds": summary(&raw[0]).median, "fast_seconds": summary(&raw[1]).median,
            "cosine_rows": rows, "cosine_affinity": affinity, "parts_error": parts, "raw": raw,
        }));
    }
    Ok(json!(out))
}

/// Products with the kernel that plain sweeps and Newton steps need at a low temperature.
fn sinkhorn() -> Result<Value, Failure> {
    let (n, d, eta) = (1000, 64, 0.05);
    let rows = rows(n, d, 6, 0.3);
    let mut products = vec![0f32; n * n];
    gemm::mul_transposed(&rows, &rows, d, &mut products);
    let affinity: Vec<f64> =
        (0..n * n).map(|at| f64::from(products[(at / n).min(at % n) * n + (at / n).max(at % n)].abs())).collect();
    let count = |sweeps: usize| {
        let options = Options { sweeps, max_products: 100_000, ..Options::default() };
        let scaling = project(&affinity, n, eta, Diagonal::Zero, &options).scaling;
        (scaling.products, scaling.converged)
    };
    let ((plain, a), (newton, b)) = (count(100_000), count(Options::default().sweeps));
    Ok(json!({ "rows": n, "eta": eta, "plain_products": plain, "newton_products": newton, "converged": a && b }))
}

/// The exact graph of 64 nearest rows against one large product of the same work.
fn graph() -> Result<Value, Failure> {
    let (n, d, k) = (70_000, 128, 64);
    let rows = rows(n, d, 12, 0.3);
    let (side, depth) = (4096, d);
    let mut product = vec![0f32; side * side];
    let mut rate = 0f64;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        gemm::mul_transposed(&rows[..side * depth], &rows[side * depth..2 * side * depth], depth, &mut product);
        rate = rate.max(2.0 * (side * side * depth) as f64 / start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    let near =
        Search { rows: &rows, n_cols: d, affinity: &Affinity::Cosine, weights: &[] }.nearest(&rows, &[], k, true);
    let seconds = start.elapsed().as_secs_f64();
    std::hint::black_box(&near);
    let own = 2.0 * (n as f64).powi(2) * d as f64 / seconds;
    Ok(json!({
        "rows": n, "columns": d, "neighbours": k, "seconds": seconds, "gflops": own / 1e9, "gemm_gflops": rate / 1e9,
        "share_of_gemm": own / rate,
    }))
}

/// 30,000 new rows of 512 values by a model of 8192 anchors.
fn predict() -> Result<Value, Failure> {
    let (n, d) = (8192, 512);
    let values = rows(n + 30_000, d, 12, 0.3);
    let config = Config {
        clusters: Clusters::Fixed(CLUSTERS),
        affinity: Some(cluster::AffinityKind::Cosine),
        neighbours: Some(15),
        ..Config::default()
    };
    let model = cluster::run(&Features::new(&values[..n * d], d)?, &config, 0, &Silent)?.model;
    let new = Features::new(&values[n * d..], d)?;
    let mut seconds = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        std::hint::black_box(model.predict(&new, false)?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(json!({
        "rows": 30_000, "columns": d, "values_compared": model.n_out(), "anchors": model.labels.len(),
        "seconds": summary(&seconds).median, "raw": seconds,
    }))
}

/// A fit of 5000 rows of 500 values that chooses everything, the number of clusters too.
fn fit() -> Result<Value, Failure> {
    let (n, d) = (5000, 500);
    let values = rows(n, d, 12, 0.3);
    let start = Instant::now();
    let outcome = cluster::run(&Features::new(&values, d)?, &Config::default(), 0, &Silent)?;
    let seconds = start.elapsed().as_secs_f64();
    let truth: Vec<u32> = (0..n).map(|i| (i % CLUSTERS) as u32).collect();
    let found = cluster::agreement(&outcome.labels, &truth);
    Ok(json!({
        "rows": n, "columns": d, "seconds": seconds, "clusters": outcome.clusters.len(), "accuracy": found.accuracy,
        "candidates": outcome.summary.candidates.len(),
    }))
}
