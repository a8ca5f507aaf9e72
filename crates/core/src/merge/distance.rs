//! How far apart two models are, and what a permutation changes about it.

use rayon::prelude::*;
use serde::Serialize;
use subspan_linalg::mixed::PairSums;

use super::apply::Gathered;
use super::error::{MergeError, Result};
use super::layout::{BoundTensor, Layout};
use super::model::Model;
use super::permutations::Permutations;
use super::tensor::{DType, widen_f32, widen_f64};

/// Bytes of a block of rows: enough to amortize a task, small enough for the second-level cache.
const BLOCK_BYTES: usize = 1 << 18;

/// Sums over one tensor of two models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Sums {
    /// `⟨A, B⟩`.
    pub product: f64,
    /// `‖A‖²`.
    pub left: f64,
    /// `‖B‖²`.
    pub right: f64,
    /// `‖A − B‖²`, added up from differences, so that it is exactly 0 for equal tensors.
    pub distance: f64,
}

impl Sums {
    fn add(self, other: Self) -> Self {
        Self {
            product: self.product + other.product,
            left: self.left + other.left,
            right: self.right + other.right,
            distance: self.distance + other.distance,
        }
    }
}

/// Sums over the tensors of the cost, in total and for each tensor.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Over all tensors of the cost.
    pub total: Sums,
    /// Name and sums of each.
    pub tensors: Vec<(String, Sums)>,
}

impl Comparison {
    /// `F = Σ ⟨A, π(B)⟩`, what weight matching maximises.
    pub fn objective(&self) -> f64 {
        self.total.product
    }

    /// `‖A − π(B)‖`.
    pub fn distance(&self) -> f64 {
        self.total.distance.sqrt()
    }
}

/// Compares `a` with `b` moved by `permutations`, over the tensors of the cost, in double precision. The bits do not depend on
/// the number of threads. Cost: one pass over both models.
///
/// # Errors
/// A tensor that either lacks.
///
/// # Panics
/// If shapes differ: see [`check_alike`](super::check_alike).
pub fn compare(layout: &Layout, a: &dyn Model, b: &dyn Model, permutations: &Permutations) -> Result<Comparison> {
    let tensors: Vec<&BoundTensor> = layout.tensors.iter().filter(|t| t.in_cost).collect();
    let sums = compare_tensors(layout, a, b, &tensors, permutations)?;
    let total = sums.iter().copied().fold(Sums::default(), Sums::add);
    Ok(Comparison { total, tensors: tensors.iter().map(|t| t.name.clone()).zip(sums).collect() })
}

/// [`compare`] for some tensors: the sums of each.
pub(super) fn compare_tensors(
    layout: &Layout,
    a: &dyn Model,
    b: &dyn Model,
    tensors: &[&BoundTensor],
    permutations: &Permutations,
) -> Result<Vec<Sums>> {
    let (mut pairs, mut blocks) = (Vec::with_capacity(tensors.len()), Vec::new());
    for (t, tensor) in tensors.iter().enumerate() {
        let (a, b) = (a.require(&tensor.name)?, b.require(&tensor.name)?);
        assert_eq!(a.shape, b.shape, "models that are alike");
        let (a, b) = (Gathered::new(a, &[]), layout.gathered(b, permutations));
        let rows = (BLOCK_BYTES / b.row_bytes().max(1)).max(1);
        blocks.extend((0..b.n_rows()).step_by(rows).map(|first| (t, first..(first + rows).min(b.n_rows()))));
        pairs.push((a, b));
    }
    let block = |scratch: &mut Scratch, (t, rows): (usize, std::ops::Range<usize>)| {
        let (a, b) = &pairs[t];
        (t, scratch.sums(a, b, rows))
    };
    let found: Vec<(usize, Sums)> = blocks.into_par_iter().map_init(Scratch::default, block).collect();
    let mut sums = vec![Sums::default(); tensors.len()];
    for (t, block) in found {
        sums[t] = sums[t].add(block);
    }
    Ok(sums)
}

/// Elements compared at once: in both precisions they stay in the first-level cache.
const TILE: usize = 1024;

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    a: Vec<u8>,
    b: Vec<u8>,
    single: [Vec<f32>; 2],
    double: [Vec<f64>; 2],
}

impl Scratch {
    /// The sums over rows of two gathered tensors of one shape.
    fn sums(&mut self, a: &Gathered<'_>, b: &Gathered<'_>, rows: std::ops::Range<usize>) -> Sums {
        let (a_type, b_type) = (a.view().dtype, b.view().dtype);
        let (a, b) = (a.bytes(rows.clone(), &mut self.a), b.bytes(rows, &mut self.b));
        let tiles = a.chunks(TILE * a_type.size()).zip(b.chunks(TILE * b_type.size()));
        let mut sums = PairSums::default();
        let double = [a_type, b_type].contains(&DType::F64);
        for (a, b) in tiles {
            let n = a.len() / a_type.size();
            if double {
                self.double.iter_mut().for_each(|v| v.resize(n, 0.0));
                let [x, y] = &mut self.double;
                widen_f64(a_type, a, x);
                widen_f64(b_type, b, y);
                sums.add(x, y);
            } else {
                // Exact for all narrower numbers.
                self.single.iter_mut().for_each(|v| v.resize(n, 0.0));
                let [x, y] = &mut self.single;
                widen_f32(a_type, a, x);
                widen_f32(b_type, b, y);
                sums.add(x, y);
            }
        }
        let [product, left, right, distance] = sums.totals();
        Sums { product, left, right, distance }
    }
}

/// [`compare`] for models that may hold numbers that are not finite.
///
/// # Errors
/// As of [`compare`]; [`MergeError::NonFinite`] with the first such number of the first model that has any.
pub(super) fn compare_finite(
    layout: &Layout,
    a: &dyn Model,
    b: &dyn Model,
    permutations: &Permutations,
) -> Result<Comparison> {
    let found = compare(layout, a, b, permutations)?;
    // A sum of squares is finite if its terms are; the other way round it may overflow.
    if !found.total.left.is_finite() || !found.total.right.is_finite() {
        check_finite(layout, a)?;
        check_finite(layout, b)?;
    }
    Ok(found)
}

fn check_finite(layout: &Layout, model: &dyn Model) -> Result<()> {
    for tensor in layout.tensors.iter().filter(|t| t.in_cost) {
        let view = model.require(&tensor.name)?;
        let per_block = BLOCK_BYTES / view.dtype.size();
        let mut wide = Vec::new();
        for (block, bytes) in view.data.chunks(per_block * view.dtype.size()).enumerate() {
            wide.resize(bytes.len() / view.dtype.size(), 0.0);
            widen_f64(view.dtype, bytes, &mut wide);
            if let Some(at) = wide.iter().position(|v| !v.is_finite()) {
                let (tensor, model) = (tensor.name.clone(), model.label().into());
                return Err(MergeError::NonFinite { tensor, model, index: block * per_block + at });
            }
        }
    }
    Ok(())
}
