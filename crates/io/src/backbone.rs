//! Backbones inside models of clusterings: tensors `kernels` and `kernel_bias` (f32, all layers one after the other), `pixel_mean` and
//! `pixel_deviation` (f32, one per channel), and in the header how the layers hang together. Not trusted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use subspan::cluster::{Backbone, Convolution};

use crate::error::Result;
use crate::model::{Reader, Stored, put_f32};

/// The header's part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Height, width and channels.
    image: [usize; 3],
    layers: Vec<Layer>,
}

/// A layer without its numbers.
#[derive(Debug, Serialize, Deserialize)]
struct Layer {
    from: usize,
    add: Option<usize>,
    rectified: bool,
    size: usize,
    stride: usize,
    inputs: usize,
    outputs: usize,
}

impl Layer {
    /// Values of its kernels.
    fn len(&self) -> Option<usize> {
        self.size.checked_pow(2)?.checked_mul(self.inputs)?.checked_mul(self.outputs)
    }
}

impl Plan {
    pub(crate) fn of(backbone: &Backbone) -> Self {
        let layers = backbone.layers().iter().map(|l| Layer {
            from: l.from,
            add: l.add,
            rectified: l.rectified,
            size: l.size,
            stride: l.stride,
            inputs: l.kernels.len() / (l.size * l.size * l.bias.len()),
            outputs: l.bias.len(),
        });
        Self { image: backbone.image(), layers: layers.collect() }
    }

    pub(crate) fn read(&self, reader: &Reader<'_>) -> Result<Backbone> {
        let flat = |name: &str| -> Result<Vec<f32>> {
            match reader.f32(name)? {
                (values, shape) if shape.len() == 1 => Ok(values),
                (_, shape) => Err(reader.corrupt(name, format!("shape {shape:?} instead of one dimension"))),
            }
        };
        let (kernels, bias) = (flat("kernels")?, flat("kernel_bias")?);
        let (mut kernels, mut bias) = (kernels.as_slice(), bias.as_slice());
        let mut layers = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let short = || reader.corrupt("kernels", format!("too few values for layer {i}"));
            let own = layer.len().and_then(|n| kernels.split_at_checked(n)).ok_or_else(short)?;
            let own_bias = bias.split_at_checked(layer.outputs).ok_or_else(short)?;
            (kernels, bias) = (own.1, own_bias.1);
            layers.push(Convolution {
                from: layer.from,
                add: layer.add,
                rectified: layer.rectified,
                size: layer.size,
                stride: layer.stride,
                kernels: own.0.to_vec(),
                bias: own_bias.0.to_vec(),
            });
        }
        if !kernels.is_empty() || !bias.is_empty() {
            return Err(reader.corrupt("kernels", "values that belong to no layer".into()));
        }
        let backbone = Backbone::new(self.image, flat("pixel_mean")?, flat("pixel_deviation")?, layers);
        backbone.map_err(|e| reader.corrupt("backbone", e.to_string()))
    }
}

pub(crate) fn put(tensors: &mut BTreeMap<&'static str, Stored>, backbone: &Backbone) {
    let mut put = |name, values: &[f32]| put_f32(tensors, name, Some(values), &[values.len()]);
    let [mean, deviation] = backbone.normalisation();
    put("pixel_mean", mean);
    put("pixel_deviation", deviation);
    put("kernels", &backbone.layers().iter().flat_map(|l| &l.kernels).copied().collect::<Vec<_>>());
    put("kernel_bias", &backbone.layers().iter().flat_map(|l| &l.bias).copied().collect::<Vec<_>>());
}
