//! In-memory passes on the current rayon pool, with the same bits for any number of threads.
//!
//! A pass whose results belong to rows is cut into chunks freely. A pass that adds over rows is cut into segments that depend
//! on the shape alone; each is added up on its own, and the segments' sums are joined in row order. A Gram matrix of few but
//! wide rows is cut by columns instead, which changes no order of additions at all.
#![allow(unsafe_code)]

use rayon::prelude::*;

use crate::Mat;
use crate::apply::{RowFactor, add_tr_mul_vec, mul_vec};
use crate::gram::{add_gram_columns, symmetrize};

/// Rows per task of a pass whose results belong to rows: some microseconds of work even for the narrowest table.
const TASK_ROWS: usize = 1024;

/// Largest number of segments: enough to keep tens of threads busy to within a few per cent.
const MAX_SEGMENTS: usize = 64;

/// Fewest rows of a segment: some microseconds of work even for the narrowest table.
const MIN_SEGMENT_ROWS: usize = 1024;

/// Fewest rows of a segment per column: making and joining a segment's own Gram matrix then costs a few per cent at most.
const SEGMENT_ROWS_PER_COLUMN: usize = 16;

/// With fewer segments than this, threads would wait for the last one.
const MIN_SEGMENTS: usize = 8;

/// Bytes that the segments' Gram matrices may take together.
const SEGMENT_BYTES: usize = 256 << 20;

/// Tables this wide or wider are cut by columns where there are few rows: copying the rows once more per task is then cheap.
const MIN_SPLIT_COLS: usize = 128;

/// Rows of a segment of an `n x d` table: a function of the shape alone, because the order of additions follows it.
fn segment_rows(n: usize, d: usize) -> usize {
    let most = (SEGMENT_BYTES / (8 * d * d).max(1)).clamp(4, MAX_SEGMENTS);
    n.div_ceil(most).max(MIN_SEGMENT_ROWS).max(SEGMENT_ROWS_PER_COLUMN * d)
}

/// `AᵀA` (symmetric, both triangles filled) of an `n x n_cols` row-major matrix.
///
/// Floor: as [`add_gram`](crate::gram::add_gram). The bits are the same for any number of threads.
///
/// # Panics
/// If `rows` does not hold whole rows.
///
/// ```
/// let g = subspan_linalg::par_gram(&[1.0, 2.0, 3.0, 4.0], 2);
/// assert_eq!(g.as_slice(), [10.0, 14.0, 14.0, 20.0]);
/// ```
pub fn par_gram(rows: &[f64], n_cols: usize) -> Mat {
    any_gram(rows, n_cols, None)
}

/// `Aᵀ diag(w) A` (symmetric, both triangles filled); otherwise like [`par_gram`].
///
/// # Panics
/// If there is not one weight per row. Weights must be non-negative.
///
/// ```
/// let g = subspan_linalg::par_weighted_gram(&[1.0, 2.0, 3.0, 4.0], 2, &[4.0, 0.0]);
/// assert_eq!(g.as_slice(), [4.0, 8.0, 8.0, 16.0]);
/// ```
pub fn par_weighted_gram(rows: &[f64], n_cols: usize, weights: &[f64]) -> Mat {
    assert_eq!(rows.len(), weights.len() * n_cols, "one weight per row");
    any_gram(rows, n_cols, Some(weights))
}

fn any_gram(rows: &[f64], d: usize, weights: Option<&[f64]>) -> Mat {
    assert!(rows.is_empty() || (d > 0 && rows.len().is_multiple_of(d)), "rows holds whole rows");
    let mut total = Mat::zeros(d, d);
    if rows.is_empty() {
        return total;
    }
    let n = rows.len() / d;
    let per_segment = segment_rows(n, d);
    if d >= MIN_SPLIT_COLS && n < MIN_SEGMENTS * per_segment {
        gram_by_columns(rows, d, weights, total.as_mut_slice());
    } else {
        let sum = |i: usize| {
            let mut g = Mat::zeros(d, d);
            let (from, to) = (i * per_segment, n.min((i + 1) * per_segment));
            // SAFETY: `g` is this task's own.
            unsafe {
                let g = g.as_mut_slice().as_mut_ptr();
                add_gram_columns(&rows[from * d..to * d], d, weights.map(|w| &w[from..to]), g, 0..d);
            }
            g
        };
        let parts: Vec<Mat> = (0..n.div_ceil(per_segment)).into_par_iter().map(sum).collect();
        join(&parts, total.as_mut_slice());
    }
    symmetrize(total.as_mut_slice(), d);
    total
}

/// Column ranges of about equal area of the triangle, two per thread.
fn gram_by_columns(rows: &[f64], d: usize, weights: Option<&[f64]>, gram: &mut [f64]) {
    struct Shared(*mut f64);
    // SAFETY: the tasks write disjoint columns.
    unsafe impl Sync for Shared {}
    impl Shared {
        fn get(&self) -> *mut f64 {
            self.0
        }
    }
    let gram = Shared(gram.as_mut_ptr());
    let tasks = match rayon::current_num_threads() {
        1 => 1,
        threads => 2 * threads,
    };
    let cut = |i: usize| ((i as f64 / tasks as f64).sqrt() * d as f64).round() as usize;
    (0..tasks).into_par_iter().for_each(|i| {
        // SAFETY: `gram` is `d x d`, and the tasks' column ranges do not overlap.
        unsafe { add_gram_columns(rows, d, weights, gram.get(), cut(i)..cut(i + 1)) };
    });
}

