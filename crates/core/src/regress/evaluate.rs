//! One pass over all rows of the table: the plain objective of fitted coefficients, and proofs of how good they are.

use serde::{Deserialize, Serialize};
use subspan_linalg::apply;

use super::config::Loss;
use super::huber::Huber;
use super::logistic::Logistic;
use super::lp::Lp;
use super::passes;
use super::smooth::{self, Minimum, SmoothLoss};
use super::solve;
use super::table::{StreamTable, TILE_ROWS, Table, Tile, TilePass};
use crate::error::Result;

/// The plain loss of one row.
pub(super) fn row_loss(loss: &Loss, level: f64, eta: f64, b: f64) -> f64 {
    let r = b - eta;
    match loss {
        Loss::L1 => r.abs(),
        Loss::L2 => r * r,
        Loss::Lp { p } => r.abs().powf(*p),
        Loss::Quantile { .. } => (level * r).max((level - 1.0) * r),
        Loss::Huber { delta } => Huber { delta: *delta }.at(eta, b, 1.0, 1.0)[0],
        Loss::Logistic { .. } => Logistic.at(eta, b, 1.0, 1.0)[0],
    }
}

/// Sums of one pass, for several fits at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Objectives {
    /// Per fit.
    pub(super) at: Vec<f64>,
    /// Per fit, at coefficients zero.
    pub(super) at_zero: Vec<f64>,
    pub(super) n_rows: u64,
}

/// The plain objective of several coefficient vectors (`levels[i]` is the quantile of fit `i`). One pass, `2 n d` flop per fit.
///
/// # Errors
/// What the source reports.
pub(super) fn objectives(
    table: &StreamTable<'_>,
    loss: &Loss,
    levels: &[f64],
    coefficients: &[&[f64]],
) -> Result<Objectives> {
    let fits = coefficients.iter().map(|x| x.iter().copied().chain([0.0]).collect()).collect();
    table.pass(Evaluating { loss: loss.clone(), levels: levels.to_vec(), fits })
}

/// The pass of [`objectives`].
#[derive(Serialize, Deserialize)]
pub(super) struct Evaluating {
    loss: Loss,
    levels: Vec<f64>,
    /// Per fit: the coefficients, and zero for the target.
    fits: Vec<Vec<f64>>,
}

impl TilePass for Evaluating {
    const NAME: &'static str = "objectives";
    type State = Objectives;

    fn start(&self, _: usize) -> Objectives {
        let zeros = vec![0.0; self.fits.len()];
        Objectives { at: zeros.clone(), at_zero: zeros, n_rows: 0 }
    }

    fn step(&self, out: &mut Objectives, Tile { rows, weights, .. }: Tile<'_>) {
        let n = weights.len();
        let mut eta = [0.0; TILE_ROWS];
        out.n_rows += n as u64;
        for (f, (fit, level)) in self.fits.iter().zip(&self.levels).enumerate() {
            apply::mul_vec(rows, fit, &mut eta[..n]);
            let (mut at, mut at_zero) = (0.0, 0.0);
            for (eta, row) in eta[..n].iter().zip(rows.chunks_exact(fit.len())) {
                let target = row[fit.len() - 1];
                at += row_loss(&self.loss, *level, *eta, target);
                at_zero += row_loss(&self.loss, *level, 0.0, target);
            }
            out.at[f] += at;
            out.at_zero[f] += at_zero;
        }
    }

    fn merge(&self, total: &mut Objectives, part: Objectives) {
        total.at.iter_mut().zip(&part.at).for_each(|(t, p)| *t += p);
        total.at_zero.iter_mut().zip(&part.at_zero).for_each(|(t, p)| *t += p);
        total.n_rows += part.n_rows;
    }
}

/// A lower bound of the optimum over all rows from coefficients of a smooth loss: three passes (four for l_p).
///
/// # Errors
/// What the source reports.
pub(super) fn smooth_bound(table: &impl Table, loss: &Loss, intercept: bool, x: &[f64]) -> Result<Minimum> {
    let penalty = solve::penalty(loss, intercept, None, table.n_features());
    let penalty = penalty.as_ref();
    let power = |p: f64| -> Result<Minimum> {
        let largest = passes::largest_residual(table, x)?;
        let loss = Lp::new(p, if largest > 0.0 { largest } else { 1.0 });
        let mut found = smooth::certify(table, &loss, x, penalty)?;
        let unit = loss.unit();
        found.objective *= unit;
        found.lower *= unit;
        found.exact_fit *= unit;
        Ok(found)
    };
    match loss {
        Loss::Huber { delta } => smooth::certify(table, &Huber { delta: *delta }, x, penalty),
        Loss::Logistic { .. } => smooth::certify(table, &Logistic, x, penalty),
        Loss::Lp { p } => power(*p),
        _ => power(2.0),
    }
}
