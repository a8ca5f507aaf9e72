//! Runs of the descent: perms placed, then solved in turn until nothing changes.

use super::super::distance::{Comparison, compare};
use super::super::error::Result;
use super::super::layout::Layout;
use super::super::model::Model;
use super::super::permutations::Permutations;
use super::solve::{GAIN, Solver};
use super::{MatchConfig, Matched, Scope};
use crate::assign::lap::CERTIFIED;
use crate::draw::Stream;
use crate::error::Error;
use crate::observe::{Event, Observer, metric};

/// Memory that kept partial Gram matrices may take, bytes: enough for a few layers of width 4096.
const CACHE_BYTES: usize = 1 << 29;

/// The share of perms that a further run places anew.
const REPLACED: f64 = 0.7;
/// From which share of the objective after matching on, models are taken to be related as they stand.
const RELATED: f64 = 0.1;

/// The runs.
pub(super) struct Descent<'a> {
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
pub(super) struct End {
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
    pub(super) fn new(
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
    pub(super) fn first(
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
        let placed = self.descend(config, observer)?;
        let related = self.of_matrices(before) >= RELATED * self.of_matrices(&placed.after);
        if !related && placed.objective() > before.objective() {
            return Ok(placed);
        }
        // Where they stand the models have something in common.
        self.go_to(&start);
        let stayed = self.descend(config, observer)?;
        if stayed.objective() >= placed.objective() {
            return Ok(stayed);
        }
        self.certify(placed, config, observer)
    }

    /// Goes to an end and on from there, for certificates of where the descent really is.
    fn certify(&mut self, end: End, config: &MatchConfig, observer: &dyn Observer) -> Result<End> {
        self.go_to(&end.permutations);
        let last = self.descend(config, observer)?;
        Ok(End { gains: [end.gains, last.gains].concat(), ..last })
    }

    /// `F` of the tensors with two axes and more: vectors, as those of a normalisation, are alike in any order.
    fn of_matrices(&self, found: &Comparison) -> f64 {
        let is_matrix =
            |name: &str| self.layout.tensor(name).is_some_and(|t| t.shape.iter().filter(|n| **n > 1).count() > 1);
        found.tensors.iter().filter(|(name, _)| is_matrix(name)).map(|(_, sums)| sums.product).sum()
    }

    /// Further runs, each from the best end so far with most perms placed anew; the best end.
    pub(super) fn restart(
        &mut self,
        mut best: End,
        config: &MatchConfig,
        seed: u64,
        observer: &dyn Observer,
    ) -> Result<End> {
        if self.is_separable() || config.restarts == 1 {
            return Ok(best);
        }
        let replaced = Stream::new(seed, "replaced");
        for run in 1..config.restarts {
            let mut rng = replaced.rng(run as u64);
            let drawn = rng.permutation(self.order.len());
            let n = drawn.iter().filter(|_| rng.uniform() < REPLACED).count().max(1);
            let some = self.solver.known_first(drawn[..n].iter().map(|at| self.order[*at]).collect());
            self.place(&some, observer)?;
            let end = self.descend(config, observer)?;
            if end.objective() > best.objective() + GAIN * best.objective().abs() {
                best = end;
            } else {
                self.go_to(&best.permutations);
            }
        }
        self.certify(best, config, observer)
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

    pub(super) fn finish(mut self, before: Comparison, end: End) -> Matched {
        self.order.sort_unstable();
        let gap = |p: &usize| (self.layout.perms[*p].0.clone(), self.solver.gap(*p).unwrap_or(f64::INFINITY));
        let gaps: Vec<(String, f64)> = self.order.iter().map(gap).collect();
        // Of a perm on two axes of a tensor only the linear part is solved, which proves nothing.
        let linear = !self.order.iter().any(|p| self.solver.is_quadratic(*p));
        let certified = linear && end.converged && gaps.iter().all(|(_, gap)| *gap <= CERTIFIED);
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
