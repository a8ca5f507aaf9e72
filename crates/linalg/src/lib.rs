//! Subspan's numerical wall: the one crate that names `faer`.
//!
//! Everything here is a concrete function on `f64` (or on both precisions through the sealed [`Real`]), so callers compile in a
//! moment and never meet faer's trait bounds. Matrices are **row-major**; a block of data rows is a plain slice plus its number of columns.
//!
//! | what | where | cost (flop) |
//! |---|---|---|
//! | `G += AᵀA` of data rows | [`gram`] | `n d (d+1)` |
//! | `‖aᵢF‖²` for every row | [`apply`] | `2 n d r`, half when `F` is triangular |
//! | products of small matrices | [`Mat::mul`] | `2 m k n` |
//! | products of tall matrices, `f32` or `f64` | [`gemm`] | `2 m n k` |
//! | scans of reduced costs for assignment | [`scan`] | `n` per row |
//! | weighted sums of bfloat16 numbers | [`bf16`] | 2 per element |
//! | inner products and combinations of few long rows | [`frames`] | `2 k² d`, `4 k² d` |
//! | rows of length one | [`par_unit_rows`] | `3 d` per row |
//! | lengths of rows, of segments of rows | [`row_lengths`], [`segment_lengths`] | `2 d` per row |
//! | values above a threshold | [`values_above`] | a comparison per vector |
//! | weighted sums of gathered rows | [`add_rows`] | 2 per value |
//! | nearest of several centres | [`nearest_centers`] | 3 per product |
//! | probabilities | [`softmax`] | about 30 instructions per vector |
//! | whitening factor of a Gram matrix | [`whiten`] | `≈ d³` |
//! | Cholesky, eigen, SVD, QR | [`factor`] | `O(d³)` |
//!
//! The crate never opens files, never spawns a thread pool and never reads a clock. Work runs on the caller's thread; only
//! the `par_` functions use the current rayon pool, with results that do not depend on its size.

mod above;
pub mod apply;
pub mod bf16;
pub mod factor;
pub mod frames;
mod gather;
pub mod gemm;
pub mod gram;
mod lengths;
mod mat;
mod matvec;
pub mod mixed;
mod nearest;
mod par;
pub mod philox;
mod real;
pub mod scan;
mod simd;
mod softmax;
mod sparse;
mod unit;
mod whiten;

pub use above::values_above;
pub use factor::{Cholesky, Eigh, PsdFactor, ThinSvd, cholesky, eigh, psd_factor, qr_factor, solve_psd, thin_svd};
pub use gather::add_rows;
pub use lengths::{row_lengths, segment_lengths};
pub use mat::Mat;
pub use nearest::nearest_centers;
pub use par::{par_gram, par_mul_vec, par_row_norms_sq, par_tr_mul_vec, par_weighted_gram};
pub use real::Real;
pub use softmax::softmax;
pub use unit::{par_unit_rows, unit_rows};
pub use whiten::{Whitener, column_scales, precondition, whiten};

/// Why a factorization could not be computed.
#[derive(Debug, Clone, PartialEq)]
pub enum LinalgError {
    /// The matrix is not positive definite to working precision.
    NotPositiveDefinite {
        /// Side of the matrix.
        side: usize,
    },
    /// The matrix contains a NaN or an infinity.
    NonFinite {
        /// Row of the first such entry.
        row: usize,
        /// Column of the first such entry.
        column: usize,
    },
    /// The iteration inside an eigenvalue or singular value computation did not converge.
    NoConvergence {
        /// Which computation.
        what: &'static str,
    },
}

impl std::fmt::Display for LinalgError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotPositiveDefinite { side } => write!(f, "the {side} x {side} matrix is not positive definite"),
            Self::NonFinite { row, column } => write!(f, "the matrix has a non-finite entry at ({row}, {column})"),
            Self::NoConvergence { what } => write!(f, "the {what} iteration did not converge"),
        }
    }
}

impl std::error::Error for LinalgError {}
