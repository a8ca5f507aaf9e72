//! The causal test: match on a part of the singular directions, apply the permutations to the whole models, and see whether the
//! barrier goes away; beside it a control of the same distance.

use serde::Serialize;
use subspan_linalg::Mat;

use super::super::layout::Layout;
use super::super::model::{MemoryModel, Model};
use super::super::permutations::Permutations;
use super::super::spec::Solve;
use super::super::tensor::{DType, Tensor};
use super::super::{Result, compare};
use super::spectrum::LayerSpectrum;
use crate::draw::Stream;

/// Which part of a model is left for matching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// Directions with `s ≥ γ s_max`, and biases.
    Top,
    /// The other directions; biases are zero.
    Bottom,
    /// The other directions, and biases.
    BottomWithBiases,
}

/// A model reduced to some of its directions.
pub struct Filtered {
    /// Every tensor of the layout; others are left out.
    pub model: MemoryModel,
    /// Share of all directions that is left.
    pub share: f64,
}

/// Keeps of every weight only the directions of `arm`. Tensors of one axis are the biases (scales and shifts of normalisations
/// among them). Cost: `2 n m k` flop per layer.
///
/// # Errors
/// A tensor that the model lacks.
pub fn keep_directions(
    layout: &Layout,
    model: &dyn Model,
    spectra: &[LayerSpectrum],
    gamma: f64,
    arm: Arm,
) -> Result<Filtered> {
    let mut out = MemoryModel::new(model.label());
    let (mut left, mut all) = (0, 0);
    for tensor in &layout.tensors {
        let view = model.require(&tensor.name)?;
        let kept = match spectra.iter().find(|s| s.name == tensor.name) {
            Some(layer) => {
                let k = layer.kept(gamma);
                all += layer.rank;
                left += if arm == Arm::Top { k } else { layer.rank - k };
                let top = low_rank(layer, k);
                let values: Vec<f32> = match arm {
                    Arm::Top => top.as_slice().iter().map(|v| *v as f32).collect(),
                    _ => view.to_f64().iter().zip(top.as_slice()).map(|(w, t)| (w - t) as f32).collect(),
                };
                Tensor::from_f32(view.shape, &values, DType::F32)
            }
            None if arm == Arm::Bottom && tensor.in_cost => {
                Tensor::from_f32(view.shape, &vec![0.0; view.n_elements()], DType::F32)
            }
            None => view.to_owned(),
        };
        out.tensors.insert(tensor.name.clone(), kept);
    }
    Ok(Filtered { model: out, share: if all > 0 { left as f64 / all as f64 } else { 0.0 } })
}

/// `Σ_{i<k} s_i u_i v_iᵀ`.
fn low_rank(layer: &LayerSpectrum, k: usize) -> Mat {
    let [rows, columns] = layer.shape;
    let scaled = Mat::from_fn(rows, k, |i, j| layer.svd.u[(i, j)] * layer.svd.s[j]);
    let right = Mat::from_fn(k, columns, |j, i| layer.svd.v[(i, j)]);
    scaled.mul(&right)
}

/// Shifts `count` units, chosen by `seed` among all that may move freely, cyclically within their perm: aligned places then hold
/// the units meant for the next chosen place. The units of a larger count include those of a smaller one.
pub fn spoil(layout: &Layout, permutations: &Permutations, count: usize, seed: u64) -> Permutations {
    let free = free_units(layout);
    let mut order = Stream::new(seed, "spoil").rng(0).permutation(free.len());
    order.truncate(count);
    let mut out = permutations.clone();
    for (at, (id, _)) in layout.perms.iter().enumerate() {
        let Some(old) = permutations.get(id) else { continue };
        let chosen: Vec<usize> = order.iter().map(|k| free[*k]).filter(|(p, _)| *p == at).map(|(_, u)| u).collect();
        let mut new = old.to_vec();
        for (k, unit) in chosen.iter().enumerate() {
            new[*unit] = old[chosen[(k + 1) % chosen.len()]];
        }
        out.set(id, new);
    }
    out
}

/// Units that may change places one by one: (perm, unit).
fn free_units(layout: &Layout) -> Vec<(usize, usize)> {
    let perms = layout.perms.iter().enumerate().filter(|(_, (_, p))| p.solve == Solve::Match && p.groups.is_none());
    perms.flat_map(|(at, (_, p))| (0..p.size).map(move |u| (at, u))).collect()
}

/// The control: `permutations` spoilt until `‖a − π(b)‖` is as near `distance` as a number of units can bring it (found by
/// bisection, as the distance grows with the number), and how many units that took.
///
/// # Errors
/// A tensor that a model lacks.
pub fn match_distance(
    layout: &Layout,
    a: &dyn Model,
    b: &dyn Model,
    permutations: &Permutations,
    distance: f64,
    seed: u64,
) -> Result<(Permutations, usize)> {
    let at = |count: usize| -> Result<(Permutations, f64)> {
        let spoilt = spoil(layout, permutations, count, seed);
        let found = compare(layout, a, b, &spoilt)?.distance();
        Ok((spoilt, found))
    };
    let (mut low, mut high) = (0, free_units(layout).len());
    while low + 1 < high {
        let middle = low.midpoint(high);
        if at(middle)?.1 < distance { low = middle } else { high = middle }
    }
    let (below, above) = (at(low)?, at(high)?);
    if (below.1 - distance).abs() <= (above.1 - distance).abs() { Ok((below.0, low)) } else { Ok((above.0, high)) }
}
