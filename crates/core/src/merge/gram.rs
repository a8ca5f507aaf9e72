//! Cross-Gram matrices: `G[i, j]` = what unit `j` of the second model brings at the place of unit `i` of the first.
//!
//! `G = Σ_axes A[:, c] B[:, s(c)]ᵀ`, where the contraction columns `c` are all positions of the other axes (and the slots of a
//! unit), and `s` is where the other perms take B's columns from. The moved model is never built: columns are gathered while
//! panels of fixed width are packed.

use rayon::prelude::*;
use subspan_linalg::gemm::{Vectors, add_inner_products, subtract_inner_products};

use super::layout::{BoundTensor, Layout, Place};
use super::permutations::Permutations;
use super::tensor::{DType, TensorView};

/// Contraction columns of a panel: single-precision products add up over so many, double precision beyond. A multiple of [`KERNEL`], so that
/// panels begin with kernels, and no power of two, so that rows do not compete for the same lines of a cache.
const PANEL: usize = 1008;
/// Elements of the usual kernel of a convolution, 3 x 3.
const KERNEL: usize = 9;
/// Elements between two units that are near each other: those of a small kernel.
const NEAR: usize = 16;
/// Elements of a panel that make packing it in parallel worthwhile.
const PARALLEL_ELEMENTS: usize = 1 << 16;

/// The contraction columns of one axis of one tensor: element offsets in A and B without a unit's own part, and the slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    a: Vec<usize>,
    b: Vec<usize>,
    slot: Vec<u32>,
    /// Offset of unit i's slot k: `a_unit[i · n_slots + k]`.
    a_unit: Vec<usize>,
    b_unit: Vec<usize>,
    n_slots: usize,
    /// Whether units lie side by side or within a small kernel of each other, so that a column of all units is a short way.
    units_are_near: bool,
}

impl Columns {
    /// The columns of `place` under the current permutations of the other perms.
    pub(super) fn new(
        layout: &Layout,
        tensor: &BoundTensor,
        axis: usize,
        place: &Place,
        permutations: &Permutations,
    ) -> Self {
        let stride: usize = tensor.shape[axis + 1..].iter().product();
        let (a_pos, b_pos) = layout.slot_positions(tensor, axis, place, permutations);
        let scaled = |v: Vec<usize>| -> Vec<usize> { v.into_iter().map(|x| x * stride).collect() };
        let (before, moved_before) = offsets(layout, tensor, 0..axis, permutations);
        let (after, moved_after) = offsets(layout, tensor, axis + 1..tensor.shape.len(), permutations);
        let n = before.len() * place.n_slots * after.len();
        let (mut a, mut b, mut slot) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
        for (x, moved_x) in before.iter().zip(&moved_before) {
            for k in 0..place.n_slots {
                a.extend(after.iter().map(|y| x + y));
                b.extend(moved_after.iter().map(|y| moved_x + y));
                slot.resize(a.len(), k as u32);
            }
        }
        let units_are_near = stride <= NEAR && before.len() > 1;
        let (a_unit, b_unit) = (scaled(a_pos), scaled(b_pos));
        Self { a, b, slot, a_unit, b_unit, n_slots: place.n_slots, units_are_near }
    }

    /// Contraction length.
    pub(super) fn len(&self) -> usize {
        self.a.len()
    }

    /// Those columns that B's columns have changed at since `old`, if the units' own slots are where they were.
    pub(super) fn changed_since(&self, old: &Self) -> Option<Vec<usize>> {
        let comparable = self.a == old.a && self.a_unit == old.a_unit && self.b_unit == old.b_unit;
        comparable.then(|| (0..self.len()).filter(|c| self.b[*c] != old.b[*c]).collect())
    }

    /// Adds the products of A's units with B's to `out`, over all columns.
    pub(super) fn add(&self, a: TensorView<'_>, b: TensorView<'_>, out: &mut [f64], scratch: &mut Panels) {
        self.for_panels(a, b, scratch, |a, b, n_columns| add_inner_products(a, b, n_columns, self.vectors(), out));
    }

    /// Subtracts them, in single precision.
    pub(super) fn subtract(&self, a: TensorView<'_>, b: TensorView<'_>, out: &mut [f32], scratch: &mut Panels) {
        self.for_panels(a, b, scratch, |a, b, n_columns| subtract_inner_products(a, b, n_columns, self.vectors(), out));
    }

