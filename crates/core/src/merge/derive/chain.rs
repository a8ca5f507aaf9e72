//! Plain chains: layers one after the other, convolutions first, then dense ones, with normalisation in between (MLPs, VGG, small
//! convolutional networks). Layers are taken in the order of the numbers in their names; every layer must read what the one
//! before it writes.

use super::super::error::{MergeError, Result};
use super::super::model::Model;
use super::super::spec::{PermInfo, Piece, Spec};
use super::{Derived, natural, refuse};

const FAMILY: &str = "a chain of layers";

/// A dense or convolutional layer.
struct Layer<'a> {
    path: &'a str,
    weight: &'a str,
    shape: &'a [usize],
}

/// A spec if the tensors form a chain.
pub(super) fn derive(model: &dyn Model) -> Result<Derived> {
    let mut convolutions: Vec<Layer<'_>> = Vec::new();
    let mut dense: Vec<Layer<'_>> = Vec::new();
    let mut small: Vec<&str> = Vec::new();
    for name in model.names() {
        let Some(view) = model.tensor(name) else { continue };
        let path = name.strip_suffix(".weight").or_else(|| name.strip_suffix("weight")).unwrap_or_default();
        match (view.shape.len(), name.ends_with("weight")) {
            (4, true) => convolutions.push(Layer { path, weight: view.name, shape: view.shape }),
            (2, true) => dense.push(Layer { path, weight: view.name, shape: view.shape }),
            (0 | 1, _) => small.push(name),
            _ => return no_spec(name, view.shape),
        }
    }
    convolutions.sort_by_key(|l| natural(l.path));
    dense.sort_by_key(|l| natural(l.path));
    let layers: Vec<&Layer<'_>> = convolutions.iter().chain(&dense).collect();
    if layers.len() < 2 {
        return Err(MergeError::NoSpec {
            tried:
                "its names are those of no known family, and fewer than two dense or convolutional layers make no chain"
                    .into(),
        });
    }
    let mut spec = Spec::default();
    let mut input: Vec<Piece> = Vec::new();
    // Units before the layer, whether a channel may become several inputs, and what comes out of each layer.
    let mut width = 0;
    let mut outputs: Vec<(&Layer<'_>, Vec<Piece>)> = Vec::new();
    for (k, layer) in layers.iter().enumerate() {
        let (reads, writes) = (layer.shape[1], layer.shape[0]);
        let flattens = k > 0 && layer.shape.len() == 2 && layers[k - 1].shape.len() == 4;
        if k > 0 && reads != width {
            if !(flattens && width > 0 && reads.is_multiple_of(width)) {
                let before = layers[k - 1].weight;
                let detail = format!("reads {reads} inputs, but {before} before it has {width} outputs");
                return refuse(FAMILY, layer.weight, detail);
            }
            input = input.into_iter().map(|p| Piece { block: reads / width, ..p }).collect();
        }
        let id = layer.path.trim_end_matches('.').to_string();
        let output = if k + 1 == layers.len() { Vec::new() } else { vec![Piece::whole(&id)] };
        if !output.is_empty() && spec.perms.insert(id, PermInfo::new(writes)).is_some() {
            return refuse(FAMILY, layer.weight, "shares its layer's name with another");
        }
        let mut axes = vec![output.clone(), std::mem::take(&mut input)];
        axes.resize(layer.shape.len(), Vec::new());
        spec.tensors.insert(layer.weight.into(), axes);
        outputs.push((layer, output.clone()));
        (input, width) = (output, writes);
    }
    for name in small {
        vector(model, &outputs, name, &mut spec)?;
    }
    let mut notes = vec!["activations between layers are assumed to act on each unit alone".to_string()];
    if let (Some(last), Some(first)) = (convolutions.last(), dense.first())
        && first.shape[1] != last.shape[0]
    {
        notes.push(format!(
            "{} is assumed to read flattened channels, all positions of one after the other",
            first.weight
        ));
    }
    Ok(Derived { spec, family: FAMILY.into(), notes })
}

fn no_spec<T>(name: &str, shape: &[usize]) -> Result<T> {
    Err(MergeError::NoSpec {
        tried: format!(
            "its names are those of no known family; as a chain of layers, {name} of shape {shape:?} does not fit"
        ),
    })
}

/// A bias, or a vector of a normalisation: it belongs to the layer of its own name, or to the one right before it.
fn vector(model: &dyn Model, outputs: &[(&Layer<'_>, Vec<Piece>)], name: &str, spec: &mut Spec) -> Result<()> {
    let Some(view) = model.tensor(name) else { return Ok(()) };
    let [length] = view.shape[..] else { return Ok(()) };
    let path = name.rsplit_once('.').map_or("", |(path, _)| path);
    let own = outputs.iter().find(|(l, _)| !path.is_empty() && l.path == path);
    let found = own.or_else(|| before(outputs, path));
    match found {
        Some((layer, output)) if layer.shape[0] == length => {
            if !output.is_empty() {
                spec.tensors.insert(name.into(), vec![output.clone()]);
            }
            Ok(())
        }
        Some((layer, _)) => refuse(
            FAMILY,
            name,
            format!("has {length} values, but {} before it has {} outputs", layer.weight, layer.shape[0]),
        ),
        None => refuse(FAMILY, name, "belongs to no layer"),
    }
}

/// The layer that a normalisation named `path` follows: the last one of the same container with a smaller number (`features.0`
/// before `features.1`), or the one with the same number (`conv1` before `bn1`).
fn before<'a, 'b>(outputs: &'a [(&'b Layer<'b>, Vec<Piece>)], path: &str) -> Option<&'a (&'b Layer<'b>, Vec<Piece>)> {
    let split = |p: &str| {
        let at = p.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        (p[..at].to_string(), p[at..].parse::<u64>().ok())
    };
    let (stem, number) = split(path);
    let number = number?;
    if stem.is_empty() || stem.ends_with('.') {
        return outputs.iter().rev().find(|(l, _)| {
            let (other, n) = split(l.path);
            other == stem && n.is_some_and(|n| n < number)
        });
    }
    let container = |s: &str| s.rsplit_once('.').map(|(c, _)| c.to_string());
    let mut same = outputs.iter().filter(|(l, _)| {
        let (other, n) = split(l.path);
        n == Some(number) && container(&other) == container(&stem)
    });
    let first = same.next();
    // With both `conv1` and `fc1`, `bn1` could follow either.
    first.filter(|_| same.next().is_none())
}
