//! Factorizations of small dense matrices, by faer, on the calling thread.

use std::sync::Once;

use faer::{
    Par, Side,
    linalg::solvers::{DenseSolveCore, Solve},
};

use crate::{LinalgError, Mat};

/// Makes faer's factorizations run on the calling thread: in parallel their bits depend on the number of threads (seen in the
/// singular value decomposition of a 40 x 280 matrix).
fn on_one_thread() {
    static SET: Once = Once::new();
    SET.call_once(|| faer::set_global_parallelism(Par::Seq));
}

/// What every factorization begins with.
fn prepare(a: &Mat) -> Result<(), LinalgError> {
    on_one_thread();
    check_finite(a)
}

pub(crate) fn check_finite(a: &Mat) -> Result<(), LinalgError> {
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
    prepare(g)?;
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

    /// `G⁻¹`, both triangles filled.
    pub fn inverse(&self) -> Mat {
        Mat::from_faer(self.llt.inverse().as_ref())
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

/// A symmetric positive semidefinite matrix prepared for solves, singular or not.
pub struct PsdFactor {
    /// Numerical rank after scaling the diagonal to one.
    pub rank: usize,
    /// Powers of two that bring the diagonal near one; zero for an empty row.
    scale: Vec<f64>,
    kind: Kind,
}

enum Kind {
    Definite(Cholesky),
    /// `P` (`side x rank`) with `G⁺ = P Pᵀ`, for the scaled matrix.
    Singular(Mat),
}

/// Prepares any symmetric positive semidefinite matrix for solves; only the lower triangle is read.
///
/// The diagonal is scaled to about one by powers of two. If the Cholesky factorization succeeds with no pivot at or below
/// `side · 2⁻⁵²`, it is used as it is (`side³/3` flop); otherwise eigenvalues at or below `side · 2⁻⁵² · λ_max` are cut
/// (about `10 side³`), and solutions are those of least norm in the scaled variables.
///
/// # Errors
/// [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
///
/// ```
/// use subspan_linalg::{Mat, psd_factor};
/// let f = psd_factor(&Mat::from_rows(&[[1.0, 1.0], [1.0, 1.0]])).unwrap();
/// let x = f.solve(&[2.0, 2.0]);
/// assert!(f.rank == 1 && (x[0] - 1.0).abs() < 1e-12 && (x[1] - 1.0).abs() < 1e-12);
/// ```
pub fn psd_factor(g: &Mat) -> Result<PsdFactor, LinalgError> {
    prepare(g)?;
    let side = g.n_rows();
    let scale: Vec<f64> = (0..side).map(|j| near_inverse_root(g[(j, j)])).collect();
    let scaled = Mat::from_fn(side, side, |i, j| g[(i.max(j), i.min(j))] * scale[i] * scale[j]);
    let tiny = side as f64 * f64::EPSILON;
    if let Ok(c) = cholesky(&scaled)
        && c.llt.L().diagonal().column_vector().iter().all(|l| l * l > tiny)
    {
        return Ok(PsdFactor { rank: side, scale, kind: Kind::Definite(c) });
    }
    let e = eigh(&scaled)?;
    let largest = e.values.last().copied().unwrap_or(0.0);
    let first = e.values.partition_point(|v| *v <= tiny * largest);
    let p = Mat::from_fn(side, side - first, |i, j| e.vectors[(i, first + j)] / e.values[first + j].sqrt());
    Ok(PsdFactor { rank: side - first, scale, kind: Kind::Singular(p) })
}

/// Solves `G x = b` for a symmetric positive semidefinite `G` that may be singular, and gives its rank: see [`psd_factor`].
///
/// # Errors
/// [`LinalgError::NonFinite`], [`LinalgError::NoConvergence`].
///
/// ```
/// use subspan_linalg::{Mat, solve_psd};
/// let (x, rank) = solve_psd(&Mat::from_rows(&[[4.0, 0.0], [0.0, 0.0]]), &[2.0, 0.0]).unwrap();
/// assert!(rank == 1 && x == [0.5, 0.0]);
/// ```
pub fn solve_psd(g: &Mat, b: &[f64]) -> Result<(Vec<f64>, usize), LinalgError> {
    let f = psd_factor(g)?;
    Ok((f.solve(b), f.rank))
}

impl PsdFactor {
    /// A solution of `G x = b`, exact up to the part of `b` outside the range of `G`.
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let b: Vec<f64> = b.iter().zip(&self.scale).map(|(b, s)| b * s).collect();
        let x = match &self.kind {
            Kind::Definite(c) => c.solve(&b),
            Kind::Singular(p) => {
                let mut c = vec![0.0; p.n_cols()];
                crate::apply::add_tr_mul_vec(p.as_slice(), &b, &mut c);
                p.mul_vec(&c)
            }
        };
        x.iter().zip(&self.scale).map(|(x, s)| x * s).collect()
    }
}

/// A power of two within a factor of two of `v^(−1/2)`; zero for `v ≤ 0`.
fn near_inverse_root(v: f64) -> f64 {
    if v > 0.0 { 2f64.powi(-((v.log2() / 2.0).round() as i32)) } else { 0.0 }
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
    prepare(g)?;
    if g.n_rows() == 0 {
        return Ok(Eigh { values: Vec::new(), vectors: Mat::zeros(0, 0) });
    }
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
    prepare(a)?;
    let svd = a.faer().thin_svd().map_err(|_| LinalgError::NoConvergence { what: "singular value" })?;
    let s = svd.S().column_vector();
    Ok(ThinSvd { u: Mat::from_faer(svd.U()), s: (0..s.nrows()).map(|i| s[i]).collect(), v: Mat::from_faer(svd.V()) })
}

/// The thin QR factorization: `(Q, R)` with `Q` of orthonormal columns (`n x min(n, d)`) and `R` upper triangular.
///
/// # Errors
/// [`LinalgError::NonFinite`].
pub fn qr_factor(a: &Mat) -> Result<(Mat, Mat), LinalgError> {
    prepare(a)?;
    let qr = a.faer().qr();
    Ok((Mat::from_faer(qr.compute_thin_Q().as_ref()), Mat::from_faer(qr.thin_R())))
}
