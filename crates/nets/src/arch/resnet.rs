//! Residual networks with torchvision's names: `conv1`, `bn1`, `layer{stage}.{block}.conv{n}`, `.bn{n}`, a shortcut of a
//! convolution and a BatchNorm under `.downsample` or `.shortcut` (or none: option A), and one dense layer.

use crate::error::{NetError, Result};
use crate::graph::{Activation, Dims, Net, NodeId};

use super::modules::Module;

/// Stages of blocks between a stem and a dense layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResNet {
    stem: Pair,
    /// Per stage, per block.
    stages: Vec<Vec<Block>>,
    head: Module,
}

/// A convolution and its BatchNorm.
type Pair = (Module, Module);

#[derive(Debug, Clone, PartialEq)]
struct Block {
    layers: Vec<Pair>,
    projection: Option<Pair>,
}

impl ResNet {
    /// `None` if the names are of another kind.
    pub(crate) fn recognise(modules: &[Module]) -> Result<Option<Self>> {
        if !modules.iter().any(|m| m.prefix == "layer1.0.conv1") {
            return Ok(None);
        }
        let find = |prefix: &str| modules.iter().find(|m| m.prefix == prefix);
        let missing = |what: &str| NetError::architecture(format!("a residual network without {what}"));
        let pair = |conv: String, norm: String| -> Result<Option<Pair>> {
            let Some(conv) = find(&conv).filter(|m| m.is_conv()) else { return Ok(None) };
            let norm = find(&norm).filter(|n| n.norm == Some(conv.n_out()));
            let norm = norm.ok_or_else(|| missing(&format!("a BatchNorm that fits {}.weight", conv.prefix)))?;
            Ok(Some((conv.clone(), norm.clone())))
        };
        let stem = pair("conv1".into(), "bn1".into())?.ok_or_else(|| missing("conv1.weight"))?;
        let mut heads = modules.iter().filter(|m| m.is_linear());
        let (Some(head), None) = (heads.next(), heads.next()) else {
            return Err(missing("exactly one dense layer"));
        };
        let block = |at: &str| -> Result<Option<Block>> {
            let mut layers = Vec::new();
            while let Some(layer) =
                pair(format!("{at}.conv{}", layers.len() + 1), format!("{at}.bn{}", layers.len() + 1))?
            {
                layers.push(layer);
            }
            let mut projection = None;
            for name in ["downsample", "shortcut"] {
                projection = projection.or(pair(format!("{at}.{name}.0"), format!("{at}.{name}.1"))?);
            }
            Ok((!layers.is_empty()).then_some(Block { layers, projection }))
        };
        let mut stages = Vec::new();
        loop {
            let mut blocks = Vec::new();
            while let Some(found) = block(&format!("layer{}.{}", stages.len() + 1, blocks.len()))? {
                blocks.push(found);
            }
            if blocks.is_empty() {
                break;
            }
            stages.push(blocks);
        }
        Ok(Some(Self { stem, stages, head: head.clone() }))
    }

    pub(crate) fn image_channels(&self) -> usize {
        self.stem.0.n_in()
    }

    pub(crate) fn build(&self, input: Dims) -> Result<Net> {
        let mut net = Net::new(input);
        let (conv, norm) = &self.stem;
        if input[0] != conv.n_in() {
            let expected = format!("images of {} channels", conv.n_in());
            return Err(NetError::Input { found: input.to_vec(), expected });
        }
        // Kernels of 7 x 7 are ImageNet's stem: stride 2, and a pooling.
        let imagenet = conv.weight[2] == 7;
        let mut at = layer(&mut net, Net::INPUT, conv, norm, if imagenet { 2 } else { 1 })?;
        at = net.act(at, Activation::Relu);
        if imagenet {
            at = net.max_pool(at, 3, 2, 1)?;
        }
        for (stage, blocks) in self.stages.iter().enumerate() {
            for (i, block) in blocks.iter().enumerate() {
                at = block.build(&mut net, at, if stage > 0 && i == 0 { 2 } else { 1 })?;
            }
        }
        at = net.avg_pool(at, [1, 1]);
        let (channels, prefix, n_in) = (net.node(at).dims[0], &self.head.prefix, self.head.n_in());
        if n_in != channels {
            let what = format!("{prefix}.weight takes {n_in} values, the last stage has {channels} channels");
            return Err(NetError::architecture(what));
        }
        net.linear(at, prefix, self.head.n_out(), self.head.bias);
        Ok(net)
    }
}

impl Block {
    fn build(&self, net: &mut Net, from: NodeId, stride: usize) -> Result<NodeId> {
        let mut at = from;
        // A bottleneck steps in its 3 x 3 convolution, a basic block in its first.
        let steps_at = if self.layers.len() == 3 { 1 } else { 0 };
        for (i, (conv, norm)) in self.layers.iter().enumerate() {
            if i > 0 {
                at = net.act(at, Activation::Relu);
            }
            at = layer(net, at, conv, norm, if i == steps_at { stride } else { 1 })?;
        }
        let channels = net.node(at).dims[0];
        let side = match &self.projection {
            Some((conv, norm)) => layer(net, from, conv, norm, stride)?,
            None if stride == 1 && net.node(from).dims[0] == channels => from,
            None => net.shortcut(from, channels, stride)?,
        };
        let sum = net.add(at, side)?;
        Ok(net.act(sum, Activation::Relu))
    }
}

fn layer(net: &mut Net, from: NodeId, conv: &Module, norm: &Module, stride: usize) -> Result<NodeId> {
    let (found, expected) = (conv.n_in(), net.node(from).dims[0]);
    if found != expected {
        return Err(NetError::architecture(format!("{}.weight takes {found} channels, {expected} come", conv.prefix)));
    }
    let size = conv.weight[2];
    let at = net.conv(from, &conv.prefix, conv.n_out(), size, [stride, size / 2], conv.bias)?;
    Ok(net.norm(at, &norm.prefix, norm.affine()))
}

impl std::fmt::Display for ResNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let layers: usize = self.stages.iter().flatten().map(|b| b.layers.len()).sum();
        let widths: Vec<String> =
            self.stages.iter().filter_map(|s| s[0].layers.last()).map(|(c, _)| c.n_out().to_string()).collect();
        let projected = self.stages.iter().flatten().any(|b| b.projection.is_some());
        let shortcut = if projected { "projection" } else { "parameter-free" };
        write!(f, "resnet-{} {}, {shortcut} shortcuts", layers + 2, widths.join("-"))
    }
}
