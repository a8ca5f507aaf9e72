//! NumPy arrays as the library's tables and samples, read where they are: of either precision, in any memory order.

use std::borrow::Cow;

use numpy::ndarray::{ArrayView2, s};
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use subspan::classify::Samples;
use subspan::precision::Rounding;
use subspan::rows::{ARRAY_CHUNK_ROWS, MEMORY_CHUNK_ROWS, RowBlock, RowIds, RowSource, block_rows, check_finite};
use subspan::{Error, Result};

/// A borrowed matrix, as Python hands it over.
#[derive(FromPyObject)]
pub(crate) enum Matrix<'py> {
    Double(PyReadonlyArray2<'py, f64>),
    Single(PyReadonlyArray2<'py, f32>),
}

impl Matrix<'_> {
    /// The values, for other threads.
    pub(crate) fn view(&self) -> Values<'_> {
        match self {
            Self::Double(array) => Values::Double(array.as_array()),
            Self::Single(array) => Values::Single(array.as_array()),
        }
    }
}

/// Values of either precision.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    Double(ArrayView2<'a, f64>),
    Single(ArrayView2<'a, f32>),
}

impl<'a> Values<'a> {
    pub(crate) fn n_rows(&self) -> usize {
        match self {
            Self::Double(v) => v.nrows(),
            Self::Single(v) => v.nrows(),
        }
    }

    pub(crate) fn n_cols(&self) -> usize {
        match self {
            Self::Double(v) => v.ncols(),
            Self::Single(v) => v.ncols(),
        }
    }

    /// All values where they lie row after row in double precision.
    fn as_rows(&self) -> Option<&'a [f64]> {
        match self {
            Self::Double(v) => v.to_slice(),
            Self::Single(_) => None,
        }
    }

    /// Writes rows `first..end` into `out`, `stride` values apart.
    fn write(&self, first: usize, end: usize, stride: usize, out: &mut [f64]) {
        match self {
            Self::Double(v) => write_rows(v, first, end, stride, out),
            Self::Single(v) => write_rows(v, first, end, stride, out),
        }
    }

    /// All values, row after row in single precision; borrowed where they are so.
    pub(crate) fn to_single(self) -> Cow<'a, [f32]> {
        match self {
            Self::Single(v) => v.to_slice().map_or_else(|| Cow::Owned(v.iter().copied().collect()), Cow::Borrowed),
            Self::Double(v) => Cow::Owned(v.iter().map(|v| *v as f32).collect()),
        }
    }

    /// The same as features of rows that are compared.
    ///
    /// # Errors
    /// A column whose values single precision does not tell apart.
    pub(crate) fn to_features(self) -> Result<Cow<'a, [f32]>> {
        let Self::Double(v) = self else { return Ok(self.to_single()) };
        let mut columns = Rounding::new(v.ncols().max(1));
        let out = v.iter().map(|v| columns.round(*v)).collect();
        columns.check()?;
        Ok(Cow::Owned(out))
    }

    /// All values, row after row in double precision, checked; borrowed where they are so.
    pub(crate) fn to_rows(self) -> Result<Cow<'a, [f64]>> {
        let out = self.as_rows().map_or_else(
            || {
                let mut out = vec![0.0; self.n_rows() * self.n_cols()];
                self.write(0, self.n_rows(), self.n_cols(), &mut out);
                Cow::Owned(out)
            },
            Cow::Borrowed,
        );
        check_finite(&out, self.n_cols().max(1), 0)?;
        Ok(out)
    }
}

/// Rows turned at a time, so that the part of the block that is written stays in the cache.
const TILE_ROWS: usize = 128;

fn write_rows<T: Copy + Into<f64>>(v: &ArrayView2<'_, T>, first: usize, end: usize, stride: usize, out: &mut [f64]) {
    let by_rows = v.strides()[1] == 1 || v.ncols() < 2;
    for tile in (first..end).step_by(TILE_ROWS) {
        let part = v.slice(s![tile..end.min(tile + TILE_ROWS), ..]);
        let out = &mut out[(tile - first) * stride..];
        if by_rows {
            for (row, out) in part.rows().into_iter().zip(out.chunks_mut(stride)) {
                row.iter().zip(out).for_each(|(v, out)| *out = (*v).into());
            }
        } else {
            for (j, column) in part.columns().into_iter().enumerate() {
                column.iter().zip(out[j..].iter_mut().step_by(stride)).for_each(|(v, out)| *out = (*v).into());
            }
        }
    }
}

