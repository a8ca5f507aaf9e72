//! From a batch of columns to a row-major block of finite numbers.

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use subspan::Error;
use subspan::rows::RowIds;

use super::Missing;
use super::categories::NO_CODE;
use super::schema::{Kind, Plan};
use crate::error::{IoError, Result};

/// Rows written at a time, so that the block's part stays in the cache while columns are laid into it.
const TILE_ROWS: usize = 512;

/// Reused buffers of a scan.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Row-major values of the kept rows.
    pub(crate) values: Vec<f64>,
    /// Whether each row of the batch lacks a value; empty if none does.
    bad: Vec<bool>,
    /// Local indices of the kept rows, if some were dropped.
    kept: Option<Vec<usize>>,
    ids: Vec<u64>,
    codes: Vec<u32>,
}

impl Block {
    /// Fills the block from a batch whose first row has global index `first_row`, and returns the number of dropped rows.
    ///
    /// # Errors
    /// [`IoError::Missing`] with the first bad row, unless such rows are to be dropped.
    pub(crate) fn fill(&mut self, path: &str, plan: &Plan, batch: &RecordBatch, first_row: u64) -> Result<u64, Error> {
        let (n, d) = (batch.num_rows(), plan.n_cols);
        self.values.clear();
        self.values.resize(n * d, 0.0);
        self.bad.clear();
        let mut lanes = Vec::new();
        for used in &plan.used {
            let column = batch.column(used.source);
            match &used.kind {
                Kind::Number { factor } => {
                    // Single precision is widened on its way into the block.
                    let numbers = match column.as_primitive_opt::<Float32Type>() {
                        Some(single) => Numbers::Single(single.clone()),
                        None => Numbers::Double(numbers(column)?.as_primitive::<Float64Type>().clone()),
                    };
                    if let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) {
                        self.bad.resize(n, false);
                        nulls.iter().zip(&mut self.bad).filter(|(valid, _)| !valid).for_each(|(_, bad)| *bad = true);
                    }
                    match &numbers {
                        Numbers::Single(numbers) => self.mark_non_finite(numbers.values(), n),
                        Numbers::Double(numbers) => self.mark_non_finite(numbers.values(), n),
                    }
                    lanes.push(Lane { numbers, factor: *factor, offset: used.offset });
                }
                Kind::Levels { codes, skip } => {
                    codes.encode(path, column, &mut self.codes)?;
                    for i in 0..n {
                        match self.codes[i] {
                            NO_CODE => {
                                self.bad.resize(n, false);
                                self.bad[i] = true;
                            }
                            code if code >= *skip => {
                                self.values[i * d + used.offset + (code - skip) as usize] = 1.0;
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        scatter(&lanes, &mut self.values, d);
        self.settle(plan, n, first_row, |_, row| explain(path, plan, batch, row, first_row))
    }

    /// The same for rows that are numbers already, in design order.
    pub(crate) fn fill_numbers(
        &mut self,
        path: &str,
        plan: &Plan,
        first_row: u64,
        fill: impl FnOnce(&mut Vec<f64>) -> Result<()>,
    ) -> Result<u64, Error> {
        self.bad.clear();
        fill(&mut self.values)?;
        let d = plan.n_cols;
        let n = self.values.len() / d;
        if !all_finite(&self.values) {
            self.bad.extend(self.values.chunks_exact(d).map(|row| row.iter().any(|v| !v.is_finite())));
        }
        self.settle(plan, n, first_row, |values, row| {
            let numbers = &values[row * d..][..d];
            let at = numbers.iter().position(|v| !v.is_finite()).unwrap_or_default();
            missing(path, &plan.used[at].name, first_row + row as u64, Some(numbers[at]))
        })
    }

    fn mark_non_finite<T: Copy + Into<f64>>(&mut self, values: &[T], n: usize) {
        if !all_finite(values) {
            self.bad.resize(n, false);
            let marks = values.iter().zip(&mut self.bad);
            marks.filter(|(v, _)| !(**v).into().is_finite()).for_each(|(_, bad)| *bad = true);
        }
    }

    /// Reports or removes the bad rows.
    fn settle(
        &mut self,
        plan: &Plan,
        n: usize,
        first_row: u64,
        explain: impl FnOnce(&[f64], usize) -> IoError,
    ) -> Result<u64, Error> {
        self.kept = None;
        let Some(first_bad) = self.bad.iter().position(|bad| *bad) else { return Ok(0) };
        if plan.missing == Missing::Error {
            return Err(explain(&self.values, first_bad).into());
        }
        let d = plan.n_cols;
        let kept: Vec<usize> = (0..n).filter(|i| !self.bad[*i]).collect();
        for (to, from) in kept.iter().enumerate() {
            self.values.copy_within(from * d..(from + 1) * d, to * d);
        }
        self.values.truncate(kept.len() * d);
        self.ids.clear();
        self.ids.extend(kept.iter().map(|i| first_row + *i as u64));
        let dropped = (n - kept.len()) as u64;
        self.kept = Some(kept);
        Ok(dropped)
    }

    /// Global indices of the kept rows.
    pub(crate) fn ids(&self, first_row: u64) -> RowIds<'_> {
        if self.kept.is_some() { RowIds::List(&self.ids) } else { RowIds::From(first_row) }
    }

    /// Local indices of the kept rows in the batch, if they differ.
    pub(crate) fn kept(&self) -> Option<&[usize]> {
        self.kept.as_deref()
    }
}

/// A column of numbers on its way into the block.
struct Lane {
    numbers: Numbers,
    factor: f64,
    offset: usize,
}

enum Numbers {
    Double(Float64Array),
    Single(Float32Array),
}

/// Lays columns into a row-major block of `d` columns.
fn scatter(lanes: &[Lane], block: &mut [f64], d: usize) {
    for (tile, rows) in block.chunks_mut(TILE_ROWS * d).enumerate() {
        for Lane { numbers, factor, offset } in lanes {
            match numbers {
                Numbers::Double(numbers) => lay(&numbers.values()[tile * TILE_ROWS..], *factor, rows, d, *offset),
                Numbers::Single(numbers) => lay(&numbers.values()[tile * TILE_ROWS..], *factor, rows, d, *offset),
            }
        }
    }
}

fn lay<T: Copy + Into<f64>>(numbers: &[T], factor: f64, rows: &mut [f64], d: usize, offset: usize) {
    for (number, row) in numbers.iter().zip(rows.chunks_exact_mut(d)) {
        row[offset] = (*number).into() * factor;
    }
}

/// Whether no value is NaN or infinite, without an early exit, so that it vectorizes.
fn all_finite<T: Copy + Into<f64>>(values: &[T]) -> bool {
    values.iter().fold(true, |all, v| all & (*v).into().is_finite())
}

/// Any column of numbers as `f64`.
fn numbers(column: &ArrayRef) -> Result<ArrayRef> {
    let integer = match column.data_type() {
        DataType::Date32 | DataType::Time32(_) => Some(DataType::Int32),
        DataType::Date64 | DataType::Time64(_) | DataType::Timestamp(..) | DataType::Duration(_) => {
            Some(DataType::Int64)
        }
        _ => None,
    };
    let convert = |column: &ArrayRef, to: &DataType| cast(column, to).map_err(IoError::from);
    match integer {
        Some(integer) => convert(&convert(column, &integer)?, &DataType::Float64),
        None => convert(column, &DataType::Float64),
    }
}

/// The error for the first column without a value in row `row` of the batch.
fn explain(path: &str, plan: &Plan, batch: &RecordBatch, row: usize, first_row: u64) -> IoError {
    for used in &plan.used {
        let column = batch.column(used.source);
        let value = match &used.kind {
            Kind::Number { .. } => match numbers(column) {
                Ok(numbers) if numbers.is_valid(row) => Some(numbers.as_primitive::<Float64Type>().value(row)),
                _ => None,
            },
            Kind::Levels { .. } => column.logical_nulls().is_none_or(|valid| valid.is_valid(row)).then_some(0.0),
        };
        if value.is_none_or(|v| !v.is_finite()) {
            return missing(path, &used.name, first_row + row as u64, value);
        }
    }
    IoError::Changed { path: path.into() }
}

fn missing(path: &str, column: &str, row: u64, value: Option<f64>) -> IoError {
    let value = match value {
        None => "missing",
        Some(v) if v.is_nan() => "NaN",
        Some(_) => "infinite",
    };
    IoError::Missing { path: path.into(), column: column.into(), row, value }
}
