//! Priority draws (Duffield, Lund, Thorup, "Priority sampling", JACM 2007): the rows with the smallest `U/s`, exactly `target` of
//! them; with `T` the next smallest, a kept row has probability `min(1, s T)`.
//!
//! The guard must be part of the score here, as there is no scale: `s' = max(s, guard · τ / c)` with `c` the smallest scale
//! that the target can lead to.

use serde::{Deserialize, Serialize};

use super::{Choice, DrawPlan, Drawn, Inclusion, Kept, Scorer, TILE_ROWS, Tally, fill_uniforms, score_block};
use crate::error::Result;
use crate::observe::{Observer, phase};
use crate::remote::{self, Pass};
use crate::rows::{RowBlock, RowSource};

pub(super) fn draw(source: &dyn RowSource, scorer: Scorer, plan: &DrawPlan, observer: &dyn Observer) -> Result<Drawn> {
    let mut pass = Priority { scorer, plan: *plan, likely: plan.likely_scale(source) };
    let size = pass.size();
    let mut passes = 1;
    let mut smallest = remote::run(source, &pass, observer)?;
    if smallest.tally.kept.len() <= size && pass.likely < f64::INFINITY {
        // Rows with larger keys than was likely are part of the sample.
        pass.likely = f64::INFINITY;
        passes += 1;
        phase(observer, "draw", source.n_rows());
        smallest = remote::run(source, &pass, observer)?;
    }
    smallest.keep(size + 1);
    let mut tally = smallest.tally;
    let threshold = if tally.kept.len() <= size {
        f64::INFINITY
    } else {
        let keys = priority_keys(&tally.kept);
        let threshold = keys.iter().copied().fold(0.0, f64::max);
        let last = keys.iter().rposition(|k| *k == threshold);
        tally.kept.retain(|i| Some(i) != last);
        threshold
    };
    let inclusion = Inclusion { scale: threshold, floor: 0.0, guard: 0.0 };
    tally.kept.set_probabilities(&inclusion);
    let n = tally.kept.len() as f64;
    Ok(tally.finish(threshold, n, passes))
}

/// The pass: counts all rows, keeps those with the smallest keys.
#[derive(Serialize, Deserialize)]
pub(crate) struct Priority {
    scorer: Scorer,
    plan: DrawPlan,
    /// No row with a larger key is kept.
    likely: f64,
}

impl Priority {
    fn size(&self) -> usize {
        self.plan.target.round() as usize
    }
}

impl Pass for Priority {
    const NAME: &'static str = "priority";
    type State = Smallest;

    fn start(&self, n_cols: usize) -> Smallest {
        Smallest { tally: Tally::new(&self.plan, n_cols), bar: self.likely }
    }

    fn step(&self, smallest: &mut Smallest, block: &RowBlock<'_>) -> Result<()> {
        let guard = self.plan.guard * self.plan.score_bound / self.plan.target;
        let tally = &mut smallest.tally;
        tally.rows_in += block.n_rows() as u64;
        let (scores, leverages) = score_block(block, &self.scorer)?;
        let mut uniforms = vec![0.0; scores.len()];
        fill_uniforms(&self.plan.stream, block, 0, &mut uniforms);
        let mut chosen = Vec::new();
        for (row, uniform) in uniforms.into_iter().enumerate() {
            tally.histogram.add(scores[row], leverages[row]);
            let (score, leverage) = (scores[row].max(guard * leverages[row]), leverages[row]);
            if score > 0.0 && uniform / score <= smallest.bar {
                chosen.push(Choice { row, score, leverage, uniform });
            }
        }
        tally.kept.extend(block, &chosen)?;
        if tally.kept.len() > 2 * self.size() + TILE_ROWS {
            smallest.keep(self.size() + 1);
        }
        Ok(())
    }

    fn merge(&self, total: &mut Smallest, part: Smallest) {
        total.tally.rows_in += part.tally.rows_in;
        total.tally.histogram.merge(&part.tally.histogram);
        total.tally.kept.append(part.tally.kept);
        total.keep(self.size() + 1);
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Smallest {
    tally: Tally,
    /// No row with a larger key can be in the sample.
    bar: f64,
}

impl Smallest {
    /// Keeps the rows with the `count` smallest keys, ties by position.
    fn keep(&mut self, count: usize) {
        if self.tally.kept.len() <= count {
            return;
        }
        let keys = priority_keys(&self.tally.kept);
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.select_nth_unstable_by(count - 1, |a, b| keys[*a].total_cmp(&keys[*b]).then(a.cmp(b)));
        self.bar = keys[order[count - 1]];
        let mut inside = vec![false; keys.len()];
        order[..count].iter().for_each(|i| inside[*i] = true);
        self.tally.kept.retain(|i| inside[i]);
    }
}

fn priority_keys(kept: &Kept) -> Vec<f64> {
    kept.uniforms.iter().zip(&kept.scores).map(|(u, s)| u / s).collect()
}
