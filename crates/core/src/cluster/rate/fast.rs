//! A shortcut to the rates: columns of the membership as a shared background with few corrections.
//!
//! Column `j` of group `k` is taken as `b_j h_k + Σ_{i ∈ I_j} D_i e_i`: `h_k` is the mean column of the group, `I_j` are the `s` rows where
//! they differ most, `D_i` of either sign makes those entries exact and `b_j` keeps the mass. With the eigenvectors `U` of
//! `S_k = Σ h_ik z_i z_iᵀ`, `T = (I + c b_j Λ)⁻¹` and `F = |D|^½ Z_I U T^½`, both determinant and inverse come from
//! `N = sign(D) + c F Fᵀ` of side `s`:
//!
//! `logdet(I + c M_j) = Σ_l log(1 + c b_j λ_l) + log |det N|`,  `W_j = c U T^½ (I − c Fᵀ N⁻¹ F) T^½ Uᵀ`.
//!
//! That is exact algebra for the approximate column (Woodbury and the determinant lemma). `R` and `Rc` nearly cancel in the gradient, so
//! a value that is right to a per cent says nothing: [`Shortcut`] compares gradients with the exact ones every so often, and
//! takes more corrections, or none, where they disagree.

use rayon::prelude::*;
use subspan_linalg::{Mat, Real, cholesky, eigh, gemm, par_weighted_gram};

use super::super::kmeans::kmeans;
use super::{Columns, Gradient, Rates, rate_gradient, whole_rate};
use crate::draw::Stream;
use crate::error::Result;

/// Corrections per column to begin with.
const CORRECTIONS: usize = 64;
/// Groups of columns at most, and the fewest columns of a group on average.
const GROUPS: (usize, usize) = (16, 64);
/// Random directions in which columns are compared to make groups.
const DIRECTIONS: usize = 16;
/// Columns whose corrections are added up by one product.
const STACK: usize = 32;
/// Corrections smaller than this are none.
const NEGLIGIBLE: f64 = 1e-12;

/// Groups of alike columns of a membership (`n x n`): any grouping is valid, a good one makes the shortcut accurate.
pub fn groups<T: Real>(membership: &[T], n: usize, seed: u64) -> Vec<u32> {
    let count = (n / GROUPS.1).clamp(1, GROUPS.0);
    let stream = Stream::new(seed, "column groups");
    let directions: Vec<T> = (0..n)
        .flat_map(|i| {
            let mut rng = stream.rng(i as u64);
            (0..DIRECTIONS).map(move |_| T::from_f64(rng.normal())).collect::<Vec<_>>()
        })
        .collect();
    // Two steps along the membership: noise of single entries averages out.
    let (mut once, mut twice) = (vec![T::default(); n * DIRECTIONS], vec![T::default(); n * DIRECTIONS]);
    gemm::mul(membership, n, &directions, DIRECTIONS, &mut once);
    gemm::mul(membership, n, &once, DIRECTIONS, &mut twice);
    let points: Vec<f32> = twice.iter().map(|v| v.to_f64() as f32).collect();
    kmeans(&points, DIRECTIONS, &vec![1.0; n], count, 1, seed).swap_remove(0).labels
}

/// `R`, `Rc` and the gradient of `R − Rc` like [`rate_gradient`] with columns that weigh one each, with `corrections` per column
/// against the mean of its group. Cost: about `B (2 s² d + 2 s d²)` flop and `B d²` per group.
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
    corrections: usize,
) -> Result<Gradient<T>> {
    let n = rows.len() / d;
    assert!(membership.len() == n * n && groups.len() == n, "a square membership and one group per column");
    let (whole, mut gradient) = whole_rate(rows, d, eps2)?;
    let mut columns = vec![T::default(); n * n];
    transpose(membership, n, &mut columns);
    let doubles: Vec<f64> = rows.iter().map(|v| v.to_f64()).collect();
    let task =
        Task { rows, doubles: &doubles, columns: &columns, d, c: d as f64 / eps2, corrections: corrections.min(n) };
    let count = groups.iter().max().map_or(0, |g| *g as usize + 1);
    let parts: Vec<Result<Part<T>>> =
        (0..count).into_par_iter().map(|k| task.group((0..n).filter(|j| groups[*j] as usize == k).collect())).collect();
    let (mut sum, mut by_column) = (0.0, vec![T::default(); n * n]);
    for part in parts {
        let part = part?;
        sum += part.rate;
        gradient
            .iter_mut()
            .zip(&part.rows)
            .for_each(|(g, p)| *g = T::from_f64(g.to_f64() - 2.0 / n as f64 * p.to_f64()));
        for (j, column) in part.members.iter().zip(part.columns.chunks_exact(n)) {
            by_column[j * n..(j + 1) * n].copy_from_slice(column);
        }
    }
    let mut by_membership = vec![T::default(); n * n];
    transpose(&by_column, n, &mut by_membership);
    let scale = -1.0 / n as f64;
    by_membership.par_iter_mut().for_each(|g| *g = T::from_f64(scale * g.to_f64()));
    Ok(Gradient { rates: Rates { whole, parts: sum / n as f64 }, rows: gradient, membership: by_membership })
}

