//! What a run hands back.

use std::hash::{DefaultHasher, Hash, Hasher};

use rayon::prelude::*;
use serde::Serialize;

use super::coding;
use super::count::Count;
use super::describe::Cluster;
use super::graph::Membership;
use super::model::Model;
use super::prepare::Features;
use super::run::Job;
use crate::draw::Stream;
use crate::error::Result;

/// A clustering and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Labels new rows.
    pub model: Model,
    /// One per row, numbered by decreasing size (by weight, where rows have weights): what [`Model::predict`] says of the training rows.
    pub labels: Vec<u32>,
    /// Share of the votes for each row's label.
    pub confidence: Vec<f32>,
    /// The unit rows in which clusters are subspaces, `n x p`.
    pub representation: Vec<f32>,
    /// `p`.
    pub n_dims: usize,
    /// Which rows belong together, and how much; rows sum to one or, where rows have weights, to their weight over its mean.
    pub membership: Membership,
    /// Every cluster, in the order of labels.
    pub clusters: Vec<Cluster>,
    /// Figures of the run.
    pub summary: Summary,
    /// If a head was trained, what was not kept: the projection or the trained head.
    pub other: Option<Box<Outcome>>,
    /// Rows without direction that were left out, ascending.
    pub left_out: Vec<usize>,
}

/// A way to a partition that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// How rows were prepared.
    pub preparation: String,
    /// What counted as near.
    pub affinity: String,
    /// Neighbours per row of the graph.
    pub neighbours: usize,
    /// How the graph became points.
    pub recipe: String,
    /// Mutual information across edges, nats. The largest is chosen, where that of closed clusters counts up to three times, unless peaks of
    /// density win.
    pub information: f64,
    /// Of peaks of density: how far the last rises above the next, as a ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<f64>,
    /// Where there are peaks of density: share of the entropy of labels that is information across the edges of all preparations but least squares, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<f64>,
    /// There, too: mean NMI with other partitions, of peaks with peaks and of others with others. The largest sum of both says which win.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Its labels of the rows that were clustered, before neighbours vote.
    #[serde(skip)]
    pub labels: Vec<u32>,
}

/// Figures of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Index of the candidate chosen.
    pub chosen: usize,
    /// All candidates.
    pub candidates: Vec<Candidate>,
    /// The choice of the number of clusters; `None` if it was given.
    pub count: Option<Count>,
    /// Coding length of the labels, bits per row.
    pub coding_length: f64,
    /// Leading eigenvalues of the membership.
    pub eigenvalues: Vec<f64>,
    /// `exp` of the mean entropy of the membership's rows.
    pub effective_support: f64,
    /// Share of the rows' mass that lies on no edge but on the background, spread over all other rows.
    pub background: f64,
    /// Products that the scaling took, and how far row sums are from one.
    pub scaling_products: usize,
    /// Largest deviation of a row sum from one.
    pub scaling_error: f64,
    /// Rows that vote.
    pub anchors: usize,
    /// Share of training rows whose label is that of the partition which the anchors got.
    pub anchor_agreement: f64,
    /// How many rows of equal weight say as much: the number of rows where all weigh the same.
    pub effective_rows: f64,
    /// Rows without direction that were left out and labelled like new rows.
    pub left_out: usize,
    /// The trained head beside the projection, if one was trained.
    pub learned: Option<Learned>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A trained head against the projection, and what rows look like in either and in the final representation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Learned {
    /// Whether the head's clusters have the smaller code lengths, both of them, and tell no less across edges, and so what was kept.
    pub kept: bool,
    /// Why.
    pub because: &'static str,
    /// Held-out code length of its clusters, bits per row.
    pub held_out: f64,
    /// That of the projection's clusters.
    pub projection_held_out: f64,
    /// Coding length of its clusters, bits per row.
    pub coding_length: f64,
    /// That of the projection's clusters.
    pub projection_coding_length: f64,
    /// Information across edges of near rows that its clusters tell, nats, on the rows it was trained on; if the projection's clusters are peaks
    /// of density, its share of the entropy of the labels.
    pub information: f64,
    /// That of the projection's clusters.
    pub projection_information: f64,
    /// Held-out code length of every head that was looked at during training, on the rows it was trained on and held-out ones.
    pub snapshots: Vec<f64>,
    /// The head's own features.
    pub trained: Shape,
    /// The rows as the projection prepared them.
    pub projection: Shape,
    /// The representation trained for the clusters that are kept.
    pub linear: Shape,
}

