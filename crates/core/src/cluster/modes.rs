//! Clusters as peaks of density with valleys between them, whatever their sizes.
//!
//! A cut through a large cluster leaves few of its edges, fewer than a small cluster loses where it truly ends, so scores of edges
//! cut large clusters and give small ones away. Density does not fall at such a cut. Every row climbs to the densest of its neighbours; peaks
//! are joined in the order of the saddles between them, and what a peak rises above the saddle at which it is joined to a higher one is its
//! prominence (Chazal, Guibas, Oudot, Skraba, "Persistence-based clustering in Riemannian manifolds", 2013).

use super::neighbours::{Affinity, Search};

/// Neighbours whose mean distance says how dense a place is, and those among them that a row may climb to.
const DENSITY: usize = 15;
const STEPS: usize = 10;
/// Rows of a peak that is more than an accident.
const FEWEST_ROWS: usize = 5;

/// Of contrasts.
const LARGEST: f64 = 1000.0;

/// A partition into so many peaks.
#[derive(Debug)]
pub(crate) struct Modes {
    pub(crate) labels: Vec<u32>,
    /// Prominence of the least of the peaks over that of the next, which is none: how clearly there are that many.
    pub(crate) contrast: f64,
    /// Whether no path leads from one to another.
    pub(crate) apart: bool,
}

/// A peak that is joined to a higher one.
struct Joint {
    prominence: f64,
    lower: usize,
    higher: usize,
}

/// The `clusters` most prominent peaks of unit rows (`n x d`); nothing if there are fewer, or more that no path joins. Densities are
/// logarithms of inverse mean distances, so prominence does not depend on the scale. They are those of the rows that are there: weights of a
/// sample change little from a row to those near it, and hence neither peaks nor valleys.
pub(crate) fn modes(points: &[f32], d: usize, clusters: usize) -> Option<Modes> {
    let n = points.len() / d;
    let near = Search { rows: points, n_cols: d, affinity: &Affinity::Cosine, weights: &[] }.nearest(
        points,
        &[],
        DENSITY.min(n.saturating_sub(1)),
        true,
    );
    if near.k == 0 {
        return None;
    }
    let density: Vec<f64> = near.affinity.chunks_exact(near.k).map(log_density).collect();
    let steps: Vec<&[u32]> = near.index.chunks_exact(near.k).map(|row| &row[..STEPS.min(near.k)]).collect();
    let landscape = Landscape::new(&density, &steps);
    landscape.peaks(clusters)
}

/// Unit rows of affinity `a` are `√(2 − 2a)` apart.
fn log_density(affinity: &[f32]) -> f64 {
    // Single precision does not tell nearer rows apart.
    let distances = affinity.iter().map(|a| (2.0 - 2.0 * f64::from(*a)).max(1e-7).sqrt());
    -(distances.sum::<f64>() / affinity.len() as f64).ln()
}

/// Rows by the peak that they climb to, and the joints between peaks.
struct Landscape {
    /// The peak above each row.
    peak: Vec<usize>,
    /// In the order in which the water falls.
    joints: Vec<Joint>,
    /// Highest peaks of pieces that no path joins.
    highest: Vec<usize>,
}

