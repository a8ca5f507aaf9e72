//! Clusters as subspaces: labels, how sure they are, how many there are, and a model that labels new rows.
//!
//! The method is doubly stochastic projection of the rows' affinities (Ding, Tong, Chan, Dai, Ma, Haeffele, "Unsupervised
//! manifold linearizing and clustering", ICCV 2023; Lim, Vidal, Haeffele, "Doubly stochastic subspace clustering", 2020) on a graph of
//! exact nearest neighbours with a temperature per row. Its leading eigenvectors, or the rows averaged over their neighbours, are
//! clustered by k-means. Which preparation of the rows, which graph and which of the two is chosen without labels: by the
//! mutual information across the edges of the graph of nearest rows.
//!
//! Long because a run is one story: what is tried, what wins, and what is said of it, read from top to bottom.

mod candidates;
mod coding;
mod config;
mod count;
mod describe;
mod eigen;
mod graph;
mod kmeans;
pub mod learn;
mod model;
mod neighbours;
mod prepare;
pub mod rate;
mod represent;
mod scatter;
mod score;

use serde::Serialize;

pub use candidates::Recipe;
pub use config::{AffinityKind, Clusters, Config, Method};
pub use count::{Count, Tried};
pub use describe::Cluster;
pub use graph::{Background, Membership};
pub use learn::{Head, Layer, Learner, Problem};
pub use model::{Model, Predictions};
pub use neighbours::Affinity;
pub use prepare::{Features, Preparation, Transform};
pub use scatter::Scattering;
pub use score::{Agreement, agreement};

use candidates::{Space, plain, preparations, smoothed_points, spectral_points, spectrum};
use coding::DIMS;
use eigen::Pairs;
use graph::{Scaled, Temperatures};
use neighbours::Search;
use prepare::{Principal, to_unit};
use rayon::prelude::*;

use crate::draw::Stream;
use crate::error::{Error, Result};
use crate::observe::{self, Event, Observer};

/// Sizes of the graph that are tried, each with the effective number of neighbours: few for images, where near ones mean most,
/// more for embeddings of text, where near ones mislead.
const GRAPHS: [(usize, f64); 3] = [(15, 10.0), (7, 5.0), (64, 30.0)];
/// Principal directions that preparations draw from.
const DIRECTIONS: usize = 256;
/// Number of clusters at which the way to a partition is chosen before the number is known.
const PROVISIONAL: usize = 20;
/// Starts of k-means while candidates are compared; the chosen one gets all.
const TRIAL_STARTS: usize = 3;
/// Most rows held out to judge a trained head, and most rows it is trained on.
const HELD_ROWS: usize = 2000;
const LEARN_ROWS: usize = 6000;
/// Nearest rows of which one is a row's second view.
const VIEWS: usize = 10;
/// Rows up to which self-representation is tried unasked.
const REPRESENTED_ROWS: usize = 20_000;
/// Most training rows that vote unless more are asked for.
const ANCHORS: usize = 16_384;
/// Largest number of clusters considered when it is not given, and rows per cluster that it leaves.
const MAX_CLUSTERS: (usize, usize) = (200, 20);

/// A clustering and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Labels new rows.
    pub model: Model,
    /// One per row, numbered by decreasing size: what [`Model::predict`] says of the training rows.
    pub labels: Vec<u32>,
    /// Share of the votes for each row's label.
    pub confidence: Vec<f32>,
    /// The unit rows in which clusters are subspaces, `n x p`.
    pub representation: Vec<f32>,
    /// `p`.
    pub n_dims: usize,
    /// Which rows belong together, and how much.
    pub membership: Membership,
    /// Every cluster, in the order of labels.
    pub clusters: Vec<Cluster>,
    /// Figures of the run.
    pub summary: Summary,
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
    /// Mutual information across edges, nats; the largest is chosen.
    pub information: f64,
    /// Its labels, before neighbours vote.
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
    /// Products that the scaling took, and how far row sums are from one.
    pub scaling_products: usize,
    /// Largest deviation of a row sum from one.
    pub scaling_error: f64,
    /// Rows that vote.
    pub anchors: usize,
    /// Share of training rows whose label is that of the partition which the anchors got.
    pub anchor_agreement: f64,
    /// The trained head beside the projection, if one was trained.
    pub learned: Option<Learned>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A trained head against the projection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Learned {
    /// Whether the head is better by the held-out code length, and so what was kept.
    pub kept: bool,
    /// Held-out code length of its clusters, bits per row.
    pub held_out: f64,
    /// That of the projection's clusters.
    pub projection_held_out: f64,
    /// Held-out code length of every head that was looked at during training, on the rows it was trained on and held-out ones.
    pub snapshots: Vec<f64>,
    /// Middle rank of the clusters in the representation of the one that was not kept.
    pub other_rank: usize,
    /// Labels of the one that was not kept.
    #[serde(skip)]
    pub other_labels: Vec<u32>,
}

