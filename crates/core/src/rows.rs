//! A table as a re-windable stream of row blocks, and the fold that every pass over it is.
//!
//! A source is a fixed list of *chunks* (a file's row group, a range of an array); a chunk is read as *blocks* of bounded
//! size. [`fold`] runs chunks on the current rayon pool and merges their states **in chunk order**: the result is the same
//! bits for any number of threads. A two-pass algorithm reads as two folds.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::observe::{Event, Observer};
use crate::remote::Origin;

/// A block of consecutive rows, row-major, all finite.
#[derive(Clone, Copy)]
pub struct RowBlock<'a> {
    /// Number of columns.
    pub n_cols: usize,
    /// Whole rows, one after the other.
    pub values: &'a [f64],
    /// The rows' global indices.
    pub ids: RowIds<'a>,
    /// The original records behind the rows, when the source has more than numbers to keep of a sampled row.
    pub records: Option<&'a dyn Records>,
}

/// The global indices of a block's rows: their positions in the input.
#[derive(Debug, Clone, Copy)]
pub enum RowIds<'a> {
    /// Row `i` of the block is row `first + i` of the input.
    From(u64),
    /// Given one by one (rows between them were dropped).
    List(&'a [u64]),
}

impl RowBlock<'_> {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.values.len().checked_div(self.n_cols).unwrap_or(0)
    }

    /// Row `i` of the block.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.n_cols..(i + 1) * self.n_cols]
    }

    /// The global index of row `i` of the block.
    pub fn id(&self, i: usize) -> u64 {
        self.ids.at(i)
    }
}

impl<'a> RowIds<'a> {
    /// The global index of row `i`.
    pub fn at(&self, i: usize) -> u64 {
        match self {
            RowIds::From(first) => first + i as u64,
            RowIds::List(ids) => ids[i],
        }
    }

    /// Those of `n` rows from row `first` on.
    #[must_use]
    pub fn part(&self, first: usize, n: usize) -> RowIds<'a> {
        match *self {
            RowIds::From(id) => RowIds::From(id + first as u64),
            RowIds::List(ids) => RowIds::List(&ids[first..first + n]),
        }
    }
}

/// Access to the original records of a block.
pub trait Records {
    /// Encodes the chosen rows of the block (increasing local indices), each as bytes that only the source understands.
    ///
    /// # Errors
    /// What the source reports.
    fn encode(&self, rows: &[usize]) -> Result<Vec<Box<[u8]>>>;
}

/// A table that can be read again and again, chunk by chunk, from several threads at once.
pub trait RowSource: Sync {
    /// Number of (numeric) columns of every block.
    fn n_cols(&self) -> usize;

    /// Number of rows, where it is known without reading.
    fn n_rows(&self) -> Option<u64>;

    /// The whole table as one row-major slice, where it is in memory: spares in-memory methods a copy.
    fn dense(&self) -> Option<&[f64]> {
        None
    }

    /// Columns that are combinations of the others by construction: all indicators of a category add up to one, so of a second
    /// category one indicator says nothing new. Methods need not find out in a pass of its own.
    fn redundant(&self) -> Vec<usize> {
        Vec::new()
    }

    /// Where the chunks are folded, if not in this process.
    fn origin(&self) -> Option<Origin<'_>> {
        None
    }

    /// Number of chunks. Chunk order is row order.
    fn n_chunks(&self) -> usize;

    /// Reads one chunk, block after block in row order. Blocks hold finite values only.
    ///
    /// # Errors
    /// What the source meets, or what `visit` returns.
    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()>;
}

/// Rows per chunk of an in-memory table.
pub const MEMORY_CHUNK_ROWS: usize = 16_384;

/// Rows per chunk of an array that is read as a file would be: an array in a file, or one in memory whose results shall have
/// the bits of that file's.
pub const ARRAY_CHUNK_ROWS: usize = 65_536;

/// Rows per block of a source that decodes or converts, for `n_cols` columns: 4 MiB of values, between 64 and 8192 rows.
pub fn block_rows(n_cols: usize) -> usize {
    const BLOCK_BYTES: usize = 4 << 20;
    (BLOCK_BYTES / (n_cols.max(1) * size_of::<f64>())).clamp(64, 8192)
}

/// A borrowed row-major `f64` array as a source. Values are checked once, on construction.
///
/// ```
/// use subspan::rows::{DenseRows, RowSource};
/// let rows = DenseRows::new(&[1.0, 2.0, 3.0, 4.0], 2).unwrap();
/// assert_eq!(rows.n_rows(), Some(2));
/// assert!(DenseRows::new(&[1.0, f64::NAN], 2).is_err());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct DenseRows<'a> {
    values: &'a [f64],
    n_cols: usize,
}

impl<'a> DenseRows<'a> {
    /// Borrows `values`, whole rows of `n_cols` columns.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Shape`] for a ragged array, [`Error::NonFinite`] naming the first bad value.
    pub fn new(values: &'a [f64], n_cols: usize) -> Result<Self> {
        check_whole_rows(values.len(), n_cols)?;
        check_finite(values, n_cols, 0)?;
        Ok(Self { values, n_cols })
    }
}

