//! Importance scores as stateless functions of a row, and the passes that prepare them.

use subspan_linalg::apply::row_norms_sq;
use subspan_linalg::{Mat, Whitener, gram, whiten};

use super::lewis::{LewisChain, SCORE_TOLERANCE, lewis_chain};
use super::lift::{Lift, LiftedRows};
use super::sensitivity::SensitivitySolver;
use crate::error::{Error, Result};
use crate::observe::{Observer, phase};
use crate::rows::{self, RowSource};

/// A table's whitening factor and size.
#[derive(Debug, Clone)]
pub(crate) struct Whitened {
    /// `‖a F‖²` is the leverage of a row.
    pub(crate) whitener: Whitener,
    pub(crate) n_rows: u64,
    /// Passes over the source it took.
    pub(crate) passes: usize,
}

/// Reads the table once (again when it is ill-conditioned) for its whitening factor.
pub(crate) fn whitened(source: &dyn RowSource, observer: &dyn Observer) -> Result<Whitened> {
    phase(observer, "score", source.n_rows());
    let (gram, n_rows) = gram_pass(source, observer)?;
    if n_rows == 0 {
        return Err(Error::Empty { what: "rows" });
    }
    let whitener = whiten(&gram, n_rows)?;
    if whitener.rank == 0 {
        return Err(Error::AllZero);
    }
    Ok(Whitened { whitener, n_rows, passes: 1 })
}

/// `AᵀA` (both triangles) and the number of rows.
pub(crate) fn gram_pass(source: &dyn RowSource, observer: &dyn Observer) -> Result<(Mat, u64)> {
    let d = source.n_cols();
    let (mut total, n_rows) = rows::fold(
        source,
        observer,
        || (Mat::zeros(d, d), 0u64),
        |(total, n_rows), block| {
            gram::add_gram(block.values, d, total.as_mut_slice());
            *n_rows += block.n_rows() as u64;
            Ok(())
        },
        |(total, n_rows), (g, n)| {
            total.as_mut_slice().iter_mut().zip(g.as_slice()).for_each(|(t, g)| *t += g);
            *n_rows += n;
        },
    )?;
    gram::symmetrize(total.as_mut_slice(), d);
    Ok((total, n_rows))
}

/// A function from rows to (score, leverage).
#[derive(Debug)]
pub(crate) struct Scorer {
    pub(crate) score: Score,
    /// Adds the leverage to the score.
    pub(crate) augment: bool,
    /// Raises every score to at least this (1/n for losses that do not vanish at zero).
    pub(crate) floor: f64,
    pub(crate) leverage: Whitener,
}

/// The part of a [`Scorer`] that differs between rules.
#[derive(Debug)]
pub(crate) enum Score {
    /// Every row alike.
    Uniform,
    /// `τ^(p/2)`.
    Leverage { power: f64 },
    /// Lewis weights.
    Lewis(LewisChain),
    /// Leverage of the lifted row: at least the sensitivity, for even `p`.
    Lifted { lift: Lift, whitener: Whitener },
    /// Certified upper bounds of the sensitivity against a coreset.
    Sensitivity(Box<SensitivitySolver>),
}

