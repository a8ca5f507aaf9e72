//! The pass that draws rows: scores every row, keeps what can still be in the sample, decides at the end.
//!
//! The probabilities need all scores, and they are only known once the pass is over. So a pass keeps *candidates*: rows that
//! can still be in the sample, whatever comes. Which candidates were kept depends on timing; which of them are in the sample
//! depends on nothing but seed, row and scale.

mod kept;
mod poisson;
mod priority;
mod systematic;

use kept::Choice;
pub(crate) use kept::Kept;
pub(crate) use poisson::Poisson;
pub(crate) use priority::Priority;
use serde::{Deserialize, Serialize};

use super::Draw;
use super::scale::{Inclusion, ScoreHistogram};
use super::scores::Scorer;
use crate::draw::Stream;
use crate::error::Result;
use crate::observe::{Observer, phase};
use crate::rows::{RowBlock, RowIds, RowSource};

/// Rows scored at a time; bounds the scratch.
const TILE_ROWS: usize = 1024;

/// The outcome of a draw over a table.
#[derive(Debug, Clone)]
pub(crate) struct Drawn {
    pub(crate) kept: Kept,
    pub(crate) scale: f64,
    pub(crate) score_sum: f64,
    pub(crate) rows_in: u64,
    /// Rows with neither score nor leverage.
    pub(crate) zero_rows: u64,
    pub(crate) rows_expected: f64,
    pub(crate) passes: usize,
}

/// How to draw: everything but the scores.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct DrawPlan {
    #[serde(skip)]
    pub(crate) draw: Draw,
    /// Expected rows.
    pub(crate) target: f64,
    pub(crate) floor: f64,
    pub(crate) guard: f64,
    /// At least the sum of all scores, where known beforehand; places the guard of a priority draw.
    pub(crate) score_bound: f64,
    /// No larger than the scale that the draw will end with; zero where nothing is known.
    pub(crate) least_scale: f64,
    /// Keyed by row id.
    pub(crate) stream: Stream,
}

/// A likely bound of the scale is this many times the least that the bound of the scores allows.
const LIKELY: f64 = 2.0;

impl DrawPlan {
    /// What the final scale is unlikely to exceed; infinite where it is not worth a guess.
    ///
    /// Chunks that are folded apart do not know each other's scores, so each would keep candidates for the scale that it needs by
    /// itself: the whole target, per chunk. A guess makes it a few targets in all, at the price of one more pass if it fails.
    fn likely_scale(&self, source: &dyn RowSource) -> f64 {
        let apart = source.origin().is_some_and(|origin| !origin.remote.passes_are_dear());
        if apart && source.n_chunks() as f64 > LIKELY { LIKELY * self.target / self.score_bound } else { f64::INFINITY }
    }
}

/// Draws rows of the source.
pub(crate) fn draw_rows(
    source: &dyn RowSource,
    scorer: Scorer,
    plan: &DrawPlan,
    observer: &dyn Observer,
) -> Result<Drawn> {
    phase(observer, "draw", source.n_rows());
    match plan.draw {
        Draw::Poisson => poisson::draw(source, scorer, plan, observer),
        Draw::Systematic => systematic::draw(source, &scorer, plan, observer),
        Draw::Priority => priority::draw(source, scorer, plan, observer),
    }
}

/// Scores and leverages of all rows of a block.
fn score_block(block: &RowBlock<'_>, scorer: &Scorer) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut scores, mut leverages) = (vec![0.0; block.n_rows()], vec![0.0; block.n_rows()]);
    for ((tile, scores), leverages) in block
        .values
        .chunks(TILE_ROWS * block.n_cols)
        .zip(scores.chunks_mut(TILE_ROWS))
        .zip(leverages.chunks_mut(TILE_ROWS))
    {
        scorer.score(tile, scores, leverages)?;
    }
    Ok((scores, leverages))
}

/// What every draw counts.
#[derive(Serialize, Deserialize)]
struct Tally {
    histogram: ScoreHistogram,
    rows_in: u64,
    kept: Kept,
}

impl Tally {
    fn new(plan: &DrawPlan, n_cols: usize) -> Self {
        let histogram = ScoreHistogram::new(plan.floor, plan.guard);
        Self { histogram, rows_in: 0, kept: Kept::new(n_cols) }
    }

    fn finish(self, scale: f64, rows_expected: f64, passes: usize) -> Drawn {
        Drawn {
            scale,
            score_sum: self.histogram.score_sum(),
            rows_in: self.rows_in,
            zero_rows: self.rows_in - self.histogram.rows(),
            rows_expected,
            kept: self.kept,
            passes,
        }
    }
}

/// The uniform numbers of a block's rows from `first` on.
fn fill_uniforms(stream: &Stream, block: &RowBlock<'_>, first: usize, uniforms: &mut [f64]) {
    match block.ids {
        RowIds::From(start) => stream.uniforms(start + first as u64, uniforms),
        RowIds::List(ids) => uniforms.iter_mut().zip(&ids[first..]).for_each(|(u, id)| *u = stream.uniform(*id)),
    }
}
