//! Which parameter of a graph is which tensor of the model.

use std::collections::BTreeMap;

use super::super::error::Result;
use super::super::model::Model;
use super::super::tensor::{Tensor, TensorView};
use super::{Graph, refuse};

/// A tensor of the model as the graph has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) tensor: String,
    /// Whether the graph holds the transposed matrix.
    pub(super) transposed: bool,
}

/// Parameters of the graph with their tensors.
#[derive(Debug, Default)]
pub(super) struct Binding {
    pub(super) by_parameter: BTreeMap<String, Bound>,
    /// Tensors that repeat another one's values: tied weights, which a graph holds once.
    pub(super) copies: Vec<(String, String)>,
}

impl Binding {
    pub(super) fn new(graph: &Graph, model: &dyn Model) -> Result<Self> {
        let mut out = Self::default();
        for (name, parameter) in &graph.parameters {
            let Some(view) = model.tensor(name) else { continue };
            if view.shape != parameter.shape {
                let detail = format!("has shape {:?}, in the graph {:?}", view.shape, parameter.shape);
                return refuse(name, detail);
            }
            out.by_parameter.insert(name.clone(), Bound { tensor: name.clone(), transposed: false });
        }
        let names = model.names();
        let missing = |out: &Self, name: &str| !out.by_parameter.values().any(|b| b.tensor == name);
        let mut left: Vec<TensorView<'_>> =
            names.iter().filter(|n| missing(&out, n)).filter_map(|n| model.tensor(n)).filter(counts).collect();
        for (name, parameter) in graph.parameters.iter().filter(|(n, _)| model.tensor(n).is_none()) {
            let alike: Vec<(TensorView<'_>, bool)> =
                left.iter().filter_map(|t| Some((*t, same(parameter, t)?))).collect();
            match alike.as_slice() {
                [] => {}
                [(found, transposed)] => {
                    left.retain(|t| t.name != found.name);
                    out.by_parameter.insert(name.clone(), Bound { tensor: found.name.into(), transposed: *transposed });
                }
                [(first, _), (second, _), ..] => {
                    let detail = format!(
                        "has the values of {} too: which one the graph's {name} is cannot be told",
                        second.name
                    );
                    return refuse(first.name, detail);
                }
            }
        }
        for tensor in left {
            let twin = out.by_parameter.values().find(|b| {
                model
                    .tensor(&b.tensor)
                    .is_some_and(|t| t.shape == tensor.shape && t.dtype == tensor.dtype && t.data == tensor.data)
            });
            match twin {
                Some(twin) => out.copies.push((tensor.name.into(), twin.tensor.clone())),
                None => {
                    let detail = "is no parameter of the graph: export it with the parameters' own names and without folding \
                                  normalisation into other layers";
                    return refuse(tensor.name, detail);
                }
            }
        }
        Ok(out)
    }
}

/// Whether a tensor must be in the graph: more than one number to compute with.
fn counts(tensor: &TensorView<'_>) -> bool {
    tensor.dtype.is_float() && tensor.n_elements() > 1
}

/// Whether a parameter holds a tensor's values, and whether transposed.
fn same(parameter: &Tensor, tensor: &TensorView<'_>) -> Option<bool> {
    if parameter.dtype != tensor.dtype || parameter.data.len() != tensor.data.len() {
        return None;
    }
    if parameter.shape == tensor.shape && parameter.data == tensor.data {
        return Some(false);
    }
    let [rows, columns] = *tensor.shape else { return None };
    let size = tensor.dtype.size();
    let element = |data: &[u8], at: usize| -> Vec<u8> { data[at * size..(at + 1) * size].to_vec() };
    let equal = |k: usize| {
        let (i, j) = (k / columns, k % columns);
        element(tensor.data, k) == element(&parameter.data, j * rows + i)
    };
    (parameter.shape == [columns, rows] && (0..rows * columns).all(equal)).then_some(true)
}
