//! Weighted sums of numbers stored as bfloat16, the upper half of single precision.
//!
//! The loop is compiled for every vector width and the widest one of the machine runs; each element is its own sum, in the order of
//! the parts, so the bits do not depend on it. Floor: one read of every part and one write.

use pulp::{Simd, WithSimd};

use crate::simd::dispatch;

/// Elements summed side by side: they stay in registers from the first part to the last.
const LANES: usize = 64;
const BYTES: usize = 2 * LANES;

/// `out = Σ w x` element by element, in single precision, rounded once to the nearest (ties to even, NaN stays NaN). Parts and
/// `out` are little-endian bfloat16 in no particular alignment. The sum of no parts is zero.
///
/// # Panics
/// If lengths differ or are odd.
///
/// ```
/// // 1 and 3, a quarter of the first and three quarters of the second: 2.5.
/// let mut out = [0; 2];
/// subspan_linalg::bf16::weighted_sum(&[(&[0x80, 0x3f], 0.25), (&[0x40, 0x40], 0.75)], &mut out);
/// assert_eq!(out, [0x20, 0x40]);
/// ```
pub fn weighted_sum(parts: &[(&[u8], f32)], out: &mut [u8]) {
    let alike = parts.iter().all(|(part, _)| part.len() == out.len());
    assert!(alike && out.len().is_multiple_of(2), "parts of {} bytes", out.len());
    if parts.is_empty() {
        return out.fill(0);
    }
    dispatch(WeightedSum { parts, out });
}

/// The nearest bfloat16, without a branch, so that loops over it become vector code.
#[inline(always)]
pub fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    // A NaN keeps its upper bits and stays quiet instead of being rounded to an infinity.
    let nan = bits | 0x0040_0000;
    ((if value.is_nan() { nan } else { rounded }) >> 16) as u16
}

// A struct, not a closure: a closure's body is not inlined where the vector width is known.
struct WeightedSum<'a> {
    parts: &'a [(&'a [u8], f32)],
    out: &'a mut [u8],
}

impl WithSimd for WeightedSum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { parts, out } = self;
        let (blocks, rest) = out.as_chunks_mut::<BYTES>();
        let tail = blocks.len() * BYTES;
        for (k, block) in blocks.iter_mut().enumerate() {
            // Minus zero is the sum of nothing that keeps the sign of whatever is added.
            let mut sums = [-0.0f32; LANES];
            for (part, weight) in parts {
                add(&part[k * BYTES..(k + 1) * BYTES], *weight, &mut sums);
            }
            store(&sums, block);
        }
        let mut sums = [-0.0f32; LANES];
        let sums = &mut sums[..rest.len() / 2];
        for (part, weight) in parts {
            add(&part[tail..], *weight, sums);
        }
        store(sums, rest);
    }
}

#[inline(always)]
fn add(part: &[u8], weight: f32, sums: &mut [f32]) {
    for (sum, bytes) in sums.iter_mut().zip(part.as_chunks().0) {
        *sum += weight * f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

#[inline(always)]
fn store(sums: &[f32], out: &mut [u8]) {
    for (bytes, sum) in out.as_chunks_mut().0.iter_mut().zip(sums) {
        *bytes = round(*sum).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    proptest! {
        #[test]
        fn every_element_is_the_rounded_sum(
            parts in (0usize..200).prop_flat_map(|n| proptest::collection::vec((proptest::collection::vec(any::<u16>(), n), -2.0f32..2.0), 1..4)),
        ) {
            let bytes: Vec<(Vec<u8>, f32)> = parts.iter().map(|(p, w)| (p.iter().flat_map(|b| b.to_le_bytes()).collect(), *w)).collect();
            let views: Vec<(&[u8], f32)> = bytes.iter().map(|(b, w)| (b.as_slice(), *w)).collect();
            let mut out = vec![0xff; views[0].0.len()];
            weighted_sum(&views, &mut out);
            for (i, found) in out.as_chunks().0.iter().enumerate() {
                let sum = parts.iter().fold(-0.0f32, |sum, (p, w)| sum + w * value(p[i]));
                let found = value(u16::from_le_bytes(*found));
                if sum.is_nan() {
                    prop_assert!(found.is_nan());
                } else if sum.is_infinite() {
                    prop_assert_eq!(found, sum);
                } else {
                    // The two representable numbers around the sum; the nearer one, the even one of equals.
                    let below = sum.to_bits() >> 16;
                    let (low, high) = (f64::from(value(below as u16)), f64::from(value(below as u16 + 1)));
                    let far = if high.is_finite() { high } else { low.signum() * 2f64.powi(128) };
                    let (down, up) = ((f64::from(sum) - low).abs(), (far - f64::from(sum)).abs());
                    let expected = if down < up || down == up && below % 2 == 0 { low } else { high };
                    prop_assert_eq!(f64::from(found).to_bits(), expected.to_bits());
                }
            }
        }
    }

    #[test]
    fn one_part_of_weight_one_keeps_its_bits() {
        let all: Vec<u8> = (0..=u16::MAX).filter(|b| !value(*b).is_nan()).flat_map(u16::to_le_bytes).collect();
        let mut out = vec![0; all.len()];
        weighted_sum(&[(&all, 1.0)], &mut out);
        assert_eq!(out, all);
    }
}
