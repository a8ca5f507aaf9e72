//! Residual networks with the names of torchvision or of the usual CIFAR code: `conv1`, `layerN.B.conv{1,2,3}`, `fc` or `linear`.
//!
//! All that is added into one residual stream shares a perm. A shortcut with a convolution starts a new stream; one without
//! parameters between streams of different width pads the old channels with zeros ("option A"): the old perm sits in the middle
//! of the new stream, the new channels are a perm of their own in two ranges.

use super::super::error::Result;
use super::super::model::Model;
use super::super::spec::{PermInfo, Piece, Spec};
use super::{Derived, natural, refuse};

const FAMILY: &str = "a residual network";
const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

struct Builder<'a> {
    model: &'a dyn Model,
    prefix: &'a str,
    spec: Spec,
    /// Tensors described so far.
    seen: Vec<String>,
}

/// A spec if the names are those of a residual network.
pub(super) fn derive(model: &dyn Model) -> Result<Option<Derived>> {
    let prefix = ["", "module.", "model.", "resnet."].into_iter().find(|p| {
        let has = |name: &str| model.tensor(&format!("{p}{name}")).is_some();
        has("conv1.weight") && has("layer1.0.conv1.weight") && has("layer1.0.conv2.weight")
    });
    let Some(prefix) = prefix else { return Ok(None) };
    let mut b = Builder { model, prefix, spec: Spec::default(), seen: Vec::new() };
    let mut notes = Vec::new();
    let mut stream = b.perm_of("r1", "conv1.weight")?;
    b.conv("conv1", &[], &stream)?;
    b.norm("bn1", &stream)?;
    let mut n_streams = 1;
    for block in b.blocks() {
        let shortcut = ["downsample", "shortcut"].into_iter().find(|s| b.has(&format!("{block}.{s}.0.weight")));
        let last = if b.has(&format!("{block}.conv3.weight")) { 3 } else { 2 };
        let (old, new) = (width(&stream, &b.spec), b.shape(&format!("{block}.conv{last}.weight"))?[0]);
        let next = if let Some(shortcut) = shortcut {
            n_streams += 1;
            let next = b.perm(&format!("r{n_streams}"), new);
            b.conv(&format!("{block}.{shortcut}.0"), &stream, &next)?;
            b.norm(&format!("{block}.{shortcut}.1"), &next)?;
            next
        } else if old == new {
            stream.clone()
        } else {
            n_streams += 1;
            if n_streams == 2 {
                notes.push(
                    "shortcuts without parameters are assumed to pad as many zero channels before as after".into(),
                );
            }
            b.padded(&block, &stream, old, new, &format!("r{n_streams}"))?
        };
        let mut input = stream;
        for k in 1..=last {
            let conv = format!("{block}.conv{k}");
            let output =
                if k == last { next.clone() } else { b.perm_of(&format!("{block}.in{k}"), &format!("{conv}.weight"))? };
            b.conv(&conv, &input, &output)?;
            b.norm(&format!("{block}.bn{k}"), &output)?;
            input = output;
        }
        stream = next;
    }
    let head = ["fc", "linear"].into_iter().find(|h| b.has(&format!("{h}.weight")));
    if let Some(head) = head {
        let shape = b.shape(&format!("{head}.weight"))?;
        if shape.len() != 2 || shape[1] != width(&stream, &b.spec) {
            return refuse(
                FAMILY,
                &b.name(&format!("{head}.weight")),
                format!("has shape {shape:?} after {} channels", width(&stream, &b.spec)),
            );
        }
        b.put(&format!("{head}.weight"), vec![Vec::new(), stream]);
        b.seen.push(b.name(&format!("{head}.bias")));
    }
    let stays = |name: &str| name.ends_with("num_batches_tracked");
    if let Some(name) = model.names().into_iter().find(|n| !stays(n) && !b.seen.iter().any(|s| s == n)) {
        return refuse(FAMILY, name, "is none of its tensors");
    }
    Ok(Some(Derived { spec: b.spec, family: FAMILY.into(), notes }))
}

