//! Spectral certificates: the extreme eigenvalues of the sample's Gram matrix in coordinates where the table's is the identity.

use subspan_linalg::{Whitener, eigh};

use super::sums::WeightedTable;
use super::{Certificate, CertificateKind, certificate_of_ratios};
use crate::error::{Error, Result};

/// The exact distortion of a sample for `p = 2`: extreme eigenvalues of `Fᵀ (Σ u a aᵀ) F − I`.
///
/// `table` whitens the Gram matrix of the whole table of `n_rows` rows (`Fᵀ G F = I`). A direction of the table that the
/// sample misses has `lower = −1`. Cost: `4 m d²` flop for `m` sampled rows.
///
/// # Errors
/// [`Error::Shape`] if the sample's width does not fit, [`Error::Linalg`].
///
/// ```
/// use subspan::{Mat, sample};
/// // The table is the identity; the sample weighs the first row by 4 and has nothing of the second.
/// let table = subspan_linalg::whiten(&Mat::identity(2), 2).unwrap();
/// let sampled = sample::WeightedTable::new(&[1.0, 0.0], 2, Some(&[4.0])).unwrap();
/// let c = sample::exact_certificate(&table, &sampled, 2).unwrap();
/// assert_eq!((c.lower, c.upper), (-1.0, 3.0));
/// ```
pub fn exact_certificate(table: &Whitener, sample: &WeightedTable<'_>, n_rows: u64) -> Result<Certificate> {
    spectral(table, sample, n_rows, CertificateKind::Exact)
}

/// Rigorous outer bounds of a sample's distortion for an even `p`: [`exact_certificate`] of the lifted rows.
///
/// `table` whitens the Gram matrix of the lifted table, `sample` holds the lifted rows of the sample. The original problem's
/// directions are some of the lifted one's, so its extremes lie inside. A sample of fewer rows than the lifted rank always gets
/// `lower = −1`.
///
/// # Errors
/// As [`exact_certificate`].
pub fn lifted_certificate(table: &Whitener, sample: &WeightedTable<'_>, n_rows: u64) -> Result<Certificate> {
    spectral(table, sample, n_rows, CertificateKind::Bound)
}

fn spectral(table: &Whitener, sample: &WeightedTable<'_>, n_rows: u64, kind: CertificateKind) -> Result<Certificate> {
    let d = table.factor.n_rows();
    if sample.n_cols() != d {
        return Err(Error::Shape { what: "a row of the sample", found: sample.n_cols(), expected: d });
    }
    if table.rank == 0 {
        return Err(Error::AllZero);
    }
    let values = eigh(&sample.mapped_gram(&table.factor))?.values;
    let (mut smallest, largest) = (values[0], values[values.len() - 1]);
    if smallest <= null_below(&values, n_rows) {
        smallest = 0.0;
    }
    Ok(certificate_of_ratios(&[smallest, largest], kind, &format!("all {n_rows} rows")))
}

/// Eigenvalues (ascending) up to here are zero to working precision: the rank cut of [`whiten`](subspan_linalg::whiten).
pub(super) fn null_below(values: &[f64], n_rows: u64) -> f64 {
    let largest = values.last().copied().unwrap_or(0.0).max(1.0);
    4.0 * (values.len() as f64 + (n_rows as f64).sqrt()) * f64::EPSILON * largest
}
