//! Merge-and-reduce: a sample from one pass over a table that cannot be read twice, in bounded memory.
//!
//! Rows fill leaves of fixed size. Two nodes of one level are merged and *reduced* to the size of one: rows, scaled by
//! `q^(−1/p)` so that they stand for what they were drawn from, are scored among themselves, and a row of score `s` survives
//! with probability `r = min(1, c·s)`: `q ← q·r`, kept iff `U < q`. `U` is the row's one uniform number, and the new `q` depends
//! only on which rows are alive, so weights `1/q` stay unbiased through any number of reductions.
//!
//! What a reduction adds to the error is largest at the root, where it is of the whole table; the levels below add up like a
//! geometric series, because the errors of their many nodes are independent. Nodes a few times larger than the sample
//! therefore cost little against two passes. Unlike theirs, the result depends on the order of the rows.

use subspan_linalg::{Mat, gram, whiten};

use super::certificate::{WeightedTable, exact_certificate};
use super::lewis::{SAMPLING_TOLERANCE, lewis_chain};
use super::scale::{Inclusion, solve_scale};
use super::scores::{Score, Scorer, whitened};
use super::select::{Drawn, Kept};
use super::stages::Stage;
use super::{Config, Draw, Rule, Sample, Size, into_sample, rows_for, summarize};
use crate::draw::Stream;
use crate::error::{Error, Result};
use crate::observe::{Event, Observer, Silent, phase};
use crate::rows::{DenseRows, RowBlock, RowSource};

/// Rows of a node, as a multiple of the sample's: see the module's text.
const NODE_FACTOR: usize = 4;

/// A node is never smaller than this many rows per column: below, scores among its rows are mostly noise.
const NODE_ROWS_PER_COLUMN: usize = 20;

/// A sample in the making: blocks of rows go in, in one pass.
///
/// Holds about `4 m log₂(n / 4m)` rows for a sample of `m`.
///
/// ```
/// use subspan::rows::{RowBlock, RowIds};
/// use subspan::sample::{Config, MergeReduce};
/// let mut stream = MergeReduce::new(2, &Config::rows(2.0, 20), 0)?;
/// for first in (0..10_000).step_by(100) {
///     let values: Vec<f64> = (first..first + 100).flat_map(|i| [1.0, f64::from(i % 7)]).collect();
///     stream.push(&RowBlock { n_cols: 2, values: &values, ids: RowIds::From(first as u64), records: None })?;
/// }
/// let sample = stream.finish()?;
/// assert_eq!((sample.summary.rows_in, sample.summary.order_dependent), (10_000, true));
/// # Ok::<(), subspan::Error>(())
/// ```
#[derive(Debug)]
pub struct MergeReduce {
    config: Config,
    rule: Rule,
    n_cols: usize,
    /// Rows of the final sample.
    rows: u64,
    node_rows: usize,
    stream: Stream,
    leaf: Kept,
    /// `nodes[k]` stands for `2^k` leaves.
    nodes: Vec<Option<Kept>>,
    /// `AᵀA` of all finished leaves, upper triangle.
    gram: Mat,
    rows_in: u64,
    zero_rows: u64,
}

