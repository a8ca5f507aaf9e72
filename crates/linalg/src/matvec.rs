//! Products of data rows with a vector, and their transposed products: the inner loops of iterative solvers.
#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};

use crate::simd::{LANES, dispatch, join_lanes, load, load_lanes, store, store_lanes};

/// `out[i] = aᵢ · x` for every row.
///
/// A product is added up over 8 virtual lanes (column `j` in lane `j mod 8`) by fused multiply-add, and the lanes are joined
/// in a fixed order: a row's result is a function of that row and `x` alone, on every machine.
///
/// Floor: `8 n d` bytes read, `2 n d` flop.
///
/// # Panics
/// If the lengths do not fit each other.
///
/// ```
/// let mut out = [0.0; 2];
/// subspan_linalg::apply::mul_vec(&[1.0, 2.0, 3.0, 4.0], &[1.0, -1.0], &mut out);
/// assert_eq!(out, [-1.0, -1.0]);
/// ```
pub fn mul_vec(rows: &[f64], x: &[f64], out: &mut [f64]) {
    assert_eq!(rows.len(), out.len() * x.len(), "one result per row");
    dispatch(MulVec { rows, x, out });
}

/// `out += Aᵀ y`: the rows added up with coefficients `y`.
///
/// Each entry of `out` receives its products in row order by fused multiply-add.
///
/// Floor: `8 n d` bytes read, `2 n d` flop.
///
/// # Panics
/// If the lengths do not fit each other.
///
/// ```
/// let mut out = [0.0; 2];
/// subspan_linalg::apply::add_tr_mul_vec(&[1.0, 2.0, 3.0, 4.0], &[1.0, -1.0], &mut out);
/// assert_eq!(out, [-2.0, -2.0]);
/// ```
pub fn add_tr_mul_vec(rows: &[f64], y: &[f64], out: &mut [f64]) {
    assert_eq!(rows.len(), y.len() * out.len(), "one coefficient per row");
    dispatch(AddTrMulVec { rows, y, out });
}

/// Raises `max_abs[j]` to the largest magnitude in column `j`.
///
/// Floor: `8 n d` bytes read.
///
/// # Panics
/// If `rows` does not hold whole rows of `max_abs.len()` columns.
///
/// ```
/// let mut max_abs = [0.0; 2];
/// subspan_linalg::apply::max_abs_columns(&[1.0, 2.0, -3.0, 0.5], &mut max_abs);
/// assert_eq!(max_abs, [3.0, 2.0]);
/// ```
pub fn max_abs_columns(rows: &[f64], max_abs: &mut [f64]) {
    assert!(rows.is_empty() || rows.len().is_multiple_of(max_abs.len()), "rows holds whole rows");
    dispatch(MaxAbsColumns { rows, max_abs });
}

/// `out = A diag(scales)`, row-major.
///
/// # Panics
/// If the lengths do not fit each other.
///
/// ```
/// let mut out = [0.0; 4];
/// subspan_linalg::apply::scale_columns(&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.5], &mut out);
/// assert_eq!(out, [1.0, 1.0, 3.0, 2.0]);
/// ```
pub fn scale_columns(rows: &[f64], scales: &[f64], out: &mut [f64]) {
    assert!(rows.len() == out.len() && (rows.is_empty() || rows.len().is_multiple_of(scales.len())), "whole rows");
    for (from, to) in rows.chunks_exact(scales.len().max(1)).zip(out.chunks_exact_mut(scales.len().max(1))) {
        for ((to, from), s) in to.iter_mut().zip(from).zip(scales) {
            *to = from * s;
        }
    }
}

/// Whether no value is NaN or infinite. Memory-bound.
///
/// ```
/// assert!(subspan_linalg::apply::all_finite(&[1.0, -2e300]));
/// assert!(!subspan_linalg::apply::all_finite(&[1.0, f64::NAN]) && !subspan_linalg::apply::all_finite(&[f64::INFINITY]));
/// ```
pub fn all_finite(values: &[f64]) -> bool {
    dispatch(AllFinite { values })
}

struct AllFinite<'a> {
    values: &'a [f64],
}

impl WithSimd for AllFinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        // x · 0 is 0 for every finite x and NaN otherwise; lanes of a fixed array become vectors.
        let mut lanes = [0.0; 32];
        let mut chunks = self.values.chunks_exact(32);
        for chunk in chunks.by_ref() {
            for (lane, v) in lanes.iter_mut().zip(chunk) {
                *lane += v * 0.0;
            }
        }
        let rest: f64 = chunks.remainder().iter().map(|v| v * 0.0).sum();
        lanes.iter().sum::<f64>() + rest == 0.0
    }
}

struct MaxAbsColumns<'a> {
    rows: &'a [f64],
    max_abs: &'a mut [f64],
}

impl WithSimd for MaxAbsColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.rows.chunks_exact(self.max_abs.len().max(1)) {
            for (m, v) in self.max_abs.iter_mut().zip(row) {
                let v = v.abs();
                *m = if v > *m { v } else { *m };
            }
        }
    }
}

