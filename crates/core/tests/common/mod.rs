//! Tables with known properties, shared by the tests of several methods.
#![allow(dead_code, unreachable_pub)]

use subspan::draw::{Rng, Stream};
use subspan::rows::{RowBlock, RowIds, RowSource};
use subspan::{Result, Silent};

/// A generator for test data, apart from every stream of the library.
pub fn rng(seed: u64) -> Rng {
    Stream::new(seed, "test data").rng(0)
}

/// Standard normal entries.
pub fn gaussian(n: usize, d: usize, seed: u64) -> Vec<f64> {
    let mut rng = rng(seed);
    (0..n * d).map(|_| rng.normal()).collect()
}

/// Gaussian rows, each scaled by the absolute value of a heavy-tailed number (Pareto of index 1.5).
pub fn heavy(n: usize, d: usize, seed: u64) -> Vec<f64> {
    let mut rng = rng(seed);
    let mut values = Vec::with_capacity(n * d);
    for _ in 0..n {
        let scale = rng.uniform().powf(-1.0 / 1.5);
        values.extend((0..d).map(|_| scale * rng.normal()));
    }
    values
}

/// Gaussian rows whose last `n_rare` columns are zero but for `n_living` rows spread over the table.
pub fn rare_columns(n: usize, d: usize, n_rare: usize, n_living: usize, seed: u64) -> Vec<f64> {
    let mut values = gaussian(n, d, seed);
    for (i, row) in values.chunks_exact_mut(d).enumerate() {
        if i % (n / n_living) != n / n_living / 2 {
            row[d - n_rare..].fill(0.0);
        }
    }
    values
}

/// An in-memory table cut into chunks of any size.
pub struct Chunked<'a> {
    pub values: &'a [f64],
    pub n_cols: usize,
    pub chunk_rows: usize,
}

impl RowSource for Chunked<'_> {
    fn n_cols(&self) -> usize {
        self.n_cols
    }

    fn n_rows(&self) -> Option<u64> {
        None
    }

    fn n_chunks(&self) -> usize {
        self.values.len().div_ceil(self.n_cols * self.chunk_rows)
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let len = self.n_cols * self.chunk_rows;
        let values = &self.values[chunk * len..self.values.len().min((chunk + 1) * len)];
        visit(&RowBlock {
            n_cols: self.n_cols,
            values,
            ids: RowIds::From((chunk * self.chunk_rows) as u64),
            records: None,
        })
    }
}

/// Runs `work` on a pool of `n` threads.
pub fn on_threads<T: Send>(n: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a thread pool").install(work)
}

/// Nobody listens in tests.
pub const SILENT: &Silent = &Silent;
