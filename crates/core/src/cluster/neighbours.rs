//! Exact nearest rows by affinity: blocked products with a running selection.

use rayon::prelude::*;
use subspan_linalg::{gemm, values_above};

/// How the product of two rows becomes their affinity.
#[derive(Debug, Clone, PartialEq)]
pub enum Affinity {
    /// The product itself, negative ones count as none: rows are near when they point the same way.
    Cosine,
    /// Its absolute value: rows of one line through the origin are near.
    Absolute,
    /// `|x · y| (w_x + w_y)/2` with one weight per row: least-squares self-representation, see [`super::represent`].
    Weighted,
    /// Coefficients of orthogonal matching pursuit, see [`super::pursuit`]; the nearest rows are then found by a pursuit, not by
    /// a search among products.
    Pursuit,
}

/// The nearest rows of every query, most similar first, ties by index.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// Neighbours per query.
    pub k: usize,
    /// Row numbers, `n x k`.
    pub index: Vec<u32>,
    /// Affinities, `n x k`, never negative.
    pub affinity: Vec<f32>,
}

/// Rows to search in.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// Row-major.
    pub rows: &'a [f32],
    /// Values per row.
    pub n_cols: usize,
    /// How products become affinities.
    pub affinity: &'a Affinity,
    /// One per row, for [`Affinity::Weighted`].
    pub weights: &'a [f32],
}

/// Queries and rows of the base per product: large enough that packing them costs little, and the tile of affinities stays in the
/// second-level cache.
const QUERIES: usize = 256;
const TILE: usize = 512;

impl Search<'_> {
    pub(crate) fn n_rows(&self) -> usize {
        self.rows.len() / self.n_cols
    }

    /// The `k` nearest rows of each query. With `own` the queries are the base itself and no row is its own neighbour.
    /// A query's result does not depend on which queries come with it. Cost: `2 n m d` flop. `weights` are those of the queries, for
    /// [`Affinity::Weighted`].
    ///
    /// # Panics
    /// If rows or queries are not whole.
    ///
    /// ```
    /// use subspan::cluster::{Affinity, Search};
    /// let rows = [1.0, 0.0, 0.8, 0.6, 0.0, 1.0];
    /// let near = Search { rows: &rows, n_cols: 2, affinity: &Affinity::Cosine, weights: &[] }.nearest(&rows, &[], 1, true);
    /// assert_eq!(near.index, [1, 0, 1]);
    /// ```
    pub fn nearest(&self, queries: &[f32], weights: &[f32], k: usize, own: bool) -> Neighbours {
        let (d, m) = (self.n_cols, self.n_rows());
        let n = queries.len() / d;
        let k = k.min(if own { m - 1 } else { m });
        let mut index = vec![0u32; n * k];
        let mut affinity = vec![0f32; n * k];
        index
            .par_chunks_mut(QUERIES * k)
            .zip(affinity.par_chunks_mut(QUERIES * k))
            .zip(queries.par_chunks(QUERIES * d))
            .enumerate()
            .for_each(|(block, ((index, affinity), part))| {
                // Always a whole block, so that a product's bits do not depend on the number of queries.
                let mut padded = part.to_vec();
                padded.resize(QUERIES * d, 0.0);
                let here = part.len() / d;
                let mut best: Vec<Selection> = (0..here).map(|_| Selection::new(k)).collect();
                let mut tile = vec![0f32; QUERIES * TILE.min(m)];
                for (t, base) in self.rows.chunks(TILE * d).enumerate() {
                    let width = base.len() / d;
                    let tile = &mut tile[..QUERIES * width];
                    gemm::mul_transposed_here(&padded, base, d, tile);
                    for (q, (row, best)) in tile.chunks_exact_mut(width).zip(&mut best).enumerate() {
                        let i = block * QUERIES + q;
                        self.finish(row, t * TILE, weights.get(i).copied().unwrap_or(1.0));
                        if own && (t * TILE..t * TILE + width).contains(&i) {
                            row[i - t * TILE] = f32::NEG_INFINITY;
                        }
                        best.offer(row, (t * TILE) as u32);
                    }
                }
                for (q, best) in best.into_iter().enumerate() {
                    for (slot, (a, j)) in best.sorted().into_iter().enumerate() {
                        index[q * k + slot] = j;
                        affinity[q * k + slot] = a.max(0.0);
                    }
                }
            });
        Neighbours { k, index, affinity }
    }

    /// Products to affinities.
    fn finish(&self, products: &mut [f32], first: usize, weight: f32) {
        match self.affinity {
            Affinity::Cosine => {}
            Affinity::Absolute | Affinity::Pursuit => products.iter_mut().for_each(|v| *v = v.abs()),
            Affinity::Weighted => {
                let weights = &self.weights[first..first + products.len()];
                products.iter_mut().zip(weights).for_each(|(v, w)| *v = 0.5 * v.abs() * (weight + w));
            }
        }
    }
}

