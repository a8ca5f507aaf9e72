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
mod nested;
mod solve;

use serde::Serialize;

use super::distance::{Comparison, compare, compare_finite};
use super::error::Result;
use super::layout::Layout;
use super::model::Model;
use super::permutations::Permutations;
use crate::assign::lap::CERTIFIED;
use crate::draw::Stream;
use crate::error::Error;
use crate::observe::{Event, Observer, metric};
use solve::{GAIN, Solver};

/// Memory that kept partial Gram matrices may take, bytes: enough for a few layers of width 4096.
const CACHE_BYTES: usize = 1 << 29;

/// The share of perms that a further run places anew.
const REPLACED: f64 = 0.7;

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
    /// Whether the last solution of every perm is proven to be its best, relative gap at most 10⁻⁶, with nothing changed since.
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
    // While the models are looked at.
    rayon::spawn(subspan_linalg::gemm::prepare);
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

/// The runs.
struct Descent<'a> {
    layout: &'a Layout,
    a: &'a dyn Model,
    b: &'a dyn Model,
    solver: Solver<'a>,
    /// The perms that may move, those first that what is fixed and those before them determine most.
    order: Vec<usize>,
    sweeps: usize,
    solves: usize,
}

/// Where a run ended.
struct End {
    permutations: Permutations,
    after: Comparison,
    /// Of `F`, by the accepted changes.
    gains: Vec<f64>,
    converged: bool,
}

impl End {
    fn objective(&self) -> f64 {
        self.after.objective()
    }
}

impl<'a> Descent<'a> {
    fn new(
        layout: &'a Layout,
        a: &'a dyn Model,
        b: &'a dyn Model,
        start: &Permutations,
        cache: bool,
        seed: u64,
    ) -> Self {
        let mut solver = Solver::new(layout, a, b, start.clone(), if cache { CACHE_BYTES } else { 0 });
        let free: Vec<usize> = (0..layout.perms.len()).filter(|p| layout.perms[*p].1.is_free()).collect();
        let drawn = Stream::new(seed, "order").rng(0).permutation(free.len());
        let order = solver.most_known_first(drawn.into_iter().map(|at| free[at]).collect());
        Self { layout, a, b, solver, order, sweeps: 0, solves: 0 }
    }

    /// The first run, from where the solver stands, the perms placed anew before if `place`.
    fn first(
        &mut self,
        place: bool,
        before: &Comparison,
        config: &MatchConfig,
        observer: &dyn Observer,
    ) -> Result<End> {
        observer.event(Event::Phase { name: "solve", total: Some(self.order.len() as u64) });
        if !place || self.is_separable() {
            return self.descend(config, observer);
        }
        let start = self.solver.permutations.clone();
        self.place(&self.order.clone(), observer)?;
        let end = self.descend(config, observer)?;
        if end.objective() > before.objective() {
            return Ok(end);
        }
        // The models are closer where they stand.
        self.go_to(&start);
        self.descend(config, observer)
    }

    /// Further runs, each from the best end so far with most perms placed anew; the best end.
    fn restart(&mut self, mut best: End, config: &MatchConfig, seed: u64, observer: &dyn Observer) -> Result<End> {
        if self.is_separable() || config.restarts == 1 {
            return Ok(best);
        }
        let replaced = Stream::new(seed, "replaced");
        for run in 1..config.restarts {
            let mut rng = replaced.rng(run as u64);
            let some = self.order.iter().copied().filter(|_| rng.uniform() < REPLACED).collect();
            let some = self.solver.most_known_first(some);
            self.place(&some, observer)?;
            let end = self.descend(config, observer)?;
            if end.objective() > best.objective() + GAIN * best.objective().abs() {
                best = end;
            } else {
                self.go_to(&best.permutations);
            }
        }
        // Certificates of where it ends.
        let last = self.descend(config, observer)?;
        Ok(End { gains: [best.gains, last.gains].concat(), ..last })
    }

    /// Places perms anew in this order, each where those that do not move and those placed before it want it.
    fn place(&mut self, some: &[usize], observer: &dyn Observer) -> Result<()> {
        self.solver.forget(some);
        for p in some {
            self.look_up(observer)?;
            self.solver.place(*p)?;
            self.solves += 1;
        }
        self.sweeps += 1;
        Ok(())
    }

    /// Sweeps until nothing changes or `max_sweeps` are over.
    fn descend(&mut self, config: &MatchConfig, observer: &dyn Observer) -> Result<End> {
        let mut converged = self.order.is_empty();
        let (mut left, mut gains) = (config.max_sweeps, Vec::new());
        while !converged && left > 0 {
            let already = gains.len();
            for p in self.order.clone() {
                self.look_up(observer)?;
                if let Some(solved) = self.solver.solve(p)? {
                    self.solves += 1;
                    gains.extend(solved.gain);
                }
            }
            self.sweeps += 1;
            left -= 1;
            // The last word is that of Gram matrices that are, to rounding, as if computed afresh.
            converged = gains.len() == already && !self.solver.forget_worn();
        }
        let permutations = self.solver.permutations.clone();
        let after = compare(self.layout, self.a, self.b, &permutations)?;
        metric(observer, "objective", after.objective());
        Ok(End { permutations, after, gains, converged })
    }

    /// Says that a perm is next and asks whether to go on.
    fn look_up(&self, observer: &dyn Observer) -> Result<()> {
        if observer.cancelled() {
            return Err(Error::Cancelled.into());
        }
        if self.sweeps == 0 {
            observer.event(Event::Advance { steps: 1 });
        }
        Ok(())
    }

    fn go_to(&mut self, permutations: &Permutations) {
        for p in &self.order {
            self.solver.put(*p, permutations.get(&self.layout.perms[*p].0).unwrap_or_default());
        }
    }

    fn is_separable(&self) -> bool {
        self.solver.is_separable(&self.order)
    }

    fn finish(mut self, before: Comparison, end: End) -> Matched {
        self.order.sort_unstable();
        let gap = |p: &usize| (self.layout.perms[*p].0.clone(), self.solver.gap(*p).unwrap_or(f64::INFINITY));
        let gaps: Vec<(String, f64)> = self.order.iter().map(gap).collect();
        let certified = end.converged && gaps.iter().all(|(_, gap)| *gap <= CERTIFIED);
        let scope = if self.is_separable() { Scope::Global } else { Scope::Coordinate };
        let mut history = vec![end.objective()];
        // Backwards from what the tensors say in the end.
        for gain in end.gains.iter().rev() {
            history.push(history[history.len() - 1] - gain);
        }
        history.reverse();
        Matched {
            permutations: end.permutations,
            before,
            after: end.after,
            sweeps: self.sweeps,
            converged: end.converged,
            certified,
            scope,
            gaps,
            history,
            solves: self.solves,
        }
    }
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
