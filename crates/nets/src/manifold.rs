//! Training of a clustering head: manifold linearizing and clustering on frozen features.
//!
//! A small trunk with two linear heads is first spread out (the coding rate of its features is raised), then the feature head is
//! copied to the cluster head, and both are trained to raise the rate reduction under the membership that the cluster head makes.
//! The loss keeps improving while clusters fall apart into cliques, so snapshots are judged by the caller, on features that
//! training does not shape, and the best one is kept (Ding et al., "Unsupervised manifold linearizing and clustering", ICCV 2023).
//! The clusters found with it then are what a representation of their own is trained for.

mod batches;
mod linear;
mod trunk;

use subspan::cluster::learn::{Step, Views, manifold_step, spread_step};
use subspan::cluster::rate::EPS2;
use subspan::cluster::rate::fast::Shortcut;
use subspan::cluster::{Head, Layer, Learner, Problem};
use subspan::{Error, Observer, Result};

use crate::error::NetError;
use crate::evaluate::Labelled;
use crate::forward::{Keep, Mode};
use crate::graph::{Net, NodeId};
use crate::optimize::{Optimizer, Rule};
use crate::repair::reset_norms;
use crate::tensor::Params;
use crate::train::initialize;
use batches::Batches;
pub(crate) use batches::drawn;

/// Settings of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Manifold {
    /// Units of the hidden layers.
    pub hidden: usize,
    /// Values of a representation row.
    pub n_dims: usize,
    /// Rows per step, each in two views.
    pub batch_size: usize,
    /// Steps that raise the rate of all features alone.
    pub warm_up: usize,
    /// Steps of manifold linearizing and clustering at most.
    pub steps: usize,
    /// Steps between snapshots.
    pub every: usize,
    /// Snapshots without improvement after which training stops.
    pub patience: usize,
    /// Temperature of the membership.
    pub eta: f64,
    /// Weight of the mean cosine of both views while all features are spread, and afterwards.
    pub similarity: [f64; 2],
    /// Adam's learning rate.
    pub lr: f32,
    /// Epochs that make the representation of found clusters linear, ...
    pub linear_epochs: usize,
    /// ... and steps at least.
    pub linear_steps: usize,
}

impl Default for Manifold {
    fn default() -> Self {
        Self {
            hidden: 256,
            n_dims: 32,
            batch_size: 512,
            warm_up: 40,
            steps: 200,
            every: 25,
            patience: 3,
            eta: 0.1,
            similarity: [50.0, 10.0],
            lr: 1e-3,
            linear_epochs: 100,
            linear_steps: 400,
        }
    }
}

/// A training with someone who hears of it and may stop it.
pub struct ManifoldLearner<'a> {
    /// The settings.
    pub settings: Manifold,
    /// Asked between steps.
    pub observer: &'a dyn Observer,
}

/// Work of an exact step, in flop, from which the shortcut is tried: some tenths of a second on two cores.
const LARGE_STEP: f64 = 2e10;

/// What a step is for.
enum Stage<'a> {
    /// The warm-up: all features apart.
    Spread,
    /// Manifold linearizing and clustering.
    Linearize {
        /// Temperature of the membership.
        eta: f64,
        /// Spares most of the rates of large batches.
        shortcut: Option<&'a mut Shortcut>,
    },
}

/// The network and its nodes.
struct Twin {
    net: Net,
    features: NodeId,
    clusters: NodeId,
}

impl Twin {
    fn new(n_inputs: usize, settings: &Manifold) -> Self {
        let mut net = Net::new([n_inputs, 1, 1]);
        let last = trunk::grow(&mut net, settings.hidden);
        let features = net.linear(last, "features", settings.n_dims, true);
        let clusters = net.linear(last, "clusters", settings.n_dims, true);
        Self { net, features, clusters }
    }

    fn head(params: &Params<f32>) -> Head {
        Head { features: trunk::layers(params, "features"), clusters: trunk::layers(params, "clusters") }
    }
}

impl Learner for ManifoldLearner<'_> {
    fn learn(&self, problem: &Problem<'_>, judge: &mut dyn FnMut(&Head) -> Result<f64>) -> Result<Head> {
        let settings = &self.settings;
        let twin = Twin::new(problem.n_cols, settings);
        let mut params = initialize(&twin.net, |_| 0, problem.seed);
        let mut adam = Optimizer::new(Rule::Adam, settings.lr, 0.0);
        let mut batches = Batches::new(problem, settings.batch_size);
        for step in 0..settings.warm_up {
            self.step(&twin, &mut params, &mut adam, &batches.next_views(), step, Stage::Spread)?;
        }
        for part in ["weight", "bias"] {
            let copy = params[&format!("features.{part}")].clone();
            params.insert(format!("clusters.{part}"), copy);
        }
        let batch = settings.batch_size.min(problem.rows.len() / problem.n_cols) as f64;
        let exact_flop = 3.0 * batch * batch * (settings.n_dims * (settings.n_dims + 1)) as f64;
        let mut shortcut = (exact_flop > LARGE_STEP).then(|| Shortcut::new(problem.seed));
        let (mut best, mut least, mut worse) = (None, f64::INFINITY, 0);
        for step in 0..=settings.steps {
            if step % settings.every == 0 {
                settle(&twin.net, &mut params, problem, self.observer)?;
                let head = Twin::head(&params);
                let length = judge(&head)?;
                if length < least {
                    (best, least, worse) = (Some(head), length, 0);
                } else {
                    worse += 1;
                    if worse >= settings.patience {
                        break;
                    }
                }
            }
            if step == settings.steps {
                break;
            }
            let stage = Stage::Linearize { eta: settings.eta, shortcut: shortcut.as_mut() };
            self.step(&twin, &mut params, &mut adam, &batches.next_views(), step, stage)?;
        }
        best.ok_or(Error::Diverged { epoch: settings.steps, lr: f64::from(settings.lr) })
    }

    fn linearize(&self, problem: &Problem<'_>, labels: &[u32], clusters: usize) -> Result<Vec<Layer>> {
        linear::train(&self.settings, problem, labels, clusters, self.observer)
    }
}

