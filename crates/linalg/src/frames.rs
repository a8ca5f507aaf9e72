//! Kernels on frames: `k` long rows of `n_cols` values, `k` small (a basis of a subspace and what moves it).
//!
//! Inner products are added in [`LANES`] fixed lanes of the storage's precision by fused multiply-add, segment by segment, and
//! lanes and segments in `f64`; combinations add row after row by fused multiply-add. So the bits are the same on every machine
//! with any vector width and any size of tile. `k x k` results are row-major `f64`.
//!
//! The kernels keep a tile of results in registers: 8 rows by 2 rows of inner products, 8 rows by 2 vectors of a combination (4
//! instead of 8 where a machine has 16 registers), so that an operand is loaded once for several multiply-adds.
#![allow(unsafe_code)]

mod combine;
mod dots;
mod small;

pub(crate) use combine::{Accumulate, Combine, CombineBoth};
pub(crate) use dots::Dots;

use crate::real::Real;
pub use small::small_mul;

/// Sums kept apart while adding along a row: one or more whole vectors of every machine.
const LANES: usize = 16;

/// `out[i, j] = ⟨aᵢ, bⱼ⟩` for all rows of `a` and `b`. Floor: `2 k_a k_b n_cols` flop.
///
/// # Panics
/// If the slices do not hold whole rows or `out` has the wrong size.
///
/// ```
/// let mut out = [0.0; 2];
/// subspan_linalg::frames::cross(&[1f32, 2.0], &[3.0, 4.0, 1.0, 0.0], 2, &mut out);
/// assert_eq!(out, [11.0, 1.0]);
/// ```
pub fn cross<T: Real>(a: &[T], b: &[T], n_cols: usize, out: &mut [f64]) {
    assert!(n_cols > 0 && a.len().is_multiple_of(n_cols) && b.len().is_multiple_of(n_cols), "whole rows");
    assert_eq!(out.len(), (a.len() / n_cols) * (b.len() / n_cols), "one value per pair of rows");
    T::dots(Dots { a, b, n_cols, symmetric: false, out });
}

/// `out[i, j] = ⟨aᵢ, aⱼ⟩`, symmetric. Floor: `k (k + 1) n_cols` flop.
///
/// # Panics
/// If the slice does not hold whole rows or `out` has the wrong size.
///
/// ```
/// let mut out = [0.0; 4];
/// subspan_linalg::frames::inner(&[1f32, 2.0, 3.0, 4.0], 2, &mut out);
/// assert_eq!(out, [5.0, 11.0, 11.0, 25.0]);
/// ```
pub fn inner<T: Real>(a: &[T], n_cols: usize, out: &mut [f64]) {
    assert!(n_cols > 0 && a.len().is_multiple_of(n_cols), "whole rows");
    let k = a.len() / n_cols;
    assert_eq!(out.len(), k * k, "one value per pair of rows");
    T::dots(Dots { a, b: a, n_cols, symmetric: true, out });
    crate::gram::symmetrize(out, k);
}

/// `sums ← scale·sums + values`; what is at the same places of `ahead` is brought into the cache meanwhile. Floor: its bytes.
///
/// # Panics
/// If the slices differ in length.
///
/// ```
/// let mut sums = [1.0, 2.0];
/// subspan_linalg::frames::accumulate(&mut sums, 0.5, &[3.0, 4.0], &[0.0, 0.0]);
/// assert_eq!(sums, [3.5, 5.0]);
/// ```
pub fn accumulate<T: Real>(sums: &mut [T], scale: f64, values: &[T], ahead: &[T]) {
    assert!(sums.len() == values.len() && sums.len() == ahead.len(), "slices of one length");
    T::accumulate(Accumulate { sums, scale: T::from_f64(scale), values, ahead });
}

/// `rows ← P·rows + Q·others` in place, `P` and `Q` of side `k` (row-major). Floor: `4 k² n_cols` flop.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn combine<T: Real>(rows: &mut [T], p: &[f64], others: &[T], q: &[f64], n_cols: usize) {
    let k = check(rows, others, n_cols, &[p, q]);
    let (p, q) = (transposed(p, k), transposed(q, k));
    T::combine(Combine { rows, p: &p, others, q: &q, n_cols, k });
}

/// Both at once, from the old rows: `rows ← P·rows + Q·others` and `others ← R·rows + S·others`. Floor: `8 k² n_cols` flop.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn combine_both<T: Real>(
    rows: &mut [T],
    others: &mut [T],
    n_cols: usize,
    [p, q]: [&[f64]; 2],
    [r, s]: [&[f64]; 2],
) {
    let k = check(rows, others, n_cols, &[p, q, r, s]);
    let [p, q, r, s] = [p, q, r, s].map(|c| transposed(c, k));
    T::combine_both(CombineBoth { rows, others, n_cols, k, p: &p, q: &q, r: &r, s: &s });
}

fn check<T>(rows: &[T], others: &[T], n_cols: usize, coefficients: &[&[f64]]) -> usize {
    assert!(n_cols > 0 && rows.len().is_multiple_of(n_cols) && rows.len() == others.len(), "frames of one shape");
    let k = rows.len() / n_cols;
    assert!(coefficients.iter().all(|c| c.len() == k * k), "coefficients of side {k}");
    k
}

/// The coefficients of one operand row for all result rows side by side, in the storage's precision.
fn transposed<T: Real>(values: &[f64], k: usize) -> Vec<T> {
    (0..k * k).map(|at| T::from_f64(values[at % k * k + at / k])).collect()
}

#[cfg(test)]
mod tests;
