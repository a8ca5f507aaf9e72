//! Weight matching by coordinate descent: one perm at a time is set to its exact best, the others as they are.
//!
//! `F(π) = Σ ⟨A, π(B)⟩` over the tensors of the cost; permutations keep norms, so a larger `F` is a smaller distance. With the
//! other perms fixed, `F` is linear in one perm: a linear assignment problem on its cross-Gram matrix. `F` never falls, so the
//! descent ends; where it ends, no single perm can be improved, which the last certificate of every perm proves. Where no two
//! perms that may move share a tensor, that is the global optimum.
//!
//! Ainsworth, Hayase, Srinivasa (2209.04836), algorithm 1. Ours: perms whose neighbours did not move are not solved again;
//! partial Gram matrices are kept and updated where only few columns moved; assignments start from the last duals.

mod nested;
mod solve;

use serde::Serialize;

use super::distance::{Comparison, check_finite, compare};
use super::error::{MergeError, Result};
use super::layout::Layout;
use super::model::Model;
use super::permutations::Permutations;
use super::spec::Solve;
use crate::assign::lap::CERTIFIED;
use crate::draw::Stream;
use crate::error::Error;
use crate::observe::{Event, Observer, metric};
use solve::Solver;

/// Memory that kept partial Gram matrices may take, bytes: enough for a few layers of width 4096.
const CACHE_BYTES: usize = 1 << 29;

/// How to match.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchConfig {
    /// Sweeps over all perms at most; 100 by default, far above what is seen (3 to 50).
    pub max_sweeps: usize,
    /// Runs with different orders of the perms, the best is kept; 1 by default.
    pub restarts: usize,
    /// Whether to keep partial Gram matrices between solves; the result is the same up to rounding.
    pub cache: bool,
}

impl Default for MatchConfig {
    fn default() -> Self {
        Self { max_sweeps: 100, restarts: 1, cache: true }
    }
}

impl MatchConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Parameter`].
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("max_sweeps", self.max_sweeps), ("--restarts", self.restarts)] {
            if value == 0 {
                return Err(Error::parameter(name, value, "at least 1").into());
            }
        }
        Ok(())
    }
}

/// What the certificates prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// No single perm can be improved.
    Coordinate,
    /// No permutations at all are better.
    Global,
}

/// Permutations that bring the second model close to the first, and how close.
#[derive(Debug, Clone)]
pub struct Matched {
    /// For the second model.
    pub permutations: Permutations,
    /// Before: the second model as it is.
    pub before: Comparison,
    /// After.
    pub after: Comparison,
    /// Sweeps of the best run, the last one without a change included.
    pub sweeps: usize,
    /// Whether a sweep changed nothing.
    pub converged: bool,
    /// Whether the last solution of every perm is proven to be its best, relative gap at most 10⁻⁶, with nothing changed since.
    pub certified: bool,
    /// What that proves.
    pub scope: Scope,
    /// Every matched perm's last relative gap, by id.
    pub gaps: Vec<(String, f64)>,
    /// `F` after each accepted change of the best run, as the gains add up.
    pub history: Vec<f64>,
    /// Assignment problems solved in the best run.
    pub solves: usize,
}

impl Matched {
    /// `1 − ‖A − π(B)‖ / ‖A − B‖`; 0 if the models were equal before.
    pub fn distance_reduction(&self) -> f64 {
        let before = self.before.distance();
        if before == 0.0 { 0.0 } else { 1.0 - self.after.distance() / before }
    }
}

/// Matches `b` to `a` by weights, from `start` (nothing moved if `None`). Cost per solve of a perm of n units: `2 n² K` flop for
/// its Gram matrix (K: all other positions of its tensors) and about `n²·⁵` for the assignment; memory `n²` single-precision
/// numbers. The result does not depend on the number of threads.
///
/// # Errors
/// Numbers that are not finite, with tensor and model; a parameter out of range; [`Error::Cancelled`].
///
/// # Panics
/// If the models are not alike ([`check_alike`](super::check_alike)) or `start` is of another spec.
pub fn match_weights(
    layout: &Layout,
    a: &dyn Model,
    b: &dyn Model,
    start: Option<&Permutations>,
    config: &MatchConfig,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Matched> {
    config.check()?;
    check_finite(layout, a)?;
    check_finite(layout, b)?;
    let identity = Permutations::identity(layout.spec());
    let before = compare(layout, a, b, &identity)?;
    let start = start.unwrap_or(&identity);
    let mut best: Option<Matched> = None;
    for restart in 0..config.restarts {
        let run = descend(layout, a, b, start, &before, config, seed.wrapping_add(restart as u64), observer)?;
        if best.as_ref().is_none_or(|b| run.after.objective() > b.after.objective()) {
            best = Some(run);
        }
    }
    best.ok_or_else(|| MergeError::spec("no run"))
}

fn descend(
    layout: &Layout,
    a: &dyn Model,
    b: &dyn Model,
    start: &Permutations,
    before: &Comparison,
    config: &MatchConfig,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Matched> {
    let budget = if config.cache { CACHE_BYTES } else { 0 };
    let mut solver = Solver::new(layout, a, b, start.clone(), budget);
    let free: Vec<usize> = (0..layout.perms.len()).filter(|p| layout.perms[*p].1.solve == Solve::Match).collect();
    observer.event(Event::Phase { name: "solve", total: Some(free.len() as u64) });
    let orders = Stream::new(seed, "sweeps");
    let (mut sweeps, mut converged, mut solves) = (0, free.is_empty(), 0);
    let first = if *start == Permutations::identity(layout.spec()) {
        before.objective()
    } else {
        compare(layout, a, b, start)?.objective()
    };
    let mut history = vec![first];
    while !converged && sweeps < config.max_sweeps {
        let mut accepted = 0;
        for at in orders.rng(sweeps as u64).permutation(free.len()) {
            if observer.cancelled() {
                return Err(Error::Cancelled.into());
            }
            if sweeps == 0 {
                observer.event(Event::Advance { steps: 1 });
            }
            if let Some(solved) = solver.solve(free[at])? {
                solves += 1;
                if let Some(gain) = solved.gain {
                    accepted += 1;
                    history.push(history[history.len() - 1] + gain);
                }
            }
        }
        sweeps += 1;
        metric(observer, "objective", history[history.len() - 1]);
        // The last word is that of Gram matrices computed afresh.
        converged = accepted == 0 && !solver.distrust_updates();
    }
    let gaps: Vec<(String, f64)> =
        free.iter().map(|p| (layout.perms[*p].0.clone(), solver.gap(*p).unwrap_or(f64::INFINITY))).collect();
    let certified = converged && gaps.iter().all(|(_, gap)| *gap <= CERTIFIED);
    let scope = if solver.is_separable(&free) { Scope::Global } else { Scope::Coordinate };
    let permutations = solver.permutations;
    let after = compare(layout, a, b, &permutations)?;
    Ok(Matched {
        permutations,
        before: before.clone(),
        after,
        sweeps,
        converged,
        certified,
        scope,
        gaps,
        history,
        solves,
    })
}

#[cfg(test)]
mod tests;
