//! Certificates: how far a sample's loss is from the table's, measured after the fact.
//!
//! | `p` | how | what it proves |
//! |---|---|---|
//! | 2 | [`exact_certificate`] | the extremes themselves |
//! | even | [`lifted_certificate`] | the extremes lie inside |
//! | any | [`search`] | the extremes are at least this far out |

mod extremes;
mod search;
mod sums;

pub use extremes::{exact_certificate, lifted_certificate};
pub use search::{Search, Searched, search};
pub(crate) use sums::PowerSums;
pub use sums::{WeightedTable, abs_power_sums, abs_power_sums_of};

use super::{Certificate, CertificateKind};

/// The certificate of a set of ratios `Σ u|a x|^p / ‖Ax‖_p^p`; `reference` says what the denominators are of.
///
/// Zero distortion is always within: `lower ≤ 0 ≤ upper`. Ratios that are not numbers (`0/0`) say nothing and are skipped.
pub fn certificate_of_ratios(ratios: &[f64], kind: CertificateKind, reference: &str) -> Certificate {
    let numbers = || ratios.iter().filter(|r| !r.is_nan());
    let lower = numbers().fold(0.0f64, |m, r| m.min(r - 1.0)).max(-1.0);
    let upper = numbers().fold(0.0f64, |m, r| m.max(r - 1.0));
    Certificate { lower, upper, kind, reference: reference.into() }
}

#[cfg(test)]
mod tests;
