//! A spec checked against the shapes of a model: where each unit's slots are.

use std::collections::BTreeMap;

use super::error::{MergeError, Result};
use super::model::Model;
use super::permutations::{Permutations, inverse};
use super::spec::{OUTER, PermInfo, Piece, Spec};

/// Endings of tensors that move with their units but say nothing about which units are alike: statistics of normalisation.
const NOT_MATCHED: [&str; 3] = ["running_mean", "running_var", "num_batches_tracked"];

/// A perm, or the groups of one, on an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Index of the perm in [`Layout::perms`].
    pub perm: usize,
    /// Whether units are the groups of the perm.
    pub outer: bool,
    /// Slots of every unit on this axis.
    pub n_slots: usize,
    /// Positions on the axis, all slots of unit 0, then of unit 1, ...
    pub slots: Vec<u32>,
    /// Number of other places it lies inside of. A gather goes by the outermost place first, then by the inner ones in the first
    /// model's positions.
    pub depth: usize,
}

impl Place {
    /// Units.
    pub fn n_units(&self) -> usize {
        self.slots.len() / self.n_slots
    }

    /// Where positions of the axis come from when units move by `perm`; the other positions stay.
    fn gather(&self, perm: &[usize], length: usize) -> Vec<usize> {
        let mut source: Vec<usize> = (0..length).collect();
        for (to, from) in self.slots.chunks(self.n_slots).zip(perm) {
            for (to, from) in to.iter().zip(&self.slots[from * self.n_slots..]) {
                source[*to as usize] = *from as usize;
            }
        }
        source
    }
}

/// A tensor of the spec with its shape.
#[derive(Debug, Clone)]
pub struct BoundTensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Places of every axis, outermost first.
    pub axes: Vec<Vec<Place>>,
    /// Whether the distance of two models includes it: floating, and no statistic of a normalisation.
    pub in_cost: bool,
}

/// A spec that fits a model.
#[derive(Debug, Clone)]
pub struct Layout {
    spec: Spec,
    /// Ids and perms, by id.
    pub perms: Vec<(String, PermInfo)>,
    /// Tensors with at least one piece, by name.
    pub tensors: Vec<BoundTensor>,
    by_name: BTreeMap<String, usize>,
}

impl Layout {
    /// Binds a spec to the shapes of a model. Cost: the lengths of the axes with pieces.
    ///
    /// # Errors
    /// A tensor the model lacks; a piece that does not fit its axis; pieces that overlap without nesting; units with unlike
    /// numbers of slots.
    pub fn new(spec: Spec, model: &dyn Model) -> Result<Self> {
        spec.check()?;
        let perms: Vec<(String, PermInfo)> = spec.perms.iter().map(|(id, p)| (id.clone(), p.clone())).collect();
        let mut tensors = Vec::new();
        for (name, axes) in &spec.tensors {
            let view = model.require(name)?;
            if axes.len() != view.shape.len() {
                return Err(MergeError::Rank { tensor: name.clone(), spec: axes.len(), shape: view.shape.to_vec() });
            }
            if axes.iter().all(Vec::is_empty) {
                continue;
            }
            let bind = |axis: usize| {
                Axis { spec: &spec, perms: &perms, tensor: name, axis, length: view.shape[axis] }.bind(&axes[axis])
            };
            let axes = (0..axes.len()).map(bind).collect::<Result<Vec<_>>>()?;
            let statistic = NOT_MATCHED.contains(&name.rsplit('.').next().unwrap_or_default());
            let in_cost = view.dtype.is_float() && !statistic;
            tensors.push(BoundTensor { name: name.clone(), shape: view.shape.to_vec(), axes, in_cost });
        }
        let by_name = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Ok(Self { spec, perms, tensors, by_name })
    }

    /// The spec it was made of.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// A tensor with pieces, by name.
    pub fn tensor(&self, name: &str) -> Option<&BoundTensor> {
        self.by_name.get(name).map(|i| &self.tensors[*i])
    }

