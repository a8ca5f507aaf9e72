//! Training of classifiers, seeded: the same seed gives the same bits on any number of threads.

use subspan::draw::Stream;
use subspan::{Event, Observer};

use crate::error::{NetError, Result};
use crate::evaluate::{Labelled, batch_gradient, check};
use crate::forward::Mode;
use crate::graph::{Activation, Net, NodeId, Op};
use crate::optimize::{Optimizer, Rule};
use crate::tensor::{Params, Tensor};

/// How a classifier is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    /// Passes over the samples.
    pub epochs: usize,
    /// Samples per step; the last step of a pass may have fewer.
    pub batch: usize,
    /// Adam or SGD.
    pub rule: Rule,
    /// Learning rate.
    pub lr: f32,
    /// `weight_decay · θ` joins the gradient.
    pub weight_decay: f32,
}

impl Default for Training {
    /// Adam 1e-3, batch 500, 5 passes: the recipe of the matched MLPs in Ito et al., arXiv 2402.04051.
    fn default() -> Self {
        Self { epochs: 5, batch: 500, rule: Rule::Adam, lr: 1e-3, weight_decay: 0.0 }
    }
}

/// A network of dense layers with ReLU between: `widths` are the hidden layers, tensors are `layer0.weight`, `layer0.bias`, ...
///
/// ```
/// let net = subspan_nets::mlp(64, &[32, 16], 10);
/// assert_eq!(net.parameters().last().unwrap(), &("layer2.bias".to_string(), vec![10]));
/// ```
pub fn mlp(n_inputs: usize, widths: &[usize], n_classes: usize) -> Net {
    let mut net = Net::new([n_inputs, 1, 1]);
    let mut at = Net::INPUT;
    for (i, width) in widths.iter().enumerate() {
        at = net.linear(at, &format!("layer{i}"), *width, true);
        at = net.act(at, Activation::Relu);
    }
    net.linear(at, &format!("layer{}", widths.len()), n_classes, true);
    net
}

/// Starting values as PyTorch draws them: weights and biases uniform in `±1/√fan_in`, BatchNorm at the identity. `kernel` gives
/// the side of each convolution's kernels.
pub fn initialize(net: &Net, kernel: impl Fn(NodeId) -> usize, seed: u64) -> Params<f32> {
    let mut out = Params::new();
    for (id, node) in net.nodes().iter().enumerate().skip(1) {
        let from = net.node(node.inputs[0]).dims;
        let channels = node.dims[0];
        let mut uniform = |name: &str, shape: Vec<usize>, fan_in: usize| {
            let stream = Stream::new(seed, &format!("initialize {name}"));
            let mut draws = vec![0.0; shape.iter().product()];
            stream.uniforms(0, &mut draws);
            let bound = 1.0 / (fan_in as f64).sqrt();
            let values = draws.iter().map(|u| ((2.0 * u - 1.0) * bound) as f32).collect();
            out.insert(name.to_string(), Tensor { shape, values });
        };
        match &node.op {
            Op::Linear { weight, bias } => {
                let fan_in = from.iter().product();
                uniform(weight, vec![channels, fan_in], fan_in);
                bias.iter().for_each(|b| uniform(b, vec![channels], fan_in));
            }
            Op::Conv { weight, bias, .. } => {
                let k = kernel(id);
                uniform(weight, vec![channels, from[0], k, k], from[0] * k * k);
                bias.iter().for_each(|b| uniform(b, vec![channels], from[0] * k * k));
            }
            Op::Norm { prefix, affine } => {
                let parts: &[(&str, f32)] = if *affine {
                    &[("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
                } else {
                    &[("running_mean", 0.0), ("running_var", 1.0)]
                };
                for (part, value) in parts {
                    out.insert(format!("{prefix}.{part}"), Tensor::filled(vec![channels], *value));
                }
            }
            _ => {}
        }
    }
    out
}

/// Trains in place, in batches drawn from (seed, epoch). BatchNorm uses the batch; reset its statistics afterwards with
/// [`reset_norms`](crate::reset_norms). Returns the mean training loss of the last pass.
///
/// # Errors
/// Samples that do not fit; settings out of range; a loss that becomes infinite; an interrupt.
pub fn train(
    net: &Net,
    params: &mut Params<f32>,
    data: &Labelled<'_, f32>,
    how: &Training,
    seed: u64,
    observer: &dyn Observer,
) -> Result<f64> {
    check(net, params, data)?;
    how.check()?;
    let per_sample = net.len_at(Net::INPUT);
    let mut optimizer = Optimizer::new(how.rule, how.lr, how.weight_decay);
    let order = Stream::new(seed, "batches");
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut loss = 0.0;
    for epoch in 0..how.epochs {
        loss = 0.0;
        for batch in order.rng(epoch as u64).permutation(data.y.len()).chunks(how.batch) {
            if observer.cancelled() {
                return Err(NetError::Cancelled);
            }
            x.clear();
            y.clear();
            for row in batch {
                x.extend_from_slice(&data.x[row * per_sample..(row + 1) * per_sample]);
                y.push(data.y[*row]);
            }
            let part = Labelled { x: &x, y: &y };
            let (sum, gradient) = batch_gradient(net, params, &part, batch.len(), Mode::Batch);
            optimizer.step(params, &gradient);
            loss += sum;
            observer.event(Event::Advance { steps: 1 });
        }
        loss /= data.y.len() as f64;
        if !loss.is_finite() {
            return Err(NetError::NonFinite { what: format!("training pass {}", epoch + 1) });
        }
    }
    Ok(loss)
}

impl Training {
    fn check(&self) -> Result<()> {
        let fail = |name, value: String, expected| Err(NetError::Parameter { name, value, expected });
        if self.batch == 0 {
            return fail("batch", self.batch.to_string(), "at least 1");
        }
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return fail("lr", self.lr.to_string(), "a positive number");
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return fail("weight-decay", self.weight_decay.to_string(), "at least 0");
        }
        Ok(())
    }

    /// Steps that a training on `n` samples takes.
    pub fn steps(&self, n: usize) -> u64 {
        (self.epochs * n.div_ceil(self.batch.max(1))) as u64
    }
}
