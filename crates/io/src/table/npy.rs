//! Plain arrays as tables: columns c0, c1, ..., read by position in fixed ranges of rows.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use subspan::rows::{ARRAY_CHUNK_ROWS, RowBlock, block_rows};

use super::block::Block;
use super::records::{RawRecords, arrow_type};
use super::schema::Plan;
use crate::array::StoredArray;
use crate::error::{IoError, Result};

/// Most columns of an array that make sense as named columns of a table.
const MAX_COLUMNS: usize = 1 << 20;

/// A two-dimensional array (or one column).
#[derive(Debug)]
pub(crate) struct ArrayStore {
    array: StoredArray,
    schema: SchemaRef,
    starts: Vec<u64>,
}

impl ArrayStore {
    pub(crate) fn new(array: StoredArray) -> Result<Self> {
        if array.shape.len() > 2 {
            let what = format!("an array of {} dimensions, a table has two", array.shape.len());
            return Err(IoError::unsupported(&array.path, what));
        }
        let n_rows = array.n_rows();
        if n_rows == 0 {
            return Err(IoError::Empty { path: array.path, what: "rows" });
        }
        let n_cols = array.n_cols();
        if n_cols > MAX_COLUMNS {
            return Err(IoError::unsupported(&array.path, format!("{n_cols} columns, more than {MAX_COLUMNS}")));
        }
        if n_cols == 0 {
            return Err(IoError::Empty { path: array.path, what: "columns" });
        }
        let fields: Vec<Field> =
            (0..n_cols).map(|j| Field::new(format!("c{j}"), arrow_type(array.dtype), false)).collect();
        let starts = (0..n_rows).step_by(ARRAY_CHUNK_ROWS).chain([n_rows]).collect();
        Ok(Self { array, schema: Arc::new(Schema::new(fields)), starts })
    }

    /// One column per column of the array.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// First row of each chunk, then the number of rows.
    pub(crate) fn starts(&self) -> &[u64] {
        &self.starts
    }

    /// The array behind the table.
    pub(crate) fn array(&self) -> &StoredArray {
        &self.array
    }

    /// Reads a chunk straight into row-major blocks; returns the number of dropped rows.
    pub(crate) fn scan(
        &self,
        path: &str,
        plan: &Plan,
        chunk: usize,
        block: &mut Block,
        visit: &mut dyn FnMut(&RowBlock<'_>) -> subspan::Result<()>,
    ) -> subspan::Result<u64> {
        let n_input = self.schema.fields().len();
        let step = block_rows(n_input.max(plan.n_cols));
        let row_bytes = n_input * self.array.dtype.size();
        let (mut first, end) = (self.starts[chunk], self.starts[chunk + 1]);
        let (mut bytes, mut all, mut dropped) = (Vec::new(), Vec::new(), 0);
        while first < end {
            let n = step.min((end - first) as usize);
            dropped += block.fill_numbers(path, plan, first, |values| {
                if plan.is_identity(n_input) {
                    return self.array.read_f64(first, n, &mut bytes, values);
                }
                self.array.read_f64(first, n, &mut bytes, &mut all)?;
                values.clear();
                for row in all.chunks_exact(n_input) {
                    values.extend(plan.used.iter().map(|used| row[plan.sources[used.source]]));
                }
                Ok(())
            })?;
            if !block.values.is_empty() {
                // Values that are as they were stored are the records of the rows that were kept.
                let records = match (plan.is_identity(n_input), self.array.is_native()) {
                    (true, true) => RawRecords { bytes: bytemuck::cast_slice(&block.values), row_bytes, kept: None },
                    (false, true) => RawRecords { bytes: bytemuck::cast_slice(&all), row_bytes, kept: block.kept() },
                    _ => RawRecords { bytes: &bytes, row_bytes, kept: block.kept() },
                };
                visit(&RowBlock {
                    n_cols: plan.n_cols,
                    values: &block.values,
                    ids: block.ids(first),
                    records: Some(&records),
                })?;
            }
            first += n as u64;
        }
        Ok(dropped)
    }
}
