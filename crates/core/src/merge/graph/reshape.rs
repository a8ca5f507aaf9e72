//! Axes cut and joined.

use super::super::error::Result;
use super::axes::{Axis, Wires};
use super::walk::{Value, Walk, described, output};
use super::{GraphNode, refuse};

impl Walk<'_> {
    /// The axes of a value whose elements are listed in the same order in another shape. An axis that is split lets one factor move
    /// (which one is the walk's choice) and keeps the others; axes that are joined may have one among them that moves.
    pub(super) fn reshaped(&mut self, from: &[Axis], to: &[usize]) -> Result<Vec<Axis>> {
        let ins: Vec<Axis> = from.iter().copied().filter(|a| a.len != 1).collect();
        let outs: Vec<usize> = to.iter().copied().filter(|n| *n != 1).collect();
        let mut made = Vec::new();
        let (mut i, mut j) = (0, 0);
        while i < ins.len() && j < outs.len() {
            let (first, start) = (i, j);
            let (mut p, mut q) = (ins[i].len, outs[j]);
            while p != q {
                if p < q && i + 1 < ins.len() {
                    i += 1;
                    p *= ins[i].len;
                } else if q < p && j + 1 < outs.len() {
                    j += 1;
                    q *= outs[j];
                } else {
                    break;
                }
            }
            made.extend(self.regrouped(&ins[first..=i], &outs[start..=j]));
            (i, j) = (i + 1, j + 1);
        }
        let mut made = made.into_iter();
        Ok(to.iter().map(|n| if *n == 1 { Wires::fixed(1) } else { made.next().unwrap_or(Wires::fixed(*n)) }).collect())
    }

    fn regrouped(&mut self, ins: &[Axis], outs: &[usize]) -> Vec<Axis> {
        if let ([one], [_]) = (ins, outs) {
            return vec![*one];
        }
        // Ends of axes, counted in elements from the right; between two of them lies a factor.
        let ends = |lens: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
            std::iter::once(1)
                .chain(lens.scan(1, |n, len| {
                    Some({
                        *n *= len;
                        *n
                    })
                }))
                .collect()
        };
        let in_ends = ends(&mut ins.iter().rev().map(|a| a.len));
        let out_ends = ends(&mut outs.iter().rev().copied());
        let mut all = [in_ends.clone(), out_ends.clone()].concat();
        all.sort_unstable();
        all.dedup();
        if all.windows(2).any(|w| !w[1].is_multiple_of(w[0])) || in_ends.last() != out_ends.last() {
            ins.iter().for_each(|a| self.wires.fix(*a));
            return outs.iter().map(|n| Wires::fixed(*n)).collect();
        }
        let at = |end: usize| all.iter().position(|e| *e == end).unwrap_or_default();
        let mut factors: Vec<Axis> = all.windows(2).map(|w| Wires::fixed(w[1] / w[0])).collect();
        for (axis, w) in ins.iter().rev().zip(in_ends.windows(2)) {
            let (low, high) = (at(w[0]), at(w[1]));
            if high == low + 1 {
                factors[low] = *axis;
            } else if !self.wires.is_fixed(*axis) {
                // The leading factor unless another one was chosen.
                let moving = high - 1 - self.choose(high - low);
                let made = self.wires.axis(factors[moving].len);
                let step = all[moving] / all[low];
                (0..axis.len).for_each(|p| self.wires.tie(*axis, p, made, p / step % made.len));
                factors[moving] = made;
                self.moving.push(made);
            }
        }
        let mut made: Vec<Axis> = Vec::new();
        for (len, w) in outs.iter().rev().zip(out_ends.windows(2)) {
            let (low, high) = (at(w[0]), at(w[1]));
            if high == low + 1 {
                made.push(factors[low]);
                continue;
            }
            let moving: Vec<usize> = (low..high).filter(|k| !self.wires.is_fixed(factors[*k])).collect();
            made.push(match moving.as_slice() {
                [] => Wires::fixed(*len),
                [one] => {
                    let axis = self.wires.axis(*len);
                    let (step, factor) = (all[*one] / all[low], factors[*one]);
                    (0..*len).for_each(|p| self.wires.tie(axis, p, factor, p / step % factor.len));
                    axis
                }
                several => {
                    several.iter().for_each(|k| self.wires.fix(factors[*k]));
                    Wires::fixed(*len)
                }
            });
        }
        made.reverse();
        made
    }
}

/// The target of a reshape without zeros (as they are) and minus ones (what is left).
pub(super) fn whole_shape(node: &GraphNode, x: &Value, to: &[i64]) -> Result<Vec<usize>> {
    let from = x.shape();
    let zero_is_zero = node.int("allowzero") == Some(1);
    let mut shape: Vec<i64> = to
        .iter()
        .enumerate()
        .map(|(k, n)| if *n == 0 && !zero_is_zero { from.get(k).map_or(0, |n| *n as i64) } else { *n })
        .collect();
    let total: usize = from.iter().product();
    if let Some(open) = shape.iter().position(|n| *n == -1) {
        let rest: i64 = shape.iter().filter(|n| **n != -1).product();
        shape[open] = if rest > 0 { total as i64 / rest } else { 0 };
    }
    let out: Vec<usize> = shape.iter().map(|n| (*n).max(0) as usize).collect();
    if out.iter().product::<usize>() != total || total == 0 {
        return refuse(
            output(node),
            format!("comes from {} of {from:?} to {to:?}, which is another size", described(node)),
        );
    }
    Ok(out)
}
