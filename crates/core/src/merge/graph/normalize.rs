//! Settings of operations as plain numbers: negative axes, windows, ranges.

use super::super::error::Result;
use super::walk::{described, output};
use super::{Attribute, GraphNode, refuse};

impl GraphNode {
    /// An integer setting.
    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name) {
            Some(Attribute::Int(v)) => Some(*v),
            _ => None,
        }
    }

    /// A list of integers.
    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(v)) => Some(v),
            _ => None,
        }
    }

    /// A word.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Attribute::Text(v)) => Some(v),
            _ => None,
        }
    }

    /// An axis that may count from the end.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        match usize::try_from(at) {
            Ok(at) if at < rank => Ok(at),
            _ => refuse(output(self), format!("comes from {}, which speaks of axis {axis} of {rank}", described(self))),
        }
    }

    /// The spatial sizes after sliding windows of `kernel` over `image`.
    pub(super) fn windows(&self, image: &[usize], kernel: &[usize]) -> Result<Vec<usize>> {
        let list = |name: &str, default: usize, n: usize| -> Vec<usize> {
            let given = self.ints(name).filter(|v| v.len() == n && v.iter().all(|x| *x >= 0));
            given.map_or_else(|| vec![default; n], |v| v.iter().map(|x| *x as usize).collect())
        };
        let n = image.len();
        let (strides, dilations, pads) = (list("strides", 1, n), list("dilations", 1, n), list("pads", 0, 2 * n));
        let ceil = self.int("ceil_mode") == Some(1);
        let one = |k: usize| -> Option<usize> {
            let stride = strides[k].max(1);
            let reach = dilations[k] * (kernel[k].max(1) - 1) + 1;
            match self.text("auto_pad") {
                Some("SAME_UPPER" | "SAME_LOWER") => return Some(image[k].div_ceil(stride)),
                Some("VALID") => return image[k].checked_sub(reach).map(|free| free / stride + 1),
                _ => {}
            }
            let free = (image[k] + pads[k] + pads[k + n]).checked_sub(reach)?;
            let mut windows = if ceil { free.div_ceil(stride) } else { free / stride } + 1;
            // A window that would start in the padding behind the image is left out.
            if ceil && (windows - 1) * stride >= image[k] + pads[k] {
                windows -= 1;
            }
            Some(windows)
        };
        match (0..n).map(one).collect::<Option<Vec<_>>>() {
            Some(sizes) => Ok(sizes),
            None => refuse(
                output(self),
                format!(
                    "comes from {}, whose window {kernel:?} does not fit an image of {image:?}: export with images of a fixed size",
                    described(self)
                ),
            ),
        }
    }
}

/// The positions of a slice with ONNX's rules for ends beyond the axis.
pub(super) fn range(len: usize, start: i64, end: i64, step: i64) -> Vec<usize> {
    let n = len as i64;
    let from_end = |at: i64| if at < 0 { at.saturating_add(n) } else { at };
    let mut out = Vec::new();
    if step > 0 {
        let (mut at, end) = (from_end(start).clamp(0, n), from_end(end).clamp(0, n));
        while at < end {
            out.push(at as usize);
            at = at.saturating_add(step);
        }
    } else if step < 0 {
        let (mut at, end) = (from_end(start).clamp(-1, n - 1), from_end(end).clamp(-1, n - 1));
        while at > end {
            out.push(at as usize);
            at = at.saturating_add(step);
        }
    }
    out
}
