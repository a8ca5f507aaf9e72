//! The stages of a sampling run: from a rule to scores, from scores to rows, and again from those rows.

use super::lewis::{self, LewisChain};
use super::lift::Lift;
use super::scores::{Score, Scorer, Whitened, whitened, whitened_lift};
use super::select::{DrawPlan, Drawn, Kept, draw_rows};
use super::sensitivity::{DEFAULT_TOTAL_DRAWS, SensitivitySolver, TotalSensitivity};
use super::stages::{Stage, lift_fits};
use super::{Config, Draw, Rule};
use crate::draw::Stream;
use crate::error::Result;
use crate::observe::Observer;
use crate::rows::{MEMORY_CHUNK_ROWS, RowBlock, RowIds, RowSource};

/// Rows per column of the Lewis coreset that sensitivities are solved against: its distortion is what they are conditional on.
const CORESET_FACTOR: usize = 20;
/// A sensitivity only steers a draw: a per cent more rows are cheaper than a tighter solve.
const SOLVE_TOLERANCE: f64 = 0.01;

/// What the draws of one run have in common, and what they report.
pub(crate) struct Draws<'a> {
    pub(crate) config: &'a Config,
    pub(crate) seed: u64,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) passes: usize,
    pub(crate) lewis_delta: Option<f64>,
    /// The lifted table, once whitened.
    pub(crate) lifted: Option<(Lift, Whitened)>,
    /// The whole table's Lewis chain, once iterated.
    chain: Option<LewisChain>,
}

/// A source that was whitened, and its place among the stages.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    pub(crate) source: &'a dyn RowSource,
    pub(crate) whitened: &'a Whitened,
    /// Whether it is the table of the run, not a sample of it.
    pub(crate) whole: bool,
}

impl<'a> Draws<'a> {
    pub(crate) fn new(config: &'a Config, seed: u64, observer: &'a dyn Observer) -> Self {
        Self { config, seed, observer, passes: 0, lewis_delta: None, lifted: None, chain: None }
    }

    /// One draw; `name` keys its random numbers.
    pub(crate) fn draw(&mut self, table: Table<'_>, stage: Stage, name: &str) -> Result<Drawn> {
        let p = self.config.p;
        let (n, rank) = (table.whitened.n_rows as f64, table.whitened.whitener.rank as f64);
        let score = self.score(table, stage.rule)?;
        let scorer = Scorer {
            score,
            augment: self.config.augment || stage.rule == Rule::SensitivityLeverage || self.lewis_needs_leverage(stage),
            floor: if self.config.loss_floor { n.recip() } else { 0.0 },
            leverage: table.whitened.whitener.clone(),
        };
        // Rank guard: at least 4 ln(2d) times the leverage keeps every direction of the table in a small sample.
        let guard = if p < 2.0 && stage.rule != Rule::Uniform { 4.0 * (2.0 * rank).ln() } else { 0.0 };
        let floor = if stage.rule == Rule::Paper { n.recip() } else { 0.0 };
        let score_bound = match stage.rule {
            Rule::Uniform => n,
            Rule::RootLeverage => n.powf(1.0 - 0.5 * p) * rank.powf(0.5 * p),
            _ => rank.max(rank.powf(0.5 * p)),
        };
        // Guard and floor take at most `guard · rank + floor · n` rows of the target; the scores share the rest. The bound on
        // their sum is a theorem for these two rules only.
        let proved =
            matches!(stage.rule, Rule::RootLeverage | Rule::Leverage) && !scorer.augment && scorer.floor == 0.0;
        let least_scale =
            if proved { ((stage.target - guard * rank - floor * n) / (1.001 * score_bound)).max(0.0) } else { 0.0 };
        let plan = DrawPlan {
            // Only the last stage is what the user sees; Poisson is the draw that stages compose with.
            draw: if stage.last { self.config.draw } else { Draw::Poisson },
            target: stage.target,
            floor,
            guard,
            score_bound,
            least_scale,
            stream: Stream::new(self.seed, name),
        };
        let drawn = draw_rows(table.source, scorer, &plan, self.observer)?;
        self.passes += drawn.passes;
        Ok(drawn)
    }

    /// A draw from the rows of an earlier one; probabilities multiply.
    pub(crate) fn draw_again(&mut self, first: &Kept, stage: Stage) -> Result<Drawn> {
        let rows = WeightedRows::new(first, self.config.p);
        let whitened = whitened(&rows, self.observer)?;
        let before = self.passes;
        let mut drawn =
            self.draw(Table { source: &rows, whitened: &whitened, whole: false }, stage, "rows of the second stage")?;
        self.passes = before;
        let kept = &mut drawn.kept;
        kept.values.clear();
        for (id, q) in kept.ids.iter().zip(&mut kept.probabilities) {
            // Both lists of ids increase, and the second is part of the first.
            let i = first.ids.partition_point(|other| other < id);
            *q *= first.probabilities[i];
            kept.values.extend_from_slice(&first.values[i * first.n_cols..(i + 1) * first.n_cols]);
            if let Some(record) = first.records.get(i) {
                kept.records.push(record.clone());
            }
        }
        Ok(drawn)
    }

    /// Without the lift's bound, Lewis sampling for `p > 2` adds leverage: it costs a factor of two in rows and keeps the
    /// sample's rank.
    fn lewis_needs_leverage(&self, stage: Stage) -> bool {
        stage.rule == Rule::Lewis && self.config.rule == Rule::Auto && self.config.p > 2.0 && self.lifted.is_none()
    }

