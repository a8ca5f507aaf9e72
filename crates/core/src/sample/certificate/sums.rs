//! `Σ uᵢ|aᵢx|^p` for many directions `x` at once, and its gradient.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use subspan_linalg::{Mat, Whitener, apply, gram, precondition, whiten};

use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::remote::{self, Pass};
use crate::rows::{DenseRows, RowBlock, RowSource};
use crate::sample::power::Power;

/// Rows per parallel task. Fixed, because the order of additions follows it.
const CHUNK_ROWS: usize = 4096;

/// Rows mapped at a time: their products with some tens of directions stay in the second-level cache.
const TILE_ROWS: usize = 256;

/// Rows in memory, each with a non-negative weight that multiplies its loss. There may be none.
#[derive(Debug, Clone, Copy)]
pub struct WeightedTable<'a> {
    values: &'a [f64],
    n_cols: usize,
    weights: Option<&'a [f64]>,
}

impl<'a> WeightedTable<'a> {
    /// Borrows whole rows of `n_cols` columns and their weights (ones if `None`).
    ///
    /// # Errors
    /// [`Error::Empty`] without columns, [`Error::Shape`], [`Error::NonFinite`], [`Error::Parameter`] for a negative or
    /// non-finite weight.
    pub fn new(values: &'a [f64], n_cols: usize, weights: Option<&'a [f64]>) -> Result<Self> {
        if n_cols == 0 || !values.is_empty() {
            DenseRows::new(values, n_cols)?;
        }
        let n = values.len() / n_cols;
        if let Some(weights) = weights {
            if weights.len() != n {
                return Err(Error::Shape { what: "the weights", found: weights.len(), expected: n });
            }
            if let Some(w) = weights.iter().find(|w| !(**w >= 0.0 && w.is_finite())) {
                return Err(Error::parameter("a weight", w, "finite and not negative"));
            }
        }
        Ok(Self { values, n_cols, weights })
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.n_cols
    }

    /// Number of columns.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// All rows, row-major.
    pub(crate) fn values(&self) -> &'a [f64] {
        self.values
    }

    /// Row `i`.
    pub(crate) fn row(&self, i: usize) -> &'a [f64] {
        &self.values[i * self.n_cols..(i + 1) * self.n_cols]
    }

    /// The weight of row `i`.
    pub(crate) fn weight(&self, i: usize) -> f64 {
        self.weights.map_or(1.0, |w| w[i])
    }

    /// `f` of every fixed chunk, in parallel; results in chunk order.
    fn map_chunks<T: Send>(&self, f: impl Fn(Self) -> T + Sync) -> Vec<T> {
        (0..self.n_rows().div_ceil(CHUNK_ROWS))
            .into_par_iter()
            .map(|k| f(self.slice(k * CHUNK_ROWS, self.n_rows().min((k + 1) * CHUNK_ROWS))))
            .collect()
    }

    fn slice(&self, first: usize, end: usize) -> Self {
        Self {
            values: &self.values[first * self.n_cols..end * self.n_cols],
            n_cols: self.n_cols,
            weights: self.weights.map(|w| &w[first..end]),
        }
    }

    /// Tiles in row order.
    fn tiles(self) -> impl Iterator<Item = Self> {
        (0..self.n_rows()).step_by(TILE_ROWS).map(move |first| self.slice(first, self.n_rows().min(first + TILE_ROWS)))
    }

    /// `Σ uᵢ aᵢ aᵢᵀ`, both triangles.
    pub(crate) fn gram(&self) -> Mat {
        total_gram(self.n_cols, &self.map_chunks(|chunk| chunk.add_gram()))
    }

    /// The same of the mapped rows `aᵢF`: more accurate than `Fᵀ gram F`, whose rounding grows with the square of the condition.
    pub(crate) fn mapped_gram(&self, factor: &Mat) -> Mat {
        let k = factor.n_cols();
        let partials = self.map_chunks(|chunk| {
            let mut mapped = vec![0.0; chunk.n_rows() * k];
            apply::map_rows(chunk.values, factor, &mut mapped);
            WeightedTable { values: &mapped, n_cols: k, weights: chunk.weights }.add_gram()
        });
        total_gram(k, &partials)
    }

    /// The upper triangle of `Σ uᵢ aᵢ aᵢᵀ`, on this thread.
    fn add_gram(&self) -> Mat {
        let d = self.n_cols;
        let mut g = Mat::zeros(d, d);
        match self.weights {
            None => gram::add_gram(self.values, d, g.as_mut_slice()),
            Some(w) => gram::add_weighted_gram(self.values, d, w, g.as_mut_slice()),
        }
        g
    }

    /// The factor that makes the weighted columns orthonormal, its rank settled.
    ///
    /// # Errors
    /// What the factorizations report.
    pub(crate) fn whitened(&self) -> Result<Whitener> {
        let (gram, n) = (self.gram(), self.n_rows() as u64);
        let whitener = whiten(&gram, n)?;
        if whitener.resolved {
            return Ok(whitener);
        }
        let first = precondition(&gram, n)?;
        Ok(first.refine(&self.mapped_gram(&first.factor), n)?)
    }
}

