//! Self-representation by orthogonal matching pursuit: the affinity for subspaces that overlap so much that least squares see one.
//!
//! Each row is written as a combination of few others, chosen one after the other by their absolute product with what is left of it
//! (You, Robinson, Vidal, "Scalable sparse subspace clustering by orthogonal matching pursuit", CVPR 2016). The affinity to a chosen
//! row is its absolute coefficient over the largest, times the share of the row's square that the combination explains.

use rayon::prelude::*;
use subspan_linalg::gemm;

use super::neighbours::{Neighbours, Search};
use super::prepare::BLOCK;

/// Rows that represent a row.
pub(crate) const STEPS: usize = 10;
/// Rows of the base per product.
const TILE: usize = 2048;
/// Share of a row's square that is left when it counts as represented, and share of a chosen row's square that must be new: what
/// single-precision products cannot tell from nothing.
const LEFT: f64 = 1e-8;
/// Products of unit rows that equal each other are above it.
const EQUAL: f32 = 0.9999;

/// Which row of the base must not represent a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// Query `i` is row `i`.
    Same,
    /// The first row that equals the query, if there is one.
    Equal,
}

/// The rows of the base that represent each query, by descending coefficient; where fewer than `steps` are needed, the rest of the
/// places repeat the first one with an affinity of zero. A query's result does not depend on which queries come with it.
/// Cost: `2 n m d` flop per step.
pub(crate) fn pursue(search: &Search<'_>, queries: &[f32], steps: usize, own: Own) -> Neighbours {
    let (d, m) = (search.n_cols, search.n_rows());
    let n = queries.len() / d;
    let k = steps.min(m.saturating_sub(1)).max(1);
    let (mut index, mut affinity) = (vec![0u32; n * k], vec![0f32; n * k]);
    index
        .par_chunks_mut(BLOCK * k)
        .zip(affinity.par_chunks_mut(BLOCK * k))
        .zip(queries.par_chunks(BLOCK * d))
        .enumerate()
        .for_each(|(block, ((index, affinity), part))| {
            let mut left: Vec<Pursuit<'_>> = part.chunks_exact(d).map(Pursuit::new).collect();
            if own == Own::Same {
                left.iter_mut().enumerate().for_each(|(q, p)| p.barred.push((block * BLOCK + q) as u32));
            }
            let mut tile = vec![0f32; BLOCK * TILE.min(m)];
            for step in 0..k {
                if left.iter().all(|p| p.done) {
                    break;
                }
                // Always a whole block, so that a product's bits do not depend on the number of queries.
                let mut residuals = vec![0f32; BLOCK * d];
                residuals.chunks_exact_mut(d).zip(&left).for_each(|(r, p)| p.residual_to(r));
                let mut best = vec![(0f32, u32::MAX); left.len()];
                for (t, base) in search.rows.chunks(TILE * d).enumerate() {
                    let width = base.len() / d;
                    let tile = &mut tile[..BLOCK * width];
                    gemm::mul_transposed(&residuals, base, d, tile);
                    for ((row, p), best) in tile.chunks_exact(width).zip(&mut left).zip(&mut best) {
                        for (j, v) in row.iter().enumerate().filter(|(_, v)| v.abs() > best.0).collect::<Vec<_>>() {
                            let found = (t * TILE + j) as u32;
                            let equal = || base[j * d..(j + 1) * d] == *p.query;
                            if own == Own::Equal && step == 0 && p.barred.is_empty() && *v > EQUAL && equal() {
                                p.barred.push(found);
                            }
                            if v.abs() > best.0 && !p.barred.contains(&found) {
                                *best = (v.abs(), found);
                            }
                        }
                    }
                }
                for (p, (_, j)) in left.iter_mut().zip(best) {
                    match j {
                        u32::MAX => p.done = true,
                        j => p.take(j, &search.rows[j as usize * d..(j as usize + 1) * d]),
                    }
                }
            }
            for (p, (index, affinity)) in left.iter().zip(index.chunks_exact_mut(k).zip(affinity.chunks_exact_mut(k))) {
                p.finish(m, index, affinity);
            }
        });
    Neighbours { k, index, affinity }
}

