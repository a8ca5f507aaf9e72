//! What each operation ties together.

use super::super::error::Result;
use super::axes::{Axis, Wires};
use super::reshape::whole_shape;
use super::walk::{Value, Walk, described, output};
use super::{Attribute, GraphNode, refuse};

/// Functions applied to every value alone. Further inputs are scalars.
const ELEMENTWISE: &[&str] = &[
    "Abs",
    "Acos",
    "Asin",
    "Atan",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "QuickGelu",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
];
/// Functions of several values, axes aligned from the right.
const BROADCAST: &[&str] = &[
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
];

impl Walk<'_> {
    /// The values a node makes.
    pub(super) fn apply(&mut self, node: &GraphNode) -> Result<Vec<Value>> {
        if node.attributes.values().any(|a| *a == Attribute::Body) {
            return refuse(output(node), format!("comes from {}, which has a graph of its own", described(node)));
        }
        if let Some(value) = self.folded(node)? {
            return Ok(vec![value]);
        }
        let op = node.op.as_str();
        let axes = match op {
            "Constant" => return self.literal(node).map(|v| vec![v]),
            _ if ELEMENTWISE.contains(&op) => {
                let value = self.input(node, 0)?;
                return Ok(vec![value.clone(), value]);
            }
            _ if BROADCAST.contains(&op) => {
                let mut operands = Vec::new();
                for at in 0..node.inputs.len() {
                    operands.extend(self.optional(node, at)?.map(|v| v.axes));
                }
                self.broadcast(node, &operands)?
            }
            "MatMul" => self.matmul(node)?,
            "Gemm" => self.gemm(node)?,
            "Einsum" => self.einsum(node)?,
            "Conv" => self.conv(node)?,
            "ConvTranspose" => self.conv_transpose(node)?,
            "BatchNormalization" | "InstanceNormalization" => {
                let x = self.input(node, 0)?;
                let channels = self.channels(node, &x)?;
                for at in 1..node.inputs.len() {
                    if let Some(v) = self.optional(node, at)? {
                        self.equal(node, channels, *v.axes.first().unwrap_or(&Wires::fixed(1)))?;
                    }
                }
                x.axes
            }
            "GroupNormalization" => self.group_norm(node)?,
            "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => {
                let x = self.input(node, 0)?;
                let from = node.axis(node.int("axis").unwrap_or(-1), x.axes.len())?;
                self.normalized.extend(&x.axes[from..]);
                let mut operands = vec![x.axes.clone()];
                for at in 1..node.inputs.len() {
                    operands.extend(self.optional(node, at)?.map(|v| v.axes));
                }
                let made = self.broadcast(node, &operands)?;
                let sums: Vec<Axis> =
                    x.axes.iter().enumerate().map(|(k, a)| if k < from { *a } else { Wires::fixed(1) }).collect();
                return Ok(vec![Value::new(made), Value::new(sums.clone()), Value::new(sums)]);
            }
            "Softmax" | "LogSoftmax" | "LpNormalization" => self.input(node, 0)?.axes,
            "MaxPool" | "AveragePool" | "LpPool" if node.outputs.len() < 2 || node.outputs[1].is_empty() => {
                let x = self.input(node, 0)?;
                let kernel =
                    node.ints("kernel_shape").unwrap_or_default().iter().map(|k| *k as usize).collect::<Vec<_>>();
                self.channels(node, &x)?;
                let image: Vec<usize> = x.axes[2..].iter().map(|a| a.len).collect();
                if kernel.len() != image.len() {
                    return refuse(
                        output(node),
                        format!("comes from {} without a window of its rank", described(node)),
                    );
                }
                self.image(&x, &node.windows(&image, &kernel)?)
            }
            "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
                let x = self.input(node, 0)?;
                self.channels(node, &x)?;
                let ones = vec![1; x.axes.len() - 2];
                self.image(&x, &ones)
            }
            _ if op.starts_with("Reduce") => self.reduce(node)?,
            "ArgMax" | "ArgMin" => {
                let x = self.input(node, 0)?;
                let axis = node.axis(node.int("axis").unwrap_or(0), x.axes.len())?;
                // The number of the largest unit changes when units move.
                self.wires.fix(x.axes[axis]);
                let keep = node.int("keepdims") != Some(0);
                let stays = |(k, a): (usize, &Axis)| match (k == axis, keep) {
                    (false, _) => Some(*a),
                    (true, true) => Some(Wires::fixed(1)),
                    (true, false) => None,
                };
                x.axes.iter().enumerate().filter_map(stays).collect()
            }
            "Reshape" => {
                let x = self.input(node, 0)?;
                let Some(to) = self.setting(node, "shape", 1)? else { return refuse(output(node), "has no shape") };
                let to = whole_shape(node, &x, &to)?;
                self.reshaped(&x.axes, &to)?
            }
            "Flatten" => {
                let x = self.input(node, 0)?;
                let axis = node.int("axis").unwrap_or(1);
                let at = if axis == x.axes.len() as i64 { x.axes.len() } else { node.axis(axis, x.axes.len())? };
                let size = |axes: &[Axis]| axes.iter().map(|a| a.len).product::<usize>();
                self.reshaped(&x.axes, &[size(&x.axes[..at]), size(&x.axes[at..])])?
            }
            "Squeeze" => {
                let x = self.input(node, 0)?;
                let drop = match self.setting(node, "axes", 1)? {
                    Some(axes) => axes.iter().map(|a| node.axis(*a, x.axes.len())).collect::<Result<Vec<_>>>()?,
                    None => (0..x.axes.len()).filter(|k| x.axes[*k].len == 1).collect(),
                };
                x.axes.iter().enumerate().filter(|(k, _)| !drop.contains(k)).map(|(_, a)| *a).collect()
            }
            "Unsqueeze" => {
                let x = self.input(node, 0)?;
                let given = self.setting(node, "axes", 1)?.unwrap_or_default();
                let rank = x.axes.len() + given.len();
                let new = given.iter().map(|a| node.axis(*a, rank)).collect::<Result<Vec<_>>>()?;
                let mut old = x.axes.iter();
                (0..rank)
                    .map(|k| if new.contains(&k) { Wires::fixed(1) } else { *old.next().unwrap_or(&Wires::fixed(1)) })
                    .collect()
            }
            "Transpose" => {
                let x = self.input(node, 0)?;
                let order: Vec<i64> = match node.ints("perm") {
                    Some(order) => order.to_vec(),
                    None => (0..x.axes.len() as i64).rev().collect(),
                };
                order.iter().map(|k| Ok(x.axes[node.axis(*k, x.axes.len())?])).collect::<Result<_>>()?
            }
            "Concat" => self.concat(node)?,
            "Split" => return self.split(node),
            "Slice" => self.slice(node)?,
            "Pad" => self.pad(node)?,
            "Gather" => self.gather(node)?,
            "Expand" => {
                let x = self.input(node, 0)?;
                let to = self.setting(node, "shape", 1)?.unwrap_or_default();
                let to: Vec<Axis> = to.iter().map(|n| Wires::fixed((*n).max(1) as usize)).collect();
                self.expand(&x.axes, &to)
            }
            "Tile" => {
                let x = self.input(node, 0)?;
                let repeats = self.setting(node, "repeats", 1)?.unwrap_or_default();
                let tiled = |walk: &mut Self, (axis, n): (&Axis, &i64)| match *n {
                    1 => *axis,
                    n => walk.places(
                        *axis,
                        &(0..axis.len * n.max(0) as usize).map(|p| Some(p % axis.len)).collect::<Vec<_>>(),
                    ),
                };
                x.axes.iter().zip(&repeats).map(|pair| tiled(self, pair)).collect()
            }
            // All values are equal, so that any order is the same.
            "ConstantOfShape" => {
                let shape = self.setting(node, "shape", 0)?.unwrap_or_default();
                shape.iter().map(|n| self.wires.axis((*n).max(0) as usize)).collect()
            }
            "Resize" | "Upsample" => self.resize(node)?,
            _ => return self.unknown(node),
        };
        Ok(vec![Value::new(axes)])
    }

    /// An operation that is not known: all it touches stays.
    fn unknown(&mut self, node: &GraphNode) -> Result<Vec<Value>> {
        let mut made = Vec::new();
        for name in &node.outputs {
            let stated = self.graph.shapes.get(name).and_then(|s| s.iter().copied().collect::<Option<Vec<usize>>>());
            match stated {
                Some(shape) => made.push(Value::new(shape.iter().map(|n| Wires::fixed(*n)).collect())),
                None if name.is_empty() => made.push(Value::new(Vec::new())),
                None => {
                    let detail = format!(
                        "comes from {}, which is not known, and the graph does not state its shape",
                        described(node)
                    );
                    return refuse(name, detail);
                }
            }
        }
        for at in 0..node.inputs.len() {
            let axes = self.optional(node, at)?.map_or_else(Vec::new, |v| v.axes);
            axes.iter().for_each(|a| self.wires.fix(*a));
        }
        self.notes.push(format!("{} is not known: all units that it reads or writes stay", described(node)));
        Ok(made)
    }

    fn literal(&mut self, node: &GraphNode) -> Result<Value> {
        for (name, attribute) in &node.attributes {
            match (name.as_str(), attribute) {
                ("value", Attribute::Tensor(tensor)) => return Ok(self.constant(tensor, false)),
                ("value_int", Attribute::Int(v)) => return Ok(Value::integers(vec![*v], true)),
                ("value_ints", Attribute::Ints(v)) => return Ok(Value::integers(v.clone(), false)),
                ("value_float", Attribute::Float(v)) => {
                    return Ok(Value { axes: Vec::new(), integers: None, floats: Some(vec![*v]) });
                }
                ("value_floats", Attribute::Floats(v)) => {
                    return Ok(Value { axes: vec![Wires::fixed(v.len())], integers: None, floats: Some(v.clone()) });
                }
                _ => {}
            }
        }
        refuse(output(node), "is a constant of no known kind")
    }

    /// Ties axes of equal length, or says where they differ.
    pub(super) fn equal(&mut self, node: &GraphNode, a: Axis, b: Axis) -> Result<()> {
        if a.len != b.len {
            let detail = format!("comes from {}, whose operands have {} and {} units", described(node), a.len, b.len);
            return refuse(output(node), detail);
        }
        self.wires.tie_axes(a, b);
        Ok(())
    }

    /// The channel axis of images.
    fn channels(&self, node: &GraphNode, x: &Value) -> Result<Axis> {
        match x.axes.get(1) {
            Some(axis) => Ok(*axis),
            None => refuse(output(node), format!("comes from {}, which reads no channels", described(node))),
        }
    }

    /// `x` with other spatial sizes.
    fn image(&mut self, x: &Value, sizes: &[usize]) -> Vec<Axis> {
        // Positions of images do not move, or what slides over them would not see the same.
        x.axes[2..].iter().for_each(|a| self.wires.fix(*a));
        x.axes[..2].iter().copied().chain(sizes.iter().map(|n| Wires::fixed(*n))).collect()
    }

    fn broadcast(&mut self, node: &GraphNode, operands: &[Vec<Axis>]) -> Result<Vec<Axis>> {
        let rank = operands.iter().map(Vec::len).max().unwrap_or(0);
        let mut out = Vec::with_capacity(rank);
        for k in (1..=rank).rev() {
            let mut along =
                operands.iter().filter_map(|o| o.len().checked_sub(k).map(|at| o[at])).filter(|a| a.len != 1);
            let first = along.next().unwrap_or(Wires::fixed(1));
            for other in along.collect::<Vec<_>>() {
                self.equal(node, first, other)?;
            }
            out.push(first);
        }
        Ok(out)
    }

    /// Like a sum with a value whose axes need not fit where they are one.
    fn expand(&mut self, x: &[Axis], to: &[Axis]) -> Vec<Axis> {
        let rank = x.len().max(to.len());
        let at = |axes: &[Axis], k: usize| axes.len().checked_sub(k).map_or(Wires::fixed(1), |i| axes[i]);
        (1..=rank).rev().map(|k| if at(x, k).len == 1 { at(to, k) } else { at(x, k) }).collect()
    }

    fn matmul(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let (mut a, mut b) = (self.input(node, 0)?.axes, self.input(node, 1)?.axes);
        self.attention |= node.inputs[..2].iter().all(|n| self.is_computed(n));
        let (row, column) = (a.len() == 1, b.len() == 1);
        if row {
            a.insert(0, Wires::fixed(1));
        }
        if column {
            b.push(Wires::fixed(1));
        }
        if a.len() < 2 || b.len() < 2 {
            return refuse(output(node), format!("comes from {} of a scalar", described(node)));
        }
        self.equal(node, a[a.len() - 1], b[b.len() - 2])?;
        let mut out = self.broadcast(node, &[a[..a.len() - 2].to_vec(), b[..b.len() - 2].to_vec()])?;
        out.extend((!row).then_some(a[a.len() - 2]));
        out.extend((!column).then_some(b[b.len() - 1]));
        Ok(out)
    }

    fn gemm(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let matrix = |value: Value, transposed: Option<i64>| match (value.axes.as_slice(), transposed == Some(1)) {
            ([x, y], false) => Ok([*x, *y]),
            ([x, y], true) => Ok([*y, *x]),
            _ => refuse(output(node), format!("comes from {} of no matrix", described(node))),
        };
        let [m, k] = matrix(self.input(node, 0)?, node.int("transA"))?;
        let [l, n] = matrix(self.input(node, 1)?, node.int("transB"))?;
        self.equal(node, k, l)?;
        let mut operands = vec![vec![m, n]];
        operands.extend(self.optional(node, 2)?.map(|c| c.axes));
        self.broadcast(node, &operands)
    }

    /// Equal letters are one axis.
    fn einsum(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let equation = node.text("equation").unwrap_or_default().replace(' ', "");
        let (terms, result) = match equation.split_once("->") {
            Some((terms, result)) if !equation.contains('.') => (terms, result),
            _ => return refuse(output(node), format!("comes from Einsum {equation:?}, which is not supported")),
        };
        let mut letters: Vec<(char, Axis)> = Vec::new();
        self.attention |= node.inputs.len() > 1 && node.inputs.iter().all(|n| self.is_computed(n));
        for (at, term) in terms.split(',').enumerate() {
            let axes = self.input(node, at)?.axes;
            if axes.len() != term.chars().count() {
                return refuse(output(node), format!("comes from Einsum {equation:?} of other shapes"));
            }
            for (letter, axis) in term.chars().zip(axes) {
                match letters.iter().find(|(l, _)| *l == letter).map(|(_, a)| *a) {
                    Some(other) => self.equal(node, other, axis)?,
                    None => letters.push((letter, axis)),
                }
            }
        }
        let find = |l: char| letters.iter().find(|(m, _)| *m == l).map(|(_, a)| *a);
        result.chars().map(|l| find(l).map_or_else(|| refuse(output(node), "is a sum over nothing"), Ok)).collect()
    }

    fn conv(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let (x, w) = (self.input(node, 0)?, self.input(node, 1)?);
        let channels = self.channels(node, &x)?;
        if w.axes.len() != x.axes.len() {
            return refuse(output(node), format!("comes from {} of another rank", described(node)));
        }
        w.axes[2..].iter().for_each(|a| self.wires.fix(*a));
        let groups = node.int("group").unwrap_or(1).max(1) as usize;
        let (out, per_group) = (w.axes[0], w.axes[1].len);
        if channels.len != per_group * groups || !out.len.is_multiple_of(groups) {
            let detail = format!(
                "comes from {}, whose {groups} groups of {per_group} do not make {} channels",
                described(node),
                channels.len
            );
            return refuse(output(node), detail);
        }
        let outputs = out.len / groups;
        if groups == 1 {
            self.equal(node, channels, w.axes[1])?;
        } else if per_group == 1 {
            (0..out.len).for_each(|o| self.wires.tie(channels, o / outputs, out, o));
        } else {
            // One order of the inputs of a group for all of them, and outputs stay in their group.
            (0..channels.len).for_each(|c| self.wires.tie(channels, c, w.axes[1], c % per_group));
            let mark = self.wires.new_mark();
            (0..out.len).for_each(|o| self.wires.mark(out, o, mark + (o / outputs) as u64));
        }
        if let Some(bias) = self.optional(node, 2)? {
            self.equal(node, out, *bias.axes.first().unwrap_or(&Wires::fixed(1)))?;
        }
        let size = |axes: &[Axis]| axes.iter().map(|a| a.len).collect::<Vec<_>>();
        let sizes = node.windows(&size(&x.axes[2..]), &size(&w.axes[2..]))?;
        let mut made = self.image(&x, &sizes);
        made[1] = out;
        Ok(made)
    }

    fn conv_transpose(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let (x, w) = (self.input(node, 0)?, self.input(node, 1)?);
        let channels = self.channels(node, &x)?;
        if node.int("group").unwrap_or(1) != 1
            || w.axes.len() != x.axes.len()
            || node.text("auto_pad").is_some_and(|a| a != "NOTSET")
        {
            return refuse(output(node), format!("comes from {} with groups or automatic padding", described(node)));
        }
        w.axes[2..].iter().for_each(|a| self.wires.fix(*a));
        self.equal(node, channels, w.axes[0])?;
        let n = x.axes.len() - 2;
        if let Some(bias) = self.optional(node, 2)? {
            self.equal(node, w.axes[1], *bias.axes.first().unwrap_or(&Wires::fixed(1)))?;
        }
        let at =
            |name: &str, k: usize, default: i64| node.ints(name).and_then(|v| v.get(k)).copied().unwrap_or(default);
        let size = |k: usize| {
            let reach = (w.axes[k + 2].len as i64 - 1) * at("dilations", k, 1) + 1;
            let whole = at("strides", k, 1) * (x.axes[k + 2].len as i64 - 1) + at("output_padding", k, 0) + reach;
            (whole - at("pads", k, 0) - at("pads", k + n, 0)).max(0) as usize
        };
        let mut made = self.image(&x, &(0..n).map(size).collect::<Vec<_>>());
        made[1] = w.axes[1];
        Ok(made)
    }

    fn group_norm(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let x = self.input(node, 0)?;
        let channels = self.channels(node, &x)?;
        let groups = node.int("num_groups").unwrap_or(1).max(1) as usize;
        let size = channels.len / groups.min(channels.len);
        let mark = self.wires.new_mark();
        for at in 1..=2 {
            if let Some(axis) = self.optional(node, at)?.and_then(|v| v.axes.first().copied()) {
                if axis.len == channels.len {
                    self.wires.tie_axes(channels, axis);
                } else {
                    self.wires.fix(axis);
                }
            }
        }
        (0..channels.len).for_each(|c| self.wires.mark(channels, c, mark + (c / size.max(1)) as u64));
        Ok(x.axes)
    }

    fn reduce(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let x = self.input(node, 0)?;
        let rank = x.axes.len();
        let given = self.setting(node, "axes", 1)?.filter(|a| !a.is_empty());
        let over = match given {
            Some(axes) => axes.iter().map(|a| node.axis(*a, rank)).collect::<Result<Vec<_>>>()?,
            None if node.int("noop_with_empty_axes") == Some(1) => Vec::new(),
            None => (0..rank).collect(),
        };
        let keep = node.int("keepdims") != Some(0);
        if keep && node.op == "ReduceMean" {
            self.normalized.extend(over.iter().map(|k| x.axes[*k]));
        }
        let stays = |k: usize| match (over.contains(&k), keep) {
            (false, _) => Some(x.axes[k]),
            (true, true) => Some(Wires::fixed(1)),
            (true, false) => None,
        };
        Ok((0..rank).filter_map(stays).collect())
    }
}
