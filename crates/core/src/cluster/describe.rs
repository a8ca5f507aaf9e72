//! What a cluster looks like: its subspace, its spectrum, its typical row.

use rayon::prelude::*;
use subspan_linalg::{Mat, eigh, par_weighted_gram};

use super::coding::members;
use super::graph::Membership;
use crate::error::Result;
use crate::subspace::Subspace;

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Rows of the cluster.
    pub size: usize,
    /// Share of the mass of all rows that its rows have; the share of rows where all weigh the same.
    pub share: f64,
    /// The leading directions of its unit rows, as many as carry 95 % of their squares.
    pub subspace: Subspace,
    /// Shares of the squares along its leading directions, descending.
    pub spectrum: Vec<f64>,
    /// The row that holds the most mass of the cluster's other rows; `None` if it has no rows.
    pub medoid: Option<usize>,
    /// Mean confidence of its rows.
    pub confidence: f64,
}

/// Share of the squares that the numerical rank carries.
const SHARE: f64 = 0.95;
/// Rows per cluster from which the subspace is taken, evenly spaced.
const MAX_ROWS: usize = 4096;
/// Values of a spectrum that are kept.
const SPECTRUM: usize = 32;

/// Describes clusters of unit rows (`n x p`) of given mass.
pub(crate) fn describe(
    rows: &[f32],
    p: usize,
    mass: &[f64],
    labels: &[u32],
    clusters: usize,
    confidence: &[f32],
    membership: &Membership,
) -> Result<Vec<Cluster>> {
    let total_mass: f64 = mass.iter().sum();
    members(labels, clusters)
        .par_iter()
        .map(|members| {
            let step = members.len().div_ceil(MAX_ROWS).max(1);
            let kept = || members.iter().step_by(step);
            let used: Vec<f64> = kept().flat_map(|i| &rows[i * p..(i + 1) * p]).map(|v| f64::from(*v)).collect();
            let weights: Vec<f64> = kept().map(|i| mass[*i]).collect();
            let (spectrum, basis) = spectrum(used, p, &weights)?;
            let total: f64 = spectrum.iter().sum();
            let rank = carrying(&spectrum);
            let tied = |i: usize| -> f64 {
                let (columns, values) = membership.row(i);
                columns
                    .iter()
                    .zip(values)
                    .filter(|(j, _)| labels[**j as usize] == labels[i])
                    .map(|(_, v)| f64::from(*v))
                    .sum()
            };
            let best = members.iter().map(|i| (tied(*i), *i)).reduce(|a, b| if b.0 > a.0 { b } else { a });
            let own: f64 = members.iter().map(|i| mass[*i]).sum();
            let sum: f64 = members.iter().map(|i| mass[*i] * f64::from(confidence[*i])).sum();
            Ok(Cluster {
                size: members.len(),
                // Of nothing the sum is -0.
                share: own.abs() / total_mass,
                subspace: Subspace::span(&Mat::from_fn(p, rank, |i, j| basis[(i, j)]))?,
                spectrum: spectrum.iter().take(SPECTRUM).map(|v| if total > 0.0 { v / total } else { 0.0 }).collect(),
                medoid: best.map(|b| b.1),
                confidence: if own > 0.0 { sum / own } else { 0.0 },
            })
        })
        .collect()
}

/// Directions that carry 95 % of the squares.
fn carrying(spectrum: &[f64]) -> usize {
    let total: f64 = spectrum.iter().sum();
    let mut carried = 0.0;
    let reached = spectrum.iter().position(|v| {
        carried += v;
        carried >= SHARE * total
    });
    reached.map_or(0, |at| at + 1)
}

/// The rank of all rows together.
pub(crate) fn rank_of_all(rows: &[f32], p: usize, mass: &[f64]) -> Result<usize> {
    let rows = rows.iter().map(|v| f64::from(*v)).collect();
    Ok(carrying(&spectrum(rows, p, mass)?.0))
}

/// Squared singular values of weighted rows, descending, and the right singular vectors as columns.
fn spectrum(mut rows: Vec<f64>, p: usize, weights: &[f64]) -> Result<(Vec<f64>, Mat)> {
    let m = weights.len();
    if m >= p {
        let e = eigh(&par_weighted_gram(&rows, p, weights))?;
        let values = e.values.iter().rev().map(|v| v.max(0.0)).collect();
        return Ok((values, Mat::from_fn(p, p, |i, j| e.vectors[(i, p - 1 - j)])));
    }
    // Fewer rows than columns: the small Gram matrix has the same values.
    rows.chunks_exact_mut(p).zip(weights).for_each(|(row, w)| row.iter_mut().for_each(|v| *v *= w.sqrt()));
    let x = Mat::from_vec(m, p, rows);
    let e = eigh(&x.mul(&x.transpose()))?;
    let values: Vec<f64> = e.values.iter().rev().map(|v| v.max(0.0)).collect();
    let v = x.transpose().mul(&Mat::from_fn(m, m, |i, j| e.vectors[(i, m - 1 - j)]));
    let lengths: Vec<f64> = values.iter().map(|v| v.sqrt().max(f64::MIN_POSITIVE)).collect();
    Ok((values, Mat::from_fn(p, m, |i, j| v[(i, j)] / lengths[j])))
}
