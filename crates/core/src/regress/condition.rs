//! The features in a well-conditioned basis: what the solvers work on.
//!
//! Columns are scaled by powers of two (values near 1e±150 must neither overflow nor vanish in a Gram matrix), then whitened
//! by the eigendecomposition of their weighted Gram matrix, twice when the condition number asks for it ("CholeskyQR2",
//! Yamamoto et al. 2015, with eigenvalues instead of Cholesky factors, so that dependent columns are cut, not fatal). All
//! solvers then see independent columns of full rank, and their coefficients are mapped back.

use std::borrow::Cow;

use rayon::prelude::*;
use subspan_linalg::{Mat, apply::RowFactor, eigh, gram};

use super::table::{MemoryTable, TILE_ROWS, Tile, chunk_rows};
use crate::error::Result;
use crate::observe::Observer;

/// Rows `[features, target]` in the solvers' basis.
pub(super) struct Design<'a> {
    pub(super) values: Cow<'a, [f64]>,
    /// Features (the rank) and the target.
    pub(super) n_cols: usize,
    /// One per row; `None` for ones.
    pub(super) weights: Option<Cow<'a, [f64]>>,
    /// From the solvers' coefficients to those of the columns given; `None` for the identity.
    pub(super) factor: Option<Mat>,
    /// The target is divided by this power of two.
    pub(super) target_scale: f64,
    /// Columns given.
    pub(super) n_given: usize,
    /// Whether the columns given depend on each other, so that several coefficient vectors give the same fit.
    pub(super) dependent: bool,
    /// Whether the columns given could have been used as they are.
    pub(super) fine: bool,
}

/// What may be done to the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// Any change of basis, dependent columns cut, the target scaled.
    Whitened,
    /// Powers of two only, the target as it is: for a penalty on the coefficients themselves.
    Scaled,
}

/// Condition number (unit columns) up to which the columns are used as they are: its square times the unit roundoff leaves
/// eight digits in the normal equations, and refinement does the rest.
const FINE_CONDITION: f64 = 1e4;

/// Diagonal entries of a Gram matrix inside this range are far from overflow and underflow.
const FINE_SCALE: std::ops::Range<f64> = 1e-100..1e100;

/// The share of the largest eigenvalue that rounding leaves undetermined in a Gram matrix of many rows.
const GRAM_NOISE: f64 = 1e-12;

/// Eigenvalues of the second Gram matrix below this are dependent columns: a relative singular value of
/// `sqrt(GRAM_NOISE · DEPENDENT) = 1e-12` of the first one.
const DEPENDENT: f64 = 1e-12;

impl<'a> Design<'a> {
    /// Prepares rows of `n_cols` columns, the last of which is the target.
    ///
    /// Borrowed rows that are well-conditioned already stay as they are; all others are copied. Cost: one Gram matrix and one
    /// change of basis, `2 n d²` flop each, twice for a condition number above [`FINE_CONDITION`].
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], [`crate::Error::Linalg`].
    pub(super) fn new(
        values: Cow<'a, [f64]>,
        n_cols: usize,
        weights: Option<Cow<'a, [f64]>>,
        basis: Basis,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let n_given = n_cols - 1;
        let plain = |values, weights| Self {
            values,
            n_cols,
            weights,
            factor: None,
            target_scale: 1.0,
            n_given,
            dependent: false,
            fine: true,
        };
        if matches!(values, Cow::Borrowed(_)) {
            let g = gram_of(&values, n_cols, weights.as_deref(), observer)?;
            let fine = (0..n_cols).all(|j| FINE_SCALE.contains(&g[(j, j)]))
                && (basis == Basis::Scaled || spectrum(&g, n_given)?.condition() <= FINE_CONDITION);
            if fine {
                return Ok(plain(values, weights));
            }
        }
        let mut values = values.into_owned();
        let mut scale = power_of_two_scales(&values, n_cols);
        if basis == Basis::Scaled {
            scale[n_given] = 1.0;
        }
        for row in values.chunks_exact_mut(n_cols) {
            row.iter_mut().zip(&scale).for_each(|(v, s)| *v *= s);
        }
        let target_scale = scale[n_given].recip();
        let fine_scale = scale.iter().all(|s| FINE_SCALE.contains(&(s * s)));
        let given = Mat::from_fn(n_given, n_given, |i, j| if i == j { scale[i] } else { 0.0 });
        if basis == Basis::Scaled {
            return Ok(Self { factor: Some(given), fine: fine_scale, ..plain(Cow::Owned(values), weights) });
        }

        let g = gram_of(&values, n_cols, weights.as_deref(), observer)?;
        let first = spectrum(&g, n_given)?;
        let mut factor = first.whitener(GRAM_NOISE, false);
        values = change_basis(values, n_cols, &factor);
        let mut n_now = factor.n_cols() + 1;
        if first.condition() > FINE_CONDITION {
            let g = gram_of(&values, n_now, weights.as_deref(), observer)?;
            let second = Spectrum::of(&g, n_now - 1, vec![1.0; n_now - 1])?.whitener(DEPENDENT, true);
            values = change_basis(values, n_now, &second);
            factor = factor.mul(&second);
            n_now = second.n_cols() + 1;
        }
        Ok(Self {
            values: Cow::Owned(values),
            n_cols: n_now,
            weights,
            factor: Some(given.mul(&factor)),
            target_scale,
            n_given,
            dependent: n_now < n_cols,
            fine: fine_scale && first.condition() <= FINE_CONDITION,
        })
    }

    /// The rows as a table.
    pub(super) fn table<'t>(&'t self, observer: &'t dyn Observer) -> MemoryTable<'t> {
        MemoryTable { values: &self.values, n_cols: self.n_cols, weights: self.weights.as_deref(), observer }
    }

    /// The coefficients of the columns given that belong to the solvers' coefficients.
    pub(super) fn coefficients(&self, x: &[f64]) -> Vec<f64> {
        let x = self.factor.as_ref().map_or_else(|| x.to_vec(), |f| f.mul_vec(x));
        x.iter().map(|v| v * self.target_scale).collect()
    }
}