/// A matrix, and perhaps a target as its last column, as a table.
pub(crate) struct Table<'a> {
    values: Values<'a>,
    target: Option<&'a [f64]>,
    chunk_rows: usize,
    /// Whether methods may take the values as one slice.
    dense: bool,
}

impl<'a> Table<'a> {
    /// A table in memory.
    pub(crate) fn in_memory(values: Values<'a>) -> Result<Self> {
        Self { values, target: None, chunk_rows: MEMORY_CHUNK_ROWS, dense: true }.checked()
    }

    /// A table cut as the file of the same array would be, so that results have the same bits as the file's.
    pub(crate) fn like_file(values: Values<'a>, target: Option<&'a [f64]>) -> Result<Self> {
        Self { values, target, chunk_rows: ARRAY_CHUNK_ROWS, dense: false }.checked()
    }

    fn checked(self) -> Result<Self> {
        match (self.values.n_rows(), self.values.n_cols(), self.target) {
            (0, ..) => Err(Error::Empty { what: "rows" }),
            (_, 0, _) => Err(Error::Empty { what: "columns" }),
            (n, _, Some(y)) if y.len() != n => Err(Error::Shape { what: "the target", found: y.len(), expected: n }),
            _ => Ok(self),
        }
    }
}

impl RowSource for Table<'_> {
    fn n_cols(&self) -> usize {
        self.values.n_cols() + usize::from(self.target.is_some())
    }

    fn n_rows(&self) -> Option<u64> {
        Some(self.values.n_rows() as u64)
    }

    fn dense(&self) -> Option<&[f64]> {
        self.values.as_rows().filter(|_| self.dense && self.target.is_none())
    }

    fn n_chunks(&self) -> usize {
        self.values.n_rows().div_ceil(self.chunk_rows)
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let n_cols = self.n_cols();
        let (start, end) = (chunk * self.chunk_rows, self.values.n_rows().min((chunk + 1) * self.chunk_rows));
        let borrowed = self.values.as_rows().filter(|_| self.target.is_none());
        let step = block_rows(n_cols);
        let mut block = Vec::new();
        for first in (start..end).step_by(step) {
            let last = end.min(first + step);
            let values = match borrowed {
                Some(all) => &all[first * n_cols..last * n_cols],
                None => {
                    block.resize((last - first) * n_cols, 0.0);
                    self.values.write(first, last, n_cols, &mut block);
                    if let Some(target) = self.target {
                        let places = block[n_cols - 1..].iter_mut().step_by(n_cols);
                        places.zip(&target[first..last]).for_each(|(place, y)| *place = *y);
                    }
                    block.as_slice()
                }
            };
            check_finite(values, n_cols, first as u64)?;
            visit(&RowBlock { n_cols, values, ids: RowIds::From(first as u64), records: None })?;
        }
        Ok(())
    }
}

/// The library's rows of `f32` for a classifier.
impl Samples for Values<'_> {
    fn n_rows(&self) -> usize {
        Values::n_rows(self)
    }

    fn n_cols(&self) -> usize {
        Values::n_cols(self)
    }

    fn gather(&self, rows: &[usize], out: &mut [f32]) -> Result<()> {
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(Values::n_cols(self))) {
            match self {
                Self::Double(v) => v.row(*row).iter().zip(&mut *out).for_each(|(v, out)| *out = *v as f32),
                Self::Single(v) => v.row(*row).iter().zip(&mut *out).for_each(|(v, out)| *out = *v),
            }
            if let Some(column) = out.iter().position(|v| !v.is_finite()) {
                return Err(Error::NonFinite { row: *row as u64, column, value: f64::from(out[column]) });
            }
        }
        Ok(())
    }
}

/// A borrowed column, which Python has made contiguous.
pub(crate) fn column<'a, T: numpy::Element>(array: &'a PyReadonlyArray1<'_, T>) -> PyResult<&'a [T]> {
    Ok(array.as_slice()?)
}

/// Rows of `n_cols` values as a matrix.
pub(crate) fn matrix<T: numpy::Element>(
    py: Python<'_>,
    values: Vec<T>,
    n_cols: usize,
) -> PyResult<Bound<'_, numpy::PyArray2<T>>> {
    let shape = (values.len().checked_div(n_cols).unwrap_or(0), n_cols);
    let array = numpy::ndarray::Array2::from_shape_vec(shape, values);
    let array = array.map_err(|e| pyo3::exceptions::PyValueError::new_err(e.to_string()))?;
    Ok(numpy::IntoPyArray::into_pyarray(array, py))
}
