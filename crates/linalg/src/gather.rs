//! Weighted sums of rows that lie anywhere in a matrix: a row of a sparse matrix times a dense one.

use pulp::{Simd, WithSimd};

use crate::simd::dispatch;

/// Columns whose sums stay in registers over all rows.
const WIDE: usize = 32;
const NARROW: usize = 8;

/// `out += Σ weights[i] x[rows[i]]`, for a row-major `x` with as many columns as `out`. On the calling thread; every column is its own sum in the
/// order of the rows, so the bits do not depend on the vector width. Cost: two operations per value; floor: the rows' bytes, read once.
///
/// # Panics
/// If a row is not in `x`, or there is not one weight for each.
///
/// ```
/// let mut out = [1.0, 0.0];
/// subspan_linalg::add_rows(&[1.0, 2.0, 3.0, 4.0], &[1, 0], &[2.0, -1.0], &mut out);
/// assert_eq!(out, [6.0, 6.0]);
/// ```
pub fn add_rows(x: &[f64], rows: &[u32], weights: &[f32], out: &mut [f64]) {
    assert_eq!(rows.len(), weights.len(), "a weight for each row");
    dispatch(AddRows { x, rows, weights, out });
}

struct AddRows<'a> {
    x: &'a [f64],
    rows: &'a [u32],
    weights: &'a [f32],
    out: &'a mut [f64],
}

impl WithSimd for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, rows, weights, out } = self;
        let width = out.len();
        let (wide, rest) = out.as_chunks_mut::<WIDE>();
        let mut start = 0;
        for out in wide {
            add(x, width, start, rows, weights, out);
            start += WIDE;
        }
        let (narrow, rest) = rest.as_chunks_mut::<NARROW>();
        for out in narrow {
            add(x, width, start, rows, weights, out);
            start += NARROW;
        }
        for (row, weight) in rows.iter().zip(weights) {
            let from = &x[*row as usize * width + start..][..rest.len()];
            rest.iter_mut().zip(from).for_each(|(o, v)| *o += f64::from(*weight) * v);
        }
    }
}

#[inline(always)]
fn add<const N: usize>(x: &[f64], width: usize, start: usize, rows: &[u32], weights: &[f32], out: &mut [f64; N]) {
    let mut sums = *out;
    for (row, weight) in rows.iter().zip(weights) {
        let (from, weight) = (&x[*row as usize * width + start..][..N], f64::from(*weight));
        for lane in 0..N {
            sums[lane] += weight * from[lane];
        }
    }
    *out = sums;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::test::{for_each_width, noise};

    #[test]
    fn every_width_adds_in_the_order_of_the_rows() {
        for width in [1, 7, 8, 31, 40, 77] {
            let (n, x) = (9, noise(9 * width, 5));
            let rows: Vec<u32> = (0..40).map(|i| (i * 7 % n) as u32).collect();
            let weights: Vec<f32> = noise(40, 6).into_iter().map(|v| v as f32).collect();
            let start = noise(width, 7);
            let mut expected = start.clone();
            for (row, weight) in rows.iter().zip(&weights) {
                for (c, o) in expected.iter_mut().enumerate() {
                    *o += f64::from(*weight) * x[*row as usize * width + c];
                }
            }
            for_each_width(|name, run| {
                let mut out = start.clone();
                run.run(AddRows { x: &x, rows: &rows, weights: &weights, out: &mut out });
                assert_eq!(out, expected, "{name}, {width} columns");
            });
        }
    }
}
