//! Row sampling by l_p importance (Woodruff and Yasuda, "Sharper bounds for l_p sensitivity sampling", arXiv 2306.00732 v2).
//!
//! `run` reads as the method does: whiten the table, choose scores, draw rows by them (twice, for the two-stage rule), and
//! measure how well the rows stand for the table.

mod certificate;
mod config;
mod lewis;
mod lift;
mod outcome;
mod power;
mod scale;
mod scores;
mod select;
mod sensitivity;
mod stages;

pub use certificate::{
    Search, Searched, WeightedTable, abs_power_sums, abs_power_sums_of, certificate_of_ratios, exact_certificate,
    lifted_certificate, search,
};
pub use config::{Config, Draw, Rule, Size};
pub use lift::{Lift, LiftedRows, MAX_LIFTED_COLUMNS, lifted_dim};
pub use outcome::{Certificate, CertificateKind, Sample, Summary};
pub use scores::{leverage_scores, lewis_weights};
pub use sensitivity::{
    Bounds, DEFAULT_TOLERANCE, DEFAULT_TOTAL_DRAWS, SensitivitySolver, TotalSensitivity, sensitivities,
};

use crate::draw::Stream;
use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::rows::{RowBlock, RowIds, RowSource};
use scores::{Score, Scorer, Whitened, whitened};
use select::{DrawPlan, Drawn, Kept, draw_rows};
use stages::Stage;

/// Rows per unit distortion, times `ε²/d`: the upper end measured for p = 1 on Gaussian rows.
const ROWS_PER_EPSILON: f64 = 1.7;

/// Draws a weighted sample of the table's rows.
///
/// The table is read twice for `p = 2` and for the two-stage rule, more often for Lewis weights of all rows. Memory is
/// bounded by the source's blocks and the sample, whatever the number of rows.
///
/// # Errors
/// A parameter out of range, an empty or all-zero table, what the source reports.
///
/// ```
/// use subspan::{DenseRows, Silent, sample};
/// let values: Vec<f64> = (0..40_000).map(|i| f64::from(i % 97) + f64::from(i % 5)).collect();
/// let table = DenseRows::new(&values, 4)?;
/// let sample = sample::run(&table, &sample::Config::rows(2.0, 500), 0, &Silent)?;
/// assert_eq!(sample.row_ids.len(), sample.weights.len());
/// assert!((sample.summary.score_sum - sample.summary.rank as f64).abs() < 1e-9);
/// # Ok::<(), subspan::Error>(())
/// ```
pub fn run(source: &dyn RowSource, config: &Config, seed: u64, observer: &dyn Observer) -> Result<Sample> {
    config.check()?;
    let table = whitened(source, observer)?;
    let rows = match config.size {
        Size::Rows(m) => m,
        Size::Epsilon(e) => (ROWS_PER_EPSILON * table.whitener.rank as f64 / (e * e)).ceil() as u64,
    };
    let stages = stages::plan(config, table.n_rows, source.n_cols(), source.dense().is_some(), rows);
    let mut draws = Draws { config, seed, passes: table.passes, lewis_delta: None };
    let (first, rest) = stages.split_first().ok_or(Error::Empty { what: "stages" })?;
    let mut drawn = draws.draw(source, &table, *first, 0, observer)?;
    let (rows_in, zero_rows, passes) = (drawn.rows_in, drawn.zero_rows, draws.passes);
    for (k, stage) in rest.iter().enumerate() {
        drawn = draws.draw_again(&drawn.kept, *stage, k + 1, observer)?;
    }
    let kept = drawn.kept;
    let weights: Vec<f64> = kept.probabilities.iter().map(|q| q.recip()).collect();
    let rows_out = kept.len() as u64;
    let (sum, squares) = weights.iter().fold((0.0, 0.0), |(s, q), w| (s + w, q + w * w));
    let summary = Summary {
        rule: stages.last().map_or(config.rule, |s| s.rule),
        p: config.p,
        draw: config.draw,
        score_sum: drawn.score_sum,
        rows_in,
        rows_out,
        rows_requested: rows,
        rows_expected: drawn.rows_expected,
        certain_rows: kept.probabilities.iter().filter(|q| **q == 1.0).count() as u64,
        zero_rows,
        effective_rows: if squares > 0.0 { sum * sum / squares } else { 0.0 },
        rank: table.whitener.rank,
        condition: table.whitener.condition,
        passes,
        scale: drawn.scale,
        stages: stages.iter().map(|s| s.rule.to_string()).collect(),
        lewis_delta: draws.lewis_delta,
        predicted_rows: Vec::new(),
        below_theory: drawn.scale < 1.0,
        warnings: Vec::new(),
    };
    Ok(Sample {
        rows: kept.matrix(),
        row_ids: kept.ids,
        probabilities: kept.probabilities,
        weights,
        records: kept.records,
        summary,
        certificate: None,
    })
}

