//! A representation for clusters that are known: each near a subspace of its own.

use subspan::cluster::learn::partition_step;
use subspan::cluster::rate::EPS2;
use subspan::cluster::{Layer, Problem};
use subspan::{Error, Observer, Result};

use super::batches::Batches;
use super::{Manifold, settle, trunk};
use crate::forward::{Keep, Mode};
use crate::graph::Net;
use crate::optimize::{Optimizer, Rule};
use crate::train::initialize;

/// Dimensions per cluster, and rows per dimension at least: fewer dimensions make rows of a cluster parallel, more leave them without
/// neighbours that span the same subspace.
const PER_CLUSTER: usize = 5;
const ROWS_PER_DIMENSION: usize = 6;
/// Dimensions of a representation.
const DIMENSIONS: std::ops::RangeInclusive<usize> = 64..=192;
/// Rows of a cluster in a batch, on average, at least: of fewer, a batch says little about the subspace that all of them fill.
const PER_BATCH: usize = 25;

/// Layers whose output raises the rate reduction of a partition, trained from a fresh start: a head's own trunk has drawn each cluster
/// together, and no linear map spreads it again.
pub(super) fn train(
    settings: &Manifold,
    problem: &Problem<'_>,
    labels: &[u32],
    clusters: usize,
    observer: &dyn Observer,
) -> Result<Vec<Layer>> {
    let most = labels.len() / ROWS_PER_DIMENSION;
    let n_dims = (PER_CLUSTER * clusters).min(most).clamp(*DIMENSIONS.start(), *DIMENSIONS.end());
    let mut net = Net::new([problem.n_cols, 1, 1]);
    let last = trunk::grow(&mut net, settings.hidden);
    let features = net.linear(last, "features", n_dims, true);
    let mut params = initialize(&net, |_| 0, problem.seed);
    let mut adam = Optimizer::new(Rule::Adam, settings.lr, 0.0);
    let batch_size = settings.batch_size.max(PER_BATCH * clusters).min(labels.len());
    let mut batches = Batches::new(problem, batch_size);
    let n_steps = (settings.linear_epochs * labels.len() / batch_size).max(settings.linear_steps);
    for step in 0..n_steps {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let batch = batches.next().to_vec();
        let own: Vec<u32> = batch.iter().map(|i| labels[*i]).collect();
        let trace = net.trace(&params, &batches.values(&batch), Mode::Batch, Keep::All);
        let taken = match partition_step(trace.values(features), n_dims, &own, clusters, EPS2) {
            Err(Error::Linalg(_)) => return Err(Error::Diverged { epoch: step, lr: f64::from(settings.lr) }),
            other => other?,
        };
        let gradient = net.backward(&params, &trace, vec![(features, taken.features)]);
        adam.step(&mut params, &gradient);
    }
    settle(&net, &mut params, problem, observer)?;
    Ok(trunk::layers(&params, "features"))
}

#[cfg(test)]
mod tests {
    use subspan::Silent;
    use subspan::cluster::Head;
    use subspan::draw::Stream;

    use super::*;

    #[test]
    fn clusters_that_are_curved_become_subspaces_apart_from_each_other() {
        // Two arcs of one circle in the same plane: no subspaces apart.
        let n = 200;
        let mut rng = Stream::new(3, "rows").rng(0);
        let labels: Vec<u32> = (0..n as u32).map(|i| i % 2).collect();
        let rows: Vec<f32> = labels
            .iter()
            .flat_map(|label| {
                let t = rng.uniform() as f32 + 2.0 * *label as f32;
                [t.cos(), t.sin()]
            })
            .collect();
        let problem = Problem { rows: &rows, n_cols: 2, weights: &[], neighbours: &[], k: 0, seed: 1 };
        let settings =
            Manifold { hidden: 64, batch_size: 100, linear_steps: 300, linear_epochs: 0, ..Manifold::default() };
        let layers = train(&settings, &problem, &labels, 2, &Silent).unwrap();
        let z = Head { features: layers, clusters: Vec::new() }.representation(&rows);
        let d = z.len() / n;
        let mean_cosine = |apart: bool| {
            let pairs =
                (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).filter(|(i, j)| (labels[*i] != labels[*j]) == apart);
            let cosine = |(i, j): (usize, usize)| (0..d).map(|c| z[i * d + c] * z[j * d + c]).sum::<f32>().abs();
            let (sum, count) = pairs.fold((0.0, 0.0), |(s, c), pair| (s + cosine(pair), c + 1.0));
            sum / count
        };
        let (within, between) = (mean_cosine(false), mean_cosine(true));
        assert!(between < 0.1 && within > 4.0 * between, "{within} {between}");
    }
}
