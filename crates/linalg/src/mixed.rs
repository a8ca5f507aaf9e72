//! Passes over matrices that add up single-precision products in double precision.
//!
//! The loops are compiled for every vector width and the widest one of the machine runs; each element is its own sum, so the bits do
//! not depend on it. Floor: one read of every input and one write.

use pulp::{Simd, WithSimd};

use crate::real::Real;
use crate::simd::dispatch;

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

/// `out = −values`, each rounded once to single precision.
///
/// # Panics
/// If lengths differ.
///
/// ```
/// let mut out = [0f32; 2];
/// subspan_linalg::mixed::negated(&[1.5, -0.5], &mut out);
/// assert_eq!(out, [-1.5, 0.5]);
/// ```
pub fn negated(values: &[f64], out: &mut [f32]) {
    assert_eq!(values.len(), out.len(), "a value for each");
    dispatch(Negated { values, out });
}

// A struct, not a closure: a closure's body is not inlined where the vector width is known.
struct Negated<'a> {
    values: &'a [f64],
    out: &'a mut [f32],
}

impl WithSimd for Negated<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (out, value) in self.out.iter_mut().zip(self.values) {
            *out = -*value as f32;
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
                width.run(Negated { values: &a, out: &mut out });
                let expected: Vec<f32> = a.iter().map(|a| -*a as f32).collect();
                assert_eq!(out, expected, "{name}");
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
