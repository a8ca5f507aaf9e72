//! Spectral certificates: the extreme eigenvalues of the sample's Gram matrix in coordinates where the table's is the identity.

use subspan_linalg::{Mat, Whitener, eigh};

use super::{Certificate, CertificateKind, certificate_of_ratios};
use crate::error::{Error, Result};

/// The exact distortion of a sample for `p = 2`: extreme eigenvalues of `Fᵀ G_s F − I`.
///
/// `table` whitens the Gram matrix of the whole table (`Fᵀ G F = I`), `sample_gram = Σ u a aᵀ` over the sample, both
/// triangles. A direction of the table that the sample misses has `lower = −1`.
///
/// # Errors
/// [`Error::Shape`] if the Gram matrix does not fit, [`Error::Linalg`].
///
/// ```
/// use subspan::{Mat, sample};
/// // The table is the identity; the sample holds twice the first row and nothing of the second.
/// let table = subspan_linalg::whiten(&Mat::identity(2), 2).unwrap();
/// let c = sample::exact_certificate(&table, &Mat::from_rows(&[[2.0, 0.0], [0.0, 0.0]]), 2).unwrap();
/// assert_eq!((c.lower, c.upper), (-1.0, 1.0));
/// ```
pub fn exact_certificate(table: &Whitener, sample_gram: &Mat, n_rows: u64) -> Result<Certificate> {
    spectral(table, sample_gram, n_rows, CertificateKind::Exact)
}

/// Rigorous outer bounds of a sample's distortion for an even `p`: [`exact_certificate`] of the lifted rows.
///
/// `table` whitens the Gram matrix of the lifted table, `sample_gram` is `Σ u lift(a) lift(a)ᵀ` over the sample. The original
/// problem's directions are some of the lifted one's, so its extremes lie inside. A sample of fewer rows than the lifted rank
/// always gets `lower = −1`.
///
/// # Errors
/// As [`exact_certificate`].
pub fn lifted_certificate(table: &Whitener, sample_gram: &Mat, n_rows: u64) -> Result<Certificate> {
    spectral(table, sample_gram, n_rows, CertificateKind::Bound)
}

fn spectral(table: &Whitener, sample_gram: &Mat, n_rows: u64, kind: CertificateKind) -> Result<Certificate> {
    let d = table.factor.n_rows();
    if sample_gram.n_rows() != d || sample_gram.n_cols() != d {
        return Err(Error::Shape { what: "the sample's Gram matrix", found: sample_gram.n_rows(), expected: d });
    }
    if table.rank == 0 {
        return Err(Error::AllZero);
    }
    let within = table.factor.transpose().mul(sample_gram).mul(&table.factor);
    let values = eigh(&within)?.values;
    let (mut smallest, largest) = (values[0], values[values.len() - 1]);
    if smallest <= null_below(&values, n_rows as usize) {
        smallest = 0.0;
    }
    Ok(certificate_of_ratios(&[smallest, largest], kind, &format!("all {n_rows} rows")))
}

/// Eigenvalues (ascending) up to here are zero to working precision.
pub(super) fn null_below(values: &[f64], n_rows: usize) -> f64 {
    let largest = values.last().copied().unwrap_or(0.0).max(1.0);
    n_rows.max(values.len()) as f64 * f64::EPSILON * largest
}
