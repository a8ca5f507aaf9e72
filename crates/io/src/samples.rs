//! Matrices as a classifier reads them: rows by index, from memory or from the file.

use rayon::prelude::*;
use subspan::classify::Samples;
use subspan::{Error, Result as CoreResult};

use crate::array::{StoredArray, decode};
use crate::bytes::ByteSource;
use crate::error::{IoError, Result};
use crate::matrix::{Content, Matrix};

/// Rows read by one thread at a time.
const ROWS: usize = 64;

/// The samples of a [`Matrix`]: kept in memory, or, when they are too many, read from the file whenever they are asked for.
#[derive(Debug)]
pub struct MatrixSamples {
    n_rows: usize,
    n_cols: usize,
    content: Kept,
}

#[derive(Debug)]
enum Kept {
    Memory(Vec<f32>),
    File(StoredArray),
}

impl Matrix {
    /// The matrix as samples. Up to `max_values` values are taken into memory; of more, rows stay in the file, whose pages the
    /// system keeps as it sees fit. Column-major arrays, compressed ones and tables have no rows to read singly and are always
    /// taken into memory.
    ///
    /// # Errors
    /// As [`Matrix::to_f32`]; values that stay in the file are checked when they are read.
    pub fn samples(&self, max_values: usize) -> Result<MatrixSamples> {
        let content = match self.content() {
            Content::Array(array)
                if self.n_rows().saturating_mul(self.n_cols()) > max_values
                    && !array.fortran
                    && matches!(array.source, ByteSource::File { .. }) =>
            {
                Kept::File(array.clone())
            }
            _ => Kept::Memory(self.to_f32()?),
        };
        Ok(MatrixSamples { n_rows: self.n_rows(), n_cols: self.n_cols(), content })
    }
}

impl MatrixSamples {
    /// Whether rows are read from the file each time.
    pub fn stays_in_file(&self) -> bool {
        matches!(self.content, Kept::File(_))
    }
}

impl Samples for MatrixSamples {
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn n_cols(&self) -> usize {
        self.n_cols
    }

    fn gather(&self, rows: &[usize], out: &mut [f32]) -> CoreResult<()> {
        let d = self.n_cols;
        match &self.content {
            Kept::Memory(values) => {
                for (row, out) in rows.iter().zip(out.chunks_exact_mut(d)) {
                    out.copy_from_slice(&values[row * d..(row + 1) * d]);
                }
                Ok(())
            }
            Kept::File(array) => {
                let pieces = rows.par_chunks(ROWS).zip(out.par_chunks_mut(ROWS * d));
                pieces.map(|(rows, out)| read(array, rows, d, out)).collect()
            }
        }
    }

    fn slice(&self, first: usize, n: usize) -> Option<&[f32]> {
        match &self.content {
            Kept::Memory(values) => Some(&values[first * self.n_cols..(first + n) * self.n_cols]),
            Kept::File(_) => None,
        }
    }
}

/// Reads rows, neighbours at once.
fn read(array: &StoredArray, rows: &[usize], d: usize, out: &mut [f32]) -> CoreResult<()> {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    let mut done = 0;
    for run in rows.chunk_by(|a, b| a + 1 == *b) {
        array.read_raw(run[0] as u64, run.len(), &mut bytes).map_err(|e: IoError| Error::from(e))?;
        values.resize(run.len() * d, 0.0);
        decode(array.dtype, array.big_endian, &bytes, &mut values);
        for (i, (out, value)) in out[done * d..].iter_mut().zip(&values).enumerate() {
            *out = *value as f32;
            if !out.is_finite() {
                return Err(Error::NonFinite { row: (run[0] + i / d) as u64, column: i % d, value: *value });
            }
        }
        done += run.len();
    }
    Ok(())
}
