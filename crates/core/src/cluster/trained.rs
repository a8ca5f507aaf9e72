//! A trained head against the projection: it is kept if its clusters code rows in clearly fewer bits, held out or not, and tell no less across
//! edges. The clusters kept then get a representation of their own.

use std::borrow::Cow;

use super::candidates::{self, Recipe, Space};
use super::choice::{Contest, GRAPHS, TRIAL_STARTS};
use super::config::AffinityKind;
use super::learn::{self, Head, Layer, Learner, Problem};
use super::model::Model;
use super::neighbours::{Affinity, Neighbours, Search};
use super::outcome::{Learned, Outcome, Shape};
use super::pursuit::{Own, pursue};
use super::run::Job;
use super::{coding, describe, represent};
use crate::draw::Stream;
use crate::error::Result;
use crate::observe;

/// Most rows held out to judge a trained head, and most rows it is trained on.
const HELD_ROWS: usize = 2000;
const LEARN_ROWS: usize = 8000;
/// Neighbours of which one is a row's second view.
const VIEWS: usize = 10;
/// Share by which both code lengths have to fall: smaller differences do not tell which clusters are better.
const CLEARLY: f64 = 0.01;

/// Rows a head is trained on, and those among them by which it is judged. Training sees the judging rows as the projection does,
/// without labels; code lengths are those of fixed features, which training does not shape.
struct Split {
    /// Which rows are held out of the clusters' code.
    held: Vec<bool>,
    used: Vec<usize>,
}

impl Split {
    fn new(n: usize, seed: u64) -> Self {
        let mut order = Stream::new(seed, "held out").rng(0).permutation(n);
        let n_held = (n / 5).clamp(1, HELD_ROWS);
        let mut held = vec![false; n];
        order[..n_held].iter().for_each(|i| held[*i] = true);
        order.truncate(LEARN_ROWS);
        order.sort_unstable();
        Self { held, used: order }
    }
}

/// The nearest rows of each in the space of a clustering.
fn nearest(model: &Model, rows: &[f32], p: usize, k: usize) -> Neighbours {
    let (images, weights) = match &model.metric {
        Some(metric) => {
            let images = represent::images(rows, p, metric);
            let weights = represent::weights(&images, p);
            (Cow::Owned(images), weights)
        }
        None => (Cow::Borrowed(rows), Vec::new()),
    };
    let search = Search { rows: &images, n_cols: p, affinity: &model.affinity, weights: &weights };
    match model.affinity {
        Affinity::Pursuit => pursue(&search, &images, k, Own::Same),
        _ => search.nearest(&images, &weights, k, true),
    }
}

fn gather<T: Copy>(from: &[T], d: usize, which: &[usize]) -> Vec<T> {
    which.iter().flat_map(|i| &from[i * d..(i + 1) * d]).copied().collect()
}

