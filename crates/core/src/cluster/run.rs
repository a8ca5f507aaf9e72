//! A run: prepare, choose, label, describe.

use rayon::prelude::*;

use super::candidates::{Recipe, SCORED_NEIGHBOURS, Space, preparations};
use super::choice::{Contest, Entrant, Partition, TRIAL_STARTS, Tie};
use super::coding::{self, DIMS};
use super::config::{AffinityKind, Clusters, Config, Method, ZeroRows};
use super::count::Count;
use super::describe;
use super::gaussians;
use super::graph::Temperatures;
use super::learn::Learner;
use super::model::Model;
use super::neighbours::Affinity;
use super::outcome::{Outcome, Summary, by_size};
use super::prepare::{Features, Preparation, Principal, mean};
use crate::error::{Error, Result};
use crate::observe::{self, Observer};

/// Principal directions that preparations draw from.
pub(crate) const DIRECTIONS: usize = 256;
/// Rows up to which self-representation is tried unasked.
const REPRESENTED_ROWS: usize = 20_000;
/// Most training rows that vote unless more are asked for.
const ANCHORS: usize = 16_384;

/// Clusters rows.
///
/// # Errors
/// A parameter out of range ([`Method::Mlc`] needs a learner: [`run_learned`]), too few rows, rows that are all alike or equal to their
/// mean, cancellation.
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
    if config.method == Method::Mlc {
        return Err(Error::parameter("method", config.method, "projection, where nothing is given that learns"));
    }
    start(features, config, None, seed, observer)
}

/// Clusters rows by projection and by a trained head; the head is kept if both its code lengths are a per cent smaller and it tells no less
/// across edges, both results are reported. The clusters kept are subspaces of the representation.
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
    start(features, config, Some(learner), seed, observer)
}

/// Runs on all rows, or on those that have a direction.
fn start(
    features: &Features<'_>,
    config: &Config,
    learner: Option<&dyn Learner>,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Outcome> {
    config.check_rows(features.n_rows())?;
    let dropped = match config.zero_rows {
        ZeroRows::Refuse => Vec::new(),
        ZeroRows::Drop => without_direction(features, config.affinity),
    };
    if dropped.is_empty() {
        return Job::new(features, config, seed, observer)?.run(learner);
    }
    let d = features.n_cols();
    let kept: Vec<usize> = (0..features.n_rows()).filter(|i| dropped.binary_search(i).is_err()).collect();
    config.check_rows(kept.len())?;
    let values: Vec<f32> = kept.iter().flat_map(|i| &features.values()[i * d..(i + 1) * d]).copied().collect();
    let weights: Option<Vec<f64>> = features.weights().map(|w| kept.iter().map(|i| w[*i]).collect());
    let rest = Features::new(&values, d)?;
    let rest = match &weights {
        Some(weights) => rest.weighted(weights)?,
        None => rest,
    };
    let outcome = Job::new(&rest, config, seed, observer)?.run(learner)?;
    outcome.with_rows_left_out(features, &kept, &dropped)
}

/// Rows that equal the mean: nothing is left of them after centring. A pursuit leaves rows around the origin.
fn without_direction(features: &Features<'_>, affinity: Option<AffinityKind>) -> Vec<usize> {
    let mean = match affinity {
        Some(AffinityKind::Pursuit) => vec![0.0; features.n_cols()],
        _ => mean(features, false, &features.mass()),
    };
    let rows = features.values().par_chunks(features.n_cols()).enumerate();
    rows.filter(|(_, row)| row.iter().zip(&mean).all(|(v, m)| v == m)).map(|(i, _)| i).collect()
}

/// Principal directions of the rows, as they come or brought to length one first.
pub(crate) struct Source {
    unit_first: bool,
    principal: Principal,
}

impl Source {
    fn new(features: &Features<'_>, unit_first: bool, mass: &[f64], seed: u64) -> Result<Self> {
        let principal = Principal::fit(features, unit_first, mass, DIRECTIONS.min(features.n_cols()), seed)?;
        Ok(Self { unit_first, principal })
    }
}

/// Whether all rows have the same length, to a hundredth.
fn already_unit(features: &Features<'_>) -> bool {
    let square = |row: &[f32]| row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
    let lengths = features.values().chunks_exact(features.n_cols()).map(|row| square(row).sqrt());
    let [low, high] = lengths.fold([f64::INFINITY, 0.0], |[low, high], l| [low.min(l), high.max(l)]);
    high <= 1.01 * low
}

/// A run and what all its parts look at.
pub(crate) struct Job<'a> {
    pub(crate) features: &'a Features<'a>,
    pub(crate) config: &'a Config,
    pub(crate) seed: u64,
    pub(crate) observer: &'a dyn Observer,
    /// The weights of the rows, one on average.
    pub(crate) mass: Vec<f64>,
    /// The rows as they come and, if their lengths differ, brought to length one.
    sources: Vec<Source>,
    /// Fixed features for coding lengths: centred principal components, unit rows.
    pub(crate) coded: (Vec<f32>, usize),
    /// The same with half as many components, for clusters too small for all.
    pub(crate) coarse: (Vec<f32>, usize),
}

