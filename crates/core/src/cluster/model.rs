//! A clustering that labels new rows: training rows vote.

use std::borrow::Cow;

use rayon::prelude::*;

use super::backbone::Backbone;
use super::gaussians::Gaussians;
use super::graph::{log_kernel, temperature};
use super::learn::{self, Layer};
use super::neighbours::{Affinity, Search};
use super::prepare::{Features, Transform};
use super::pursuit::{Own, pursue};
use super::scatter::Scattering;
use crate::error::{Error, Result};

/// A clustering as a function of a row: what predictions need, and nothing else.
///
/// A row is prepared like the training rows, its nearest anchors are found, and each gives its cluster the kernel value between
/// the two times its doubly stochastic scaling: the row's membership in the graph of the anchors. The label of a row does
/// not depend on which rows come with it. A row that is itself an anchor has no vote of its own. After a pursuit, where neighbours
/// of subspaces that fill the space are often wrong, a row belongs to the cluster whose Gaussian codes it in the fewest nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Number of clusters; labels are below it.
    pub clusters: usize,
    /// From images to the features that follow, if rows are images.
    pub front: Option<Front>,
    /// From rows to unit rows.
    pub transform: Transform,
    /// How products become affinities.
    pub affinity: Affinity,
    /// From unit rows to rows whose products are taken, `q x p`, and the regularised leverage it implies; for
    /// [`Affinity::Weighted`] only.
    pub metric: Option<Vec<f32>>,
    /// Trained layers from unit rows to images, in place of the metric.
    pub head: Option<Vec<Layer>>,
    /// Trained layers from unit rows to the rows in which clusters are subspaces.
    pub linear: Option<Vec<Layer>>,
    /// Anchors: images of training rows.
    pub anchors: Vec<f32>,
    /// The cluster of each anchor.
    pub labels: Vec<u32>,
    /// `ln u` of each anchor.
    pub log_scale: Vec<f64>,
    /// Temperature of each anchor.
    pub temperature: Vec<f64>,
    /// Affinity of each anchor to its nearest row.
    pub top: Vec<f64>,
    /// Weight of each anchor in the Gaussians of a pursuit, if they do not weigh alike.
    pub anchor_mass: Option<Vec<f64>>,
    /// Voters per row.
    pub neighbours: usize,
    /// Effective number of voters.
    pub perplexity: f64,
}

/// What turns an image into features.
#[derive(Debug, Clone, PartialEq)]
pub enum Front {
    /// Wavelets: nothing is trained.
    Scattering(Scattering),
    /// A network trained on the images.
    Backbone(Backbone),
}

impl Front {
    /// Values of an image.
    pub fn n_in(&self) -> usize {
        match self {
            Self::Scattering(scattering) => scattering.image().iter().product(),
            Self::Backbone(backbone) => backbone.image().iter().product(),
        }
    }

    /// Features of an image.
    pub fn n_out(&self) -> usize {
        match self {
            Self::Scattering(scattering) => scattering.n_out(),
            Self::Backbone(backbone) => backbone.n_out(),
        }
    }

    /// Features of images, one row each; each independent of the others.
    ///
    /// # Panics
    /// If `images` does not hold whole images.
    pub fn apply(&self, images: &[f32]) -> Vec<f32> {
        match self {
            Self::Scattering(scattering) => scattering.apply(images),
            Self::Backbone(backbone) => backbone.apply(images),
        }
    }
}

/// What a model says of rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predictions {
    /// The cluster with the largest share of the votes, or the largest probability.
    pub labels: Vec<u32>,
    /// That share.
    pub confidence: Vec<f32>,
    /// Shares of all clusters, `n x clusters`; empty unless asked for.
    pub shares: Vec<f32>,
    /// One minus the affinity to the nearest anchor (at most one; by least squares, relative to that anchor's own nearest row): 0 where
    /// training rows are, 1 orthogonal to all of them, and for a row without direction.
    pub strangeness: Vec<f32>,
}

/// Rows labelled at a time: bounds the memory of the images.
const ROWS: usize = 1 << 13;

impl Model {
    /// Values of a row.
    pub fn n_cols(&self) -> usize {
        self.front.as_ref().map_or(self.transform.center.len(), Front::n_in)
    }

