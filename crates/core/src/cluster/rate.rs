//! Maximal coding rate reduction with soft memberships: value and gradient.
//!
//! With unit rows `z_i`, `c = d/ε²` and a membership `Γ` whose column `j` is the soft cluster seen from row `j`,
//!
//! `R = logdet(I + (c/B) Σ_i z_i z_iᵀ)`, `Rc = (1/B) Σ_j t_j logdet(I + (c/t_j) M_j)`, `M_j = Σ_i γ_ij z_i z_iᵀ`,
//!
//! with `t_j = 1`, as for a doubly stochastic `Γ`, or `t_j` the sum of column `j`. What is maximised is `R − Rc` (Yu et al., NeurIPS
//! 2020; Ding et al., ICCV 2023). Forming the `M_j` dominates, so symmetric matrices are packed into rows of `d (d+1)/2` values
//! and everything is three matrix products: half the work and, without an automatic-differentiation graph, a fraction of the memory.

pub mod fast;

use rayon::prelude::*;
use subspan_linalg::{Cholesky, Mat, Real, cholesky, gemm};

use crate::error::{Error, Result};

/// Squared precision of a trained representation.
pub const EPS2: f64 = 0.1;

/// What a column of the membership weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// One each.
    Unit,
    /// Its sum, also in the gradient.
    Sums,
}

/// The two rates, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// `R`: of all rows.
    pub whole: f64,
    /// `Rc`: of the clusters.
    pub parts: f64,
}

impl Rates {
    /// `R − Rc`.
    pub fn reduction(&self) -> f64 {
        self.whole - self.parts
    }
}

/// The rates and the gradient of `R − Rc`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient<T> {
    /// The rates.
    pub rates: Rates,
    /// With respect to the rows as free vectors, `B x d`.
    pub rows: Vec<T>,
    /// With respect to the membership, `B x B`.
    pub membership: Vec<T>,
}

/// `R` and its gradient with respect to unit rows of `d` values. Cost: a factorization of side `d` or the number of rows,
/// whichever is smaller, as `det(I + c ZᵀZ) = det(I + c ZZᵀ)`.
///
/// # Errors
/// [`Error::Linalg`] for rows that are not finite.
///
/// # Panics
/// If `rows` does not hold whole rows, or `eps2` is not positive.
pub fn whole_rate<T: Real>(rows: &[T], d: usize, eps2: f64) -> Result<(f64, Vec<T>)> {
    assert!(rows.len().is_multiple_of(d) && eps2 > 0.0, "whole rows and a positive precision");
    let n = rows.len() / d;
    let c = d as f64 / eps2 / n as f64;
    let values: Vec<f64> = rows.iter().map(|v| v.to_f64()).collect();
    let mut gradient = vec![T::default(); rows.len()];
    let weight = |factor: &Cholesky| -> Vec<T> {
        factor.inverse().as_slice().iter().map(|v| T::from_f64(2.0 * c * v)).collect()
    };
    let one = |i: usize, j: usize| f64::from(u8::from(i == j));
    let factor = if n < d {
        let mut products = vec![0.0; n * n];
        gemm::mul_transposed(&values, &values, d, &mut products);
        let factor = cholesky(&Mat::from_fn(n, n, |i, j| one(i, j) + c * products[i * n + j]))?;
        gemm::mul(&weight(&factor), n, rows, d, &mut gradient);
        factor
    } else {
        let gram = subspan_linalg::par_gram(&values, d);
        let factor = cholesky(&Mat::from_fn(d, d, |i, j| one(i, j) + c * gram[(i, j)]))?;
        gemm::mul(rows, d, &weight(&factor), d, &mut gradient);
        factor
    };
    Ok((factor.log_det(), gradient))
}

/// Entries of a packed symmetric matrix.
fn packed_len(d: usize) -> usize {
    d * (d + 1) / 2
}

/// Upper triangles of `z zᵀ`, one row each; entries off the diagonal times `off`.
fn outer_products<T: Real>(rows: &[T], d: usize, off: f64) -> Vec<T> {
    let p = packed_len(d);
    let off = T::from_f64(off);
    let mut out = vec![T::default(); rows.len() / d * p];
    out.par_chunks_mut(p).zip(rows.par_chunks(d)).for_each(|(out, z)| {
        let mut at = 0;
        for i in 0..d {
            out[at] = z[i] * z[i];
            let scaled = z[i] * off;
            out[at + 1..at + d - i].iter_mut().zip(&z[i + 1..]).for_each(|(o, v)| *o = scaled * *v);
            at += d - i;
        }
    });
    out
}

