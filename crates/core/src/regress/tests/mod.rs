//! Laws of the regressions: closed forms, optimality by dual certificates, invariances, exactness, malformed parameters.

mod closed_forms;
mod proofs;
mod random;
mod remote;
mod robustness;

use super::*;
use crate::draw::Stream;
use crate::observe::Silent;
use crate::rows::DenseRows;

/// Rows `[a, b]` with `b = Σ a + noise / u`, heavy-tailed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Gaussian,
    /// Row scales `|t_1.5|`.
    Heavy,
    /// The last four features live on eight rows only.
    Rare,
}

fn data(kind: Kind, n: usize, d: usize, seed: u64) -> Vec<f64> {
    let mut rng = Stream::new(seed, "regression data").rng(0);
    let mut values = Vec::with_capacity(n * (d + 1));
    for i in 0..n {
        let scale = if kind == Kind::Heavy { rng.uniform().powf(-1.0 / 1.5) } else { 1.0 };
        let rare = kind == Kind::Rare && i % (n / 8) != n / 16;
        let from = values.len();
        for j in 0..d {
            let a = scale * rng.normal();
            values.push(if rare && j + 4 >= d { 0.0 } else { a });
        }
        let fit: f64 = values[from..].iter().enumerate().map(|(j, a)| a * (1.0 + 0.1 * j as f64)).sum();
        values.push(fit + rng.normal() / (0.2 + rng.uniform()));
    }
    values
}

fn config(loss: Loss, mode: Mode) -> Config {
    Config { loss, mode, intercept: false, certify: false }
}

fn fit(values: &[f64], n_cols: usize, config: &Config) -> Fit {
    run(&DenseRows::new(values, n_cols).unwrap(), config, 0, &Silent).unwrap().fits.swap_remove(0)
}

const SMALL: exact::Plan = exact::Plan { pilot_rows: 2000, band: 0.02, full_bytes: 1 << 30 };

/// Every loss, with targets it can take.
fn losses() -> Vec<Loss> {
    vec![
        Loss::L1,
        Loss::Quantile { levels: vec![0.1, 0.9] },
        Loss::L2,
        Loss::Lp { p: 1.0 },
        Loss::Lp { p: 1.2 },
        Loss::Lp { p: 1.5 },
        Loss::Lp { p: 4.0 },
        Loss::Lp { p: 11.0 },
        Loss::Huber { delta: 0.7 },
        Loss::Logistic { l2: 0.0 },
        Loss::Logistic { l2: 3.0 },
    ]
}

/// The data with classes for targets, where the loss wants them.
fn targets(loss: &Loss, mut values: Vec<f64>, n_cols: usize, seed: u64) -> Vec<f64> {
    if let Loss::Logistic { .. } = loss {
        let noise = Stream::new(seed, "classes");
        for (i, row) in values.chunks_exact_mut(n_cols).enumerate() {
            let u = noise.uniform(i as u64);
            row[n_cols - 1] = if row[0] + (u / (1.0 - u)).ln() > 0.0 { 1.0 } else { 0.0 };
        }
    }
    values
}

fn penalty(loss: &Loss, coefficients: &[f64]) -> f64 {
    match loss {
        Loss::Logistic { l2 } => l2 / 2.0 * coefficients.iter().map(|c| c * c).sum::<f64>(),
        _ => 0.0,
    }
}

fn objective(values: &[f64], n_cols: usize, loss: &Loss, fit: &Fit, coefficients: &[f64]) -> f64 {
    let penalty = penalty(loss, coefficients);
    let level = fit.quantile.unwrap_or(0.5);
    let losses = values.chunks_exact(n_cols).map(|row| {
        let eta = row.iter().zip(coefficients).map(|(a, x)| a * x).sum::<f64>() + fit.intercept;
        evaluate::row_loss(loss, level, eta, row[n_cols - 1])
    });
    losses.sum::<f64>() + penalty
}
