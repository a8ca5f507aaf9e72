//! Weight matching by coordinate descent: one perm at a time is set to its exact best, the others as they are.
//!
//! `F(π) = Σ ⟨A, π(B)⟩` over the tensors of the cost; permutations keep norms, so a larger `F` is a smaller distance. With the
//! other perms fixed, `F` is linear in one perm: a linear assignment problem on its cross-Gram matrix. `F` never falls, so the
//! descent ends; where it ends, no single perm can be improved, which the last certificate of every perm proves. Where no two
//! perms that may move share a tensor, that is the global optimum.
//!
//! Ainsworth, Hayase, Srinivasa (2209.04836), algorithm 1. Ours: perms whose neighbours did not move are not solved again;
//! partial Gram matrices are kept and updated where only few columns moved; assignments start from the last duals. Where a
//! sweep is cheap, the first run takes the perms with the most neighbours first (residual streams), and every run is followed
//! by **kicks**: some units of one such perm change places in pairs, all others follow, the descent goes on, and the better end
//! is kept (iterated local search).

mod nested;
mod solve;

use serde::Serialize;

use super::distance::{Comparison, check_finite, compare};
use super::error::{MergeError, Result};
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

/// Floating-point operations that kicks may take per run by default (some tenths of a second), ...
const KICK_WORK: f64 = 4e9;
/// ... how many sweeps a kick is taken to need, ...
const KICK_SWEEPS: f64 = 2.0;
/// ... how many kicks are worth beginning with, and enough.
const KICKS: std::ops::RangeInclusive<usize> = 4..=40;
/// A kick moves one unit in so many.
const KICK_SHARE: usize = 4;

/// How to match.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchConfig {
    /// Sweeps over all perms at most; 100 by default, far above what is seen (3 to 50).
    pub max_sweeps: usize,
    /// Runs with different orders of the perms, the best is kept; 1 by default.
    pub restarts: usize,
    /// Kicks per run; by default as many as cost little, none for wide layers.
    pub kicks: Option<usize>,
    /// Whether to keep partial Gram matrices between solves; the result is the same up to rounding.
    pub cache: bool,
}

impl Default for MatchConfig {
    fn default() -> Self {
        Self { max_sweeps: 100, restarts: 1, kicks: None, cache: true }
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
    /// `F` after each accepted change that led to the end of the best run, as the gains add up; a kick lowers it.
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
    // While the models are looked at.
    rayon::spawn(subspan_linalg::gemm::prepare);
    check_finite(layout, a)?;
    check_finite(layout, b)?;
    let identity = Permutations::identity(layout.spec());
    let before = compare(layout, a, b, &identity)?;
    let start = start.unwrap_or(&identity);
    let mut best: Option<Matched> = None;
    for restart in 0..config.restarts {
        let descent = Descent::new(layout, a, b, start, &before, config, restart, seed)?;
        // On a thread of the pool: small layers mean many small tasks, and a thread from outside would be woken for each.
        let run = rayon::scope(|_| descent.run(config, observer))?;
        if best.as_ref().is_none_or(|b| run.after.objective() > b.after.objective()) {
            best = Some(run);
        }
    }
    best.ok_or_else(|| MergeError::spec("no run"))
}

/// One run.
struct Descent<'a> {
    layout: &'a Layout,
    a: &'a dyn Model,
    b: &'a dyn Model,
    before: &'a Comparison,
    solver: Solver<'a>,
    free: Vec<usize>,
    /// Whether perms are taken by their number of neighbours.
    by_neighbours: bool,
    orders: Stream,
    kicks: Stream,
    sweeps: usize,
    solves: usize,
    /// `F` after each accepted change.
    history: Vec<f64>,
}

impl<'a> Descent<'a> {
    fn new(
        layout: &'a Layout,
        a: &'a dyn Model,
        b: &'a dyn Model,
        start: &Permutations,
        before: &'a Comparison,
        config: &MatchConfig,
        restart: usize,
        seed: u64,
    ) -> Result<Self> {
        let budget = if config.cache { CACHE_BYTES } else { 0 };
        let solver = Solver::new(layout, a, b, start.clone(), budget);
        let free = (0..layout.perms.len()).filter(|p| layout.perms[*p].1.is_free()).collect();
        let first = if *start == Permutations::identity(layout.spec()) {
            before.objective()
        } else {
            compare(layout, a, b, start)?.objective()
        };
        let seed = seed.wrapping_add(restart as u64);
        let (orders, kicks) = (Stream::new(seed, "sweeps"), Stream::new(seed, "kicks"));
        let by_neighbours = restart == 0;
        let history = vec![first];
        Ok(Self { layout, a, b, before, solver, free, by_neighbours, orders, kicks, sweeps: 0, solves: 0, history })
    }

    fn run(mut self, config: &MatchConfig, observer: &dyn Observer) -> Result<Matched> {
        observer.event(Event::Phase { name: "solve", total: Some(self.free.len() as u64) });
        let affordable = self.affordable(config);
        self.by_neighbours &= affordable > 0;
        let mut converged = self.descend(None, config.max_sweeps, observer)?;
        let kicks = if converged { affordable } else { 0 };
        let mut best = (self.objective(), self.solver.permutations.clone(), self.history.len());
        for kick in 0..kicks {
            let kicked = self.kick(kick)?;
            self.descend(Some(kicked), config.max_sweeps, observer)?;
            if self.objective() > best.0 + GAIN * best.0.abs() {
                best = (self.objective(), self.solver.permutations.clone(), self.history.len());
            } else {
                self.back_to(&best.1, best.2);
            }
        }
        if kicks > 0 {
            // Certificates of where the run ends.
            self.back_to(&best.1, best.2);
            converged = self.descend(None, config.max_sweeps, observer)?;
        }
        self.finish(converged)
    }

