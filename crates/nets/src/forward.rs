//! Evaluation of a network on a batch, forwards.

use std::collections::BTreeMap;

use subspan_linalg::Real;

use crate::error::{NetError, Result};
use crate::graph::{Net, Node, NodeId, Op};
use crate::layers::conv::Geometry;
use crate::layers::norm::Moments;
use crate::layers::{act, conv, linear, norm, pool};
use crate::tensor::Params;

/// Which statistics BatchNorm uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The running statistics among the parameters.
    Eval,
    /// Those of the batch, as in training.
    Batch,
}

/// Which values a forward pass keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep<'a> {
    /// All, for [`Net::backward`].
    All,
    /// Those of these nodes.
    Nodes(&'a [NodeId]),
}

/// What a forward pass computed.
#[derive(Debug, Clone)]
pub struct Trace<T> {
    pub(crate) n: usize,
    pub(crate) mode: Mode,
    values: Vec<Vec<T>>,
    pub(crate) norms: BTreeMap<NodeId, Moments>,
}

impl<T> Trace<T> {
    /// Number of samples.
    pub fn n_samples(&self) -> usize {
        self.n
    }

    /// The values of a node, one sample per row; empty if they were not kept.
    pub fn values(&self, id: NodeId) -> &[T] {
        &self.values[id]
    }

    /// Takes the values of a node out.
    pub fn take(&mut self, id: NodeId) -> Vec<T> {
        std::mem::take(&mut self.values[id])
    }
}