impl RowSource for DenseRows<'_> {
    fn n_cols(&self) -> usize {
        self.n_cols
    }

    fn n_rows(&self) -> Option<u64> {
        Some((self.values.len() / self.n_cols) as u64)
    }

    fn dense(&self) -> Option<&[f64]> {
        Some(self.values)
    }

    fn n_chunks(&self) -> usize {
        self.values.len().div_ceil(self.n_cols * MEMORY_CHUNK_ROWS)
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let len = MEMORY_CHUNK_ROWS * self.n_cols;
        let values = &self.values[chunk * len..self.values.len().min((chunk + 1) * len)];
        let ids = RowIds::From((chunk * MEMORY_CHUNK_ROWS) as u64);
        visit(&RowBlock { n_cols: self.n_cols, values, ids, records: None })
    }
}

/// Values looked at by one thread at a time.
const FINITE_CHUNK: usize = 1 << 18;

/// Errors with the first non-finite value of `values`, whose first row has global index `first_row`.
///
/// # Errors
/// [`Error::NonFinite`].
pub fn check_finite(values: &[f64], n_cols: usize, first_row: u64) -> Result<()> {
    if values.par_chunks(FINITE_CHUNK).all(subspan_linalg::apply::all_finite) {
        return Ok(());
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(k) => Err(Error::NonFinite { row: first_row + (k / n_cols) as u64, column: k % n_cols, value: values[k] }),
    }
}

/// Errors unless `n_values` values are at least one row of `n_cols` columns, the last one whole.
fn check_whole_rows(n_values: usize, n_cols: usize) -> Result<()> {
    if n_cols == 0 || n_values == 0 {
        return Err(Error::Empty { what: if n_cols == 0 { "columns" } else { "rows" } });
    }
    match n_values % n_cols {
        0 => Ok(()),
        found => Err(Error::Shape { what: "the last row", found, expected: n_cols }),
    }
}

/// Checks single-precision samples in memory: whole rows of finite values.
pub(crate) fn check_samples(values: &[f32], n_cols: usize) -> Result<()> {
    check_whole_rows(values.len(), n_cols)?;
    match values.iter().position(|v| !v.is_finite()) {
        Some(k) => Err(Error::NonFinite { row: (k / n_cols) as u64, column: k % n_cols, value: f64::from(values[k]) }),
        None => Ok(()),
    }
}

/// One pass: every chunk is folded into its own state, states are merged in chunk order.
///
/// `init` makes the state of a chunk, `step` adds a block to it, `merge` adds a finished chunk's state to the total (the first
/// chunk's state is the first total). Returns `init()` for a source without chunks. States of chunks that finish early wait
/// for their turn; at most `2 · threads` of them are alive.
///
/// # Errors
/// The error of the first failing chunk, or [`Error::Cancelled`].
pub fn fold<S, T>(
    source: &S,
    observer: &dyn Observer,
    init: impl Fn() -> T + Sync,
    step: impl Fn(&mut T, &RowBlock<'_>) -> Result<()> + Sync,
    merge: impl Fn(&mut T, T) + Sync,
) -> Result<T>
where
    S: RowSource + ?Sized,
    T: Send,
{
    let n_chunks = source.n_chunks();
    let run_chunk = |chunk: usize| -> Result<T> {
        let mut state = init();
        source.scan(chunk, &mut |block| {
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            step(&mut state, block)?;
            observer.event(Event::Advance { steps: block.n_rows() as u64 });
            Ok(())
        })?;
        Ok(state)
    };

    struct Progress<T> {
        total: Option<T>,
        merged: usize,
        waiting: BTreeMap<usize, T>,
        failed: Option<(usize, Error)>,
    }
    let progress = Mutex::new(Progress { total: None, merged: 0, waiting: BTreeMap::new(), failed: None });
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            if chunk >= n_chunks {
                return;
            }
            let outcome = run_chunk(chunk);
            let mut guard = progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let p = &mut *guard;
            match outcome {
                Ok(state) => {
                    p.waiting.insert(chunk, state);
                    while let Some(state) = p.waiting.remove(&p.merged) {
                        match &mut p.total {
                            None => p.total = Some(state),
                            Some(total) => merge(total, state),
                        }
                        p.merged += 1;
                    }
                }
                Err(e) => {
                    // Chunks before this one are all taken already, so the earliest failure is known once they finish.
                    stop.store(true, Ordering::Relaxed);
                    if p.failed.as_ref().is_none_or(|(first, _)| chunk < *first) {
                        p.failed = Some((chunk, e));
                    }
                }
            }
        }
    };
    let n_workers = rayon::current_num_threads().min(n_chunks);
    if n_workers <= 1 {
        worker();
    } else {
        rayon::scope(|scope| (0..n_workers).for_each(|_| scope.spawn(|_| worker())));
    }
    let p = progress.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    match (p.failed, p.total) {
        (Some((_, e)), _) => Err(e),
        (None, Some(total)) => Ok(total),
        (None, None) => Ok(init()),
    }
}
