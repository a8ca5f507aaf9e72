//! Passes over matrices that add up single-precision products in double precision.
//!
//! The loops are compiled for every vector width and the widest one of the machine runs; each element is its own sum, in the order
//! of the parts, so the bits do not depend on it. Floor: one read of every part and one write.

use pulp::{Simd, WithSimd};

use crate::real::Real;
use crate::simd::dispatch;

/// Elements summed side by side: they stay in registers from the first part to the last.
const LANES: usize = 32;

/// `sums += values`, element by element.
///
/// # Panics
/// If lengths differ.
pub fn add(sums: &mut [f64], values: &[f32]) {
    assert_eq!(sums.len(), values.len(), "a value per sum");
    dispatch(Add { sums, values });
}

struct Add<'a> {
    sums: &'a mut [f64],
    values: &'a [f32],
}

impl WithSimd for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (sum, value) in self.sums.iter_mut().zip(self.values) {
            *sum += f64::from(*value);
        }
    }
}

/// `out = −Σ parts`, element by element: sums in double precision, rounded once.
///
/// # Panics
/// If lengths differ.
///
/// ```
/// let mut out = [0f32; 2];
/// subspan_linalg::mixed::negated_sum(&[&[1.0, 2.0], &[0.5, -2.5]], &mut out);
/// assert_eq!(out, [-1.5, 0.5]);
/// ```
pub fn negated_sum(parts: &[&[f64]], out: &mut [f32]) {
    assert!(parts.iter().all(|part| part.len() == out.len()), "parts of {} elements", out.len());
    dispatch(NegatedSum { parts, out });
}

// A struct, not a closure: a closure's body is not inlined where the vector width is known.
struct NegatedSum<'a> {
    parts: &'a [&'a [f64]],
    out: &'a mut [f32],
}

impl WithSimd for NegatedSum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (blocks, rest) = self.out.as_chunks_mut::<LANES>();
        let tail = blocks.len() * LANES;
        for (k, block) in blocks.iter_mut().enumerate() {
            let mut sums = [0f64; LANES];
            for part in self.parts {
                let part = &part[k * LANES..][..LANES];
                for (sum, value) in sums.iter_mut().zip(part) {
                    *sum += *value;
                }
            }
            for (out, sum) in block.iter_mut().zip(&sums) {
                *out = -*sum as f32;
            }
        }
        for (k, out) in rest.iter_mut().enumerate() {
            *out = -self.parts.iter().map(|part| part[tail + k]).fold(0.0, |sum, value| sum + value) as f32;
        }
    }
}

/// Partial sums side by side: their number is fixed, so the order of additions is too.
const PARTIAL: usize = 8;

/// `Σ xy`, `Σ x²`, `Σ y²` and `Σ (x − y)²` over two long vectors, piece by piece, in double precision.
#[derive(Debug, Clone, Default)]
pub struct PairSums {
    lanes: [[f64; PARTIAL]; 4],
}

impl PairSums {
    /// Adds the next piece of both vectors. The result does not depend on the pieces if all but the last are of multiples of eight.
    ///
    /// # Panics
    /// If lengths differ.
    pub fn add<T: Real>(&mut self, x: &[T], y: &[T]) {
        assert_eq!(x.len(), y.len(), "pieces of the same place");
        dispatch(AddPairs { sums: &mut self.lanes, x, y });
    }

    /// The four sums.
    pub fn totals(&self) -> [f64; 4] {
        self.lanes.map(|lanes| lanes.iter().sum())
    }
}

struct AddPairs<'a, T> {
    sums: &'a mut [[f64; PARTIAL]; 4],
    x: &'a [T],
    y: &'a [T],
}

impl<T: Real> WithSimd for AddPairs<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let mut sums = *self.sums;
        let (xs, x_rest) = self.x.as_chunks::<PARTIAL>();
        let (ys, y_rest) = self.y.as_chunks::<PARTIAL>();
        for (x, y) in xs.iter().zip(ys) {
            for lane in 0..PARTIAL {
                add_pair(&mut sums, lane, x[lane].to_f64(), y[lane].to_f64());
            }
        }
        for (lane, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
            add_pair(&mut sums, lane, x.to_f64(), y.to_f64());
        }
        *self.sums = sums;
    }
}

#[inline(always)]
fn add_pair(sums: &mut [[f64; PARTIAL]; 4], lane: usize, x: f64, y: f64) {
    sums[0][lane] += x * y;
    sums[1][lane] += x * x;
    sums[2][lane] += y * y;
    sums[3][lane] += (x - y) * (x - y);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::test::{for_each_width, noise};

    #[test]
    fn sums_are_those_of_the_definition_in_every_width() {
        for n in [0, 1, 31, 32, 100] {
            let (a, b) = (noise(n, 1), noise(n, 2));
            let single: Vec<f32> = b.iter().map(|v| *v as f32).collect();
            for_each_width(|name, width| {
                let mut sums = a.clone();
                width.run(Add { sums: &mut sums, values: &single });
                let expected: Vec<f64> = a.iter().zip(&single).map(|(a, b)| a + f64::from(*b)).collect();
                assert_eq!(sums, expected, "{name}");
                let mut out = vec![7f32; n];
                width.run(NegatedSum { parts: &[&a, &b], out: &mut out });
                let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| -(a + b) as f32).collect();
                assert_eq!(out, expected, "{name}");
                width.run(NegatedSum { parts: &[], out: &mut out });
                assert!(out.iter().all(|v| *v == 0.0));
            });
        }
    }

    #[test]
    fn sums_of_pairs_do_not_depend_on_pieces_nor_width() {
        let (x, y) = (noise(100, 1), noise(100, 2));
        let mut whole = PairSums::default();
        whole.add(&x, &y);
        let mut pieces = PairSums::default();
        [0..16, 16..64, 64..100].into_iter().for_each(|r| pieces.add(&x[r.clone()], &y[r]));
        assert_eq!(whole.totals(), pieces.totals());
        for_each_width(|name, width| {
            let mut sums = [[0.0; PARTIAL]; 4];
            width.run(AddPairs { sums: &mut sums, x: &x, y: &y });
            assert_eq!(sums, whole.lanes, "{name}");
        });
        let single: Vec<f32> = x.iter().map(|v| *v as f32).collect();
        let wide: Vec<f64> = single.iter().map(|v| f64::from(*v)).collect();
        let mut same = PairSums::default();
        same.add(&single, &single);
        let [product, left, right, distance] = same.totals();
        let exact: f64 = wide.iter().map(|v| v * v).sum();
        assert!((product - exact).abs() < 1e-12 && left == product && right == product && distance == 0.0);
    }
}