/// Side of a tile of a transposition: two tiles stay in the first-level cache.
const TILE: usize = 32;

fn transpose<T: Real>(from: &[T], n: usize, to: &mut [T]) {
    to.par_chunks_mut(TILE * n).enumerate().for_each(|(block, to)| {
        for first in (0..n).step_by(TILE) {
            for (r, row) in to.chunks_exact_mut(n).enumerate() {
                let j = block * TILE + r;
                for i in first..n.min(first + TILE) {
                    row[i] = from[i * n + j];
                }
            }
        }
    });
}

/// What all groups share.
struct Task<'a, T> {
    rows: &'a [T],
    doubles: &'a [f64],
    /// The membership's columns, one after the other.
    columns: &'a [T],
    d: usize,
    c: f64,
    corrections: usize,
}

/// What a group adds.
struct Part<T> {
    members: Vec<usize>,
    /// `Σ_j logdet(I + c M_j)`.
    rate: f64,
    /// `Σ_j g_ij W_j z_i`, `n x d`.
    rows: Vec<T>,
    /// `z_iᵀ W_j z_i`, one row per member `j`.
    columns: Vec<T>,
}

/// A column as background and corrections.
struct Column {
    background: f64,
    /// Rows and what is added to the background there.
    corrections: Vec<(usize, f64)>,
}

