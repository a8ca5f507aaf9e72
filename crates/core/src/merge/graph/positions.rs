//! Operations that pick, join and stretch positions of axes.

use super::super::error::Result;
use super::axes::{Axis, Wires};
use super::normalize::range;
use super::walk::{Value, Walk, described, output};
use super::{GraphNode, refuse};

impl Walk<'_> {
    /// An axis whose positions are those of another, or new.
    pub(super) fn places(&mut self, axis: Axis, from: &[Option<usize>]) -> Axis {
        if self.wires.is_fixed(axis) && from.iter().all(Option::is_some) {
            return Wires::fixed(from.len());
        }
        let made = self.wires.axis(from.len());
        from.iter().enumerate().for_each(|(p, q)| {
            if let Some(q) = q {
                self.wires.tie(made, p, axis, *q);
            }
        });
        made
    }

    pub(super) fn concat(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let parts = (0..node.inputs.len()).map(|at| self.input(node, at)).collect::<Result<Vec<_>>>()?;
        let rank = parts.first().map_or(0, |p| p.axes.len());
        let axis = node.axis(node.int("axis").unwrap_or(0), rank)?;
        if parts.iter().any(|p| p.axes.len() != rank) {
            return refuse(output(node), format!("comes from {} of values of other rank", described(node)));
        }
        let mut made = parts[0].axes.clone();
        for part in &parts[1..] {
            for k in (0..rank).filter(|k| *k != axis) {
                self.equal(node, made[k], part.axes[k])?;
            }
        }
        let len = parts.iter().map(|p| p.axes[axis].len).sum();
        // A single position counts too here: it does not stand for all.
        let moves = |walk: &mut Self, a: Axis| (0..a.len).any(|i| walk.wires.wire(a, i).is_some());
        if !parts.iter().any(|p| moves(self, p.axes[axis])) {
            made[axis] = Wires::fixed(len);
            return Ok(made);
        }
        let joined = self.wires.axis(len);
        let mut at = 0;
        for part in &parts {
            let from = part.axes[axis];
            (0..from.len).for_each(|i| self.wires.tie(joined, at + i, from, i));
            at += from.len;
        }
        made[axis] = joined;
        Ok(made)
    }

    pub(super) fn split(&mut self, node: &GraphNode) -> Result<Vec<Value>> {
        let x = self.input(node, 0)?;
        let axis = node.axis(node.int("axis").unwrap_or(0), x.axes.len())?;
        let (len, n) = (x.axes[axis].len, node.outputs.len().max(1));
        let sizes: Vec<usize> = match self.setting(node, "split", 1)? {
            Some(sizes) => sizes.iter().map(|s| (*s).max(0) as usize).collect(),
            None => (0..n).map(|k| len.div_ceil(n).min(len.saturating_sub(k * len.div_ceil(n)))).collect(),
        };
        if sizes.iter().sum::<usize>() != len {
            return refuse(
                output(node),
                format!("comes from {}, whose parts {sizes:?} are not {len}", described(node)),
            );
        }
        let mut at = 0;
        let mut made = Vec::new();
        for size in sizes {
            let mut axes = x.axes.clone();
            axes[axis] = self.part(x.axes[axis], &(at..at + size).collect::<Vec<_>>());
            at += size;
            made.push(Value::new(axes));
        }
        Ok(made)
    }

    /// Some positions of an axis as one of their own. A single one stays: what it stands for must not change.
    fn part(&mut self, axis: Axis, from: &[usize]) -> Axis {
        if from.len() == axis.len && from.iter().enumerate().all(|(p, q)| p == *q) {
            return axis;
        }
        if let [one] = from {
            self.wires.fix_at(axis, *one);
            return Wires::fixed(1);
        }
        self.places(axis, &from.iter().map(|p| Some(*p)).collect::<Vec<_>>())
    }

    pub(super) fn slice(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let x = self.input(node, 0)?;
        let starts = self.setting(node, "starts", 1)?.unwrap_or_default();
        let ends = self.setting(node, "ends", 2)?.unwrap_or_default();
        let axes = self.setting(node, "axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = self.setting(node, "steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
        let mut made = x.axes.clone();
        for (((start, end), axis), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let at = node.axis(*axis, x.axes.len())?;
            let from = range(made[at].len, *start, *end, *step);
            made[at] = self.part(made[at], &from);
        }
        Ok(made)
    }

    pub(super) fn pad(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let x = self.input(node, 0)?;
        let pads = self.setting(node, "pads", 1)?.unwrap_or_default();
        let rank = x.axes.len();
        let axes: Vec<usize> = match self.optional(node, 3)?.and_then(|v| v.integers) {
            Some(axes) => axes.iter().map(|a| node.axis(*a, rank)).collect::<Result<_>>()?,
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return refuse(
                output(node),
                format!("comes from {} with {} numbers for {rank} axes", described(node), pads.len()),
            );
        }
        let constant = node.text("mode").unwrap_or("constant") == "constant";
        let mut made = x.axes.clone();
        for (k, at) in axes.iter().enumerate() {
            let (before, after) = (pads[k], pads[k + axes.len()]);
            if before == 0 && after == 0 {
                continue;
            }
            let axis = x.axes[*at];
            let len = (axis.len as i64 + before + after).max(0) as usize;
            if !constant || self.wires.is_fixed(axis) {
                self.wires.fix(axis);
                made[*at] = Wires::fixed(len);
                continue;
            }
            let old = |p: usize| usize::try_from(p as i64 - before).ok().filter(|q| *q < axis.len);
            made[*at] = self.places(axis, &(0..len).map(old).collect::<Vec<_>>());
        }
        Ok(made)
    }

    pub(super) fn gather(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let (x, indices) = (self.input(node, 0)?, self.input(node, 1)?);
        let at = node.axis(node.int("axis").unwrap_or(0), x.axes.len())?;
        let axis = x.axes[at];
        let picked: Option<Vec<usize>> = indices.integers.as_ref().and_then(|v| {
            let place =
                |i: &i64| usize::try_from(if *i < 0 { i + axis.len as i64 } else { *i }).ok().filter(|p| *p < axis.len);
            v.iter().map(place).collect()
        });
        let new = match picked.as_deref() {
            Some([one]) if indices.axes.is_empty() => {
                self.wires.fix_at(axis, *one);
                Vec::new()
            }
            Some(picked) if indices.axes.len() == 1 => vec![self.part(axis, picked)],
            _ => {
                self.wires.fix(axis);
                indices.axes.clone()
            }
        };
        Ok([&x.axes[..at], &new, &x.axes[at + 1..]].concat())
    }

    pub(super) fn resize(&mut self, node: &GraphNode) -> Result<Vec<Axis>> {
        let x = self.input(node, 0)?;
        let rank = x.axes.len();
        let last = node.inputs.len().saturating_sub(1);
        let scales =
            (1..=last).find_map(|at| self.optional(node, at).ok().flatten()?.floats.filter(|f| f.len() == rank));
        let sizes = self.optional(node, 3)?.and_then(|v| v.integers);
        let lens: Vec<usize> = match (sizes, scales) {
            (Some(sizes), _) if sizes.len() == rank => sizes.iter().map(|n| (*n).max(0) as usize).collect(),
            (_, Some(scales)) => x.axes.iter().zip(scales).map(|(a, s)| (a.len as f32 * s).floor() as usize).collect(),
            _ => return refuse(output(node), format!("comes from {} to a size that is not stated", described(node))),
        };
        let mut made = Vec::new();
        for (axis, len) in x.axes.iter().zip(lens) {
            if axis.len == len {
                made.push(*axis);
            } else {
                self.wires.fix(*axis);
                made.push(Wires::fixed(len));
            }
        }
        Ok(made)
    }
}
