//! A linear subspace, as an orthonormal basis.

use subspan_linalg::{Mat, thin_svd};

use crate::error::{Error, Result};

/// A subspace of `R^ambient`, held as an orthonormal basis: orthonormal by construction, never taken on trust.
///
/// ```
/// use subspan::{Mat, Subspace};
/// let plane = Subspace::span(&Mat::from_rows(&[[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])).unwrap();
/// assert_eq!((plane.ambient(), plane.dim()), (3, 2));
/// assert!((plane.residual_norm(&[5.0, 5.0, 2.0]) - 2.0).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Subspace {
    basis: Mat,
}

impl Subspace {
    /// The column span of `vectors` (`ambient x any`); directions below `1e-12` of the largest singular value are dropped.
    ///
    /// # Errors
    /// [`Error::Linalg`] for non-finite entries.
    pub fn span(vectors: &Mat) -> Result<Self> {
        let svd = thin_svd(vectors)?;
        // Relative rank cut: far above rounding (2⁻⁵² · size), far below any direction a user means.
        let cut = 1e-12 * svd.s.first().copied().unwrap_or(0.0);
        let dim = svd.s.iter().take_while(|s| **s > cut).count();
        Ok(Self { basis: Mat::from_fn(vectors.n_rows(), dim, |i, j| svd.u[(i, j)]) })
    }

    /// Dimension of the surrounding space.
    pub fn ambient(&self) -> usize {
        self.basis.n_rows()
    }

    /// Dimension of the subspace.
    pub fn dim(&self) -> usize {
        self.basis.n_cols()
    }

    /// The basis, `ambient x dim`, orthonormal columns.
    pub fn basis(&self) -> &Mat {
        &self.basis
    }

    /// Coordinates of the projection of `x` in the basis; length `dim`.
    ///
    /// # Panics
    /// If `x` does not have length `ambient`.
    pub fn coordinates(&self, x: &[f64]) -> Vec<f64> {
        assert_eq!(x.len(), self.ambient(), "a vector of the ambient space");
        let mut c = vec![0.0; self.dim()];
        subspan_linalg::apply::add_tr_mul_vec(self.basis.as_slice(), x, &mut c);
        c
    }

    /// The orthogonal projection of `x`; length `ambient`.
    pub fn project(&self, x: &[f64]) -> Vec<f64> {
        self.basis.mul_vec(&self.coordinates(x))
    }

    /// The distance of `x` from the subspace.
    pub fn residual_norm(&self, x: &[f64]) -> f64 {
        x.iter().zip(self.project(x)).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    }

    /// Principal angles in radians, ascending; as many as the smaller dimension.
    ///
    /// Small angles come from sines and large ones from cosines, so both ends are accurate to rounding (Björck and Golub,
    /// "Numerical methods for computing angles between linear subspaces", 1973).
    ///
    /// # Errors
    /// [`Error::Shape`] when the ambient dimensions differ.
    pub fn principal_angles(&self, other: &Self) -> Result<Vec<f64>> {
        if self.ambient() != other.ambient() {
            return Err(Error::Shape { what: "the other subspace", found: other.ambient(), expected: self.ambient() });
        }
        let (large, small) = if self.dim() >= other.dim() { (self, other) } else { (other, self) };
        if small.dim() == 0 {
            return Ok(Vec::new());
        }
        let cross = large.basis.transpose().mul(&small.basis);
        let cosines = thin_svd(&cross)?.s;
        let projected = large.basis.mul(&cross);
        let outside = Mat::from_fn(small.ambient(), small.dim(), |i, j| small.basis[(i, j)] - projected[(i, j)]);
        let mut sines = thin_svd(&outside)?.s;
        sines.resize(small.dim(), 0.0);
        sines.reverse();
        Ok(cosines.iter().zip(&sines).map(|(c, s)| s.clamp(0.0, 1.0).atan2(c.clamp(0.0, 1.0))).collect())
    }

    /// The geodesic distance: the 2-norm of the principal angles, in radians.
    ///
    /// # Errors
    /// [`Error::Shape`] when the ambient dimensions differ.
    pub fn distance(&self, other: &Self) -> Result<f64> {
        Ok(self.principal_angles(other)?.iter().map(|a| a * a).sum::<f64>().sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    fn random(ambient: usize, dim: usize, seed: u64) -> Subspace {
        let mut rng = Stream::new(seed, "subspace").rng(0);
        Subspace::span(&Mat::from_fn(ambient, dim, |_, _| rng.normal())).unwrap()
    }

    #[test]
    fn the_basis_is_orthonormal_and_projection_is_idempotent() {
        let s = random(9, 4, 1);
        let g = s.basis().transpose().mul(s.basis());
        for i in 0..4 {
            for j in 0..4 {
                assert!((g[(i, j)] - f64::from(i == j)).abs() < 1e-14);
            }
        }
        let x: Vec<f64> = (0..9).map(f64::from).collect();
        let once = s.project(&x);
        assert!(s.residual_norm(&once) < 1e-13);
    }

    #[test]
    fn planted_angles_are_found_from_tiny_to_right() {
        for angle in [1e-9f64, 1e-3, 0.7, std::f64::consts::FRAC_PI_2 - 1e-9] {
            let a = Subspace::span(&Mat::from_rows(&[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])).unwrap();
            let b = Subspace::span(&Mat::from_rows(&[[angle.cos(), 0.0], [0.0, 1.0], [angle.sin(), 0.0], [0.0, 0.0]]))
                .unwrap();
            let found = a.principal_angles(&b).unwrap();
            assert!(found[0].abs() < 1e-15 && (found[1] - angle).abs() < 1e-15, "{found:?}");
            assert!((a.distance(&b).unwrap() - angle).abs() < 1e-15);
        }
    }

    #[test]
    fn a_smaller_space_inside_a_larger_one_has_no_angle() {
        let large = random(8, 5, 2);
        let inside =
            Subspace::span(&Mat::from_fn(8, 2, |i, j| large.basis()[(i, j)] + large.basis()[(i, j + 2)])).unwrap();
        assert!(large.distance(&inside).unwrap() < 1e-14);
        assert!(matches!(large.distance(&random(7, 2, 3)), Err(Error::Shape { found: 7, expected: 8, .. })));
    }

    #[test]
    fn dependent_vectors_do_not_raise_the_dimension() {
        assert_eq!(Subspace::span(&Mat::from_rows(&[[1.0, 2.0], [2.0, 4.0]])).unwrap().dim(), 1);
        assert_eq!(Subspace::span(&Mat::zeros(3, 2)).unwrap().dim(), 0);
    }
}
