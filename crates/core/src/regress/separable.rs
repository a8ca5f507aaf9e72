//! Whether a hyperplane separates two classes, and how far they are from it.
//!
//! With rows `c = y a` the complexity `μ = sup ‖(C x)₊‖₁ / ‖(C x)₋‖₁` (Munteanu, Schwiegelshohn, Sohler and Woodruff, "On
//! coresets for logistic regression", NeurIPS 2018) is `1 + 1/κ` with `κ = min ‖(C x)₋‖₁` over `Σ u c x = 1` (derived). On
//! that plane `‖C x‖₁ = 1 + 2 ‖(C x)₋‖₁`, so `κ` is one l1 regression in one variable less. The classes are separable, and the
//! logistic optimum is at infinity, exactly when `κ = 0`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use subspan_linalg::apply;

use super::condition::{Basis, Design};
use super::solve;
use super::table::{MemoryTable, TILE_ROWS, Table, Tile, TilePass};
use crate::error::{Error, Result};
use crate::observe::{Observer, metric};

/// A κ below this is zero to the precision of the l1 solver.
const KAPPA_ZERO: f64 = 1e-9;

/// Above this a sample stands poorly for its table (method note, section 3.6).
const LARGE_MU: f64 = 100.0;

/// A margin that only rows far beyond any finite optimum of ordinary data reach: `exp(−15) ≈ 3e-7`.
const LARGE_MARGIN: f64 = 15.0;

/// Whether some margin is so large that the optimum may be at infinity.
pub(super) fn suspicious(table: &MemoryTable<'_>, x: &[f64]) -> Result<bool> {
    let n_cols = table.n_cols;
    let x: Vec<f64> = x.iter().copied().chain([0.0]).collect();
    let largest = table.fold(
        || 0.0f64,
        |largest, Tile { rows, .. }| {
            let mut eta = [0.0; TILE_ROWS];
            let eta = &mut eta[..rows.len() / n_cols];
            apply::mul_vec(rows, &x, eta);
            *largest = eta.iter().fold(*largest, |m, e| m.max(e.abs()));
        },
        |total, part| *total = total.max(part),
    )?;
    Ok(largest > LARGE_MARGIN)
}

/// Errors if the classes are separable; warns if `μ` is large.
///
/// Cost: one l1 regression on the rows of the design.
///
/// # Errors
/// [`Error::Separable`], [`Error::Cancelled`].
pub(super) fn check(design: &Design<'_>, warnings: &mut Vec<String>, observer: &dyn Observer) -> Result<()> {
    match separator(design, warnings, observer)? {
        None => Ok(()),
        Some(_) => Err(Error::Separable),
    }
}