impl<'a> Job<'a> {
    fn new(features: &'a Features<'a>, config: &'a Config, seed: u64, observer: &'a dyn Observer) -> Result<Self> {
        observe::phase(observer, "prepare", None);
        let mass = features.mass();
        let mut sources = vec![Source::new(features, false, &mass, seed)?];
        if !already_unit(features) {
            match Source::new(features, true, &mass, seed) {
                // Rows that differ in length only: the first source has all there is.
                Err(Error::Constant) => {}
                source => sources.push(source?),
            }
        }
        let components = |count: usize| {
            let transform = sources[0].principal.transform(count, 0.0);
            (transform.apply(features.values()), transform.n_out())
        };
        let (coded, coarse) = (components(DIMS), components(DIMS / 2));
        Ok(Self { features, config, seed, observer, mass, sources, coded, coarse })
    }

    fn run(&self, learner: Option<&dyn Learner>) -> Result<Outcome> {
        let (contest, clusters, count) = match self.config.clusters {
            Clusters::Fixed(k) => (self.survey(k, &self.graphs(k), Contest::last(self.seeks_peaks(k)))?, k, None),
            Clusters::Auto => {
                let (count, finalists) = self.counted()?;
                let graphs = self.graphs(count.clusters);
                let mut contest = Contest::last(false);
                for entrant in finalists {
                    self.enter(entrant.space, count.clusters, &graphs, &mut contest)?;
                }
                (contest, count.clusters, Some(count))
            }
        };
        let projected = self.finish(contest, clusters, count)?;
        match learner {
            Some(learner) => self.learned(projected, clusters, learner),
            None => Ok(projected),
        }
    }

