//! A network as a list of operations, each on the outputs of earlier ones.

use crate::error::{NetError, Result};

/// Added to a variance before its root, as in PyTorch.
pub const NORM_EPS: f64 = 1e-5;

/// Index of a node of a [`Net`].
pub type NodeId = usize;

/// Channels, height and width of one sample; a plain vector is `[n, 1, 1]`.
pub type Dims = [usize; 3];

/// A function applied to every value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `tanh x`.
    Tanh,
    /// `1 / (1 + e^−x)`.
    Sigmoid,
    /// `x Φ(x)`, by the tanh formula: within 5e-4 of the exact one.
    Gelu,
}

/// One operation; parameters are named.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// The samples.
    Input,
    /// `y = W x + b` on the flattened input.
    Linear {
        /// `(out, in)`.
        weight: String,
        /// `(out)`.
        bias: Option<String>,
    },
    /// Cross-correlation with square kernels.
    Conv {
        /// `(out, in, k, k)`.
        weight: String,
        /// `(out)`.
        bias: Option<String>,
        /// Step in both directions.
        stride: usize,
        /// Zeros added on every side.
        pad: usize,
    },
    /// BatchNorm over channels.
    Norm {
        /// `{prefix}.weight`, `.bias`, `.running_mean` and `.running_var`.
        prefix: String,
        /// Whether it has a weight and a bias.
        affine: bool,
    },
    /// An elementwise function.
    Act(Activation),
    /// Largest value of each window.
    MaxPool {
        /// Side of the window.
        size: usize,
        /// Step.
        stride: usize,
        /// Border, which never wins.
        pad: usize,
    },
    /// Mean over the cells of a grid of this height and width, as PyTorch's adaptive pooling.
    AvgPool {
        /// Height and width of the result.
        to: [usize; 2],
    },
    /// The sum of two nodes.
    Add,
    /// The parameter-free shortcut ("option A"): every `stride`-th position, zero channels around.
    Shortcut {
        /// Step.
        stride: usize,
        /// Zero channels before.
        before: usize,
        /// Zero channels after.
        after: usize,
    },
}

/// An operation, what it works on, and the shape of its result.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Nodes it works on.
    pub inputs: Vec<NodeId>,
    /// Shape of its result for one sample.
    pub dims: Dims,
}

/// A network: nodes in order of evaluation.
///
/// ```
/// use subspan_nets::{Activation, Net, Op};
/// let mut net = Net::new([4, 1, 1]);
/// let hidden = net.linear(Net::INPUT, "fc1", 8, true);
/// let hidden = net.act(hidden, Activation::Relu);
/// let logits = net.linear(hidden, "fc2", 3, true);
/// assert_eq!((net.output(), net.node(logits).dims), (logits, [3, 1, 1]));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Net {
    nodes: Vec<Node>,
}

impl Net {
    /// The node of the samples.
    pub const INPUT: NodeId = 0;

    /// A network without layers, for samples of the given shape.
    pub fn new(input: Dims) -> Self {
        Self { nodes: vec![Node { op: Op::Input, inputs: Vec::new(), dims: input }] }
    }

    /// All nodes in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The last node: the logits of a classifier.
    pub fn output(&self) -> NodeId {
        self.nodes.len() - 1
    }

    /// Values per sample at a node.
    pub fn len_at(&self, id: NodeId) -> usize {
        self.nodes[id].dims.iter().product()
    }

    /// Whether a BatchNorm is in the network.
    pub fn has_norm(&self) -> bool {
        self.nodes.iter().any(|n| matches!(n.op, Op::Norm { .. }))
    }

    /// The node that feeds the layer with this weight.
    pub fn input_of(&self, weight_name: &str) -> Option<NodeId> {
        self.layer_of(weight_name).map(|id| self.nodes[id].inputs[0])
    }

