//! The whitening factor of a Gram matrix, and how to make it accurate for ill-conditioned data.
//!
//! Squaring a matrix squares its condition number, so a factor taken from one Gram matrix loses digits, and a direction whose
//! singular value is below about `1e-7` of the largest cannot be told from rounding. [`whiten`] says so
//! ([`Whitener::resolved`]); then one more pass decides:
//!
//! 1. [`precondition`] factorizes the Gram matrix with a small shift, which always succeeds and keeps every direction;
//! 2. the caller sums the second Gram matrix `H = (AF)ᵀ(AF)` of the mapped rows ([`map_rows`](crate::apply::map_rows), then
//!    [`add_gram`](crate::gram::add_gram)); `AF` is well-conditioned, and directions without data come out empty;
//! 3. [`Whitener::refine`] corrects the factor by `H` and settles the rank.
//!
//! Largest relative error of the scores of dense 20,000 x 30 tables made from known orthonormal columns (rounding such a table
//! to `f64` moves its scores by about as much as `refine` is off):
//!
//! | condition | 1e2 | 1e4 | 1e5 | 1e6 | 1e7 | 1e8 | 1e9 | 1e10 |
//! |---|---|---|---|---|---|---|---|---|
//! | `whiten` | 1e-13 | 1e-9 | 6e-8 | not resolved | | | | |
//! | `refine` | 8e-15 | 9e-13 | 5e-12 | 7e-11 | 6e-10 | 6e-9 | 5e-8 | 7e-7 |
//! | Householder QR | 8e-14 | 1e-11 | 5e-11 | 1e-9 | 6e-9 | 6e-8 | 5e-7 | 3e-6 |
//!
//! So no sketch or QR factorization of the table is needed up to `1e12`. A shifted Cholesky factorization followed by a plain
//! one is the first two thirds of shifted CholeskyQR3 (Fukaya, Kannan, Nakatsukasa,
//! Yamamoto, Yanagisawa 2020).

use serde::{Deserialize, Serialize};

use crate::{LinalgError, Mat, cholesky, eigh};

/// A factor `F` (`d x rank`) with `Fᵀ G F = I`: `‖aᵢ F‖²` is the leverage `aᵢᵀ G⁺ aᵢ` of row `i`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Whitener {
    /// `d x rank`.
    pub factor: Mat,
    /// Whether `factor` is square and upper triangular.
    pub upper: bool,
    /// Numerical rank of `G` after scaling its diagonal to one.
    pub rank: usize,
    /// Estimated condition number of the data matrix `A` (columns scaled to unit norm) on the directions kept.
    pub condition: f64,
    /// Whether rank and factor can be relied on. If not, `A` is rank-deficient or worse conditioned than about `2e5`, and a
    /// second Gram matrix tells which: see [`precondition`].
    pub resolved: bool,
    /// What brings the columns of `A` to unit norm; zero for a column of zeros.
    scale: Vec<f64>,
    /// Largest eigenvalue of the scaled `G`.
    largest: f64,
}

/// Eigenvalues of a scaled Gram matrix below this part of the largest may be nothing but rounding: of sums of up to 10⁶
/// products in a row, those of a constant column went astray by up to `1.4e4 · 2⁻⁵²`, typical ones by less than `100 · 2⁻⁵²`.
/// At this condition number, `2.6e5`, the scores of one pass are good to about `1e-6`.
const RESOLVED: f64 = 65_536.0 * f64::EPSILON;

/// Eigenvalues at or below this part of the largest are taken for rounding: four times what random rounding errors of `n`
/// additions and of a `d x d` eigenvalue computation amount to.
fn cut(n_rows: u64, d: usize) -> f64 {
    4.0 * (d as f64 + (n_rows as f64).sqrt()) * f64::EPSILON
}

/// Whitens a symmetric positive semidefinite `G = AᵀA` of an `A` with `n_rows` rows.
///
/// `G` is scaled to unit diagonal first (leverage does not depend on column scales). A direction whose eigenvalue is at most
/// `4 (d + √n) · 2⁻⁵² · λ_max` is cut. Full rank gives a triangular factor, otherwise a dense one. About `d³` flop, or `10 d³`
/// where the rank is in doubt.
///
/// # Errors
/// [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
///
/// ```
/// use subspan_linalg::{Mat, whiten};
/// // Two equal columns: rank one.
/// let w = whiten(&Mat::from_rows(&[[4.0, 4.0], [4.0, 4.0]]), 10).unwrap();
/// assert_eq!((w.rank, w.factor.n_cols()), (1, 1));
/// ```
pub fn whiten(g: &Mat, n_rows: u64) -> Result<Whitener, LinalgError> {
    let d = g.n_rows();
    let (unit, scale) = unit_diagonal(g)?;
    let largest = largest_eigenvalue(&unit);
    let triangular = cholesky(&unit).ok().map(|c| scaled_rows(&c.inverse_upper(), &scale));
    if let Some(factor) = &triangular {
        let w = Whitener::new(factor.clone(), true, scale.clone(), largest);
        if w.resolved {
            return Ok(w);
        }
    }
    let e = eigh(&unit)?;
    let top = e.values.last().copied().unwrap_or(0.0);
    let first = e.values.partition_point(|v| *v <= cut(n_rows, d) * top);
    let zero_columns = scale.iter().filter(|s| **s == 0.0).count();
    let (factor, upper) = match triangular {
        Some(factor) if first == 0 => (factor, true),
        _ => (scaled_rows(&inverse_root(&e.vectors, &e.values, first), &scale), false),
    };
    let mut w = Whitener::new(factor, upper, scale, top);
    w.resolved = first == zero_columns && e.values.get(first).is_none_or(|v| *v > RESOLVED * top);
    Ok(w)
}

