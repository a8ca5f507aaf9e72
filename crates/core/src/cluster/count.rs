//! How many clusters: coding length and stability over a grid.

use serde::Serialize;

use super::coding::coding_length;
use super::kmeans::kmeans;
use super::score::nmi;
use crate::error::{Error, Result};
use crate::observe::{Event, Observer};

/// One number of clusters that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tried {
    /// Number of clusters.
    pub clusters: usize,
    /// Coding length, bits per row; lower is better.
    pub bits: f64,
    /// Mean agreement (normalised mutual information) of differently started k-means; higher is better.
    pub stability: f64,
}

/// The choice of the number of clusters.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Count {
    /// What was chosen.
    pub clusters: usize,
    /// Numbers that the data do not tell apart from it, the smallest and the largest.
    pub interval: [usize; 2],
    /// `coding length` or `stability`.
    pub by: &'static str,
    /// Everything that was tried.
    pub curve: Vec<Tried>,
}

/// The numbers to try: all small ones, then steps of 12 %.
pub(crate) fn grid(largest: usize) -> Vec<usize> {
    let mut grid = vec![2];
    while let Some(last) = grid.last().copied().filter(|l| *l < largest) {
        grid.push((last + 1).max((last as f64 * 1.12).round() as usize).min(largest));
    }
    grid
}

/// Starts of k-means whose agreement is the stability.
const STARTS: usize = 4;

/// Scores numbers of clusters; `points(k)` gives the rows to cluster and their width, `rows` (unit, `n x p`) are what is coded.
pub(crate) fn curve(
    grid: &[usize],
    points: &dyn Fn(usize) -> (Vec<f32>, usize),
    rows: &[f32],
    p: usize,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Vec<Tried>> {
    let mut curve = Vec::with_capacity(grid.len());
    for k in grid {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let (points, width) = points(*k);
        let runs = kmeans(&points, width, *k, STARTS, seed);
        let mut agreement = Vec::new();
        for (i, a) in runs.iter().enumerate() {
            agreement.extend(runs[..i].iter().map(|b| nmi(&a.labels, &b.labels)));
        }
        let stability = agreement.iter().sum::<f64>() / agreement.len() as f64;
        let best = runs.iter().fold(&runs[0], |best, r| if r.inertia < best.inertia { r } else { best });
        curve.push(Tried { clusters: *k, bits: coding_length(rows, p, &best.labels, *k)?, stability });
        observer.event(Event::Advance { steps: 1 });
    }
    Ok(curve)
}

/// Numbers whose coding length is within this share of the least are not told apart by it.
const CODING_MARGIN: f64 = 0.015;

/// Chooses from a curve.
pub(crate) fn choose(curve: Vec<Tried>) -> Count {
    let best = curve.iter().fold(curve[0], |best, t| if t.bits < best.bits { *t } else { best });
    let near: Vec<usize> =
        curve.iter().filter(|t| t.bits <= (1.0 + CODING_MARGIN) * best.bits).map(|t| t.clusters).collect();
    let interval = [near[0], near[near.len() - 1]];
    Count { clusters: best.clusters, interval, by: "coding length", curve }
}
