//! Moving units: a gather of elements along every axis, on bytes, so that any dtype survives bit for bit.

use std::ops::Range;

use super::layout::Layout;
use super::model::{MemoryModel, Model};
use super::permutations::{Permutations, inverse};
use super::tensor::{Tensor, TensorView};

/// A tensor seen through a gather: element `[x, y, ..]` is element `[s₀[x], s₁[y], ..]` of the view.
#[derive(Debug, Clone)]
pub struct Gathered<'a> {
    view: TensorView<'a>,
    /// Source of every row (position of axis 0), `None` if rows stay.
    rows: Option<Vec<usize>>,
    /// Byte offsets and lengths that make up a gathered row from a stored one, adjacent ones joined.
    runs: Vec<(usize, usize)>,
    row_bytes: usize,
}

impl<'a> Gathered<'a> {
    /// Prepares a gather; `sources` as of [`Layout::sources`] (axes beyond its end stay).
    pub fn new(view: TensorView<'a>, sources: &[Option<Vec<usize>>]) -> Self {
        let rows = sources.first().cloned().flatten();
        let inner = view.shape.get(1..).unwrap_or_default();
        let row_bytes = inner.iter().product::<usize>() * view.dtype.size();
        let moved = |axis: usize| sources.get(axis + 1).and_then(Option::as_ref);
        // From the last axis that moves outwards: offsets of the units of copying within a row.
        let mut runs = vec![(0, view.dtype.size())];
        let mut width = view.dtype.size();
        for axis in (0..inner.len()).rev() {
            let length = inner[axis];
            match moved(axis) {
                None if runs.len() == 1 => runs = vec![(0, width * length)],
                None => {
                    let step = |x: usize| runs.iter().map(move |(o, l)| (o + x * width, *l)).collect::<Vec<_>>();
                    runs = join((0..length).flat_map(step));
                }
                Some(source) => {
                    let step = |x: &usize| {
                        let x = *x;
                        runs.iter().map(move |(o, l)| (o + x * width, *l)).collect::<Vec<_>>()
                    };
                    runs = join(source.iter().flat_map(step));
                }
            }
            width *= length;
        }
        Self { view, rows, runs, row_bytes }
    }

    /// The tensor's dtype and shape are those of this view; its bytes are not gathered.
    pub fn view(&self) -> &TensorView<'a> {
        &self.view
    }

    /// Positions of axis 0; 1 for a scalar.
    pub fn n_rows(&self) -> usize {
        self.view.shape.first().copied().unwrap_or(1)
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The stored bytes of `rows`, if they are the gathered ones as they stand.
    pub fn borrowed(&self, rows: Range<usize>) -> Option<&'a [u8]> {
        let stays = self.rows.is_none() && self.runs.len() <= 1;
        stays.then(|| &self.view.data[rows.start * self.row_bytes..rows.end * self.row_bytes])
    }

    /// The bytes of `rows`, gathered into `buffer` if they are not stored that way.
    pub fn bytes<'b>(&'b self, rows: Range<usize>, buffer: &'b mut Vec<u8>) -> &'b [u8] {
        if let Some(stored) = self.borrowed(rows.clone()) {
            return stored;
        }
        buffer.resize(rows.len() * self.row_bytes, 0);
        self.read(rows, buffer);
        buffer
    }

    /// Gathers the bytes of `rows`.
    ///
    /// # Panics
    /// If `out` has another size than the rows.
    pub fn read(&self, rows: Range<usize>, out: &mut [u8]) {
        assert_eq!(out.len(), rows.len() * self.row_bytes, "the bytes of the rows");
        if self.row_bytes == 0 {
            return;
        }
        if let Some(stored) = self.borrowed(rows.clone()) {
            return out.copy_from_slice(stored);
        }
        for (out, row) in out.chunks_exact_mut(self.row_bytes).zip(rows) {
            let from = self.rows.as_ref().map_or(row, |r| r[row]);
            self.read_row(&self.view.data[from * self.row_bytes..(from + 1) * self.row_bytes], out);
        }
    }

    fn read_row(&self, row: &[u8], out: &mut [u8]) {
        match self.runs.as_slice() {
            [] => {}
            [_] => out.copy_from_slice(row),
            runs => match self.view.dtype.size() {
                // One element at a time where nothing is adjacent: a copy of known size is a move.
                2 if runs.len() * 2 == row.len() => elements::<2>(row, runs, out),
                4 if runs.len() * 4 == row.len() => elements::<4>(row, runs, out),
                _ => {
                    let mut at = 0;
                    for (offset, len) in runs {
                        copy(&row[*offset..offset + len], &mut out[at..at + len]);
                        at += len;
                    }
                }
            },
        }
    }

    /// All bytes, gathered.
    pub fn to_tensor(&self) -> Tensor {
        let mut data = vec![0; self.view.data.len()];
        self.read(0..self.n_rows(), &mut data);
        Tensor { dtype: self.view.dtype, shape: self.view.shape.to_vec(), data }
    }
}

