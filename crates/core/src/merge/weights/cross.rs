//! The cross-Gram matrix of a perm, kept between solves and brought up to date by what changed.

use rayon::prelude::*;
use subspan_linalg::mixed::negated;

use super::super::TensorView;
use super::super::error::Result;
use super::super::gram::{Columns, Panels};
use super::super::layout::{BoundTensor, Layout, Place};
use super::super::model::Model;
use super::super::permutations::Permutations;
use super::super::spec::Solve;

/// Gram matrices that are not kept are added up in double precision up to this side; larger ones in place, for the memory's sake.
const DOUBLE_SIDE: usize = 4096;
/// A kept matrix is updated if fewer than one in so many of its columns moved, ...
const UPDATE_SHARE: usize = 2;
/// ... and at most so many times in a row, so that rounding does not add up.
const MOST_UPDATES: usize = 40;
/// Elements of a matrix that make a task of a pass over it.
const PASS_ELEMENTS: usize = 1 << 16;

/// What Gram matrices are made of.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) layout: &'a Layout,
    pub(super) a: &'a dyn Model,
    pub(super) b: &'a dyn Model,
    pub(super) permutations: &'a Permutations,
    /// Changes of each perm so far.
    pub(super) versions: &'a [u64],
    /// Whether a perm is where others may go by it.
    pub(super) placed: &'a [bool],
}

/// A place of a perm in a tensor of the cost.
struct Term {
    tensor: usize,
    axis: usize,
    place: usize,
    n_columns: usize,
    /// Perms whose moves change its columns.
    neighbours: Vec<usize>,
}

impl Term {
    fn is_known(&self, placed: &[bool]) -> bool {
        self.neighbours.iter().all(|q| placed[*q])
    }

    /// Grows whenever a neighbour moves.
    fn stamp(&self, versions: &[u64]) -> u64 {
        self.neighbours.iter().map(|q| versions[*q]).sum()
    }

    fn columns(&self, parts: &Parts<'_>) -> Columns {
        let tensor = &parts.layout.tensors[self.tensor];
        Columns::new(parts.layout, tensor, self.axis, &tensor.axes[self.axis][self.place], parts.permutations)
    }

    fn views<'a>(&self, parts: &Parts<'a>) -> Result<(TensorView<'a>, TensorView<'a>)> {
        let name = &parts.layout.tensors[self.tensor].name;
        Ok((parts.a.require(name)?, parts.b.require(name)?))
    }
}

/// The cross-Gram matrix of a perm's units, or of its groups as wholes.
pub(super) struct Cross {
    pub(super) outer: bool,
    n: usize,
    terms: Vec<Term>,
    kept: Option<Kept>,
}

struct Kept {
    gram: Vec<f64>,
    /// The columns of each term that is part of it, and its stamp.
    columns: Vec<Option<(Columns, u64)>>,
    updates: usize,
    /// Columns updated since the matrix was last computed afresh.
    updated: usize,
}

impl Cross {
    /// Those of perm `p` that have terms: of its units, of its groups.
    pub(super) fn of(layout: &Layout, p: usize) -> Vec<Self> {
        let info = &layout.perms[p].1;
        let mut found = [(false, info.size), (true, info.groups.unwrap_or(info.size))].map(|(outer, n)| Self {
            outer,
            n,
            terms: Vec::new(),
            kept: None,
        });
        for (t, tensor) in layout.tensors.iter().enumerate().filter(|(_, t)| t.in_cost) {
            for (axis, places) in tensor.axes.iter().enumerate() {
                let others = tensor.shape.iter().product::<usize>() / tensor.shape[axis].max(1);
                for (place, x) in places.iter().enumerate().filter(|(_, x)| x.perm == p) {
                    let (n_columns, neighbours) = (others * x.n_slots, neighbours(layout, tensor, axis, x));
                    found[usize::from(x.outer)].terms.push(Term { tensor: t, axis, place, n_columns, neighbours });
                }
            }
        }
        found.into_iter().filter(|cross| !cross.terms.is_empty()).collect()
    }

    /// Perms whose moves change it, some more than once.
    pub(super) fn neighbours(&self) -> impl Iterator<Item = usize> {
        self.terms.iter().flat_map(|t| &t.neighbours).copied()
    }

    /// Its contraction columns that are known, and all.
    pub(super) fn n_columns(&self, placed: &[bool]) -> (usize, usize) {
        let columns =
            |known: bool| self.terms.iter().filter(|t| !known || t.is_known(placed)).map(|t| t.n_columns).sum();
        (columns(true), columns(false))
    }

