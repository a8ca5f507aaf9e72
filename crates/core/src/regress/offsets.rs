//! Columns far from zero: times in seconds since 1970, identifiers of sixteen digits.
//!
//! Their Gram matrix with the constant column has a condition of the square of offset over spread, and what a proof rests on is lost to
//! rounding before it is looked at. The constant term makes up for any offset, so such columns are measured from a place of their own.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::remote::{self, Pass};
use crate::rows::{RowBlock, RowSource};

/// Rows that are looked at, the first of the table whatever its blocks.
const ROWS: u64 = 256;
/// Offset over spread from which a column is measured from its middle.
const FAR: f64 = 1e4;

/// What to subtract from each feature; empty if all are near zero. Cost: the first blocks of the table; where its rows are elsewhere, a pass.
///
/// # Errors
/// What the source reports; [`Error::Cancelled`].
pub(super) fn offsets(source: &dyn RowSource, observer: &dyn Observer) -> Result<Vec<f64>> {
    let n_cols = source.n_cols();
    let first = if source.origin().is_some() { remote::run(source, &FirstRows, observer)? } else { read(source)? };
    let of = |j: usize| {
        let column = || first.iter().skip(j).step_by(n_cols);
        let [low, high] = column().fold([f64::INFINITY, f64::NEG_INFINITY], |[l, h], v| [l.min(*v), h.max(*v)]);
        let (middle, spread) = (0.5 * (low + high), high - low);
        // A column that does not vary here may do so later; small constants stay what they are.
        let far = if spread > 0.0 { FAR * spread } else { FAR };
        if middle.is_finite() && middle.abs() > far { middle } else { 0.0 }
    };
    let all: Vec<f64> = (0..n_cols - 1).map(of).collect();
    Ok(if all.iter().all(|v| *v == 0.0) { Vec::new() } else { all })
}

/// What [`FirstRows`] finds, without reading on.
fn read(source: &dyn RowSource) -> Result<Vec<f64>> {
    let (mut first, mut done) = (Vec::new(), false);
    for chunk in 0..source.n_chunks() {
        let scanned = source.scan(chunk, &mut |block| {
            FirstRows.step(&mut first, block)?;
            let n_rows = block.values.len() / block.n_cols;
            done = n_rows > 0 && block.id(n_rows - 1) + 1 >= ROWS;
            if done { Err(Error::Cancelled) } else { Ok(()) }
        });
        match scanned {
            Err(_) if done => break,
            scanned => scanned?,
        }
    }
    Ok(first)
}

/// The first rows of a table.
#[derive(Serialize, Deserialize)]
pub(super) struct FirstRows;

impl Pass for FirstRows {
    const NAME: &'static str = "first rows";
    type State = Vec<f64>;

    fn start(&self, _: usize) -> Vec<f64> {
        Vec::new()
    }

    fn step(&self, first: &mut Vec<f64>, block: &RowBlock<'_>) -> Result<()> {
        let rows = block.values.chunks_exact(block.n_cols).enumerate();
        rows.take_while(|(i, _)| block.id(*i) < ROWS).for_each(|(_, row)| first.extend_from_slice(row));
        Ok(())
    }

    fn merge(&self, first: &mut Vec<f64>, part: Vec<f64>) {
        first.extend(part);
    }
}
