//! What rounding to single precision leaves of columns: rows that are compared in it must differ in it.

use crate::error::{Error, Result};

/// Share of a column's range that rounding may change a value by.
const LOST: f64 = 1e-3;
/// Relative range of a column that is constant up to rounding in double precision.
const CONSTANT: f64 = 1e-13;

/// Columns whose values are rounded, one value after the other, row by row.
///
/// ```
/// use subspan::precision::Rounding;
/// let mut columns = Rounding::new(2);
/// [1.0, 1.7e9, 2.0, 1.7e9 + 1.0].into_iter().for_each(|v| drop(columns.round(v)));
/// assert!(columns.check().unwrap_err().to_string().contains("column 1"));
/// ```
#[derive(Debug, Clone)]
pub struct Rounding {
    columns: Vec<Column>,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    low: f64,
    high: f64,
    /// Largest change of a value.
    error: f64,
}

impl Rounding {
    /// Nothing rounded yet.
    ///
    /// # Panics
    /// If there are no columns.
    pub fn new(n_cols: usize) -> Self {
        assert!(n_cols > 0, "columns");
        let column = Column { low: f64::INFINITY, high: f64::NEG_INFINITY, error: 0.0 };
        Self { columns: vec![column; n_cols], next: 0 }
    }

    /// The next value in single precision.
    pub fn round(&mut self, v: f64) -> f32 {
        let (n_cols, rounded) = (self.columns.len(), v as f32);
        let column = &mut self.columns[self.next];
        self.next = (self.next + 1) % n_cols;
        (column.low, column.high) = (column.low.min(v), column.high.max(v));
        column.error = column.error.max((v - f64::from(rounded)).abs());
        rounded
    }

    /// Whether all columns are still told apart.
    ///
    /// # Errors
    /// [`Error::Precision`] for the first column that is not.
    pub fn check(&self) -> Result<()> {
        let lost = |c: &Column| {
            let range = c.high - c.low;
            range > CONSTANT * c.low.abs().max(c.high.abs()) && c.error > LOST * range
        };
        match self.columns.iter().position(lost) {
            Some(column) => {
                let Column { low, high, .. } = self.columns[column];
                Err(Error::Precision { column, low, high })
            }
            None => Ok(()),
        }
    }
}