    /// `F`, as the gains add up.
    fn objective(&self) -> f64 {
        self.history[self.history.len() - 1]
    }

    /// Sweeps until nothing changes or `max_sweeps` are over; whether nothing changed. The first one leaves out `held`.
    fn descend(&mut self, mut held: Option<usize>, max_sweeps: usize, observer: &dyn Observer) -> Result<bool> {
        let mut converged = self.free.is_empty();
        let mut left = max_sweeps;
        while !converged && left > 0 {
            let mut accepted = 0;
            let held_now = held.take();
            for p in self.order().into_iter().filter(|p| Some(*p) != held_now) {
                if observer.cancelled() {
                    return Err(Error::Cancelled.into());
                }
                if self.sweeps == 0 {
                    observer.event(Event::Advance { steps: 1 });
                }
                if let Some(solved) = self.solver.solve(p)? {
                    self.solves += 1;
                    if let Some(gain) = solved.gain {
                        accepted += 1;
                        self.history.push(self.objective() + gain);
                    }
                }
            }
            self.sweeps += 1;
            left -= 1;
            metric(observer, "objective", self.objective());
            // The last word is that of Gram matrices that are, to rounding, as if computed afresh.
            converged = accepted == 0 && held_now.is_none() && !self.solver.distrust_updates();
        }
        Ok(converged)
    }

    /// The perms in the order of the next sweep.
    fn order(&self) -> Vec<usize> {
        let drawn = self.orders.rng(self.sweeps as u64).permutation(self.free.len());
        let mut order: Vec<usize> = drawn.into_iter().map(|at| self.free[at]).collect();
        if self.by_neighbours {
            order.sort_by_key(|p| std::cmp::Reverse(self.solver.n_neighbours(*p)));
        }
        order
    }

    fn affordable(&self, config: &MatchConfig) -> usize {
        if self.solver.is_separable(&self.free) {
            return 0;
        }
        config.kicks.unwrap_or_else(|| {
            let n = (KICK_WORK / (KICK_SWEEPS * self.solver.sweep_work())) as usize;
            if n < *KICKS.start() { 0 } else { n.min(*KICKS.end()) }
        })
    }

    /// Moves some units of a perm on which many others depend; which perm.
    fn kick(&mut self, number: usize) -> Result<usize> {
        let mut rng = self.kicks.rng(number as u64);
        let plain: Vec<usize> =
            self.free.iter().copied().filter(|p| self.layout.perms[*p].1.groups.is_none()).collect();
        let mut counts: Vec<usize> = plain.iter().map(|p| self.solver.n_neighbours(*p)).collect();
        counts.sort_unstable();
        let Some(middle) = counts.get(counts.len() / 2) else { return Ok(0) };
        let central = |strictly: bool| -> Vec<usize> {
            let enough = |p: &usize| self.solver.n_neighbours(*p) + usize::from(!strictly) > *middle;
            plain.iter().copied().filter(enough).collect()
        };
        let some = Some(central(true)).filter(|c| !c.is_empty()).unwrap_or_else(|| central(false));
        let p = some[rng.permutation(some.len())[0]];
        let (id, info) = &self.layout.perms[p];
        let mut perm = self.solver.permutations.get(id).unwrap_or_default().to_vec();
        // Pairs of units that are matched to each other, in an order that is the same if the models are swapped: then so is
        // the kick, and the two runs stay inverse to each other.
        let keys: Vec<f64> = (0..info.size).map(|_| rng.uniform()).collect();
        let mut units: Vec<usize> = (0..info.size).collect();
        units.sort_by(|i, j| (keys[*i] + keys[perm[*i]]).total_cmp(&(keys[*j] + keys[perm[*j]])));
        units.truncate((info.size / KICK_SHARE).max(2));
        for pair in units.chunks_exact(2) {
            perm.swap(pair[0], pair[1]);
        }
        let change = self.solver.disturb(p, &perm)?;
        self.history.push(self.objective() + change);
        Ok(p)
    }

    /// Undoes what has happened since the history had `length` entries.
    fn back_to(&mut self, permutations: &Permutations, length: usize) {
        for p in &self.free {
            self.solver.put(*p, permutations.get(&self.layout.perms[*p].0).unwrap_or_default());
        }
        self.history.truncate(length);
    }

    fn finish(self, converged: bool) -> Result<Matched> {
        let id = |p: &usize| self.layout.perms[*p].0.clone();
        let gaps: Vec<(String, f64)> =
            self.free.iter().map(|p| (id(p), self.solver.gap(*p).unwrap_or(f64::INFINITY))).collect();
        let certified = converged && gaps.iter().all(|(_, gap)| *gap <= CERTIFIED);
        let scope = if self.solver.is_separable(&self.free) { Scope::Global } else { Scope::Coordinate };
        let permutations = self.solver.permutations;
        let after = compare(self.layout, self.a, self.b, &permutations)?;
        Ok(Matched {
            permutations,
            before: self.before.clone(),
            after,
            sweeps: self.sweeps,
            converged,
            certified,
            scope,
            gaps,
            history: self.history,
            solves: self.solves,
        })
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
