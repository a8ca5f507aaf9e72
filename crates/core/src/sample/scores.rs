//! Importance scores as stateless functions of a row, and the passes that prepare them.

use serde::{Deserialize, Serialize};
use subspan_linalg::apply::{RowFactor, row_norms_sq};
use subspan_linalg::{LinalgError, Mat, Whitener, gram, precondition, whiten};

use super::lewis::{LewisChain, SCORE_TOLERANCE, lewis_chain};
use super::lift::{Lift, LiftedRows};
use super::scaled::ScaledRows;
use super::sensitivity::SensitivitySolver;
use crate::error::{Error, Result};
use crate::observe::{Observer, phase};
use crate::remote::{self, Pass};
use crate::rows::{self, RowBlock, RowSource};

/// Rows mapped at a time.
const TILE_ROWS: usize = 512;

/// A table's whitening factor and size.
#[derive(Debug, Clone)]
pub(crate) struct Whitened {
    /// `‖a F‖²` is the leverage of a row.
    pub(crate) whitener: Whitener,
    pub(crate) n_rows: u64,
    /// Passes over the source it took.
    pub(crate) passes: usize,
    /// Whether a column is zero or too small for its squares.
    pub(crate) columns_lost: bool,
}

/// Reads the table once for its whitening factor, a second time if it is ill-conditioned or rank-deficient.
pub(crate) fn whitened(source: &dyn RowSource, observer: &dyn Observer) -> Result<Whitened> {
    phase(observer, "score", source.n_rows());
    let (gram, n_rows) = gram_pass(source, observer)?;
    if n_rows == 0 {
        return Err(Error::Empty { what: "rows" });
    }
    let n_cols = gram.n_rows();
    let redundant = source.redundant();
    let places: Vec<usize> = (0..n_cols).filter(|j| !redundant.contains(j)).collect();
    let part = Mat::from_fn(places.len(), places.len(), |i, j| gram[(places[i], places[j])]);
    let whitener = whiten(&part, n_rows)?.spread(&places, n_cols);
    let mut found = Whitened { whitener, n_rows, passes: 1, columns_lost: columns_lost(&gram) };
    if !found.whitener.resolved {
        let first = precondition(&part, n_rows)?.spread(&places, n_cols);
        found.whitener = first.refine(&mapped_gram_pass(source, &first, observer)?, n_rows)?;
        found.passes = 2;
    }
    if found.whitener.rank == 0 && !found.columns_lost {
        return Err(Error::AllZero);
    }
    Ok(found)
}

/// [`whitened`], of the source itself or, where the squares of its values leave the range of `f64`, of its columns scaled to
/// size one.
pub(crate) fn whitened_in_range<'a>(
    source: &'a dyn RowSource,
    observer: &dyn Observer,
) -> Result<(Option<ScaledRows<'a>>, Whitened)> {
    let found = match whitened(source, observer) {
        Ok(found) if !found.columns_lost => return Ok((None, found)),
        Err(Error::Linalg(LinalgError::NonFinite { .. })) => None,
        other => Some(other?),
    };
    match (ScaledRows::new(source, observer)?, found) {
        (Some(scaled), _) => {
            let whitened = whitened(&scaled, observer)?;
            Ok((Some(scaled), whitened))
        }
        (None, Some(found)) if found.whitener.rank > 0 => Ok((None, found)),
        (None, Some(_)) => Err(Error::AllZero),
        (None, None) => Err(Error::Linalg(LinalgError::NonFinite { row: 0, column: 0 })),
    }
}

/// Whether a column's sum of squares is so small that it may have been lost to underflow.
fn columns_lost(gram: &Mat) -> bool {
    const SMALLEST_SURE_SUM: f64 = 1e-250;
    (0..gram.n_rows()).any(|j| gram[(j, j)] < SMALLEST_SURE_SUM)
}

/// `(AF)ᵀ(AF)` in one pass.
fn mapped_gram_pass(source: &dyn RowSource, whitener: &Whitener, observer: &dyn Observer) -> Result<Mat> {
    let mut total = remote::run(source, &MappedGram(whitener.clone()), observer)?;
    gram::symmetrize(total.as_mut_slice(), whitener.factor.n_cols());
    Ok(total)
}

