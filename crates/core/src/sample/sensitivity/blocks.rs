//! Experimental: upper bounds of all sensitivities from few solves.
//!
//! Rows are permuted and cut into blocks; a block is replaced by the sum of its rows with random signs. At the `x` that a row's
//! sensitivity is attained at, the row's sign agrees with the rest of the sum half of the time, and then the sum is at least as
//! large as the row alone: its sensitivity bounds the row's. The largest over `t` independent sums misses a row with
//! probability at most `2^-t`, and is at most the block's total, `(Σ σ^(1/p))^p`: for `p = 1` the price of a block is the sum
//! of its sensitivities (Padmanabhan, Woodruff and Zhang, "Computing Approximate l_p Sensitivities", NeurIPS 2023; the argument
//! above is ours, so no constant of theirs is used).

use rayon::prelude::*;

use super::{SensitivitySolver, check_rows};
use crate::draw::Stream;
use crate::error::{Error, Result};
use crate::observe::{Event, Observer};

/// Probability that some row's bound falls short of its sensitivity.
pub const DEFAULT_FAILURE: f64 = 0.01;

impl SensitivitySolver {
    /// Experimental. Upper bounds of the sensitivities of all rows, each shared by a block of `block_rows` rows. With probability
    /// at least `1 - failure` every one of them holds; a bound is at most the sum of its block's sensitivities for `p = 1`.
    ///
    /// Cost: `⌈log2(n / failure)⌉ / block_rows` solves per row, so blocks of some hundreds are worth their looseness where
    /// [`par_bounds`](Self::par_bounds) takes too long.
    ///
    /// # Errors
    /// As [`bounds`](Self::bounds); [`Error::Parameter`] for `block_rows = 0` or a `failure` outside (0, 1); [`Error::Cancelled`].
    ///
    /// ```
    /// use subspan::sample::{DEFAULT_FAILURE, SensitivitySolver};
    /// let rows: Vec<f64> = (0..200).map(|i| f64::from(i % 7) - 3.0 + 0.1 * f64::from(i % 3)).collect();
    /// let solver = SensitivitySolver::new(&rows, 2, None, 1.0)?;
    /// let shared = solver.block_bounds(&rows, 10, DEFAULT_FAILURE, 0, &subspan::Silent)?;
    /// for (row, bound) in rows.chunks_exact(2).zip(&shared) {
    ///     assert!(*bound >= solver.bounds(row)?.lower);
    /// }
    /// # Ok::<(), subspan::Error>(())
    /// ```
    pub fn block_bounds(
        &self,
        rows: &[f64],
        block_rows: usize,
        failure: f64,
        seed: u64,
        observer: &dyn Observer,
    ) -> Result<Vec<f64>> {
        let d = self.column_scale.len();
        let n = check_rows(rows, d)?;
        if block_rows == 0 {
            return Err(Error::parameter("block_rows", block_rows, "at least 1"));
        }
        if !(failure > 0.0 && failure < 1.0) {
            return Err(Error::parameter("failure", failure, "a number between 0 and 1, both excluded"));
        }
        // A block of one row needs no luck.
        let trials = if block_rows == 1 { 1 } else { (n as f64 / failure).log2().ceil() as u64 };
        let order = Stream::new(seed, "sensitivity blocks").rng(0).permutation(n);
        let signs = Stream::new(seed, "sensitivity signs");
        let bounds: Vec<f64> = order
            .par_chunks(block_rows)
            .enumerate()
            .map(|(b, block)| {
                let mut largest = 0.0f64;
                for trial in 0..trials {
                    if observer.cancelled() {
                        return Err(Error::Cancelled);
                    }
                    let mut rng = signs.rng(b as u64 * trials + trial);
                    let mut sum = vec![0.0; d];
                    for i in block {
                        let sign = if rng.uniform() < 0.5 { -1.0 } else { 1.0 };
                        sum.iter_mut().zip(&rows[i * d..(i + 1) * d]).for_each(|(s, a)| *s += sign * a);
                    }
                    largest = largest.max(self.bounds(&sum)?.upper);
                    if largest >= 1.0 {
                        break;
                    }
                }
                observer.event(Event::Advance { steps: block.len() as u64 });
                Ok(largest)
            })
            .collect::<Result<_>>()?;
        let mut out = vec![0.0; n];
        for (block, bound) in order.chunks(block_rows).zip(bounds) {
            block.iter().for_each(|i| out[*i] = bound);
        }
        Ok(out)
    }
}