/// Clusters rows.
///
/// # Errors
/// A parameter out of range, too few rows, rows that are all alike or equal to their mean, cancellation.
///
/// ```
/// use subspan::{Silent, cluster::{self, Clusters, Config, Features}};
/// // Two bundles of directions.
/// let values: Vec<f32> = (0..40).flat_map(|i| [(i % 2) as f32, 1.0 - (i % 2) as f32, 0.01 * i as f32]).collect();
/// let config = Config { clusters: Clusters::Fixed(2), ..Config::default() };
/// let outcome = cluster::run(&Features::new(&values, 3)?, &config, 0, &Silent)?;
/// assert!((0..40).all(|i| outcome.labels[i] == outcome.labels[i % 2]) && outcome.labels[0] != outcome.labels[1]);
/// assert_eq!(outcome.model.predict(&Features::new(&values, 3)?, false)?.labels, outcome.labels);
/// # Ok::<(), subspan::Error>(())
/// ```
pub fn run(features: &Features<'_>, config: &Config, seed: u64, observer: &dyn Observer) -> Result<Outcome> {
    config.check_rows(features.n_rows())?;
    Job::new(features, config, seed, observer)?.run(None)
}

/// Clusters rows by projection and by a trained head; what has the smaller held-out code length is kept, both are reported.
///
/// # Errors
/// As [`run`], and what the learner reports.
pub fn run_learned(
    features: &Features<'_>,
    config: &Config,
    learner: &dyn Learner,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Outcome> {
    config.check_rows(features.n_rows())?;
    Job::new(features, config, seed, observer)?.run(Some(learner))
}

/// A graph of one preparation, as far as it has been computed.
struct Tie {
    neighbours: usize,
    perplexity: f64,
    scaled: Scaled,
    pairs: Pairs,
}

/// A partition with where it came from.
struct Partition {
    recipe: Recipe,
    labels: Vec<u32>,
    information: f64,
}

/// The best of all candidates so far.
struct Winner {
    space: Space,
    tie: Tie,
    partition: Partition,
    index: usize,
}

#[derive(Default)]
struct Contest {
    tried: Vec<Candidate>,
    winner: Option<Winner>,
}

/// Rows to prepare, with their principal directions.
struct Source<'a> {
    values: std::borrow::Cow<'a, [f32]>,
    n_cols: usize,
    principal: Principal,
}

impl<'a> Source<'a> {
    fn new(values: std::borrow::Cow<'a, [f32]>, n_cols: usize, seed: u64) -> Result<Self> {
        let principal = Principal::fit(&Features::new(&values, n_cols)?, DIRECTIONS.min(n_cols), seed)?;
        Ok(Self { values, n_cols, principal })
    }
}

/// Whether all rows have the same length, to a hundredth.
fn already_unit(features: &Features<'_>) -> bool {
    let lengths =
        features.values().chunks_exact(features.n_cols()).map(|r| r.iter().map(|v| v * v).sum::<f32>().sqrt());
    let [low, high] = lengths.fold([f32::INFINITY, 0.0], |[low, high], l| [low.min(l), high.max(l)]);
    high <= 1.01 * low
}

struct Job<'a> {
    features: &'a Features<'a>,
    config: &'a Config,
    seed: u64,
    observer: &'a dyn Observer,
    /// The rows as they come and, if their lengths differ, brought to length one.
    sources: Vec<Source<'a>>,
    /// Fixed features for coding lengths: centred principal components, unit rows.
    coded: (Vec<f32>, usize),
    /// The same with half as many components, for clusters too small for all.
    coarse: (Vec<f32>, usize),
}

