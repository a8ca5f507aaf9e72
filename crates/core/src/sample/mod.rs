//! Row sampling by l_p importance (Woodruff and Yasuda, "Sharper bounds for l_p sensitivity sampling", arXiv 2306.00732 v2).

mod config;
mod lift;
mod outcome;

pub use config::{Config, Draw, Rule, Size};
pub use lift::{Lift, LiftedRows, MAX_LIFTED_COLUMNS, lifted_dim};
pub use outcome::{Certificate, CertificateKind, Sample, Summary};

use crate::error::Result;
use crate::observe::Observer;
use crate::rows::RowSource;

/// Draws a weighted sample of the table's rows.
///
/// # Errors
/// A parameter out of range, an empty or all-zero table, what the source reports.
pub fn run(source: &dyn RowSource, config: &Config, seed: u64, observer: &dyn Observer) -> Result<Sample> {
    let _ = (source, config, seed, observer);
    unimplemented!()
}