impl Landscape {
    /// Steps lead to near rows, and back.
    fn new(density: &[f64], steps: &[&[u32]]) -> Self {
        let n = density.len();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| density[*b].total_cmp(&density[*a]).then(a.cmp(b)));
        let mut rank = vec![0; n];
        order.iter().enumerate().for_each(|(r, i)| rank[*i] = r);
        // For every row the denser ones next to it, in whichever direction the step leads.
        let mut denser = vec![Vec::new(); n];
        for (i, row) in steps.iter().enumerate() {
            for j in row.iter().map(|j| *j as usize) {
                let (low, high) = if rank[i] > rank[j] { (i, j) } else { (j, i) };
                denser[low].push(high);
            }
        }
        let (mut peak, mut joined, mut size): (Vec<usize>, Vec<usize>, _) =
            ((0..n).collect(), (0..n).collect(), vec![0; n]);
        let mut joints = Vec::new();
        for i in order {
            let Some(best) = denser[i].iter().copied().min_by_key(|j| rank[*j]) else {
                size[i] = 1;
                continue;
            };
            peak[i] = peak[best];
            let mut own = root(&mut joined, best);
            joined[i] = own;
            size[own] += 1;
            for j in &denser[i] {
                let other = root(&mut joined, *j);
                if other == own {
                    continue;
                }
                let (lower, higher) = if rank[own] > rank[other] { (own, other) } else { (other, own) };
                let rise = density[lower] - density[i];
                joints.push(Joint { prominence: if size[lower] < FEWEST_ROWS { 0.0 } else { rise }, lower, higher });
                joined[lower] = higher;
                size[higher] += size[lower];
                own = higher;
            }
        }
        let highest = (0..n).filter(|i| joined[*i] == *i).collect();
        Self { peak, joints, highest }
    }

    fn peaks(&self, clusters: usize) -> Option<Modes> {
        let mut by_prominence: Vec<&Joint> = self.joints.iter().collect();
        by_prominence.sort_by(|a, b| b.prominence.total_cmp(&a.prominence));
        // Peaks that no path joins are all clusters, and as clear as can be.
        let needed = clusters.checked_sub(self.highest.len())?;
        let next = by_prominence.get(needed).map_or(0.0, |j| j.prominence);
        let contrast = match needed.checked_sub(1) {
            None => LARGEST,
            Some(last) => {
                let least = by_prominence.get(last).map(|j| j.prominence).filter(|p| *p > 0.0)?;
                least / next.max(least / LARGEST)
            }
        };
        let mut named: Vec<usize> = (0..self.peak.len()).collect();
        // A peak's name is that of the peak it is joined to, unless it stays one.
        by_prominence[needed..].iter().for_each(|j| named[j.lower] = j.higher);
        let mut kept: Vec<usize> =
            self.highest.iter().copied().chain(by_prominence[..needed].iter().map(|j| j.lower)).collect();
        kept.sort_unstable();
        let labels = self.peak.iter().map(|p| {
            let mut at = *p;
            while named[at] != at {
                at = named[at];
            }
            kept.partition_point(|k| *k < at) as u32
        });
        Some(Modes { labels: labels.collect(), contrast, apart: needed == 0 })
    }
}

/// The peak that a row is joined to so far; paths on the way are halved.
fn root(joined: &mut [usize], mut i: usize) -> usize {
    while joined[i] != i {
        joined[i] = joined[joined[i]];
        i = joined[i];
    }
    i
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::agreement;
    use crate::cluster::prepare::to_unit;
    use crate::draw::Stream;

    #[test]
    fn a_line_has_the_peaks_that_its_saddles_leave() {
        let density = [1.0, 3.0, 2.0, 5.0, 4.9, 5.5, 0.5, 2.5, 0.1];
        let steps: Vec<Vec<u32>> = (0..9u32).map(|i| if i < 8 { vec![i + 1] } else { vec![] }).collect();
        let steps: Vec<&[u32]> = steps.iter().map(Vec::as_slice).collect();
        let landscape = Landscape::new(&density, &steps);
        assert_eq!(landscape.highest, [5]);
        let tops: Vec<(usize, usize)> = landscape.joints.iter().map(|j| (j.lower, j.higher)).collect();
        assert_eq!(tops, [(3, 5), (1, 5), (7, 5)]);
        assert_eq!(landscape.peak, [1, 1, 3, 3, 5, 5, 5, 7, 7]);
        // Of peaks this small none counts.
        assert!(landscape.joints.iter().all(|j| j.prominence == 0.0));
        assert!(landscape.peaks(2).is_none());
    }

    #[test]
    fn a_long_dense_cluster_and_two_small_ones_are_three_peaks() {
        let mut rng = Stream::new(3, "long").rng(0);
        let (mut points, mut truth) = (Vec::new(), Vec::new());
        for i in 0..660 {
            // Most rows along a quarter of a circle, densest in its middle; thirty at either of two places.
            let class = if i < 600 { 0 } else { 1 + (i - 600) / 30 };
            let along = 0.4 * rng.normal();
            let mut row = match class {
                0 => vec![along.cos(), along.sin(), 0.0, 0.0],
                1 => vec![0.0, 0.0, 1.0, 0.0],
                _ => vec![0.0, 0.0, 0.0, 1.0],
            };
            row.iter_mut().for_each(|v| *v += 0.2 * rng.normal());
            points.extend(row.iter().map(|v| *v as f32));
            truth.push(class as u32);
        }
        points.chunks_exact_mut(4).for_each(to_unit);
        let found = modes(&points, 4, 3).unwrap();
        assert!(agreement(&found.labels, &truth).accuracy > 0.99, "{}", agreement(&found.labels, &truth).accuracy);
        assert!(found.contrast > 1.2, "{}", found.contrast);
        assert!(modes(&points, 4, 600).is_none());
    }
}
