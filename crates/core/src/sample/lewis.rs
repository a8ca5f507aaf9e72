//! l_p Lewis weights by the damped fixed point, as a chain of factors that scores any row without per-row state.
//!
//! The weights are the unique `w` with `wᵢ = (aᵢᵀ Q⁺ aᵢ)^(p/2)`, `Q = Aᵀ W^(1−2/p) A` (Cohen and Peng, "l_p row sampling by
//! Lewis weights", STOC 2015, arXiv 1412.0588). From `w = d/n` we iterate `w ← w^(1−θ) v^θ` with `v` the right-hand side and
//! `θ = 4/(p+2)`, the minimax damping: the map contracts by `|p−2|/(p+2)` in log space.

use subspan_linalg::apply::row_norms_sq;
use subspan_linalg::{Mat, Whitener, gram, whiten};

use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::rows::{self, RowSource};

/// Log-error at which weights are good enough to sample by: relative sizes within a third.
pub(crate) const SAMPLING_TOLERANCE: f64 = 0.3;
/// Log-error of weights that are themselves the result.
pub(crate) const SCORE_TOLERANCE: f64 = 1e-6;
/// The slowest published case (heavy rows at p = 10) takes about 80 iterations to 1e-6.
const MAX_ITERATIONS: usize = 200;
/// `ln w` is held above this so that `w^(1−2/p)` stays finite for `p < 2`.
const LOG_FLOOR: f64 = -700.0;
/// Rows scored at a time: the scratch stays in the first-level cache.
const TILE_ROWS: usize = 512;

/// The iteration's history: enough to recompute the weight of any row.
#[derive(Debug, Clone)]
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
        let d = self.steps.first().map_or(1, |(w, _)| w.factor.n_rows());
        out.fill(self.log_start);
        let mut quadratic = [0.0; TILE_ROWS];
        let mut delta = 0.0f64;
        for (k, (whitener, damping)) in self.steps.iter().enumerate() {
            let last = k + 1 == self.steps.len();
            for (tile, log_w) in values.chunks(TILE_ROWS * d).zip(out.chunks_mut(TILE_ROWS)) {
                let quadratic = &mut quadratic[..log_w.len()];
                row_norms_sq(tile, &whitener.factor, whitener.upper, quadratic);
                for (log_w, quadratic) in log_w.iter_mut().zip(quadratic) {
                    if *quadratic == 0.0 {
                        *log_w = f64::NEG_INFINITY;
                        continue;
                    }
                    let change = 0.5 * self.p * quadratic.ln() - *log_w;
                    *log_w = (*log_w + damping * change).max(LOG_FLOOR);
                    if last {
                        delta = delta.max(change.abs());
                    }
                }
            }
        }
        delta
    }
}

/// Iterates to `tolerance`; returns the chain and the log-error it stopped at.
///
/// `plain` whitens the unweighted table. One pass over the source per iteration; the state of a pass is one Gram matrix.
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
    let mut chain = LewisChain::new(p, plain.rank.max(1), n_rows);
    // The first Q is the plain Gram matrix times (d/n)^(1−2/p): its whitener is the plain one, rescaled.
    let first_scale = (-0.5 * (1.0 - 2.0 / p) * chain.log_start).exp();
    chain.steps.push((rescaled(plain, first_scale), 4.0 / (p + 2.0)));
    let mut damping = 4.0 / (p + 2.0);
    let (mut previous, mut rises) = (f64::INFINITY, 0);
    for iteration in 1..=MAX_ITERATIONS {
        let (gram, delta) = weighted_gram(source, &chain, observer)?;
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

fn rescaled(w: &Whitener, scale: f64) -> Whitener {
    let mut w = w.clone();
    w.factor.as_mut_slice().iter_mut().for_each(|f| *f *= scale);
    w
}

/// One pass: `Q = Aᵀ W^(1−2/p) A` with the chain's weights, and the chain's log-error.
fn weighted_gram(source: &dyn RowSource, chain: &LewisChain, observer: &dyn Observer) -> Result<(Mat, f64)> {
    let d = source.n_cols();
    let exponent = 1.0 - 2.0 / chain.p;
    let (mut gram, delta) = rows::fold(
        source,
        observer,
        || (Mat::zeros(d, d), 0.0f64),
        |(gram, delta), block| {
            let mut log_w = vec![0.0; block.n_rows()];
            *delta = delta.max(chain.log_weights(block.values, &mut log_w));
            // A zero row has ln w = −∞ and no part in Q.
            log_w.iter_mut().for_each(|l| *l = if l.is_finite() { (exponent * *l).exp() } else { 0.0 });
            gram::add_weighted_gram(block.values, d, &log_w, gram.as_mut_slice());
            Ok(())
        },
        |(gram, delta), (g, e)| {
            gram.as_mut_slice().iter_mut().zip(g.as_slice()).for_each(|(t, g)| *t += g);
            *delta = delta.max(e);
        },
    )?;
    gram::symmetrize(gram.as_mut_slice(), d);
    Ok((gram, delta))
}
