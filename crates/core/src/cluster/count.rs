//! How many clusters: coding length, and information across edges against its price, over a grid.

use serde::Serialize;

use super::coding::coding_length;
use super::graph::Membership;
use super::join::{Edges, Joined};
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
    /// Share of the entropy of k-means' clusters that is information across edges of the membership: 1 if no edge is cut.
    pub closed: f64,
    /// Information across edges of the membership, in nats, of a finer partition joined to so many clusters.
    pub information: f64,
    /// Its entropy, in nats: what the information costs, times a price.
    pub entropy: f64,
    /// The information less the price of the entropy; higher is better.
    pub gain: f64,
}

/// The choice of the number of clusters.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Count {
    /// What was chosen.
    pub clusters: usize,
    /// Numbers that the data do not tell apart from it, the smallest and the largest.
    pub interval: [usize; 2],
    /// `coding length`, `coding length of fewer components`, `coding length of overlapping clusters`, `information across edges` or the
    /// same `of five neighbours`.
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

/// What numbers of clusters are judged by.
pub(crate) struct Evidence<'a> {
    /// Unit rows to be coded, with their widths: all components and half of them.
    pub(crate) coded: [&'a (Vec<f32>, usize); 2],
    /// What each row counts.
    pub(crate) mass: &'a [f64],
    pub(crate) membership: &'a Membership,
    /// A partition finer than any number tried, joined.
    pub(crate) joined: &'a Joined,
}

/// Scores numbers of clusters; `points(k)` gives the rows to cluster and their width.
pub(crate) fn curve(
    grid: &[usize],
    points: &dyn Fn(usize) -> (Vec<f32>, usize),
    evidence: &Evidence<'_>,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Vec<Tried>> {
    let Evidence { coded, mass, membership, joined } = evidence;
    let mut curve = Vec::with_capacity(grid.len());
    for k in grid {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let (points, width) = points(*k);
        let runs = kmeans(&points, width, mass, *k, STARTS, seed);
        let mut agreement = Vec::new();
        for (i, a) in runs.iter().enumerate() {
            agreement.extend(runs[..i].iter().map(|b| score::ari(&a.labels, &b.labels)));
        }
        let stability = agreement.iter().sum::<f64>() / agreement.len() as f64;
        let best = runs.iter().fold(&runs[0], |best, r| if r.inertia < best.inertia { r } else { best });
        let [bits, coarse_bits] = coded.map(|(rows, p)| coding_length(rows, *p, mass, &best.labels, *k));
        let edges = Edges::of(membership, &best.labels, *k);
        let closed = edges.kept();
        let (information, entropy) = joined.at(*k);
        let (bits, coarse_bits, gain) = (bits?, coarse_bits?, information - PRICES[1] * entropy);
        curve.push(Tried { clusters: *k, bits, coarse_bits, stability, closed, information, entropy, gain });
        observer.event(Event::Advance { steps: 1 });
    }
    Ok(curve)
}

/// What a nat of entropy must bring in information across edges for a number of clusters to be worth it: the number is chosen at the
/// middle price, its interval goes from the choice at the highest to that at the lowest. Halving a class whose rows are all near each
/// other brings about half a nat, separating two classes nearly all of it.
const PRICES: [f64; 3] = [0.8, 0.75, 0.65];
/// How much what a row tells across its edges varies between rows, in nats: over the root of the number of rows, the error of the mean.
const SPREAD: f64 = 0.7;

impl Tried {
    /// Information less the price of the entropy.
    fn gain(&self, price: f64) -> f64 {
        self.information - price * self.entropy
    }
}

impl Count {
    /// Whether edges hardly see the clusters: they gain less than a third of what they would if no edge left them.
    pub(crate) fn faint(&self) -> bool {
        let counted = self.curve.iter().find(|t| t.clusters == self.clusters);
        let gains_little = |t: &Tried| t.gain < FAINT * (1.0 - PRICES[1]) * t.entropy;
        self.by == OVERLAPPING || self.by.starts_with(INFORMATION) && counted.is_some_and(gains_little)
    }
}

/// Share of the largest gain below which a graph hardly sees clusters.
const FAINT: f64 = 1.0 / 3.0;
/// How a number is chosen where edges leave clusters.
const INFORMATION: &str = "information across edges";
/// How a number is chosen where clusters are small.
const FEWER: &str = "coding length of fewer components";
/// How a number is chosen where edges leave clusters so often that none are worth their price.
const OVERLAPPING: &str = "coding length of overlapping clusters";

/// Share of the entropy that is information where hardly an edge is cut.
const CLOSED: f64 = 0.99;

/// The number whose clusters no edge leaves, by coding length; where there is none, the one whose information across edges is worth
/// the price of its entropy; where none is, the one of least coding length again. Coding length is right where clusters are plain
/// subspaces or curves, which can be cut anywhere at the same small loss, and blind where they are too small for their description.
pub(crate) fn choose(curve: Vec<Tried>, n_rows: usize, components: usize) -> Count {
    let mut coded = by_length(curve, n_rows, components);
    let closed = |t: &&Tried| t.closed >= CLOSED;
    if coded.curve.iter().filter(closed).any(|t| t.clusters == coded.clusters) {
        // Clusters that are closed may hold several that are: too small ones cost less together.
        if coded.by == FEWER
            && let Some(last) = coded.curve.iter().rfind(closed).filter(|t| t.clusters > coded.clusters)
        {
            coded.clusters = last.clusters;
            coded.interval[1] = coded.interval[1].max(last.clusters);
        }
        return coded;
    }
    if coded.curve.iter().all(|t| t.gain <= 0.0) {
        coded.by = OVERLAPPING;
        return coded;
    }
    by_information(coded.curve, n_rows, INFORMATION)
}