struct MulVec<'a> {
    rows: &'a [f64],
    x: &'a [f64],
    out: &'a mut [f64],
}

impl WithSimd for MulVec<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (d, width) = (self.x.len(), S::F64_LANES);
        if d == 0 {
            return self.out.fill(0.0);
        }
        let whole = d / LANES * LANES;
        for (row, out) in self.rows.chunks_exact(d).zip(self.out) {
            let mut lanes = [simd.splat_f64s(0.0); LANES];
            let (a, x) = (row.as_ptr(), self.x.as_ptr());
            // SAFETY: `row` and `x` have `d` values, of which whole groups of lanes and then what is left are read.
            unsafe {
                for k in (0..whole).step_by(LANES) {
                    for v in 0..LANES / width {
                        let at = k + v * width;
                        lanes[v] = simd.mul_add_f64s(load::<S>(a.add(at)), load::<S>(x.add(at)), lanes[v]);
                    }
                }
                for v in 0..LANES / width {
                    let at = whole + v * width;
                    if at < d {
                        let to = width.min(d - at);
                        let (a, x) = (load_lanes(simd, a.add(at), 0, to), load_lanes(simd, x.add(at), 0, to));
                        lanes[v] = simd.mul_add_f64s(a, x, lanes[v]);
                    }
                }
            }
            let mut sums = [0.0; LANES];
            for v in 0..LANES / width {
                // SAFETY: `LANES / width` vectors fill the sums exactly.
                unsafe { store::<S>(sums.as_mut_ptr().add(v * width), lanes[v]) };
            }
            *out = join_lanes(&sums);
        }
    }
}

/// Rows added at a time by [`add_tr_mul_vec`]: each value of `out` is loaded and stored once for so many rows.
const STRIP: usize = 8;

struct AddTrMulVec<'a> {
    rows: &'a [f64],
    y: &'a [f64],
    out: &'a mut [f64],
}

impl WithSimd for AddTrMulVec<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let d = self.out.len();
        if d == 0 {
            return;
        }
        let mut strips = self.rows.chunks_exact(STRIP * d);
        let mut coefficients = self.y.chunks_exact(STRIP);
        for (strip, y) in (&mut strips).zip(&mut coefficients) {
            add_rows::<S, STRIP>(simd, strip, y, self.out);
        }
        for (row, y) in strips.remainder().chunks_exact(d).zip(coefficients.remainder()) {
            add_rows::<S, 1>(simd, row, std::slice::from_ref(y), self.out);
        }
    }
}

/// Adds `ROWS` rows with coefficients `y`.
#[inline(always)]
fn add_rows<S: Simd, const ROWS: usize>(simd: S, rows: &[f64], y: &[f64], out: &mut [f64]) {
    let (d, width) = (out.len(), S::F64_LANES);
    assert!(rows.len() == ROWS * d && y.len() == ROWS);
    let (a, out) = (rows.as_ptr(), out.as_mut_ptr());
    let mut weights = [simd.splat_f64s(0.0); ROWS];
    for i in 0..ROWS {
        weights[i] = simd.splat_f64s(y[i]);
    }
    let whole = d / width * width;
    // SAFETY: there are `ROWS` rows of `d` values and `d` results; whole vectors and then the lanes left are accessed.
    unsafe {
        for k in (0..whole).step_by(width) {
            let mut sum = load::<S>(out.add(k));
            for i in 0..ROWS {
                sum = simd.mul_add_f64s(weights[i], load::<S>(a.add(i * d + k)), sum);
            }
            store::<S>(out.add(k), sum);
        }
        if whole < d {
            let to = d - whole;
            let mut sum = load_lanes(simd, out.add(whole), 0, to);
            for i in 0..ROWS {
                sum = simd.mul_add_f64s(weights[i], load_lanes(simd, a.add(i * d + whole), 0, to), sum);
            }
            store_lanes(simd, out.add(whole), sum, 0, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::test::{for_each_width, noise};

    #[test]
    fn every_width_gives_the_bits_of_the_definition() {
        for d in [1, 2, 3, 4, 7, 8, 9, 20, 23, 24, 25, 100] {
            for n in [0, 1, 7, 8, 9, 101] {
                let (rows, x, y, start) = (noise(n * d, d as u64), noise(d, 1), noise(n, 2), noise(d, 3));
                let mut added = start.clone();
                let mut products = vec![];
                for (i, row) in rows.chunks_exact(d).enumerate() {
                    let mut lanes = [0.0; LANES];
                    for j in 0..d {
                        added[j] = f64::mul_add(y[i], row[j], added[j]);
                        lanes[j % LANES] = f64::mul_add(row[j], x[j], lanes[j % LANES]);
                    }
                    products.push(join_lanes(&lanes));
                }
                for_each_width(|name, width| {
                    let mut out = vec![f64::NAN; n];
                    width.run(MulVec { rows: &rows, x: &x, out: &mut out });
                    assert!(out == products, "{name}, {n} x {d}");
                    let mut out = start.clone();
                    width.run(AddTrMulVec { rows: &rows, y: &y, out: &mut out });
                    assert!(out == added, "{name}, {n} x {d}");
                });
            }
        }
    }
}