/// Coefficients (of the columns given) that put no row on the wrong side, if there are any; else warns if `μ` is large.
///
/// Cost: one l1 regression on the rows of the design.
///
/// # Errors
/// [`Error::Cancelled`].
pub(super) fn separator(
    design: &Design<'_>,
    warnings: &mut Vec<String>,
    observer: &dyn Observer,
) -> Result<Option<Vec<f64>>> {
    let k = design.n_cols - 1;
    let mut values = design.values.clone().into_owned();
    let weight = |i: usize| design.weights.as_ref().map_or(1.0, |w| w[i]);
    let mut total = vec![0.0; k];
    for (i, row) in values.chunks_exact_mut(k + 1).enumerate() {
        if row[k] <= 0.5 {
            row.iter_mut().for_each(|v| *v = -*v);
        }
        row[k] = 0.0;
        total.iter_mut().zip(row.iter()).for_each(|(t, c)| *t += weight(i) * c);
    }
    let norm = total.iter().map(|t| t * t).sum::<f64>().sqrt();
    let size: f64 =
        values.chunks_exact(k + 1).enumerate().map(|(i, r)| weight(i) * r.iter().map(|v| v.abs()).sum::<f64>()).sum();
    if norm <= f64::EPSILON * size {
        // The classes balance in every direction: μ = 1.
        return Ok(None);
    }
    // A Householder reflection takes the direction of Σ u c to the last feature; x there is fixed at 1/norm.
    let direction: Vec<f64> = total.iter().map(|t| t / norm).collect();
    let mut v = direction.clone();
    let sign = if v[k - 1] >= 0.0 { 1.0 } else { -1.0 };
    v[k - 1] += sign;
    let vv: f64 = v.iter().map(|x| x * x).sum();
    for row in values.chunks_exact_mut(k + 1) {
        let along = 2.0 * row.iter().zip(&v).map(|(a, b)| a * b).sum::<f64>() / vv;
        row.iter_mut().zip(&v).for_each(|(a, v)| *a -= along * v);
        // Now row[k − 1] = −sign · (c · direction), which the target takes over; the fit may use the other k − 1 features.
        row[k] = -sign * row[k - 1] / norm;
    }
    let reduced: Vec<f64> =
        values.chunks_exact(k + 1).flat_map(|row| row[..k - 1].iter().chain(&row[k..]).copied()).collect();
    let reduced = Design::new(Cow::Owned(reduced), k, design.weights.clone(), Basis::Whitened, observer)?;
    let found = match solve::pinball(&reduced, 0.5, 2.0, solve::TOLERANCE, None, observer) {
        Err(Error::NotConverged { .. }) => {
            let text =
                "whether a hyperplane separates the classes could not be settled: if one does, there is no optimum";
            warnings.push(text.into());
            return Ok(None);
        }
        found => found?,
    };
    let kappa = (found.objective - 1.0) / 2.0;
    if kappa <= KAPPA_ZERO {
        // Undo the reflection. The residual was target − fit, the value c·x is its negative or itself: x' = (−fit, −sign/norm).
        let mut x: Vec<f64> = found.coefficients.iter().map(|c| -c).chain([-sign / norm]).collect();
        let along = 2.0 * x.iter().zip(&v).map(|(a, b)| a * b).sum::<f64>() / vv;
        x.iter_mut().zip(&v).for_each(|(a, v)| *a -= along * v);
        return Ok(Some(design.coefficients(&x)));
    }
    let mu = 1.0 + kappa.recip();
    metric(observer, "mu", mu);
    if mu > LARGE_MU {
        warnings.push(format!(
            "the classes are nearly separable (mu = {mu:.0}): a sample needs about mu times the columns, or a ridge penalty"
        ));
    }
    Ok(None)
}

/// Whether coefficients put no row of a table on the wrong side, up to rounding.
///
/// # Errors
/// What the table reports.
pub(super) fn separates(table: &impl Table, x: &[f64]) -> Result<bool> {
    let fit = x.iter().copied().chain([0.0]).collect();
    let (smallest, largest) = table.pass(Margins { fit })?;
    Ok(largest > 0.0 && smallest >= -KAPPA_ZERO * largest)
}

/// The smallest and the largest margin (the latter at least zero) of coefficients.
#[derive(Serialize, Deserialize)]
pub(super) struct Margins {
    fit: Vec<f64>,
}

impl TilePass for Margins {
    const NAME: &'static str = "margins";
    type State = (f64, f64);

    fn start(&self, _: usize) -> (f64, f64) {
        (f64::INFINITY, 0.0)
    }

    fn step(&self, (smallest, largest): &mut (f64, f64), Tile { rows, weights, .. }: Tile<'_>) {
        let mut eta = [0.0; TILE_ROWS];
        let eta = &mut eta[..weights.len()];
        apply::mul_vec(rows, &self.fit, eta);
        let n_cols = self.fit.len();
        for (eta, row) in eta.iter().zip(rows.chunks_exact(n_cols)) {
            let margin = if row[n_cols - 1] > 0.5 { *eta } else { -eta };
            *smallest = smallest.min(margin);
            *largest = largest.max(margin);
        }
    }

    fn merge(&self, total: &mut (f64, f64), part: (f64, f64)) {
        *total = (total.0.min(part.0), total.1.max(part.1));
    }
}
