//! The data of the demo, in memory.

use std::path::Path;

use rayon::prelude::*;
use subspan::record::InputRecord;
use subspan::{DenseRows, Result, Silent, rows};
use subspan_io::{Table, TableOptions, write_bytes_atomically};

use crate::failure::Failure;

/// Flights out of New York City in 2013 with the weather at departure; see `fixtures/make_nycflights13.py`.
const PARQUET: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/nycflights13.parquet"));

/// The name under which the data is put beside the report, for the reader's own trials.
pub(super) const FILE: &str = "nycflights13.parquet";

/// What is explained: minutes late at arrival.
pub(super) const TARGET: &str = "arr_delay";

/// The flights, and what the chapters find out about them.
pub(super) struct Flights {
    /// Names of the columns of the design, without the constant and the target.
    pub(super) names: Vec<String>,
    /// Rows `[design, target]`.
    values: Vec<f64>,
    pub(super) input: InputRecord,
    /// The proved optimum of the l1 fit: coefficients, intercept last, and the objective over all flights.
    pub(super) optimum: Option<(Vec<f64>, f64)>,
}

impl Flights {
    /// Writes the data beside the report and reads it.
    pub(super) fn unpack(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(FILE);
        write_bytes_atomically(&path, PARQUET)?;
        let options = TableOptions { target: Some(TARGET.into()), drop_first_level: true, ..TableOptions::default() };
        let table = Table::open(&path.display().to_string(), &options)?;
        let collect = |values: &mut Vec<f64>, block: &rows::RowBlock<'_>| {
            values.extend_from_slice(block.values);
            Ok(())
        };
        let values = rows::fold(&table, &Silent, Vec::new, collect, |all, mut more| all.append(&mut more))?;
        Ok(Self { names: table.column_names().to_vec(), values, input: table.input_record()?, optimum: None })
    }

    /// Columns of `table`.
    pub(super) fn n_cols(&self) -> usize {
        self.names.len() + 1
    }

    pub(super) fn n_rows(&self) -> usize {
        self.values.len() / self.n_cols()
    }

    /// Rows `[design, target]`, for a regression that adds its own constant.
    pub(super) fn table(&self) -> Result<DenseRows<'_>> {
        DenseRows::new(&self.values, self.n_cols())
    }

    /// Rows `[design, 1, target]`: what a sample for that regression has to stand for.
    pub(super) fn with_constant(&self) -> Vec<f64> {
        let (d, n_cols) = (self.names.len(), self.n_cols());
        let mut out = Vec::with_capacity(self.n_rows() * (n_cols + 1));
        for row in self.values.chunks_exact(n_cols) {
            out.extend_from_slice(&row[..d]);
            out.extend_from_slice(&[1.0, row[d]]);
        }
        out
    }

    /// Sum of absolute residuals over all flights; `x` has the intercept last.
    pub(super) fn l1_objective(&self, x: &[f64]) -> f64 {
        let (d, n_cols) = (self.names.len(), self.n_cols());
        let residual = |row: &[f64]| (row[d] - x[d] - row[..d].iter().zip(x).map(|(a, c)| a * c).sum::<f64>()).abs();
        let chunk = rows::MEMORY_CHUNK_ROWS * n_cols;
        let sums = self.values.par_chunks(chunk).map(|rows| rows.chunks_exact(n_cols).map(residual).sum::<f64>());
        // Collected first: the sum of the chunks must not depend on the threads.
        sums.collect::<Vec<f64>>().into_iter().sum()
    }

    /// Flights with a one in the column.
    pub(super) fn count(&self, column: usize) -> u64 {
        self.values.chunks_exact(self.n_cols()).filter(|row| row[column] != 0.0).count() as u64
    }

    /// Columns of the levels of `variable`.
    pub(super) fn levels(&self, variable: &str) -> Vec<usize> {
        let is_level = |name: &str| name.strip_prefix(variable).is_some_and(|rest| rest.starts_with('='));
        (0..self.names.len()).filter(|column| is_level(&self.names[*column])).collect()
    }
}

/// The names behind the rarest carriers' codes.
pub(super) fn carrier_name(code: &str) -> &str {
    match code {
        "AS" => "Alaska",
        "F9" => "Frontier",
        "HA" => "Hawaiian",
        "OO" => "SkyWest",
        "YV" => "Mesa",
        other => other,
    }
}