    /// A contest of all spaces on these graphs.
    pub(crate) fn survey(&self, clusters: usize, graphs: &[(usize, f64)], mut contest: Contest) -> Result<Contest> {
        let all = self.spaces();
        for (source, preparation, affinity) in &all {
            self.enter(self.space(*source, *preparation, *affinity)?, clusters, graphs, &mut contest)?;
        }
        self.let_peaks_win(&mut contest, clusters, |at| self.space(all[at].0, all[at].1, all[at].2))?;
        Ok(contest)
    }

    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if self.observer.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// How graphs become points. Rows of a subspace lie on both sides of the origin, their means mean nothing there.
    pub(crate) fn recipes(&self) -> &'static [Recipe] {
        match self.config.affinity {
            Some(AffinityKind::Pursuit) => &[Recipe::Spectral],
            _ => &[Recipe::Spectral, Recipe::Smoothed],
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

    fn spaces(&self) -> Vec<(usize, Preparation, AffinityKind)> {
        let (n, d) = (self.features.n_rows(), self.features.n_cols());
        let mut all = Vec::new();
        for source in 0..self.sources.len() {
            for affinity in self.affinities() {
                all.extend(preparations(n, d, affinity).into_iter().map(|p| (source, p, affinity)));
            }
        }
        all
    }

    /// Neighbours to look for: those of the graphs, and those whose labels are compared.
    pub(crate) fn searched(&self, graphs: &[(usize, f64)], affinity: AffinityKind) -> usize {
        let largest = graphs.iter().map(|g| g.0).max().unwrap_or(1);
        // A pursuit's neighbours are its steps.
        if affinity == AffinityKind::Pursuit { largest } else { largest.max(SCORED_NEIGHBOURS) }
    }

    fn space(&self, source: usize, preparation: Preparation, affinity: AffinityKind) -> Result<Space> {
        self.check_cancelled()?;
        observe::phase(self.observer, "neighbours", None);
        let largest = self.searched(&self.wide_graphs(), affinity);
        let Source { unit_first, principal } = &self.sources[source];
        Space::new(self.features, &self.mass, *unit_first, preparation, principal, affinity, largest)
    }

    /// Labels all rows by the winner's votes and says what the clusters are like.
    pub(crate) fn finish(&self, contest: Contest, clusters: usize, count: Option<Count>) -> Result<Outcome> {
        let Contest { tried: candidates, best, .. } = contest;
        // There is at least one space, and every information is a number.
        let winner = best.into_iter().next().ok_or(Error::AllZero)?;
        let Entrant { space, tie, mut partition, index: chosen } = winner;
        let peaks = matches!(partition.recipe, Recipe::Modes | Recipe::ModesOfAll);
        if !peaks && self.config.starts > TRIAL_STARTS && !self.is_large(clusters) {
            partition = self.partition(&space, &tie, partition.recipe, clusters, self.config.starts);
        }
        observe::phase(self.observer, "label", None);
        let n = self.features.n_rows();
        if space.affinity == Affinity::Pursuit {
            partition.labels =
                gaussians::settled(space.images(), space.n_image(), &self.mass, partition.labels, clusters)?;
        }
        let (mut model, mut labels, confidence) =
            self.voted(&space, &tie, &mut partition, clusters, count.is_some())?;
        let clusters = model.clusters;
        let anchor_agreement = labels.iter().zip(&partition.labels).filter(|(a, b)| a == b).count() as f64 / n as f64;
        let names = by_size(&labels, &self.mass, clusters);
        labels.iter_mut().chain(&mut model.labels).for_each(|l| *l = names[*l as usize]);
        let (membership, scaling) = (tie.scaled.membership, tie.scaled.scaling);
        let p = space.n_rows_out();
        let described = describe::describe(&space.rows, p, &self.mass, &labels, clusters, &confidence, &membership)?;
        let mut summary = Summary {
            chosen,
            candidates,
            count,
            coding_length: coding::coding_length(&self.coded.0, self.coded.1, &self.mass, &labels, clusters)?,
            eigenvalues: tie.pairs.values,
            effective_support: membership.effective_support(),
            background: membership.background().iter().map(|b| f64::from(*b)).sum::<f64>() / n as f64,
            scaling_products: scaling.products,
            scaling_error: scaling.error,
            anchors: model.labels.len(),
            anchor_agreement,
            effective_rows: effective_rows(&self.mass),
            left_out: 0,
            learned: None,
            warnings: Vec::new(),
        };
        self.warn(&mut summary, &described, scaling.converged, &space.rows, p);
        Ok(Outcome {
            model,
            labels,
            confidence,
            n_dims: p,
            representation: space.rows,
            membership,
            clusters: described,
            summary,
            other: None,
            left_out: Vec::new(),
        })
    }

    /// The voting model of a partition, and what it says of the rows that were clustered. If the number of clusters was chosen, those that the
    /// vote leaves without rows are no clusters: their voters go where they were voted to.
    fn voted(
        &self,
        space: &Space,
        tie: &Tie,
        partition: &mut Partition,
        mut clusters: usize,
        chosen: bool,
    ) -> Result<(Model, Vec<u32>, Vec<f32>)> {
        loop {
            let model = self.model(space, tie, &partition.labels, clusters);
            let (labels, confidence) = model.label(space.images())?;
            let sizes = coding::members(&labels, clusters);
            let filled = sizes.iter().filter(|members| !members.is_empty()).count();
            if !chosen || filled == clusters {
                return Ok((model, labels, confidence));
            }
            let names: Vec<u32> = sizes
                .iter()
                .scan(0, |next, members| {
                    let name = *next;
                    *next += u32::from(!members.is_empty());
                    Some(name)
                })
                .collect();
            for (own, voted) in partition.labels.iter_mut().zip(&labels) {
                let at = if sizes[*own as usize].is_empty() { *voted } else { *own };
                *own = names[at as usize];
            }
            clusters = filled;
        }
    }

    /// The voting model of a partition: all rows, or evenly many of every cluster.
    fn model(&self, space: &Space, tie: &Tie, labels: &[u32], clusters: usize) -> Model {
        let n = labels.len();
        let most = self.config.anchors.unwrap_or(ANCHORS);
        let q = space.n_image();
        let mut model = Model {
            clusters,
            front: None,
            transform: space.transform.clone(),
            affinity: space.affinity.clone(),
            metric: space.metric.clone(),
            head: space.head.as_ref().map(|head| head.clusters.clone()),
            linear: space.head.as_ref().map(|head| head.features.clone()),
            anchors: Vec::new(),
            labels: Vec::new(),
            log_scale: Vec::new(),
            temperature: Vec::new(),
            top: Vec::new(),
            anchor_mass: None,
            neighbours: tie.neighbours,
            perplexity: tie.perplexity,
        };
        let images = space.images();
        let weighted = space.affinity == Affinity::Pursuit && self.features.weights().is_some();
        if n <= most {
            model.anchor_mass = weighted.then(|| self.mass.clone());
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
        model.anchor_mass = weighted.then(|| of(&self.mass));
        model.log_scale = of(&tie.scaled.scaling.log_scale);
        model.temperature = of(&tie.scaled.temperatures.eta);
        model.top = of(&tie.scaled.temperatures.top);
        model
    }
}

/// How many rows of equal weight say as much: `(Σ w)² / Σ w²` (Kish, "Survey sampling", 1965).
fn effective_rows(mass: &[f64]) -> f64 {
    mass.iter().sum::<f64>().powi(2) / mass.iter().map(|m| m * m).sum::<f64>()
}