/// `R`, `Rc` and the gradient of `R − Rc` for unit rows of `d` values and a membership (`B x B`, column `j` the cluster seen from
/// row `j`). Cost: `3 B² d (d+1)` flop and `2 B d (d+1)/2` stored values besides the results.
///
/// # Errors
/// [`Error::Linalg`] for values that are not finite.
///
/// # Panics
/// If the shapes do not fit each other, or `eps2` is not positive.
///
/// ```
/// use subspan::cluster::rate::{Columns, rate_gradient};
/// // Memberships of one row each: every Rc is that of a single unit vector.
/// let z = [1.0, 0.0, 0.0, 1.0];
/// let g = rate_gradient(&z, 2, &[1.0, 0.0, 0.0, 1.0], 0.1, Columns::Unit)?;
/// assert!((g.rates.parts - 21f64.ln()).abs() < 1e-12);
/// # Ok::<(), subspan::Error>(())
/// ```
pub fn rate_gradient<T: Real>(
    rows: &[T],
    d: usize,
    membership: &[T],
    eps2: f64,
    columns: Columns,
) -> Result<Gradient<T>> {
    let n = rows.len() / d;
    assert!(membership.len() == n * n, "a square membership");
    let (whole, mut gradient) = whole_rate(rows, d, eps2)?;
    let (p, c) = (packed_len(d), d as f64 / eps2);
    let outer = outer_products(rows, d, 1.0);
    let mut packed = vec![T::default(); n * p];
    gemm::transposed_mul(membership, n, &outer, p, &mut packed);
    let weights: Vec<f64> = match columns {
        Columns::Unit => vec![1.0; n],
        Columns::Sums => {
            (0..n).map(|j| (0..n).map(|i| membership[i * n + j].to_f64()).sum::<f64>() + COLUMN_FLOOR).collect()
        }
    };
    // M_j makes way for W_j = c (I + (c/t) M)⁻¹.
    let parts: Vec<Result<(f64, f64)>> = packed
        .par_chunks_mut(p)
        .zip(&weights)
        .map(|(m, t)| {
            let h = unpack(m, d, c / t);
            let factor = cholesky(&h)?;
            let inverse = factor.inverse();
            let trace: f64 = (0..d).map(|i| inverse[(i, i)]).sum();
            let mut at = 0;
            for i in 0..d {
                for j in i..d {
                    m[at] = T::from_f64(c * inverse[(i, j)]);
                    at += 1;
                }
            }
            let log_det = factor.log_det();
            // d(t logdet)/dt at fixed M.
            Ok((t * log_det, log_det - (d as f64 - trace)))
        })
        .collect();
    let (mut sum, mut by_weight) = (0.0, Vec::with_capacity(n));
    for part in parts {
        let (value, slope) = part?;
        sum += value;
        by_weight.push(slope);
    }
    let scale = T::from_f64(-2.0 / n as f64);
    // dRc/dz_i = (2/B) (Σ_j γ_ij W_j) z_i, in tiles of rows.
    gradient.par_chunks_mut(TILE * d).zip(rows.par_chunks(TILE * d)).zip(membership.par_chunks(TILE * n)).for_each(
        |((gradient, rows), membership)| {
            let mut v = vec![T::default(); membership.len() / n * p];
            gemm::mul(membership, n, &packed, p, &mut v);
            for ((g, z), v) in gradient.chunks_exact_mut(d).zip(rows.chunks_exact(d)).zip(v.chunks_exact(p)) {
                add_packed_product(v, z, scale, g);
            }
        },
    );
    // dRc/dγ_ij = z_iᵀ W_j z_i / B: the products of P with doubled off-diagonal entries and W.
    drop(outer);
    let doubled = outer_products(rows, d, 2.0);
    let mut by_membership = vec![T::default(); n * n];
    gemm::mul_transposed(&doubled, &packed, p, &mut by_membership);
    by_membership.par_chunks_mut(n).for_each(|row| {
        for (g, slope) in row.iter_mut().zip(&by_weight) {
            let own = if columns == Columns::Sums { *slope } else { 0.0 };
            *g = T::from_f64(-(g.to_f64() + own) / n as f64);
        }
    });
    Ok(Gradient { rates: Rates { whole, parts: sum / n as f64 }, rows: gradient, membership: by_membership })
}

/// Rows of the gradient per task.
const TILE: usize = 64;
/// Keeps the weight of an empty column positive.
const COLUMN_FLOOR: f64 = 1e-8;

/// `I + scale · M` of a packed `M`.
fn unpack<T: Real>(packed: &[T], d: usize, scale: f64) -> Mat {
    let mut out = Mat::zeros(d, d);
    let mut at = 0;
    for i in 0..d {
        for j in i..d {
            let v = scale * packed[at].to_f64() + if i == j { 1.0 } else { 0.0 };
            out[(i, j)] = v;
            out[(j, i)] = v;
            at += 1;
        }
    }
    out
}

/// `out += scale · V z` for a packed symmetric `V`.
fn add_packed_product<T: Real>(v: &[T], z: &[T], scale: T, out: &mut [T]) {
    let d = z.len();
    let mut at = 0;
    for i in 0..d {
        let row = &v[at..at + d - i];
        let mut own = row[0] * z[i];
        let from = scale * z[i];
        for (k, w) in row.iter().enumerate().skip(1) {
            own += *w * z[i + k];
            out[i + k] += from * *w;
        }
        out[i] += scale * own;
        at += d - i;
    }
}

/// The gradient with respect to the rows before they were brought to length one: `(g − (g·z) z) / length`.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn before_unit<T: Real>(gradient: &mut [T], unit_rows: &[T], d: usize, lengths: &[f64]) {
    assert!(gradient.len() == unit_rows.len() && lengths.len() * d == gradient.len(), "one length per row");
    for ((g, z), length) in gradient.chunks_exact_mut(d).zip(unit_rows.chunks_exact(d)).zip(lengths) {
        let along: f64 = g.iter().zip(z).map(|(g, z)| g.to_f64() * z.to_f64()).sum();
        g.iter_mut().zip(z).for_each(|(g, z)| *g = T::from_f64((g.to_f64() - along * z.to_f64()) / length));
    }
}

/// Checks that a squared precision makes sense.
///
/// # Errors
/// [`Error::Parameter`].
pub fn check_precision(eps2: f64) -> Result<()> {
    if eps2 > 0.0 && eps2.is_finite() { Ok(()) } else { Err(Error::parameter("eps2", eps2, "a positive number")) }
}

#[cfg(test)]
mod tests;