impl MergeReduce {
    /// An empty stream of rows of `n_cols` columns.
    ///
    /// `config.rule` may be `auto` (leverage at `p = 2`, else Lewis weights), `leverage`, `root-leverage` or `lewis`. A
    /// certificate is only measured at `p = 2`, and not when columns are collinear or nearly so.
    ///
    /// # Errors
    /// [`Error::Empty`] without columns; [`Error::Parameter`] for a parameter out of range, a rule, draw or loss floor that
    /// needs more than one pass.
    pub fn new(n_cols: usize, config: &Config, seed: u64) -> Result<Self> {
        config.check()?;
        if n_cols == 0 {
            return Err(Error::Empty { what: "columns" });
        }
        let rule = match config.rule {
            Rule::Auto if config.p == 2.0 => Rule::Leverage,
            Rule::Auto => Rule::Lewis,
            Rule::Leverage | Rule::RootLeverage | Rule::Lewis => config.rule,
            other => {
                return Err(Error::parameter("rule", other, "auto, leverage, root-leverage or lewis in one pass"));
            }
        };
        if config.draw != Draw::Poisson {
            return Err(Error::parameter("draw", config.draw, "poisson in one pass"));
        }
        if config.loss_floor {
            return Err(Error::parameter("loss_floor", true, "false in one pass"));
        }
        let rows = match config.size {
            Size::Rows(m) => m,
            Size::Epsilon(epsilon) => rows_for(epsilon, config.p, n_cols),
        };
        let node_rows = usize::try_from(rows).unwrap_or(usize::MAX).saturating_mul(NODE_FACTOR);
        Ok(Self {
            config: config.clone(),
            rule,
            n_cols,
            rows,
            node_rows: node_rows.max(NODE_ROWS_PER_COLUMN.saturating_mul(n_cols)),
            // The stream of the two-pass draw: a row's number does not depend on how the sample is made.
            stream: Stream::new(seed, "rows"),
            leaf: empty(n_cols),
            nodes: Vec::new(),
            gram: Mat::zeros(n_cols, n_cols),
            rows_in: 0,
            zero_rows: 0,
        })
    }

    /// Takes the next rows. How rows are cut into blocks does not change the sample.
    ///
    /// # Errors
    /// [`Error::Shape`] for a block of another width; what the block's records or a reduction report.
    pub fn push(&mut self, block: &RowBlock<'_>) -> Result<()> {
        if block.n_cols != self.n_cols {
            return Err(Error::Shape { what: "a row of the block", found: block.n_cols, expected: self.n_cols });
        }
        let alive: Vec<usize> = (0..block.n_rows()).filter(|i| block.row(*i).iter().any(|a| *a != 0.0)).collect();
        let mut records = match block.records {
            Some(records) if !alive.is_empty() => records.encode(&alive)?,
            _ => Vec::new(),
        }
        .into_iter();
        self.rows_in += block.n_rows() as u64;
        self.zero_rows += (block.n_rows() - alive.len()) as u64;
        for i in alive {
            self.leaf.ids.push(block.id(i));
            self.leaf.uniforms.push(self.stream.uniform(block.id(i)));
            self.leaf.probabilities.push(1.0);
            self.leaf.values.extend_from_slice(block.row(i));
            self.leaf.records.extend(records.next());
            if self.leaf.len() == self.node_rows {
                self.carry()?;
            }
        }
        Ok(())
    }

    /// Moves the full leaf into the tree, as a binary counter carries.
    fn carry(&mut self) -> Result<()> {
        let mut node = std::mem::replace(&mut self.leaf, empty(self.n_cols));
        gram::add_gram(&node.values, self.n_cols, self.gram.as_mut_slice());
        for level in 0.. {
            if level == self.nodes.len() {
                self.nodes.push(None);
            }
            match self.nodes[level].take() {
                None => {
                    self.nodes[level] = Some(node);
                    break;
                }
                Some(mut older) => {
                    older.append(node);
                    node = self.reduce(older, self.node_rows as f64)?.kept;
                }
            }
        }
        Ok(())
    }

