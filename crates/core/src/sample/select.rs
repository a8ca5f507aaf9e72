//! The pass that draws rows: scores every row, keeps what can still be in the sample, decides at the end.
//!
//! The scale that turns scores into probabilities needs all scores, and they are only known once the pass is over. So the
//! pass keeps *candidates*: rows whose uniform lies below their probability at a scale that is surely too large. Any part of
//! the table gives such a scale (its probabilities alone must not exceed the target), and it falls as more rows are seen.
//! Which candidates were kept depends on timing; which of them are in the sample depends on nothing but seed, row and scale.

use std::sync::{Mutex, PoisonError};

use super::Draw;
use super::scale::{Inclusion, ScoreHistogram};
use super::scores::Scorer;
use crate::draw::Stream;
use crate::error::Result;
use crate::observe::{Observer, phase};
use crate::rows::{self, RowBlock, RowIds, RowSource};

/// Rows scored at a time; bounds the scratch.
const TILE_ROWS: usize = 1024;
/// Candidates gathered between two looks at which of them still have a chance.
const THIN_ROWS: usize = 10_000;
/// A provisional scale is this much larger than its histogram says: more than the histogram's own error.
const SLACK: f64 = 1.02;

/// Rows with what decides about them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) n_cols: usize,
    pub(crate) ids: Vec<u64>,
    pub(crate) scores: Vec<f64>,
    pub(crate) leverages: Vec<f64>,
    pub(crate) uniforms: Vec<f64>,
    /// Final probabilities, set at the end of the draw.
    pub(crate) probabilities: Vec<f64>,
    pub(crate) values: Vec<f64>,
    pub(crate) records: Vec<Box<[u8]>>,
}

impl Kept {
    fn new(n_cols: usize) -> Self {
        Self { n_cols, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Appends the rows of another list.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.ids.append(&mut other.ids);
        self.scores.append(&mut other.scores);
        self.leverages.append(&mut other.leverages);
        self.uniforms.append(&mut other.uniforms);
        self.probabilities.append(&mut other.probabilities);
        self.values.append(&mut other.values);
        self.records.append(&mut other.records);
    }

    /// Keeps the rows for which `keep(index)` holds.
    pub(crate) fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let chosen: Vec<usize> = (0..self.len()).filter(|i| keep(*i)).collect();
        if chosen.len() == self.len() {
            return;
        }
        fn pick<T>(all: &mut Vec<T>, chosen: &[usize]) {
            if !all.is_empty() {
                chosen.iter().enumerate().for_each(|(to, from)| all.swap(to, *from));
                all.truncate(chosen.len());
            }
        }
        pick(&mut self.ids, &chosen);
        pick(&mut self.scores, &chosen);
        pick(&mut self.leverages, &chosen);
        pick(&mut self.uniforms, &chosen);
        pick(&mut self.probabilities, &chosen);
        pick(&mut self.records, &chosen);
        let d = self.n_cols;
        for (to, from) in chosen.iter().enumerate() {
            self.values.copy_within(from * d..(from + 1) * d, to * d);
        }
        self.values.truncate(chosen.len() * d);
    }

    /// Appends the chosen rows (increasing local indices) of a block.
    fn extend(&mut self, block: &RowBlock<'_>, chosen: &[Choice]) -> Result<()> {
        for c in chosen {
            self.ids.push(block.id(c.row));
            self.scores.push(c.score);
            self.leverages.push(c.leverage);
            self.uniforms.push(c.uniform);
            self.values.extend_from_slice(block.row(c.row));
        }
        if let Some(records) = block.records
            && !chosen.is_empty()
        {
            let rows: Vec<usize> = chosen.iter().map(|c| c.row).collect();
            self.records.extend(records.encode(&rows)?);
        }
        Ok(())
    }
}

