//! One perm's best, with everything that is worth keeping between solves.

use std::collections::BTreeMap;

use rayon::prelude::*;
use subspan_linalg::mixed::negated_sum;

use super::super::distance::compare_tensor;
use super::super::error::Result;
use super::super::gram::{Columns, Panels};
use super::super::layout::Layout;
use super::super::model::Model;
use super::super::permutations::{Permutations, groups_of};
use super::super::spec::Solve;
use super::nested;
use crate::assign::lap::{self, Warm};

/// A change must raise `F` by more than this, relative to the perm's part of it: below lies the rounding of single-precision
/// Gram matrices, and ties would flip for ever.
pub(super) const GAIN: f64 = 1e-7;
/// Gram matrices up to this side are added up in double precision as wholes; larger ones by blocks of rows.
const WHOLE_SIDE: usize = 4096;
/// Rows of such a block: enough work per packed column, 8 · 1024 · n bytes.
const BLOCK_ROWS: usize = 1024;
/// A partial Gram matrix is updated if fewer than one in so many of its columns moved, ...
const UPDATE_SHARE: usize = 2;
/// ... and at most so many times in a row, so that rounding does not add up.
const MOST_UPDATES: usize = 40;
/// Elements of a matrix that make a task of a pass over it.
const PASS_ELEMENTS: usize = 1 << 16;

/// A place of a perm in a tensor of the cost.
#[derive(Debug, Clone, Copy)]
struct Term {
    tensor: usize,
    axis: usize,
    place: usize,
}

/// Terms that depend on the same other perms, with their part of the Gram matrix.
struct Group {
    outer: bool,
    neighbours: Vec<usize>,
    terms: Vec<Term>,
    kept: Option<Kept>,
}

struct Kept {
    gram: Vec<f64>,
    columns: Vec<Columns>,
    versions: Vec<u64>,
    updates: usize,
    /// Columns updated since the matrix was last computed afresh.
    updated: usize,
}

impl Kept {
    /// Whether its rounding is of the size of a fresh one's: no more columns have been updated than it is made of.
    fn is_as_good_as_fresh(&self) -> bool {
        self.updated <= self.columns.iter().map(Columns::len).sum()
    }
}

