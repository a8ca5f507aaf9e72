//! The small symmetric system at the heart of every step: `G x = y` with `G = Aᵀ W A`, possibly singular.

use subspan_linalg::{Cholesky, LinalgError, Mat, PsdFactor, cholesky, gram, psd_factor};

use super::table::{MemoryTable, Tile};
use crate::error::Result;

/// A factorized positive semidefinite system, with the matrix for one step of refinement.
pub(super) struct Normal {
    gram: Mat,
    factor: PsdFactor,
}

impl Normal {
    /// Factorizes the leading `k x k` part of `gram` (row-major with `stride` columns; the upper triangle is read).
    ///
    /// # Errors
    /// [`crate::Error::Linalg`] when an entry is not finite. Cost: `k³/3` flop, `≈ 10 k³` when singular.
    pub(super) fn new(gram: &[f64], stride: usize, k: usize) -> Result<Self> {
        let gram = Mat::from_fn(k, k, |i, j| gram[i.min(j) * stride + i.max(j)]);
        let factor = psd_factor(&gram)?;
        Ok(Self { gram, factor })
    }

    /// The solution of `G x = y` (of least scaled norm, for the part of `y` in the range of `G`).
    pub(super) fn solve(&self, y: &[f64]) -> Vec<f64> {
        let mut x = self.factor.solve(y);
        let left: Vec<f64> = self.gram.mul_vec(&x).iter().zip(y).map(|(gx, y)| y - gx).collect();
        x.iter_mut().zip(self.factor.solve(&left)).for_each(|(x, dx)| *x += dx);
        x
    }

    /// Whether the system was taken for singular.
    pub(super) fn singular(&self) -> bool {
        self.factor.rank < self.gram.n_rows()
    }
}

/// The same system for the interior point method, where it must never lose a direction: `Aᵀ dz` has to balance to rounding,
/// however far the weights spread.
///
/// The matrix is scaled to unit diagonal and factorized as it is; only when rounding leaves a pivot that is not positive is
/// its diagonal raised, by the least power of ten times the unit roundoff that helps. Refinement takes the shift out again.
pub(super) struct Damped {
    unit: Mat,
    scale: Vec<f64>,
    factor: Cholesky,
}

/// Steps of refinement at most; each is kept only if it halves the residual.
const REFINEMENTS: usize = 4;

impl Damped {
    /// Factorizes the leading `k x k` part of `gram` (row-major with `stride` columns; the upper triangle is read).
    ///
    /// # Errors
    /// [`crate::Error::Linalg`] when an entry is not finite. Cost: `k³/3` flop.
    pub(super) fn new(gram: &[f64], stride: usize, k: usize) -> Result<Self> {
        let entry = |i: usize, j: usize| gram[i.min(j) * stride + i.max(j)];
        let scale: Vec<f64> =
            (0..k).map(|j| if entry(j, j) > 0.0 { entry(j, j).sqrt().recip() } else { 0.0 }).collect();
        let unit = Mat::from_fn(k, k, |i, j| match (i == j, scale[i] > 0.0) {
            (true, false) => 1.0,
            _ => entry(i, j) * scale[i] * scale[j],
        });
        let mut shift = 0.0;
        loop {
            let shifted = Mat::from_fn(k, k, |i, j| unit[(i, j)] + if i == j { shift } else { 0.0 });
            match cholesky(&shifted) {
                Ok(factor) => return Ok(Self { unit, scale, factor }),
                Err(LinalgError::NotPositiveDefinite { .. }) if shift < 1.0 => {
                    shift = if shift == 0.0 { f64::EPSILON } else { 10.0 * shift };
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The solution of `G x = y`.
    pub(super) fn solve(&self, y: &[f64]) -> Vec<f64> {
        let y: Vec<f64> = y.iter().zip(&self.scale).map(|(y, s)| y * s).collect();
        let mut x = self.factor.solve(&y);
        let residual = |x: &[f64]| -> Vec<f64> { self.unit.mul_vec(x).iter().zip(&y).map(|(gx, y)| y - gx).collect() };
        let size = |v: &[f64]| v.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let mut left = residual(&x);
        for _ in 0..REFINEMENTS {
            let refined: Vec<f64> = x.iter().zip(self.factor.solve(&left)).map(|(x, dx)| x + dx).collect();
            let rest = residual(&refined);
            let better = size(&rest) < 0.5 * size(&left);
            if !better {
                break;
            }
            (x, left) = (refined, rest);
        }
        x.iter().zip(&self.scale).map(|(x, s)| x * s).collect()
    }
}

/// The weighted least-squares fit of a table: one pass, `n (d+1)²` flop.
///
/// # Errors
/// What the table reports; [`crate::Error::Linalg`].
pub(super) fn least_squares(table: &MemoryTable<'_>) -> Result<Vec<f64>> {
    let k = table.n_cols - 1;
    let g = table.fold(
        || vec![0.0; (k + 1) * (k + 1)],
        |g, Tile { rows, weights, .. }| gram::add_weighted_gram(rows, k + 1, weights, g),
        |total, part| total.iter_mut().zip(part).for_each(|(t, p)| *t += p),
    )?;
    let right: Vec<f64> = (0..k).map(|j| g[j * (k + 1) + k]).collect();
    Ok(Normal::new(&g, k + 1, k)?.solve(&right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_system_is_solved_in_any_scale() {
        // G = S [[4, 2], [2, 3]] S with S = diag(1e-80, 1e80), embedded with stride 3.
        let (a, b) = (1e-80f64, 1e80f64);
        let gram = [4.0 * a * a, 2.0 * a * b, 9.0, 0.0, 3.0 * b * b, 9.0, 0.0, 0.0, 9.0];
        let normal = Normal::new(&gram, 3, 2).unwrap();
        let x = normal.solve(&[8.0 * a, 8.0 * b]);
        assert!((x[0] * a - 1.0).abs() < 1e-14 && (x[1] * b - 2.0).abs() < 1e-14 && !normal.singular());
    }

    #[test]
    fn a_singular_system_is_solved_in_its_range() {
        let normal = Normal::new(&[1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], 3, 3).unwrap();
        assert!(normal.singular());
        let x = normal.solve(&[4.0, 4.0, 0.0]);
        assert!((x[0] - 2.0).abs() < 1e-14 && (x[1] - 2.0).abs() < 1e-14 && x[2] == 0.0);
    }
}
