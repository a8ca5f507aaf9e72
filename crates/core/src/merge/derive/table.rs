//! Families as tables: name patterns and what their axes are.
//!
//! In a pattern, `{i}` stands for a number and `{a,b}` for alternatives. Axes are separated by `|`, pieces by `+`: `-` is a fixed
//! axis (`-*d` one of length `d`), `ff{i}` a perm that fills it, `heads{i}*d` one with a block of `d` positions per unit.

use std::collections::BTreeMap;

use super::super::error::Result;
use super::super::model::Model;
use super::super::spec::{OUTER, PermInfo, Piece, Solve, Spec};
use super::{RESIDUAL, refuse};

/// One line of a family.
pub(super) struct Row {
    pub(super) pattern: String,
    /// `None`: the tensor stays as it is (masks, rotary frequencies).
    pub(super) axes: Option<String>,
}

/// A family with the sizes that names do not tell.
pub(super) struct Table {
    pub(super) family: String,
    pub(super) rows: Vec<Row>,
    /// Block lengths by name.
    pub(super) blocks: BTreeMap<&'static str, usize>,
    /// Attention heads and groups of them that share keys and values, if known.
    pub(super) heads: Option<(usize, usize)>,
}

impl Table {
    /// The spec of `model`; `strip` is what every name begins with.
    pub(super) fn apply(&self, model: &dyn Model, strip: &str) -> Result<Spec> {
        let rows: Vec<(String, &Row)> =
            self.rows.iter().flat_map(|r| alternatives(&r.pattern).into_iter().map(move |p| (p, r))).collect();
        let mut spec = Spec::default();
        for name in model.names() {
            let plain = name.strip_prefix(strip).unwrap_or(name);
            let found = rows.iter().find_map(|(pattern, row)| Some((capture(pattern, plain)?, *row)));
            let Some((number, row)) = found else {
                return refuse(&self.family, name, "is none of its tensors");
            };
            let (Some(axes), Some(view)) = (&row.axes, model.tensor(name)) else { continue };
            let axes: Vec<&str> = axes.split('|').map(str::trim).collect();
            if axes.len() != view.shape.len() {
                return refuse(
                    &self.family,
                    name,
                    format!("has shape {:?}, {} axes are expected", view.shape, axes.len()),
                );
            }
            let mut described = Vec::new();
            for (axis, text) in axes.iter().enumerate() {
                let text = text.replace("{i}", &number);
                described.push(self.axis(&mut spec, name, axis, view.shape[axis], &text)?);
            }
            if described.iter().any(|a| !a.is_empty()) {
                spec.tensors.insert(name.into(), described);
            }
        }
        Ok(spec)
    }

    fn axis(&self, spec: &mut Spec, name: &str, axis: usize, length: usize, text: &str) -> Result<Vec<Piece>> {
        if text == "-" {
            return Ok(Vec::new());
        }
        if let Some(block) = text.strip_prefix("-*") {
            return match self.blocks.get(block) {
                Some(expected) if *expected != length => refuse(
                    &self.family,
                    name,
                    format!("has {length} positions on axis {axis}, {expected} are expected"),
                ),
                _ => Ok(Vec::new()),
            };
        }
        let parts: Vec<&str> = text.split('+').map(str::trim).collect();
        let mut pieces = Vec::new();
        let mut at = 0;
        for part in &parts {
            let (perm, block) = part.split_once('*').unwrap_or((part, ""));
            let block = if block.is_empty() { 1 } else { self.blocks.get(block).copied().unwrap_or(0) };
            if perm.starts_with("heads") && self.heads.is_none() {
                // Without the number of heads they stay where they are.
                return Ok(Vec::new());
            }
            let size = self.size(perm, length / parts.len());
            let piece = Piece::blocks(perm, block);
            let piece = if parts.len() == 1 { piece } else { piece.at(at) };
            self.declare(spec, name, axis, perm, size)?;
            at += size * block;
            pieces.push(if self.is_grouped() { piece } else { Piece { perm: perm.replace(OUTER, ""), ..piece } });
        }
        if at != length {
            return refuse(&self.family, name, format!("has {length} positions on axis {axis}, {at} are expected"));
        }
        Ok(pieces)
    }

    fn is_grouped(&self) -> bool {
        self.heads.is_some_and(|(heads, groups)| heads != groups)
    }

    fn size(&self, perm: &str, length: usize) -> usize {
        match self.heads {
            Some((_, groups)) if perm.starts_with("heads") && perm.ends_with(OUTER) => groups,
            Some((heads, _)) if perm.starts_with("heads") => heads,
            _ => length,
        }
    }

    /// Declares a perm, or checks that its size is what it was.
    fn declare(&self, spec: &mut Spec, name: &str, axis: usize, perm: &str, size: usize) -> Result<()> {
        let id = perm.strip_suffix(OUTER).unwrap_or(perm);
        let info = match self.heads {
            Some((heads, groups)) if perm.starts_with("heads") => {
                PermInfo { size: heads, groups: (heads != groups).then_some(groups), solve: Solve::Match }
            }
            _ if perm == RESIDUAL => PermInfo { solve: Solve::Fixed, ..PermInfo::new(size) },
            _ => PermInfo::new(size),
        };
        match spec.perms.insert(id.into(), info.clone()) {
            Some(old) if old != info => {
                let detail = format!("has {} units of {id} on axis {axis}, other tensors have {}", info.size, old.size);
                refuse(&self.family, name, detail)
            }
            _ => Ok(()),
        }
    }
}

/// Every pattern that alternatives stand for.
fn alternatives(pattern: &str) -> Vec<String> {
    let choice = pattern.match_indices('{').find_map(|(open, _)| {
        let close = open + pattern[open..].find('}')?;
        pattern[open..close].contains(',').then_some((open, close))
    });
    match choice {
        None => vec![pattern.to_string()],
        Some((open, close)) => pattern[open + 1..close]
            .split(',')
            .flat_map(|word| alternatives(&format!("{}{word}{}", &pattern[..open], &pattern[close + 1..])))
            .collect(),
    }
}

/// The numbers that `{i}` stands for in `name`, joined by underscores, if it has this pattern.
fn capture(pattern: &str, name: &str) -> Option<String> {
    let mut numbers: Vec<&str> = Vec::new();
    let mut parts = pattern.split("{i}");
    let mut rest = name.strip_prefix(parts.next()?)?;
    for part in parts {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if end == 0 {
            return None;
        }
        numbers.push(&rest[..end]);
        rest = rest[end..].strip_prefix(part)?;
    }
    rest.is_empty().then(|| numbers.join("_"))
}
