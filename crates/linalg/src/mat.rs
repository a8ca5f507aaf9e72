//! A small dense matrix: row-major `f64`.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use serde::{Deserialize, Serialize};

/// A dense row-major matrix of `f64`.
///
/// ```
/// use subspan_linalg::Mat;
/// let a = Mat::from_rows(&[[1.0, 2.0], [3.0, 4.0]]);
/// assert_eq!(a.mul(&Mat::identity(2)), a);
/// assert_eq!(a.transpose()[(0, 1)], 3.0);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Mat {
    n_rows: usize,
    n_cols: usize,
    data: Vec<f64>,
}

/// A matrix as read from somewhere, not to be trusted.
#[derive(Deserialize)]
struct Parts {
    n_rows: usize,
    n_cols: usize,
    data: Vec<f64>,
}

impl TryFrom<Parts> for Mat {
    type Error = &'static str;

    fn try_from(Parts { n_rows, n_cols, data }: Parts) -> Result<Self, Self::Error> {
        if n_rows.checked_mul(n_cols) == Some(data.len()) {
            Ok(Self { n_rows, n_cols, data })
        } else {
            Err("a matrix whose values do not fit its shape")
        }
    }
}

impl Mat {
    /// An `n_rows x n_cols` matrix of zeros.
    pub fn zeros(n_rows: usize, n_cols: usize) -> Self {
        Self { n_rows, n_cols, data: vec![0.0; n_rows * n_cols] }
    }

    /// The identity of side `n`.
    pub fn identity(n: usize) -> Self {
        Self::from_fn(n, n, |i, j| if i == j { 1.0 } else { 0.0 })
    }

    /// Entry `(i, j)` is `f(i, j)`.
    pub fn from_fn(n_rows: usize, n_cols: usize, mut f: impl FnMut(usize, usize) -> f64) -> Self {
        let mut data = Vec::with_capacity(n_rows * n_cols);
        for i in 0..n_rows {
            data.extend((0..n_cols).map(|j| f(i, j)));
        }
        Self { n_rows, n_cols, data }
    }

    /// A matrix from row-major data.
    ///
    /// # Panics
    /// If `data.len() != n_rows * n_cols`.
    pub fn from_vec(n_rows: usize, n_cols: usize, data: Vec<f64>) -> Self {
        assert_eq!(data.len(), n_rows * n_cols, "a {n_rows} x {n_cols} matrix needs that many values");
        Self { n_rows, n_cols, data }
    }

    /// A matrix from arrays, one per row.
    pub fn from_rows<const D: usize>(rows: &[[f64; D]]) -> Self {
        Self { n_rows: rows.len(), n_cols: D, data: rows.concat() }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Number of columns.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// All entries, row after row.
    pub fn as_slice(&self) -> &[f64] {
        &self.data
    }

    /// All entries, row after row.
    pub fn as_mut_slice(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// The entries, row after row, without a copy.
    pub fn into_vec(self) -> Vec<f64> {
        self.data
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.n_cols..(i + 1) * self.n_cols]
    }

    /// Row `i`.
    pub fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.data[i * self.n_cols..(i + 1) * self.n_cols]
    }

    /// A copy of column `j`.
    pub fn col(&self, j: usize) -> Vec<f64> {
        (0..self.n_rows).map(|i| self[(i, j)]).collect()
    }

    /// The transpose, copied.
    pub fn transpose(&self) -> Self {
        Self::from_fn(self.n_cols, self.n_rows, |i, j| self[(j, i)])
    }

    /// The product `self * other`, on the calling thread.
    ///
    /// # Panics
    /// If the inner dimensions differ.
    pub fn mul(&self, other: &Self) -> Self {
        assert_eq!(self.n_cols, other.n_rows, "inner dimensions of a product");
        let mut out = Self::zeros(self.n_rows, other.n_cols);
        matmul(out.faer_mut(), Accum::Replace, self.faer(), other.faer(), 1.0, Par::Seq);
        out
    }

    /// The product `self * x` with a vector.
    pub fn mul_vec(&self, x: &[f64]) -> Vec<f64> {
        assert_eq!(self.n_cols, x.len(), "inner dimensions of a product");
        (0..self.n_rows).map(|i| dot(self.row(i), x)).collect()
    }

    pub(crate) fn faer(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.data, self.n_rows, self.n_cols)
    }

    pub(crate) fn faer_mut(&mut self) -> MatMut<'_, f64> {
        MatMut::from_row_major_slice_mut(&mut self.data, self.n_rows, self.n_cols)
    }

    pub(crate) fn from_faer(m: MatRef<'_, f64>) -> Self {
        Self::from_fn(m.nrows(), m.ncols(), |i, j| m[(i, j)])
    }
}

impl std::ops::Index<(usize, usize)> for Mat {
    type Output = f64;
    fn index(&self, (i, j): (usize, usize)) -> &f64 {
        &self.data[i * self.n_cols + j]
    }
}

impl std::ops::IndexMut<(usize, usize)> for Mat {
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut f64 {
        &mut self.data[i * self.n_cols + j]
    }
}

/// The inner product, added in index order.
pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).fold(0.0, |s, (a, b)| f64::mul_add(*a, *b, s))
}