impl<'a> Job<'a> {
    fn new(features: &'a Features<'a>, config: &'a Config, seed: u64, observer: &'a dyn Observer) -> Result<Self> {
        observe::phase(observer, "prepare", None);
        let mut sources = vec![Source::new(features.values().into(), features.n_cols(), seed)?];
        if !already_unit(features) {
            let mut values = features.values().to_vec();
            values.par_chunks_mut(features.n_cols()).for_each(to_unit);
            sources.push(Source::new(values.into(), features.n_cols(), seed)?);
        }
        let components = |count: usize| {
            let transform = sources[0].principal.transform(count, 0.0);
            (transform.apply(features.values()), transform.n_out())
        };
        let (coded, coarse) = (components(DIMS), components(DIMS / 2));
        Ok(Self { features, config, seed, observer, sources, coded, coarse })
    }

    fn run(&self, learner: Option<&dyn Learner>) -> Result<Outcome> {
        let first = self.affinities()[0];
        let space = self.space(0, plain(self.features.n_rows(), self.features.n_cols(), first), first)?;
        let (clusters, count) = self.count(&space)?;
        let mut contest = Contest::default();
        let recipes = [Recipe::Spectral, Recipe::Smoothed];
        self.enter(space, clusters, &recipes, &mut contest)?;
        for (source, preparation, affinity) in self.more_spaces() {
            self.enter(self.space(source, preparation, affinity)?, clusters, &recipes, &mut contest)?;
        }
        let projected = self.finish(contest, clusters, count)?;
        match learner {
            Some(learner) => self.learned(projected, clusters, learner),
            None => Ok(projected),
        }
    }

    /// Tries every graph and recipe on a space; keeps the space if one of them beats all before.
    fn enter(&self, space: Space, clusters: usize, recipes: &[Recipe], contest: &mut Contest) -> Result<()> {
        observe::phase(self.observer, "partition", Some((self.graphs().len() * recipes.len()) as u64));
        let mut best: Option<(Tie, Partition, usize)> = None;
        for (neighbours, perplexity) in self.graphs() {
            self.check_cancelled()?;
            let scaled = space.graph(neighbours, perplexity, self.seed);
            let pairs = spectrum(&scaled.membership, clusters, self.seed)?;
            let tie = Tie { neighbours, perplexity, scaled, pairs };
            let mut won = None;
            for recipe in recipes {
                let starts = self.config.starts.min(TRIAL_STARTS);
                let partition = self.partition(&space, &tie, *recipe, clusters, starts);
                let beaten =
                    best.as_ref().map(|b| &b.1).into_iter().chain(won.as_ref().map(|w: &(Partition, usize)| &w.0));
                let leads = beaten
                    .chain(contest.winner.as_ref().map(|w| &w.partition))
                    .all(|p| p.information < partition.information);
                contest.tried.push(candidate(&partition, &tie, &space));
                if leads {
                    won = Some((partition, contest.tried.len() - 1));
                }
                self.observer.event(Event::Advance { steps: 1 });
            }
            if let Some((partition, index)) = won {
                best = Some((tie, partition, index));
            }
        }
        if let Some((tie, partition, index)) = best {
            contest.winner = Some(Winner { space, tie, partition, index });
        }
        Ok(())
    }

