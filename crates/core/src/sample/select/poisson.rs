//! Poisson draws: every row on its own.
//!
//! A row is a candidate while its uniform lies below its probability at a scale that is surely too large. Any part of the table
//! gives such a scale (its probabilities alone must not exceed the target), and it falls as more rows are seen.

use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Choice, DrawPlan, Drawn, Inclusion, ScoreHistogram, Scorer, TILE_ROWS, Tally, fill_uniforms, score_block};
use crate::error::Result;
use crate::observe::{Observer, phase};
use crate::remote::{self, Pass};
use crate::rows::{RowBlock, RowSource};

/// Candidates gathered between two looks at which of them still have a chance.
const THIN_ROWS: usize = 10_000;
/// A provisional scale is this much larger than its histogram says: more than the histogram's own error.
const SLACK: f64 = 1.02;

pub(super) fn draw(source: &dyn RowSource, scorer: Scorer, plan: &DrawPlan, observer: &dyn Observer) -> Result<Drawn> {
    let mut pass = Poisson { scorer, plan: *plan, likely: plan.likely_scale(source), too_large: OnceLock::new() };
    let mut passes = 1;
    loop {
        let Candidates { mut tally, .. } = remote::run(source, &pass, observer)?;
        let scale = tally.histogram.solve(plan.target);
        if scale > pass.likely {
            // Candidates were dropped too early. All scores are counted, so the next pass knows the scale.
            (pass.likely, pass.too_large) = (scale, OnceLock::new());
            passes += 1;
            phase(observer, "draw", source.n_rows());
            continue;
        }
        let inclusion = pass.inclusion(scale);
        tally.kept.thin(&inclusion);
        tally.kept.set_probabilities(&inclusion);
        let expected = tally.histogram.expected(scale);
        return Ok(tally.finish(scale, expected, passes));
    }
}

/// The pass: counts all rows, keeps candidates.
#[derive(Serialize, Deserialize)]
pub(crate) struct Poisson {
    scorer: Scorer,
    plan: DrawPlan,
    /// No candidate is kept for a larger scale.
    likely: f64,
    /// What the rows seen in this process tell.
    #[serde(skip)]
    too_large: OnceLock<ScaleBound>,
}

impl Poisson {
    fn inclusion(&self, scale: f64) -> Inclusion {
        Inclusion { scale, floor: self.plan.floor, guard: self.plan.guard }
    }

    fn bound(&self) -> &ScaleBound {
        self.too_large.get_or_init(|| ScaleBound::new(&self.plan))
    }
}

impl Pass for Poisson {
    const NAME: &'static str = "poisson";
    type State = Candidates;

    fn start(&self, n_cols: usize) -> Candidates {
        Candidates { tally: Tally::new(&self.plan, n_cols), thin_at: THIN_ROWS }
    }

    fn step(&self, candidates: &mut Candidates, block: &RowBlock<'_>) -> Result<()> {
        let DrawPlan { floor, guard, stream, least_scale, .. } = self.plan;
        let tally = &mut candidates.tally;
        tally.rows_in += block.n_rows() as u64;
        let (scores, leverages) = score_block(block, &self.scorer)?;
        let mut histogram = ScoreHistogram::new(floor, guard).skipping_below(least_scale);
        scores.iter().zip(&leverages).for_each(|(s, t)| histogram.add(*s, *t));
        tally.histogram.merge(&histogram);
        let inclusion = self.inclusion(self.bound().lower(&histogram).min(self.likely));
        let mut uniforms = [0.0; TILE_ROWS];
        for (k, (scores, leverages)) in scores.chunks(TILE_ROWS).zip(leverages.chunks(TILE_ROWS)).enumerate() {
            let first = k * TILE_ROWS;
            let uniforms = &mut uniforms[..scores.len()];
            fill_uniforms(&stream, block, first, uniforms);
            let chosen: Vec<Choice> = (0..scores.len())
                .filter(|i| uniforms[*i] < inclusion.probability(scores[*i], leverages[*i]))
                .map(|i| Choice { row: first + i, score: scores[i], leverage: leverages[i], uniform: uniforms[i] })
                .collect();
            tally.kept.extend(block, &chosen)?;
        }
        candidates.thin_sometimes(&inclusion);
        Ok(())
    }

    fn merge(&self, total: &mut Candidates, part: Candidates) {
        total.tally.rows_in += part.tally.rows_in;
        total.tally.histogram.merge(&part.tally.histogram);
        total.tally.kept.append(part.tally.kept);
        // Where other processes saw the rows, this one knows of them what it has merged.
        let merged = &total.tally.histogram;
        let bound = self.too_large.get().map_or_else(|| SLACK * merged.solve(self.plan.target), ScaleBound::get);
        total.thin_sometimes(&self.inclusion(bound.min(self.likely)));
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Candidates {
    tally: Tally,
    /// Candidates at which it is time to drop those that have no chance any more.
    thin_at: usize,
}

impl Candidates {
    /// Drops the candidates outside `inclusion`, once in a while.
    fn thin_sometimes(&mut self, inclusion: &Inclusion) {
        let kept = &mut self.tally.kept;
        if kept.len() >= self.thin_at {
            kept.thin(inclusion);
            self.thin_at = kept.len() + kept.len() / 4 + THIN_ROWS;
        }
    }
}

/// A scale that is surely at least the final one, falling as rows are seen by any thread.
struct ScaleBound {
    target: f64,
    state: Mutex<(ScoreHistogram, f64, u64)>,
}

impl ScaleBound {
    fn new(plan: &DrawPlan) -> Self {
        let histogram = ScoreHistogram::new(plan.floor, plan.guard);
        Self { target: plan.target, state: Mutex::new((histogram, f64::INFINITY, 0)) }
    }

    /// Takes more rows into account and returns the bound.
    fn lower(&self, more: &ScoreHistogram) -> f64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (histogram, bound, solved_at) = &mut *state;
        histogram.merge(more);
        // Solving costs as much as scoring a few hundred rows: only when a fifth more rows can have moved it.
        if histogram.rows() as f64 > 1.2 * *solved_at as f64 {
            *solved_at = histogram.rows();
            *bound = bound.min(SLACK * histogram.solve(self.target));
        }
        *bound
    }

    fn get(&self) -> f64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}
