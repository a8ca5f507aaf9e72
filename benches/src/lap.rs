//! Assignment problems of files: each solved cold, and warm from the one before it, timed.

use std::error::Error;
use std::time::Instant;

use serde_json::json;
use subspan::assign::lap::{Assignment, Warm, minimize};
use subspan_io::Matrix;

/// Solves the square matrices of `files`, in order, `repeats` times; one JSON line.
pub(crate) fn run(files: &[&str], repeats: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut problems = Vec::new();
    for file in files {
        let matrix = Matrix::open(file)?;
        if matrix.n_rows() != matrix.n_cols() {
            return Err(format!("{file}: {} rows and {} columns", matrix.n_rows(), matrix.n_cols()).into());
        }
        problems.push((matrix.to_f32()?, matrix.n_cols()));
    }
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    let (mut values, mut certified) = (Vec::new(), true);
    for repeat in 0..repeats {
        let mut before: Option<Assignment> = None;
        let (mut cold_now, mut warm_now) = (Vec::new(), Vec::new());
        for (costs, n) in &problems {
            let start = Instant::now();
            let found = minimize(costs, *n, None)?;
            cold_now.push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            let last = before.as_ref().filter(|b| b.duals.len() == *n);
            let next = minimize(costs, *n, last.map(|b| Warm { columns: &b.columns, duals: &b.duals }))?;
            warm_now.push(start.elapsed().as_secs_f64());
            certified &= found.certificate.holds() && next.certificate.holds();
            if repeat == 0 {
                values.push((found.certificate.value, next.certificate.value));
            }
            before = Some(next);
        }
        cold.push(cold_now);
        warm.push(warm_now);
    }
    println!("{}", json!({"cold": cold, "warm": warm, "values": values, "certified": certified}));
    Ok(())
}