/// The pass of [`mapped_gram_pass`]: the upper triangle.
#[derive(Serialize, Deserialize)]
pub(crate) struct MappedGram(Whitener);

impl Pass for MappedGram {
    const NAME: &'static str = "mapped-gram";
    type State = Mat;

    fn start(&self, _: usize) -> Mat {
        Mat::zeros(self.0.factor.n_cols(), self.0.factor.n_cols())
    }

    fn step(&self, total: &mut Mat, block: &RowBlock<'_>) -> Result<()> {
        let (d, r) = (block.n_cols, self.0.factor.n_cols());
        let factor = RowFactor::new(&self.0.factor, self.0.upper);
        let mut mapped = vec![0.0; TILE_ROWS * r];
        for tile in block.values.chunks(TILE_ROWS * d) {
            let mapped = &mut mapped[..tile.len() / d * r];
            factor.map_rows(tile, mapped);
            gram::add_gram(mapped, r, total.as_mut_slice());
        }
        Ok(())
    }

    fn merge(&self, total: &mut Mat, g: Mat) {
        total.as_mut_slice().iter_mut().zip(g.as_slice()).for_each(|(t, g)| *t += g);
    }
}

/// `AᵀA` (both triangles) and the number of rows.
pub(crate) fn gram_pass(source: &dyn RowSource, observer: &dyn Observer) -> Result<(Mat, u64)> {
    let (mut total, n_rows) = remote::run(source, &Gram, observer)?;
    gram::symmetrize(total.as_mut_slice(), source.n_cols());
    Ok((total, n_rows))
}

/// The pass of [`gram_pass`]: the upper triangle, and the number of rows.
#[derive(Serialize, Deserialize)]
pub(crate) struct Gram;

impl Pass for Gram {
    const NAME: &'static str = "gram";
    type State = (Mat, u64);

    fn start(&self, n_cols: usize) -> (Mat, u64) {
        (Mat::zeros(n_cols, n_cols), 0)
    }

    fn step(&self, (total, n_rows): &mut (Mat, u64), block: &RowBlock<'_>) -> Result<()> {
        gram::add_gram(block.values, block.n_cols, total.as_mut_slice());
        *n_rows += block.n_rows() as u64;
        Ok(())
    }

    fn merge(&self, (total, n_rows): &mut (Mat, u64), (g, n): (Mat, u64)) {
        total.as_mut_slice().iter_mut().zip(g.as_slice()).for_each(|(t, g)| *t += g);
        *n_rows += n;
    }
}

/// A function from rows to (score, leverage).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scorer {
    pub(crate) score: Score,
    /// Adds the leverage to the score.
    pub(crate) augment: bool,
    /// Raises every score to at least this (1/n for losses that do not vanish at zero).
    pub(crate) floor: f64,
    pub(crate) leverage: Whitener,
}

/// The part of a [`Scorer`] that differs between rules.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    let (scaled, found) = whitened_in_range(source, observer)?;
    let score = Score::Leverage { power: 1.0 };
    let scorer = Scorer { score, augment: false, floor: 0.0, leverage: found.whitener };
    all_scores(scaled.as_ref().map_or(source, |s| s), &scorer, observer)
}

/// l_p Lewis weights of every row to a log-error of 1e-6; they add up to the rank.
///
/// One pass per iteration (about 14 at `p = 1`, 14 at `p = 4`).
///
/// # Errors
/// `p < 1`, an empty or all-zero table, [`Error::NotConverged`], what the source reports.
pub fn lewis_weights(source: &dyn RowSource, p: f64, observer: &dyn Observer) -> Result<Vec<f64>> {
    check_p(p)?;
    let (scaled, found) = whitened_in_range(source, observer)?;
    let source = scaled.as_ref().map_or(source, |s| s);
    let (chain, _) = lewis_chain(source, &found.whitener, found.n_rows, p, SCORE_TOLERANCE, observer)?;
    let scorer = Scorer { score: Score::Lewis(chain), augment: false, floor: 0.0, leverage: found.whitener };
    all_scores(source, &scorer, observer)
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
