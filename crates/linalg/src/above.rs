//! Search for large values.

use pulp::{Simd, WithSimd};

use crate::simd::dispatch;

/// Appends every value above `threshold` with its index, which counts from `first`, in order; a NaN is above nothing. On the calling thread.
/// Floor: the values' bytes, read once, while few are above.
///
/// ```
/// let mut found = Vec::new();
/// subspan_linalg::values_above(&[0.5, 2.0, f32::NAN, 3.0], 1.0, 10, &mut found);
/// assert_eq!(found, [(2.0, 11), (3.0, 13)]);
/// ```
pub fn values_above(values: &[f32], threshold: f32, first: u32, out: &mut Vec<(f32, u32)>) {
    dispatch(ValuesAbove { values, threshold, first, out });
}

/// Vectors looked at together.
const GROUP: usize = 4;

struct ValuesAbove<'a> {
    values: &'a [f32],
    threshold: f32,
    first: u32,
    out: &'a mut Vec<(f32, u32)>,
}

impl WithSimd for ValuesAbove<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { values, threshold, first, out } = self;
        let (vectors, rest) = S::as_simd_f32s(values);
        let level = simd.splat_f32s(threshold);
        let mut start = 0;
        for group in vectors.chunks(GROUP) {
            let largest = group.iter().fold(level, |m, v| simd.max_f32s(m, raised(simd, *v, level)));
            // Most groups have nothing: one comparison settles them.
            if simd.reduce_max_f32s(largest) > threshold {
                for (v, vector) in group.iter().enumerate() {
                    if simd.reduce_max_f32s(raised(simd, *vector, level)) > threshold {
                        let at = start + v * S::F32_LANES;
                        push(&values[at..at + S::F32_LANES], threshold, first + at as u32, out);
                    }
                }
            }
            start += group.len() * S::F32_LANES;
        }
        push(rest, threshold, first + (values.len() - rest.len()) as u32, out);
    }
}

/// What is not above `level` counts as the level, a NaN too, which a maximum might keep or drop.
#[inline(always)]
fn raised<S: Simd>(simd: S, values: S::f32s, level: S::f32s) -> S::f32s {
    simd.select_f32s(simd.greater_than_f32s(values, level), values, level)
}

#[inline(always)]
fn push(values: &[f32], threshold: f32, first: u32, out: &mut Vec<(f32, u32)>) {
    for (j, v) in values.iter().enumerate() {
        if *v > threshold {
            out.push((*v, first + j as u32));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::test::{for_each_width, noise};

    #[test]
    fn every_width_finds_what_one_comparison_after_the_other_finds() {
        for len in [0, 1, 15, 16, 17, 64, 509] {
            let mut values: Vec<f32> = noise(len, 7).into_iter().map(|v| v as f32).collect();
            for (i, special) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.25].into_iter().enumerate() {
                if let Some(v) = values.get_mut(3 * i + 2) {
                    *v = special;
                }
            }
            for threshold in [f32::NEG_INFINITY, 0.25, 0.9, f32::INFINITY] {
                let expected: Vec<(f32, u32)> =
                    (7u32..).zip(&values).filter(|(_, v)| **v > threshold).map(|(j, v)| (*v, j)).collect();
                for_each_width(|width, run| {
                    let mut found = Vec::new();
                    run.run(ValuesAbove { values: &values, threshold, first: 7, out: &mut found });
                    assert_eq!(found, expected, "{width}, {len} values, {threshold}");
                });
            }
        }
    }
}
