//! Lengths of rows and of their segments.

use pulp::{Simd, WithSimd};

use crate::simd::{LANES, dispatch, join_lanes};

/// The length of every row, added up in `f64`, so that squares neither overflow nor vanish. On the calling thread, with the same bits
/// for any vector width. Floor: the rows' bytes, read once.
///
/// # Panics
/// If `values` does not hold whole rows, or `out` not one value per row.
///
/// ```
/// let mut lengths = [0.0; 2];
/// subspan_linalg::row_lengths(&[3.0, 4.0, 0.0, 0.0], 2, &mut lengths);
/// assert_eq!(lengths, [5.0, 0.0]);
/// ```
pub fn row_lengths(values: &[f32], n_cols: usize, out: &mut [f64]) {
    assert!(n_cols > 0 && values.len() == out.len() * n_cols, "whole rows, and one length for each");
    dispatch(RowLengths { values, n_cols, out });
}

/// `scales[i] ‖xᵢ[offsets[c]..offsets[c + 1]]‖` for every row `i` and segment `c`: `out` is `n x n_segments`. On the calling thread,
/// with the same bits for any vector width. Floor: three operations per entry, ten per segment.
///
/// # Panics
/// If `values` does not hold a row of `offsets.last()` entries per scale, or `out` not one value per row and segment.
///
/// ```
/// let mut lengths = [0.0; 2];
/// subspan_linalg::segment_lengths(&[3.0, 4.0, -1.0], &[0, 2, 3], &[10.0], &mut lengths);
/// assert_eq!(lengths, [50.0, 10.0]);
/// ```
pub fn segment_lengths(values: &[f32], offsets: &[usize], scales: &[f64], out: &mut [f64]) {
    let (n_cols, n_segments) = (offsets.last().copied().unwrap_or(0), offsets.len().saturating_sub(1));
    assert!(offsets.is_sorted() && offsets.first() == Some(&0), "offsets that increase from zero on");
    assert!(values.len() == scales.len() * n_cols && out.len() == scales.len() * n_segments, "whole rows");
    if n_segments > 0 {
        dispatch(SegmentLengths { values, offsets, scales, out });
    }
}

struct RowLengths<'a> {
    values: &'a [f32],
    n_cols: usize,
    out: &'a mut [f64],
}

impl WithSimd for RowLengths<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (row, out) in self.values.chunks_exact(self.n_cols).zip(self.out) {
            *out = squares(row).sqrt();
        }
    }
}

struct SegmentLengths<'a> {
    values: &'a [f32],
    offsets: &'a [usize],
    scales: &'a [f64],
    out: &'a mut [f64],
}

impl WithSimd for SegmentLengths<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { values, offsets, scales, out } = self;
        let (n_cols, n_segments) = (offsets[offsets.len() - 1], offsets.len() - 1);
        let lines = offsets.iter().enumerate().all(|(c, o)| c == *o);
        for (i, (out, scale)) in out.chunks_exact_mut(n_segments).zip(scales).enumerate() {
            let row = &values[i * n_cols..(i + 1) * n_cols];
            if lines {
                out.iter_mut().zip(row).for_each(|(l, v)| *l = scale * f64::from(v.abs()));
                continue;
            }
            for (o, out) in offsets.windows(2).zip(out) {
                let (parts, rest) = row[o[0]..o[1]].as_chunks::<LANES>();
                let mut sums = [0.0f64; LANES];
                parts.iter().for_each(|part| add_squares(part, &mut sums));
                if !rest.is_empty() {
                    add_squares(&padded(rest), &mut sums);
                }
                *out = scale * join_lanes(&sums).sqrt();
            }
        }
    }
}

/// `‖row‖²`, in four chains of lanes.
#[inline(always)]
pub(crate) fn squares(row: &[f32]) -> f64 {
    // Four arrays by name: as an array of arrays they are not kept in vectors.
    let [mut a, mut b, mut c, mut d] = [[0.0f64; LANES]; 4];
    let (parts, rest) = row.as_chunks::<LANES>();
    let (blocks, more) = parts.as_chunks::<4>();
    for block in blocks {
        add_squares(&block[0], &mut a);
        add_squares(&block[1], &mut b);
        add_squares(&block[2], &mut c);
        add_squares(&block[3], &mut d);
    }
    for (part, sums) in more.iter().chain([&padded(rest)]).zip([&mut a, &mut b, &mut c, &mut d]) {
        add_squares(part, sums);
    }
    (join_lanes(&a) + join_lanes(&b)) + (join_lanes(&c) + join_lanes(&d))
}

/// Adds squares to their lanes.
#[inline(always)]
fn add_squares(part: &[f32; LANES], sums: &mut [f64; LANES]) {
    for l in 0..LANES {
        let v = f64::from(part[l]);
        sums[l] = v.mul_add(v, sums[l]);
    }
}

/// Less than a vector of values, and zeros.
#[inline(always)]
fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut part = [0.0; LANES];
    part[..rest.len()].copy_from_slice(rest);
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::test::{for_each_width, noise};

    fn single(len: usize, seed: u64) -> Vec<f32> {
        noise(len, seed).iter().map(|v| *v as f32).collect()
    }

    fn definition(row: &[f32]) -> f64 {
        row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn every_width_gives_rows_their_lengths_and_the_same_bits() {
        for d in [1, 7, 8, 31, 32, 45, 100] {
            let values = single(5 * d, 1);
            let mut first = None;
            for_each_width(|name, width| {
                let mut out = vec![0.0; 5];
                width.run(RowLengths { values: &values, n_cols: d, out: &mut out });
                for (row, length) in values.chunks(d).zip(&out) {
                    assert!((length - definition(row)).abs() <= 1e-14 * length, "{name}, d = {d}");
                }
                assert!(first.get_or_insert_with(|| out.clone()) == &out, "{name}, d = {d}");
            });
        }
    }

    #[test]
    fn every_width_gives_segments_their_lengths_and_the_same_bits() {
        for offsets in [&[0, 1, 2, 3][..], &[0, 8, 16], &[0, 3, 3, 20, 21], &[0, 17]] {
            let (n_cols, n_segments) = (offsets[offsets.len() - 1], offsets.len() - 1);
            let (values, scales) = (single(4 * n_cols, 2), [1.0, 0.5, 0.0, 1e6]);
            let mut first = None;
            for_each_width(|name, width| {
                let mut out = vec![f64::NAN; 4 * n_segments];
                width.run(SegmentLengths { values: &values, offsets, scales: &scales, out: &mut out });
                for (i, row) in values.chunks(n_cols).enumerate() {
                    for (c, o) in offsets.windows(2).enumerate() {
                        let expected = scales[i] * definition(&row[o[0]..o[1]]);
                        assert!((out[i * n_segments + c] - expected).abs() <= 1e-14 * expected, "{name}, {offsets:?}");
                    }
                }
                assert!(first.get_or_insert_with(|| out.clone()) == &out, "{name}, {offsets:?}");
            });
        }
    }

    #[test]
    fn lengths_neither_overflow_nor_vanish() {
        let mut out = [0.0; 2];
        row_lengths(&[1e30, 1e30, 1e-30, 0.0], 2, &mut out);
        assert!((out[0] / 2f64.sqrt() - 1e30).abs() < 1e24 && (out[1] - 1e-30).abs() < 1e-36);
    }
}
