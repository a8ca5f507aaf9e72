//! The passes of the solvers: tiles of rows `[a, b]` with weights, from memory or from a stream, folded in a fixed order.

use std::sync::Arc;

use rayon::prelude::*;
use subspan_linalg::{Mat, apply::RowFactor};

use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::rows::{self, RowBlock, RowSource};

/// Rows per tile: a tile of 20 to 100 columns and its vectors stay in the first two caches.
pub(super) const TILE_ROWS: usize = 256;

static ONES: [f64; TILE_ROWS] = [1.0; TILE_ROWS];

/// At most [`TILE_ROWS`] rows: features first, the target last.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) rows: &'a [f64],
    pub(super) weights: &'a [f64],
}

/// Weighted rows that can be passed over again and again.
pub(super) trait Table: Sync {
    /// Features, i.e. columns of a tile minus one.
    fn n_features(&self) -> usize;

    /// Folds all tiles; states are merged in row order, so the result has the same bits for any number of threads.
    ///
    /// # Errors
    /// What the source reports; [`Error::Cancelled`].
    fn pass<T: Send>(
        &self,
        init: impl Fn() -> T + Sync,
        step: impl Fn(&mut T, Tile<'_>) + Sync,
        merge: impl Fn(&mut T, T) + Sync,
    ) -> Result<T>;
}

/// Rows in memory.
#[derive(Clone, Copy)]
pub(super) struct MemoryTable<'a> {
    /// Row-major, features first, the target last.
    pub(super) values: &'a [f64],
    pub(super) n_cols: usize,
    /// One per row; `None` for ones.
    pub(super) weights: Option<&'a [f64]>,
    pub(super) observer: &'a dyn Observer,
}

/// Rows per chunk of an in-memory pass over `n_rows` rows: a function of the size alone, whole tiles, at most 64 chunks.
pub(super) fn chunk_rows(n_rows: usize) -> usize {
    n_rows.div_ceil(64).next_multiple_of(TILE_ROWS).max(4 * TILE_ROWS)
}

impl MemoryTable<'_> {
    pub(super) fn n_rows(&self) -> usize {
        self.values.len() / self.n_cols
    }
}

impl Table for MemoryTable<'_> {
    fn n_features(&self) -> usize {
        self.n_cols - 1
    }

    fn pass<T: Send>(
        &self,
        init: impl Fn() -> T + Sync,
        step: impl Fn(&mut T, Tile<'_>) + Sync,
        merge: impl Fn(&mut T, T) + Sync,
    ) -> Result<T> {
        if self.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let chunk = chunk_rows(self.n_rows());
        let states: Vec<T> = self
            .values
            .par_chunks(chunk * self.n_cols)
            .enumerate()
            .map(|(c, rows)| {
                let mut state = init();
                for (t, rows) in rows.chunks(TILE_ROWS * self.n_cols).enumerate() {
                    let (first, n) = (c * chunk + t * TILE_ROWS, rows.len() / self.n_cols);
                    let weights = self.weights.map_or(&ONES[..n], |w| &w[first..first + n]);
                    step(&mut state, Tile { rows, weights });
                }
                state
            })
            .collect();
        let mut states = states.into_iter();
        let mut total = states.next().unwrap_or_else(&init);
        states.for_each(|s| merge(&mut total, s));
        Ok(total)
    }
}

/// How a source's rows `[a, b]` become the solver's rows: an optional constant column before the target, then an optional
/// change of basis of the features.
#[derive(Clone, Default)]
pub(super) struct Shape {
    pub(super) intercept: bool,
    /// Whether targets 0 and 1 become −1 and +1.
    pub(super) signs: bool,
    /// Maps `[a, 1, b]` (or `[a, b]`) to `[features, target]`; `None` for the identity.
    pub(super) map: Option<Map>,
}

/// A change of basis, ready for many tiles.
#[derive(Clone)]
pub(super) struct Map {
    n_rows: usize,
    n_cols: usize,
    factor: Arc<RowFactor>,
}

impl Map {
    pub(super) fn new(map: &Mat) -> Self {
        Self { n_rows: map.n_rows(), n_cols: map.n_cols(), factor: Arc::new(RowFactor::new(map, false)) }
    }
}

/// Buffers of one worker for [`Shape::apply`].
#[derive(Default)]
pub(super) struct Scratch {
    extended: Vec<f64>,
    mapped: Vec<f64>,
}

impl Shape {
    /// Columns of the solver's rows, for a source of `n_cols` columns.
    pub(super) fn n_cols(&self, n_cols: usize) -> usize {
        self.map.as_ref().map_or(n_cols + usize::from(self.intercept), |map| map.n_cols)
    }