/// A query and what represents it so far.
struct Pursuit<'a> {
    query: &'a [f32],
    residual: Vec<f64>,
    /// Orthonormal directions of the chosen rows, one after the other.
    basis: Vec<f64>,
    /// Coordinates of each chosen row in the directions up to its own.
    triangle: Vec<Vec<f64>>,
    chosen: Vec<u32>,
    /// Rows that must not be chosen: the query itself and those chosen already.
    barred: Vec<u32>,
    done: bool,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl<'a> Pursuit<'a> {
    fn new(query: &'a [f32]) -> Self {
        let residual: Vec<f64> = query.iter().map(|v| f64::from(*v)).collect();
        let done = residual.iter().all(|v| *v == 0.0);
        let (basis, triangle, chosen, barred) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { query, residual, basis, triangle, chosen, barred, done }
    }

    fn residual_to(&self, out: &mut [f32]) {
        if !self.done {
            out.iter_mut().zip(&self.residual).for_each(|(o, r)| *o = *r as f32);
        }
    }

    fn square(&self) -> f64 {
        self.query.iter().map(|v| f64::from(*v).powi(2)).sum()
    }

    fn take(&mut self, j: u32, row: &[f32]) {
        if self.done {
            return;
        }
        self.barred.push(j);
        let d = row.len();
        let mut new: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
        let square = dot(&new, &new);
        let mut coordinates = vec![0.0; self.chosen.len()];
        // Twice is enough.
        for _ in 0..2 {
            for (c, u) in coordinates.iter_mut().zip(self.basis.chunks_exact(d)) {
                let along = dot(u, &new);
                *c += along;
                new.iter_mut().zip(u).for_each(|(v, u)| *v -= along * u);
            }
        }
        let length = dot(&new, &new).sqrt();
        if length * length <= LEFT * square {
            self.done = true;
            return;
        }
        new.iter_mut().for_each(|v| *v /= length);
        let along = dot(&new, &self.residual);
        self.residual.iter_mut().zip(&new).for_each(|(r, u)| *r -= along * u);
        coordinates.push(length);
        self.triangle.push(coordinates);
        self.basis.extend(new);
        self.chosen.push(j);
        self.done = dot(&self.residual, &self.residual) <= LEFT * self.square();
    }

    /// Coefficients by back substitution, the largest first, for rows out of `m`.
    fn finish(&self, m: usize, index: &mut [u32], affinity: &mut [f32]) {
        let (d, s) = (self.query.len(), self.chosen.len());
        let query: Vec<f64> = self.query.iter().map(|v| f64::from(*v)).collect();
        let mut coefficients: Vec<f64> = self.basis.chunks_exact(d).map(|u| dot(u, &query)).collect();
        for i in (0..s).rev() {
            coefficients[i] /= self.triangle[i][i];
            let (above, own) = coefficients.split_at_mut(i);
            above.iter_mut().zip(&self.triangle[i]).for_each(|(c, t)| *c -= t * own[0]);
        }
        let explained = 1.0 - dot(&self.residual, &self.residual) / self.square().max(f64::MIN_POSITIVE);
        let largest = coefficients.iter().fold(f64::MIN_POSITIVE, |m, c| m.max(c.abs()));
        let mut found: Vec<(f32, u32)> = coefficients
            .iter()
            .zip(&self.chosen)
            .map(|(c, j)| ((c.abs() / largest * explained.clamp(0.0, 1.0)) as f32, *j))
            .collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        // A row that no other explains is tied to any with nothing, but not to itself.
        let other = u32::from(self.barred.first() == Some(&0)).min(m as u32 - 1);
        let first = found.first().map_or(other, |f| f.1);
        let rest = std::iter::repeat((0.0, first));
        for ((index, affinity), (a, j)) in index.iter_mut().zip(affinity).zip(found.into_iter().chain(rest)) {
            (*index, *affinity) = (j, a);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::neighbours::Affinity;
    use super::*;
    use crate::draw::Stream;
    use subspan_linalg::{Mat, cholesky};

    #[test]
    fn coefficients_are_those_of_the_regression_on_the_chosen_rows() {
        let (n, d) = (70, 8);
        let mut rng = Stream::new(1, "rows").rng(0);
        let mut rows: Vec<f32> = (0..n * d).map(|_| rng.normal() as f32).collect();
        rows.chunks_exact_mut(d).for_each(super::super::prepare::to_unit);
        let search = Search { rows: &rows, n_cols: d, affinity: &Affinity::Pursuit, weights: &[] };
        let found = pursue(&search, &rows, 4, Own::Same);
        let product =
            |i: usize, j: usize| (0..d).map(|c| f64::from(rows[i * d + c]) * f64::from(rows[j * d + c])).sum::<f64>();
        for i in 0..n {
            let chosen: Vec<usize> = found.index[i * 4..(i + 1) * 4].iter().map(|j| *j as usize).collect();
            assert!(!chosen.contains(&i));
            let gram = Mat::from_fn(4, 4, |a, b| product(chosen[a], chosen[b]));
            let right: Vec<f64> = chosen.iter().map(|j| product(*j, i)).collect();
            let c = cholesky(&gram).unwrap().solve(&right);
            let explained: f64 = c.iter().zip(&right).map(|(c, r)| c * r).sum();
            let largest = c.iter().fold(0.0, |m: f64, c| m.max(c.abs()));
            for (slot, c) in c.iter().enumerate() {
                assert!((f64::from(found.affinity[i * 4 + slot]) - c.abs() / largest * explained).abs() < 1e-4);
            }
        }
        // A row of the base that comes as a query is represented without itself, alone or among others.
        let again = pursue(&search, &rows, 4, Own::Equal);
        assert_eq!(again, found);
        let alone = pursue(&search, &rows[3 * d..4 * d], 4, Own::Equal);
        assert_eq!(alone.index, found.index[12..16]);
        assert_eq!(alone.affinity, found.affinity[12..16]);
    }

    #[test]
    fn rows_of_independent_planes_choose_their_own() {
        // Three planes in six dimensions; four steps, of which two represent a row.
        let mut rng = Stream::new(2, "planes").rng(0);
        let mut rows = Vec::new();
        for i in 0..60 {
            let mut row = [0f32; 6];
            row[2 * (i % 3)] = rng.normal() as f32;
            row[2 * (i % 3) + 1] = rng.normal() as f32;
            rows.extend(row);
        }
        rows.chunks_exact_mut(6).for_each(super::super::prepare::to_unit);
        let search = Search { rows: &rows, n_cols: 6, affinity: &Affinity::Pursuit, weights: &[] };
        let found = pursue(&search, &rows, 4, Own::Same);
        for (i, (index, affinity)) in found.index.chunks(4).zip(found.affinity.chunks(4)).enumerate() {
            assert!(index.iter().all(|j| *j as usize % 3 == i % 3));
            assert!((affinity[0] - 1.0).abs() < 1e-5 && affinity[2] == 0.0, "{affinity:?}");
        }
    }
}
