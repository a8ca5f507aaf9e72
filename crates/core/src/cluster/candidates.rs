//! Ways to a partition, and the label-free score that chooses between them.

use super::config::AffinityKind;
use rayon::prelude::*;

use super::eigen::{self, Operator, Pairs};
use super::graph::{self, Membership, Scaled};
use super::join::Edges;
use super::learn::Head;
use super::neighbours::{Affinity, Neighbours, Search};
use super::prepare::{Features, Preparation, Principal, Transform, to_unit};
use super::pursuit::{Own, pursue};
use super::represent;
use crate::error::{Error, Result};

/// Prepared rows and their neighbours.
pub(crate) struct Space {
    /// What was done with the rows, for users.
    pub(crate) name: String,
    pub(crate) transform: Transform,
    pub(crate) affinity: Affinity,
    pub(crate) metric: Option<Vec<f32>>,
    pub(crate) head: Option<Head>,
    /// Unit rows, `n x p`.
    pub(crate) rows: Vec<f32>,
    /// Rows whose products are taken; the unit rows themselves unless there is a metric.
    images: Option<Vec<f32>>,
    weights: Vec<f32>,
    /// One per row, one on average.
    mass: Vec<f64>,
    /// As many as the largest graph needs.
    pub(crate) neighbours: Neighbours,
}

/// Rows beyond which wide rows are projected first, so that the search for neighbours stays affordable.
const WIDE_ROWS: usize = 20_000;
/// Columns that such rows keep.
const WIDE_COLUMNS: usize = 128;

/// Columns beyond which rows are projected anyway.
const MAX_COLUMNS: usize = 512;
/// Columns that rows keep for self-representation, where a matrix of that side is decomposed.
const REPRESENTED_COLUMNS: usize = 256;

/// The preparation of rows as they come.
fn plain(n_rows: usize, n_cols: usize, affinity: AffinityKind) -> Preparation {
    let limit = match affinity {
        AffinityKind::LeastSquares => REPRESENTED_COLUMNS,
        _ if n_rows > WIDE_ROWS => WIDE_COLUMNS,
        _ if n_cols > MAX_COLUMNS => REPRESENTED_COLUMNS,
        _ => usize::MAX,
    };
    Preparation::Centered((n_cols > limit).then_some(limit))
}

/// The preparations worth a try: as they come, and with the leading directions toned down. Least squares tones them down itself.
pub(crate) fn preparations(n_rows: usize, n_cols: usize, affinity: AffinityKind) -> Vec<Preparation> {
    if affinity == AffinityKind::Pursuit {
        return vec![Preparation::Uncentered((n_cols > REPRESENTED_COLUMNS).then_some(REPRESENTED_COLUMNS))];
    }
    let mut all = vec![plain(n_rows, n_cols, affinity)];
    // With few columns there is no tail of directions to bring forward.
    if n_cols > 8 && affinity != AffinityKind::LeastSquares {
        all.push(Preparation::Whitened(50.min(n_cols), 0.5));
        all.push(Preparation::Whitened(100.min(n_cols), 1.0));
    }
    all
}

impl Space {
    /// Prepares rows, with `unit_first` brought to length one before anything else, and finds their neighbours; directions are those of such rows.
    pub(crate) fn new(
        features: &Features<'_>,
        mass: &[f64],
        unit_first: bool,
        preparation: Preparation,
        principal: &Principal,
        affinity: AffinityKind,
        k: usize,
    ) -> Result<Self> {
        let mut transform = match preparation {
            Preparation::Centered(Some(p)) => principal.transform(p, 0.0),
            Preparation::Whitened(p, power) => principal.transform(p, power),
            Preparation::Centered(None) => Transform { unit_first, center: principal.mean.clone(), map: None },
            Preparation::Uncentered(limit) => Transform {
                unit_first,
                center: vec![0.0; principal.mean.len()],
                map: limit.and_then(|p| principal.transform(p, 0.0).map),
            },
        };
        transform.unit_first = unit_first;
        let rows = transform.apply(features.values());
        let p = transform.n_out();
        check_lengths(&rows, p)?;
        let (metric, images, weights) = match affinity {
            AffinityKind::LeastSquares => {
                let metric = represent::metric(&rows, p, mass)?;
                let images = represent::images(&rows, p, &metric);
                let weights = represent::weights(&images, p);
                (Some(metric), Some(images), weights)
            }
            _ => (None, None, Vec::new()),
        };
        let affinity = match affinity {
            AffinityKind::Cosine => Affinity::Cosine,
            AffinityKind::Absolute => Affinity::Absolute,
            AffinityKind::LeastSquares => Affinity::Weighted,
            AffinityKind::Pursuit => Affinity::Pursuit,
        };
        let own = images.as_ref().unwrap_or(&rows);
        let search = Search { rows: own, n_cols: p, affinity: &affinity, weights: &weights };
        let neighbours = match affinity {
            Affinity::Pursuit => pursue(&search, own, k, Own::Same),
            _ => search.nearest(own, &weights, k, true),
        };
        let name = if unit_first { format!("unit rows, {preparation}") } else { preparation.to_string() };
        let mass = mass.to_vec();
        Ok(Self { name, transform, affinity, metric, head: None, rows, images, weights, mass, neighbours })
    }