/// How linear and how spread a representation is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shape {
    /// Values per row.
    pub dimensions: usize,
    /// Middle rank of the clusters: directions that carry 95 % of the squares of their rows.
    pub rank: usize,
    /// The same of all rows together: near `rank` if the representation collapsed.
    pub rank_of_all: usize,
}

impl Outcome {
    /// The outcome for all rows of `features`, of which only `kept` were clustered: the others are labelled like new rows, have no
    /// direction in the representation and no membership.
    pub(crate) fn with_rows_left_out(
        mut self,
        features: &Features<'_>,
        kept: &[usize],
        left_out: &[usize],
    ) -> Result<Self> {
        let (n, d, p) = (features.n_rows(), features.n_cols(), self.n_dims);
        let values: Vec<f32> = left_out.iter().flat_map(|i| &features.values()[i * d..(i + 1) * d]).copied().collect();
        let strangers = self.model.predict(&Features::new(&values, d)?, false)?;
        let (mut labels, mut confidence, mut rows) = (vec![0u32; n], vec![0f32; n], vec![0f32; n * p]);
        let (mut lengths, mut spread) = (vec![0usize; n], vec![0.0; n]);
        for (at, i) in kept.iter().enumerate() {
            (labels[*i], confidence[*i]) = (self.labels[at], self.confidence[at]);
            rows[i * p..(i + 1) * p].copy_from_slice(&self.representation[at * p..(at + 1) * p]);
            lengths[*i] = self.membership.row(at).0.len();
            spread[*i] = self.membership.spread[at];
        }
        for (at, i) in left_out.iter().enumerate() {
            (labels[*i], confidence[*i]) = (strangers.labels[at], strangers.confidence[at]);
        }
        // Rows keep their order, so the entries do.
        let mut offsets = vec![0];
        offsets.extend(lengths.iter().scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        }));
        let columns = self.membership.columns.iter().map(|j| kept[*j as usize] as u32).collect();
        self.membership = Membership { offsets, columns, values: self.membership.values, spread };
        let mass = features.mass();
        let members = coding::members(&labels, self.clusters.len());
        let total: f64 = mass.iter().sum();
        for (cluster, members) in self.clusters.iter_mut().zip(&members) {
            cluster.medoid = cluster.medoid.map(|i| kept[i]);
            cluster.size = members.len();
            cluster.share = members.iter().map(|i| mass[*i]).sum::<f64>() / total;
        }
        let names = by_size(&labels, &mass, self.clusters.len());
        let renamed = labels.iter_mut().chain(&mut self.model.labels);
        renamed.for_each(|l| *l = names[*l as usize]);
        let mut named: Vec<(u32, Cluster)> = names.into_iter().zip(self.clusters).collect();
        named.sort_by_key(|(name, _)| *name);
        self.clusters = named.into_iter().map(|(_, cluster)| cluster).collect();
        (self.labels, self.confidence, self.representation) = (labels, confidence, rows);
        self.other = match self.other.take() {
            Some(other) => Some(Box::new(other.with_rows_left_out(features, kept, left_out)?)),
            None => None,
        };
        self.summary.left_out = left_out.len();
        self.left_out = left_out.to_vec();
        self.summary.warnings.push(match left_out.len() {
            1 => "1 row has no direction: it was left out, and is labelled like a new row".into(),
            count => format!("{count} rows have no direction: they were left out, and are labelled like new rows"),
        });
        Ok(self)
    }
}

/// Mean absolute cosine of rows above which they hardly differ in direction.
const ALIGNED: f64 = 0.7;
/// Share of the mass on no edge above which the graph hardly says which rows belong together.
const LOOSE: f64 = 0.25;
/// Pairs of rows whose cosine is looked at.
const PAIRS: usize = 4096;
/// Share of rows that are copies of others above which they distort the graph: mutual pairs bind each other alone.
const COPIES: f64 = 0.01;

