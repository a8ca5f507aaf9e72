//! Training of a convolutional backbone on images without labels: features that views of an image share.
//!
//! Two views of every image (see [`Augmentation`]) go through a backbone and a small head; the loss raises the coding rate of
//! their unit mean, so that images spread out, and pulls the two views together (the first stage of Ding et al., "Unsupervised
//! manifold linearizing and clustering", ICCV 2023, after Li et al., "Neural manifold clustering and embedding", 2022). The head is then
//! thrown away; images are clustered by the features of the backbone.

use rayon::prelude::*;
use subspan::cluster::learn::{Step, Views, spread_step};
use subspan::cluster::rate::check_precision;
use subspan::cluster::{Backbone, Convolution, Features};
use subspan::draw::Stream;
use subspan::{Error, Event, Observer, Result};
use subspan_linalg::Real;

use crate::augment::{Augmentation, ViewKey};
use crate::error::NetError;
use crate::evaluate::Labelled;
use crate::forward::{Keep, Mode};
use crate::graph::{Activation, Dims, NORM_EPS, Net, NodeId, Op};
use crate::input::interleaved;
use crate::manifold::drawn;
use crate::optimize::{Optimizer, Rule};
use crate::repair::reset_norms;
use crate::tensor::Params;
use crate::train::initialize;

/// A convolutional network whose last layer is averaged over all places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trunk {
    /// Four blocks of a 3 x 3 convolution of stride 2, BatchNorm and a rectifier: 32, 64, 128 and 256 channels.
    Conv4,
    /// ResNet-18 with the stem for small images: 3 x 3, stride 1, no pooling (He et al., arXiv 1512.03385).
    ResNet18,
}

/// Settings of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pixels {
    /// The network.
    pub trunk: Trunk,
    /// Passes over the images.
    pub epochs: usize,
    /// Images per step at most, each in two views; few images are shared among several steps, see [`Pixels::images_per_step`].
    pub batch_size: usize,
    /// Units of the head's hidden layer.
    pub hidden: usize,
    /// Values that the head puts out.
    pub n_dims: usize,
    /// Adam's learning rate at the start; it falls to zero along a cosine.
    pub lr: f32,
    /// Squared precision of the coding rate.
    pub eps2: f64,
    /// Weight of the similarity of both views.
    pub similarity: f64,
    /// Limits of the views.
    pub augmentation: Augmentation,
}

impl Pixels {
    /// The usual number of passes.
    pub const EPOCHS: usize = 10;

    /// The usual settings for images of so many channels.
    pub fn usual(channels: usize) -> Self {
        Self {
            trunk: Trunk::Conv4,
            epochs: Self::EPOCHS,
            batch_size: 250,
            hidden: 256,
            n_dims: 64,
            lr: 1e-3,
            eps2: 0.2,
            similarity: 50.0,
            augmentation: Augmentation::usual(channels),
        }
    }
}

/// Sides of images: smaller ones have no fourth block, larger ones take more memory than a training of small images should.
const SIDES: std::ops::RangeInclusive<usize> = 8..=96;
/// Fewest images whose rate says anything.
const MIN_IMAGES: usize = 16;

