//! The passes of the solvers: tiles of rows `[a, b]` with weights, from memory or from a stream, folded in a fixed order.

use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::remote::{self, Pass};
use crate::reshape::{Scratch, Shape};
use crate::rows::{self, RowBlock, RowIds, RowSource};

/// Rows per tile: a tile of 20 to 100 columns and its vectors stay in the first two caches.
pub(super) const TILE_ROWS: usize = 256;

static ONES: [f64; TILE_ROWS] = [1.0; TILE_ROWS];

/// At most [`TILE_ROWS`] rows: features first, the target last.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) rows: &'a [f64],
    pub(super) weights: &'a [f64],
    /// The rows' indices in the table.
    pub(super) ids: RowIds<'a>,
}

/// What is folded over tiles, as a value: it runs where the rows are.
pub(super) trait TilePass: Serialize + DeserializeOwned + Sync {
    /// Tells passes apart.
    const NAME: &'static str;
    /// What tiles are folded into.
    type State: Serialize + DeserializeOwned + Send;

    /// The state before the first tile, of rows of `n_cols` columns, the target included.
    fn start(&self, n_cols: usize) -> Self::State;
    fn step(&self, state: &mut Self::State, tile: Tile<'_>);
    fn merge(&self, total: &mut Self::State, part: Self::State);
}

/// Weighted rows that can be passed over again and again.
pub(super) trait Table: Sync {
    /// Features, i.e. columns of a tile minus one.
    fn n_features(&self) -> usize;

    /// Folds all tiles; states are merged in row order, so the result has the same bits for any number of threads.
    ///
    /// # Errors
    /// What the source reports; [`Error::Cancelled`].
    fn pass<P: TilePass>(&self, pass: P) -> Result<P::State>;
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

    /// [`Table::pass`] by functions, for passes that are made in memory only.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(super) fn fold<T: Send>(
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
                    step(&mut state, Tile { rows, weights, ids: RowIds::From(first as u64) });
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

impl Table for MemoryTable<'_> {
    fn n_features(&self) -> usize {
        self.n_cols - 1
    }

    fn pass<P: TilePass>(&self, pass: P) -> Result<P::State> {
        self.fold(|| pass.start(self.n_cols), |s, tile| pass.step(s, tile), |total, part| pass.merge(total, part))
    }
}

/// Rows of a source, read anew in every pass, here or by workers; weights are one.
pub(super) struct StreamTable<'a> {
    pub(super) source: &'a dyn RowSource,
    pub(super) shape: &'a Shape,
    pub(super) observer: &'a dyn Observer,
}

impl Table for StreamTable<'_> {
    fn n_features(&self) -> usize {
        self.shape.n_cols(self.source.n_cols()) - 1
    }

    fn pass<P: TilePass>(&self, pass: P) -> Result<P::State> {
        let streamed = Streamed { shape: self.shape.clone(), pass };
        Ok(remote::run(self.source, &streamed, self.observer)?.state)
    }
}

/// A pass over the tiles of a stream's blocks.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Streamed<P: TilePass> {
    shape: Shape,
    pass: P,
}

/// A state and the buffers of who folds it.
#[derive(Serialize, Deserialize)]
pub(super) struct Folded<T> {
    #[serde(skip)]
    scratch: Scratch,
    state: T,
}

impl<P: TilePass> Pass for Streamed<P> {
    const NAME: &'static str = P::NAME;
    type State = Folded<P::State>;

    fn start(&self, n_cols: usize) -> Self::State {
        Folded { scratch: Scratch::default(), state: self.pass.start(self.shape.n_cols(n_cols)) }
    }

    fn step(&self, Folded { scratch, state }: &mut Self::State, block: &RowBlock<'_>) -> Result<()> {
        for (t, rows) in block.values.chunks(TILE_ROWS * block.n_cols).enumerate() {
            let n = rows.len() / block.n_cols;
            let rows = self.shape.apply(rows, block.n_cols, scratch);
            self.pass.step(state, Tile { rows, weights: &ONES[..n], ids: block.ids.part(t * TILE_ROWS, n) });
        }
        Ok(())
    }

    fn merge(&self, total: &mut Self::State, part: Self::State) {
        self.pass.merge(&mut total.state, part.state);
    }
}

/// All rows of a source in the solver's form, row-major.
///
/// # Errors
/// What the source reports; [`Error::Cancelled`].
pub(super) fn collect(source: &dyn RowSource, shape: &Shape, observer: &dyn Observer) -> Result<Vec<f64>> {
    let n_cols = source.n_cols();
    // Known to the row, so that the values are not copied from one growing buffer to the next.
    let all = source.n_rows().map_or(0, |n| n as usize * shape.n_cols(n_cols));
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
        |(_, total): &mut (_, Vec<f64>), (_, values)| {
            if all > total.len() {
                total.reserve_exact(all - total.len());
            }
            total.extend_from_slice(&values);
        },
    )?;
    Ok(values)
}
