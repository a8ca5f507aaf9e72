//! l_p Lewis weights by the damped fixed point, as a chain of factors that scores any row without per-row state.
//!
//! The weights are the unique `w` with `wᵢ = (aᵢᵀ Q⁺ aᵢ)^(p/2)`, `Q = Aᵀ W^(1−2/p) A` (Cohen and Peng, "l_p row sampling by
//! Lewis weights", STOC 2015, arXiv 1412.0588). From `w = d/n` we iterate `w ← w^(1−θ) v^θ` with `v` the right-hand side and
//! `θ = 4/(p+2)`, the minimax damping: the map contracts by `|p−2|/(p+2)` in log space.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use subspan_linalg::apply::{RowFactor, row_norms_sq};
use subspan_linalg::{Mat, Whitener, gram, whiten};

use crate::error::{Error, Result};
use crate::observe::{Event, Observer};
use crate::remote::{self, Origin, Pass, RowMap};
use crate::rows::{MEMORY_CHUNK_ROWS, RowBlock, RowSource};

/// Log-error at which weights are good enough to sample by: relative sizes within a third.
pub(crate) const SAMPLING_TOLERANCE: f64 = 0.3;
/// Log-error of weights that are themselves the result.
pub(crate) const SCORE_TOLERANCE: f64 = 1e-6;
/// The slowest published case (heavy rows at p = 10) takes about 80 iterations to 1e-6.
const MAX_ITERATIONS: usize = 200;
/// `ln w` is held above this so that `w^(1−2/p)` stays finite for `p < 2`.
const LOG_FLOOR: f64 = -700.0;
/// Condition of the table from which the iteration runs in whitened coordinates: a weighted Gram matrix may be worse than the
/// plain one, and loses what is left of a direction at about 1e7.
const PLAIN_CONDITION: f64 = 1e3;
/// Rows scored at a time: the scratch stays in the first-level cache.
const TILE_ROWS: usize = 512;

/// The iteration's history: enough to recompute the weight of any row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LewisChain {
    p: f64,
    log_start: f64,
    steps: Vec<(Whitener, f64)>,
}

impl LewisChain {
    /// `d/n` for every row, before any step; `rank` stands for `d`.
    fn new(p: f64, rank: usize, n_rows: u64) -> Self {
        Self { p, log_start: (rank as f64 / n_rows as f64).ln(), steps: Vec::new() }
    }

    /// Passes over the source that building the chain took.
    pub(crate) fn passes(&self) -> usize {
        self.steps.len()
    }

    /// `ln w` of every row, and the largest `|ln(v/w)|` of the last step over rows that are not zero. Zero rows get `−∞`.
    pub(crate) fn log_weights(&self, values: &[f64], out: &mut [f64]) -> f64 {
        out.fill(self.log_start);
        (0..self.steps.len()).fold(0.0, |_, k| self.apply_step(k, values, out))
    }

    /// Takes rows from the weights before step `k` to those after it; returns the largest `|ln(v/w)|`.
    fn apply_step(&self, k: usize, values: &[f64], log_w: &mut [f64]) -> f64 {
        let (whitener, damping) = &self.steps[k];
        let d = whitener.factor.n_rows();
        let mut quadratic = [0.0; TILE_ROWS];
        let mut delta = 0.0f64;
        for (tile, log_w) in values.chunks(TILE_ROWS * d).zip(log_w.chunks_mut(TILE_ROWS)) {
            let quadratic = &mut quadratic[..log_w.len()];
            row_norms_sq(tile, &whitener.factor, whitener.upper, quadratic);
            for (log_w, quadratic) in log_w.iter_mut().zip(quadratic) {
                if *quadratic == 0.0 {
                    *log_w = f64::NEG_INFINITY;
                    continue;
                }
                let change = 0.5 * self.p * quadratic.ln() - *log_w;
                *log_w = (*log_w + damping * change).max(LOG_FLOOR);
                delta = delta.max(change.abs());
            }
        }
        delta
    }
}

