//! A trained head against the projection: what codes held-out rows in fewer bits is kept.

use super::candidates::{Recipe, Space};
use super::choice::{Contest, GRAPHS, TRIAL_STARTS};
use super::coding;
use super::learn::{Head, Learner, Problem};
use super::neighbours::{Affinity, Search};
use super::outcome::{Learned, Outcome};
use super::run::{DIRECTIONS, Job};
use crate::draw::Stream;
use crate::error::Result;
use crate::observe;

/// Most rows held out to judge a trained head, and most rows it is trained on.
const HELD_ROWS: usize = 2000;
const LEARN_ROWS: usize = 6000;
/// Nearest rows of which one is a row's second view.
const VIEWS: usize = 10;

/// Rows a head is trained on, and those it is judged by.
struct Split {
    /// Which rows are held out.
    held: Vec<bool>,
    trained_on: Vec<usize>,
    /// Those and the held-out ones.
    judged: Vec<usize>,
}

impl Split {
    fn new(n: usize, seed: u64) -> Self {
        let order = Stream::new(seed, "held out").rng(0).permutation(n);
        let n_held = (n / 5).clamp(1, HELD_ROWS);
        let mut held = vec![false; n];
        order[..n_held].iter().for_each(|i| held[*i] = true);
        let mut trained_on = order[n_held..n.min(n_held + LEARN_ROWS)].to_vec();
        trained_on.sort_unstable();
        let mut judged = [&order[..n_held], &trained_on[..]].concat();
        judged.sort_unstable();
        Self { held, trained_on, judged }
    }
}

fn gather<T: Copy>(from: &[T], d: usize, which: &[usize]) -> Vec<T> {
    which.iter().flat_map(|i| &from[i * d..(i + 1) * d]).copied().collect()
}

impl Job<'_> {
    /// Trains a head and keeps it if its clusters code held-out rows in fewer bits than the projection's.
    pub(crate) fn learned(&self, projected: Outcome, clusters: usize, learner: &dyn Learner) -> Result<Outcome> {
        observe::phase(self.observer, "learn", None);
        let Split { held, trained_on, judged } = Split::new(self.features.n_rows(), self.seed);
        let transform = self.sources[0].principal.transform(DIRECTIONS, 0.0);
        let p = transform.n_out();
        let rows = transform.apply(self.features.values());
        let own = gather(&rows, p, &trained_on);
        let search = Search { rows: &own, n_cols: p, affinity: &Affinity::Cosine, weights: &[] };
        let near = search.nearest(&own, &[], VIEWS, true);
        let judged_rows = gather(&rows, p, &judged);
        let judged_mass = gather(&self.mass, 1, &judged);
        let judged_coded = gather(&self.coded.0, self.coded.1, &judged);
        let judged_held = gather(&held, 1, &judged);
        let clusters_judged = clusters.min(judged.len() - 1);
        let mut snapshots = Vec::new();
        let mut judge = |head: &Head| -> Result<f64> {
            let space = Space::learned(&transform, head, &judged_rows, &judged_mass, GRAPHS[0].0);
            let tie = self.tie(&space, GRAPHS[0], clusters_judged)?;
            let labels = self.partition(&space, &tie, Recipe::Spectral, clusters_judged, TRIAL_STARTS).labels;
            let (rows, d) = (&judged_coded, self.coded.1);
            let length = coding::held_out_length(rows, d, &judged_mass, &labels, clusters_judged, &judged_held)?;
            observe::metric(self.observer, "held-out bits", length);
            snapshots.push(length);
            Ok(length)
        };
        let weights = match self.features.weights() {
            Some(_) => gather(&self.mass, 1, &trained_on),
            None => Vec::new(),
        };
        let problem =
            Problem { rows: &own, n_cols: p, weights: &weights, neighbours: &near.index, k: near.k, seed: self.seed };
        let head = learner.learn(&problem, &mut judge)?;
        let largest = self.graphs().iter().map(|g| g.0).max().unwrap_or(1);
        let mut contest = Contest::default();
        let space = Space::learned(&transform, &head, &rows, &self.mass, largest);
        self.enter(space, clusters, &[Recipe::Spectral], &mut contest, 1)?;
        let trained = self.finish(contest, clusters, projected.summary.count.clone())?;
        self.better(projected, trained, clusters, &held, snapshots)
    }

    /// The one of fewer bits, which also reports the other.
    fn better(
        &self,
        mut projected: Outcome,
        mut trained: Outcome,
        clusters: usize,
        held: &[bool],
        snapshots: Vec<f64>,
    ) -> Result<Outcome> {
        let bits = |outcome: &Outcome| {
            coding::held_out_length(&self.coded.0, self.coded.1, &self.mass, &outcome.labels, clusters, held)
        };
        let (held_out, projection_held_out) = (bits(&trained)?, bits(&projected)?);
        let kept = held_out < projection_held_out;
        let other = if kept { &projected } else { &trained };
        let mut ranks: Vec<usize> = other.clusters.iter().map(|c| c.subspace.dim()).collect();
        ranks.sort_unstable();
        let learned = Learned {
            kept,
            held_out,
            projection_held_out,
            snapshots,
            other_rank: ranks[ranks.len() / 2],
            other_labels: other.labels.clone(),
        };
        if kept {
            trained.summary.chosen += projected.summary.candidates.len();
            trained.summary.candidates.splice(0..0, std::mem::take(&mut projected.summary.candidates));
            trained.summary.learned = Some(learned);
            return Ok(trained);
        }
        projected.summary.warnings.push(format!(
            "the trained head codes held-out rows in {held_out:.2} bits, the projection in {projection_held_out:.2}: the projection is kept"
        ));
        projected.summary.candidates.append(&mut trained.summary.candidates);
        projected.summary.learned = Some(learned);
        Ok(projected)
    }
}