    fn check_cancelled(&self) -> Result<()> {
        if self.observer.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn graphs(&self) -> Vec<(usize, f64)> {
        match self.config.neighbours {
            // Two thirds as in the smaller of the default graphs.
            Some(k) => vec![(k, (2.0 * k as f64 / 3.0).max(1.0))],
            None => GRAPHS.to_vec(),
        }
    }

    fn affinities(&self) -> Vec<AffinityKind> {
        match self.config.affinity {
            Some(affinity) => vec![affinity],
            None if self.features.n_rows() <= REPRESENTED_ROWS => {
                vec![AffinityKind::Cosine, AffinityKind::LeastSquares]
            }
            None => vec![AffinityKind::Cosine],
        }
    }

    fn more_spaces(&self) -> Vec<(usize, Preparation, AffinityKind)> {
        let (n, d) = (self.features.n_rows(), self.features.n_cols());
        let mut all = Vec::new();
        for source in 0..self.sources.len() {
            for affinity in self.affinities() {
                all.extend(preparations(n, d, affinity).into_iter().map(|p| (source, p, affinity)));
            }
        }
        all.remove(0);
        all
    }

    fn space(&self, source: usize, preparation: Preparation, affinity: AffinityKind) -> Result<Space> {
        self.check_cancelled()?;
        observe::phase(self.observer, "neighbours", None);
        let largest = self.graphs().iter().map(|g| g.0).max().unwrap_or(1);
        let from = &self.sources[source];
        Space::new(
            &Features::new(&from.values, from.n_cols)?,
            source == 1,
            preparation,
            &from.principal,
            affinity,
            largest,
        )
    }

    /// The number of clusters, and how it was chosen: on the better way to a partition at a provisional number.
    fn count(&self, space: &Space) -> Result<(usize, Option<Count>)> {
        if let Clusters::Fixed(k) = self.config.clusters {
            return Ok((k, None));
        }
        let n = self.features.n_rows();
        let largest =
            self.config.max_clusters.unwrap_or_else(|| (n / MAX_CLUSTERS.1).clamp(2, MAX_CLUSTERS.0)).min(n - 1);
        observe::phase(self.observer, "count", None);
        let provisional = PROVISIONAL.min(largest);
        let mut best: Option<(Tie, Partition)> = None;
        for (neighbours, perplexity) in self.graphs() {
            self.check_cancelled()?;
            let scaled = space.graph(neighbours, perplexity, self.seed);
            let pairs = spectrum(&scaled.membership, provisional, self.seed)?;
            let tie = Tie { neighbours, perplexity, scaled, pairs };
            let spectral = self.partition(space, &tie, Recipe::Spectral, provisional, TRIAL_STARTS);
            let smoothed = self.partition(space, &tie, Recipe::Smoothed, provisional, TRIAL_STARTS);
            let better = if smoothed.information > spectral.information { smoothed } else { spectral };
            if best.as_ref().is_none_or(|(_, b)| better.information > b.information) {
                best = Some((tie, better));
            }
        }
        let (mut tie, partition) = best.ok_or(Error::AllZero)?;
        let grid = count::grid(largest);
        observe::phase(self.observer, "count", Some(grid.len() as u64));
        if partition.recipe == Recipe::Spectral {
            tie.pairs = spectrum(&tie.scaled.membership, largest, self.seed)?;
        }
        let fixed = points(space, &tie, Recipe::Smoothed, provisional);
        let points = |k: usize| match partition.recipe {
            Recipe::Spectral => (spectral_points(&tie.pairs, k), k),
            Recipe::Smoothed => fixed.clone(),
        };
        let curve = count::curve(&grid, &points, [&self.coded, &self.coarse], self.seed, self.observer)?;
        let count = count::choose(curve, n, self.coded.1);
        Ok((count.clusters, Some(count)))
    }

    /// The start of k-means with the largest mutual information across edges.
    fn partition(&self, space: &Space, tie: &Tie, recipe: Recipe, clusters: usize, starts: usize) -> Partition {
        let (points, width) = points(space, tie, recipe, clusters);
        let runs = kmeans::kmeans(&points, width, clusters, starts, self.seed);
        let runs = runs.into_iter().map(|run| {
            let information = space.edge_information(&run.labels, clusters);
            Partition { recipe, labels: run.labels, information }
        });
        // At least one start is made.
        runs.reduce(|best, run| if run.information > best.information { run } else { best })
            .unwrap_or_else(|| Partition { recipe, labels: vec![0; tie.scaled.membership.n_rows()], information: 0.0 })
    }

    fn finish(&self, contest: Contest, clusters: usize, count: Option<Count>) -> Result<Outcome> {
        let Contest { tried: candidates, winner } = contest;
        // Every information is a number, so the first candidate leads at least for a moment.
        let Winner { space, tie, mut partition, index: chosen } = winner.ok_or(Error::AllZero)?;
        if self.config.starts > TRIAL_STARTS {
            partition = self.partition(&space, &tie, partition.recipe, clusters, self.config.starts);
        }
        observe::phase(self.observer, "label", None);
        let n = self.features.n_rows();
        let mut model = self.model(&space, &tie, &partition.labels, clusters);
        let Predictions { mut labels, confidence, .. } = model.vote(space.images(), false);
        let anchor_agreement = labels.iter().zip(&partition.labels).filter(|(a, b)| a == b).count() as f64 / n as f64;
        let names = by_size(&labels, clusters);
        labels.iter_mut().chain(&mut model.labels).for_each(|l| *l = names[*l as usize]);
        let (membership, scaling) = (tie.scaled.membership, tie.scaled.scaling);
        let described =
            describe::describe(&space.rows, space.n_rows_out(), &labels, clusters, &confidence, &membership)?;
        let mut summary = Summary {
            chosen,
            candidates,
            count,
            coding_length: coding::coding_length(&self.coded.0, self.coded.1, &labels, clusters)?,
            eigenvalues: tie.pairs.values,
            effective_support: membership.effective_support(),
            scaling_products: scaling.products,
            scaling_error: scaling.error,
            anchors: model.labels.len(),
            anchor_agreement,
            learned: None,
            warnings: Vec::new(),
        };
        self.warn(&mut summary, &described, scaling.converged);
        Ok(Outcome {
            model,
            labels,
            confidence,
            n_dims: space.n_rows_out(),
            representation: space.rows,
            membership,
            clusters: described,
            summary,
        })
    }

    /// Trains a head and keeps it if its clusters code held-out rows in fewer bits than the projection's.
    fn learned(&self, mut projected: Outcome, clusters: usize, learner: &dyn Learner) -> Result<Outcome> {
        observe::phase(self.observer, "learn", None);
        let n = self.features.n_rows();
        let order = Stream::new(self.seed, "held out").rng(0).permutation(n);
        let n_held = (n / 5).clamp(1, HELD_ROWS);
        let mut held = vec![false; n];
        order[..n_held].iter().for_each(|i| held[*i] = true);
        let mut trained_on = order[n_held..n.min(n_held + LEARN_ROWS)].to_vec();
        trained_on.sort_unstable();
        let transform = self.sources[0].principal.transform(DIRECTIONS, 0.0);
        let p = transform.n_out();
        let rows = transform.apply(self.features.values());
        let gather = |from: &[f32], d: usize, which: &[usize]| -> Vec<f32> {
            which.iter().flat_map(|i| &from[i * d..(i + 1) * d]).copied().collect()
        };
        let own = gather(&rows, p, &trained_on);
        let search = Search { rows: &own, n_cols: p, affinity: &Affinity::Cosine, weights: &[] };
        let near = search.nearest(&own, &[], VIEWS, true);
        let judged: Vec<usize> = {
            let mut all = [&order[..n_held], &trained_on[..]].concat();
            all.sort_unstable();
            all
        };
        let judged_rows = gather(&rows, p, &judged);
        let judged_coded = gather(&self.coded.0, self.coded.1, &judged);
        let judged_held: Vec<bool> = judged.iter().map(|i| held[*i]).collect();
        let clusters_judged = clusters.min(judged.len() - 1);
        let mut snapshots = Vec::new();
        let mut judge = |head: &Head| -> Result<f64> {
            self.check_cancelled()?;
            let space = Space::learned(&transform, head, &judged_rows, GRAPHS[0].0);
            let scaled = space.graph(GRAPHS[0].0, GRAPHS[0].1, self.seed);
            let pairs = spectrum(&scaled.membership, clusters_judged, self.seed)?;
            let tie = Tie { neighbours: GRAPHS[0].0, perplexity: GRAPHS[0].1, scaled, pairs };
            let labels = self.partition(&space, &tie, Recipe::Spectral, clusters_judged, TRIAL_STARTS).labels;
            let length = coding::held_out_length(&judged_coded, self.coded.1, &labels, clusters_judged, &judged_held)?;
            observe::metric(self.observer, "held-out bits", length);
            snapshots.push(length);
            Ok(length)
        };
        let problem = Problem { rows: &own, n_cols: p, neighbours: &near.index, k: near.k, seed: self.seed };
        let head = learner.learn(&problem, &mut judge)?;
        let largest = self.graphs().iter().map(|g| g.0).max().unwrap_or(1);
        let mut contest = Contest::default();
        self.enter(Space::learned(&transform, &head, &rows, largest), clusters, &[Recipe::Spectral], &mut contest)?;
        let mut trained = self.finish(contest, clusters, projected.summary.count.clone())?;
        let bits =
            |outcome: &Outcome| coding::held_out_length(&self.coded.0, self.coded.1, &outcome.labels, clusters, &held);
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

    /// The voting model of a partition: all rows, or evenly many of every cluster with a graph of their own.
    fn model(&self, space: &Space, tie: &Tie, labels: &[u32], clusters: usize) -> Model {
        let n = labels.len();
        let most = self.config.anchors.unwrap_or(ANCHORS);
        let q = space.n_image();
        let mut model = Model {
            clusters,
            scattering: None,
            transform: space.transform.clone(),
            affinity: space.affinity.clone(),
            metric: space.metric.clone(),
            head: space.head.clone(),
            anchors: Vec::new(),
            labels: Vec::new(),
            log_scale: Vec::new(),
            temperature: Vec::new(),
            top: Vec::new(),
            neighbours: tie.neighbours,
            perplexity: tie.perplexity,
        };
        let images = space.images();
        if n <= most {
            model.anchors = images.to_vec();
            model.labels = labels.to_vec();
            model.log_scale.clone_from(&tie.scaled.scaling.log_scale);
            let Temperatures { eta, top } = tie.scaled.temperatures.clone();
            (model.temperature, model.top) = (eta, top);
            return model;
        }
        let mut kept: Vec<usize> = coding::members(labels, clusters)
            .iter()
            .flat_map(|members| {
                // At least one of each, evenly spaced.
                let count = (members.len() * most).div_ceil(n).min(members.len());
                (0..count).map(move |i| members[i * members.len() / count])
            })
            .collect();
        kept.sort_unstable();
        model.anchors = kept.iter().flat_map(|i| &images[i * q..(i + 1) * q]).copied().collect();
        model.labels = kept.iter().map(|i| labels[*i]).collect();
        let of = |values: &[f64]| kept.iter().map(|i| values[*i]).collect();
        model.log_scale = of(&tie.scaled.scaling.log_scale);
        model.temperature = of(&tie.scaled.temperatures.eta);
        model.top = of(&tie.scaled.temperatures.top);
        model
    }

    fn warn(&self, summary: &mut Summary, clusters: &[Cluster], converged: bool) {
        let mut warn = |text: String| summary.warnings.push(text);
        if !converged {
            warn(format!("the membership is not doubly stochastic: row sums are off by {:.1e}", summary.scaling_error));
        }
        if summary.effective_support < 5.0 {
            warn(format!(
                "each row is tied to {:.1} others only: the graph may fall apart into more pieces than clusters",
                summary.effective_support
            ));
        }
        if summary.effective_support > 0.5 * self.features.n_rows() as f64 {
            warn("rows are tied to most other rows alike: there may be no clusters".into());
        }
        let smallest = clusters.iter().map(|c| c.size).min().unwrap_or(0);
        if smallest < 5 * self.coded.1 && summary.count.as_ref().is_some_and(|c| c.by == "coding length") {
            warn(format!("the smallest cluster has {smallest} rows: coding length favours few clusters then"));
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

/// What k-means clusters, and its width.
fn points(space: &Space, tie: &Tie, recipe: Recipe, clusters: usize) -> (Vec<f32>, usize) {
    match recipe {
        Recipe::Spectral => (spectral_points(&tie.pairs, clusters), clusters),
        Recipe::Smoothed => {
            (smoothed_points(&tie.scaled.membership, &space.rows, space.n_rows_out()), space.n_rows_out())
        }
    }
}

fn candidate(partition: &Partition, tie: &Tie, space: &Space) -> Candidate {
    Candidate {
        preparation: space.name.clone(),
        affinity: match space.affinity {
            Affinity::Cosine => AffinityKind::Cosine,
            Affinity::Absolute => AffinityKind::Absolute,
            Affinity::Weighted => AffinityKind::LeastSquares,
        }
        .to_string(),
        neighbours: tie.neighbours,
        recipe: partition.recipe.to_string(),
        information: partition.information,
        labels: partition.labels.clone(),
    }
}

/// The new name of every label: by decreasing size, ties by the smallest row.
fn by_size(labels: &[u32], clusters: usize) -> Vec<u32> {
    let members = coding::members(labels, clusters);
    let mut order: Vec<usize> = (0..clusters).collect();
    order.sort_by_key(|c| (std::cmp::Reverse(members[*c].len()), members[*c].first().copied().unwrap_or(usize::MAX)));
    let mut names = vec![0; clusters];
    order.iter().zip(0..).for_each(|(c, name)| names[*c] = name);
    names
}