    /// The layer with this weight.
    pub fn layer_of(&self, weight_name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|n| n.op.weight() == Some(weight_name))
    }

    fn push(&mut self, op: Op, inputs: Vec<NodeId>, dims: Dims) -> NodeId {
        self.nodes.push(Node { op, inputs, dims });
        self.output()
    }

    /// Adds a dense layer `{prefix}.weight`, `{prefix}.bias`.
    pub fn linear(&mut self, from: NodeId, prefix: &str, out: usize, bias: bool) -> NodeId {
        let op = Op::Linear { weight: format!("{prefix}.weight"), bias: bias.then(|| format!("{prefix}.bias")) };
        self.push(op, vec![from], [out, 1, 1])
    }

    /// Adds a convolution `{prefix}.weight`, `{prefix}.bias` with kernels of side `size`.
    ///
    /// # Errors
    /// [`NetError::Architecture`] if the image is smaller than the kernel.
    pub fn conv(
        &mut self,
        from: NodeId,
        prefix: &str,
        out: usize,
        size: usize,
        [stride, pad]: [usize; 2],
        bias: bool,
    ) -> Result<NodeId> {
        let [_, h, w] = self.nodes[from].dims;
        let side = |n: usize| windows(n, size, stride, pad);
        let (Some(h), Some(w)) = (side(h), side(w)) else {
            return Err(NetError::architecture(format!("{prefix} sees images of {h} x {w}, smaller than its kernel")));
        };
        let bias = bias.then(|| format!("{prefix}.bias"));
        Ok(self.push(Op::Conv { weight: format!("{prefix}.weight"), bias, stride, pad }, vec![from], [out, h, w]))
    }

    /// Adds a BatchNorm with the parameters `{prefix}.*`.
    pub fn norm(&mut self, from: NodeId, prefix: &str, affine: bool) -> NodeId {
        self.push(Op::Norm { prefix: prefix.into(), affine }, vec![from], self.nodes[from].dims)
    }

    /// Adds an elementwise function.
    pub fn act(&mut self, from: NodeId, function: Activation) -> NodeId {
        self.push(Op::Act(function), vec![from], self.nodes[from].dims)
    }

    /// Adds a maximum over windows.
    ///
    /// # Errors
    /// [`NetError::Architecture`] if the image is smaller than the window.
    pub fn max_pool(&mut self, from: NodeId, size: usize, stride: usize, pad: usize) -> Result<NodeId> {
        let [c, h, w] = self.nodes[from].dims;
        let side = |n: usize| windows(n, size, stride, pad);
        let (Some(h), Some(w)) = (side(h), side(w)) else {
            return Err(NetError::architecture(format!("a maximum over {size} x {size} of an image of {h} x {w}")));
        };
        Ok(self.push(Op::MaxPool { size, stride, pad }, vec![from], [c, h, w]))
    }

    /// Adds a mean over a grid of cells; `[1, 1]` is the global mean.
    pub fn avg_pool(&mut self, from: NodeId, to: [usize; 2]) -> NodeId {
        self.push(Op::AvgPool { to }, vec![from], [self.nodes[from].dims[0], to[0], to[1]])
    }

    /// Adds a sum.
    ///
    /// # Errors
    /// [`NetError::Architecture`] if the shapes differ.
    pub fn add(&mut self, a: NodeId, b: NodeId) -> Result<NodeId> {
        let (x, y) = (self.nodes[a].dims, self.nodes[b].dims);
        if x != y {
            return Err(NetError::architecture(format!("a sum of shapes {x:?} and {y:?}")));
        }
        Ok(self.push(Op::Add, vec![a, b], x))
    }

    /// Adds a parameter-free shortcut to `channels` channels, with zeros on both sides.
    ///
    /// # Errors
    /// [`NetError::Architecture`] if the zeros cannot be shared evenly.
    pub fn shortcut(&mut self, from: NodeId, channels: usize, stride: usize) -> Result<NodeId> {
        let [c, h, w] = self.nodes[from].dims;
        if channels < c || !(channels - c).is_multiple_of(2) {
            return Err(NetError::architecture(format!("a shortcut from {c} to {channels} channels")));
        }
        let before = (channels - c) / 2;
        let op = Op::Shortcut { stride, before, after: before };
        Ok(self.push(op, vec![from], [channels, h.div_ceil(stride), w.div_ceil(stride)]))
    }
}

impl Op {
    /// The weight of a dense or convolutional layer.
    pub fn weight(&self) -> Option<&str> {
        match self {
            Self::Linear { weight, .. } | Self::Conv { weight, .. } => Some(weight),
            _ => None,
        }
    }

    /// The bias of a dense or convolutional layer.
    pub fn bias(&self) -> Option<&str> {
        match self {
            Self::Linear { bias, .. } | Self::Conv { bias, .. } => bias.as_deref(),
            _ => None,
        }
    }
}

/// Number of windows of `size` along `n` positions.
fn windows(n: usize, size: usize, stride: usize, pad: usize) -> Option<usize> {
    (n + 2 * pad).checked_sub(size).map(|free| free / stride + 1)
}