    fn for_panels(
        &self,
        a: TensorView<'_>,
        b: TensorView<'_>,
        scratch: &mut Panels,
        mut multiply: impl FnMut(&[f32], &[f32], usize),
    ) {
        for start in (0..self.len()).step_by(PANEL) {
            let columns = start..(start + PANEL).min(self.len());
            let slots = &self.slot[columns.clone()];
            let (in_a, in_b) = (&self.a[columns.clone()], &self.b[columns]);
            let (for_a, for_b) = (&mut scratch.a, &mut scratch.b);
            // Waking a thread takes as long as packing a small panel.
            let (a, b) = if slots.len() * self.b_unit.len() < PARALLEL_ELEMENTS {
                (self.pack(a, in_a, slots, &self.a_unit, for_a), self.pack(b, in_b, slots, &self.b_unit, for_b))
            } else {
                rayon::join(
                    || self.pack(a, in_a, slots, &self.a_unit, for_a),
                    || self.pack(b, in_b, slots, &self.b_unit, for_b),
                )
            };
            multiply(a, b, slots.len());
        }
    }

    /// Adds what changed columns change: `A[:, c] (B[:, new] − B[:, old])ᵀ`.
    pub(super) fn add_change(
        &self,
        old: &Self,
        changed: &[usize],
        a: TensorView<'_>,
        b: TensorView<'_>,
        out: &mut [f64],
        scratch: &mut Panels,
    ) {
        for columns in changed.chunks(PANEL) {
            let pick = |from: &[usize]| -> Vec<usize> { columns.iter().map(|c| from[*c]).collect() };
            let slots: Vec<u32> = columns.iter().map(|c| self.slot[*c]).collect();
            let left = self.pack(a, &pick(&self.a), &slots, &self.a_unit, &mut scratch.a);
            let new = self.pack(b, &pick(&self.b), &slots, &self.b_unit, &mut scratch.b);
            let old = self.pack(b, &pick(&old.b), &slots, &self.b_unit, &mut scratch.old);
            new.iter_mut().zip(old).for_each(|(new, old)| *new -= *old);
            add_inner_products(left, new, columns.len(), self.vectors(), out);
        }
    }

    fn vectors(&self) -> Vectors {
        if self.units_are_near { Vectors::Columns } else { Vectors::Rows }
    }

    /// A panel of columns that begin `at` these elements, in a buffer that grows if it must.
    fn pack<'p>(
        &self,
        view: TensorView<'_>,
        at: &[usize],
        slots: &[u32],
        units: &[usize],
        buffer: &'p mut Vec<f32>,
    ) -> &'p mut [f32] {
        let len = units.len() / self.n_slots * at.len();
        if buffer.len() < len {
            *buffer = vec![0.0; len];
        }
        let out = &mut buffer[..len];
        Pack { view, at, slots, units, n_slots: self.n_slots }.fill(self.vectors(), out);
        out
    }
}

/// Element offsets of all positions of some axes, in A and, moved, in B.
fn offsets(
    layout: &Layout,
    tensor: &BoundTensor,
    axes: std::ops::Range<usize>,
    permutations: &Permutations,
) -> (Vec<usize>, Vec<usize>) {
    let (mut here, mut moved) = (vec![0], vec![0]);
    for axis in axes {
        let stride: usize = tensor.shape[axis + 1..].iter().product();
        let length = tensor.shape[axis];
        let source = layout.axis_source(tensor, axis, permutations);
        here = here.iter().flat_map(|o| (0..length).map(move |x| o + x * stride)).collect();
        let from = |x: usize| source.as_ref().map_or(x, |s| s[x]);
        moved = moved.iter().flat_map(|o| (0..length).map(move |x| o + from(x) * stride)).collect();
    }
    (here, moved)
}

/// Buffers for panels, reused.
#[derive(Debug)]
pub(super) struct Panels {
    a: Vec<f32>,
    b: Vec<f32>,
    old: Vec<f32>,
}

impl Panels {
    /// Buffers that need not grow for so many units with so many contraction columns each.
    pub(super) fn for_largest(shapes: impl Iterator<Item = (usize, usize)>) -> Self {
        let size = shapes.map(|(n, n_columns)| n * n_columns.min(PANEL)).max().unwrap_or(0);
        Self { a: vec![0.0; size], b: vec![0.0; size], old: Vec::new() }
    }
}