impl Job<'_> {
    /// Trains a head and keeps it if its clusters code rows in a per cent fewer bits than the projection's, both those held out of
    /// the code and all, and tell as much across edges between near rows (or, against peaks of density, have as large a share kept by them); trains a
    /// representation in which the clusters that are kept are subspaces.
    pub(crate) fn learned(&self, projected: Outcome, clusters: usize, learner: &dyn Learner) -> Result<Outcome> {
        observe::phase(self.observer, "learn", None);
        let Split { held, used } = Split::new(self.features.n_rows(), self.seed);
        // Rows as the projection prepared them, with its neighbours as views: what it chose without labels is what there is to learn.
        let transform = projected.model.transform.clone();
        let p = transform.n_out();
        let rows = transform.apply(self.features.values());
        let own = gather(&rows, p, &used);
        let near = nearest(&projected.model, &own, p, VIEWS);
        let own_mass = gather(&self.mass, 1, &used);
        let coded = gather(&self.coded.0, self.coded.1, &used);
        let own_held = gather(&held, 1, &used);
        let clusters_judged = clusters.min(used.len() - 1);
        let mut snapshots = Vec::new();
        let mut judge = |head: &Head| -> Result<f64> {
            let space = Space::learned(&transform, head, &own, &own_mass, GRAPHS[0].0);
            let tie = self.tie(&space, GRAPHS[0], clusters_judged)?;
            let labels = self.partition(&space, &tie, Recipe::Spectral, clusters_judged, TRIAL_STARTS).labels;
            let length = coding::held_out_length(&coded, self.coded.1, &own_mass, &labels, clusters_judged, &own_held)?;
            observe::metric(self.observer, "held-out bits", length);
            snapshots.push(length);
            Ok(length)
        };
        let weights = match self.features.weights() {
            Some(_) => own_mass.clone(),
            None => Vec::new(),
        };
        let problem =
            Problem { rows: &own, n_cols: p, weights: &weights, neighbours: &near.index, k: near.k, seed: self.seed };
        let head = learner.learn(&problem, &mut judge)?;
        let graphs = self.graphs(clusters);
        let largest = self.searched(&graphs, AffinityKind::Absolute);
        let mut contest = Contest::last(self.config.unequal);
        let space = || Space::learned(&transform, &head, &rows, &self.mass, largest);
        self.enter(space(), clusters, &graphs, &mut contest)?;
        self.let_peaks_win(&mut contest, clusters, |_| Ok(space()))?;
        let trained = self.finish(contest, clusters, projected.summary.count.clone())?;
        let represent = |outcome: &mut Outcome| {
            let layers = learner.linearize(&problem, &gather(&outcome.labels, 1, &used), clusters)?;
            self.represent(outcome, layers, &rows)
        };
        let peaks = projected.summary.candidates[projected.summary.chosen].contrast.is_some();
        let told = [&trained, &projected].map(|outcome| {
            let edges = candidates::near_edges(&near, &own_mass, &gather(&outcome.labels, 1, &used), clusters);
            if peaks { edges.kept() } else { edges.information() }
        });
        self.better(projected, trained, clusters, (&held, snapshots), told, represent)
    }

    /// Gives a clustering a representation of its own clusters: other rows than those by which they were found.
    fn represent(&self, outcome: &mut Outcome, layers: Vec<Layer>, rows: &[f32]) -> Result<()> {
        outcome.representation = learn::apply(&layers, rows);
        outcome.model.linear = Some(layers);
        outcome.n_dims = outcome.model.n_represented();
        let (z, clusters) = (&outcome.representation, outcome.clusters.len());
        let Outcome { labels, confidence, membership, .. } = &*outcome;
        outcome.clusters = describe::describe(z, outcome.n_dims, &self.mass, labels, clusters, confidence, membership)?;
        Ok(())
    }

    /// The one to keep, linearly represented, which also reports the other.
    fn better(
        &self,
        mut projected: Outcome,
        mut trained: Outcome,
        clusters: usize,
        (held, snapshots): (&[bool], Vec<f64>),
        [information, projection_information]: [f64; 2],
        represent: impl FnOnce(&mut Outcome) -> Result<()>,
    ) -> Result<Outcome> {
        let bits = |outcome: &Outcome| {
            coding::held_out_length(&self.coded.0, self.coded.1, &self.mass, &outcome.labels, clusters, held)
        };
        let (held_out, projection_held_out) = (bits(&trained)?, bits(&projected)?);
        let [coding_length, projection_coding_length] = [&trained, &projected].map(|o| o.summary.coding_length);
        let falls = |from: f64, to: f64| from - to > CLEARLY * from.abs();
        let shorter = falls(projection_held_out, held_out) && falls(projection_coding_length, coding_length);
        let kept = shorter && information >= projection_information;
        let shapes = [self.shape(&trained)?, self.shape(&projected)?];
        trained.summary.chosen += projected.summary.candidates.len();
        let candidates = [&projected, &trained].map(|o| o.summary.candidates.as_slice()).concat();
        for side in [&mut projected, &mut trained] {
            side.summary.candidates.clone_from(&candidates);
        }
        let (mut best, other) = if kept { (trained, projected) } else { (projected, trained) };
        let because = match (kept, shorter) {
            (true, _) => "its clusters code rows in one per cent fewer bits and tell no less across edges",
            (false, true) => "the head's clusters tell less across edges",
            (false, false) => "the head's clusters do not code rows in one per cent fewer bits, held out and all",
        };
        represent(&mut best)?;
        best.summary.learned = Some(Learned {
            kept,
            because,
            held_out,
            projection_held_out,
            coding_length,
            projection_coding_length,
            information,
            projection_information,
            snapshots,
            trained: shapes[0],
            projection: shapes[1],
            linear: self.shape(&best)?,
        });
        best.other = Some(Box::new(other));
        Ok(best)
    }

    fn shape(&self, outcome: &Outcome) -> Result<Shape> {
        let mut ranks: Vec<usize> = outcome.clusters.iter().map(|c| c.subspace.dim()).collect();
        ranks.sort_unstable();
        let rank_of_all = describe::rank_of_all(&outcome.representation, outcome.n_dims, &self.mass)?;
        Ok(Shape { dimensions: outcome.n_dims, rank: ranks[ranks.len() / 2], rank_of_all })
    }
}
