//! The whitening factor of a Gram matrix.

use crate::{LinalgError, Mat, cholesky, eigh};

/// A factor `F` (`d x rank`) with `Fᵀ G F = I`: `‖aᵢ F‖²` is the leverage `aᵢᵀ G⁺ aᵢ` of row `i`.
#[derive(Debug, Clone)]
pub struct Whitener {
    /// `d x rank`.
    pub factor: Mat,
    /// Whether `factor` is square and upper triangular.
    pub upper: bool,
    /// Numerical rank of `G` after scaling its diagonal to one.
    pub rank: usize,
    /// Estimated condition number of the data matrix `A` (columns scaled to unit norm), from the kept eigenvalues.
    pub condition: f64,
}

/// Whitens a symmetric positive semidefinite `G = AᵀA` of an `A` with `n_rows` rows.
///
/// `G` is scaled to unit diagonal first (leverage does not depend on column scales). A direction whose eigenvalue is at most
/// `max(n, d) · 2⁻⁵² · λ_max` is taken for rounding and cut. Full rank gives a triangular factor, otherwise a dense one.
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
    let scale: Vec<f64> = (0..d).map(|j| if g[(j, j)] > 0.0 { g[(j, j)].sqrt().recip() } else { 0.0 }).collect();
    let unit = Mat::from_fn(d, d, |i, j| g[(i, j)] * scale[i] * scale[j]);
    let e = eigh(&unit)?;
    let largest = e.values.last().copied().unwrap_or(0.0);
    let cut = (n_rows.max(d as u64) as f64) * f64::EPSILON * largest;
    let first = e.values.partition_point(|v| *v <= cut);
    let rank = d - first;
    let condition = if rank == 0 { 1.0 } else { (largest / e.values[first]).sqrt() };
    if rank == d
        && let Ok(c) = cholesky(&unit)
    {
        let r_inv = c.inverse_upper();
        let factor = Mat::from_fn(d, d, |i, j| r_inv[(i, j)] * scale[i]);
        return Ok(Whitener { factor, upper: true, rank, condition });
    }
    let factor = Mat::from_fn(d, rank, |i, j| scale[i] * e.vectors[(i, first + j)] / e.values[first + j].sqrt());
    Ok(Whitener { factor, upper: false, rank, condition })
}