    /// The space of a trained head on unit rows: its features, tied by the absolute cosines of its cluster rows.
    pub(crate) fn learned(transform: &Transform, head: &Head, rows: &[f32], mass: &[f64], k: usize) -> Self {
        let (rows, images) = (head.representation(rows), head.cluster_rows(rows));
        let search = Search { rows: &images, n_cols: head.n_clusters(), affinity: &Affinity::Absolute, weights: &[] };
        let neighbours = search.nearest(&images, &[], k, true);
        Self {
            name: "trained head".into(),
            transform: transform.clone(),
            affinity: Affinity::Absolute,
            metric: None,
            head: Some(head.clone()),
            rows,
            images: Some(images),
            weights: Vec::new(),
            mass: mass.to_vec(),
            neighbours,
        }
    }

    /// Of every row, one on average.
    pub(crate) fn mass(&self) -> &[f64] {
        &self.mass
    }

    /// Values of a row of the representation.
    pub(crate) fn n_rows_out(&self) -> usize {
        self.head.as_ref().map_or(self.transform.n_out(), Head::n_features)
    }

    /// Values of an image.
    pub(crate) fn n_image(&self) -> usize {
        self.head.as_ref().map_or(self.transform.n_out(), Head::n_clusters)
    }

    pub(crate) fn images(&self) -> &[f32] {
        self.images.as_ref().unwrap_or(&self.rows)
    }

    /// The graph of the `k` nearest rows, scaled.
    pub(crate) fn graph(&self, k: usize, perplexity: f64, seed: u64) -> Scaled {
        let (d, rows) = (self.n_image(), self.images());
        let affinity_of = |i: usize, j: usize| {
            let pairs = rows[i * d..(i + 1) * d].iter().zip(&rows[j * d..(j + 1) * d]);
            let product: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            match self.affinity {
                Affinity::Cosine => product.max(0.0),
                Affinity::Absolute => product.abs(),
                // Rows that a pursuit did not choose have no coefficient.
                Affinity::Pursuit => 0.0,
                Affinity::Weighted => 0.5 * product.abs() * f64::from(self.weights[i] + self.weights[j]),
            }
        };
        graph::scaled(&truncated(&self.neighbours, k), perplexity, &affinity_of, &self.mass, seed)
    }

    /// So many nearest rows of each.
    pub(crate) fn nearest(&self, k: usize) -> Neighbours {
        truncated(&self.neighbours, k)
    }

    /// Edges between clusters in the graph of the 10 nearest rows, by whose information partitions of the same points into so many
    /// clusters are compared. Coefficients of a pursuit differ by orders of magnitude; near rows are about equally near.
    pub(crate) fn edges(&self, labels: &[u32], clusters: usize) -> Edges {
        edges(&self.nearest(SCORED_NEIGHBOURS), &self.mass, self.affinity == Affinity::Pursuit, labels, clusters)
    }

    /// The same in the graph by which partitions of different points are compared, if that is another one. Where clusters are small, further
    /// rows are often of other ones: a sixteenth of a cluster's rows count then, at least four.
    pub(crate) fn near_edges(&self, labels: &[u32], clusters: usize) -> Option<Edges> {
        let another =
            self.affinity != Affinity::Pursuit && compared_neighbours(labels.len(), clusters) < SCORED_NEIGHBOURS;
        another.then(|| near_edges(&self.neighbours, &self.mass, labels, clusters))
    }
}

/// Edges between clusters in the graph by which partitions of different points are compared, of nearest rows in a space.
pub(crate) fn near_edges(near: &Neighbours, mass: &[f64], labels: &[u32], clusters: usize) -> Edges {
    edges(&truncated(near, compared_neighbours(labels.len(), clusters)), mass, false, labels, clusters)
}

/// Neighbours whose labels are compared between partitions of different points.
pub(crate) fn compared_neighbours(n_rows: usize, clusters: usize) -> usize {
    (n_rows / (COMPARED_SHARE * clusters)).clamp(FEWEST_NEIGHBOURS, SCORED_NEIGHBOURS)
}

/// Edges between clusters in a graph of nearest rows, each as heavy as its row or, if `weighted`, its affinity times that.
pub(crate) fn edges(near: &Neighbours, mass: &[f64], weighted: bool, labels: &[u32], clusters: usize) -> Edges {
    let mut counts = vec![0.0; clusters * clusters];
    for (i, (index, affinity)) in near.index.chunks_exact(near.k).zip(near.affinity.chunks_exact(near.k)).enumerate() {
        for (j, a) in index.iter().zip(affinity) {
            let weight = if weighted { f64::from(*a) } else { 1.0 };
            let edge = 0.5 * weight * mass[i];
            let (r, s) = (labels[i] as usize, labels[*j as usize] as usize);
            counts[r * clusters + s] += edge;
            counts[s * clusters + r] += edge;
        }
    }
    Edges::new(counts, clusters)
}