/// The largest values seen, unordered; the smallest of them is the threshold.
struct Selection {
    k: usize,
    kept: Vec<(f32, u32)>,
    threshold: f32,
}

impl Selection {
    fn new(k: usize) -> Self {
        Self { k, kept: Vec::with_capacity(2 * k + TILE), threshold: f32::NEG_INFINITY }
    }

    fn offer(&mut self, row: &[f32], first: u32) {
        values_above(row, self.threshold, first, &mut self.kept);
        if self.kept.len() >= 2 * self.k {
            self.prune();
        }
    }

    /// Keeps the `k` best. Indices arrive in ascending order and equals of the threshold are not let in, so the order
    /// (value, then index) decides as if all values had been sorted.
    fn prune(&mut self) {
        if self.kept.len() > self.k && self.k > 0 {
            self.kept.select_nth_unstable_by(self.k - 1, before);
            self.kept.truncate(self.k);
            self.threshold = self.kept.iter().fold(f32::INFINITY, |m, (v, _)| m.min(*v));
        }
    }

    fn sorted(mut self) -> Vec<(f32, u32)> {
        self.prune();
        self.kept.sort_unstable_by(before);
        self.kept.truncate(self.k);
        self.kept
    }
}

fn before(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    fn unit_rows(n: usize, d: usize) -> Vec<f32> {
        let mut rng = Stream::new(4, "rows").rng(0);
        let mut rows: Vec<f32> = (0..n * d).map(|_| rng.normal() as f32).collect();
        rows.chunks_exact_mut(d).for_each(super::super::prepare::to_unit);
        rows
    }

    #[test]
    fn the_selection_is_that_of_a_full_sort() {
        let (n, d, k) = (2500, 5, 9);
        let rows = unit_rows(n, d);
        for affinity in [Affinity::Cosine, Affinity::Absolute] {
            let search = Search { rows: &rows, n_cols: d, affinity: &affinity, weights: &[] };
            let found = search.nearest(&rows, &[], k, true);
            for i in (0..n).step_by(311) {
                let mut all: Vec<(f64, usize)> = (0..n)
                    .filter(|j| *j != i)
                    .map(|j| {
                        let dot: f64 = (0..d).map(|c| f64::from(rows[i * d + c]) * f64::from(rows[j * d + c])).sum();
                        (if affinity == Affinity::Absolute { dot.abs() } else { dot }, j)
                    })
                    .collect();
                all.sort_by(|a, b| b.0.total_cmp(&a.0));
                for (slot, (a, _)) in all[..k].iter().enumerate() {
                    assert!((f64::from(found.affinity[i * k + slot]) - a).abs() < 1e-6);
                }
            }
            let alone = search.nearest(&rows[700 * d..701 * d], &[], k, false);
            let among = search.nearest(&rows[..1000 * d], &[], k, false);
            assert_eq!(alone.index, among.index[700 * k..701 * k]);
            assert_eq!(alone.affinity, among.affinity[700 * k..701 * k]);
        }
    }

    #[test]
    fn equal_affinities_are_taken_by_index() {
        let rows: Vec<f32> = (0..3000).flat_map(|_| [1.0, 0.0]).collect();
        let search = Search { rows: &rows, n_cols: 2, affinity: &Affinity::Cosine, weights: &[] };
        assert_eq!(search.nearest(&rows[..2], &[], 4, false).index, [0, 1, 2, 3]);
    }
}
