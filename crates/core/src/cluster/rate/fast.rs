//! A shortcut to the rates: columns of the membership as deviations from the mean column of their group.
//!
//! A group of `m` columns with mean column `h` shares `H = I + c Σ_i h_i z_i z_iᵀ`, `W = c H⁻¹` and the products `g_il = z_iᵀ W z_l`.
//! With the deviations `D_i = γ_ij − h_i` of column `j`, exactly
//!
//! `logdet(I + c M_j) = logdet H + logdet(I + D g)`.
//!
//! Deviations are large against `H` along single rows (a column's nearest neighbours), so a series in `D` diverges. What a row does alone
//! is therefore summed up to all orders, and only what pairs of rows do together is taken to second order: with
//! `E_i = D_i / (1 + D_i g_ii)`
//!
//! `logdet(I + D g) ≈ Σ_i log(1 + D_i g_ii) − ½ Σ_{i≠l} E_i E_l g_il²`.
//!
//! The gradient is that of this sum. All of it is four matrix products per group, and one factorization instead of `m`. `R` and
//! `Rc` nearly cancel in the gradient, so a value that is right to a per cent says nothing: [`Shortcut`] compares gradients
//! with the exact ones every so often, and takes more groups, or none, where they disagree.

use rayon::prelude::*;
use subspan_linalg::{Mat, Real, cholesky, gemm, par_weighted_gram};

use super::super::kmeans::kmeans;
use super::{Columns, Gradient, Rates, rate_gradient, whole_rate};
use crate::error::Result;

/// Groups of columns to begin with, and the fewest columns of a group on average.
const GROUPS: usize = 16;
const GROUP_COLUMNS: usize = 64;

/// `count` groups of alike columns of a membership (`n x n`), by the rows averaged twice over it: any grouping is valid, a good
/// one makes the shortcut accurate.
///
/// # Panics
/// If the shapes do not fit each other, or there are not between one group and one per column.
pub fn groups<T: Real>(membership: &[T], rows: &[T], d: usize, count: usize, seed: u64) -> Vec<u32> {
    let n = rows.len() / d;
    let (mut once, mut twice) = (vec![T::default(); n * d], vec![T::default(); n * d]);
    gemm::mul(membership, n, rows, d, &mut once);
    gemm::mul(membership, n, &once, d, &mut twice);
    let points: Vec<f32> = twice.iter().map(|v| v.to_f64() as f32).collect();
    kmeans(&points, d, &vec![1.0; n], count, 1, seed).swap_remove(0).labels
}

/// `R`, `Rc` and the gradient of `R − Rc` like [`rate_gradient`] with columns that weigh one each, by deviations from the mean columns of
/// `groups`; a group of one column is exact. Cost: `4 B² d` flop per group and `4 B³`.
///
/// # Errors
/// [`crate::Error::Linalg`] for values that are not finite.
///
/// # Panics
/// If the shapes do not fit each other, or `eps2` is not positive.
pub fn fast_rate_gradient<T: Real>(
    rows: &[T],
    d: usize,
    membership: &[T],
    eps2: f64,
    groups: &[u32],
) -> Result<Gradient<T>> {
    let n = rows.len() / d;
    assert!(membership.len() == n * n && groups.len() == n, "a square membership and one group per column");
    let (whole, mut gradient) = whole_rate(rows, d, eps2)?;
    let doubles: Vec<f64> = rows.iter().map(|v| v.to_f64()).collect();
    let task = Task { rows, doubles: &doubles, membership, d, c: d as f64 / eps2 };
    let count = groups.iter().max().map_or(0, |g| *g as usize + 1);
    let parts: Vec<Result<Part<T>>> = (0..count)
        .map(|k| (0..n).filter(|j| groups[*j] as usize == k).collect::<Vec<_>>())
        .filter(|members| !members.is_empty())
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|members| task.group(members))
        .collect();
    let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
    let scale = -1.0 / n as f64;
    let mut by_membership = vec![T::default(); n * n];
    by_membership.par_chunks_mut(n).zip(gradient.par_chunks_mut(d)).enumerate().for_each(|(i, (columns, row))| {
        for part in &parts {
            let m = part.members.len();
            for (j, v) in part.members.iter().zip(&part.columns[i * m..(i + 1) * m]) {
                columns[*j] = T::from_f64(scale * v.to_f64());
            }
            for (g, v) in row.iter_mut().zip(&part.rows[i * d..(i + 1) * d]) {
                *g = T::from_f64(g.to_f64() + scale * v.to_f64());
            }
        }
    });
    let parts = parts.iter().map(|p| p.rate).sum::<f64>() / n as f64;
    Ok(Gradient { rates: Rates { whole, parts }, rows: gradient, membership: by_membership })
}