impl<T: Real> Task<'_, T> {
    fn group(&self, members: Vec<usize>) -> Result<Part<T>> {
        let (d, n, c) = (self.d, self.rows.len() / self.d, self.c);
        if members.is_empty() {
            let rows = vec![T::default(); n * d];
            return Ok(Part { members, rate: 0.0, rows, columns: Vec::new() });
        }
        let mut shared = vec![0.0; n];
        for j in &members {
            shared.iter_mut().zip(&self.columns[j * n..(j + 1) * n]).for_each(|(h, g)| *h += g.to_f64());
        }
        shared.iter_mut().for_each(|h| *h /= members.len() as f64);
        let eigen = eigh(&par_weighted_gram(self.doubles, d, &shared))?;
        let values: Vec<f64> = eigen.values.iter().map(|v| v.max(0.0)).collect();
        let basis: Vec<T> = eigen.vectors.as_slice().iter().map(|v| T::from_f64(*v)).collect();
        let mut turned = vec![T::default(); n * d];
        gemm::mul(self.rows, d, &basis, d, &mut turned);

        let mut added = vec![T::default(); n * d];
        // Σ_j b_j W_j in the group's basis: a diagonal less stacked products.
        let (mut diagonal, mut product) = (vec![0.0; d], vec![0.0; d * d]);
        let (mut rate, mut total) = (0.0, 0.0);
        let mut exact = Vec::with_capacity(members.len());
        for stack in members.chunks(STACK) {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            for j in stack {
                let column = self.column(*j, &shared);
                let b = column.background;
                total += b;
                let roots: Vec<f64> = values.iter().map(|v| (1.0 + c * b * v).sqrt().recip()).collect();
                diagonal.iter_mut().zip(&roots).for_each(|(s, r)| *s += b * r * r);
                let corrected = self.corrected(&column, &turned, &roots)?;
                rate += corrected.log_det - 2.0 * roots.iter().map(|r| r.ln()).sum::<f64>();
                let scale = T::from_f64(c * b);
                for ((f, q), (i, by)) in
                    corrected.f.chunks_exact(d).zip(corrected.q.chunks_exact(d)).zip(&column.corrections)
                {
                    let own = T::from_f64(c * by.abs().sqrt());
                    let to = &mut added[i * d..(i + 1) * d];
                    for l in 0..d {
                        let root = T::from_f64(roots[l]);
                        let rotated = q[l] * root;
                        left.push(scale * f[l] * root);
                        right.push(rotated);
                        to[l] += own * rotated;
                    }
                }
                exact.push((column.corrections, corrected.quadratic));
            }
            if !left.is_empty() {
                let mut part = vec![T::default(); d * d];
                gemm::transposed_mul(&left, d, &right, d, &mut part);
                product.iter_mut().zip(&part).for_each(|(s, p)| *s += p.to_f64());
            }
        }
        let weight: Vec<T> = (0..d * d)
            .map(|at| {
                let (i, j) = (at / d, at % d);
                let symmetric = 0.5 * (product[at] + product[j * d + i]);
                T::from_f64(c * (if i == j { diagonal[i] } else { 0.0 } - symmetric))
            })
            .collect();
        let mut images = vec![T::default(); n * d];
        gemm::mul(&turned, d, &weight, d, &mut images);
        let mut typical = Vec::with_capacity(n);
        for ((image, row), (sum, h)) in
            images.chunks_exact(d).zip(turned.chunks_exact(d)).zip(added.chunks_exact_mut(d).zip(&shared))
        {
            let dot: f64 = image.iter().zip(row).map(|(a, b)| a.to_f64() * b.to_f64()).sum();
            typical.push(T::from_f64(if total > 0.0 { dot / total } else { 0.0 }));
            let h = T::from_f64(*h);
            sum.iter_mut().zip(image).for_each(|(s, v)| *s += h * *v);
        }
        let mut rows = vec![T::default(); n * d];
        gemm::mul_transposed(&added, &basis, d, &mut rows);
        let mut columns = Vec::with_capacity(members.len() * n);
        for (corrections, quadratic) in exact {
            let from = columns.len();
            columns.extend_from_slice(&typical);
            corrections.iter().zip(quadratic).for_each(|((i, _), q)| columns[from + i] = T::from_f64(q));
        }
        Ok(Part { members, rate, rows, columns })
    }

    /// Background and corrections of column `j` against the group's mean.
    fn column(&self, j: usize, shared: &[f64]) -> Column {
        let n = shared.len();
        let column = &self.columns[j * n..(j + 1) * n];
        let mut order: Vec<(f64, usize)> =
            column.iter().zip(shared).enumerate().map(|(i, (g, h))| ((g.to_f64() - h).abs(), i)).collect();
        if self.corrections < n {
            // Largest first, ties by the smaller row.
            order.select_nth_unstable_by(self.corrections, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            order.truncate(self.corrections);
        }
        let mut chosen: Vec<usize> = order.into_iter().map(|o| o.1).collect();
        chosen.sort_unstable();
        let (mass, whole): (f64, f64) = (column.iter().map(|g| g.to_f64()).sum(), shared.iter().sum());
        let (own, common) =
            chosen.iter().fold((0.0, 0.0), |(own, common), i| (own + column[*i].to_f64(), common + shared[*i]));
        let left = whole - common;
        let background = if left > NEGLIGIBLE { ((mass - own) / left).max(0.0) } else { 0.0 };
        let by = |i: usize| column[i].to_f64() - background * shared[i];
        let mut corrections: Vec<(usize, f64)> =
            chosen.iter().map(|i| (*i, by(*i))).filter(|c| c.1.abs() > NEGLIGIBLE).collect();
        // What is added before what is taken away: each kind is then a block of its own.
        corrections.sort_by_key(|c| c.1 < 0.0);
        Column { background, corrections }
    }

    /// What the corrections of a column come to, for rows turned into the group's basis.
    fn corrected(&self, column: &Column, turned: &[T], roots: &[f64]) -> Result<Corrected<T>> {
        let (d, s) = (self.d, column.corrections.len());
        let roots: Vec<T> = roots.iter().map(|r| T::from_f64(*r)).collect();
        let mut f = Vec::with_capacity(s * d);
        for (i, by) in &column.corrections {
            let by = T::from_f64(by.abs().sqrt());
            f.extend(turned[i * d..(i + 1) * d].iter().zip(&roots).map(|(v, r)| by * *v * *r));
        }
        if s == 0 {
            return Ok(Corrected { f, q: Vec::new(), log_det: 0.0, quadratic: Vec::new() });
        }
        let mut gram = vec![T::default(); s * s];
        gemm::mul_transposed(&f, &f, d, &mut gram);
        let added = column.corrections.iter().take_while(|c| c.1 > 0.0).count();
        let entry = |i: usize, j: usize| 0.5 * self.c * (gram[i * s + j].to_f64() + gram[j * s + i].to_f64());
        let (inverse, log_det) = signed_inverse(&entry, added, s)?;
        let inverse: Vec<T> = inverse.as_slice().iter().map(|v| T::from_f64(*v)).collect();
        let mut q = vec![T::default(); s * d];
        gemm::mul(&inverse, s, &f, d, &mut q);
        let quadratic = f
            .chunks_exact(d)
            .zip(q.chunks_exact(d))
            .zip(&column.corrections)
            .map(|((f, q), (_, by))| self.c / by * f.iter().zip(q).map(|(a, b)| a.to_f64() * b.to_f64()).sum::<f64>())
            .collect();
        Ok(Corrected { f, q, log_det, quadratic })
    }
}

