//! One pass over the nodes: every value gets its axes.

use std::collections::{BTreeMap, BTreeSet};

use super::super::error::Result;
use super::super::tensor::{DType, Tensor};
use super::axes::{Axis, Wires};
use super::bind::Binding;
use super::{Attribute, Graph, GraphNode, refuse};

/// Most elements of all axes together.
const MOST_ELEMENTS: usize = 1 << 31;
/// Constants up to this many elements are kept as numbers.
const MOST_NUMBERS: usize = 1 << 16;

/// A value of the graph.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) axes: Vec<Axis>,
    /// Its numbers, if they are known integers (shapes, indices) ...
    pub(super) integers: Option<Vec<i64>>,
    /// ... or known floating-point constants (scales).
    pub(super) floats: Option<Vec<f32>>,
}

impl Value {
    pub(super) fn new(axes: Vec<Axis>) -> Self {
        Self { axes, integers: None, floats: None }
    }

    /// Integers; as a list, or as a scalar if `scalar`.
    pub(super) fn integers(values: Vec<i64>, scalar: bool) -> Self {
        let axes = if scalar { Vec::new() } else { vec![Wires::fixed(values.len())] };
        Self { axes, integers: Some(values), floats: None }
    }

    pub(super) fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|a| a.len).collect()
    }
}

/// The state of a pass.
pub(super) struct Walk<'g> {
    pub(super) graph: &'g Graph,
    binding: &'g Binding,
    pub(super) wires: Wires,
    values: BTreeMap<&'g str, Value>,
    choices: &'g [usize],
    /// Factors of every split met so far, ...
    splits: Vec<usize>,
    /// ... and the one that moves.
    pub(super) moving: Vec<Axis>,
    pub(super) notes: Vec<String>,
    /// Axes that a normalisation sums over.
    pub(super) normalized: Vec<Axis>,
    /// Whether computed values are multiplied with each other as matrices.
    pub(super) attention: bool,
    computed: BTreeSet<&'g str>,
}

impl<'g> Walk<'g> {
    pub(super) fn new(graph: &'g Graph, binding: &'g Binding, choices: &'g [usize]) -> Self {
        Self {
            graph,
            binding,
            wires: Wires::new(),
            values: BTreeMap::new(),
            choices,
            splits: Vec::new(),
            moving: Vec::new(),
            notes: Vec::new(),
            normalized: Vec::new(),
            attention: false,
            computed: BTreeSet::new(),
        }
    }

    /// Walks all nodes.
    pub(super) fn run(mut self) -> Result<Finished> {
        for (name, tensor) in &self.graph.parameters {
            let value = self.constant(tensor, self.binding.by_parameter.contains_key(name));
            self.values.insert(name, value);
        }
        for (name, shape) in &self.graph.inputs {
            // Older files list parameters among the inputs. A dimension without a number counts as one sample.
            if !self.values.contains_key(name.as_str()) {
                let axes = shape.iter().map(|n| Wires::fixed(n.unwrap_or(1))).collect();
                self.values.insert(name, Value::new(axes));
                self.computed.insert(name);
            }
        }
        for node in &self.graph.nodes {
            let made = self.apply(node)?;
            if self.wires.len() > MOST_ELEMENTS {
                return refuse(output(node), "makes the graph too large");
            }
            let computes = node.inputs.iter().any(|i| self.computed.contains(i.as_str()));
            for (name, value) in node.outputs.iter().zip(made).filter(|(name, _)| !name.is_empty()) {
                self.agree(name, &value)?;
                self.values.insert(name, value);
                if computes {
                    self.computed.insert(name);
                }
            }
        }
        for name in &self.graph.outputs {
            let Some(value) = self.values.get(name.as_str()).cloned() else {
                return refuse(name, "is an output that no node computes");
            };
            value.axes.iter().for_each(|a| self.wires.fix(*a));
        }
        let mut splits = Vec::new();
        for (n, axis) in self.splits.into_iter().zip(self.moving) {
            splits.push(Split { n, moves: !self.wires.is_fixed(axis) });
        }
        let found = Finished::new(self.wires, &self.values, &self.normalized, self.graph);
        Ok(Finished { splits, notes: self.notes, attention: self.attention, ..found })
    }

    /// Checks a computed shape against the one the file states.
    fn agree(&self, name: &str, value: &Value) -> Result<()> {
        let Some(stated) = self.graph.shapes.get(name) else { return Ok(()) };
        let found = value.shape();
        let fits = stated.len() == found.len()
            && stated.iter().zip(&found).all(|(s, n)| s.is_none_or(|s| s == *n) || self.has_free_inputs());
        if fits {
            return Ok(());
        }
        let stated: Vec<String> = stated.iter().map(|n| n.map_or("?".into(), |n| n.to_string())).collect();
        refuse(name, format!("has shape {found:?} by its operations, but [{}] is stated", stated.join(", ")))
    }

    /// Whether an input has a dimension without a number: what follows from it is not known either.
    fn has_free_inputs(&self) -> bool {
        self.graph.inputs.iter().any(|(_, shape)| shape.contains(&None))
    }