/// What all groups share.
struct Task<'a, T> {
    rows: &'a [T],
    doubles: &'a [f64],
    membership: &'a [T],
    d: usize,
    c: f64,
}

/// What a group adds.
struct Part<T> {
    members: Vec<usize>,
    /// `Σ_j logdet(I + c M_j)`.
    rate: f64,
    /// Its gradient with respect to the rows, `n x d`.
    rows: Vec<T>,
    /// Its gradient with respect to the members' columns, `n x m`.
    columns: Vec<T>,
}

/// Rows whose products with all others are in memory at a time: together they stay in a core's cache.
const TILE: usize = 64;

impl<T: Real> Task<'_, T> {
    fn group(&self, members: Vec<usize>) -> Result<Part<T>> {
        let (d, n, m) = (self.d, self.rows.len() / self.d, members.len());
        let mut columns = Vec::with_capacity(n * m);
        self.membership.chunks_exact(n).for_each(|row| columns.extend(members.iter().map(|j| row[*j])));
        let sums = columns.chunks_exact(m).map(|row| row.iter().map(|v| v.to_f64()).sum::<f64>());
        let shared: Vec<f64> = sums.map(|sum| sum / m as f64).collect();
        let gram = par_weighted_gram(self.doubles, d, &shared);
        let factor = cholesky(&Mat::from_fn(d, d, |i, j| f64::from(u8::from(i == j)) + self.c * gram[(i, j)]))?;
        let weight: Vec<T> = factor.inverse().as_slice().iter().map(|v| T::from_f64(self.c * v)).collect();
        let mut turned = vec![T::default(); n * d];
        gemm::mul_here(self.rows, d, &weight, d, &mut turned);
        let own: Vec<T> = turned
            .chunks_exact(d)
            .zip(self.doubles.chunks_exact(d))
            .map(|(y, z)| T::from_f64(y.iter().zip(z).map(|(y, z)| y.to_f64() * z).sum()))
            .collect();

        // Columns become T = 1/(1 + D g_ii) beside E = D T.
        let mut rate = m as f64 * factor.log_det();
        let mut effective = Vec::with_capacity(n * m);
        for ((row, h), q) in columns.chunks_exact_mut(m).zip(&shared).zip(&own) {
            rate += log_product(row.iter().map(|v| 1.0 + (v.to_f64() - h) * q.to_f64()));
            for v in row {
                let deviation = v.to_f64() - h;
                let damped = 1.0 / (1.0 + deviation * q.to_f64());
                *v = T::from_f64(damped);
                effective.push(T::from_f64(deviation * damped));
            }
        }
        let (mut images, mut typical) = (vec![T::default(); n * d], vec![0.0; n]);
        let mut scratch = Scratch::new(n, m);
        for (tile, images) in images.chunks_mut(TILE * d).enumerate() {
            let (first, count) = (tile * TILE, images.len() / d);
            rate -= 0.5 * self.pairs(first, count, &turned, &effective, &mut scratch);
            for (i, (pair, weights)) in
                scratch.pairs[..count * m].chunks_exact(m).zip(scratch.weights.chunks_exact_mut(n)).enumerate()
            {
                let at = first + i;
                let own_effective = &effective[at * m..(at + 1) * m];
                let on_own: T =
                    own_effective.iter().zip(pair).fold(T::default(), |sum, (e, s)| sum + (*e + *s * *e * *e));
                weights[at] = on_own;
                // P = g_ii T − S T².
                let mut sum = 0.0;
                for (v, s) in columns[at * m..(at + 1) * m].iter_mut().zip(pair) {
                    *v = *v * (own[at] - *s * *v);
                    sum += v.to_f64();
                }
                typical[at] = sum;
            }
            gemm::mul_here(&scratch.weights[..count * n], n, &turned, d, images);
        }
        // z_iᵀ (m W − N) with N = Σ_il A_il W z_i z_lᵀ W: what the shared part does.
        let mut shared_weight = vec![T::default(); d * d];
        gemm::transposed_mul_here(&turned, d, &images, d, &mut shared_weight);
        for (at, v) in shared_weight.iter_mut().enumerate() {
            *v = T::from_f64(m as f64) * weight[at] - *v;
        }
        let mut through = vec![T::default(); n * d];
        gemm::mul_here(self.rows, d, &shared_weight, d, &mut through);
        let two = T::from_f64(2.0);
        for (i, ((image, through), z)) in
            images.chunks_exact_mut(d).zip(through.chunks_exact(d)).zip(self.doubles.chunks_exact(d)).enumerate()
        {
            let dot: f64 = through.iter().zip(z).map(|(v, z)| v.to_f64() * z).sum();
            let common = T::from_f64((dot - typical[i]) / m as f64);
            columns[i * m..(i + 1) * m].iter_mut().for_each(|v| *v += common);
            let h = T::from_f64(shared[i]);
            image.iter_mut().zip(through).for_each(|(v, t)| *v = two * (*v + h * *t));
        }
        Ok(Part { members, rate, rows: images, columns })
    }

    /// Products of `count` rows from `first` on with all rows: leaves `S = (g∘g)₀ E` in `pairs` and `−(E Eᵀ ∘ g)₀` in `weights`, where
    /// `₀` leaves out the diagonal; `Σ E S` of these rows.
    fn pairs(&self, first: usize, count: usize, turned: &[T], effective: &[T], scratch: &mut Scratch<T>) -> f64 {
        let (d, n) = (self.d, self.rows.len() / self.d);
        let m = effective.len() / n;
        let Scratch { products, weights, pairs } = scratch;
        let (products, weights, pairs) =
            (&mut products[..count * n], &mut weights[..count * n], &mut pairs[..count * m]);
        let own = &effective[first * m..(first + count) * m];
        gemm::mul_transposed_here(&turned[first * d..(first + count) * d], self.rows, d, products);
        gemm::mul_transposed_here(own, effective, m, weights);
        for (i, (g, w)) in products.chunks_exact_mut(n).zip(weights.chunks_exact_mut(n)).enumerate() {
            g[first + i] = T::default();
            for (g, w) in g.iter_mut().zip(w) {
                *w = T::default() - *w * *g;
                *g = *g * *g;
            }
        }
        gemm::mul_here(products, n, effective, m, pairs);
        own.iter().zip(pairs.iter()).map(|(e, s)| e.to_f64() * s.to_f64()).sum()
    }
}

