//! Repair of a merged network's statistics on data.

use subspan::Observer;

use crate::error::{NetError, Result};
use crate::evaluate::{Labelled, batch_size, check};
use crate::forward::{Keep, Mode};
use crate::graph::{Net, NodeId, Op};
use crate::layers::norm::{Moments, moments};
use crate::tensor::Params;

/// Samples per batch of a reset: statistics of smaller batches are too noisy.
pub const RESET_BATCH: usize = 500;
/// Deviations below this are those of dead units; they are left alone.
const DEAD: f64 = 1e-8;

/// Sets the running statistics of every BatchNorm to those of the data: one pass in training mode, batches of
/// [`RESET_BATCH`] weighted by their size, variances unbiased as PyTorch keeps them. Nothing else changes.
///
/// For BatchNorm layers this is also what REPAIR asks for: after it a layer's output has mean `bias` and deviation `|weight|`,
/// and those are the averages of the end points' already.
///
/// # Errors
/// Parameters or samples that do not fit; an interrupt.
pub fn reset_norms(
    net: &Net,
    params: &mut Params<f32>,
    data: &Labelled<'_, f32>,
    observer: &dyn Observer,
) -> Result<()> {
    check(net, params, data)?;
    let mut sums: std::collections::BTreeMap<NodeId, (Vec<f64>, Vec<f64>)> = std::collections::BTreeMap::new();
    let per_sample = net.len_at(Net::INPUT);
    let n = data.y.len() as f64;
    for x in data.x.chunks(RESET_BATCH * per_sample) {
        if observer.cancelled() {
            return Err(NetError::Cancelled);
        }
        let trace = net.trace(params, x, Mode::Batch, Keep::Nodes(&[]));
        let weight = trace.n_samples() as f64 / n;
        for (id, Moments { mean, var, count }) in trace.norms {
            let unbias = count as f64 / (count.max(2) - 1) as f64;
            let zeros = || (vec![0.0; mean.len()], vec![0.0; mean.len()]);
            let (means, vars) = sums.entry(id).or_insert_with(zeros);
            means.iter_mut().zip(&mean).for_each(|(s, m)| *s += weight * m);
            vars.iter_mut().zip(&var).for_each(|(s, v)| *s += weight * unbias * v);
        }
    }
    for (id, (mean, var)) in sums {
        let Op::Norm { prefix, .. } = &net.node(id).op else { continue };
        for (part, values) in [("running_mean", mean), ("running_var", var)] {
            let tensor = params.get_mut(&format!("{prefix}.{part}")).expect("checked above");
            tensor.values = values.iter().map(|v| *v as f32).collect();
        }
    }
    Ok(())
}

/// REPAIR (Jordan et al., arXiv 2211.08403) for networks without BatchNorm: scales and shifts every hidden unit of `merged` so
/// that its pre-activation has the weighted mean of the merged models' own means and deviations (`weights` add up to one). Layers
/// front to back, each measured after those before it are repaired: one pass per layer. Returns the number of
/// units left alone because they do not vary.
///
/// # Errors
/// Parameters or samples that do not fit; a layer without a bias to shift; an interrupt.
///
/// # Panics
/// If the numbers of ends and weights differ.
pub fn repair(
    net: &Net,
    merged: &mut Params<f32>,
    ends: &[&Params<f32>],
    weights: &[f64],
    data: &Labelled<'_, f32>,
    observer: &dyn Observer,
) -> Result<usize> {
    assert_eq!(ends.len(), weights.len(), "a weight per model");
    check(net, merged, data)?;
    ends.iter().try_for_each(|p| check(net, p, data))?;
    let hidden = |id: &NodeId| net.node(*id).op.weight().is_some() && *id != net.output();
    let layers: Vec<NodeId> = (1..net.nodes().len()).filter(hidden).collect();
    let own: Vec<Vec<Moments>> = ends.iter().map(|p| channel_moments(net, p, data, &layers, net.output())).collect();
    let mut dead = 0;
    for (k, id) in layers.iter().enumerate() {
        if observer.cancelled() {
            return Err(NetError::Cancelled);
        }
        let now = channel_moments(net, merged, data, &[*id], *id).remove(0);
        let op = &net.node(*id).op;
        let (weight, bias) = (op.weight().unwrap_or_default(), op.bias());
        let bias = bias.ok_or_else(|| NetError::Missing { tensor: weight.replace(".weight", ".bias") })?;
        let mix = |of: &dyn Fn(&Moments) -> f64| own.iter().zip(weights).map(|(m, w)| w * of(&m[k])).sum::<f64>();
        let channels = now.mean.len();
        for c in 0..channels {
            let target = (mix(&|m| m.mean[c]), mix(&|m| m.var[c].sqrt()));
            let found = (now.mean[c], now.var[c].sqrt());
            if found.1 < DEAD {
                dead += 1;
                continue;
            }
            let scale = target.1 / found.1;
            let w = &mut merged.get_mut(weight).expect("checked above").values;
            let row = w.len() / channels;
            w[c * row..(c + 1) * row].iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
            let b = &mut merged.get_mut(bias).expect("checked above").values[c];
            *b = ((f64::from(*b) - found.0) * scale + target.0) as f32;
        }
    }
    Ok(dead)
}

/// Mean and variance of each channel of some nodes over all samples; `last` is the last node that is computed.
fn channel_moments(
    net: &Net,
    params: &Params<f32>,
    data: &Labelled<'_, f32>,
    nodes: &[NodeId],
    last: NodeId,
) -> Vec<Moments> {
    let empty = |id: &NodeId| {
        let c = net.node(*id).dims[0];
        Moments { mean: vec![0.0; c], var: vec![0.0; c], count: 0 }
    };
    let mut out: Vec<Moments> = nodes.iter().map(empty).collect();
    for x in data.x.chunks(batch_size(net) * net.len_at(Net::INPUT)) {
        let trace = net.trace_until(params, x, Mode::Eval, Keep::Nodes(nodes), last);
        for (sum, id) in out.iter_mut().zip(nodes) {
            let [c, h, w] = net.node(*id).dims;
            combine(sum, &moments(trace.values(*id), c, h * w));
        }
    }
    out
}

/// Joins the moments of further samples (Chan, Golub, LeVeque, 1979).
fn combine(into: &mut Moments, add: &Moments) {
    let (n, m) = (into.count as f64, add.count as f64);
    let total = n + m;
    for c in 0..into.mean.len() {
        let delta = add.mean[c] - into.mean[c];
        into.mean[c] += delta * m / total;
        into.var[c] = (into.var[c] * n + add.var[c] * m + delta * delta * n * m / total) / total;
    }
    into.count += add.count;
}
