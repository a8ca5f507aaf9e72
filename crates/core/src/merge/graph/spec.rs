//! Perms found in a graph as a spec.

use std::collections::BTreeMap;

use super::super::derive::Derived;
use super::super::error::Result;
use super::super::spec::{Axes, PermInfo, Piece, Solve, Spec};
use super::axes::Axis;
use super::bind::Binding;
use super::walk::Finished;
use super::{FAMILY, refuse};

impl Finished {
    /// The spec; with `residual`, units that a normalisation of a network with attention sums over may move.
    pub(super) fn derived(mut self, binding: &Binding, residual: bool) -> Result<Derived> {
        let mut unit_of: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        for (perm, wires) in self.perms.iter().enumerate() {
            wires.iter().enumerate().for_each(|(unit, wire)| {
                unit_of.insert(*wire, (perm, unit));
            });
        }
        let names = self.names(binding, &unit_of);
        let mut spec = Spec::default();
        let mut held = false;
        for (perm, name) in names.iter().enumerate() {
            let fixed = self.attention && self.normalized[perm] && !residual;
            held |= fixed;
            let solve = if fixed { Solve::Fixed } else { Solve::Match };
            spec.perms.insert(name.clone(), PermInfo { solve, ..PermInfo::new(self.perms[perm].len()) });
        }
        for (parameter, axes) in &self.parameters {
            let Some(bound) = binding.by_parameter.get(parameter) else { continue };
            let mut described: Axes = Vec::new();
            for axis in axes {
                described.push(self.pieces(*axis, &unit_of, &names, &bound.tensor)?);
            }
            if bound.transposed {
                described.reverse();
            }
            if described.iter().any(|pieces| !pieces.is_empty()) {
                spec.tensors.insert(bound.tensor.clone(), described);
            }
        }
        for (copy, of) in &binding.copies {
            if let Some(axes) = spec.tensors.get(of).cloned() {
                spec.tensors.insert(copy.clone(), axes);
            }
        }
        let mut notes = std::mem::take(&mut self.notes);
        notes.sort();
        notes.dedup();
        if held {
            notes.push("the residual stream is fixed (--residual lets it move)".into());
        }
        Ok(Derived { spec, family: FAMILY.into(), notes })
    }

    /// Perms are named after the layer that makes their units: the first matrix or kernel with them on axis 0, else the first tensor.
    fn names(&self, binding: &Binding, unit_of: &BTreeMap<u32, (usize, usize)>) -> Vec<String> {
        let mut best: Vec<Option<(bool, String)>> = vec![None; self.perms.len()];
        for (parameter, axes) in &self.parameters {
            let Some(bound) = binding.by_parameter.get(parameter) else { continue };
            for (k, axis) in axes.iter().enumerate() {
                let first = if bound.transposed { axes.len() - 1 - k == 0 } else { k == 0 };
                let makes = first && axes.len() > 1;
                for (perm, _) in (0..axis.len).filter_map(|i| unit_of.get(&self.wires.wire(*axis, i)?)) {
                    let known = &mut best[*perm];
                    if known.as_ref().is_none_or(|(made, _)| makes && !made) {
                        let tensor = &bound.tensor;
                        *known = Some((makes, tensor.strip_suffix(".weight").unwrap_or(tensor).to_string()));
                    }
                }
            }
        }
        let mut out: Vec<String> = Vec::new();
        for name in best {
            let name = name.map_or_else(|| "units".into(), |(_, name)| name);
            // One layer can make units of several kinds.
            let again = (2..).map(|k| format!("{name}/{k}"));
            let free = std::iter::once(name.clone()).chain(again).find(|n| !out.contains(n));
            out.push(free.unwrap_or(name));
        }
        out
    }

    /// The pieces of one axis of a tensor.
    fn pieces(
        &self,
        axis: Axis,
        unit_of: &BTreeMap<u32, (usize, usize)>,
        names: &[String],
        tensor: &str,
    ) -> Result<Vec<Piece>> {
        // Slots of every unit, by perm.
        let mut slots: BTreeMap<usize, Vec<Vec<usize>>> = BTreeMap::new();
        for p in 0..axis.len {
            if let Some((perm, unit)) = self.wires.wire(axis, p).and_then(|w| unit_of.get(&w)) {
                slots.entry(*perm).or_insert_with(|| vec![Vec::new(); self.perms[*perm].len()])[*unit].push(p);
            }
        }
        let mut out = Vec::new();
        for (perm, units) in slots {
            if units.iter().any(|s| s.len() != units[0].len()) {
                return refuse(tensor, format!("has units of {} with other numbers of places", names[perm]));
            }
            out.extend(pieces_of(&names[perm], &units, axis.len));
        }
        Ok(out)
    }
}

/// Pieces that give every unit its slots, as few as repeat regularly.
fn pieces_of(perm: &str, units: &[Vec<usize>], length: usize) -> Vec<Piece> {
    let n_slots = units[0].len();
    let mut runs: Vec<Piece> = Vec::new();
    let mut slot = 0;
    while slot < n_slots {
        // The longest block of adjacent slots, alike in all units.
        let adjacent = |k: usize| units.iter().all(|s| s[k] == s[k - 1] + 1);
        let block = 1 + (slot + 1..n_slots).take_while(|k| adjacent(*k)).count();
        let mut from = 0;
        while from < units.len() {
            let first = units[from][slot];
            let len = (from..units.len()).take_while(|u| units[*u][slot] == first + (u - from) * block).count();
            let piece = Piece::blocks(perm, block).at(first);
            runs.push(if len == units.len() { piece } else { piece.units(from, len) });
            from += len;
        }
        slot += block;
    }
    // Whole runs at one distance are one piece with repetitions.
    let whole = runs.iter().all(|r| r.len.is_none() && r.block == runs[0].block);
    let step = runs.get(1).map_or(0, |r| r.at.saturating_sub(runs[0].at));
    let even = runs.windows(2).all(|w| w[1].at == w[0].at + step);
    if whole && runs.len() > 1 && even && step >= units.len() * runs[0].block {
        let default = step == units.len() * runs[0].block;
        let tile = runs.len();
        runs.truncate(1);
        runs[0].tile = tile;
        runs[0].stride = (!default).then_some(step);
    }
    if let [only] = runs.as_mut_slice() {
        let covers = only.at == 0 && only.len.is_none() && only.stride.is_none();
        only.fills = covers && units.len() * n_slots == length;
    }
    runs
}