/// Trains a backbone on images (`n x height x width x channels`, any scale), drawn as often as their weights say (empty: all alike).
/// The same seed gives the same bits on any number of threads.
///
/// # Errors
/// [`Error::Parameter`] for images of another kind or settings out of range, [`Error::TooFewRows`], [`Error::Constant`] for images
/// without contrast, [`Error::Shape`] and [`Error::NonFinite`] for values that are no whole images or no numbers, [`Error::Diverged`], [`Error::Cancelled`].
///
/// # Panics
/// If there are weights, but not one per image.
pub fn train_backbone(
    images: &[f32],
    shape: [usize; 3],
    weights: &[f64],
    settings: &Pixels,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Backbone> {
    let [height, width, channels] = shape;
    settings.check(shape)?;
    let n = Features::new(images, height * width * channels)?.n_rows();
    assert!(weights.is_empty() || weights.len() == n, "one weight per image");
    if n < MIN_IMAGES {
        return Err(Error::TooFewRows { found: n, needed: MIN_IMAGES, hint: Some("--features raw needs no training") });
    }
    let [mean, deviation] = normalisation(images, channels)?;
    // Channel by channel, as networks take them.
    let mut pixels = interleaved(images, channels, height * width);
    for (i, plane) in pixels.chunks_exact_mut(height * width).enumerate() {
        let (m, s) = (mean[i % channels], deviation[i % channels]);
        plane.iter_mut().for_each(|v| *v = (*v - m) / s);
    }
    let twin = Network::new([channels, height, width], settings)?;
    let mut params = twin.start(seed);
    twin.train(&mut params, &pixels, weights, settings, seed, observer)?;
    let labels = vec![0; n];
    reset_norms(&twin.net, &mut params, &Labelled { x: &pixels, y: &labels }, observer).map_err(NetError::into_core)?;
    Backbone::new(shape, mean, deviation, twin.folded(&params))
}

impl Pixels {
    /// Images of a step: at least eight steps a pass, unless they would see fewer than 64 images.
    pub fn images_per_step(&self, n: usize) -> usize {
        self.batch_size.min((n / 8).max(64)).min(n)
    }

    fn check(&self, [height, width, channels]: [usize; 3]) -> Result<()> {
        if ![height, width].iter().all(|s| SIDES.contains(s)) || ![1, 3].contains(&channels) {
            let expected = format!("images of sides {} to {} and 1 or 3 channels", SIDES.start(), SIDES.end());
            return Err(NetError::Input { found: vec![channels, height, width], expected }.into_core());
        }
        for (name, value) in [("epochs", self.epochs), ("batch size", self.batch_size), ("n_dims", self.n_dims)] {
            if value == 0 {
                return Err(Error::parameter(name, value, "at least 1"));
            }
        }
        check_precision(self.eps2)
    }
}

/// Mean and standard deviation of every channel.
fn normalisation(images: &[f32], channels: usize) -> Result<[Vec<f32>; 2]> {
    let count = (images.len() / channels) as f64;
    let each = |c: usize, f: &dyn Fn(f64) -> f64| -> f64 {
        images.iter().skip(c).step_by(channels).map(|v| f(f64::from(*v))).sum::<f64>() / count
    };
    let mean: Vec<f64> = (0..channels).map(|c| each(c, &|v| v)).collect();
    let deviation: Vec<f64> = (0..channels).map(|c| each(c, &|v| (v - mean[c]).powi(2)).sqrt()).collect();
    if deviation.iter().all(|s| *s == 0.0) {
        return Err(Error::Constant);
    }
    // A channel without contrast stays so.
    let narrow = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect::<Vec<_>>();
    Ok([narrow(mean), narrow(deviation.into_iter().map(|s| if s > 0.0 { s } else { 1.0 }).collect())])
}

/// A backbone with the head it is trained through.
struct Network {
    net: Net,
    /// The last layer before the mean over all places.
    last: NodeId,
    projected: NodeId,
    /// Sides of kernels, by node.
    kernels: Vec<usize>,
}

impl Network {
    fn new(input: Dims, settings: &Pixels) -> Result<Self> {
        let mut net = Net::new(input);
        let last = match settings.trunk {
            Trunk::Conv4 => conv4(&mut net),
            Trunk::ResNet18 => resnet18(&mut net),
        };
        let last = last.map_err(NetError::into_core)?;
        let mean = net.avg_pool(last, [1, 1]);
        let hidden = net.linear(mean, "head.0", settings.hidden, true);
        let hidden = net.norm(hidden, "head.1", true);
        let hidden = net.act(hidden, Activation::Relu);
        let projected = net.linear(hidden, "head.2", settings.n_dims, true);
        // Projections of shortcuts are 1 x 1, all others 3 x 3.
        let side = |op: &Op| if op.weight().is_some_and(|w| w.contains("downsample")) { 1 } else { 3 };
        let kernels = net.nodes().iter().map(|n| side(&n.op)).collect();
        Ok(Self { net, last, projected, kernels })
    }

    fn start(&self, seed: u64) -> Params<f32> {
        initialize(&self.net, |id| self.kernels[id], seed)
    }

    fn train(
        &self,
        params: &mut Params<f32>,
        pixels: &[f32],
        weights: &[f64],
        settings: &Pixels,
        seed: u64,
        observer: &dyn Observer,
    ) -> Result<()> {
        let dims = self.net.node(Net::INPUT).dims;
        let len = self.net.len_at(Net::INPUT);
        let n = pixels.len() / len;
        let size = settings.images_per_step(n);
        let steps = settings.epochs * (n / size);
        observer.event(Event::Phase { name: "train", total: Some(steps as u64) });
        let mut adam = Optimizer::new(Rule::Adam, settings.lr, 0.0);
        let mut step = 0;
        let mut batch = vec![0f32; 2 * size * len];
        for pass in 0..settings.epochs {
            let mut rng = Stream::new(seed, "image batches").rng(pass as u64);
            let drawn = drawn(n, weights, &mut rng);
            let order: Vec<usize> = rng.permutation(n).into_iter().map(|i| drawn[i]).collect();
            for own in order.chunks_exact(size) {
                if observer.cancelled() {
                    return Err(Error::Cancelled);
                }
                batch.par_chunks_exact_mut(len).enumerate().for_each(|(at, out)| {
                    let (index, view) = (own[at % size], (at / size) as u64);
                    let key = ViewKey { seed, pass: pass as u64, index: index as u64, view };
                    settings.augmentation.view(&pixels[index * len..(index + 1) * len], dims, key, out);
                });
                adam.lr = settings.lr * (0.5 + 0.5 * (std::f32::consts::PI * step as f32 / steps as f32).cos());
                let (_, gradient) = self.gradient(params, &batch, settings).map_err(|e| match e {
                    Error::Linalg(_) => Error::Diverged { epoch: pass, lr: f64::from(settings.lr) },
                    other => other,
                })?;
                adam.step(params, &gradient);
                step += 1;
                observer.event(Event::Advance { steps: 1 });
            }
        }
        Ok(())
    }

    /// What the loss's owner says of a step, and the gradient with respect to the parameters, on a batch of first views followed by as many second views.
    fn gradient<T: Real>(&self, params: &Params<T>, batch: &[T], settings: &Pixels) -> Result<(Step, Params<T>)> {
        let trace = self.net.trace(params, batch, Mode::Batch, Keep::All);
        let z: Vec<f32> = trace.values(self.projected).iter().map(|v| v.to_f64() as f32).collect();
        let (a, b) = z.split_at(z.len() / 2);
        let views = Views { features: [a, b], clusters: [&[], &[]], n_dims: settings.n_dims };
        let step = spread_step(&views, settings.eps2, settings.similarity)?;
        let seed = step.features.iter().flatten().map(|v| T::from_f64(f64::from(*v))).collect();
        let gradient = self.net.backward(params, &trace, vec![(self.projected, seed)]);
        Ok((step, gradient))
    }

    /// The layers of the backbone with BatchNorm folded into them.
    fn folded(&self, params: &Params<f32>) -> Vec<Convolution> {
        let mut layers: Vec<Convolution> = Vec::new();
        // What the value of each node is called in the backbone: 0 the image, `i + 1` the result of layer `i`.
        let mut result = vec![0; self.last + 1];
        for (id, node) in self.net.nodes().iter().enumerate().take(self.last + 1).skip(1) {
            let from = result[node.inputs[0]];
            result[id] = match &node.op {
                Op::Conv { weight, stride, .. } => {
                    layers.push(unfolded(params, weight, from, *stride));
                    layers.len()
                }
                Op::Norm { prefix, .. } => {
                    fold(&mut layers[from - 1], params, prefix);
                    from
                }
                Op::Add => {
                    // The later layer adds the result of the earlier one.
                    let other = result[node.inputs[1]];
                    layers[from.max(other) - 1].add = Some(from.min(other));
                    from.max(other)
                }
                _ => {
                    layers[from - 1].rectified = true;
                    from
                }
            };
        }
        layers
    }
}

/// A convolution with its kernels arranged for images stored pixel by pixel.
fn unfolded(params: &Params<f32>, weight: &str, from: usize, stride: usize) -> Convolution {
    let tensor = &params[weight];
    let [out, inputs, size] = [tensor.shape[0], tensor.shape[1], tensor.shape[2]];
    let area = size * size;
    let kernels = (0..out * area * inputs)
        .map(|at| tensor.values[(at / (area * inputs) * inputs + at % inputs) * area + at / inputs % area])
        .collect();
    Convolution { from, add: None, rectified: false, size, stride, kernels, bias: vec![0.0; out] }
}

/// Folds a BatchNorm with its running statistics into the layer before it.
fn fold(layer: &mut Convolution, params: &Params<f32>, prefix: &str) {
    let part = |name: &str| &params[&format!("{prefix}.{name}")].values;
    let (gain, shift, mean, var) = (part("weight"), part("bias"), part("running_mean"), part("running_var"));
    let taps = layer.kernels.len() / layer.bias.len();
    for (o, kernel) in layer.kernels.chunks_exact_mut(taps).enumerate() {
        let scale = gain[o] / (f64::from(var[o]) + NORM_EPS).sqrt() as f32;
        kernel.iter_mut().for_each(|w| *w *= scale);
        layer.bias[o] = shift[o] - mean[o] * scale;
    }
}

/// A convolution and its BatchNorm.
fn block(
    net: &mut Net,
    from: NodeId,
    prefix: [&str; 2],
    out: usize,
    size: usize,
    stride: usize,
) -> crate::Result<NodeId> {
    let at = net.conv(from, prefix[0], out, size, [stride, size / 2], false)?;
    Ok(net.norm(at, prefix[1], true))
}

fn conv4(net: &mut Net) -> crate::Result<NodeId> {
    let mut at = Net::INPUT;
    for (i, out) in [32, 64, 128, 256].into_iter().enumerate() {
        at = block(net, at, [&format!("conv{i}"), &format!("bn{i}")], out, 3, 2)?;
        at = net.act(at, Activation::Relu);
    }
    Ok(at)
}

/// Torchvision's names, except for the stem.
fn resnet18(net: &mut Net) -> crate::Result<NodeId> {
    let mut at = block(net, Net::INPUT, ["conv1", "bn1"], 64, 3, 1)?;
    at = net.act(at, Activation::Relu);
    for (stage, out) in [64, 128, 256, 512].into_iter().enumerate() {
        for i in 0..2 {
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            let name = |part: &str| format!("layer{}.{i}.{part}", stage + 1);
            let first = block(net, at, [&name("conv1"), &name("bn1")], out, 3, stride)?;
            let first = net.act(first, Activation::Relu);
            let second = block(net, first, [&name("conv2"), &name("bn2")], out, 3, 1)?;
            let side = if stride == 1 {
                at
            } else {
                block(net, at, [&name("downsample.0"), &name("downsample.1")], out, 1, stride)?
            };
            let sum = net.add(second, side)?;
            at = net.act(sum, Activation::Relu);
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests;
