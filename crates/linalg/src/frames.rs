//! Kernels on frames: `k` long rows of `n_cols` values, `k` small (a basis of a subspace and what moves it).
//!
//! Inner products are added in fixed lanes of the storage's precision, segment by segment, and segments in `f64`, so the bits
//! are the same on every machine with any vector width. `k x k` results are row-major `f64`.

use pulp::WithSimd;

use crate::real::Real;
use crate::simd::dispatch;

/// Sums kept apart while adding along a row: one or two vectors of every machine.
const LANES: usize = 16;
/// Columns added in the storage's precision before the lanes go to `f64`: bounds the rounding of `f32` rows of any length.
const SEGMENT: usize = 512;
/// Rows of each side that share loads.
const TILE: usize = 2;

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
    dispatch(Cross { a, b, n_cols, out });
}

/// `rows ← P·rows + Q·others` in place, `P` and `Q` of side `k` (row-major). Floor: `4 k² n_cols` flop.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn combine<T: Real>(rows: &mut [T], p: &[f64], others: &[T], q: &[f64], n_cols: usize) {
    let k = check(rows, others, n_cols, &[p, q]);
    let (p, q) = (round(p), round(q));
    dispatch(Combine { rows, p: &p, others, q: &q, n_cols, k });
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
    let [p, q, r, s] = [p, q, r, s].map(round);
    dispatch(CombineBoth { rows, others, n_cols, k, p: &p, q: &q, r: &r, s: &s });
}

/// `out = A B` for small row-major matrices of side `k`.
///
/// # Panics
/// If a slice does not hold `k²` values.
pub fn small_mul(a: &[f64], b: &[f64], k: usize, out: &mut [f64]) {
    assert!([a.len(), b.len(), out.len()].iter().all(|n| *n == k * k), "square matrices of side {k}");
    dispatch(SmallMul { a, b, k, out });
}

fn check<T>(rows: &[T], others: &[T], n_cols: usize, coefficients: &[&[f64]]) -> usize {
    assert!(n_cols > 0 && rows.len().is_multiple_of(n_cols) && rows.len() == others.len(), "frames of one shape");
    let k = rows.len() / n_cols;
    assert!(coefficients.iter().all(|c| c.len() == k * k), "coefficients of side {k}");
    k
}

fn round<T: Real>(values: &[f64]) -> Vec<T> {
    values.iter().map(|v| T::from_f64(*v)).collect()
}

struct Cross<'a, T> {
    a: &'a [T],
    b: &'a [T],
    n_cols: usize,
    out: &'a mut [f64],
}

impl<T: Real> WithSimd for Cross<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { a, b, n_cols, out } = self;
        let (ka, kb) = (a.len() / n_cols, b.len() / n_cols);
        for i in (0..ka).step_by(TILE) {
            for j in (0..kb).step_by(TILE) {
                // A tile that would hang over repeats its last row.
                let rows_a = [i, (i + 1).min(ka - 1)].map(|i| &a[i * n_cols..(i + 1) * n_cols]);
                let rows_b = [j, (j + 1).min(kb - 1)].map(|j| &b[j * n_cols..(j + 1) * n_cols]);
                let tile = dot_tile(rows_a, rows_b);
                for (di, values) in tile.iter().enumerate().take(ka - i) {
                    for (dj, value) in values.iter().enumerate().take(kb - j) {
                        out[(i + di) * kb + j + dj] = *value;
                    }
                }
            }
        }
    }
}

/// The inner products of two rows with two rows.
#[inline(always)]
fn dot_tile<T: Real>(a: [&[T]; TILE], b: [&[T]; TILE]) -> [[f64; TILE]; TILE] {
    let n = a[0].len();
    let mut totals = [[0.0; TILE]; TILE];
    for from in (0..n).step_by(SEGMENT) {
        let to = (from + SEGMENT).min(n);
        let [a0, a1] = a.map(|r| &r[from..to]);
        let [b0, b1] = b.map(|r| &r[from..to]);
        let mut sums = [[[T::default(); LANES]; TILE]; TILE];
        let blocks = (to - from) / LANES;
        for block in 0..blocks {
            let at = block * LANES;
            let (x0, x1) = (&a0[at..at + LANES], &a1[at..at + LANES]);
            let (y0, y1) = (&b0[at..at + LANES], &b1[at..at + LANES]);
            for l in 0..LANES {
                sums[0][0][l] += x0[l] * y0[l];
                sums[0][1][l] += x0[l] * y1[l];
                sums[1][0][l] += x1[l] * y0[l];
                sums[1][1][l] += x1[l] * y1[l];
            }
        }
        for l in 0..(to - from) % LANES {
            let at = blocks * LANES + l;
            sums[0][0][l] += a0[at] * b0[at];
            sums[0][1][l] += a0[at] * b1[at];
            sums[1][0][l] += a1[at] * b0[at];
            sums[1][1][l] += a1[at] * b1[at];
        }
        for i in 0..TILE {
            for j in 0..TILE {
                totals[i][j] += sums[i][j].iter().map(|v| v.to_f64()).sum::<f64>();
            }
        }
    }
    totals
}

/// Columns of a strip whose old rows are kept while the new ones are made.
const STRIP: usize = 64;

struct Combine<'a, T> {
    rows: &'a mut [T],
    p: &'a [T],
    others: &'a [T],
    q: &'a [T],
    n_cols: usize,
    k: usize,
}

