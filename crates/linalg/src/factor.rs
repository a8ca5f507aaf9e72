//! Factorizations of small dense matrices, by faer.

use faer::{Par, Side, linalg::solvers::Solve};

use crate::{LinalgError, Mat};

fn check_finite(a: &Mat) -> Result<(), LinalgError> {
    match a.as_slice().iter().position(|v| !v.is_finite()) {
        Some(k) => Err(LinalgError::NonFinite { row: k / a.n_cols(), column: k % a.n_cols() }),
        None => Ok(()),
    }
}

/// The Cholesky factorization `G = L Lᵀ` of a symmetric positive definite matrix.
pub struct Cholesky {
    side: usize,
    llt: faer::linalg::solvers::Llt<f64>,
}

/// Factorizes a symmetric positive definite matrix; only the lower triangle is read.
///
/// # Errors
/// [`LinalgError::NotPositiveDefinite`] when a pivot is not positive, [`LinalgError::NonFinite`].
///
/// ```
/// use subspan_linalg::{Mat, cholesky};
/// let c = cholesky(&Mat::from_rows(&[[4.0, 2.0], [2.0, 3.0]])).unwrap();
/// assert!((c.solve(&[8.0, 8.0])[1] - 2.0).abs() < 1e-12);
/// assert!((c.log_det() - 8f64.ln()).abs() < 1e-12);
/// ```
pub fn cholesky(g: &Mat) -> Result<Cholesky, LinalgError> {
    check_finite(g)?;
    let side = g.n_rows();
    let llt = g.faer().llt(Side::Lower).map_err(|_| LinalgError::NotPositiveDefinite { side })?;
    Ok(Cholesky { side, llt })
}

impl Cholesky {
    /// Solves `G x = b`.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let x = self.llt.solve(faer::MatRef::from_column_major_slice(b, self.side, 1));
        (0..self.side).map(|i| x[(i, 0)]).collect()
    }

    /// Solves `G X = B` for all columns of `B`.
    pub fn solve_mat(&self, b: &Mat) -> Mat {
        Mat::from_faer(self.llt.solve(b.faer()).as_ref())
    }

    /// The factor `L`, lower triangular.
    pub fn l(&self) -> Mat {
        Mat::from_faer(self.llt.L())
    }

    /// `R⁻¹ = L⁻ᵀ`, upper triangular: `A R⁻¹` has orthonormal columns when `G = AᵀA`.
    pub fn inverse_upper(&self) -> Mat {
        let mut l_inv = faer::Mat::<f64>::zeros(self.side, self.side);
        faer::linalg::triangular_inverse::invert_lower_triangular(l_inv.as_mut(), self.llt.L(), Par::Seq);
        Mat::from_fn(self.side, self.side, |i, j| if i <= j { l_inv[(j, i)] } else { 0.0 })
    }

    /// `ln det G`.
    pub fn log_det(&self) -> f64 {
        let l = self.llt.L();
        (0..self.side).map(|i| 2.0 * l[(i, i)].ln()).sum()
    }
}

/// Eigenvalues in ascending order and the eigenvectors as columns.
pub struct Eigh {
    /// Ascending.
    pub values: Vec<f64>,
    /// Column `j` belongs to `values[j]`.
    pub vectors: Mat,
}

/// The eigendecomposition of a symmetric matrix; only the lower triangle is read.
///
/// # Errors
/// [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
pub fn eigh(g: &Mat) -> Result<Eigh, LinalgError> {
    check_finite(g)?;
    let e = g.faer().self_adjoint_eigen(Side::Lower).map_err(|_| LinalgError::NoConvergence { what: "eigenvalue" })?;
    let s = e.S().column_vector();
    Ok(Eigh { values: (0..g.n_rows()).map(|i| s[i]).collect(), vectors: Mat::from_faer(e.U()) })
}

/// The thin singular value decomposition `A = U diag(s) Vᵀ`.
pub struct ThinSvd {
    /// `n x min(n, d)`, orthonormal columns.
    pub u: Mat,
    /// Descending, non-negative.
    pub s: Vec<f64>,
    /// `d x min(n, d)`, orthonormal columns.
    pub v: Mat,
}

/// The thin SVD of any matrix.
///
/// # Errors
/// [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
pub fn thin_svd(a: &Mat) -> Result<ThinSvd, LinalgError> {
    check_finite(a)?;
    let svd = a.faer().thin_svd().map_err(|_| LinalgError::NoConvergence { what: "singular value" })?;
    let s = svd.S().column_vector();
    Ok(ThinSvd { u: Mat::from_faer(svd.U()), s: (0..s.nrows()).map(|i| s[i]).collect(), v: Mat::from_faer(svd.V()) })
}

/// The thin QR factorization: `(Q, R)` with `Q` of orthonormal columns (`n x min(n, d)`) and `R` upper triangular.
///
/// # Errors
/// [`LinalgError::NonFinite`].
pub fn qr_factor(a: &Mat) -> Result<(Mat, Mat), LinalgError> {
    check_finite(a)?;
    let qr = a.faer().qr();
    Ok((Mat::from_faer(qr.compute_thin_Q().as_ref()), Mat::from_faer(qr.thin_R())))
}