    fn score(&mut self, table: Table<'_>, rule: Rule) -> Result<Score> {
        let p = self.config.p;
        Ok(match rule {
            Rule::Uniform => Score::Uniform,
            Rule::Leverage => Score::Leverage { power: 1.0 },
            Rule::RootLeverage => Score::Leverage { power: 0.5 * p },
            // All scores agree at p = 2.
            _ if p == 2.0 => Score::Leverage { power: 1.0 },
            Rule::Auto | Rule::Lewis => Score::Lewis(self.lewis(table)?),
            Rule::Sensitivity | Rule::SensitivityLeverage | Rule::Paper => self.sensitivity(table)?,
        })
    }

    fn lewis(&mut self, table: Table<'_>) -> Result<LewisChain> {
        if table.whole
            && let Some(chain) = &self.chain
        {
            return Ok(chain.clone());
        }
        let Whitened { whitener, n_rows, .. } = table.whitened;
        let (chain, delta) = lewis::lewis_chain(
            table.source,
            whitener,
            *n_rows,
            self.config.p,
            lewis::SAMPLING_TOLERANCE,
            self.observer,
        )?;
        self.passes += chain.passes();
        self.lewis_delta = Some(delta);
        if table.whole {
            self.chain = Some(chain.clone());
        }
        Ok(chain)
    }

    /// Upper bounds of the sensitivities: in closed form through the lift where it fits, else solved against a coreset.
    fn sensitivity(&mut self, table: Table<'_>) -> Result<Score> {
        if let Some((lift, whitened)) = self.lift(table)? {
            return Ok(Score::Lifted { lift: lift.clone(), whitener: whitened.whitener.clone() });
        }
        let coreset = self.lewis_coreset(table)?;
        Ok(Score::Sensitivity(Box::new(self.solver(&coreset)?)))
    }

    /// The lift of the table and its whitening, where the lift fits; read once.
    pub(crate) fn lift(&mut self, table: Table<'_>) -> Result<Option<&(Lift, Whitened)>> {
        let d = table.source.n_cols();
        if self.lifted.is_none() && lift_fits(table.whitened.n_rows, d, self.config.p) {
            let lift = Lift::new(d, self.config.p)?;
            let whitened = whitened_lift(table.source, &lift, self.observer)?;
            self.passes += whitened.passes;
            self.lifted = Some((lift, whitened));
        }
        Ok(self.lifted.as_ref())
    }

    /// A few weighted rows that stand for the table, by Lewis weights.
    fn lewis_coreset(&mut self, table: Table<'_>) -> Result<Kept> {
        let target = (CORESET_FACTOR * table.source.n_cols()) as f64;
        Ok(self.draw(table, Stage { rule: Rule::Lewis, target, last: false }, "coreset")?.kept)
    }

    fn solver(&self, coreset: &Kept) -> Result<SensitivitySolver> {
        let weights: Vec<f64> = coreset.probabilities.iter().map(|q| q.recip()).collect();
        let solver = SensitivitySolver::new(&coreset.values, coreset.n_cols, Some(&weights), self.config.p)?;
        Ok(solver.with_tolerance(SOLVE_TOLERANCE))
    }

    /// The total sensitivity from a few certified rows of a coreset.
    pub(crate) fn total_sensitivity(&mut self, table: Table<'_>) -> Result<TotalSensitivity> {
        let coreset = self.lewis_coreset(table)?;
        let weights: Vec<f64> = coreset.probabilities.iter().map(|q| q.recip()).collect();
        let proposal: Vec<f64> = coreset.scores.iter().zip(&weights).map(|(s, w)| s * w).collect();
        self.solver(&coreset)?.estimate_total(
            &coreset.values,
            Some(&weights),
            &proposal,
            DEFAULT_TOTAL_DRAWS,
            self.seed,
            self.observer,
        )
    }
}

/// Drawn rows as a source: each scaled by `q^(−1/p)`, so that it stands for the rows it was drawn for.
struct WeightedRows<'a> {
    n_cols: usize,
    values: Vec<f64>,
    ids: &'a [u64],
}

impl<'a> WeightedRows<'a> {
    fn new(kept: &'a Kept, p: f64) -> Self {
        let mut values = kept.values.clone();
        for (row, q) in values.chunks_exact_mut(kept.n_cols).zip(&kept.probabilities) {
            let scale = q.powf(-p.recip());
            row.iter_mut().for_each(|v| *v *= scale);
        }
        Self { n_cols: kept.n_cols, values, ids: &kept.ids }
    }
}

impl RowSource for WeightedRows<'_> {
    fn n_cols(&self) -> usize {
        self.n_cols
    }

    fn n_rows(&self) -> Option<u64> {
        Some(self.ids.len() as u64)
    }

    fn dense(&self) -> Option<&[f64]> {
        Some(&self.values)
    }

    fn n_chunks(&self) -> usize {
        self.ids.len().div_ceil(MEMORY_CHUNK_ROWS)
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let rows = chunk * MEMORY_CHUNK_ROWS..self.ids.len().min((chunk + 1) * MEMORY_CHUNK_ROWS);
        visit(&RowBlock {
            n_cols: self.n_cols,
            values: &self.values[rows.start * self.n_cols..rows.end * self.n_cols],
            ids: RowIds::List(&self.ids[rows]),
            records: None,
        })
    }
}