/// Neighbours whose labels are compared at most, ...
pub(crate) const SCORED_NEIGHBOURS: usize = 10;
/// ... and in small clusters: which share of a cluster, and how many at least.
const COMPARED_SHARE: usize = 16;
const FEWEST_NEIGHBOURS: usize = 4;

/// Rows of length zero cannot be brought to length one.
fn check_lengths(rows: &[f32], p: usize) -> Result<()> {
    let zero: Vec<u64> =
        rows.chunks_exact(p).enumerate().filter(|(_, r)| r.iter().all(|v| *v == 0.0)).map(|(i, _)| i as u64).collect();
    match zero.len() {
        0 => Ok(()),
        n if n * p == rows.len() => Err(Error::Constant),
        count => Err(Error::ZeroRows { count, first: zero.into_iter().take(5).collect() }),
    }
}

fn truncated(neighbours: &Neighbours, k: usize) -> Neighbours {
    let k = k.min(neighbours.k);
    Neighbours {
        k,
        index: neighbours.index.chunks_exact(neighbours.k).flat_map(|r| r[..k].iter().copied()).collect(),
        affinity: neighbours.affinity.chunks_exact(neighbours.k).flat_map(|r| r[..k].iter().copied()).collect(),
    }
}

/// How a graph becomes points to cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// Rows of its leading eigenvectors, brought to length one.
    Spectral,
    /// The unit rows, each replaced twice by the mean of its neighbours.
    Smoothed,
    /// Rows of twice as many eigenvectors as clusters, for peaks of density instead of k-means.
    Modes,
    /// The same of all graphs side by side.
    ModesOfAll,
}

impl std::fmt::Display for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spectral => "spectral",
            Self::Smoothed => "smoothed",
            Self::Modes => "density peaks",
            Self::ModesOfAll => "density peaks of all graphs",
        })
    }
}

/// Relative residual of eigenvectors: k-means does not see less.
const EIGEN_TOLERANCE: f64 = 1e-4;

/// A membership `Γ` of rows of any mass `m` as the matrix `diag(m)^(−½) Γ diag(m)^(−½)`, whose eigenvalues are in `[−1, 1]`. Its
/// eigenvectors are those of the random walk along `Γ`, row `i` times `√m_i`.
struct Balanced<'a> {
    membership: &'a Membership,
    inverse_root: Vec<f64>,
}

impl Operator for Balanced<'_> {
    fn side(&self) -> usize {
        self.membership.n_rows()
    }

    fn apply(&self, x: &[f64], width: usize, out: &mut [f64]) {
        let mut scaled = x.to_vec();
        let scale = |rows: &mut [f64]| {
            rows.par_chunks_mut(width)
                .zip(&self.inverse_root)
                .for_each(|(row, s)| row.iter_mut().for_each(|v| *v *= s));
        };
        scale(&mut scaled);
        self.membership.apply(&scaled, width, out);
        scale(out);
    }
}

/// The leading eigenpairs of a membership, balanced by the mass of its rows.
pub(crate) fn spectrum(membership: &Membership, mass: &[f64], count: usize, seed: u64) -> Result<Pairs> {
    let count = count.min(membership.n_rows());
    if mass.iter().all(|m| *m == 1.0) {
        return eigen::largest(membership, count, -1.0, EIGEN_TOLERANCE, seed);
    }
    let balanced = Balanced { membership, inverse_root: mass.iter().map(|m| m.sqrt().recip()).collect() };
    eigen::largest(&balanced, count, -1.0, EIGEN_TOLERANCE, seed)
}

/// Unit rows of the first `k` eigenvectors.
pub(crate) fn spectral_points(pairs: &Pairs, k: usize) -> Vec<f32> {
    let width = pairs.values.len();
    let mut points: Vec<f32> =
        pairs.vectors.chunks_exact(width).flat_map(|row| row[..k].iter().map(|v| *v as f32)).collect();
    points.chunks_exact_mut(k).for_each(to_unit);
    points
}

/// Unit rows after two steps of averaging over neighbours.
pub(crate) fn smoothed_points(membership: &Membership, rows: &[f32], p: usize) -> Vec<f32> {
    let mut points = rows.to_vec();
    for _ in 0..2 {
        let x: Vec<f64> = points.iter().map(|v| f64::from(*v)).collect();
        let mut out = vec![0.0; x.len()];
        membership.apply(&x, p, &mut out);
        points = out.into_iter().map(|v| v as f32).collect();
        points.chunks_exact_mut(p).for_each(to_unit);
    }
    points
}