/// Copies a run. That of a 3 x 3 kernel is a few moves, as its size is known.
#[inline]
fn copy(from: &[u8], out: &mut [u8]) {
    const KERNEL: usize = 9 * size_of::<f32>();
    match (<&[u8; KERNEL]>::try_from(from), <&mut [u8; KERNEL]>::try_from(&mut *out)) {
        (Ok(from), Ok(out)) => *out = *from,
        _ => out.copy_from_slice(from),
    }
}

fn elements<const N: usize>(row: &[u8], runs: &[(usize, usize)], out: &mut [u8]) {
    for (out, (offset, _)) in out.as_chunks_mut::<N>().0.iter_mut().zip(runs) {
        out.copy_from_slice(&row[*offset..offset + N]);
    }
}

/// Joins runs that continue each other.
fn join(runs: impl Iterator<Item = (usize, usize)>) -> Vec<(usize, usize)> {
    let mut joined: Vec<(usize, usize)> = Vec::new();
    for (offset, len) in runs {
        match joined.last_mut() {
            Some(last) if last.0 + last.1 == offset => last.1 += len,
            _ => joined.push((offset, len)),
        }
    }
    joined
}

impl Layout {
    /// A tensor of the model whose units move by `permutations`; tensors without pieces stay.
    pub fn gathered<'a>(&self, view: TensorView<'a>, permutations: &Permutations) -> Gathered<'a> {
        let sources = self.sources(view.name, permutations);
        Gathered::new(view, &sources)
    }

    /// The tensor whose gather by `permutations` is `view`.
    pub fn restored<'a>(&self, view: TensorView<'a>, permutations: &Permutations) -> Gathered<'a> {
        let sources = self.sources(view.name, permutations);
        Gathered::new(view, &sources.into_iter().map(|s| s.map(|s| inverse(&s))).collect::<Vec<_>>())
    }

    /// A copy of `model` whose units have moved. It computes what `model` computes.
    pub fn apply(&self, model: &dyn Model, permutations: &Permutations) -> MemoryModel {
        let moved = |name: &str| {
            let view = model.tensor(name)?;
            Some((name.to_string(), self.gathered(view, permutations).to_tensor()))
        };
        MemoryModel { label: model.label().into(), tensors: model.names().into_iter().filter_map(moved).collect() }
    }

    /// A copy of `model` in which the moves of `permutations` are undone: `restore(apply(m, p), p)` is `m`, bit for bit.
    pub fn restore(&self, model: &dyn Model, permutations: &Permutations) -> MemoryModel {
        let moved = |name: &str| {
            let view = model.tensor(name)?;
            Some((name.to_string(), self.restored(view, permutations).to_tensor()))
        };
        MemoryModel { label: model.label().into(), tensors: model.names().into_iter().filter_map(moved).collect() }
    }
}