/// Iterates to `tolerance`; returns the chain and the log-error it stopped at.
///
/// `plain` whitens the unweighted table. One pass over the source per iteration; the state of a pass is one Gram matrix, and
/// for a table in memory one number per row.
///
/// # Errors
/// [`Error::NotConverged`] with the log-error reached, and what the source reports.
pub(crate) fn lewis_chain(
    source: &dyn RowSource,
    plain: &Whitener,
    n_rows: u64,
    p: f64,
    tolerance: f64,
    observer: &dyn Observer,
) -> Result<(LewisChain, f64)> {
    if plain.condition < PLAIN_CONDITION && plain.rank == source.n_cols() {
        return iterate(source, plain.clone(), n_rows, p, tolerance, observer);
    }
    // The weights do not depend on the basis. In that of the plain whitener no direction is lost to rounding.
    let mapped = MappedRows::new(source, RowFactor::new(&plain.factor, plain.upper));
    let identity = whiten(&Mat::identity(plain.rank), n_rows)?;
    let (mut chain, delta) = iterate(&mapped, identity, n_rows, p, tolerance, observer)?;
    for (whitener, _) in &mut chain.steps {
        whitener.factor = plain.factor.mul(&whitener.factor);
        whitener.upper = false;
    }
    Ok((chain, delta))
}

fn iterate(
    source: &dyn RowSource,
    plain: Whitener,
    n_rows: u64,
    p: f64,
    tolerance: f64,
    observer: &dyn Observer,
) -> Result<(LewisChain, f64)> {
    let mut chain = LewisChain::new(p, plain.rank.max(1), n_rows);
    // The first Q is the plain Gram matrix times (d/n)^(1−2/p): its whitener is the plain one, rescaled.
    let first_scale = (-0.5 * (1.0 - 2.0 / p) * chain.log_start).exp();
    let mut damping = 4.0 / (p + 2.0);
    chain.steps.push((rescaled(plain, first_scale), damping));
    let mut log_weights = source.dense().map(|_| vec![chain.log_start; n_rows as usize]);
    let (mut previous, mut rises) = (f64::INFINITY, 0);
    for iteration in 1..=MAX_ITERATIONS {
        let (gram, delta) = match (source.dense(), &mut log_weights) {
            (Some(values), Some(log_w)) => dense_gram(values, source.n_cols(), &chain, log_w, observer)?,
            _ => weighted_gram(source, &chain, observer)?,
        };
        // `delta` belongs to the weights before the last step, so the chain's own weights are at least that good.
        if delta <= tolerance {
            return Ok((chain, delta));
        }
        // There is no global proof for this damping beyond p = 4: if the error rises twice, take the slower safe one.
        rises = if delta > previous { rises + 1 } else { 0 };
        if rises >= 2 {
            damping = f64::min(1.0, 2.0 / p);
        }
        previous = delta;
        if iteration < MAX_ITERATIONS {
            chain.steps.push((whiten(&gram, n_rows)?, damping));
        }
    }
    Err(Error::NotConverged {
        what: "the Lewis weight iteration",
        iterations: MAX_ITERATIONS,
        reached: previous,
        tolerance,
    })
}

fn rescaled(mut w: Whitener, scale: f64) -> Whitener {
    w.factor.as_mut_slice().iter_mut().for_each(|f| *f *= scale);
    w
}

/// One pass: `Q = Aᵀ W^(1−2/p) A` with the chain's weights, and the chain's log-error.
fn weighted_gram(source: &dyn RowSource, chain: &LewisChain, observer: &dyn Observer) -> Result<(Mat, f64)> {
    let (mut gram, delta) = remote::run(source, chain, observer)?;
    gram::symmetrize(gram.as_mut_slice(), source.n_cols());
    Ok((gram, delta))
}

/// The pass of one iteration.
impl Pass for LewisChain {
    const NAME: &'static str = "lewis";
    type State = (Mat, f64);

    fn start(&self, n_cols: usize) -> (Mat, f64) {
        (Mat::zeros(n_cols, n_cols), 0.0)
    }