    /// The solver's form of some rows of the source.
    pub(super) fn apply<'s>(&self, rows: &'s [f64], n_cols: usize, scratch: &'s mut Scratch) -> &'s [f64] {
        let rows = if self.intercept || self.signs {
            scratch.extended.clear();
            for row in rows.chunks_exact(n_cols) {
                let (features, target) = row.split_at(n_cols - 1);
                scratch.extended.extend_from_slice(features);
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
                scratch.mapped.resize(rows.len() / map.n_rows * map.n_cols, 0.0);
                map.factor.map_rows(rows, &mut scratch.mapped);
                &scratch.mapped
            }
        }
    }
}

/// Rows of a source, read anew in every pass; weights are one.
pub(super) struct StreamTable<'a> {
    pub(super) source: &'a dyn RowSource,
    pub(super) shape: &'a Shape,
    pub(super) observer: &'a dyn Observer,
}

impl StreamTable<'_> {
    /// Like [`Table::pass`], with the block and the index of the tile's first row in it.
    pub(super) fn pass_rows<T: Send>(
        &self,
        init: impl Fn() -> T + Sync,
        step: impl Fn(&mut T, Tile<'_>, &RowBlock<'_>, usize) + Sync,
        merge: impl Fn(&mut T, T) + Sync,
    ) -> Result<T> {
        let n_cols = self.source.n_cols();
        let state = rows::fold(
            self.source,
            self.observer,
            || (Scratch::default(), init()),
            |(scratch, state), block| {
                for (t, rows) in block.values.chunks(TILE_ROWS * n_cols).enumerate() {
                    let weights = &ONES[..rows.len() / n_cols];
                    let rows = self.shape.apply(rows, n_cols, scratch);
                    step(state, Tile { rows, weights }, block, t * TILE_ROWS);
                }
                Ok(())
            },
            |(_, total), (_, state)| merge(total, state),
        )?;
        Ok(state.1)
    }
}

impl Table for StreamTable<'_> {
    fn n_features(&self) -> usize {
        self.shape.n_cols(self.source.n_cols()) - 1
    }

    fn pass<T: Send>(
        &self,
        init: impl Fn() -> T + Sync,
        step: impl Fn(&mut T, Tile<'_>) + Sync,
        merge: impl Fn(&mut T, T) + Sync,
    ) -> Result<T> {
        self.pass_rows(init, |state, tile, _, _| step(state, tile), merge)
    }
}

/// A source in the solver's form: what the sampler sees of a fit.
pub(super) struct Reshaped<'a> {
    pub(super) source: &'a dyn RowSource,
    pub(super) shape: &'a Shape,
}

impl RowSource for Reshaped<'_> {
    fn n_cols(&self) -> usize {
        self.shape.n_cols(self.source.n_cols())
    }

    fn n_rows(&self) -> Option<u64> {
        self.source.n_rows()
    }

    fn n_chunks(&self) -> usize {
        self.source.n_chunks()
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let mut scratch = Scratch::default();
        self.source.scan(chunk, &mut |block| {
            // A few tiles at a time: the widened copy stays in cache.
            for (t, rows) in block.values.chunks(RESHAPED_ROWS * block.n_cols).enumerate() {
                let (first, n) = (t * RESHAPED_ROWS, rows.len() / block.n_cols);
                let ids = match block.ids {
                    rows::RowIds::From(id) => rows::RowIds::From(id + first as u64),
                    rows::RowIds::List(ids) => rows::RowIds::List(&ids[first..first + n]),
                };
                let values = self.shape.apply(rows, block.n_cols, &mut scratch);
                visit(&RowBlock { n_cols: self.n_cols(), values, ids, records: None })?;
            }
            Ok(())
        })
    }
}

/// Rows that [`Reshaped`] widens at a time.
const RESHAPED_ROWS: usize = 4 * TILE_ROWS;

/// All rows of a source in the solver's form, row-major.
///
/// # Errors
/// What the source reports; [`Error::Cancelled`].
pub(super) fn collect(source: &dyn RowSource, shape: &Shape, observer: &dyn Observer) -> Result<Vec<f64>> {
    let n_cols = source.n_cols();
    let (_, values) = rows::fold(
        source,
        observer,
        || (Scratch::default(), Vec::new()),
        |(scratch, values), block| {
            for rows in block.values.chunks(TILE_ROWS * n_cols) {
                values.extend_from_slice(shape.apply(rows, n_cols, scratch));
            }
            Ok(())
        },
        |(_, total): &mut (_, Vec<f64>), (_, values)| total.extend_from_slice(&values),
    )?;
    Ok(values)
}
