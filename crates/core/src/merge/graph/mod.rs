//! A permutation spec from a computation graph, such as an ONNX file describes.
//!
//! Every position of every axis of every value (parameters and what is computed from them) is an element. Each operation ties
//! elements that must move together: what a dense layer sums over ties its input's features to the weight's columns, a sum ties
//! its operands, a flatten ties positions to channels. Positions of inputs, outputs and constants are fixed. What hangs together
//! and is not fixed is a **wire**; wires with the same places and the same ties may change places with each other, and sets of
//! such wires are the perms. An operation that is not known fixes all it touches: fewer perms, still exact.
//!
//! A reshape that splits an axis lets one of the factors move and keeps the others in place: attention heads move as wholes.

mod axes;
mod bind;
mod fold;
mod normalize;
mod ops;
mod positions;
mod reshape;
mod spec;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::derive::Derived;
use super::error::{MergeError, Result};
use super::model::Model;
use super::tensor::Tensor;
use bind::Binding;
use walk::Walk;

/// What the derivation calls its source in messages.
pub(super) const FAMILY: &str = "a computation graph";
/// Splits of axes for which other factors are tried as the moving one; each try walks the graph once.
const MOST_SPLITS: usize = 256;

/// A computation graph: parameters, nodes in order of evaluation, what goes in and comes out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    /// Name and shape of every input; `None` where a dimension has no number (batches).
    pub inputs: Vec<(String, Vec<Option<usize>>)>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// Parameters and constants by name, in the order of the file. Data may be empty where they are not at hand.
    pub parameters: Vec<(String, Tensor)>,
    /// Operations.
    pub nodes: Vec<GraphNode>,
    /// Shapes that the file states for values in between.
    pub shapes: BTreeMap<String, Vec<Option<usize>>>,
}

/// An operation of a [`Graph`], with the names and meanings of ONNX's operators.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GraphNode {
    /// Its name, for messages.
    pub name: String,
    /// The operator, `Gemm` for example.
    pub op: String,
    /// Values it reads; an empty name is an input left out.
    pub inputs: Vec<String>,
    /// Values it makes.
    pub outputs: Vec<String>,
    /// Settings.
    pub attributes: BTreeMap<String, Attribute>,
}

/// A setting of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// Several.
    Ints(Vec<i64>),
    /// A number.
    Float(f32),
    /// Several.
    Floats(Vec<f32>),
    /// A word.
    Text(String),
    /// A constant.
    Tensor(Tensor),
    /// A graph of its own, which may read any value.
    Body,
    /// Anything else.
    Other,
}

/// Derives a spec for `model` from the graph that computes it. Parameters are found by name, or by value if the graph holds the
/// model's own (possibly transposed). With `residual`, perms that a normalisation of a network with attention sums over (its
/// residual stream) may move too. Cost: a few passes over the lengths of all axes.
///
/// # Errors
/// [`MergeError::Derivation`] naming the tensor: one of the model's that the graph does not have, an operation that is not known
/// and whose result has no stated shape, shapes that contradict each other.
pub fn derive_from_graph(graph: &Graph, model: &dyn Model, residual: bool) -> Result<Derived> {
    let binding = Binding::new(graph, model)?;
    let mut choices = Vec::new();
    let mut best = Walk::new(graph, &binding, &choices).run()?;
    let mut split = 0;
    while split < best.splits.len().min(MOST_SPLITS) {
        // Another factor is worth a try only where the chosen one stays.
        let tries = if best.splits[split].moves { 1 } else { best.splits[split].n };
        for factor in 1..tries {
            choices.resize(split + 1, 0);
            choices[split] = factor;
            let other = Walk::new(graph, &binding, &choices).run()?;
            if other.freedom() > best.freedom() {
                best = other;
                break;
            }
            choices[split] = 0;
        }
        split += 1;
    }
    let derived = best.derived(&binding, residual)?;
    if derived.spec.perms.is_empty() {
        return Err(MergeError::NoSpec { tried: "no units of the computation graph may change places".into() });
    }
    derived.spec.check()?;
    Ok(derived)
}

/// A tensor that does not fit.
fn refuse<T>(tensor: &str, detail: impl Into<String>) -> Result<T> {
    Err(MergeError::Derivation { family: FAMILY.into(), tensor: tensor.into(), detail: detail.into() })
}