/// A tile's products with all rows.
struct Scratch<T> {
    products: Vec<T>,
    weights: Vec<T>,
    pairs: Vec<T>,
}

impl<T: Real> Scratch<T> {
    fn new(n: usize, m: usize) -> Self {
        let zeros = |len: usize| vec![T::default(); len];
        Self { products: zeros(TILE * n), weights: zeros(TILE * n), pairs: zeros(TILE * m) }
    }
}

/// Factors whose product is far from the ends of the range: each is between `1/(1 + c)` and `1 + c`.
const FACTORS: usize = 16;

/// The logarithm of a product, one logarithm for several factors.
fn log_product(factors: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut product) = (0.0, 1.0);
    for (at, factor) in factors.enumerate() {
        product *= factor.max(f64::EPSILON);
        if at % FACTORS == FACTORS - 1 {
            sum += product.ln();
            product = 1.0;
        }
    }
    sum + product.ln()
}

/// How a shortcut compares with the exact rates on the same batch.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Verdict {
    /// Groups of columns.
    pub groups: usize,
    /// Cosine of both gradients with respect to the rows.
    pub rows: f64,
    /// Cosine of both gradients with respect to the affinity.
    pub affinity: f64,
    /// Relative difference of `Rc`.
    pub parts: f64,
    /// Whether the shortcut is good enough.
    pub accepted: bool,
}

