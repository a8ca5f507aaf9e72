//! The two in-memory passes on the current rayon pool. Chunks are fixed and added in order: same bits for any pool size.

use rayon::prelude::*;

use crate::{Mat, apply::row_norms_sq, gram};

/// Rows per chunk of a parallel pass. Fixed, because the order of additions follows it.
pub const PAR_CHUNK_ROWS: usize = 16_384;

/// `AᵀA` (symmetric, both triangles filled) of an `n x n_cols` row-major matrix.
///
/// ```
/// let g = subspan_linalg::par_gram(&[1.0, 2.0, 3.0, 4.0], 2);
/// assert_eq!(g.as_slice(), [10.0, 14.0, 14.0, 20.0]);
/// ```
pub fn par_gram(rows: &[f64], n_cols: usize) -> Mat {
    let mut total = Mat::zeros(n_cols, n_cols);
    let chunk_len = (PAR_CHUNK_ROWS * n_cols).max(1);
    // A window bounds the partial results alive at once.
    let window_len = chunk_len * 4 * rayon::current_num_threads();
    for window in rows.chunks(window_len) {
        let partials: Vec<Mat> = window
            .par_chunks(chunk_len)
            .map(|chunk| {
                let mut g = Mat::zeros(n_cols, n_cols);
                gram::add_gram(chunk, n_cols, g.as_mut_slice());
                g
            })
            .collect();
        for g in partials {
            total.as_mut_slice().iter_mut().zip(g.as_slice()).for_each(|(t, g)| *t += g);
        }
    }
    gram::symmetrize(total.as_mut_slice(), n_cols);
    total
}

/// [`row_norms_sq`] of all rows at once.
pub fn par_row_norms_sq(rows: &[f64], factor: &Mat, upper: bool) -> Vec<f64> {
    let d = factor.n_rows().max(1);
    let mut out = vec![0.0; rows.len() / d];
    out.par_chunks_mut(PAR_CHUNK_ROWS)
        .zip(rows.par_chunks(PAR_CHUNK_ROWS * d))
        .for_each(|(out, rows)| row_norms_sq(rows, factor, upper, out));
    out
}
