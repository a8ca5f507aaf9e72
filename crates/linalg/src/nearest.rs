//! The nearest of several centres, from inner products.

use pulp::{Simd, WithSimd};

use crate::simd::dispatch;

/// Values looked at side by side: two vectors of the widest kind.
const LANES: usize = 32;

/// For every row of `products`, inner products of a point with all centres, the first centre `c` with the least
/// `squares[c] − 2 products[c]`, which is the squared distance less the point's own square, and that value. A NaN is nearest to nothing; without any
/// finite value the centre is 0 and the value infinite. On the calling thread, with the same bits for any vector width. Floor: three operations
/// per product.
///
/// # Panics
/// If there are no centres, or not whole rows of products, one label and one value for each.
///
/// ```
/// let (mut labels, mut least) = ([0; 2], [0.0; 2]);
/// // Centres 1 and 3 on a line, points 0.5 and 4.
/// subspan_linalg::nearest_centers(&[0.5, 1.5, 4.0, 12.0], &[1.0, 9.0], &mut labels, &mut least);
/// assert_eq!((labels, least), ([0, 1], [0.0, -15.0]));
/// ```
pub fn nearest_centers(products: &[f32], squares: &[f32], labels: &mut [u32], least: &mut [f32]) {
    let k = squares.len();
    assert!(k > 0 && products.len() == labels.len() * k && labels.len() == least.len(), "whole rows of {k} products");
    dispatch(NearestCenters { products, squares, labels, least });
}

struct NearestCenters<'a> {
    products: &'a [f32],
    squares: &'a [f32],
    labels: &'a mut [u32],
    least: &'a mut [f32],
}

impl WithSimd for NearestCenters<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.products.chunks_exact(self.squares.len());
        for ((row, label), least) in rows.zip(self.labels).zip(self.least) {
            *least = minimum(row, self.squares);
            *label = if *least < f32::INFINITY { first(row, self.squares, *least) as u32 } else { 0 };
        }
    }
}

#[inline(always)]
fn minimum(products: &[f32], squares: &[f32]) -> f32 {
    let (products, p_rest) = products.as_chunks::<LANES>();
    let (squares, s_rest) = squares.as_chunks::<LANES>();
    let mut lanes = [f32::INFINITY; LANES];
    for (p, s) in products.iter().zip(squares) {
        for lane in 0..LANES {
            let v = s[lane] - 2.0 * p[lane];
            lanes[lane] = if v < lanes[lane] { v } else { lanes[lane] };
        }
    }
    let rest = p_rest.iter().zip(s_rest).map(|(p, s)| s - 2.0 * p);
    lanes.into_iter().chain(rest).fold(f32::INFINITY, |m, v| if v < m { v } else { m })
}

/// The first place of the least value.
#[inline(always)]
fn first(products: &[f32], squares: &[f32], least: f32) -> usize {
    for (block, (p, s)) in products.chunks(LANES).zip(squares.chunks(LANES)).enumerate() {
        let hits = p.iter().zip(s).map(|(p, s)| u32::from(s - 2.0 * p == least)).sum::<u32>();
        if hits > 0 {
            let at = p.iter().zip(s).position(|(p, s)| s - 2.0 * p == least);
            return block * LANES + at.unwrap_or_default();
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::test::{for_each_width, noise};

    #[test]
    fn every_width_finds_the_first_of_the_least() {
        for k in [1, 2, 31, 32, 33, 150] {
            let n = 20;
            let mut products: Vec<f32> = noise(n * k, 3).into_iter().map(|v| v as f32).collect();
            let squares: Vec<f32> = noise(k, 4).into_iter().map(|v| v.abs() as f32).collect();
            // Ties, NaN and infinities.
            let special = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY];
            products[..k].fill(0.0);
            (0..k).for_each(|c| products[k + c] = special[c % 3]);
            products[2 * k..3 * k].fill(f32::NAN);
            products[3 * k..4 * k].fill(f32::NEG_INFINITY);
            (0..k).for_each(|c| products[4 * k + c] = 0.5 * squares[c]);
            for_each_width(|width, run| {
                let (mut labels, mut least) = (vec![9; n], vec![0.0; n]);
                run.run(NearestCenters {
                    products: &products,
                    squares: &squares,
                    labels: &mut labels,
                    least: &mut least,
                });
                for (i, row) in products.chunks_exact(k).enumerate() {
                    let mut expected = (0, f32::INFINITY);
                    for (c, (p, s)) in row.iter().zip(&squares).enumerate() {
                        if s - 2.0 * p < expected.1 {
                            expected = (c as u32, s - 2.0 * p);
                        }
                    }
                    assert_eq!((labels[i], least[i]), expected, "{width}, {k} centres, row {i}");
                }
            });
        }
    }
}