    /// A constant; its axes may move only if it is a tensor of the model.
    pub(super) fn constant(&mut self, tensor: &Tensor, bound: bool) -> Value {
        let axes = tensor.shape.iter().map(|n| if bound { self.wires.axis(*n) } else { Wires::fixed(*n) }).collect();
        let n = tensor.shape.iter().product::<usize>();
        let known = tensor.data.len() == n * tensor.dtype.size() && n <= MOST_NUMBERS;
        let view = tensor.view("");
        let integers = || -> Option<Vec<i64>> {
            let bytes = &tensor.data;
            Some(match tensor.dtype {
                DType::Opaque { name: "I64", .. } => {
                    bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
                }
                DType::Opaque { name: "I32", .. } => {
                    bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect()
                }
                DType::Opaque { name: "BOOL", .. } => bytes.iter().map(|b| i64::from(*b)).collect(),
                _ => return None,
            })
        };
        let integers = known.then(integers).flatten();
        let floats = (known && !bound && tensor.dtype.is_float()).then(|| view.to_f32());
        Value { axes, integers, floats }
    }

    /// The value of an input that must be there.
    pub(super) fn input(&self, node: &GraphNode, at: usize) -> Result<Value> {
        match self.optional(node, at)? {
            Some(value) => Ok(value),
            None => refuse(output(node), format!("comes from {} without input {at}", described(node))),
        }
    }

    /// The value of an input, `None` if it is left out.
    pub(super) fn optional(&self, node: &GraphNode, at: usize) -> Result<Option<Value>> {
        match node.inputs.get(at).map(String::as_str) {
            None | Some("") => Ok(None),
            Some(name) => match self.values.get(name) {
                Some(value) => Ok(Some(value.clone())),
                None => refuse(name, format!("is read by {}, but nothing computes it", described(node))),
            },
        }
    }

    /// Integers given as an attribute (older operators) or as a constant input.
    pub(super) fn setting(&self, node: &GraphNode, attribute: &str, at: usize) -> Result<Option<Vec<i64>>> {
        match node.attributes.get(attribute) {
            Some(Attribute::Ints(v)) => return Ok(Some(v.clone())),
            Some(Attribute::Int(v)) => return Ok(Some(vec![*v])),
            _ => {}
        }
        match self.optional(node, at)? {
            None => Ok(None),
            Some(Value { integers: Some(v), .. }) => Ok(Some(v)),
            Some(_) => refuse(output(node), format!("has a shape that is computed from samples ({})", described(node))),
        }
    }

    /// Whether a value depends on the samples.
    pub(super) fn is_computed(&self, name: &str) -> bool {
        self.computed.contains(name)
    }

    /// Registers a split into `n` factors; which of them moves, counted from the leading one.
    pub(super) fn choose(&mut self, n: usize) -> usize {
        let choice = self.choices.get(self.splits.len()).copied().unwrap_or(0);
        self.splits.push(n);
        choice.min(n - 1)
    }
}

/// The value a message about a node names.
pub(super) fn output(node: &GraphNode) -> &str {
    node.outputs.first().map_or(&node.name, |o| o)
}

/// A node in messages.
pub(super) fn described(node: &GraphNode) -> String {
    if node.name.is_empty() { node.op.clone() } else { format!("{} ({})", node.op, node.name) }
}

/// A split of an axis.
pub(super) struct Split {
    /// Into so many factors.
    pub(super) n: usize,
    /// Whether the chosen factor moves after all.
    pub(super) moves: bool,
}

/// What a pass found: the perms.
pub(super) struct Finished {
    pub(super) splits: Vec<Split>,
    pub(super) notes: Vec<String>,
    pub(super) attention: bool,
    /// Axes of every parameter of the model, by name in the graph.
    pub(super) parameters: Vec<(String, Vec<Axis>)>,
    pub(super) wires: Wires,
    /// Sets of wires that may change places, each in the order of their first places.
    pub(super) perms: Vec<Vec<u32>>,
    /// Whether a normalisation sums over a perm's units.
    pub(super) normalized: Vec<bool>,
}

impl Finished {
    fn new(wires: Wires, values: &BTreeMap<&str, Value>, normalized: &[Axis], graph: &Graph) -> Self {
        let parameters: Vec<(String, Vec<Axis>)> = graph
            .parameters
            .iter()
            .filter_map(|(name, _)| Some((name.clone(), values.get(name.as_str())?.axes.clone())))
            .collect();
        let looks = wires.looks();
        let mut groups: BTreeMap<u128, Vec<u32>> = BTreeMap::new();
        let mut order: Vec<u128> = Vec::new();
        for axis in parameters.iter().flat_map(|(_, axes)| axes) {
            for wire in (0..axis.len).filter_map(|i| wires.wire(*axis, i)) {
                let look = looks[wire as usize];
                let group = groups.entry(look).or_insert_with(|| {
                    order.push(look);
                    Vec::new()
                });
                // Wires come in the order of their first places in parameters, smallest element first.
                if group.last().is_none_or(|last| *last < wire) {
                    group.push(wire);
                }
            }
        }
        let mut perms: Vec<Vec<u32>> = Vec::new();
        for look in order {
            let mut group = groups.remove(&look).unwrap_or_default();
            group.dedup();
            if group.len() > 1 {
                perms.push(group);
            }
        }
        let summed: BTreeSet<u32> =
            normalized.iter().flat_map(|a| (0..a.len).filter_map(|i| wires.wire(*a, i)).collect::<Vec<_>>()).collect();
        let normalized = perms.iter().map(|p| summed.contains(&p[0])).collect();
        let (splits, notes, attention) = (Vec::new(), Vec::new(), false);
        Self { splits, notes, attention, parameters, wires, perms, normalized }
    }

    /// How many moves are free: more is better.
    pub(super) fn freedom(&self) -> usize {
        self.perms.iter().map(|p| p.len() - 1).sum()
    }
}
