//! Weight matching by coordinate descent: one perm at a time is set to its exact best, the others as they are.
//!
//! `F(π) = Σ ⟨A, π(B)⟩` over the tensors of the cost; permutations keep norms, so a larger `F` is a smaller distance. With the
//! other perms fixed, `F` is linear in one perm: a linear assignment problem on its cross-Gram matrix. `F` never falls, so the
//! descent ends; where it ends, no single perm can be improved, which the last certificate of every perm proves. Where no two
//! perms that may move share a tensor, that is the global optimum.
//!
//! Ainsworth, Hayase, Srinivasa (2209.04836), algorithm 1. Ours: from nothing, perms are first **placed** one after the other by
//! those columns of their tensors alone that fixed and placed perms determine, the most determined perm next; what an unmatched
//! layer says about its neighbours is noise. Sweeps go in the same order. Perms whose neighbours did not move are not solved
//! again; Gram matrices are kept and updated where only few columns moved; assignments start from the last duals. Further runs
//! place most perms of the best end anew (iterated local search).

mod cross;
mod descend;
mod nested;
mod solve;

use serde::Serialize;

use super::distance::{Comparison, compare_finite};
use super::error::Result;
use super::layout::Layout;
use super::model::Model;
use super::permutations::Permutations;
use crate::error::Error;
use crate::observe::Observer;
use descend::Descent;
use solve::Solver;

/// How to match.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchConfig {
    /// Sweeps over all perms at most; 100 by default, far above what is seen (3 to 50).
    pub max_sweeps: usize,
    /// Runs, the best is kept; 1 by default. Further ones place most perms of the best so far anew.
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
    /// Sweeps of all runs, placing and the last one without a change included.
    pub sweeps: usize,
    /// Whether a sweep changed nothing.
    pub converged: bool,
    /// Whether the last solution of every perm is proven to be its best, relative gap at most 10⁻⁶, with nothing changed since;
    /// never with a perm on two axes of a tensor.
    pub certified: bool,
    /// What that proves.
    pub scope: Scope,
    /// Every matched perm's last relative gap, by id.
    pub gaps: Vec<(String, f64)>,
    /// `F` where the best run began to descend, once its perms were placed, and after each accepted change, as the gains add up.
    pub history: Vec<f64>,
    /// Assignment problems solved in all runs.
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
    // While the models are looked at, on every thread.
    rayon::spawn_broadcast(|_| subspan_linalg::gemm::prepare());
    let identity = Permutations::identity(layout.spec());
    let before = compare_finite(layout, a, b, &identity)?;
    let from = start.unwrap_or(&identity);
    let mut descent = Descent::new(layout, a, b, from, config.cache, seed);
    // On a thread of the pool: small layers mean many small tasks, and a thread from outside would be woken for each.
    let end = rayon::scope(|_| {
        let first = descent.first(start.is_none(), &before, config, observer)?;
        descent.restart(first, config, seed, observer)
    })?;
    Ok(descent.finish(before, end))
}

/// For every perm that may move, what unit `j` of `b` brings to `Σ ⟨A, π(B)⟩` at the place of unit `i`, the other perms as they
/// are: the derivative of that sum by the permutation matrix, row-major. With a gradient in place of `a` it is that of a loss.
/// Cost and memory as of one sweep of [`match_weights`] without assignments, all matrices at once.
///
/// # Errors
/// A tensor that one of the models lacks.
pub fn cross_grams(
    layout: &Layout,
    a: &dyn Model,
    b: &dyn Model,
    permutations: &Permutations,
) -> Result<Vec<(String, Vec<f32>)>> {
    let mut solver = Solver::new(layout, a, b, permutations.clone(), 0);
    let free = (0..layout.perms.len()).filter(|p| layout.perms[*p].1.is_free());
    free.map(|p| Ok((layout.perms[p].0.clone(), solver.gram(p)?))).collect()
}

#[cfg(test)]
mod tests;
