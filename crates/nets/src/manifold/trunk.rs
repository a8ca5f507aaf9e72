//! The trunk that heads stand on: two hidden layers, the first normalised.

use subspan::cluster::Layer;

use crate::graph::{Activation, NORM_EPS, Net, NodeId};
use crate::tensor::Params;

/// Adds a trunk to a network; its last node.
pub(super) fn grow(net: &mut Net, hidden: usize) -> NodeId {
    let first = net.linear(Net::INPUT, "trunk.0", hidden, true);
    let first = net.norm(first, "norm", true);
    let first = net.act(first, Activation::Relu);
    let second = net.linear(first, "trunk.1", hidden, true);
    net.act(second, Activation::Relu)
}

/// The trunk's layers, BatchNorm folded into the one before it, and the layer `last`.
pub(super) fn layers(params: &Params<f32>, last: &str) -> Vec<Layer> {
    let values = |name: &str| params[name].values.clone();
    let layer =
        |prefix: &str| Layer { weights: values(&format!("{prefix}.weight")), bias: values(&format!("{prefix}.bias")) };
    let mut first = layer("trunk.0");
    let n_in = first.n_in();
    let (gain, shift) = (values("norm.weight"), values("norm.bias"));
    let (mean, var) = (values("norm.running_mean"), values("norm.running_var"));
    for (u, row) in first.weights.chunks_exact_mut(n_in).enumerate() {
        let scale = gain[u] / (f64::from(var[u]) + NORM_EPS).sqrt() as f32;
        row.iter_mut().for_each(|w| *w *= scale);
        first.bias[u] = (first.bias[u] - mean[u]) * scale + shift[u];
    }
    vec![first, layer("trunk.1"), layer(last)]
}