    fn step(&self, (gram, delta): &mut (Mat, f64), block: &RowBlock<'_>) -> Result<()> {
        let mut log_w = vec![0.0; block.n_rows()];
        *delta = delta.max(self.log_weights(block.values, &mut log_w));
        add_reweighted(block.values, block.n_cols, &log_w, self.p, gram);
        Ok(())
    }

    fn merge(&self, (gram, delta): &mut (Mat, f64), (g, e): (Mat, f64)) {
        gram.as_mut_slice().iter_mut().zip(g.as_slice()).for_each(|(t, g)| *t += g);
        *delta = delta.max(e);
    }
}

/// Adds `Aᵀ W^(1−2/p) A` of a block; a zero row has `ln w = −∞` and no part in it.
fn add_reweighted(values: &[f64], n_cols: usize, log_w: &[f64], p: f64, gram: &mut Mat) {
    let exponent = 1.0 - 2.0 / p;
    let weights: Vec<f64> = log_w.iter().map(|l| if l.is_finite() { (exponent * l).exp() } else { 0.0 }).collect();
    gram::add_weighted_gram(values, n_cols, &weights, gram.as_mut_slice());
}

/// [`weighted_gram`] of a table in memory, with the same bits: `log_w` holds the weights before the chain's last step and
/// takes it, so a pass costs one step instead of all.
fn dense_gram(
    values: &[f64],
    n_cols: usize,
    chain: &LewisChain,
    log_w: &mut [f64],
    observer: &dyn Observer,
) -> Result<(Mat, f64)> {
    let last = chain.steps.len() - 1;
    let (mut total, mut delta) = (None::<Mat>, 0.0f64);
    // A window bounds the partial results alive at once.
    let window_rows = MEMORY_CHUNK_ROWS * 4 * rayon::current_num_threads();
    for (values, log_w) in values.chunks(window_rows * n_cols).zip(log_w.chunks_mut(window_rows)) {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let partials: Vec<(Mat, f64)> = values
            .par_chunks(MEMORY_CHUNK_ROWS * n_cols)
            .zip(log_w.par_chunks_mut(MEMORY_CHUNK_ROWS))
            .map(|(values, log_w)| {
                let delta = chain.apply_step(last, values, log_w);
                let mut gram = Mat::zeros(n_cols, n_cols);
                add_reweighted(values, n_cols, log_w, chain.p, &mut gram);
                (gram, delta)
            })
            .collect();
        for (gram, d) in partials {
            delta = delta.max(d);
            match &mut total {
                None => total = Some(gram),
                Some(t) => t.as_mut_slice().iter_mut().zip(gram.as_slice()).for_each(|(t, g)| *t += g),
            }
        }
        observer.event(Event::Advance { steps: log_w.len() as u64 });
    }
    let mut total = total.unwrap_or_else(|| Mat::zeros(n_cols, n_cols));
    gram::symmetrize(total.as_mut_slice(), n_cols);
    Ok((total, delta))
}

/// A source with its rows mapped by a factor.
pub(crate) struct MappedRows<'a> {
    source: &'a dyn RowSource,
    factor: RowFactor,
}

impl<'a> MappedRows<'a> {
    pub(crate) fn new(source: &'a dyn RowSource, factor: RowFactor) -> Self {
        Self { source, factor }
    }
}

impl RowSource for MappedRows<'_> {
    fn n_cols(&self) -> usize {
        self.factor.matrix().n_cols()
    }

    fn n_rows(&self) -> Option<u64> {
        self.source.n_rows()
    }

    fn origin(&self) -> Option<Origin<'_>> {
        Some(self.source.origin()?.then(RowMap::Factor(self.factor.clone())))
    }

    fn n_chunks(&self) -> usize {
        self.source.n_chunks()
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let mut mapped = Vec::new();
        self.source.scan(chunk, &mut |block| {
            mapped.resize(block.n_rows() * self.n_cols(), 0.0);
            self.factor.map_rows(block.values, &mut mapped);
            visit(&RowBlock { n_cols: self.n_cols(), values: &mapped, ..*block })
        })
    }
}