    /// Values of an image whose products are taken.
    pub fn n_out(&self) -> usize {
        match (&self.head, &self.metric) {
            (Some(layers), _) => layers.last().map_or(0, Layer::n_out),
            (None, Some(metric)) => metric.len() / self.transform.n_out(),
            (None, None) => self.transform.n_out(),
        }
    }

    /// What every row's neighbours vote for; with `shares`, all of it. Cost: `2 n_anchors n_out` flop per row.
    ///
    /// # Errors
    /// [`Error::Shape`] if the rows do not have the model's number of columns.
    pub fn predict(&self, features: &Features<'_>, shares: bool) -> Result<Predictions> {
        self.check(features)?;
        let gaussians = self.gaussians()?;
        let mut out = Predictions::default();
        for values in features.values().chunks(ROWS * self.n_cols()) {
            let part = self.vote(&self.images(&self.unit_rows(values)), gaussians.as_ref(), shares);
            out.labels.extend(part.labels);
            out.confidence.extend(part.confidence);
            out.shares.extend(part.shares);
            out.strangeness.extend(part.strangeness);
        }
        Ok(out)
    }

    /// The rows in which clusters are subspaces, unit: those that layers were trained for, or those that were clustered; `n x n_represented`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the rows do not have the model's number of columns.
    pub fn represent(&self, features: &Features<'_>) -> Result<Vec<f32>> {
        self.check(features)?;
        let of = |values: &[f32]| match (self.unit_rows(values), &self.linear) {
            (unit, Some(layers)) => learn::apply(layers, &unit),
            (unit, None) => unit,
        };
        Ok(features.values().chunks(ROWS * self.n_cols()).flat_map(of).collect())
    }

    /// Values of a row of [`represent`](Self::represent).
    pub fn n_represented(&self) -> usize {
        self.linear.as_ref().and_then(|l| l.last()).map_or(self.transform.n_out(), Layer::n_out)
    }

    /// Whether rows have the model's number of columns.
    fn check(&self, features: &Features<'_>) -> Result<()> {
        match features.n_cols() {
            found if found == self.n_cols() => Ok(()),
            found => Err(Error::Shape { what: "a row", found, expected: self.n_cols() }),
        }
    }

    /// Rows as they are clustered, before the head or the metric.
    fn unit_rows(&self, values: &[f32]) -> Vec<f32> {
        match &self.front {
            Some(front) => self.transform.apply(&front.apply(values)),
            None => self.transform.apply(values),
        }
    }

    /// Images of unit rows under the head or the metric.
    fn images(&self, rows: &[f32]) -> Vec<f32> {
        match (&self.head, &self.metric) {
            (Some(layers), _) => learn::apply(layers, rows),
            (None, None) => rows.to_vec(),
            (None, Some(metric)) => super::represent::images(rows, self.transform.n_out(), metric),
        }
    }

    /// The Gaussians of the anchors, which label rows after a pursuit.
    ///
    /// # Errors
    /// For anchors that are not finite.
    fn gaussians(&self) -> Result<Option<Gaussians>> {
        if self.affinity != Affinity::Pursuit {
            return Ok(None);
        }
        let alike = || Cow::Owned(vec![1.0; self.labels.len()]);
        let mass = self.anchor_mass.as_deref().map_or_else(alike, Cow::Borrowed);
        Gaussians::new(&self.anchors, self.n_out(), &mass, &self.labels, self.clusters).map(Some)
    }

    /// Labels of images and their shares alone: strangeness takes a pursuit of its own where Gaussians label.
    ///
    /// # Errors
    /// As [`Model::gaussians`].
    pub(crate) fn label(&self, images: &[f32]) -> Result<(Vec<u32>, Vec<f32>)> {
        Ok(if let Some(gaussians) = self.gaussians()? {
            let (labels, confidence, _) = gaussians.choose(images, false);
            (labels, confidence)
        } else {
            let Predictions { labels, confidence, .. } = self.vote(images, None, false);
            (labels, confidence)
        })
    }