/// The number by information across the edges of a graph so narrow that its few edges leave hardly any cluster: whether one is closed
/// says nothing there.
pub(crate) fn narrow(curve: Vec<Tried>, n_rows: usize) -> Count {
    by_information(curve, n_rows, "information across edges of five neighbours")
}

/// The number whose information is worth the price of its entropy.
fn by_information(curve: Vec<Tried>, n_rows: usize, by: &'static str) -> Count {
    let error = SPREAD / (n_rows as f64).sqrt();
    // The smallest number that the error does not tell from the best.
    let first = |price: f64| {
        let most = curve.iter().map(|t| t.gain(price)).fold(f64::NEG_INFINITY, f64::max);
        curve.iter().find(|t| t.gain(price) >= most - error).map_or(curve[0].clusters, |t| t.clusters)
    };
    let [low, clusters, high] = PRICES.map(first);
    Count { clusters, interval: [low.min(clusters), high.max(clusters)], by, curve }
}

/// Numbers whose coding length is within this share of the least are not told apart by it.
const CODING_MARGIN: f64 = 0.015;

/// Rows per component that a cluster needs for its coding length not to favour few clusters.
const ROWS_PER_COMPONENT: usize = 5;

/// Chooses from a curve over `n_rows` rows coded with `components`: the least coding length. Where that leaves fewer than five rows
/// per component and cluster, the description of a cluster outweighs its rows and the least length asks for too few clusters. Half as
/// many components say then which numbers are not told apart, and the middle (on a logarithmic scale) between the least length
/// and the largest of them is taken.
fn by_length(curve: Vec<Tried>, n_rows: usize, components: usize) -> Count {
    let fine = least(&curve, |t| t.bits);
    if n_rows >= ROWS_PER_COMPONENT * components * fine.0 {
        return Count { clusters: fine.0, interval: fine.1, by: "coding length", curve };
    }
    let coarse = least(&curve, |t| t.coarse_bits);
    let middle = ((coarse.0 * coarse.1[1]) as f64).sqrt();
    let off = |t: &Tried| (t.clusters as f64 / middle).ln().abs();
    let nearest = curve.iter().fold(&curve[0], |best, t| if off(t) < off(best) { t } else { best });
    let interval = [fine.1[0].min(coarse.1[0]), coarse.1[1]];
    Count { clusters: nearest.clusters, interval, by: FEWER, curve }
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
        let tried = |clusters, bits, coarse_bits| Tried {
            clusters,
            bits,
            coarse_bits,
            stability: 1.0,
            closed: 1.0,
            information: 0.0,
            entropy: 0.0,
            gain: 0.0,
        };
        let curve = vec![
            tried(2, 10.0, 10.0),
            tried(4, 9.0, 9.0),
            tried(8, 9.1, 8.0),
            tried(11, 9.5, 8.02),
            tried(16, 10.0, 8.1),
            tried(32, 11.0, 9.0),
        ];
        let many = by_length(curve.clone(), 10_000, 64);
        assert_eq!((many.clusters, many.interval), (4, [4, 8]));
        let few = by_length(curve, 100, 64);
        assert_eq!((few.clusters, few.interval), (11, [4, 16]));
    }

    #[test]
    fn clusters_that_edges_leave_are_counted_by_information_at_its_price() {
        // Eight pieces; pairs of them are tied closely, pairs of pairs loosely: four clusters at any price in use.
        let tie = |a: usize, b: usize| match (a == b, a / 2 == b / 2) {
            (true, _) => 10.0,
            (false, true) => 3.0,
            _ => 0.05,
        };
        let edges = Edges::new((0..64).map(|at| tie(at / 8, at % 8)).collect(), 8);
        let joined = Joined::down_to(&edges, 0.5, 1);
        let curve = |closed| -> Vec<Tried> {
            let tried = |clusters| {
                let (information, entropy) = joined.at(clusters);
                let gain = information - PRICES[1] * entropy;
                let (bits, coarse_bits, stability) = (clusters as f64, 1.0, 1.0);
                Tried { clusters, bits, coarse_bits, stability, closed, information, entropy, gain }
            };
            (2..=8).map(tried).collect()
        };
        let open = choose(curve(0.9), 10_000, 64);
        assert_eq!((open.clusters, open.interval, open.by), (4, [4, 4], "information across edges"));
        let closed = choose(curve(1.0), 10_000, 64);
        assert_eq!((closed.clusters, closed.by), (2, "coding length"));
        assert!(!open.faint() && !closed.faint());
    }

    #[test]
    fn clusters_that_overlap_too_much_for_edges_are_counted_by_coding_length() {
        let tried = |(clusters, bits, gain): (usize, f64, f64)| Tried {
            clusters,
            bits,
            coarse_bits: bits,
            stability: 1.0,
            closed: 0.6,
            information: gain + PRICES[1] * 2.0,
            entropy: 2.0,
            gain,
        };
        let curve = |lift: f64| {
            let figures =
                [(2, 10.0, -0.1), (3, 9.5, -0.2), (4, 9.05, -0.3), (5, 9.0, -0.4), (8, 9.1, -0.5), (9, 9.3, -0.6)];
            figures.map(|(k, bits, gain)| tried((k, bits, gain + lift))).to_vec()
        };
        let blind = choose(curve(0.0), 10_000, 64);
        assert_eq!((blind.clusters, blind.interval, blind.by), (5, [4, 8], "coding length of overlapping clusters"));
        let seen = choose(curve(0.15), 10_000, 64);
        assert_eq!((seen.clusters, seen.by), (2, "information across edges"));
        assert!(blind.faint() && seen.faint());
    }
}