    /// Units and contraction columns of every term.
    pub(super) fn shapes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.terms.iter().map(|t| (self.n, t.n_columns))
    }

    /// Bytes of what would be kept.
    pub(super) fn bytes(&self) -> usize {
        self.n * self.n * size_of::<f64>()
    }

    /// Forgets what is kept if its rounding is larger than a fresh one's: if more columns have been updated than it is made of.
    pub(super) fn forget_if_worn(&mut self) -> bool {
        self.kept.take_if(|kept| kept.updated > kept.n_columns()).is_some()
    }

    /// Minus the sum of what is known, in `out`; false if nothing is.
    pub(super) fn costs(
        &mut self,
        keep: bool,
        parts: &Parts<'_>,
        panels: &mut Panels,
        out: &mut Vec<f32>,
    ) -> Result<bool> {
        if !self.terms.iter().any(|t| t.is_known(parts.placed)) {
            return Ok(false);
        }
        out.resize(self.n * self.n, 0.0);
        if keep {
            let gram = self.refresh(parts, panels)?;
            let pass = |(out, gram): (&mut [f32], &[f64])| negated(gram, out);
            out.par_chunks_mut(PASS_ELEMENTS).zip(gram.par_chunks(PASS_ELEMENTS)).for_each(pass);
            return Ok(true);
        }
        let known = self.terms.iter().filter(|t| t.is_known(parts.placed));
        if self.n > DOUBLE_SIDE {
            out.fill(0.0);
            for term in known {
                let (a, b) = term.views(parts)?;
                term.columns(parts).subtract(a, b, out, panels);
            }
        } else {
            let mut sums = vec![0f64; out.len()];
            for term in known {
                let (a, b) = term.views(parts)?;
                term.columns(parts).add(a, b, &mut sums, panels);
            }
            negated(&sums, out);
        }
        Ok(true)
    }

    /// Brings the kept matrix up to date.
    fn refresh(&mut self, parts: &Parts<'_>, panels: &mut Panels) -> Result<&[f64]> {
        let mut kept = self.kept.take().unwrap_or_else(|| Kept::nothing(self.n, self.terms.len()));
        let updates = kept.updates(&self.terms, parts).unwrap_or_else(|| {
            kept.clear();
            let known = self.terms.iter().enumerate().filter(|(_, t)| t.is_known(parts.placed));
            known.map(|(term, t)| Update { term, columns: t.columns(parts), changed: Vec::new() }).collect()
        });
        kept.updates += usize::from(updates.iter().any(|u| !u.changed.is_empty()));
        for Update { term: k, columns, changed } in updates {
            let term = &self.terms[k];
            let (a, b) = term.views(parts)?;
            match &kept.columns[k] {
                None => columns.add(a, b, &mut kept.gram, panels),
                Some((old, _)) => columns.add_change(old, &changed, a, b, &mut kept.gram, panels),
            }
            kept.updated += changed.len();
            kept.columns[k] = Some((columns, term.stamp(parts.versions)));
        }
        Ok(&self.kept.insert(kept).gram)
    }
}

/// New columns of a term, and which of them changed if it is part of the kept matrix already.
struct Update {
    term: usize,
    columns: Columns,
    changed: Vec<usize>,
}

impl Kept {
    fn nothing(n: usize, n_terms: usize) -> Self {
        Self { gram: vec![0.0; n * n], columns: (0..n_terms).map(|_| None).collect(), updates: 0, updated: 0 }
    }

    fn clear(&mut self) {
        self.gram.fill(0.0);
        self.columns.fill_with(|| None);
        (self.updates, self.updated) = (0, 0);
    }

    fn n_columns(&self) -> usize {
        self.columns.iter().flatten().map(|(columns, _)| columns.len()).sum()
    }

    /// What brings it up to date; `None` if that is better computed afresh.
    fn updates(&self, terms: &[Term], parts: &Parts<'_>) -> Option<Vec<Update>> {
        let mut updates = Vec::new();
        for (k, (term, old)) in terms.iter().zip(&self.columns).enumerate() {
            let stamp = term.stamp(parts.versions);
            match (term.is_known(parts.placed), old) {
                (true, Some((_, old_stamp))) if *old_stamp == stamp => {}
                (true, Some((old, _))) => {
                    let columns = term.columns(parts);
                    let changed = columns.changed_since(old)?;
                    updates.push(Update { term: k, columns, changed });
                }
                (true, None) => updates.push(Update { term: k, columns: term.columns(parts), changed: Vec::new() }),
                // What is no longer known would have to be taken out.
                (false, Some(_)) => return None,
                (false, None) => {}
            }
        }
        let n_changed: usize = updates.iter().map(|u| u.changed.len()).sum();
        let few = self.updates < MOST_UPDATES && n_changed < self.n_columns() / UPDATE_SHARE;
        (n_changed == 0 || few).then_some(updates)
    }
}

/// Matched perms on which the columns of a place depend: those on other axes, and those around or inside of it.
fn neighbours(layout: &Layout, tensor: &BoundTensor, axis: usize, place: &Place) -> Vec<usize> {
    let elsewhere = tensor.axes.iter().enumerate().filter(|(other, _)| *other != axis).flat_map(|(_, places)| places);
    // Outermost places of an axis have no positions in common.
    let nested = |x: &&Place| x.perm != place.perm && (x.depth > 0 || place.depth > 0);
    let here = tensor.axes[axis].iter().filter(nested);
    let mut perms: Vec<usize> = elsewhere.chain(here).map(|x| x.perm).collect();
    perms.retain(|q| layout.perms[*q].1.solve == Solve::Match);
    perms.sort_unstable();
    perms.dedup();
    perms
}
