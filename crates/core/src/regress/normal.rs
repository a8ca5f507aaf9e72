//! The small symmetric system at the heart of every step: `G x = y` with `G = Aᵀ W A`, possibly singular.

use subspan_linalg::{Mat, PsdFactor, psd_factor};

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
