//! One perm's best, with everything that is worth keeping between solves.

use super::super::distance::compare_tensors;
use super::super::error::Result;
use super::super::gram::Panels;
use super::super::layout::{BoundTensor, Layout};
use super::super::model::Model;
use super::super::permutations::{Permutations, groups_of};
use super::cross::{Cross, Parts};
use super::nested;
use crate::assign::lap::{self, Warm};

/// A change must raise `F` by more than this, relative to the perm's part of it: below lies the rounding of single-precision
/// Gram matrices, and ties would flip for ever.
pub(super) const GAIN: f64 = 1e-7;
/// What is known of a perm.
struct Perm {
    size: usize,
    n_groups: Option<usize>,
    /// Gram matrices of its units and of its groups.
    crosses: Vec<Cross>,
    /// Perms whose moves change this one's Gram matrix.
    neighbours: Vec<usize>,
    quadratic: bool,
    keeps: bool,
    /// Changes of the neighbours up to the last solve.
    solved: Option<u64>,
    warm: Option<(Vec<usize>, Vec<f64>)>,
    gap: Option<f64>,
}

/// The descent's state.
pub(super) struct Solver<'a> {
    layout: &'a Layout,
    a: &'a dyn Model,
    b: &'a dyn Model,
    /// As they are now.
    pub(super) permutations: Permutations,
    perms: Vec<Perm>,
    /// Changes of each perm so far.
    versions: Vec<u64>,
    /// Whether what other perms know of a perm counts.
    placed: Vec<bool>,
    panels: Panels,
    /// Costs of the last problem, to be used again: large blocks that come and go cost more than what is done with them.
    spare: Vec<f32>,
}

/// What a solve changed.
pub(super) struct Solved {
    /// What `F` gained, if the perm moved.
    pub(super) gain: Option<f64>,
}

/// The solution of one perm's problem.
pub(super) struct Found {
    pub(super) perm: Vec<usize>,
    /// Of columns; empty for nested problems.
    pub(super) duals: Vec<f64>,
    /// What it costs, `−⟨G, P⟩`.
    pub(super) value: f64,
    /// No solution costs less than `value − gap`.
    pub(super) gap: f64,
}

impl<'a> Solver<'a> {
    /// A descent from `start` that keeps at most `budget` bytes of partial Gram matrices.
    pub(super) fn new(
        layout: &'a Layout,
        a: &'a dyn Model,
        b: &'a dyn Model,
        start: Permutations,
        mut budget: usize,
    ) -> Self {
        let mut perms = Vec::new();
        for (p, (_, info)) in layout.perms.iter().enumerate() {
            let crosses = Cross::of(layout, p);
            let mut neighbours: Vec<usize> = crosses.iter().flat_map(Cross::neighbours).collect();
            neighbours.sort_unstable();
            neighbours.dedup();
            let bytes = crosses.iter().map(Cross::bytes).sum();
            // Without neighbours that move, a perm is solved once.
            let keeps = !neighbours.is_empty() && bytes <= budget;
            budget -= if keeps { bytes } else { 0 };
            perms.push(Perm {
                size: info.size,
                n_groups: info.groups,
                quadratic: neighbours.contains(&p),
                crosses,
                neighbours,
                keeps,
                solved: None,
                warm: None,
                gap: None,
            });
        }
        let (versions, placed) = (vec![0; perms.len()], vec![true; perms.len()]);
        let panels =
            Panels::for_largest(perms.iter().flat_map(|perm: &Perm| perm.crosses.iter().flat_map(Cross::shapes)));
        Self { layout, a, b, permutations: start, perms, versions, placed, panels, spare: Vec::new() }
    }

    /// These perms in an order in which each is determined as much as possible by those before it and by what is not among
    /// them: next comes the one with the largest share of such columns, of several the first given.
    pub(super) fn most_known_first(&mut self, perms: Vec<usize>) -> Vec<usize> {
        self.ordered(perms, |share, best| share > best)
    }

    /// These perms in the order given, but for those of which nothing would be known.
    pub(super) fn known_first(&mut self, perms: Vec<usize>) -> Vec<usize> {
        self.ordered(perms, |share, best| share > 0.0 && best == 0.0)
    }

