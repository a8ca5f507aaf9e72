//! Which certificate a sample gets, and what it is measured against.

use super::certificate::{
    Search, WeightedTable, abs_power_sums, abs_power_sums_of, certificate_of_ratios, exact_certificate,
    lifted_certificate, search,
};
use super::draws::{Draws, Table};
use super::select::Kept;
use super::stages::{Stage, lift_fits};
use super::{Certificate, CertificateKind, Rule};
use crate::error::Result;
use crate::observe::phase;

/// Rows of the reference that a search climbs on: enough that its own distortion is small beside a sample's.
const REFERENCE_ROWS: u64 = 50_000;
/// Entries (rows times columns) up to which the directions found are measured on all rows, one more pass; beyond, on the
/// reference.
const MEASURED_ENTRIES: u64 = 200_000_000;

/// Measures how far `kept` is from standing for the table. `reference` is a larger weighted sample, where one was drawn.
pub(crate) fn certify(
    draws: &mut Draws<'_>,
    table: Table<'_>,
    kept: &Kept,
    reference: Option<Kept>,
) -> Result<Certificate> {
    let p = draws.config.p;
    let weights: Vec<f64> = kept.probabilities.iter().map(|q| q.recip()).collect();
    phase(draws.observer, "certify", None);
    if kept.len() == 0 {
        let reference = format!("all {} rows", table.whitened.n_rows);
        return Ok(Certificate { lower: -1.0, upper: 0.0, kind: CertificateKind::Exact, reference });
    }
    if p == 2.0 {
        let sample = WeightedTable::new(&kept.values, kept.n_cols, Some(&weights))?;
        return exact_certificate(&table.whitened.whitener, &sample, table.whitened.n_rows);
    }
    let n_rows = table.whitened.n_rows;
    if lift_fits(n_rows, kept.n_cols, p)
        && let Some((lift, whitened)) = draws.lift(table)?
        // Fewer rows than lifted directions: the bound would be −1 for every sample. A search says more.
        && kept.len() >= whitened.whitener.rank
    {
        let mut lifted = vec![0.0; kept.len() * lift.dim()];
        lift.lift_rows(&kept.values, &mut lifted);
        let sample = WeightedTable::new(&lifted, lift.dim(), Some(&weights))?;
        return lifted_certificate(&whitened.whitener, &sample, n_rows);
    }
    searched(draws, table, kept, &weights, reference)
}

fn searched(
    draws: &mut Draws<'_>,
    table: Table<'_>,
    kept: &Kept,
    weights: &[f64],
    reference: Option<Kept>,
) -> Result<Certificate> {
    let (p, d) = (draws.config.p, kept.n_cols);
    let n_rows = table.whitened.n_rows;
    let sample = WeightedTable::new(&kept.values, d, Some(weights))?;
    let (seed, observer) = (draws.seed, draws.observer);
    let search = |reference: &WeightedTable<'_>, described: &str| {
        search(reference, &sample, p, &Search::default(), described, seed, observer)
    };
    if let Some(all) = table.source.dense().filter(|_| n_rows <= REFERENCE_ROWS) {
        return Ok(search(&WeightedTable::new(all, d, None)?, &format!("all {n_rows} rows"))?.certificate);
    }
    let reference = match reference {
        Some(rows) => rows,
        None => {
            let rule = if p <= 2.0 { Rule::RootLeverage } else { Rule::Lewis };
            let stage = Stage { rule, target: REFERENCE_ROWS.min(n_rows) as f64, last: false };
            draws.draw(table, stage, "reference")?.kept
        }
    };
    // The draw of the reference announced phases of its own.
    phase(observer, "certify", None);
    let reference_weights: Vec<f64> = reference.probabilities.iter().map(|q| q.recip()).collect();
    let described = format!("a sample of {} rows", reference.len());
    let found = search(&WeightedTable::new(&reference.values, d, Some(&reference_weights))?, &described)?;
    if n_rows.saturating_mul(d as u64) > MEASURED_ENTRIES {
        return Ok(found.certificate);
    }
    let all = abs_power_sums_of(table.source, &found.directions, p, observer)?;
    draws.passes += 1;
    let ratios: Vec<f64> =
        abs_power_sums(&sample, &found.directions, p).iter().zip(all).map(|(sample, all)| sample / all).collect();
    Ok(certificate_of_ratios(&ratios, CertificateKind::Searched, &format!("all {n_rows} rows")))
}