/// A panel to be packed: entry (unit i, column c) is element `at[c] + units[i · n_slots + slots[c]]`.
#[derive(Clone, Copy)]
struct Pack<'a> {
    view: TensorView<'a>,
    at: &'a [usize],
    slots: &'a [u32],
    units: &'a [usize],
    n_slots: usize,
}

impl Pack<'_> {
    fn fill(&self, vectors: Vectors, out: &mut [f32]) {
        match self.view.dtype {
            DType::F32 => self.fill_as(vectors, out, |b: &[u8; 4]| f32::from_le_bytes(*b)),
            DType::BF16 => {
                self.fill_as(vectors, out, |b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16));
            }
            DType::F16 => self.fill_as(vectors, out, |b: &[u8; 2]| half::f16::from_le_bytes(*b).to_f32()),
            DType::F64 => self.fill_as(vectors, out, |b: &[u8; 8]| f64::from_le_bytes(*b) as f32),
            DType::Opaque { .. } => out.fill(0.0),
        }
    }

    fn fill_as<const N: usize>(&self, vectors: Vectors, out: &mut [f32], read: impl Fn(&[u8; N]) -> f32 + Sync) {
        let elements = self.view.data.as_chunks::<N>().0;
        let n_units = self.units.len() / self.n_slots;
        let side_by_side = self.n_slots == 1 && self.units.windows(2).all(|w| w[1] == w[0] + 1);
        // Kernels of convolutions lie together whatever channels changed places.
        let (kernels, rest) = self.at.as_chunks::<KERNEL>();
        let in_kernels = rest.is_empty() && kernels.iter().all(|k| k.windows(2).all(|w| w[1] == w[0] + 1));
        let at_once = self.at.windows(2).all(|w| w[1] == w[0] + 1);
        let fill_row = |index: usize, out: &mut [f32]| {
            let units = &self.units[index * self.n_slots..(index + 1) * self.n_slots];
            match units {
                [unit] if at_once => {
                    let from = &elements[self.at[0] + unit..][..out.len()];
                    out.iter_mut().zip(from).for_each(|(o, b)| *o = read(b));
                }
                [unit] if in_kernels => {
                    for (out, kernel) in out.as_chunks_mut::<KERNEL>().0.iter_mut().zip(kernels) {
                        if let Some(from) = elements[kernel[0] + unit..].first_chunk::<KERNEL>() {
                            out.iter_mut().zip(from).for_each(|(o, b)| *o = read(b));
                        }
                    }
                }
                [unit] => out.iter_mut().zip(self.at).for_each(|(o, at)| *o = read(&elements[at + unit])),
                units => {
                    for ((o, at), slot) in out.iter_mut().zip(self.at).zip(self.slots) {
                        *o = read(&elements[at + units[*slot as usize]]);
                    }
                }
            }
        };
        let fill_column = |index: usize, out: &mut [f32]| {
            let (at, slot) = (self.at[index], self.slots[index] as usize);
            if side_by_side {
                let from = &elements[at + self.units[0]..][..out.len()];
                out.iter_mut().zip(from).for_each(|(o, b)| *o = read(b));
            } else {
                let units = self.units.iter().skip(slot).step_by(self.n_slots);
                out.iter_mut().zip(units).for_each(|(o, unit)| *o = read(&elements[at + unit]));
            }
        };
        // Each unit's kernel is read as a whole and goes to as many columns.
        let fill_columns = |index: usize, out: &mut [f32]| {
            let first = kernels[index][0];
            for (u, unit) in self.units.iter().enumerate() {
                if let Some(kernel) = elements[first + unit..].first_chunk::<KERNEL>() {
                    kernel.iter().enumerate().for_each(|(t, b)| out[t * n_units + u] = read(b));
                }
            }
        };
        match vectors {
            Vectors::Rows => fill_lines(out, self.at.len(), fill_row),
            Vectors::Columns if self.n_slots == 1 && in_kernels && !side_by_side => {
                fill_lines(out, KERNEL * n_units, fill_columns);
            }
            Vectors::Columns => fill_lines(out, n_units, fill_column),
        }
    }
}

/// Fills lines of `len` elements by their number, in parallel where that is worthwhile.
fn fill_lines(out: &mut [f32], len: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
    if out.len() >= PARALLEL_ELEMENTS {
        out.par_chunks_mut(len).enumerate().for_each(|(i, out)| fill(i, out));
    } else {
        out.chunks_mut(len).enumerate().for_each(|(i, out)| fill(i, out));
    }
}