/// `(diag(±1) + G)⁻¹` and the logarithm of its determinant's absolute value, for a positive semidefinite `G` of side `s` and signs
/// that are positive for the first `added` rows. The first block is eliminated; what is left of the second is negative definite,
/// because the approximate column has no negative entry.
fn signed_inverse(g: &dyn Fn(usize, usize) -> f64, added: usize, s: usize) -> Result<(Mat, f64)> {
    let unit = |i: usize, j: usize| f64::from(u8::from(i == j));
    let (first_inverse, first_log_det) = match added {
        0 => (Mat::zeros(0, 0), 0.0),
        _ => {
            let first = cholesky(&Mat::from_fn(added, added, |i, j| unit(i, j) + g(i, j)))?;
            (first.inverse(), first.log_det())
        }
    };
    if added == s {
        return Ok((first_inverse, first_log_det));
    }
    let taken = s - added;
    let between = Mat::from_fn(added, taken, |i, j| g(i, added + j));
    let mapped = first_inverse.mul(&between);
    let gained = between.transpose().mul(&mapped);
    let second = cholesky(&Mat::from_fn(taken, taken, |i, j| {
        unit(i, j) - g(added + i, added + j) + 0.5 * (gained[(i, j)] + gained[(j, i)])
    }))?;
    let second_inverse = second.inverse();
    let side = mapped.mul(&second_inverse);
    let corner = side.mul(&mapped.transpose());
    let inverse = Mat::from_fn(s, s, |i, j| match (i < added, j < added) {
        (true, true) => first_inverse[(i, j)] - corner[(i, j)],
        (true, false) => side[(i, j - added)],
        (false, true) => side[(j, i - added)],
        (false, false) => -second_inverse[(i - added, j - added)],
    });
    Ok((inverse, first_log_det + second.log_det()))
}

/// The corrections of a column: `F`, `N⁻¹ F` (`s x d` each), `log |det N|`, and `z_iᵀ W z_i` of the corrected rows.
struct Corrected<T> {
    f: Vec<T>,
    q: Vec<T>,
    log_det: f64,
    quadratic: Vec<f64>,
}

/// How a shortcut compares with the exact rates on the same batch.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Verdict {
    /// Corrections per column.
    pub corrections: usize,
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
    corrections: usize,
    steps: usize,
    /// Steps before which everything is exact.
    paused: usize,
    verdicts: Vec<Verdict>,
}

impl Shortcut {
    /// A shortcut that has yet to be compared; the seed is that of the groups.
    pub fn new(seed: u64) -> Self {
        Self { seed, corrections: CORRECTIONS, steps: 0, paused: 0, verdicts: Vec::new() }
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
        let groups = groups(membership, n, self.seed);
        if step != self.paused && !step.is_multiple_of(EVERY) {
            return fast_rate_gradient(rows, d, membership, eps2, &groups, self.corrections);
        }
        let exact = rate_gradient(rows, d, membership, eps2, Columns::Unit)?;
        let affinity = through(&exact.membership);
        while 4 * self.corrections < n {
            let fast = fast_rate_gradient(rows, d, membership, eps2, &groups, self.corrections)?;
            let verdict = verdict(self.corrections, [&exact, &fast], [&affinity, &through(&fast.membership)]);
            self.verdicts.push(verdict);
            if verdict.accepted {
                return Ok(exact);
            }
            self.corrections *= 2;
        }
        // Too many corrections to save anything.
        (self.corrections, self.paused) = (CORRECTIONS, self.steps + PAUSE);
        Ok(exact)
    }
}

fn verdict<T: Real>(corrections: usize, [exact, fast]: [&Gradient<T>; 2], affinity: [&[f64]; 2]) -> Verdict {
    let doubles = |values: &[T]| -> Vec<f64> { values.iter().map(|v| v.to_f64()).collect() };
    let rows = cosine(&doubles(&exact.rows), &doubles(&fast.rows));
    let affinity = cosine(affinity[0], affinity[1]);
    let parts = (fast.rates.parts / exact.rates.parts - 1.0).abs();
    let accepted = rows >= GATE[0] && affinity >= GATE[1] && parts <= GATE[2];
    Verdict { corrections, rows, affinity, parts, accepted }
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests;