impl Job<'_> {
    /// Warns of what a user should know; `rows` are the unit rows of the winner, `p` values each.
    pub(crate) fn warn(&self, summary: &mut Summary, clusters: &[Cluster], converged: bool, rows: &[f32], p: usize) {
        let n = self.features.n_rows();
        let mut warn = |text: String| summary.warnings.push(text);
        if !converged {
            warn(format!("the membership is not doubly stochastic: row sums are off by {:.1e}", summary.scaling_error));
        }
        let copies = copies(self.features) as f64 / n as f64;
        if copies > COPIES {
            warn(format!(
                "{:.1} % of the rows are copies of others and pull their clusters together: keep one of each and give it their number as its weight",
                100.0 * copies
            ));
        }
        let aligned = mean_cosine(rows, p, self.seed);
        if aligned > ALIGNED {
            warn(format!(
                "rows point along one line even after centring (mean absolute cosine {aligned:.2}): one direction outweighs all others"
            ));
        }
        if summary.background > LOOSE {
            warn(format!(
                "{:.0} % of what ties rows lies on no edge: the graph has too few neighbours, or rows are too far apart",
                100.0 * summary.background
            ));
        } else if summary.effective_support < 5.0 {
            warn(format!(
                "each row is tied to {:.1} others only: the graph may fall apart into more pieces than clusters",
                summary.effective_support
            ));
        }
        if summary.effective_support > 0.5 * n as f64 {
            warn("the graph ties rows to most others alike (few rows, or rows that look alike): there may be no clusters".into());
        }
        let empty = clusters.iter().filter(|c| c.size == 0).count();
        if empty > 0 {
            warn(format!(
                "of {} clusters {} rows: those nearest to theirs are others'. Ask for fewer clusters",
                clusters.len(),
                if empty == 1 { "1 has no".into() } else { format!("{empty} have no") }
            ));
        }
        let smallest = clusters.iter().map(|c| c.size).min().unwrap_or(0);
        if smallest < 5 * self.coded.1 && summary.count.as_ref().is_some_and(|c| c.by == "coding length") {
            warn(format!("the smallest cluster has {smallest} rows: coding length favours few clusters then"));
        }
        if summary.count.as_ref().is_some_and(Count::faint) {
            warn("clusters overlap so much that their number is uncertain: set it with --clusters K".into());
        }
        if let Some(count) = &summary.count
            && count.curve.last().is_some_and(|t| t.clusters == count.clusters)
        {
            warn(format!("{} clusters is the most that was tried: --max-clusters raises it", count.clusters));
        }
        if summary.anchor_agreement < 0.97 {
            warn(format!(
                "{:.1} % of the rows change their cluster when their neighbours vote: the clusters overlap",
                100.0 * (1.0 - summary.anchor_agreement)
            ));
        }
        if self.features.n_cols() <= 2 {
            warn("rows of one or two raw coordinates have no subspaces to find: embed them first".into());
        }
    }
}

/// Rows that equal an earlier one.
fn copies(features: &Features<'_>) -> usize {
    let mut hashes: Vec<u64> = features
        .values()
        .par_chunks(features.n_cols())
        .map(|row| {
            let mut hasher = DefaultHasher::new();
            // Adding zero makes -0 into 0, which equals it.
            row.iter().for_each(|v| (v + 0.0).to_bits().hash(&mut hasher));
            hasher.finish()
        })
        .collect();
    hashes.par_sort_unstable();
    hashes.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

/// The mean absolute cosine of drawn pairs of unit rows.
fn mean_cosine(rows: &[f32], p: usize, seed: u64) -> f64 {
    let n = (rows.len() / p) as u64;
    let mut rng = Stream::new(seed, "pairs").rng(0);
    let mut sum = 0.0;
    for _ in 0..PAIRS {
        let [i, j] = [rng.below(n), (1 + rng.below(n - 1))];
        let [a, b] = [i, (i + j) % n].map(|i| &rows[i as usize * p..(i as usize + 1) * p]);
        sum += a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>().abs();
    }
    sum / PAIRS as f64
}

/// The new name of every label: by decreasing mass, ties by the smallest row.
pub(crate) fn by_size(labels: &[u32], mass: &[f64], clusters: usize) -> Vec<u32> {
    let members = coding::members(labels, clusters);
    let sizes: Vec<f64> = members.iter().map(|m| m.iter().map(|i| mass[*i]).sum()).collect();
    let mut order: Vec<usize> = (0..clusters).collect();
    order.sort_by(|a, b| {
        let first = |c: usize| members[c].first().copied().unwrap_or(usize::MAX);
        sizes[*b].total_cmp(&sizes[*a]).then(first(*a).cmp(&first(*b)))
    });
    let mut names = vec![0; clusters];
    order.iter().zip(0..).for_each(|(c, name)| names[*c] = name);
    names
}
