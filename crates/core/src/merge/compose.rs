//! Permutations one after the other, and undone.
//!
//! Without pieces inside pieces permutations compose perm by perm. A perm inside unit `k` of another acts in the first model's
//! positions, after the outer one: `source = O ∘ I`. So in `(O I)(O' I') = O O' (O'⁻¹ I O') I'` the inner perm of unit `k` is
//! composed with the one that lives in unit `O'[k]`, its **counterpart** there.

use std::collections::BTreeMap;

use super::error::{MergeError, Result};
use super::layout::{Layout, Place};
use super::permutations::{Permutations, groups_of, inverse};

/// Perms inside the units (or groups) of an outer one: the same number in each, in the same order.
#[derive(Debug)]
struct Nest {
    outer: usize,
    /// Ids of the inner perms of every unit.
    inner: Vec<Vec<usize>>,
}

impl Layout {
    /// The permutations that undo these: `apply(apply(m, p), inverse(p))` is `m`.
    ///
    /// # Errors
    /// Perms inside units that have no counterpart in the other units, so that no permutations of the spec undo these.
    pub fn inverse(&self, permutations: &Permutations) -> Result<Permutations> {
        let mut out = permutations.map(inverse);
        for nest in self.nests()? {
            let back = inverse(&self.outer_moves(&nest, permutations));
            for (k, ids) in nest.inner.iter().enumerate() {
                for (id, from) in ids.iter().zip(&nest.inner[back[k]]) {
                    out.set(self.id(*id), inverse(self.perm_of(*from, permutations)));
                }
            }
        }
        Ok(out)
    }

    /// `first`, then `next`: `apply(m, then(first, next))` is `apply(apply(m, first), next)`.
    ///
    /// # Errors
    /// As [`Layout::inverse`].
    pub fn then(&self, first: &Permutations, next: &Permutations) -> Result<Permutations> {
        let compose = |p: &[usize], q: &[usize]| -> Vec<usize> { q.iter().map(|i| p[*i]).collect() };
        let mut out = Permutations::identity(self.spec());
        for (id, p) in first.iter() {
            out.set(id, compose(p, next.get(id).unwrap_or_default()));
        }
        for nest in self.nests()? {
            let moves = self.outer_moves(&nest, next);
            for (k, ids) in nest.inner.iter().enumerate() {
                for (id, from) in ids.iter().zip(&nest.inner[moves[k]]) {
                    out.set(self.id(*id), compose(self.perm_of(*from, first), self.perm_of(*id, next)));
                }
            }
        }
        Ok(out)
    }

    fn id(&self, perm: usize) -> &str {
        &self.perms[perm].0
    }

    fn perm_of<'p>(&self, perm: usize, permutations: &'p Permutations) -> &'p [usize] {
        permutations.get(self.id(perm)).unwrap_or_default()
    }

    /// How the units (or groups) around the inner perms move.
    fn outer_moves(&self, nest: &Nest, permutations: &Permutations) -> Vec<usize> {
        let perm = self.perm_of(nest.outer, permutations);
        let info = &self.perms[nest.outer].1;
        if info.groups.is_some() { groups_of(perm, info) } else { perm.to_vec() }
    }

    /// All perms that lie inside units of others, with their counterparts.
    fn nests(&self) -> Result<Vec<Nest>> {
        // (outer perm, its unit) to the inner perms there; and each inner perm's home.
        let mut at: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        let mut homes: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for places in self.tensors.iter().flat_map(|t| &t.axes) {
            for inner in places.iter().filter(|p| p.depth > 0) {
                let around: Vec<&Place> = places.iter().filter(|p| p.depth < inner.depth && covers(p, inner)).collect();
                let [outer] = around.as_slice() else { return self.no_counterpart(inner.perm) };
                let info = &self.perms[outer.perm].1;
                let unit = unit_of(outer, inner.slots[0]);
                let unit = if outer.outer || info.groups.is_none() { unit } else { unit / info.group_size() };
                match homes.insert(inner.perm, (outer.perm, unit)) {
                    Some(home) if home != (outer.perm, unit) => return self.no_counterpart(inner.perm),
                    Some(_) => {}
                    None => at.entry((outer.perm, unit)).or_default().push(inner.perm),
                }
            }
        }
        let mut out: Vec<Nest> = Vec::new();
        for outer in at.keys().map(|(outer, _)| *outer).collect::<std::collections::BTreeSet<_>>() {
            let info = &self.perms[outer].1;
            let inner: Vec<Vec<usize>> = (0..info.groups.unwrap_or(info.size))
                .map(|unit| at.get(&(outer, unit)).cloned().unwrap_or_default())
                .collect();
            let sizes = |ids: &[usize]| ids.iter().map(|p| &self.perms[*p].1).cloned().collect::<Vec<_>>();
            for ids in &inner {
                let alike = sizes(ids) == sizes(&inner[0])
                    && ids.iter().zip(&inner[0]).all(|(a, b)| self.look(*a) == self.look(*b));
                if !alike {
                    return self.no_counterpart(*ids.first().or(inner[0].first()).unwrap_or(&outer));
                }
            }
            out.push(Nest { outer, inner });
        }
        Ok(out)
    }

    /// Where a perm's units have their places, relative to the first: counterparts look alike.
    fn look(&self, perm: usize) -> Vec<(usize, usize, Vec<i64>)> {
        let mut out = Vec::new();
        for (t, tensor) in self.tensors.iter().enumerate() {
            for (axis, places) in tensor.axes.iter().enumerate() {
                for place in places.iter().filter(|p| p.perm == perm) {
                    let first = i64::from(place.slots[0]);
                    out.push((t, axis, place.slots.iter().map(|s| i64::from(*s) - first).collect()));
                }
            }
        }
        out
    }

    fn no_counterpart<T>(&self, perm: usize) -> Result<T> {
        Err(MergeError::Unsupported {
            what: format!(
                "perm {} lies inside units of another perm, but has no counterpart in all of them",
                self.id(perm)
            ),
            hint: Some(
                "give every unit an inner perm of its own (of the same size and places), or --many anchor".into(),
            ),
        })
    }
}

/// Whether all of `inner` lies in `outer`.
fn covers(outer: &Place, inner: &Place) -> bool {
    inner.slots.iter().all(|s| outer.slots.contains(s))
}

/// The unit of `place` that owns a position.
fn unit_of(place: &Place, position: u32) -> usize {
    place.slots.iter().position(|s| *s == position).map_or(0, |at| at / place.n_slots)
}
