//! Tensors grouped into the modules they belong to.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::error::{NetError, Result};

/// A layer as a checkpoint stores it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Module {
    /// Name of its tensors up to the last dot.
    pub(crate) prefix: String,
    /// Shape of its weight; empty for a BatchNorm without one.
    pub(crate) weight: Vec<usize>,
    pub(crate) bias: bool,
    /// Channels of its running statistics.
    pub(crate) norm: Option<usize>,
}

impl Module {
    pub(crate) fn owns(&self, tensor: &str) -> bool {
        tensor.rsplit_once('.').is_some_and(|(prefix, _)| prefix == self.prefix)
    }

    pub(crate) fn is_linear(&self) -> bool {
        self.norm.is_none() && self.weight.len() == 2
    }

    pub(crate) fn is_conv(&self) -> bool {
        self.norm.is_none() && self.weight.len() == 4
    }

    /// Whether a BatchNorm has a weight and a bias.
    pub(crate) fn affine(&self) -> bool {
        !self.weight.is_empty()
    }

    pub(crate) fn n_out(&self) -> usize {
        self.norm.unwrap_or_else(|| self.weight[0])
    }

    pub(crate) fn n_in(&self) -> usize {
        self.weight[1]
    }

    /// The prefix without digits: layers of one stem are numbered.
    pub(crate) fn stem(&self) -> String {
        self.prefix.chars().filter(|c| !c.is_ascii_digit()).collect()
    }

    /// The digits of the prefix.
    pub(crate) fn digits(&self) -> Vec<usize> {
        self.prefix.split(|c: char| !c.is_ascii_digit()).filter_map(|d| d.parse().ok()).collect()
    }

    /// The number that is the last part of the prefix, as in an `nn.Sequential`.
    pub(crate) fn index(&self) -> Option<usize> {
        self.prefix.rsplit('.').next()?.parse().ok()
    }
}

/// All modules in natural order (`layer2` before `layer10`).
pub(crate) fn modules(shapes: &[(String, Vec<usize>)]) -> Result<Vec<Module>> {
    let mut found: BTreeMap<&str, Module> = BTreeMap::new();
    for (name, shape) in shapes {
        let unknown = |what: &str| Err(NetError::architecture(format!("tensor {name} of shape {shape:?} {what}")));
        let Some((prefix, part)) = name.rsplit_once('.') else { return unknown("has no layer's name") };
        let module = found.entry(prefix).or_insert_with(|| Module {
            prefix: prefix.into(),
            weight: Vec::new(),
            bias: false,
            norm: None,
        });
        match part {
            "weight" => module.weight.clone_from(shape),
            "bias" => module.bias = true,
            "running_mean" | "running_var" => module.norm = shape.first().copied(),
            "num_batches_tracked" => {}
            _ => return unknown("is no weight, bias or running statistic"),
        }
    }
    let mut out: Vec<Module> = found.into_values().collect();
    for m in &out {
        let fits = match m.norm {
            Some(_) => m.weight.len() <= 1,
            None => m.is_linear() || m.is_conv() && m.weight[2] == m.weight[3],
        };
        if !fits || m.weight.contains(&0) {
            return Err(NetError::architecture(format!(
                "tensor {}.weight of shape {:?} is of no dense, convolutional or BatchNorm layer",
                m.prefix, m.weight
            )));
        }
    }
    out.sort_by(|a, b| natural(&a.prefix, &b.prefix));
    Ok(out)
}

/// Compares names so that runs of digits count as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let parts = |s: &str| -> Vec<(String, u64)> {
        let mut out = Vec::new();
        let mut rest = s;
        while !rest.is_empty() {
            let (text, tail) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
            let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
            out.push((text.to_string(), tail[..end].parse().unwrap_or(0)));
            rest = &tail[end..];
        }
        out
    };
    parts(a).cmp(&parts(b)).then_with(|| a.cmp(b))
}
