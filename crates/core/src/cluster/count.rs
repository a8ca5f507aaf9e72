//! How many clusters: coding length and stability over a grid.

use serde::Serialize;

use super::coding::coding_length;
use super::kmeans::kmeans;
use super::score;
use crate::error::{Error, Result};
use crate::observe::{Event, Observer};

/// One number of clusters that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tried {
    /// Number of clusters.
    pub clusters: usize,
    /// Coding length, bits per row; lower is better.
    pub bits: f64,
    /// Coding length with half as many components.
    pub coarse_bits: f64,
    /// Mean agreement (adjusted Rand index) of differently started k-means; higher is better.
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

/// Scores numbers of clusters; `points(k)` gives the rows to cluster and their width, `coded` are unit rows to be coded, with
/// their widths: all components and half of them; `mass` says what each row counts.
pub(crate) fn curve(
    grid: &[usize],
    points: &dyn Fn(usize) -> (Vec<f32>, usize),
    coded: [&(Vec<f32>, usize); 2],
    mass: &[f64],
    seed: u64,
    observer: &dyn Observer,
) -> Result<Vec<Tried>> {
    let mut curve = Vec::with_capacity(grid.len());
    for k in grid {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let (points, width) = points(*k);
        let runs = kmeans(&points, width, mass, *k, STARTS, seed);
        let mut agreement = Vec::new();
        for (i, a) in runs.iter().enumerate() {
            agreement.extend(runs[..i].iter().map(|b| score::agreement(&a.labels, &b.labels).ari));
        }
        let stability = agreement.iter().sum::<f64>() / agreement.len() as f64;
        let best = runs.iter().fold(&runs[0], |best, r| if r.inertia < best.inertia { r } else { best });
        let [bits, coarse_bits] = coded.map(|(rows, p)| coding_length(rows, *p, mass, &best.labels, *k));
        curve.push(Tried { clusters: *k, bits: bits?, coarse_bits: coarse_bits?, stability });
        observer.event(Event::Advance { steps: 1 });
    }
    Ok(curve)
}

/// Numbers whose coding length is within this share of the least are not told apart by it.
const CODING_MARGIN: f64 = 0.015;

/// Rows per component that a cluster needs for its coding length not to favour few clusters.
const ROWS_PER_COMPONENT: usize = 5;

/// Chooses from a curve over `n_rows` rows coded with `components`: the least coding length. Where that leaves fewer than five rows
/// per component and cluster, the description of a cluster outweighs its rows and the least length asks for too few clusters. Half as
/// many components say then which numbers are not told apart, and the middle (on a logarithmic scale) between the least length
/// and the largest of them is taken.
pub(crate) fn choose(curve: Vec<Tried>, n_rows: usize, components: usize) -> Count {
    let fine = least(&curve, |t| t.bits);
    if n_rows >= ROWS_PER_COMPONENT * components * fine.0 {
        return Count { clusters: fine.0, interval: fine.1, by: "coding length", curve };
    }
    let coarse = least(&curve, |t| t.coarse_bits);
    let middle = ((coarse.0 * coarse.1[1]) as f64).sqrt();
    let off = |t: &Tried| (t.clusters as f64 / middle).ln().abs();
    let nearest = curve.iter().fold(&curve[0], |best, t| if off(t) < off(best) { t } else { best });
    let interval = [fine.1[0].min(coarse.1[0]), coarse.1[1]];
    Count { clusters: nearest.clusters, interval, by: "coding length of fewer components", curve }
}

/// The number of least length, and the smallest and largest one not told apart from it.
fn least(curve: &[Tried], length: impl Fn(&Tried) -> f64) -> (usize, [usize; 2]) {
    let best = curve.iter().fold(&curve[0], |best, t| if length(t) < length(best) { t } else { best });
    let near = |t: &&Tried| length(t) <= (1.0 + CODING_MARGIN) * length(best);
    let numbers: Vec<usize> = curve.iter().filter(near).map(|t| t.clusters).collect();
    (best.clusters, [numbers[0], numbers[numbers.len() - 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_ascending_and_ends_at_the_largest() {
        for largest in [2, 3, 17, 200] {
            let grid = grid(largest);
            assert!(grid.windows(2).all(|w| w[0] < w[1]) && grid[0] == 2 && grid[grid.len() - 1] == largest);
        }
    }

    #[test]
    fn small_clusters_are_judged_with_fewer_components_and_taken_above_the_least() {
        let tried = |clusters, bits, coarse_bits| Tried { clusters, bits, coarse_bits, stability: 1.0 };
        let curve = vec![
            tried(2, 10.0, 10.0),
            tried(4, 9.0, 9.0),
            tried(8, 9.1, 8.0),
            tried(11, 9.5, 8.02),
            tried(16, 10.0, 8.1),
            tried(32, 11.0, 9.0),
        ];
        let many = choose(curve.clone(), 10_000, 64);
        assert_eq!((many.clusters, many.interval), (4, [4, 8]));
        let few = choose(curve, 100, 64);
        assert_eq!((few.clusters, few.interval), (11, [4, 16]));
    }
}
