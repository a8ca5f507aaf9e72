//! Frames: orthonormal rows and the subspaces they span.

use subspan_linalg::{Mat, Real, frames, qr_factor};

use crate::draw::Stream;
use crate::error::Result;
use crate::subspace::Subspace;

/// Replaces the rows of `frame` (`k x n_cols`, `k ≤ n_cols`) by orthonormal ones of the same span, by Householder QR with a
/// positive diagonal of R, so that no row flips. Cost `4 k² n_cols` flop in `f64`.
///
/// # Errors
/// [`crate::Error::Linalg`] for non-finite entries.
pub fn orthonormalize<T: Real>(frame: &mut [T], n_cols: usize) -> Result<()> {
    let k = frame.len() / n_cols;
    let (q, r) = qr_factor(&Mat::from_fn(n_cols, k, |i, j| frame[j * n_cols + i].to_f64()))?;
    for j in 0..k {
        let sign = if r[(j, j)] < 0.0 { -1.0 } else { 1.0 };
        for i in 0..n_cols {
            frame[j * n_cols + i] = T::from_f64(sign * q[(i, j)]);
        }
    }
    Ok(())
}

/// `max |P Pᵀ − I|`: how far the rows are from orthonormal.
///
/// ```
/// use subspan::classify::orthonormality_defect;
/// assert_eq!(orthonormality_defect(&[0f32, 2.0], 2), 3.0);
/// ```
pub fn orthonormality_defect<T: Real>(frame: &[T], n_cols: usize) -> f64 {
    let k = frame.len() / n_cols;
    let mut n = vec![0.0; k * k];
    frames::inner(frame, n_cols, &mut n);
    n.iter_mut().step_by(k + 1).for_each(|v| *v -= 1.0);
    n.iter().fold(0.0, |max, v| if v.is_nan() { f64::NAN } else { v.abs().max(max) })
}

/// The span of a frame's rows.
///
/// # Errors
/// [`crate::Error::Linalg`] for non-finite entries.
pub fn span<T: Real>(frame: &[T], n_cols: usize) -> Result<Subspace> {
    Subspace::span(&Mat::from_fn(n_cols, frame.len() / n_cols, |i, j| frame[j * n_cols + i].to_f64()))
}

/// A uniformly random frame of `k` rows, a function of the stream and `index`.
///
/// # Errors
/// Does not happen for finite numbers.
pub(crate) fn random<T: Real>(stream: &Stream, index: u64, k: usize, n_cols: usize) -> Result<Vec<T>> {
    let mut rng = stream.rng(index);
    let mut frame: Vec<T> = (0..k * n_cols).map(|_| T::from_f64(rng.normal())).collect();
    orthonormalize(&mut frame, n_cols)?;
    Ok(frame)
}