/// `total += Σ parts`, in order.
fn join(parts: &[Mat], total: &mut [f64]) {
    /// Entries per task.
    const ENTRIES: usize = 4096;
    total.par_chunks_mut(ENTRIES).enumerate().for_each(|(i, total)| {
        for part in parts {
            total.iter_mut().zip(&part.as_slice()[i * ENTRIES..]).for_each(|(t, p)| *t += p);
        }
    });
}

/// [`row_norms_sq`](crate::apply::row_norms_sq) of all rows at once, with the same bits.
///
/// # Panics
/// If `rows` does not hold whole rows.
pub fn par_row_norms_sq(rows: &[f64], factor: &Mat, upper: bool) -> Vec<f64> {
    let d = factor.n_rows();
    let mut out = vec![0.0; n_rows(rows, d)];
    let factor = RowFactor::new(factor, upper);
    out.par_chunks_mut(TASK_ROWS)
        .zip(rows.par_chunks((TASK_ROWS * d).max(1)))
        .for_each(|(out, rows)| factor.norms_sq(rows, out));
    out
}

/// [`mul_vec`] of all rows at once, with the same bits.
///
/// # Panics
/// If the lengths do not fit each other.
///
/// ```
/// let mut out = [0.0; 2];
/// subspan_linalg::par_mul_vec(&[1.0, 2.0, 3.0, 4.0], &[1.0, -1.0], &mut out);
/// assert_eq!(out, [-1.0, -1.0]);
/// ```
pub fn par_mul_vec(rows: &[f64], x: &[f64], out: &mut [f64]) {
    assert_eq!(rows.len(), out.len() * x.len(), "one result per row");
    if x.is_empty() {
        return out.fill(0.0);
    }
    out.par_chunks_mut(TASK_ROWS)
        .zip(rows.par_chunks(TASK_ROWS * x.len()))
        .for_each(|(out, rows)| mul_vec(rows, x, out));
}

/// `Aᵀ y`, a vector of `n_cols`: the rows added up with coefficients `y`, segment by segment.
///
/// Floor: as [`add_tr_mul_vec`]. The bits are the same for any number of threads.
///
/// # Panics
/// If there is not one coefficient per row.
///
/// ```
/// assert_eq!(subspan_linalg::par_tr_mul_vec(&[1.0, 2.0, 3.0, 4.0], 2, &[1.0, -1.0]), [-2.0, -2.0]);
/// ```
pub fn par_tr_mul_vec(rows: &[f64], n_cols: usize, y: &[f64]) -> Vec<f64> {
    assert_eq!(rows.len(), y.len() * n_cols, "one coefficient per row");
    let mut total = vec![0.0; n_cols];
    if rows.is_empty() {
        return total;
    }
    let per_segment = segment_rows(y.len(), 1);
    let parts: Vec<Vec<f64>> = rows
        .par_chunks(per_segment * n_cols)
        .zip(y.par_chunks(per_segment))
        .map(|(rows, y)| {
            let mut sum = vec![0.0; n_cols];
            add_tr_mul_vec(rows, y, &mut sum);
            sum
        })
        .collect();
    for part in parts {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
    total
}

fn n_rows(rows: &[f64], d: usize) -> usize {
    assert!(rows.is_empty() || (d > 0 && rows.len().is_multiple_of(d)), "rows holds whole rows");
    rows.len().checked_div(d).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::row_norms_sq;
    use crate::gram::add_weighted_gram;
    use crate::simd::test::noise;

    fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(f)
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        for (n, d) in [(0, 3), (1, 1), (5, 2), (5000, 7), (9001, 20), (3000, 150), (700, 260)] {
            let rows = noise(n * d, 1);
            let factor = Mat::from_vec(d, d, noise(d * d, 2));
            let (x, y) = (noise(d, 3), noise(n, 4));
            let weights: Vec<f64> = y.iter().map(|y| y.abs()).collect();
            let all = || {
                let mut product = vec![0.0; n];
                par_mul_vec(&rows, &x, &mut product);
                let norms = par_row_norms_sq(&rows, &factor, false);
                let grams = [par_gram(&rows, d), par_weighted_gram(&rows, d, &weights)];
                (product, norms, grams, par_tr_mul_vec(&rows, d, &y))
            };
            let one = with_threads(1, all);
            for threads in [2, 3] {
                assert!(with_threads(threads, all) == one, "{n} x {d}, {threads} threads");
            }

            let mut norms = vec![0.0; n];
            row_norms_sq(&rows, &factor, false, &mut norms);
            assert_eq!(one.1, norms);
            let mut product = vec![0.0; n];
            mul_vec(&rows, &x, &mut product);
            assert_eq!(one.0, product);
            let mut gram = vec![0.0; d * d];
            add_weighted_gram(&rows, d, &weights, &mut gram);
            symmetrize(&mut gram, d);
            for (a, b) in one.2[1].as_slice().iter().zip(&gram) {
                assert!((a - b).abs() <= 1e-13 * n as f64);
            }
            let mut sums = vec![0.0; d];
            add_tr_mul_vec(&rows, &y, &mut sums);
            for (a, b) in one.3.iter().zip(&sums) {
                assert!((a - b).abs() <= 1e-13 * n as f64);
            }
        }
    }
}
