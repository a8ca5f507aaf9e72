//! Permutation specs as TOML: templates are expanded here, so that the rest sees plain names.
//!
//! `{i}` in a perm id or tensor name runs over the `range` declared for `i`; `{a,b}` in a name stands for each of its
//! alternatives. [`spec_text`] writes expanded names.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use subspan::merge::{MergeError, PermInfo, Piece, Solve, Spec};

use crate::error::{IoError, Result};

/// The version this program reads and writes.
const VERSION: i64 = 1;
/// Most names a spec may expand to, so that a typing error cannot fill the memory.
const MAX_NAMES: usize = 1_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: i64,
    #[serde(default)]
    range: BTreeMap<String, [usize; 2]>,
    perm: BTreeMap<String, PermEntry>,
    tensors: BTreeMap<String, Vec<Vec<PieceEntry>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PermEntry {
    Size(usize),
    Full(FullPerm),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullPerm {
    size: usize,
    #[serde(default)]
    solve: SolveEntry,
    groups: Option<usize>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum SolveEntry {
    #[default]
    Match,
    Fixed,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PieceEntry {
    Perm(String),
    Full(FullPiece),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullPiece {
    perm: String,
    at: Option<usize>,
    from: Option<usize>,
    len: Option<usize>,
    block: Option<usize>,
    tile: Option<usize>,
    stride: Option<usize>,
}

impl PieceEntry {
    fn piece(&self) -> Piece {
        match self {
            Self::Perm(perm) => Piece::whole(perm),
            Self::Full(p) => Piece {
                perm: p.perm.clone(),
                at: p.at.unwrap_or(0),
                from: p.from.unwrap_or(0),
                len: p.len,
                block: p.block.unwrap_or(1),
                tile: p.tile.unwrap_or(1),
                stride: p.stride,
                fills: p.at.is_none() && p.from.is_none() && p.len.is_none() && p.stride.is_none(),
            },
        }
    }
}

/// Reads a spec.
///
/// # Errors
/// [`IoError`]: no such file, no TOML (with the line), a law of specs that is broken (with the perm or tensor).
pub fn read_spec(path: &str) -> Result<Spec> {
    let text = std::fs::read(path).map_err(IoError::open(path))?;
    let text = String::from_utf8(text).map_err(|_| IoError::NotUtf8 { path: path.into(), place: "the spec".into() })?;
    parse_spec(&text, path)
}

/// A spec out of TOML; `path` is for messages.
///
/// # Errors
/// As [`read_spec`], without opening.
pub fn parse_spec(text: &str, path: &str) -> Result<Spec> {
    let document: Document = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        IoError::corrupt(path, format!("line {line}"), e.message())
    })?;
    let spec = expand(&document).and_then(|spec| spec.check().map(|()| spec));
    spec.map_err(|e| IoError::Merge { path: path.into(), source: Box::new(e) })
}

fn expand(document: &Document) -> Result<Spec, MergeError> {
    if document.version != VERSION {
        return Err(MergeError::spec(format!("version {} of specs, this program reads {VERSION}", document.version)));
    }
    let mut spec = Spec::default();
    for (id, entry) in &document.perm {
        let info = match entry {
            PermEntry::Size(size) => PermInfo::new(*size),
            PermEntry::Full(FullPerm { size, solve, groups }) => PermInfo {
                size: *size,
                solve: match solve {
                    SolveEntry::Match => Solve::Match,
                    SolveEntry::Fixed => Solve::Fixed,
                },
                groups: *groups,
            },
        };
        for (id, _) in names(id, &document.range)? {
            if spec.perms.insert(id.clone(), info.clone()).is_some() {
                return Err(MergeError::spec(format!("perm {id} is declared twice")));
            }
        }
    }
    for (name, axes) in &document.tensors {
        for (name, values) in names(name, &document.range)? {
            let axis = |pieces: &Vec<PieceEntry>| -> Result<Vec<Piece>, MergeError> {
                let piece = |p: &PieceEntry| {
                    let piece = p.piece();
                    let perm = substitute(&piece.perm, &values);
                    if perm.contains('{') {
                        let detail = format!("tensor {name}: perm {perm} uses a range that the tensor's name does not");
                        return Err(MergeError::spec(detail));
                    }
                    Ok(Piece { perm, ..piece })
                };
                pieces.iter().map(piece).collect()
            };
            let axes = axes.iter().map(axis).collect::<Result<_, _>>()?;
            if spec.tensors.insert(name.clone(), axes).is_some() {
                return Err(MergeError::spec(format!("tensor {name} is described twice")));
            }
        }
    }
    Ok(spec)
}

/// Values of the ranges in a name.
type Values<'a> = BTreeMap<&'a str, usize>;

/// Every name a template stands for, with the values of its ranges.
fn names<'a>(
    template: &'a str,
    ranges: &'a BTreeMap<String, [usize; 2]>,
) -> Result<Vec<(String, Values<'a>)>, MergeError> {
    let bad = |what: &str| MergeError::spec(format!("{template}: {what}"));
    let mut all: Vec<(String, Values<'a>)> = vec![(String::new(), Values::new())];
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        let (plain, tail) = rest.split_at(open);
        let inner = tail.strip_prefix('{').ok_or_else(|| bad("a closing brace without an opening one"))?;
        let (inside, tail) = inner.split_once('}').ok_or_else(|| bad("an opening brace without a closing one"))?;
        let mut next = Vec::new();
        for (name, values) in &all {
            if inside.contains(',') {
                next.extend(inside.split(',').map(|part| (format!("{name}{plain}{}", part.trim()), values.clone())));
            } else {
                let [from, to] = ranges.get(inside).ok_or_else(|| bad(&format!("no range {inside} is declared")))?;
                let given = values.get(inside).copied();
                for value in given.map_or(*from..*to, |v| v..v + 1) {
                    let mut values = values.clone();
                    values.insert(inside, value);
                    next.push((format!("{name}{plain}{value}"), values));
                    if next.len() > MAX_NAMES {
                        return Err(bad(&format!("more than {MAX_NAMES} names")));
                    }
                }
            }
        }
        all = next;
        rest = tail;
    }
    all.iter_mut().for_each(|(name, _)| name.push_str(rest));
    Ok(all)
}

fn substitute(perm: &str, values: &Values<'_>) -> String {
    values
        .iter()
        .fold(perm.to_string(), |perm, (range, value)| perm.replace(&format!("{{{range}}}"), &value.to_string()))
}

/// A spec as TOML with expanded names. `parse_spec` reads back the same spec.
pub fn spec_text(spec: &Spec) -> String {
    let mut out = format!("version = {VERSION}\n\n[perm]\n");
    // Writing to a string cannot fail.
    for (id, perm) in &spec.perms {
        let size = perm.size;
        let _ = match (perm.solve, perm.groups) {
            (Solve::Match, None) => writeln!(out, "{} = {size}", quoted(id)),
            (solve, groups) => {
                let solve = if solve == Solve::Fixed { ", solve = \"fixed\"" } else { "" };
                let groups = groups.map_or_else(String::new, |g| format!(", groups = {g}"));
                writeln!(out, "{} = {{ size = {size}{solve}{groups} }}", quoted(id))
            }
        };
    }
    out.push_str("\n[tensors]\n");
    for (name, axes) in &spec.tensors {
        let axes: Vec<String> = axes
            .iter()
            .map(|pieces| format!("[{}]", pieces.iter().map(piece_text).collect::<Vec<_>>().join(", ")))
            .collect();
        let _ = writeln!(out, "{} = [{}]", quoted(name), axes.join(", "));
    }
    out
}

fn piece_text(piece: &Piece) -> String {
    if piece.fills && piece.block == 1 && piece.tile == 1 {
        return quoted(&piece.perm);
    }
    let mut out = format!("{{ perm = {}", quoted(&piece.perm));
    let mut put = |key: &str, value: Option<usize>| {
        if let Some(value) = value {
            let _ = write!(out, ", {key} = {value}");
        }
    };
    put("at", (!piece.fills).then_some(piece.at));
    put("from", (piece.from != 0).then_some(piece.from));
    put("len", piece.len);
    put("block", (piece.block != 1).then_some(piece.block));
    put("tile", (piece.tile != 1).then_some(piece.tile));
    put("stride", piece.stride);
    out + " }"
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    // JSON's escapes are TOML's too.
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