struct Choice {
    row: usize,
    score: f64,
    leverage: f64,
    uniform: f64,
}

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
#[derive(Debug, Clone, Copy)]
pub(crate) struct DrawPlan {
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

/// Draws rows of the source.
pub(crate) fn draw_rows(
    source: &dyn RowSource,
    scorer: &Scorer,
    plan: &DrawPlan,
    observer: &dyn Observer,
) -> Result<Drawn> {
    phase(observer, "draw", source.n_rows());
    match plan.draw {
        Draw::Poisson => poisson(source, scorer, plan, observer),
        Draw::Systematic => systematic(source, scorer, plan, observer),
        Draw::Priority => priority(source, scorer, plan, observer),
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
struct Tally {
    histogram: ScoreHistogram,
    rows_in: u64,
    kept: Kept,
    /// No row with a larger priority key can be in the sample.
    bar: f64,
    /// Candidates at which it is time to drop those that have no chance any more.
    thin_at: usize,
}

impl Tally {
    fn new(plan: &DrawPlan, n_cols: usize) -> Self {
        let histogram = ScoreHistogram::new(plan.floor, plan.guard);
        Self { histogram, rows_in: 0, kept: Kept::new(n_cols), bar: f64::INFINITY, thin_at: THIN_ROWS }
    }

    /// Drops the candidates outside `inclusion`, once in a while.
    fn thin_sometimes(&mut self, inclusion: &Inclusion) {
        if self.kept.len() >= self.thin_at {
            thin(&mut self.kept, inclusion);
            self.thin_at = self.kept.len() + self.kept.len() / 4 + THIN_ROWS;
        }
    }

    /// Keeps the rows with the `count` smallest priority keys, ties by position.
    fn keep_smallest(&mut self, count: usize) {
        if self.kept.len() <= count {
            return;
        }
        let keys = priority_keys(&self.kept);
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.select_nth_unstable_by(count - 1, |a, b| keys[*a].total_cmp(&keys[*b]).then(a.cmp(b)));
        self.bar = keys[order[count - 1]];
        let mut inside = vec![false; keys.len()];
        order[..count].iter().for_each(|i| inside[*i] = true);
        self.kept.retain(|i| inside[i]);
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

fn poisson(source: &dyn RowSource, scorer: &Scorer, plan: &DrawPlan, observer: &dyn Observer) -> Result<Drawn> {
    let DrawPlan { floor, guard, target, stream, .. } = *plan;
    let too_large = ScaleBound::new(plan);
    let mut tally = rows::fold(
        source,
        observer,
        || Tally::new(plan, source.n_cols()),
        |tally, block| {
            tally.rows_in += block.n_rows() as u64;
            let (scores, leverages) = score_block(block, scorer)?;
            let mut histogram = ScoreHistogram::new(floor, guard).skipping_below(plan.least_scale);
            scores.iter().zip(&leverages).for_each(|(s, t)| histogram.add(*s, *t));
            tally.histogram.merge(&histogram);
            let inclusion = Inclusion { scale: too_large.lower(&histogram), floor, guard };
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
            tally.thin_sometimes(&inclusion);
            Ok(())
        },
        |total, part| {
            total.rows_in += part.rows_in;
            total.histogram.merge(&part.histogram);
            total.kept.append(part.kept);
            total.thin_sometimes(&Inclusion { scale: too_large.get(), floor, guard });
        },
    )?;
    let scale = tally.histogram.solve(target);
    let inclusion = Inclusion { scale, floor, guard };
    thin(&mut tally.kept, &inclusion);
    set_probabilities(&mut tally.kept, &inclusion);
    let expected = tally.histogram.expected(scale);
    Ok(tally.finish(scale, expected, 1))
}

fn fill_uniforms(stream: &Stream, block: &RowBlock<'_>, first: usize, uniforms: &mut [f64]) {
    match block.ids {
        RowIds::From(start) => stream.uniforms(start + first as u64, uniforms),
        RowIds::List(ids) => uniforms.iter_mut().zip(&ids[first..]).for_each(|(u, id)| *u = stream.uniform(*id)),
    }
}

fn thin(kept: &mut Kept, inclusion: &Inclusion) {
    let inside: Vec<bool> =
        (0..kept.len()).map(|i| kept.uniforms[i] < inclusion.probability(kept.scores[i], kept.leverages[i])).collect();
    kept.retain(|i| inside[i]);
}

fn set_probabilities(kept: &mut Kept, inclusion: &Inclusion) {
    kept.probabilities = kept.scores.iter().zip(&kept.leverages).map(|(s, t)| inclusion.probability(*s, *t)).collect();
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

/// Systematic: row `i` is kept when the running sum of probabilities passes a point of the grid `start + integer` in it.
///
/// The running sum needs the probabilities of all earlier rows: one pass for the scale, one for each chunk's sum, one to draw.
fn systematic(source: &dyn RowSource, scorer: &Scorer, plan: &DrawPlan, observer: &dyn Observer) -> Result<Drawn> {
    let DrawPlan { floor, guard, target, stream, .. } = *plan;
    let mut tally = rows::fold(
        source,
        observer,
        || Tally::new(plan, source.n_cols()),
        |tally, block| {
            tally.rows_in += block.n_rows() as u64;
            let (scores, leverages) = score_block(block, scorer)?;
            scores.iter().zip(&leverages).for_each(|(s, t)| tally.histogram.add(*s, *t));
            Ok(())
        },
        |total, part| {
            total.rows_in += part.rows_in;
            total.histogram.merge(&part.histogram);
        },
    )?;
    let scale = tally.histogram.solve(target);
    let inclusion = Inclusion { scale, floor, guard };
    // (first row of the chunk, sum of its probabilities), in chunk order.
    let sums: Vec<(u64, f64)> = rows::fold(
        source,
        observer,
        Vec::new,
        |sums: &mut Vec<(u64, f64)>, block| {
            if block.n_rows() == 0 {
                return Ok(());
            }
            if sums.is_empty() {
                sums.push((block.id(0), 0.0));
            }
            let (scores, leverages) = score_block(block, scorer)?;
            for (s, t) in scores.iter().zip(&leverages) {
                sums[0].1 += inclusion.probability(*s, *t);
            }
            Ok(())
        },
        |sums, mut more| sums.append(&mut more),
    )?;
    let mut total = 0.0;
    let mut offsets = Vec::with_capacity(sums.len());
    for (first, sum) in &sums {
        offsets.push((*first, total));
        total += sum;
    }
    let start = stream.uniform(0);
    let (kept, _) = rows::fold(
        source,
        observer,
        || (Kept::new(source.n_cols()), None::<f64>),
        |(kept, running), block| {
            if block.n_rows() == 0 {
                return Ok(());
            }
            let known = offsets.partition_point(|(first, _)| *first <= block.id(0)).saturating_sub(1);
            let running = running.get_or_insert_with(|| offsets[known].1);
            let (scores, leverages) = score_block(block, scorer)?;
            let mut chosen = Vec::new();
            for (row, (score, leverage)) in scores.into_iter().zip(leverages).enumerate() {
                let before = *running;
                *running += inclusion.probability(score, leverage);
                if (*running - start).floor() > (before - start).floor() {
                    chosen.push(Choice { row, score, leverage, uniform: start });
                }
            }
            kept.extend(block, &chosen)
        },
        |(kept, _), (more, _)| kept.append(more),
    )?;
    tally.kept = kept;
    set_probabilities(&mut tally.kept, &inclusion);
    Ok(tally.finish(scale, total, 3))
}

/// Priority (Duffield, Lund, Thorup, "Priority sampling", JACM 2007): the rows with the smallest `U/s`, exactly `target` of
/// them; with `T` the next smallest, a kept row has probability `min(1, s T)`.
///
/// The guard must be part of the score here, as there is no scale: `s' = max(s, guard · τ / c)` with `c` the smallest scale
/// that the target can lead to.
fn priority(source: &dyn RowSource, scorer: &Scorer, plan: &DrawPlan, observer: &dyn Observer) -> Result<Drawn> {
    let DrawPlan { guard, target, stream, .. } = *plan;
    let size = target.round() as usize;
    let guard = guard * plan.score_bound / target;
    let mut tally = rows::fold(
        source,
        observer,
        || Tally::new(plan, source.n_cols()),
        |tally, block| {
            tally.rows_in += block.n_rows() as u64;
            let (scores, leverages) = score_block(block, scorer)?;
            let mut uniforms = vec![0.0; scores.len()];
            fill_uniforms(&stream, block, 0, &mut uniforms);
            let mut chosen = Vec::new();
            for (row, uniform) in uniforms.into_iter().enumerate() {
                tally.histogram.add(scores[row], leverages[row]);
                let (score, leverage) = (scores[row].max(guard * leverages[row]), leverages[row]);
                if score > 0.0 && uniform / score <= tally.bar {
                    chosen.push(Choice { row, score, leverage, uniform });
                }
            }
            tally.kept.extend(block, &chosen)?;
            if tally.kept.len() > 2 * size + TILE_ROWS {
                tally.keep_smallest(size + 1);
            }
            Ok(())
        },
        |total, part| {
            total.rows_in += part.rows_in;
            total.histogram.merge(&part.histogram);
            total.kept.append(part.kept);
            total.keep_smallest(size + 1);
        },
    )?;
    tally.keep_smallest(size + 1);
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
    set_probabilities(&mut tally.kept, &inclusion);
    let n = tally.kept.len() as f64;
    Ok(tally.finish(threshold, n, 1))
}

fn priority_keys(kept: &Kept) -> Vec<f64> {
    kept.uniforms.iter().zip(&kept.scores).map(|(u, s)| u / s).collect()
}