/// `Σᵢ uᵢ|aᵢxⱼ|^p` for every column `xⱼ` of `directions` (`d x k`): `k` sums.
///
/// `2 n d k` flop and `n k` powers, in parallel; the result does not depend on the number of threads.
///
/// # Panics
/// If `directions` does not have one row per column of the table.
///
/// ```
/// use subspan::{Mat, sample::{WeightedTable, abs_power_sums}};
/// let rows = WeightedTable::new(&[3.0, 0.0, 0.0, 4.0], 2, Some(&[1.0, 2.0])).unwrap();
/// assert_eq!(abs_power_sums(&rows, &Mat::identity(2), 1.0), [3.0, 8.0]);
/// ```
pub fn abs_power_sums(rows: &WeightedTable<'_>, directions: &Mat, p: f64) -> Vec<f64> {
    assert_eq!(rows.n_cols, directions.n_rows(), "directions have one entry per column");
    let partials = rows.map_chunks(|chunk| {
        let mut sums = vec![0.0; directions.n_cols()];
        add_sums(chunk, directions, Power::new(p), &mut sums);
        sums
    });
    let mut total = vec![0.0; directions.n_cols()];
    partials.iter().for_each(|part| add(&mut total, part));
    total
}

/// [`abs_power_sums`] of a whole source with unit weights: one pass.
///
/// # Errors
/// [`Error::Shape`] if `directions` does not have one row per column; what the source reports.
pub fn abs_power_sums_of(
    source: &dyn RowSource,
    directions: &Mat,
    p: f64,
    observer: &dyn Observer,
) -> Result<Vec<f64>> {
    if source.n_cols() != directions.n_rows() {
        return Err(Error::Shape { what: "a direction", found: directions.n_rows(), expected: source.n_cols() });
    }
    remote::run(source, &PowerSums { directions: directions.clone(), p }, observer)
}

/// The pass of [`abs_power_sums_of`].
#[derive(Serialize, Deserialize)]
pub(crate) struct PowerSums {
    directions: Mat,
    p: f64,
}

impl Pass for PowerSums {
    const NAME: &'static str = "power-sums";
    type State = Vec<f64>;

    fn start(&self, _: usize) -> Vec<f64> {
        vec![0.0; self.directions.n_cols()]
    }

    fn step(&self, sums: &mut Vec<f64>, block: &RowBlock<'_>) -> Result<()> {
        let rows = WeightedTable { values: block.values, n_cols: block.n_cols, weights: None };
        add_sums(rows, &self.directions, Power::new(self.p), sums);
        Ok(())
    }

    fn merge(&self, total: &mut Vec<f64>, part: Vec<f64>) {
        add(total, &part);
    }
}

fn add_sums(rows: WeightedTable<'_>, directions: &Mat, power: Power, sums: &mut [f64]) {
    let k = directions.n_cols();
    let mut products = vec![0.0; TILE_ROWS * k];
    for tile in rows.tiles() {
        let products = &mut products[..tile.n_rows() * k];
        apply::map_rows(tile.values, directions, products);
        for (i, row) in products.chunks_exact(k.max(1)).enumerate() {
            let u = tile.weight(i);
            sums.iter_mut().zip(row).for_each(|(s, v)| *s += u * power.of(v.abs()));
        }
    }
}

/// The sums of [`abs_power_sums`] and their gradients divided by `p`: `Σᵢ uᵢ sign(aᵢxⱼ)|aᵢxⱼ|^(p−1) aᵢ` in column `j`.
pub(super) fn sums_and_gradients(rows: &WeightedTable<'_>, directions: &Mat, p: f64) -> (Vec<f64>, Mat) {
    let (d, k) = (directions.n_rows(), directions.n_cols());
    let below = Power::new(p - 1.0);
    let partials = rows.map_chunks(|chunk| {
        let mut sums = vec![0.0; k];
        let mut gradients = Mat::zeros(d, k);
        for tile in chunk.tiles() {
            let mut products = Mat::zeros(tile.n_rows(), k);
            apply::map_rows(tile.values, directions, products.as_mut_slice());
            for (i, row) in products.as_mut_slice().chunks_exact_mut(k).enumerate() {
                let u = tile.weight(i);
                for (v, s) in row.iter_mut().zip(&mut sums) {
                    let size = v.abs();
                    let slope = if size == 0.0 { 0.0 } else { u * below.of(size) };
                    *s += slope * size;
                    *v = slope.copysign(*v);
                }
            }
            let columns = Mat::from_fn(d, tile.n_rows(), |j, i| tile.values[i * d + j]);
            add(gradients.as_mut_slice(), columns.mul(&products).as_slice());
        }
        (sums, gradients)
    });
    let (mut sums, mut gradients) = (vec![0.0; k], Mat::zeros(d, k));
    for (s, g) in &partials {
        add(&mut sums, s);
        add(gradients.as_mut_slice(), g.as_slice());
    }
    (sums, gradients)
}

/// Sums of upper triangles, both triangles filled.
fn total_gram(d: usize, partials: &[Mat]) -> Mat {
    let mut total = Mat::zeros(d, d);
    partials.iter().for_each(|g| add(total.as_mut_slice(), g.as_slice()));
    gram::symmetrize(total.as_mut_slice(), d);
    total
}

fn add(total: &mut [f64], part: &[f64]) {
    total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
}
