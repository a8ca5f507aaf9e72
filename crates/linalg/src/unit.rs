//! Rows brought to length one.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::lengths::squares;
use crate::simd::dispatch;

/// Rows per task.
const TASK_ROWS: usize = 64;

/// Subtracts `center`, if any, from every row and divides the row by its length, which is added up in `f64` (so squares neither
/// overflow nor vanish); rows of length below `tiny` become zero. Returns how many did. In parallel, with the same bits for any
/// number of threads. Floor: its bytes, read and written once.
///
/// # Panics
/// If `values` does not hold whole rows or `center` is not a row.
///
/// ```
/// let mut rows = [3.0, 4.0, 0.0, 0.0];
/// assert_eq!(subspan_linalg::par_unit_rows(&mut rows, 2, None, 1e-12), 1);
/// assert_eq!(rows, [0.6, 0.8, 0.0, 0.0]);
/// ```
pub fn par_unit_rows(values: &mut [f32], n_cols: usize, center: Option<&[f32]>, tiny: f64) -> usize {
    assert!(n_cols > 0 && values.len().is_multiple_of(n_cols), "whole rows");
    values.par_chunks_mut(TASK_ROWS * n_cols).map(|rows| unit_rows(rows, n_cols, center, tiny)).sum()
}

/// [`par_unit_rows`] on the calling thread: for callers that are tasks themselves.
///
/// # Panics
/// As [`par_unit_rows`].
pub fn unit_rows(rows: &mut [f32], n_cols: usize, center: Option<&[f32]>, tiny: f64) -> usize {
    assert!(n_cols > 0 && rows.len().is_multiple_of(n_cols), "whole rows");
    assert!(center.is_none_or(|c| c.len() == n_cols), "a centre of one row");
    dispatch(UnitRows { rows, n_cols, center, tiny })
}

struct UnitRows<'a> {
    rows: &'a mut [f32],
    n_cols: usize,
    center: Option<&'a [f32]>,
    tiny: f64,
}

impl WithSimd for UnitRows<'_> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        let mut zeros = 0;
        for row in self.rows.chunks_exact_mut(self.n_cols) {
            if let Some(center) = self.center {
                row.iter_mut().zip(center).for_each(|(v, c)| *v -= c);
            }
            let norm = squares(row).sqrt();
            if norm < self.tiny {
                row.fill(0.0);
                zeros += 1;
            } else {
                // Half the time of divisions; the product's rounding in double precision hardly ever shows.
                let inverse = 1.0 / norm;
                row.iter_mut().for_each(|v| *v = (f64::from(*v) * inverse) as f32);
            }
        }
        zeros
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::test::{for_each_width, noise};

    #[test]
    fn every_width_gives_the_definition_and_the_same_bits() {
        for d in [1, 7, 32, 33, 100] {
            for scale in [1.0, 1e-30, 1e30] {
                let values: Vec<f32> = noise(9 * d, 3).iter().map(|v| (v * scale) as f32).collect();
                let center: Vec<f32> = noise(d, 4).iter().map(|v| (v * scale) as f32).collect();
                let mut first = None;
                for_each_width(|name, width| {
                    let mut rows = values.clone();
                    rows[..d].copy_from_slice(&center);
                    let zeros = width.run(UnitRows { rows: &mut rows, n_cols: d, center: Some(&center), tiny: 1e-33 });
                    assert_eq!(zeros, 1);
                    for row in rows.chunks(d).skip(1) {
                        let norm: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
                        assert!((norm - 1.0).abs() < 1e-6, "{name}: {norm}");
                    }
                    assert!(first.get_or_insert_with(|| rows.clone()) == &rows, "{name}, d = {d}");
                });
            }
        }
    }
}