/// The map of rows `[columns, target]` that applies `factor` to the columns and `target_scale⁻¹` to the target.
pub(super) fn row_map(factor: &Mat, target_scale: f64) -> Mat {
    let (d, r) = (factor.n_rows(), factor.n_cols());
    Mat::from_fn(d + 1, r + 1, |i, j| match (i < d, j < r) {
        (true, true) => factor[(i, j)],
        (false, false) => target_scale.recip(),
        _ => 0.0,
    })
}

/// The rows mapped by the factor, in their own memory where it is as wide as they are.
fn change_basis(mut values: Vec<f64>, n_cols: usize, factor: &Mat) -> Vec<f64> {
    let map = row_map(factor, 1.0);
    let factor = RowFactor::new(&map, false);
    let rows = chunk_rows(values.len() / n_cols);
    if map.n_cols() == n_cols {
        values.par_chunks_mut(rows * n_cols).for_each_init(Vec::new, |tile: &mut Vec<f64>, chunk| {
            for rows in chunk.chunks_mut(TILE_ROWS * n_cols) {
                tile.clear();
                tile.extend_from_slice(rows);
                factor.map_rows(tile, rows);
            }
        });
        return values;
    }
    let mut out = vec![0.0; values.len() / n_cols * map.n_cols()];
    out.par_chunks_mut(rows * map.n_cols())
        .zip(values.par_chunks(rows * n_cols))
        .for_each(|(out, values)| factor.map_rows(values, out));
    out
}

/// The weighted Gram matrix of all columns, both triangles.
fn gram_of(values: &[f64], n_cols: usize, weights: Option<&[f64]>, observer: &dyn Observer) -> Result<Mat> {
    let table = MemoryTable { values, n_cols, weights, observer };
    let mut g = table.fold(
        || Mat::zeros(n_cols, n_cols),
        |g, Tile { rows, weights, .. }| gram::add_weighted_gram(rows, n_cols, weights, g.as_mut_slice()),
        |total, g| total.as_mut_slice().iter_mut().zip(g.as_slice()).for_each(|(t, g)| *t += g),
    )?;
    gram::symmetrize(g.as_mut_slice(), n_cols);
    Ok(g)
}

/// `2^-k` for every column, with `2^k` the power of two at its largest entry; one for a column of zeros.
fn power_of_two_scales(values: &[f64], n_cols: usize) -> Vec<f64> {
    let mut largest = vec![0.0f64; n_cols];
    for row in values.chunks_exact(n_cols) {
        largest.iter_mut().zip(row).for_each(|(m, v)| *m = m.max(v.abs()));
    }
    // Clamped so that the scale itself and its inverse are normal numbers.
    largest.iter().map(|m| if *m > 0.0 { (-m.log2().floor().clamp(-1000.0, 1000.0)).exp2() } else { 1.0 }).collect()
}

/// The eigendecomposition of a Gram matrix scaled to unit diagonal.
struct Spectrum {
    scale: Vec<f64>,
    values: Vec<f64>,
    vectors: Mat,
}

fn spectrum(g: &Mat, k: usize) -> Result<Spectrum> {
    Spectrum::of(g, k, (0..k).map(|j| if g[(j, j)] > 0.0 { g[(j, j)].sqrt().recip() } else { 0.0 }).collect())
}

impl Spectrum {
    fn of(g: &Mat, k: usize, scale: Vec<f64>) -> Result<Self> {
        if k == 0 {
            return Ok(Self { scale, values: Vec::new(), vectors: Mat::zeros(0, 0) });
        }
        let e = eigh(&Mat::from_fn(k, k, |i, j| g[(i, j)] * scale[i] * scale[j]))?;
        Ok(Self { scale, values: e.values, vectors: e.vectors })
    }

    /// Of the columns, not of their Gram matrix; infinite when it is beyond the Gram matrix' precision.
    fn condition(&self) -> f64 {
        match (self.values.first(), self.values.last()) {
            (Some(low), Some(high)) if *low > GRAM_NOISE * high => (high / low).sqrt(),
            (Some(_), Some(_)) => f64::INFINITY,
            _ => 1.0,
        }
    }

    /// `S V Λ^(-1/2)` with eigenvalues below `floor` of the largest one either cut or raised to it.
    fn whitener(&self, floor: f64, cut: bool) -> Mat {
        let least = self.values.last().map_or(0.0, |v| v * floor).max(f64::MIN_POSITIVE);
        let zero = self.values.last().is_none_or(|v| *v <= 0.0);
        let first = match (zero, cut) {
            (true, _) => self.values.len(),
            (_, true) => self.values.partition_point(|v| *v <= least),
            (_, false) => 0,
        };
        Mat::from_fn(self.values.len(), self.values.len() - first, |i, j| {
            self.scale[i] * self.vectors[(i, first + j)] / self.values[first + j].max(least).sqrt()
        })
    }
}