    /// Thins rows to about `target`, by their scores among themselves.
    fn reduce(&self, mut node: Kept, target: f64) -> Result<Drawn> {
        let p = self.config.p;
        let mut scaled = node.values.clone();
        for (row, q) in scaled.chunks_exact_mut(self.n_cols).zip(&node.probabilities) {
            let scale = q.powf(-p.recip());
            row.iter_mut().for_each(|a| *a *= scale);
        }
        let source = DenseRows::new(&scaled, self.n_cols)?;
        let table = whitened(&source, &Silent)?;
        let score = match self.rule {
            Rule::RootLeverage => Score::Leverage { power: 0.5 * p },
            // Lewis weights are leverage at p = 2.
            Rule::Lewis if p != 2.0 => {
                Score::Lewis(lewis_chain(&source, &table.whitener, table.n_rows, p, SAMPLING_TOLERANCE, &Silent)?.0)
            }
            _ => Score::Leverage { power: 1.0 },
        };
        // The rank guard of the two-pass draw.
        let guard = if p < 2.0 { 4.0 * (2.0 * table.whitener.rank as f64).ln() } else { 0.0 };
        let scorer = Scorer { score, augment: self.config.augment, floor: 0.0, leverage: table.whitener };
        let (mut scores, mut leverages) = (vec![0.0; node.len()], vec![0.0; node.len()]);
        scorer.score(&scaled, &mut scores, &mut leverages)?;
        let scale = solve_scale(&scores, &leverages, 0.0, guard, target);
        let inclusion = Inclusion { scale, floor: 0.0, guard };
        let mut rows_expected = 0.0;
        for ((q, s), t) in node.probabilities.iter_mut().zip(&scores).zip(&leverages) {
            let survival = inclusion.probability(*s, *t);
            rows_expected += survival;
            *q *= survival;
        }
        let keep: Vec<bool> = node.uniforms.iter().zip(&node.probabilities).map(|(u, q)| u < q).collect();
        node.retain(|i| keep[i]);
        let score_sum = scores.iter().sum();
        Ok(Drawn { kept: node, scale, score_sum, rows_in: 0, zero_rows: 0, rows_expected, passes: 1 })
    }

    /// The sample of all rows pushed so far, in their order.
    ///
    /// # Errors
    /// [`Error::Empty`] without rows, [`Error::AllZero`], what the last reduction reports.
    pub fn finish(mut self) -> Result<Sample> {
        if self.rows_in == 0 {
            return Err(Error::Empty { what: "rows" });
        }
        gram::add_gram(&self.leaf.values, self.n_cols, self.gram.as_mut_slice());
        gram::symmetrize(self.gram.as_mut_slice(), self.n_cols);
        let table = whiten(&self.gram, self.rows_in)?;
        // Higher nodes are older.
        let mut all = empty(self.n_cols);
        while let Some(node) = self.nodes.pop() {
            node.into_iter().for_each(|node| all.append(node));
        }
        all.append(std::mem::replace(&mut self.leaf, empty(self.n_cols)));
        if all.len() == 0 {
            return Err(Error::AllZero);
        }
        let mut drawn = self.reduce(all, self.rows as f64)?;
        (drawn.rows_in, drawn.zero_rows) = (self.rows_in, self.zero_rows);
        let stage = Stage { rule: self.rule, target: self.rows as f64, last: true };
        let mut summary = summarize(&self.config, &[stage], &drawn, self.rows);
        summary.stages.insert(0, "merge-and-reduce".into());
        summary.rank = table.rank;
        summary.condition = table.condition;
        summary.passes = 1;
        summary.order_dependent = true;
        if !table.resolved {
            summary.warnings.push(
                "collinear or nearly collinear columns: one pass cannot settle the rank, and no accuracy was measured"
                    .into(),
            );
        }
        let certificate = if self.config.certify && self.config.p == 2.0 && table.resolved {
            let weights: Vec<f64> = drawn.kept.probabilities.iter().map(|q| q.recip()).collect();
            let sample = WeightedTable::new(&drawn.kept.values, self.n_cols, Some(&weights))?;
            Some(exact_certificate(&table, &sample, self.rows_in)?)
        } else {
            None
        };
        Ok(into_sample(drawn.kept, summary, certificate))
    }
}

/// [`run`](super::run) for a source that should be read only once: pushes every block of `source` through a [`MergeReduce`].
///
/// # Errors
/// As [`MergeReduce::new`] and [`MergeReduce::push`]; what the source reports; [`Error::Cancelled`].
pub fn run_one_pass(source: &dyn RowSource, config: &Config, seed: u64, observer: &dyn Observer) -> Result<Sample> {
    let mut stream = MergeReduce::new(source.n_cols(), config, seed)?;
    phase(observer, "draw", source.n_rows());
    for chunk in 0..source.n_chunks() {
        source.scan(chunk, &mut |block| {
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            stream.push(block)?;
            observer.event(Event::Advance { steps: block.n_rows() as u64 });
            Ok(())
        })?;
    }
    stream.finish()
}

fn empty(n_cols: usize) -> Kept {
    Kept { n_cols, ..Kept::default() }
}