/// A triangular factor for the first of two passes over ill-conditioned or rank-deficient data.
///
/// It keeps every direction of `G` (`rank` counts the columns that are not zero) and is meant for [`Whitener::refine`], not
/// for scores: directions whose eigenvalue is near or below the shift of `16 (d + √n) · 2⁻⁵² · λ_max` come out too short.
///
/// # Errors
/// [`LinalgError::NonFinite`].
///
/// ```
/// use subspan_linalg::{apply::map_rows, par_gram, precondition};
/// // The third column is the sum of the others.
/// let rows = [1.0, 2.0, 3.0, 3.0, -1.0, 2.0, 0.5, 4.0, 4.5, 1.0, 1.0, 2.0];
/// let first = precondition(&par_gram(&rows, 3), 4).unwrap();
/// let mut mapped = [0.0; 12];
/// map_rows(&rows, &first.factor, &mut mapped);
/// let w = first.refine(&par_gram(&mapped, 3), 4).unwrap();
/// assert!(w.resolved && w.rank == 2);
/// ```
pub fn precondition(g: &Mat, n_rows: u64) -> Result<Whitener, LinalgError> {
    let d = g.n_rows();
    let (mut unit, scale) = unit_diagonal(g)?;
    let largest = largest_eigenvalue(&unit);
    let mut shift = 4.0 * cut(n_rows, d) * largest;
    let factor = loop {
        for j in 0..d {
            unit[(j, j)] = 1.0 + shift;
        }
        match cholesky(&unit) {
            Ok(c) => break scaled_rows(&c.inverse_upper(), &scale),
            // The sums were rounded worse than random errors explain.
            Err(_) => shift *= 16.0,
        }
    };
    let rank = scale.iter().filter(|s| **s > 0.0).count();
    let mut w = Whitener::new(factor, true, scale, largest);
    (w.rank, w.resolved) = (rank, false);
    Ok(w)
}

impl Whitener {
    fn new(factor: Mat, upper: bool, scale: Vec<f64>, largest: f64) -> Self {
        let unscale: Vec<f64> = scale.iter().map(|s| if *s > 0.0 { s.recip() } else { 0.0 }).collect();
        let longest = largest_eigenvalue(&outer_gram(&scaled_rows(&factor, &unscale)));
        let condition = if factor.n_cols() == 0 { 1.0 } else { (largest * longest).sqrt().max(1.0) };
        let resolved = largest * longest * RESOLVED < 1.0;
        Self { rank: factor.n_cols(), factor, upper, condition, resolved, scale, largest }
    }

    /// The factor corrected by `H = (AF)ᵀ(AF)`, the Gram matrix of the mapped rows.
    ///
    /// The result is resolved: a direction whose eigenvalue in `H` is at most `4 (d + √n) · 2⁻⁵² · λ_max` holds no data. After
    /// [`precondition`] that is a singular value of `A` (columns of unit norm) below about `1e-12` of the largest.
    ///
    /// # Errors
    /// [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
    ///
    /// # Panics
    /// If `h` is not square with as many columns as the factor.
    pub fn refine(&self, h: &Mat, n_rows: u64) -> Result<Self, LinalgError> {
        let k = self.factor.n_cols();
        assert!(h.n_rows() == k && h.n_cols() == k, "H is the Gram matrix of the mapped rows");
        // H is not scaled to unit diagonal: an empty direction must stay short.
        let largest = largest_eigenvalue(h);
        if let Ok(c) = cholesky(h) {
            let correction = c.inverse_upper();
            let shortest = largest_eigenvalue(&outer_gram(&correction)).recip();
            if shortest > 2.0 * cut(n_rows, k) * largest {
                return Ok(self.corrected(&correction, self.upper));
            }
        }
        let e = eigh(h)?;
        let top = e.values.last().copied().unwrap_or(0.0);
        let first = e.values.partition_point(|v| *v <= cut(n_rows, k) * top);
        Ok(self.corrected(&inverse_root(&e.vectors, &e.values, first), false))
    }