impl Net {
    /// The name and shape of every parameter the network uses; zero stands for any size.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let mut out = Vec::new();
        for node in &self.nodes()[1..] {
            let from = self.node(node.inputs[0]).dims;
            let channels = node.dims[0];
            match &node.op {
                Op::Linear { weight, bias } => {
                    out.push((weight.clone(), vec![channels, from.iter().product()]));
                    out.extend(bias.iter().map(|b| (b.clone(), vec![channels])));
                }
                Op::Conv { weight, bias, .. } => {
                    out.push((weight.clone(), vec![channels, from[0], 0, 0]));
                    out.extend(bias.iter().map(|b| (b.clone(), vec![channels])));
                }
                Op::Norm { prefix, affine } => {
                    let parts: &[&str] = if *affine {
                        &["weight", "bias", "running_mean", "running_var"]
                    } else {
                        &["running_mean", "running_var"]
                    };
                    out.extend(parts.iter().map(|p| (format!("{prefix}.{p}"), vec![channels])));
                }
                _ => {}
            }
        }
        out
    }

    /// Checks that all parameters are there, with the right shapes.
    ///
    /// # Errors
    /// [`NetError::Missing`], [`NetError::Shape`].
    pub fn check<T>(&self, params: &Params<T>) -> Result<()> {
        for (name, expected) in self.parameters() {
            let Some(tensor) = params.get(&name) else { return Err(NetError::Missing { tensor: name }) };
            let fits = tensor.shape.len() == expected.len()
                && tensor.shape.iter().zip(&expected).all(|(s, e)| *e == 0 || s == e)
                && (tensor.shape.len() < 4 || tensor.shape[2] == tensor.shape[3]);
            if !fits {
                return Err(NetError::Shape { tensor: name, found: tensor.shape.clone(), expected });
            }
        }
        Ok(())
    }

    /// The values of the last node for a batch of samples, one row each.
    ///
    /// # Panics
    /// If the parameters do not pass [`Net::check`] or the samples have another length.
    pub fn forward<T: Real>(&self, params: &Params<T>, x: &[T]) -> Vec<T> {
        self.trace(params, x, Mode::Eval, Keep::Nodes(&[self.output()])).take(self.output())
    }

    /// A forward pass that keeps what later work needs.
    ///
    /// # Panics
    /// If the parameters do not pass [`Net::check`] or the samples have another length.
    pub fn trace<T: Real>(&self, params: &Params<T>, x: &[T], mode: Mode, keep: Keep<'_>) -> Trace<T> {
        self.trace_until(params, x, mode, keep, self.output())
    }

    /// [`Net::trace`] that stops after node `last`.
    pub(crate) fn trace_until<T: Real>(
        &self,
        params: &Params<T>,
        x: &[T],
        mode: Mode,
        keep: Keep<'_>,
        last: NodeId,
    ) -> Trace<T> {
        let per_sample = self.len_at(Self::INPUT);
        assert!(x.len().is_multiple_of(per_sample), "whole samples of {per_sample} values");
        let mut last_use = vec![0; self.nodes().len()];
        for (id, node) in self.nodes().iter().enumerate() {
            node.inputs.iter().for_each(|i| last_use[*i] = id);
        }
        let kept = |id: NodeId| match keep {
            Keep::All => true,
            Keep::Nodes(nodes) => nodes.contains(&id),
        };
        let n = x.len() / per_sample;
        let mut trace = Trace { n, mode, values: vec![Vec::new(); self.nodes().len()], norms: BTreeMap::new() };
        trace.values[Self::INPUT] = x.to_vec();
        for id in 1..=last {
            // An elementwise operation works in place where its input is needed no more.
            let from = self.node(id).inputs[0];
            let free = last_use[from] == id && !kept(from);
            let owned = match self.node(id).op {
                Op::Act(_) | Op::Norm { .. } if free => trace.take(from),
                Op::Act(_) | Op::Norm { .. } => trace.values[from].clone(),
                _ => Vec::new(),
            };
            trace.values[id] = self.apply(id, params, owned, &mut trace);
            for input in &self.node(id).inputs {
                if last_use[*input] == id && !kept(*input) {
                    trace.values[*input] = Vec::new();
                }
            }
        }
        trace
    }

    fn apply<T: Real>(&self, id: NodeId, params: &Params<T>, mut owned: Vec<T>, trace: &mut Trace<T>) -> Vec<T> {
        let Node { op, inputs, dims } = self.node(id);
        let from = self.node(inputs[0]).dims;
        let x = &trace.values[inputs[0]];
        let get = |name: &String| params[name].values.as_slice();
        match op {
            Op::Input => owned,
            Op::Linear { weight, bias } => {
                linear::forward(x, get(weight), bias.as_ref().map(get), from.iter().product())
            }
            Op::Conv { weight, bias, .. } => {
                conv::forward(x, get(weight), bias.as_ref().map(get), &self.geometry(id, params))
            }
            Op::Norm { prefix, affine } => {
                let part = |p: &str| get(&format!("{prefix}.{p}"));
                let affine = affine.then(|| (part("weight"), part("bias")));
                let places = from[1] * from[2];
                match trace.mode {
                    Mode::Eval => {
                        let wide = |p: &str| -> Vec<f64> { part(p).iter().map(|v| v.to_f64()).collect() };
                        norm::forward(&mut owned, places, &wide("running_mean"), &wide("running_var"), affine);
                    }
                    Mode::Batch => {
                        let moments = norm::moments(&owned, from[0], places);
                        norm::forward(&mut owned, places, &moments.mean, &moments.var, affine);
                        trace.norms.insert(id, moments);
                    }
                }
                owned
            }
            Op::Act(function) => {
                act::forward(&mut owned, *function);
                owned
            }
            Op::MaxPool { size, stride, pad } => pool::max(x, from, *dims, [*size, *stride, *pad]),
            Op::AvgPool { .. } => pool::mean(x, from, *dims),
            Op::Add => x.iter().zip(&trace.values[inputs[1]]).map(|(a, b)| *a + *b).collect(),
            Op::Shortcut { stride, before, .. } => pool::shortcut(x, from, *dims, *stride, *before),
        }
    }

    pub(crate) fn geometry<T>(&self, id: NodeId, params: &Params<T>) -> Geometry {
        let node = self.node(id);
        let Op::Conv { weight, stride, pad, .. } = &node.op else { unreachable!("only convolutions have a geometry") };
        Geometry {
            input: self.node(node.inputs[0]).dims,
            output: node.dims,
            size: params[weight].shape[2],
            stride: *stride,
            pad: *pad,
        }
    }
}
