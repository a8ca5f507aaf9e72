//! The small symmetric system at the heart of every step: `G x = y` with `G = Aᵀ W A`, possibly singular.

use subspan_linalg::{Cholesky, Eigh, Mat, cholesky, eigh};

use crate::error::{Error, Result};

/// A factorized positive semidefinite system.
///
/// `G` is scaled to unit diagonal. If its Cholesky pivots stay above [`SMALLEST_PIVOT`] they are used with one step of
/// refinement; otherwise the eigendecomposition gives the least-norm solution in the scaled coordinates.
pub(super) struct Normal {
    unit: Mat,
    scale: Vec<f64>,
    factor: Factor,
}

enum Factor {
    /// No unknowns.
    None,
    Cholesky(Cholesky),
    Eigen(Eigh),
}

/// A pivot of the unit-diagonal matrix below this is rounding: the columns depend on each other. A few hundred units in the
/// last place, as the entries are sums of many products.
const SMALLEST_PIVOT: f64 = 1e-13;

/// Eigenvalues below this share of the largest one count as zero.
const SMALLEST_EIGENVALUE: f64 = 1e-14;

impl Normal {
    /// Factorizes the leading `k x k` part of `gram` (row-major with `stride` columns; the upper triangle is read).
    ///
    /// # Errors
    /// [`Error::Linalg`] when an entry is not finite. Cost: `k³/3` flop, `≈ 10 k³` when singular.
    pub(super) fn new(gram: &[f64], stride: usize, k: usize) -> Result<Self> {
        let entry = |i: usize, j: usize| gram[i.min(j) * stride + i.max(j)];
        let scale: Vec<f64> =
            (0..k).map(|j| if entry(j, j) > 0.0 { entry(j, j).sqrt().recip() } else { 0.0 }).collect();
        let unit = Mat::from_fn(k, k, |i, j| entry(i, j) * scale[i] * scale[j]);
        if k > 0
            && scale.iter().all(|s| *s > 0.0)
            && let Ok(c) = cholesky(&unit)
        {
            let l = c.l();
            if (0..k).all(|i| l[(i, i)] * l[(i, i)] > SMALLEST_PIVOT) {
                return Ok(Self { unit, scale, factor: Factor::Cholesky(c) });
            }
        }
        if k == 0 {
            return Ok(Self { unit, scale, factor: Factor::None });
        }
        let eigen = eigh(&unit).map_err(Error::from)?;
        Ok(Self { unit, scale, factor: Factor::Eigen(eigen) })
    }

    /// The solution of `G x = y` (of least scaled norm, for the part of `y` in the range of `G`).
    pub(super) fn solve(&self, y: &[f64]) -> Vec<f64> {
        let y: Vec<f64> = y.iter().zip(&self.scale).map(|(y, s)| y * s).collect();
        let mut x = self.solve_unit(&y);
        let left: Vec<f64> = self.unit.mul_vec(&x).iter().zip(&y).map(|(gx, y)| y - gx).collect();
        x.iter_mut().zip(self.solve_unit(&left)).for_each(|(x, dx)| *x += dx);
        x.iter().zip(&self.scale).map(|(x, s)| x * s).collect()
    }

    /// Whether the system was taken for singular.
    pub(super) fn singular(&self) -> bool {
        matches!(self.factor, Factor::Eigen(_))
    }

    fn solve_unit(&self, y: &[f64]) -> Vec<f64> {
        match &self.factor {
            Factor::None => Vec::new(),
            Factor::Cholesky(c) => c.solve(y),
            Factor::Eigen(e) => {
                let cut = e.values.last().map_or(0.0, |largest| largest * SMALLEST_EIGENVALUE);
                let mut x = vec![0.0; y.len()];
                for (k, value) in e.values.iter().enumerate().filter(|(_, v)| **v > cut) {
                    let along = (0..y.len()).map(|i| e.vectors[(i, k)] * y[i]).sum::<f64>() / value;
                    x.iter_mut().enumerate().for_each(|(i, x)| *x += along * e.vectors[(i, k)]);
                }
                x
            }
        }
    }
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