    /// Names of tensors of the model that no perm touches.
    pub fn untouched<'m>(&self, model: &'m dyn Model) -> Vec<&'m str> {
        model.names().into_iter().filter(|n| !self.by_name.contains_key(*n)).collect()
    }

    /// For each axis of a tensor, where its positions come from: `aligned[x, y, ..] = b[s₀[x], s₁[y], ..]`; `None` where nothing
    /// moves. A tensor without pieces has no axis that moves.
    pub fn sources(&self, name: &str, permutations: &Permutations) -> Vec<Option<Vec<usize>>> {
        self.tensor(name)
            .map_or_else(Vec::new, |t| (0..t.axes.len()).map(|a| self.axis_source(t, a, permutations)).collect())
    }

    /// [`Layout::sources`] of one axis.
    pub(super) fn axis_source(
        &self,
        tensor: &BoundTensor,
        axis: usize,
        permutations: &Permutations,
    ) -> Option<Vec<usize>> {
        let source = self.partial_source(tensor, axis, permutations, |_| true)?;
        source.iter().enumerate().any(|(i, j)| i != *j).then_some(source)
    }

    /// The gather by those places of an axis that `keep` accepts; `None` if it accepts none.
    fn partial_source(
        &self,
        tensor: &BoundTensor,
        axis: usize,
        permutations: &Permutations,
        keep: impl Fn(&Place) -> bool,
    ) -> Option<Vec<usize>> {
        let length = tensor.shape[axis];
        let kept = tensor.axes[axis].iter().filter(|p| keep(p));
        kept.fold(None, |outer: Option<Vec<usize>>, place| {
            let (id, info) = &self.perms[place.perm];
            let inner = place.gather(&permutations.of(id, info, place.outer), length);
            Some(match outer {
                None => inner,
                Some(outer) => inner.into_iter().map(|x| outer[x]).collect(),
            })
        })
    }

    /// For the units of one place of an axis: the positions of their slots in the first model (with the places inside it undone)
    /// and in the second (as the places around it have gathered it), unit by unit. With these, the inner products of unit `i` of
    /// the one with unit `j` of the other add up to what moving `j` to `i` brings.
    pub fn slot_positions(
        &self,
        tensor: &BoundTensor,
        axis: usize,
        place: &Place,
        permutations: &Permutations,
    ) -> (Vec<usize>, Vec<usize>) {
        let through = |map: Option<Vec<usize>>| -> Vec<usize> {
            place.slots.iter().map(|s| map.as_ref().map_or(*s as usize, |m| m[*s as usize])).collect()
        };
        let deeper = self.partial_source(tensor, axis, permutations, |p| p.depth > place.depth);
        let shallower = self.partial_source(tensor, axis, permutations, |p| p.depth <= place.depth && p != place);
        (through(deeper.map(|m| inverse(&m))), through(shallower))
    }
}

/// One axis being bound.
struct Axis<'a> {
    spec: &'a Spec,
    perms: &'a [(String, PermInfo)],
    tensor: &'a str,
    axis: usize,
    length: usize,
}

/// No unit.
const NOBODY: u32 = u32::MAX;

