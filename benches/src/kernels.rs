//! The kernels of `subspan-linalg` against their floors: the rate of a large matrix product and the bandwidth of a sum.
//!
//! Every case runs on one thread and on all threads. The floor of a kernel is the larger of its flop at the gemm rate and its
//! bytes at the sum's bandwidth, both measured in the same rounds on as many threads; the share is floor / median time.

use std::fmt::Write;
use std::hint::black_box;

use rayon::ThreadPool;
use rayon::prelude::*;
use serde_json::{Value, json};
use subspan_linalg::{Mat, par_gram, par_mul_vec, par_row_norms_sq, par_tr_mul_vec, par_weighted_gram};

use crate::measure::{interleaved, machine, summary};

const ROUNDS: usize = 9;
const WIDTHS: [usize; 5] = [20, 64, 100, 256, 1000];
/// Values of a table: 160 MB, far beyond the caches.
const TABLE_LEN: usize = 20_000_000;
/// Side of the square product that stands for what the machine can do.
const GEMM_SIDE: usize = 1024;

struct Case<'a> {
    name: &'static str,
    d: usize,
    n: usize,
    threads: usize,
    flop: f64,
    bytes: f64,
    run: Box<dyn FnMut() + 'a>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures all kernels, prints a table and writes the raw data to `file`.
pub(crate) fn run(file: Option<&str>) -> Result<(), Failure> {
    let (table, raw) = measure();
    print!("{table}");
    if let Some(file) = file {
        std::fs::write(file, format!("{raw:#}\n")).map_err(|e| format!("{file}: {e}"))?;
    }
    Ok(())
}

fn measure() -> (String, Value) {
    let table: Vec<f64> = (0..TABLE_LEN).map(|i| ((i * 7919 % 1009) as f64 - 504.0) / 512.0).collect();
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1, all];
    counts.dedup();
    let pools: Vec<ThreadPool> = counts
        .iter()
        .map(|t| rayon::ThreadPoolBuilder::new().num_threads(*t).build().expect("a thread pool"))
        .collect();
    let square = Mat::from_vec(GEMM_SIDE, GEMM_SIDE, table[..GEMM_SIDE * GEMM_SIDE].to_vec());
    let factors: Vec<Mat> = WIDTHS
        .iter()
        .map(|d| Mat::from_fn(*d, *d, |i, j| if i <= j { 1.0 / (1 + j - i) as f64 } else { 0.0 }))
        .collect();
    let vector: Vec<f64> = table[..TABLE_LEN / WIDTHS[0]].to_vec();
    let weights: Vec<f64> = vector.iter().map(|v| v.abs()).collect();

    let mut cases = Vec::new();
    for pool in &pools {
        let threads = pool.current_num_threads();
        cases.push(Case {
            name: "gemm",
            d: GEMM_SIDE,
            n: GEMM_SIDE,
            threads,
            flop: threads as f64 * 2.0 * (GEMM_SIDE as f64).powi(3),
            bytes: 0.0,
            // One product per thread.
            run: Box::new(|| pool.broadcast(|_| drop(black_box(square.mul(&square)))).clear()),
        });
        cases.push(Case {
            name: "sum",
            d: 1,
            n: TABLE_LEN,
            threads,
            flop: 0.0,
            bytes: 8.0 * TABLE_LEN as f64,
            run: Box::new(|| {
                pool.install(|| black_box(table.par_chunks(1 << 16).map(sum).sum::<f64>()));
            }),
        });
        for (d, factor) in WIDTHS.into_iter().zip(&factors) {
            let n = TABLE_LEN / d;
            let rows = &table[..n * d];
            let (symmetric, bytes) = ((n * d * (d + 1)) as f64, 8.0 * (n * d) as f64);
            let (linear, weights, y) = (2.0 * (n * d) as f64, &weights[..n], &vector[..n]);
            let mut add = |name, flop, bytes, run| cases.push(Case { name, d, n, threads, flop, bytes, run });
            add("gram", symmetric, bytes, Box::new(move || pool.install(|| drop(black_box(par_gram(rows, d))))));
            add(
                "weighted gram",
                symmetric,
                bytes,
                Box::new(move || pool.install(|| drop(black_box(par_weighted_gram(rows, d, weights))))),
            );
            add(
                "row norms",
                symmetric,
                bytes,
                Box::new(move || pool.install(|| drop(black_box(par_row_norms_sq(rows, factor, true))))),
            );
            let (x, mut product) = (factor.row(0), vec![0.0; n]);
            add("A x", linear, bytes, Box::new(move || pool.install(|| par_mul_vec(rows, x, black_box(&mut product)))));
            add("A' y", linear, bytes, Box::new(move || pool.install(|| drop(black_box(par_tr_mul_vec(rows, d, y))))));
        }
    }
    report(cases)
}

/// Eight sums side by side, which the compiler turns into vectors.
fn sum(values: &[f64]) -> f64 {
    let mut sums = [0.0; 32];
    for chunk in values.chunks_exact(32) {
        sums.iter_mut().zip(chunk).for_each(|(s, v)| *s += v);
    }
    sums.iter().sum()
}

/// The cases' table for people, and their raw data.
fn report(cases: Vec<Case<'_>>) -> (String, Value) {
    let mut runs = Vec::new();
    let mut heads = Vec::new();
    for Case { name, d, n, threads, flop, bytes, run } in cases {
        heads.push((name, d, n, threads, flop, bytes));
        runs.push(run);
    }
    let raw = interleaved(ROUNDS, &mut runs);
    let reference = |name: &str, threads: usize| {
        let k =
            heads.iter().position(|h| h.0 == name && h.3 == threads).expect("gemm and sum run on every thread count");
        (heads[k].4.max(heads[k].5)) / summary(&raw[k]).median
    };
    let mut table = format!(
        "{:14} {:>7} {:>16} {:>10} {:>20} {:>9} {:>8} {:>7} {:>7} {:>8}\n",
        "kernel", "threads", "n x d", "median ms", "min .. max", "Gflop/s", "of gemm", "GB/s", "of sum", "of floor"
    );
    let mut entries = Vec::new();
    for ((name, d, n, threads, flop, bytes), raw) in heads.iter().copied().zip(&raw) {
        let s = summary(raw);
        let (gemm, sum) = (reference("gemm", threads), reference("sum", threads));
        let floor = (flop / gemm).max(bytes / sum);
        let shape = format!("{n} x {d}");
        let range = format!("{:.2} .. {:.2}", 1e3 * s.min, 1e3 * s.max);
        let (rate, bandwidth) = (flop / s.median, bytes / s.median);
        writeln!(
            table,
            "{name:14} {threads:>7} {shape:>16} {:>10.2} {range:>20} {:>9.1} {:>6.0} % {:>7.1} {:>5.0} % {:>6.0} %",
            1e3 * s.median,
            rate / 1e9,
            100.0 * rate / gemm,
            bandwidth / 1e9,
            100.0 * bandwidth / sum,
            100.0 * floor / s.median,
        )
        .expect("writing to a string");
        entries.push(
            json!({"kernel": name, "d": d, "n": n, "threads": threads, "flop": flop, "bytes": bytes, "seconds": raw}),
        );
    }
    let raw = json!({
        "benchmark": "kernels",
        "machine": machine(),
        "method": "one warm-up, then rounds over all cases in turn; seconds are in round order",
        "rounds": ROUNDS,
        "cases": entries,
    });
    (table, raw)
}