/// Channels of a stream.
fn width(stream: &[Piece], spec: &Spec) -> usize {
    let end = |p: &Piece| p.at + p.len.unwrap_or_else(|| spec.perms.get(&p.perm).map_or(0, |i| i.size));
    stream.iter().map(end).max().unwrap_or(0)
}

impl Builder<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn has(&self, name: &str) -> bool {
        self.model.tensor(&self.name(name)).is_some()
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.model.require(&self.name(name))?.shape.to_vec())
    }

    /// `layerN.B` in the order in which they are run.
    fn blocks(&self) -> Vec<String> {
        let names = self.model.names();
        let plain = names.iter().filter_map(|n| n.strip_prefix(self.prefix)?.strip_suffix(".conv1.weight"));
        let mut blocks: Vec<String> = plain.filter(|n| n.starts_with("layer")).map(str::to_string).collect();
        blocks.sort_by_key(|n| natural(n));
        blocks
    }

    fn perm(&mut self, id: &str, size: usize) -> Vec<Piece> {
        self.spec.perms.insert(id.into(), PermInfo::new(size));
        vec![Piece::whole(id)]
    }

    /// A perm of the outputs of a layer.
    fn perm_of(&mut self, id: &str, weight: &str) -> Result<Vec<Piece>> {
        let size = self.shape(weight)?[0];
        Ok(self.perm(id, size))
    }

    fn put(&mut self, name: &str, axes: Vec<Vec<Piece>>) {
        let name = self.name(name);
        self.seen.push(name.clone());
        self.spec.tensors.insert(name, axes);
    }

    fn conv(&mut self, layer: &str, input: &[Piece], output: &[Piece]) -> Result<()> {
        let weight = format!("{layer}.weight");
        let shape = self.shape(&weight)?;
        let channels = width(input, &self.spec);
        let fits =
            shape.len() == 4 && shape[0] == width(output, &self.spec) && (input.is_empty() || shape[1] == channels);
        if !fits {
            let detail = format!("has shape {shape:?} between {channels} and {} channels", width(output, &self.spec));
            return refuse(FAMILY, &self.name(&weight), detail);
        }
        self.put(&weight, vec![output.to_vec(), input.to_vec(), Vec::new(), Vec::new()]);
        let bias = format!("{layer}.bias");
        if self.has(&bias) {
            self.put(&bias, vec![output.to_vec()]);
        }
        Ok(())
    }

    fn norm(&mut self, layer: &str, stream: &[Piece]) -> Result<()> {
        for part in NORM {
            let name = format!("{layer}.{part}");
            if self.has(&name) {
                let shape = self.shape(&name)?;
                if shape != [width(stream, &self.spec)] {
                    let detail = format!("has shape {shape:?} for {} channels", width(stream, &self.spec));
                    return refuse(FAMILY, &self.name(&name), detail);
                }
                self.put(&name, vec![stream.to_vec()]);
            }
        }
        Ok(())
    }

    /// The stream after a shortcut that pads `old` channels to `new`.
    fn padded(&mut self, block: &str, stream: &[Piece], old: usize, new: usize, id: &str) -> Result<Vec<Piece>> {
        let weight = self.name(&format!("{block}.conv1.weight"));
        if new < old || !(new - old).is_multiple_of(2) {
            return refuse(
                FAMILY,
                &weight,
                format!("leads from {old} to {new} channels without a shortcut's parameters"),
            );
        }
        let side = (new - old) / 2;
        self.spec.perms.insert(id.into(), PermInfo::new(2 * side));
        let mut pieces: Vec<Piece> = stream.iter().map(|p| p.clone().at(p.at + side)).collect();
        pieces.push(Piece::whole(id).at(0).units(0, side));
        pieces.push(Piece::whole(id).at(side + old).units(side, side));
        Ok(pieces)
    }
}