    /// The factor for rows of `n_cols` columns of which column `places[i]` is column `i` of this one; other columns count for
    /// nothing. Where they are combinations of these, leverage is the same.
    ///
    /// # Panics
    /// If there is not one place below `n_cols` per row of the factor.
    #[must_use]
    pub fn spread(&self, places: &[usize], n_cols: usize) -> Self {
        assert_eq!(places.len(), self.factor.n_rows(), "one place per row of the factor");
        let mut factor = Mat::zeros(n_cols, self.factor.n_cols());
        let mut scale = vec![0.0; n_cols];
        for (i, place) in places.iter().enumerate() {
            factor.row_mut(*place).copy_from_slice(self.factor.row(i));
            scale[*place] = self.scale[i];
        }
        Self { factor, upper: self.upper && places.len() == n_cols, scale, ..self.clone() }
    }

    fn corrected(&self, correction: &Mat, upper: bool) -> Self {
        let mut factor = self.factor.mul(correction);
        if upper {
            // The product of triangular factors, up to the sign of a zero.
            for i in 1..factor.n_rows() {
                factor.row_mut(i)[..i].fill(0.0);
            }
        }
        let mut w = Self::new(factor, upper, self.scale.clone(), self.largest);
        w.resolved = true;
        w
    }
}

/// Powers of two that bring columns to the size of one, from the largest magnitude in each; `None` if no column needs it.
///
/// Squares of values beyond `1e±154` leave the range of `f64`. A caller that meets a Gram matrix with a non-finite, zero or
/// tiny diagonal finds the magnitudes ([`max_abs_columns`](crate::apply::max_abs_columns)), and works
/// with the rows of `A diag(scales)`, whose scores are the same.
///
/// ```
/// use subspan_linalg::column_scales;
/// assert_eq!(column_scales(&[1.0, 0.0, 1e3]), None);
/// assert_eq!(column_scales(&[1.5, 0.0, 2f64.powi(500)]), Some(vec![1.0, 1.0, 2f64.powi(-500)]));
/// ```
pub fn column_scales(max_abs: &[f64]) -> Option<Vec<f64>> {
    /// Sums of squares of values up to `2^±400` are far from the ends of the range, whatever the number of rows.
    const SAFE_EXPONENT: i32 = 400;
    let exponent = |v: f64| if v > 0.0 { (v.log2().floor() as i32).clamp(-1022, 1022) } else { 0 };
    let exponents: Vec<i32> = max_abs.iter().map(|v| exponent(*v)).collect();
    exponents.iter().any(|e| e.abs() > SAFE_EXPONENT).then(|| exponents.iter().map(|e| 2f64.powi(-e)).collect())
}

/// `G` with unit diagonal and the scale of each column, zero for a column of zeros.
fn unit_diagonal(g: &Mat) -> Result<(Mat, Vec<f64>), LinalgError> {
    crate::factor::check_finite(g)?;
    let d = g.n_rows();
    let scale: Vec<f64> = (0..d).map(|j| if g[(j, j)] > 0.0 { g[(j, j)].sqrt().recip() } else { 0.0 }).collect();
    Ok((Mat::from_fn(d, d, |i, j| g[(i, j)] * scale[i] * scale[j]), scale))
}

/// `diag(scale) M`.
fn scaled_rows(m: &Mat, scale: &[f64]) -> Mat {
    assert_eq!(m.n_rows(), scale.len(), "one scale per row");
    let mut m = m.clone();
    for (i, s) in scale.iter().enumerate() {
        m.row_mut(i).iter_mut().for_each(|v| *v *= s);
    }
    m
}

/// `V_k diag(λ_k)^(−1/2)` of the eigenpairs from `first` on.
fn inverse_root(vectors: &Mat, values: &[f64], first: usize) -> Mat {
    let roots: Vec<f64> = values[first..].iter().map(|v| v.sqrt()).collect();
    Mat::from_fn(vectors.n_rows(), roots.len(), |i, j| vectors[(i, first + j)] / roots[j])
}

/// `M Mᵀ`.
fn outer_gram(m: &Mat) -> Mat {
    m.mul(&m.transpose())
}

/// The largest eigenvalue of a symmetric positive semidefinite matrix by power iteration: a lower bound, off by a few per
/// cent at most where the start (all coordinates different) is not nearly orthogonal to its eigenvector.
fn largest_eigenvalue(g: &Mat) -> f64 {
    const STEPS: usize = 40;
    const CLOSE: f64 = 1e-3;
    let d = g.n_rows();
    let mut x: Vec<f64> = (0..d).map(|i| 1.0 + (i as f64 * 0.754_877_666).fract()).collect();
    let mut last = 0.0;
    for _ in 0..STEPS {
        let y = g.mul_vec(&x);
        let size = y.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        if size == 0.0 {
            return 0.0;
        }
        let (mut top, mut bottom) = (0.0, 0.0);
        for (x, y) in x.iter().zip(&y) {
            top += y / size * (y / size);
            bottom += x * x;
        }
        let estimate = size * (top / bottom).sqrt();
        x = y.iter().map(|v| v / size).collect();
        if (estimate - last).abs() <= CLOSE * estimate {
            return estimate;
        }
        last = estimate;
    }
    last
}