impl<T: Real> WithSimd for Combine<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { rows, p, others, q, n_cols, k } = self;
        let (mut old, mut other) = (vec![T::default(); k * STRIP], vec![T::default(); k * STRIP]);
        for from in (0..n_cols).step_by(STRIP) {
            let width = STRIP.min(n_cols - from);
            load_strip(rows, n_cols, from, width, &mut old);
            load_strip(others, n_cols, from, width, &mut other);
            for i in 0..k {
                let new = combined(&p[i * k..(i + 1) * k], &old, &q[i * k..(i + 1) * k], &other);
                rows[i * n_cols + from..][..width].copy_from_slice(&new[..width]);
            }
        }
    }
}

struct CombineBoth<'a, T> {
    rows: &'a mut [T],
    others: &'a mut [T],
    n_cols: usize,
    k: usize,
    p: &'a [T],
    q: &'a [T],
    r: &'a [T],
    s: &'a [T],
}

impl<T: Real> WithSimd for CombineBoth<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { rows, others, n_cols, k, p, q, r, s } = self;
        let (mut old, mut other) = (vec![T::default(); k * STRIP], vec![T::default(); k * STRIP]);
        for from in (0..n_cols).step_by(STRIP) {
            let width = STRIP.min(n_cols - from);
            load_strip(rows, n_cols, from, width, &mut old);
            load_strip(others, n_cols, from, width, &mut other);
            for i in 0..k {
                let range = i * k..(i + 1) * k;
                let new = combined(&p[range.clone()], &old, &q[range.clone()], &other);
                rows[i * n_cols + from..][..width].copy_from_slice(&new[..width]);
                let new = combined(&r[range.clone()], &old, &s[range], &other);
                others[i * n_cols + from..][..width].copy_from_slice(&new[..width]);
            }
        }
    }
}

/// Copies `width` columns from `from` on; the rest of each strip is zero.
#[inline(always)]
fn load_strip<T: Real>(rows: &[T], n_cols: usize, from: usize, width: usize, strip: &mut [T]) {
    for (strip, row) in strip.chunks_exact_mut(STRIP).zip(rows.chunks_exact(n_cols)) {
        strip[..width].copy_from_slice(&row[from..from + width]);
        strip[width..].fill(T::default());
    }
}

/// `Σ pⱼ oldⱼ + qⱼ otherⱼ` over the strips.
#[inline(always)]
fn combined<T: Real>(p: &[T], old: &[T], q: &[T], other: &[T]) -> [T; STRIP] {
    let mut sum = [T::default(); STRIP];
    let strips = old.chunks_exact(STRIP).zip(other.chunks_exact(STRIP));
    for ((pj, qj), (old, other)) in p.iter().zip(q).zip(strips) {
        for l in 0..STRIP {
            sum[l] += *pj * old[l] + *qj * other[l];
        }
    }
    sum
}

struct SmallMul<'a> {
    a: &'a [f64],
    b: &'a [f64],
    k: usize,
    out: &'a mut [f64],
}

impl WithSimd for SmallMul<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { a, b, k, out } = self;
        for i in 0..k {
            let out = &mut out[i * k..(i + 1) * k];
            out.fill(0.0);
            for (aij, b) in a[i * k..(i + 1) * k].iter().zip(b.chunks_exact(k)) {
                out.iter_mut().zip(b).for_each(|(o, b)| *o += aij * b);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::test::noise;

    #[test]
    fn kernels_compute_their_definitions() {
        for (k, d) in [(1, 1), (2, 16), (3, 130), (5, 1025)] {
            let (a, b) = (noise(k * d, 1), noise(k * d, 2));
            let mut w = vec![0.0; k * k];
            cross(&a, &b, d, &mut w);
            for i in 0..k {
                for j in 0..k {
                    let expected: f64 = (0..d).map(|l| a[i * d + l] * b[j * d + l]).sum();
                    assert!((w[i * k + j] - expected).abs() < 1e-11);
                }
            }
            let (p, q) = (noise(k * k, 3), noise(k * k, 4));
            let old = (a.clone(), b.clone());
            let (mut rows, mut others) = old.clone();
            combine_both(&mut rows, &mut others, d, [&p, &q], [&q, &p]);
            let mut alone = a.clone();
            combine(&mut alone, &p, &b, &q, d);
            assert_eq!(alone, rows);
            let mut product = vec![0.0; k * k];
            small_mul(&p, &q, k, &mut product);
            for i in 0..k {
                for l in 0..d {
                    let of = |x: &[f64], y: &[f64]| -> f64 {
                        (0..k).map(|j| x[i * k + j] * old.0[j * d + l] + y[i * k + j] * old.1[j * d + l]).sum()
                    };
                    assert!((rows[i * d + l] - of(&p, &q)).abs() < 1e-13);
                    assert!((others[i * d + l] - of(&q, &p)).abs() < 1e-13);
                }
                for j in 0..k {
                    let expected: f64 = (0..k).map(|l| p[i * k + l] * q[l * k + j]).sum();
                    assert!((product[i * k + j] - expected).abs() < 1e-13);
                }
            }
        }
    }

    #[test]
    fn long_rows_of_single_precision_lose_little() {
        let d = 100_000;
        let a: Vec<f32> = noise(d, 5).iter().map(|v| *v as f32).collect();
        let mut found = [0.0];
        cross(&a, &a, d, &mut found);
        let exact: f64 = a.iter().map(|v| f64::from(*v).powi(2)).sum();
        assert!((found[0] / exact - 1.0).abs() < 3e-7, "{}", found[0] / exact - 1.0);
    }
}