impl Axis<'_> {
    fn bind(&self, pieces: &[Piece]) -> Result<Vec<Place>> {
        let mut places: Vec<Place> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for piece in pieces {
            if names.contains(&piece.perm.as_str()) {
                continue;
            }
            names.push(&piece.perm);
            places.push(self.place(&piece.perm, pieces)?);
        }
        let owners: Vec<Vec<u32>> = places.iter().map(|p| self.owners(p)).collect();
        for (place, name) in places.iter().zip(&names) {
            let mut slots = place.slots.clone();
            slots.sort_unstable();
            if let Some(twice) = slots.windows(2).find(|w| w[0] == w[1]) {
                return Err(self.overlap(twice[0], name, name));
            }
        }
        let mut depths = vec![0; places.len()];
        for p in 0..places.len() {
            for q in 0..places.len() {
                if p != q && self.inside(&places, &owners, &names, p, q)? {
                    depths[p] += 1;
                }
            }
        }
        for (place, depth) in places.iter_mut().zip(depths) {
            place.depth = depth;
        }
        places.sort_by_key(|p| p.depth);
        Ok(places)
    }

    /// The slots of every unit of `perm`, from all of its pieces.
    fn place(&self, perm: &str, pieces: &[Piece]) -> Result<Place> {
        let size = self.spec.size_of(perm, self.tensor)?;
        let (id, outer) = perm.strip_suffix(OUTER).map_or((perm, false), |id| (id, true));
        let mut units: Vec<Vec<u32>> = vec![Vec::new(); size];
        for piece in pieces.iter().filter(|p| p.perm == perm) {
            let len = piece.len.unwrap_or(size - piece.from);
            let stride = piece.stride.unwrap_or(size * piece.block);
            let reach = stride * (piece.tile - 1) + len * piece.block;
            let end = piece.at + reach;
            if end > self.length || (piece.fills && pieces.len() == 1 && end != self.length) {
                return Err(MergeError::PieceSize {
                    perm: perm.into(),
                    tensor: self.tensor.into(),
                    axis: self.axis,
                    needed: end,
                    length: self.length,
                });
            }
            for r in 0..piece.tile {
                for j in 0..len {
                    let first = piece.at + r * stride + j * piece.block;
                    units[piece.from + j].extend((first..first + piece.block).map(|x| x as u32));
                }
            }
        }
        let n_slots = units[0].len();
        if let Some((unit, slots)) = units.iter().enumerate().find(|(_, s)| s.len() != n_slots || s.is_empty()) {
            return Err(MergeError::Incomplete {
                tensor: self.tensor.into(),
                axis: self.axis,
                perm: perm.into(),
                unit,
                slots: slots.len(),
                expected: n_slots,
            });
        }
        let perm = self.perms.iter().position(|(p, _)| p == id).unwrap_or_default();
        Ok(Place { perm, outer, n_slots, slots: units.concat(), depth: 0 })
    }

    /// The unit that owns each position.
    fn owners(&self, place: &Place) -> Vec<u32> {
        let mut owners = vec![NOBODY; self.length];
        for (unit, slots) in place.slots.chunks(place.n_slots).enumerate() {
            slots.iter().for_each(|x| owners[*x as usize] = unit as u32);
        }
        owners
    }

    /// Whether place `p` lies inside one unit of place `q` (or inside one of its groups, alike in all of the group's units).
    fn inside(&self, places: &[Place], owners: &[Vec<u32>], names: &[&str], p: usize, q: usize) -> Result<bool> {
        let (inner, outer) = (&places[p], &places[q]);
        let shared: Vec<u32> = inner.slots.iter().copied().filter(|x| owners[q][*x as usize] != NOBODY).collect();
        let Some(first) = shared.first() else { return Ok(false) };
        let group_size = if outer.outer { 1 } else { self.perms[outer.perm].1.group_size() };
        let grouped = !outer.outer && self.perms[outer.perm].1.groups.is_some();
        let region = |x: &u32| {
            let unit = owners[q][*x as usize] as usize;
            if grouped { unit / group_size } else { unit }
        };
        let contained = shared.len() == inner.slots.len() && inner.slots.iter().all(|x| region(x) == region(first));
        if contained && (!grouped || self.alike_in_group(inner, outer, &owners[q])) {
            // Two places on the very same positions: the first named is the outer one.
            return Ok(inner.slots.len() < outer.slots.len() || q < p || !self.same_positions(inner, outer));
        }
        // Not inside: legal only if it is the other way round.
        let back = |x: &u32| owners[p][*x as usize];
        let all: Vec<u32> = outer.slots.iter().map(back).collect();
        let reverse_grouped = !inner.outer && self.perms[inner.perm].1.groups.is_some();
        let size = if reverse_grouped { self.perms[inner.perm].1.group_size() as u32 } else { 1 };
        if all.iter().all(|o| *o != NOBODY && o / size == all[0] / size) {
            return Ok(false);
        }
        Err(self.overlap(*first, names[p], names[q]))
    }

    fn same_positions(&self, a: &Place, b: &Place) -> bool {
        let sorted = |p: &Place| {
            let mut s = p.slots.clone();
            s.sort_unstable();
            s
        };
        sorted(a) == sorted(b)
    }

    /// Whether each unit of `inner` has the same slots in every unit of the group it lies in, so that units of the group may
    /// change places around it.
    fn alike_in_group(&self, inner: &Place, outer: &Place, owners: &[u32]) -> bool {
        let slot_of: BTreeMap<u32, usize> =
            outer.slots.iter().enumerate().map(|(at, x)| (*x, at % outer.n_slots)).collect();
        inner.slots.chunks(inner.n_slots).all(|slots| {
            let mut by_unit: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            for x in slots {
                by_unit.entry(owners[*x as usize]).or_default().push(slot_of[x]);
            }
            let mut lists = by_unit.into_values();
            let first = lists.next();
            lists.all(|l| Some(&l) == first.as_ref())
        })
    }

    fn overlap(&self, position: u32, first: &str, second: &str) -> MergeError {
        MergeError::Overlap {
            tensor: self.tensor.into(),
            axis: self.axis,
            position: position as usize,
            first: first.into(),
            second: second.into(),
        }
    }
}
