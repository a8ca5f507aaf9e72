//! The update as it is published, by a thin singular value decomposition: what [`super::step`] is checked against and what others'
//! results are repeated with. It costs 10 to 30 times as much.

use subspan_linalg::{Mat, Real, thin_svd};

use super::geometry;
use crate::error::Result;

/// Moves `frame` (`k x n_cols`, orthonormal rows) along the geodesic of its `buffer`'s tangent part `G = U Σ Vᵀ` by `a`:
/// `P ← U cos(aΣ) Uᵀ P + U sin(aΣ) Vᵀ`, in `f64`; then, if `restore`, replaces the rows by the orthonormal ones of a QR decomposition with
/// positive diagonal. Returns the largest angle moved.
///
/// # Errors
/// [`crate::Error::Linalg`] for numbers that are not finite.
///
/// # Panics
/// If `frame` and `buffer` do not hold the same number of rows of `n_cols` values.
pub fn literal_step<T: Real>(frame: &mut [T], buffer: &[T], n_cols: usize, a: f64, restore: bool) -> Result<f64> {
    assert!(n_cols > 0 && frame.len().is_multiple_of(n_cols) && frame.len() == buffer.len(), "frames of one shape");
    let k = frame.len() / n_cols;
    let wide = |rows: &[T]| Mat::from_fn(k, n_cols, |i, j| rows[i * n_cols + j].to_f64());
    let (p, m) = (wide(frame), wide(buffer));
    let inside = m.mul(&p.transpose()).mul(&p);
    let g = Mat::from_fn(k, n_cols, |i, j| m[(i, j)] - inside[(i, j)]);
    let svd = thin_svd(&g)?;
    let scaled = |f: fn(f64) -> f64| Mat::from_fn(k, k, |i, j| svd.u[(i, j)] * f(a * svd.s[j]));
    let kept = scaled(f64::cos).mul(&svd.u.transpose().mul(&p));
    let moved = scaled(f64::sin).mul(&svd.v.transpose());
    for (i, row) in frame.chunks_exact_mut(n_cols).enumerate() {
        row.iter_mut().enumerate().for_each(|(j, v)| *v = T::from_f64(kept[(i, j)] + moved[(i, j)]));
    }
    if restore {
        geometry::orthonormalize(frame, n_cols)?;
    }
    Ok(a.abs() * svd.s.iter().copied().fold(0.0, f64::max))
}
