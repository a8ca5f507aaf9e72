//! Labelled data as the classifier reads it: rows by index, so that they may stay in a file.

use crate::error::Result;
use crate::rows::check_samples;

/// Samples in rows of `f32`, read by index; a matrix in memory or mapped from a file.
pub trait Samples: Sync {
    /// Number of samples.
    fn n_rows(&self) -> usize;

    /// Values per sample.
    fn n_cols(&self) -> usize;

    /// Copies the given rows into `out`, one after the other; every value is finite.
    ///
    /// # Errors
    /// What the source reports, [`crate::Error::NonFinite`].
    fn gather(&self, rows: &[usize], out: &mut [f32]) -> Result<()>;

    /// `n` rows from row `first` on where they lie in memory as they are, which spares a copy.
    fn slice(&self, _first: usize, _n: usize) -> Option<&[f32]> {
        None
    }
}

/// Samples in memory, checked once.
#[derive(Debug, Clone, Copy)]
pub struct DenseSamples<'a> {
    values: &'a [f32],
    n_cols: usize,
}

impl<'a> DenseSamples<'a> {
    /// Row-major `values` of `n_cols` columns.
    ///
    /// # Errors
    /// [`crate::Error::Empty`], [`crate::Error::Shape`] if the last row is not whole, [`crate::Error::NonFinite`].
    ///
    /// ```
    /// use subspan::classify::DenseSamples;
    /// assert!(DenseSamples::new(&[1.0, 2.0, 3.0], 2).is_err());
    /// assert!(DenseSamples::new(&[1.0, f32::NAN], 2).is_err());
    /// ```
    pub fn new(values: &'a [f32], n_cols: usize) -> Result<Self> {
        check_samples(values, n_cols)?;
        Ok(Self { values, n_cols })
    }
}

impl Samples for DenseSamples<'_> {
    fn n_rows(&self) -> usize {
        self.values.len() / self.n_cols
    }

    fn n_cols(&self) -> usize {
        self.n_cols
    }

    fn gather(&self, rows: &[usize], out: &mut [f32]) -> Result<()> {
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(self.n_cols)) {
            out.copy_from_slice(&self.values[row * self.n_cols..(row + 1) * self.n_cols]);
        }
        Ok(())
    }

    fn slice(&self, first: usize, n: usize) -> Option<&[f32]> {
        Some(&self.values[first * self.n_cols..(first + n) * self.n_cols])
    }
}

/// Rows read at a time where all are visited in turn.
pub(crate) const BLOCK: usize = 1024;

/// Visits the given rows in blocks: the rows' indices and their values, which may be changed.
pub(crate) fn for_blocks(
    samples: &dyn Samples,
    rows: &[usize],
    mut visit: impl FnMut(&[usize], &mut [f32]) -> Result<()>,
) -> Result<()> {
    let mut values = Vec::new();
    for rows in rows.chunks(BLOCK) {
        values.resize(rows.len() * samples.n_cols(), 0.0);
        samples.gather(rows, &mut values)?;
        visit(rows, &mut values)?;
    }
    Ok(())
}

/// Rows shorter than this have no direction.
pub(crate) const ZERO: f64 = 1e-12;

/// Subtracts the centre, if any, and brings every row to length one; returns how many rows were zero and stay so.
pub(crate) fn normalize(values: &mut [f32], n_cols: usize, center: Option<&[f32]>) -> usize {
    subspan_linalg::par_unit_rows(values, n_cols, center, ZERO)
}

/// [`normalize`] on the calling thread, for callers that are tasks themselves.
pub(crate) fn normalize_here(values: &mut [f32], n_cols: usize, center: Option<&[f32]>) -> usize {
    subspan_linalg::unit_rows(values, n_cols, center, ZERO)
}