/// Least cosine of the rows' gradients, least cosine of the affinity's, and largest relative difference of `Rc`.
const GATE: [f64; 3] = [0.99, 0.97, 5e-3];
/// Steps between comparisons.
const EVERY: usize = 20;
/// Exact steps after a shortcut was given up.
const PAUSE: usize = 100;

/// Rates by the shortcut as long as its gradients pass the gate, exact ones otherwise.
#[derive(Debug, Clone)]
pub struct Shortcut {
    seed: u64,
    groups: usize,
    steps: usize,
    /// Steps before which everything is exact.
    paused: usize,
    verdicts: Vec<Verdict>,
}

impl Shortcut {
    /// A shortcut that has yet to be compared; the seed is that of the groups.
    pub fn new(seed: u64) -> Self {
        Self { seed, groups: GROUPS, steps: 0, paused: 0, verdicts: Vec::new() }
    }

    /// Every comparison so far.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// [`rate_gradient`] of a step. `through` takes a gradient with respect to the membership to one with respect to the
    /// affinity: what the shortcut has to get right.
    ///
    /// # Errors
    /// As [`rate_gradient`].
    pub fn step<T: Real>(
        &mut self,
        rows: &[T],
        d: usize,
        membership: &[T],
        eps2: f64,
        through: &dyn Fn(&[T]) -> Vec<f64>,
    ) -> Result<Gradient<T>> {
        let step = self.steps;
        self.steps += 1;
        if step < self.paused {
            return rate_gradient(rows, d, membership, eps2, Columns::Unit);
        }
        let n = rows.len() / d;
        let shortcut = |count: usize| {
            let groups = groups(membership, rows, d, count, self.seed);
            fast_rate_gradient(rows, d, membership, eps2, &groups)
        };
        if step != self.paused && !step.is_multiple_of(EVERY) {
            return shortcut(self.groups);
        }
        let exact = rate_gradient(rows, d, membership, eps2, Columns::Unit)?;
        let affinity = through(&exact.membership);
        while self.groups * GROUP_COLUMNS <= n {
            let fast = shortcut(self.groups)?;
            let verdict = verdict(self.groups, [&exact, &fast], [&affinity, &through(&fast.membership)]);
            self.verdicts.push(verdict);
            if verdict.accepted {
                return Ok(exact);
            }
            self.groups *= 2;
        }
        // Too many groups to save anything.
        (self.groups, self.paused) = (GROUPS, self.steps + PAUSE);
        Ok(exact)
    }
}

fn verdict<T: Real>(groups: usize, [exact, fast]: [&Gradient<T>; 2], affinity: [&[f64]; 2]) -> Verdict {
    let doubles = |values: &[T]| -> Vec<f64> { values.iter().map(|v| v.to_f64()).collect() };
    let rows = cosine(&doubles(&exact.rows), &doubles(&fast.rows));
    let affinity = cosine(affinity[0], affinity[1]);
    let parts = (fast.rates.parts / exact.rates.parts - 1.0).abs();
    let accepted = rows >= GATE[0] && affinity >= GATE[1] && parts <= GATE[2];
    Verdict { groups, rows, affinity, parts, accepted }
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests;
