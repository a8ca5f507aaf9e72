//! Rows `[a, b]` of a table, the target last, in the form of a regression: with a constant column, less an offset, in another basis.

use serde::{Deserialize, Serialize};
use subspan_linalg::apply::RowFactor;

use crate::error::Result;
use crate::remote::{Origin, RowMap};
use crate::rows::{RowBlock, RowSource};

/// Optional offsets of the features, an optional constant column before the target, then an optional change of basis of the features.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) intercept: bool,
    /// Subtracted from the features; empty for nothing. Only with a constant column, which makes up for them.
    pub(crate) offsets: Vec<f64>,
    /// Whether targets 0 and 1 become −1 and +1.
    pub(crate) signs: bool,
    /// Maps `[a, 1, b]` (or `[a, b]`) to `[features, target]`; `None` for the identity.
    pub(crate) map: Option<RowFactor>,
}

/// Buffers of one worker for [`Shape::apply`].
#[derive(Default)]
pub(crate) struct Scratch {
    extended: Vec<f64>,
    mapped: Vec<f64>,
}

impl Shape {
    /// Columns after [`Shape::apply`] to rows of `n_cols` columns.
    pub(crate) fn n_cols(&self, n_cols: usize) -> usize {
        self.map.as_ref().map_or(n_cols + usize::from(self.intercept), |map| map.matrix().n_cols())
    }

    /// Some rows of the table in this form.
    pub(crate) fn apply<'s>(&self, rows: &'s [f64], n_cols: usize, scratch: &'s mut Scratch) -> &'s [f64] {
        let rows = if self.intercept || self.signs {
            scratch.extended.clear();
            for row in rows.chunks_exact(n_cols) {
                let (features, target) = row.split_at(n_cols - 1);
                if self.offsets.is_empty() {
                    scratch.extended.extend_from_slice(features);
                } else {
                    scratch.extended.extend(features.iter().zip(&self.offsets).map(|(v, offset)| v - offset));
                }
                if self.intercept {
                    scratch.extended.push(1.0);
                }
                scratch.extended.push(if self.signs { 2.0 * target[0] - 1.0 } else { target[0] });
            }
            &scratch.extended
        } else {
            rows
        };
        match &self.map {
            None => rows,
            Some(map) => {
                scratch.mapped.resize(rows.len() / map.matrix().n_rows() * map.matrix().n_cols(), 0.0);
                map.map_rows(rows, &mut scratch.mapped);
                &scratch.mapped
            }
        }
    }
}

/// A source in another form.
pub(crate) struct Reshaped<'a> {
    pub(crate) source: &'a dyn RowSource,
    pub(crate) shape: &'a Shape,
}

impl RowSource for Reshaped<'_> {
    fn n_cols(&self) -> usize {
        self.shape.n_cols(self.source.n_cols())
    }

    fn n_rows(&self) -> Option<u64> {
        self.source.n_rows()
    }

    fn origin(&self) -> Option<Origin<'_>> {
        let Shape { intercept, ref offsets, signs, ref map } = *self.shape;
        let extended = self.source.origin()?.then(RowMap::Extend { intercept, offsets: offsets.clone(), signs });
        Some(map.iter().fold(extended, |origin, map| origin.then(RowMap::Factor(map.clone()))))
    }

    fn n_chunks(&self) -> usize {
        self.source.n_chunks()
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let mut scratch = Scratch::default();
        self.source.scan(chunk, &mut |block| {
            // A few tiles at a time: the widened copy stays in cache.
            for (t, rows) in block.values.chunks(RESHAPED_ROWS * block.n_cols).enumerate() {
                let ids = block.ids.part(t * RESHAPED_ROWS, rows.len() / block.n_cols);
                let values = self.shape.apply(rows, block.n_cols, &mut scratch);
                visit(&RowBlock { n_cols: self.n_cols(), values, ids, records: None })?;
            }
            Ok(())
        })
    }
}

/// Rows that [`Reshaped`] widens at a time.
const RESHAPED_ROWS: usize = 1024;
