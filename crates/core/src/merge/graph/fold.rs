//! Arithmetic of shapes: operations on integers that are known.

use super::super::error::Result;
use super::axes::Wires;
use super::walk::{Value, Walk};
use super::{Attribute, GraphNode};

impl Walk<'_> {
    /// The result of an operation whose inputs are all known integers; `None` if it is another.
    pub(super) fn folded(&self, node: &GraphNode) -> Result<Option<Value>> {
        if node.op == "Shape" {
            let shape: Vec<i64> = self.input(node, 0)?.axes.iter().map(|a| a.len as i64).collect();
            let rank = shape.len() as i64;
            let bound = |name: &str, default: i64| {
                let at = node.int(name).unwrap_or(default);
                (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize
            };
            let (start, end) = (bound("start", 0), bound("end", rank));
            return Ok(Some(Value::integers(shape[start.min(end)..end].to_vec(), false)));
        }
        if node.op == "Size" {
            let n = self.input(node, 0)?.axes.iter().map(|a| a.len as i64).product();
            return Ok(Some(Value::integers(vec![n], true)));
        }
        let mut inputs = Vec::new();
        for at in 0..node.inputs.len() {
            match self.optional(node, at)? {
                Some(Value { integers: Some(v), axes, .. }) => inputs.push((v, axes.len())),
                _ => return Ok(None),
            }
        }
        let Some((first, rank)) = inputs.first().cloned() else { return Ok(None) };
        let scalar = inputs.iter().all(|(_, rank)| *rank == 0);
        let list = |v: Vec<i64>| Some(Value::integers(v, false));
        Ok(match node.op.as_str() {
            "Identity" | "Cast" => {
                Some(Value { axes: vec![Wires::fixed(first.len()); rank], integers: Some(first), floats: None })
            }
            "Unsqueeze" if rank == 0 => list(first),
            "Squeeze" if first.len() == 1 => Some(Value::integers(first, true)),
            "Reshape" if rank <= 1 && inputs[1].0.len() <= 1 => Some(Value::integers(first, inputs[1].0.is_empty())),
            "Concat" if rank == 1 => list(inputs.into_iter().flat_map(|(v, _)| v).collect()),
            "ConstantOfShape" => {
                let n = first.iter().product::<i64>();
                let fill = match node.attributes.get("value") {
                    Some(Attribute::Tensor(t)) if t.dtype.name() == "I64" => {
                        t.data.as_chunks().0.first().map(|b| i64::from_le_bytes(*b))
                    }
                    _ => None,
                };
                fill.filter(|_| first.len() == 1 && (0..1 << 16).contains(&n)).and_then(|v| list(vec![v; n as usize]))
            }
            "Range" if scalar && inputs.len() == 3 => {
                let (start, end, step) = (first[0], inputs[1].0[0], inputs[2].0[0]);
                let n = if step == 0 { 0 } else { (end - start + step - step.signum()) / step };
                (0..1 << 16).contains(&n).then(|| Value::integers((0..n).map(|k| start + k * step).collect(), false))
            }
            "Gather" if rank == 1 && inputs[1].1 <= 1 => {
                let at = |k: &i64| first.get((if *k < 0 { k + first.len() as i64 } else { *k }) as usize).copied();
                let picked: Option<Vec<i64>> = inputs[1].0.iter().map(at).collect();
                picked.map(|v| Value::integers(v, inputs[1].1 == 0))
            }
            "Slice" if rank == 1 => {
                let list_of = |k: usize| inputs.get(k).and_then(|(v, _)| v.first()).copied();
                let step = list_of(4).unwrap_or(1);
                let picked = match (list_of(1), list_of(2)) {
                    (Some(start), Some(end)) => super::normalize::range(first.len(), start, end, step),
                    _ => return Ok(None),
                };
                list(picked.into_iter().map(|k| first[k]).collect())
            }
            "Neg" => Some(Value::integers(first.iter().map(|v| -v).collect(), scalar)),
            "ReduceProd" if rank <= 1 => {
                Some(Value::integers(vec![first.iter().product()], node.int("keepdims") == Some(0)))
            }
            op => {
                let Some(apply) = arithmetic(op) else { return Ok(None) };
                let n = inputs.iter().map(|(v, _)| v.len()).max().unwrap_or(0);
                let fits = inputs.iter().all(|(v, rank)| *rank <= 1 && (v.len() == n || v.len() == 1));
                let pick = |k: usize| inputs.iter().map(|(v, _)| v[k % v.len()]).collect::<Vec<_>>();
                let values: Option<Vec<i64>> = if fits { (0..n).map(|k| apply(&pick(k))).collect() } else { None };
                values.map(|v| Value::integers(v, scalar))
            }
        })
    }
}

/// An operation on numbers; none if it overflows or divides by zero.
type Arithmetic = fn(&[i64]) -> Option<i64>;

fn arithmetic(op: &str) -> Option<Arithmetic> {
    Some(match op {
        "Add" => |v| v[0].checked_add(v[1]),
        "Sub" => |v| v[0].checked_sub(v[1]),
        "Mul" => |v| v[0].checked_mul(v[1]),
        "Div" => |v| v[0].checked_div(v[1]),
        "Mod" => |v| v[0].checked_rem_euclid(v[1]),
        "Min" => |v| v.iter().min().copied(),
        "Max" => |v| v.iter().max().copied(),
        "Equal" => |v| Some(i64::from(v[0] == v[1])),
        "Greater" => |v| Some(i64::from(v[0] > v[1])),
        "Less" => |v| Some(i64::from(v[0] < v[1])),
        "Where" => |v| Some(if v[0] != 0 { v[1] } else { v[2] }),
        _ => return None,
    })
}