    /// The votes on images; what [`Model::gaussians`] say instead, where there are any.
    fn vote(&self, images: &[f32], gaussians: Option<&Gaussians>, shares: bool) -> Predictions {
        let q = self.n_out();
        let weights = |rows: &[f32]| match self.affinity {
            Affinity::Weighted => super::represent::weights(rows, q),
            _ => Vec::new(),
        };
        let anchor_weights = weights(&self.anchors);
        let search = Search { rows: &self.anchors, n_cols: q, affinity: &self.affinity, weights: &anchor_weights };
        // One more than needed: a row that is an anchor is left out of its own vote.
        let near = match self.affinity {
            Affinity::Pursuit => pursue(&search, images, self.neighbours, Own::Equal),
            _ => search.nearest(images, &weights(images), self.neighbours + 1, false),
        };
        let ballots: Vec<Ballot> = near
            .index
            .par_chunks(near.k)
            .zip(near.affinity.par_chunks(near.k))
            .zip(images.par_chunks(q))
            .map(|((index, affinity), row)| self.ballot(index, affinity, row))
            .collect();
        let mut out = Predictions::default();
        for ballot in ballots {
            let (label, most) = ballot.winner();
            out.labels.push(label);
            out.confidence.push(most as f32);
            out.strangeness.push(1.0 - ballot.nearest.min(1.0));
            if shares {
                let from = out.shares.len();
                out.shares.resize(from + self.clusters, 0.0);
                ballot.votes.iter().for_each(|(label, share)| out.shares[from + *label as usize] = *share as f32);
            }
        }
        if let Some(gaussians) = gaussians {
            (out.labels, out.confidence, out.shares) = gaussians.choose(images, shares);
        }
        out
    }

    fn ballot(&self, index: &[u32], affinity: &[f32], row: &[f32]) -> Ballot {
        let q = row.len();
        if row.iter().all(|v| *v == 0.0) {
            // No direction, no opinion.
            let share = 1.0 / self.clusters as f64;
            return Ballot { votes: (0..self.clusters as u32).map(|label| (label, share)).collect(), nearest: 0.0 };
        }
        let own = index.iter().position(|i| self.anchors[*i as usize * q..(*i as usize + 1) * q] == *row);
        let voters: Vec<(usize, f32)> = index
            .iter()
            .zip(affinity)
            .enumerate()
            .filter(|(slot, _)| Some(*slot) != own)
            .map(|(_, (i, a))| (*i as usize, *a))
            .take(self.neighbours)
            .collect();
        let Some((first, nearest)) = voters.first().copied() else {
            // A single anchor, asked about itself.
            return Ballot { votes: vec![(self.labels[index[0] as usize], 1.0)], nearest: 1.0 };
        };
        let near: Vec<f32> = voters.iter().map(|v| v.1).collect();
        let (eta, top) = (temperature(&near, self.perplexity), f64::from(nearest));
        // Votes may be far below one everywhere: only their ratios count.
        let logs: Vec<f64> = voters
            .iter()
            .map(|(i, a)| {
                log_kernel(f64::from(*a), [eta, self.temperature[*i]], [top, self.top[*i]]) + self.log_scale[*i]
            })
            .collect();
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut votes: Vec<(u32, f64)> = Vec::new();
        for ((i, _), log) in voters.iter().zip(&logs) {
            let vote = (log - largest).exp();
            match votes.iter_mut().find(|(label, _)| *label == self.labels[*i]) {
                Some((_, sum)) => *sum += vote,
                None => votes.push((self.labels[*i], vote)),
            }
        }
        let total: f64 = votes.iter().map(|v| v.1).sum();
        votes.iter_mut().for_each(|v| v.1 /= total);
        let nearest = match self.affinity {
            // Coefficients are small where there are many rows: near is what is as near as that anchor's own nearest row.
            Affinity::Weighted => (f64::from(nearest) / self.top[first].max(f64::MIN_POSITIVE)) as f32,
            _ => nearest,
        };
        Ballot { votes, nearest }
    }
}

/// One row's votes.
struct Ballot {
    /// Share of every cluster that has one, that of the nearest anchor first.
    votes: Vec<(u32, f64)>,
    /// Affinity to the nearest anchor; of coefficients, relative to that anchor's own largest.
    nearest: f32,
}

impl Ballot {
    /// The first of equals is the cluster of the nearer anchor, whatever its number.
    fn winner(&self) -> (u32, f64) {
        self.votes.iter().fold(self.votes[0], |best, v| if v.1 > best.1 { *v } else { best })
    }
}