/// What the draws of one run have in common, and what they report.
struct Draws<'a> {
    config: &'a Config,
    seed: u64,
    passes: usize,
    lewis_delta: Option<f64>,
}

impl Draws<'_> {
    /// One draw over a source that was whitened already. Stage `k` has random numbers of its own.
    fn draw(
        &mut self,
        source: &dyn RowSource,
        table: &Whitened,
        stage: Stage,
        k: usize,
        observer: &dyn Observer,
    ) -> Result<Drawn> {
        let p = self.config.p;
        let score = match stage.rule {
            Rule::Leverage => Score::Leverage { power: 1.0 },
            Rule::RootLeverage => Score::Leverage { power: 0.5 * p },
            Rule::Lewis if p == 2.0 => Score::Leverage { power: 1.0 },
            Rule::Lewis => {
                let (chain, delta) =
                    lewis::lewis_chain(source, &table.whitener, table.n_rows, p, lewis::SAMPLING_TOLERANCE, observer)?;
                self.passes += chain.passes();
                self.lewis_delta = Some(delta);
                Score::Lewis(chain)
            }
            _ => Score::Uniform,
        };
        let rank = table.whitener.rank as f64;
        let n = table.n_rows as f64;
        // Rank guard: at least 4 ln(2d) times the leverage keeps every direction of the table in a small sample.
        let guarded = p < 2.0 && stage.rule != Rule::Uniform;
        let scorer = Scorer {
            score,
            augment: self.config.augment,
            floor: if self.config.loss_floor { n.recip() } else { 0.0 },
            leverage: table.whitener.clone(),
        };
        let plan = DrawPlan {
            // Only the last stage is what the user sees; Poisson is the draw that stages compose with.
            draw: if stage.last { self.config.draw } else { Draw::Poisson },
            target: stage.target,
            floor: 0.0,
            guard: if guarded { 4.0 * (2.0 * rank).ln() } else { 0.0 },
            score_bound: match stage.rule {
                Rule::Uniform => n,
                Rule::RootLeverage => n.powf(1.0 - 0.5 * p) * rank.powf(0.5 * p),
                _ => rank,
            },
            stream: Stream::new(self.seed, if k == 0 { "rows" } else { "rows of the second stage" }),
        };
        let drawn = draw_rows(source, &scorer, &plan, observer)?;
        self.passes += drawn.passes;
        Ok(drawn)
    }

    /// A draw from the rows of an earlier one; probabilities multiply.
    fn draw_again(&mut self, first: &Kept, stage: Stage, k: usize, observer: &dyn Observer) -> Result<Drawn> {
        let rows = WeightedRows::new(first, self.config.p);
        let table = whitened(&rows, observer)?;
        let mut drawn = self.draw(&rows, &table, stage, k, observer)?;
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
}

/// Drawn rows as a source: each scaled by `q^(−1/p)`, so that it stands for the rows it was drawn for.
struct WeightedRows<'a> {
    n_cols: usize,
    values: Vec<f64>,
    ids: &'a [u64],
}

impl<'a> WeightedRows<'a> {
    const CHUNK_ROWS: usize = crate::rows::MEMORY_CHUNK_ROWS;

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

    fn n_chunks(&self) -> usize {
        self.ids.len().div_ceil(Self::CHUNK_ROWS)
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let rows = chunk * Self::CHUNK_ROWS..self.ids.len().min((chunk + 1) * Self::CHUNK_ROWS);
        visit(&RowBlock {
            n_cols: self.n_cols,
            values: &self.values[rows.start * self.n_cols..rows.end * self.n_cols],
            ids: RowIds::List(&self.ids[rows]),
            records: None,
        })
    }
}