impl Scorer {
    /// Scores rows: `scores[i]` and `leverages[i]` of row `i`. A row's result does not depend on its neighbours.
    pub(crate) fn score(&self, values: &[f64], scores: &mut [f64], leverages: &mut [f64]) -> Result<()> {
        row_norms_sq(values, &self.leverage.factor, self.leverage.upper, leverages);
        match &self.score {
            Score::Uniform => scores.fill(1.0),
            Score::Leverage { power } if *power == 1.0 => scores.copy_from_slice(leverages),
            Score::Leverage { power } if *power == 0.5 => {
                scores.iter_mut().zip(&*leverages).for_each(|(s, t)| *s = t.sqrt());
            }
            Score::Leverage { power } => scores.iter_mut().zip(&*leverages).for_each(|(s, t)| *s = t.powf(*power)),
            Score::Lewis(chain) => {
                chain.log_weights(values, scores);
                scores.iter_mut().for_each(|s| *s = s.exp());
            }
            Score::Lifted { lift, whitener } => {
                let mut lifted = vec![0.0; scores.len() * lift.dim()];
                lift.lift_rows(values, &mut lifted);
                row_norms_sq(&lifted, &whitener.factor, whitener.upper, scores);
            }
            Score::Sensitivity(solver) => {
                let d = self.leverage.factor.n_rows();
                for (score, row) in scores.iter_mut().zip(values.chunks_exact(d)) {
                    *score = solver.bounds(row)?.upper;
                }
            }
        }
        if self.augment {
            scores.iter_mut().zip(&*leverages).for_each(|(s, t)| *s += t);
        }
        if self.floor > 0.0 {
            scores.iter_mut().for_each(|s| *s = s.max(self.floor));
        }
        Ok(())
    }
}

/// Statistical leverage `τᵢ = aᵢᵀ (AᵀA)⁺ aᵢ` of every row, in row order; they add up to the rank.
///
/// Two passes, `2 n d²` flop.
///
/// # Errors
/// An empty or all-zero table, what the source reports.
///
/// ```
/// use subspan::{DenseRows, Silent, sample};
/// let table = DenseRows::new(&[1.0, 0.0, 0.0, 2.0, 0.0, 2.0], 2)?;
/// let leverage = sample::leverage_scores(&table, &Silent)?;
/// assert!((leverage[0] - 1.0).abs() < 1e-12 && (leverage[1] - 0.5).abs() < 1e-12);
/// # Ok::<(), subspan::Error>(())
/// ```
pub fn leverage_scores(source: &dyn RowSource, observer: &dyn Observer) -> Result<Vec<f64>> {
    let leverage = whitened(source, observer)?.whitener;
    all_scores(
        source,
        &Scorer { score: Score::Leverage { power: 1.0 }, augment: false, floor: 0.0, leverage },
        observer,
    )
}

/// l_p Lewis weights of every row to a log-error of 1e-6; they add up to the rank.
///
/// One pass per iteration (about 14 at `p = 1`, 14 at `p = 4`).
///
/// # Errors
/// `p < 1`, an empty or all-zero table, [`Error::NotConverged`], what the source reports.
pub fn lewis_weights(source: &dyn RowSource, p: f64, observer: &dyn Observer) -> Result<Vec<f64>> {
    check_p(p)?;
    let w = whitened(source, observer)?;
    let (chain, _) = lewis_chain(source, &w.whitener, w.n_rows, p, SCORE_TOLERANCE, observer)?;
    all_scores(
        source,
        &Scorer { score: Score::Lewis(chain), augment: false, floor: 0.0, leverage: w.whitener },
        observer,
    )
}

/// Every row's score, in row order.
pub(crate) fn all_scores(source: &dyn RowSource, scorer: &Scorer, observer: &dyn Observer) -> Result<Vec<f64>> {
    rows::fold(
        source,
        observer,
        Vec::new,
        |all: &mut Vec<f64>, block| {
            let (from, n) = (all.len(), block.n_rows());
            all.resize(from + n, 0.0);
            let mut leverages = vec![0.0; n];
            scorer.score(block.values, &mut all[from..], &mut leverages)
        },
        |all, mut part| all.append(&mut part),
    )
}

/// `p` must be a finite number of at least one.
pub(crate) fn check_p(p: f64) -> Result<()> {
    if p >= 1.0 && p.is_finite() { Ok(()) } else { Err(Error::parameter("p", p, "a finite number of at least 1")) }
}

/// The whitened table of lifted rows (one pass).
pub(crate) fn whitened_lift(source: &dyn RowSource, lift: &Lift, observer: &dyn Observer) -> Result<Whitened> {
    whitened(&LiftedRows::new(source, lift)?, observer)
}