/// What is known of a perm.
struct Perm {
    size: usize,
    n_groups: Option<usize>,
    groups: Vec<Group>,
    /// Perms whose moves change this one's Gram matrix.
    neighbours: Vec<usize>,
    quadratic: bool,
    keeps: bool,
    /// Versions of the neighbours at the last solve.
    solved: Option<Vec<u64>>,
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
            let mut groups: BTreeMap<(bool, Vec<usize>), Vec<Term>> = BTreeMap::new();
            let mut quadratic = false;
            for (t, tensor) in layout.tensors.iter().enumerate().filter(|(_, t)| t.in_cost) {
                let axes_of = |q: usize| tensor.axes.iter().filter(|places| places.iter().any(|x| x.perm == q)).count();
                let twice = axes_of(p) > 1;
                let moves = |q: usize| (q != p || twice) && layout.perms[q].1.solve == Solve::Match && axes_of(q) > 0;
                let neighbours: Vec<usize> = (0..layout.perms.len()).filter(|q| moves(*q)).collect();
                for (axis, places) in tensor.axes.iter().enumerate() {
                    for (place, x) in places.iter().enumerate().filter(|(_, x)| x.perm == p) {
                        let terms = groups.entry((x.outer, neighbours.clone())).or_default();
                        terms.push(Term { tensor: t, axis, place });
                        quadratic |= twice;
                    }
                }
            }
            let mut neighbours: Vec<usize> = groups.keys().flat_map(|(_, n)| n.clone()).collect();
            neighbours.sort_unstable();
            neighbours.dedup();
            let bytes = groups.len() * info.size * info.size * size_of::<f64>();
            // Without neighbours that move, a perm is solved once.
            let keeps = !neighbours.is_empty() && bytes <= budget;
            budget -= if keeps { bytes } else { 0 };
            let group = |((outer, neighbours), terms)| Group { outer, neighbours, terms, kept: None };
            perms.push(Perm {
                size: info.size,
                n_groups: info.groups,
                groups: groups.into_iter().map(group).collect(),
                neighbours,
                quadratic,
                keeps,
                solved: None,
                warm: None,
                gap: None,
            });
        }
        let versions = vec![0; perms.len()];
        Self { layout, a, b, permutations: start, perms, versions, panels: Panels::default(), spare: Vec::new() }
    }

    /// The last relative gap of a perm.
    pub(super) fn gap(&self, p: usize) -> Option<f64> {
        self.perms[p].gap
    }

    /// Whether no two of these perms share a tensor of the cost, and none has two axes of one.
    pub(super) fn is_separable(&self, free: &[usize]) -> bool {
        free.iter().all(|p| self.perms[*p].neighbours.is_empty() && !self.perms[*p].quadratic)
    }

    /// How many other perms depend on a perm.
    pub(super) fn n_neighbours(&self, p: usize) -> usize {
        self.perms[p].neighbours.len()
    }

    /// Floating-point operations of solving every perm once: Gram matrices, and assignments as if they took `n³`.
    pub(super) fn sweep_work(&self) -> f64 {
        let of = |perm: &Perm| {
            let n = perm.size as f64;
            let columns = |t: &Term| {
                let tensor = &self.layout.tensors[t.tensor];
                tensor.shape.iter().product::<usize>() as f64 / n
            };
            2.0 * n * n * perm.groups.iter().flat_map(|g| &g.terms).map(columns).sum::<f64>() + n.powi(3)
        };
        self.perms.iter().map(of).sum()
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

    /// [`put`](Self::put) for a perm without groups; what it does to `F`.
    pub(super) fn disturb(&mut self, p: usize, to: &[usize]) -> Result<f64> {
        let id = &self.layout.perms[p].0;
        let old = self.permutations.get(id).unwrap_or_default().to_vec();
        if self.perms[p].quadratic {
            self.put(p, to);
            return self.real_gain(p, &old);
        }
        let costs = self.costs(p, false)?;
        self.put(p, to);
        let change = costs.as_ref().map_or(0.0, |costs| value_of(costs, &old).0 - value_of(costs, to).0);
        self.spare = costs.unwrap_or_default();
        Ok(change)
    }

    /// Forgets the solutions that rest on Gram matrices too often updated; whether there were any.
    pub(super) fn distrust_updates(&mut self) -> bool {
        let mut any = false;
        for perm in &mut self.perms {
            let updated = perm.groups.iter_mut().filter(|g| g.kept.as_ref().is_some_and(|k| !k.is_as_good_as_fresh()));
            let n = updated.map(|g| g.kept = None).count();
            if n > 0 {
                perm.solved = None;
                any = true;
            }
        }
        any
    }

    /// Solves perm `p`, unless nothing that matters to it has moved since its last solve.
    pub(super) fn solve(&mut self, p: usize) -> Result<Option<Solved>> {
        let versions: Vec<u64> = self.perms[p].neighbours.iter().map(|q| self.versions[*q]).collect();
        if self.perms[p].solved.as_ref() == Some(&versions) {
            return Ok(None);
        }
        let id = self.layout.perms[p].0.clone();
        let n = self.perms[p].size;
        let old = self.permutations.get(&id).unwrap_or_default().to_vec();
        let costs = self.costs(p, false)?;
        let (found, old_value, scale) = match self.perms[p].n_groups {
            None => {
                let costs = costs.unwrap_or_else(|| vec![0.0; n * n]);
                let warm = self.perms[p].warm.as_ref().map(|(columns, duals)| Warm { columns, duals });
                let found = lap::minimize(&costs, n, warm)?;
                let (value, gap) = (found.certificate.value, found.certificate.gap);
                let (old_value, scale) = value_of(&costs, &old);
                self.spare = costs;
                (Found { perm: found.columns, duals: found.duals, value, gap }, old_value, scale)
            }
            Some(n_groups) => {
                let outer = self.costs(p, true)?;
                let found = nested::minimize(costs.as_deref(), outer.as_deref(), n, n_groups)?;
                let part =
                    |costs: &Option<Vec<f32>>, perm: &[usize]| costs.as_ref().map_or((0.0, 0.0), |c| value_of(c, perm));
                let info = &self.layout.perms[p].1;
                let (inner, outer) = (part(&costs, &old), part(&outer, &groups_of(&old, info)));
                (found, inner.0 + outer.0, inner.1 + outer.1)
            }
        };
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

    /// What `F` really gained by setting perm `p`, which was `old`.
    fn real_gain(&self, p: usize, old: &[usize]) -> Result<f64> {
        let part = |permutations: &Permutations| -> Result<f64> {
            let concerned =
                self.layout.tensors.iter().filter(|t| t.in_cost && t.axes.iter().flatten().any(|x| x.perm == p));
            concerned.map(|t| Ok(compare_tensor(self.layout, self.a, self.b, t, permutations)?.product)).sum()
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

    /// `−G` of the perm's units, or of its groups as wholes; `None` if no tensor has such places.
    fn costs(&mut self, p: usize, outer: bool) -> Result<Option<Vec<f32>>> {
        let perm = &mut self.perms[p];
        let n = if outer { perm.n_groups.unwrap_or(perm.size) } else { perm.size };
        if !perm.groups.iter().any(|g| g.outer == outer) {
            return Ok(None);
        }
        let parts = Parts { layout: self.layout, a: self.a, b: self.b, permutations: &self.permutations };
        let groups = perm.groups.iter_mut().filter(|g| g.outer == outer);
        let mut costs = std::mem::take(&mut self.spare);
        costs.resize(n * n, 0.0);
        if perm.keeps {
            let mut kept = Vec::new();
            for group in groups {
                let versions: Vec<u64> = group.neighbours.iter().map(|q| self.versions[*q]).collect();
                parts.refresh(group, n, versions, &mut self.panels)?;
                kept.extend(group.kept.as_ref().map(|k| k.gram.as_slice()));
            }
            costs.par_chunks_mut(PASS_ELEMENTS).enumerate().for_each(|(block, costs)| {
                let start = block * PASS_ELEMENTS;
                let parts: Vec<&[f64]> = kept.iter().map(|gram| &gram[start..start + costs.len()]).collect();
                negated_sum(&parts, costs);
            });
            return Ok(Some(costs));
        }
        let terms: Vec<Term> = groups.flat_map(|g| g.terms.clone()).collect();
        let columns: Vec<Columns> = terms.iter().map(|t| parts.columns(t)).collect();
        let rows = if n <= WHOLE_SIDE { n } else { BLOCK_ROWS };
        let mut sums = vec![0f64; rows * n];
        for (block, costs) in costs.chunks_mut(rows * n).enumerate() {
            let sums = &mut sums[..costs.len()];
            sums.fill(0.0);
            for (term, columns) in terms.iter().zip(&columns) {
                let (a, b) = parts.views(term)?;
                columns.add(a, b, block * rows, sums, &mut self.panels);
            }
            costs.iter_mut().zip(sums).for_each(|(cost, sum)| *cost = -*sum as f32);
        }
        Ok(Some(costs))
    }
}

/// What Gram matrices are made of.
struct Parts<'a> {
    layout: &'a Layout,
    a: &'a dyn Model,
    b: &'a dyn Model,
    permutations: &'a Permutations,
}

impl<'a> Parts<'a> {
    fn columns(&self, term: &Term) -> Columns {
        let tensor = &self.layout.tensors[term.tensor];
        Columns::new(self.layout, tensor, term.axis, &tensor.axes[term.axis][term.place], self.permutations)
    }

    fn views(&self, term: &Term) -> Result<(super::super::TensorView<'a>, super::super::TensorView<'a>)> {
        let name = &self.layout.tensors[term.tensor].name;
        Ok((self.a.require(name)?, self.b.require(name)?))
    }

    /// Brings the kept Gram matrix of a group up to date.
    fn refresh(&self, group: &mut Group, n: usize, versions: Vec<u64>, panels: &mut Panels) -> Result<()> {
        if group.kept.as_ref().is_some_and(|k| k.versions == versions) {
            return Ok(());
        }
        let columns: Vec<Columns> = group.terms.iter().map(|t| self.columns(t)).collect();
        let total: usize = columns.iter().map(Columns::len).sum();
        if let Some(kept) = group.kept.as_mut().filter(|k| k.updates < MOST_UPDATES) {
            let changed: Option<Vec<Vec<usize>>> =
                columns.iter().zip(&kept.columns).map(|(new, old)| new.changed_since(old)).collect();
            if let Some(changed) = changed.filter(|c| c.iter().map(Vec::len).sum::<usize>() < total / UPDATE_SHARE) {
                for (((term, new), old), changed) in group.terms.iter().zip(&columns).zip(&kept.columns).zip(&changed) {
                    let (a, b) = self.views(term)?;
                    new.add_change(old, changed, a, b, &mut kept.gram, panels);
                }
                kept.updates += 1;
                kept.updated += changed.iter().map(Vec::len).sum::<usize>();
                (kept.columns, kept.versions) = (columns, versions);
                return Ok(());
            }
        }
        let mut gram = group.kept.take().map_or_else(|| vec![0.0; n * n], |k| k.gram);
        gram.fill(0.0);
        for (term, columns) in group.terms.iter().zip(&columns) {
            let (a, b) = self.views(term)?;
            columns.add(a, b, 0, &mut gram, panels);
        }
        group.kept = Some(Kept { gram, columns, versions, updates: 0, updated: 0 });
        Ok(())
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