    fn ordered(&mut self, mut left: Vec<usize>, is_better: impl Fn(f64, f64) -> bool) -> Vec<usize> {
        self.forget(&left);
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let known = left.iter().map(|p| self.known_share(*p)).enumerate();
            let best = known.reduce(|best, next| if is_better(next.1, best.1) { next } else { best });
            let next = left.remove(best.map_or(0, |(at, _)| at));
            self.placed[next] = true;
            order.push(next);
        }
        order
    }

    /// From now on these perms say nothing about others until they are [placed](Self::place).
    pub(super) fn forget(&mut self, perms: &[usize]) {
        perms.iter().for_each(|p| self.placed[*p] = false);
    }

    /// Puts a perm where its fixed and placed neighbours want it, whatever the others say.
    pub(super) fn place(&mut self, p: usize) -> Result<()> {
        if self.known_share(p) > 0.0 {
            let id = &self.layout.perms[p].0;
            let old = self.permutations.get(id).unwrap_or_default().to_vec();
            let (found, ..) = self.minimize(p, &old)?;
            self.permutations.set(id, found.perm);
        }
        self.versions[p] += 1;
        self.placed[p] = true;
        Ok(())
    }

    /// The share of a perm's contraction columns that fixed and placed perms determine.
    fn known_share(&self, p: usize) -> f64 {
        let columns = self.perms[p].crosses.iter().map(|cross| cross.n_columns(&self.placed));
        let (known, all) = columns.fold((0, 0), |(known, all), (k, n)| (known + k, all + n));
        known as f64 / all.max(1) as f64
    }

    /// Whether a perm is on two axes of a tensor.
    pub(super) fn is_quadratic(&self, p: usize) -> bool {
        self.perms[p].quadratic
    }

    /// The last relative gap of a perm.
    pub(super) fn gap(&self, p: usize) -> Option<f64> {
        self.perms[p].gap
    }

    /// Whether no two of these perms share a tensor of the cost, and none has two axes of one.
    pub(super) fn is_separable(&self, free: &[usize]) -> bool {
        free.iter().all(|p| self.perms[*p].neighbours.is_empty() && !self.perms[*p].quadratic)
    }

    /// Puts a perm elsewhere, whatever that does to `F`.
    pub(super) fn put(&mut self, p: usize, to: &[usize]) {
        let id = &self.layout.perms[p].0;
        if self.permutations.get(id) != Some(to) {
            self.permutations.set(id, to.to_vec());
            self.versions[p] += 1;
            self.perms[p].solved = None;
        }
    }

    /// Forgets the solutions that rest on Gram matrices too often updated; whether there were any.
    pub(super) fn forget_worn(&mut self) -> bool {
        let mut any = false;
        for perm in &mut self.perms {
            let worn = perm.crosses.iter_mut().filter_map(|cross| cross.forget_if_worn().then_some(())).count();
            if worn > 0 {
                perm.solved = None;
                any = true;
            }
        }
        any
    }

    /// Solves perm `p`, unless nothing that matters to it has moved since its last solve.
    pub(super) fn solve(&mut self, p: usize) -> Result<Option<Solved>> {
        let versions = self.perms[p].neighbours.iter().map(|q| self.versions[*q]).sum();
        if self.perms[p].solved == Some(versions) {
            return Ok(None);
        }
        let id = self.layout.perms[p].0.clone();
        let old = self.permutations.get(&id).unwrap_or_default().to_vec();
        let (found, old_value, scale) = self.minimize(p, &old)?;
        let linear_gain = old_value - found.value;
        let same = found.perm == old;
        let mut gain = None;
        if !same && linear_gain > GAIN * scale {
            self.permutations.set(&id, found.perm.clone());
            let real = if self.perms[p].quadratic { self.real_gain(p, &old)? } else { linear_gain };
            if real > GAIN * scale {
                gain = Some(real);
                self.versions[p] += 1;
            } else {
                self.permutations.set(&id, old.clone());
            }
        }
        let left = if gain.is_some() || same { found.gap } else { found.gap + linear_gain.max(0.0) };
        let perm = &mut self.perms[p];
        perm.gap = Some(if left <= 0.0 { 0.0 } else { left / scale.max(f64::MIN_POSITIVE) });
        perm.warm = (!found.duals.is_empty()).then(|| (if gain.is_some() { found.perm } else { old }, found.duals));
        // Of the versions before: a perm that is its own neighbour is solved again after it moved.
        perm.solved = Some(versions);
        Ok(Some(Solved { gain }))
    }

    /// The best permutation of a perm by what is known, and value and size of `old`'s costs.
    fn minimize(&mut self, p: usize, old: &[usize]) -> Result<(Found, f64, f64)> {
        let n = self.perms[p].size;
        let costs = self.costs(p, false)?;
        Ok(match self.perms[p].n_groups {
            None => {
                let costs = costs.unwrap_or_else(|| vec![0.0; n * n]);
                let warm = self.perms[p].warm.as_ref().map(|(columns, duals)| Warm { columns, duals });
                let found = lap::minimize(&costs, n, warm)?;
                let (value, gap) = (found.certificate.value, found.certificate.gap);
                let (old_value, scale) = value_of(&costs, old);
                self.spare = costs;
                (Found { perm: found.columns, duals: found.duals, value, gap }, old_value, scale)
            }
            Some(n_groups) => {
                let outer = self.costs(p, true)?;
                let found = nested::minimize(costs.as_deref(), outer.as_deref(), n, n_groups)?;
                let part =
                    |costs: &Option<Vec<f32>>, perm: &[usize]| costs.as_ref().map_or((0.0, 0.0), |c| value_of(c, perm));
                let info = &self.layout.perms[p].1;
                let (inner, outer) = (part(&costs, old), part(&outer, &groups_of(old, info)));
                (found, inner.0 + outer.0, inner.1 + outer.1)
            }
        })
    }

    /// What `F` really gained by setting perm `p`, which was `old`.
    fn real_gain(&self, p: usize, old: &[usize]) -> Result<f64> {
        let concerned = |t: &&BoundTensor| t.in_cost && t.axes.iter().flatten().any(|x| x.perm == p);
        let concerned: Vec<&BoundTensor> = self.layout.tensors.iter().filter(concerned).collect();
        let part = |permutations: &Permutations| -> Result<f64> {
            let sums = compare_tensors(self.layout, self.a, self.b, &concerned, permutations)?;
            Ok(sums.iter().map(|s| s.product).sum())
        };
        let mut before = self.permutations.clone();
        before.set(&self.layout.perms[p].0, old.to_vec());
        Ok(part(&self.permutations)? - part(&before)?)
    }

    /// The cross-Gram matrix of a perm's units; zeros if no tensor has such places.
    pub(super) fn gram(&mut self, p: usize) -> Result<Vec<f32>> {
        let n = self.perms[p].size;
        let mut costs = self.costs(p, false)?.unwrap_or_else(|| vec![0.0; n * n]);
        costs.iter_mut().for_each(|c| *c = -*c);
        Ok(costs)
    }

    /// `−G` of the perm's units, or of its groups as wholes; `None` if nothing is known of them.
    fn costs(&mut self, p: usize, outer: bool) -> Result<Option<Vec<f32>>> {
        let parts = Parts {
            layout: self.layout,
            a: self.a,
            b: self.b,
            permutations: &self.permutations,
            versions: &self.versions,
            placed: &self.placed,
        };
        let perm = &mut self.perms[p];
        let Some(cross) = perm.crosses.iter_mut().find(|cross| cross.outer == outer) else { return Ok(None) };
        let mut costs = std::mem::take(&mut self.spare);
        let known = cross.costs(perm.keeps, &parts, &mut self.panels, &mut costs)?;
        if !known {
            self.spare = costs;
            return Ok(None);
        }
        Ok(Some(costs))
    }
}

/// `Σ c[i, perm[i]]` and `Σ |c[i, perm[i]]|`.
fn value_of(costs: &[f32], perm: &[usize]) -> (f64, f64) {
    let n = perm.len();
    let chosen = |(i, j): (usize, &usize)| f64::from(costs[i * n + j]);
    let value = perm.iter().enumerate().map(chosen).sum();
    let scale = perm.iter().enumerate().map(chosen).map(f64::abs).sum();
    (value, scale)
}