impl ManifoldLearner<'_> {
    /// One step on a batch of both views.
    fn step(
        &self,
        twin: &Twin,
        params: &mut Params<f32>,
        adam: &mut Optimizer,
        batch: &[f32],
        step: usize,
        stage: Stage<'_>,
    ) -> Result<()> {
        if self.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let trace = twin.net.trace(params, batch, Mode::Batch, Keep::All);
        let (z, q) = (trace.values(twin.features), trace.values(twin.clusters));
        let half = z.len() / 2;
        let views = Views {
            features: [&z[..half], &z[half..]],
            clusters: [&q[..half], &q[half..]],
            n_dims: self.settings.n_dims,
        };
        let spread = matches!(stage, Stage::Spread);
        let taken = match stage {
            Stage::Spread => spread_step(&views, EPS2, self.settings.similarity[0]),
            Stage::Linearize { eta, shortcut } => {
                manifold_step(&views, eta, EPS2, self.settings.similarity[1], shortcut)
            }
        };
        let diverged = Error::Diverged { epoch: step, lr: f64::from(self.settings.lr) };
        let Step { features, clusters, .. } = match taken {
            Err(Error::Linalg(_)) => return Err(diverged),
            other => other?,
        };
        let mut seeds = vec![(twin.features, features.concat())];
        if !spread {
            seeds.push((twin.clusters, clusters.concat()));
        }
        let gradient = twin.net.backward(params, &trace, seeds);
        adam.step(params, &gradient);
        Ok(())
    }
}

/// Statistics of BatchNorm over all rows.
fn settle(net: &Net, params: &mut Params<f32>, problem: &Problem<'_>, observer: &dyn Observer) -> Result<()> {
    let labels = vec![0; problem.rows.len() / problem.n_cols];
    let data = Labelled { x: problem.rows, y: &labels };
    reset_norms(net, params, &data, observer).map_err(NetError::into_core)
}

#[cfg(test)]
mod tests {
    use subspan::Silent;
    use subspan::draw::Stream;

    use super::*;

    /// Rows near two curved bundles, with the other bundle far.
    fn rows(n: usize) -> Vec<f32> {
        let mut rng = Stream::new(0, "rows").rng(0);
        let mut out = Vec::new();
        for i in 0..n {
            let t = rng.uniform() as f32;
            let mut row = [t.cos(), t.sin(), 0.0, 0.0];
            if i % 2 == 1 {
                row.rotate_right(2);
            }
            out.extend(row.map(|v| v + 0.01 * rng.normal() as f32));
        }
        out
    }

    #[test]
    fn training_is_a_function_of_the_seed_and_keeps_the_best_judged_head() {
        let n = 120;
        let rows = rows(n);
        // Two rows further on is one of the same bundle.
        let neighbours: Vec<u32> = (0..n).flat_map(|i| [(i + 2) % n, (i + 4) % n]).map(|i| i as u32).collect();
        let problem = Problem { rows: &rows, n_cols: 4, weights: &[], neighbours: &neighbours, k: 2, seed: 1 };
        let settings = Manifold {
            hidden: 16,
            n_dims: 6,
            batch_size: 40,
            warm_up: 10,
            steps: 20,
            every: 5,
            patience: 9,
            ..Manifold::default()
        };
        let learner = ManifoldLearner { settings, observer: &Silent };
        let mut judged = 0;
        let mut heads = Vec::new();
        let mut judge = |head: &Head| {
            judged += 1;
            heads.push(head.clone());
            Ok(if judged == 3 { 0.0 } else { f64::from(judged) })
        };
        let best = learner.learn(&problem, &mut judge).unwrap();
        assert_eq!(heads.len(), 5);
        assert_eq!(best, heads[2]);
        let again = learner.learn(&problem, &mut |head| Ok(if *head == heads[2] { 0.0 } else { 1.0 })).unwrap();
        assert_eq!(again, best);
        // The folded head is the network: rows of one bundle are nearer in q than rows of different ones.
        let q = heads[4].cluster_rows(&rows);
        let cosine = |i: usize, j: usize| (0..6).map(|c| q[i * 6 + c] * q[j * 6 + c]).sum::<f32>().abs();
        let (mut same, mut apart) = (0.0, 0.0);
        for i in 0..n / 2 {
            same += cosine(2 * i, (2 * i + 2) % n);
            apart += cosine(2 * i, (2 * i + 1) % n);
        }
        assert!(same > apart, "{same} {apart}");
    }
}
