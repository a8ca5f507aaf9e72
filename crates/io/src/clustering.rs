//! Clusterings as `.safetensors` files.
//!
//! Tensors of a model: those of a backbone, if there is one (see `backbone.rs`); `center` (f32, `D`); optionally `map` (f32, `p x D`) and `metric` (f32, `q x p`) or the
//! layers of a trained head (`features.0` to `.2`, `clusters.0` to `.2`, each `weight` and `bias`); `anchors` (f32, `a x q`),
//! `anchor_labels` (u32, `a`), `log_scale`, `temperature`, `top` and, where anchors of a pursuit weigh differently, `anchor_mass` (f64, `a`). The metadata's entry `subspan` is a JSON
//! object with `format`, `version`, `clusters`, `unit_first`, `scattering`, `backbone`, `affinity`, `neighbours` and `perplexity`. A file is not trusted: everything that
//! predictions rely on is checked.

use std::collections::BTreeMap;

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use subspan::classify;
use subspan::cluster::{Affinity, Cluster, Front, Layer, Model, Scattering, Transform};

use crate::atomic::AtomicFile;
use crate::backbone::{self, Plan};
use crate::error::{IoError, Result};
use crate::model::{Reader, Stored, put_f32, read_model, reading, reading_bytes, tensor_bytes, write_all};

/// What this version writes and reads.
const FORMAT: &str = "subspan-clustering-1";

/// The metadata's entry.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: String,
    clusters: usize,
    unit_first: bool,
    scattering: Option<[usize; 2]>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    turned: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backbone: Option<Plan>,
    affinity: String,
    neighbours: usize,
    perplexity: f64,
}

/// Names of affinities in a file.
const AFFINITIES: [(&str, Affinity); 4] = [
    ("cosine", Affinity::Cosine),
    ("absolute", Affinity::Absolute),
    ("weighted", Affinity::Weighted),
    ("pursuit", Affinity::Pursuit),
];

/// A model of this program.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyModel {
    /// Of `subspan classify`.
    Classifier(Box<classify::Model>),
    /// Of `subspan cluster`.
    Clustering(Box<Model>),
}

/// Reads a classifier or a clustering and checks it.
///
/// # Errors
/// As [`read_model`].
pub fn read_any_model(path: &str) -> Result<AnyModel> {
    match reading(path, read_clustering)? {
        Some(model) => Ok(AnyModel::Clustering(Box::new(model))),
        None => Ok(AnyModel::Classifier(Box::new(read_model(path)?))),
    }
}

/// A clustering from the content of a file, which errors call `path`.
///
/// # Errors
/// As [`read_any_model`]; [`IoError::Unsupported`] for a classifier.
pub fn clustering_from_bytes(path: &str, bytes: &[u8]) -> Result<Model> {
    let other = || IoError::unsupported(path, "a model, but not of subspan cluster");
    reading_bytes(path, bytes, read_clustering)?.ok_or_else(other)
}

/// `None` for a model of another kind.
fn read_clustering(reader: &Reader<'_>, header: &str) -> Result<Option<Model>> {
    #[derive(Deserialize)]
    struct Format {
        format: String,
    }
    let damaged = |e| IoError::corrupt(reader.path, "metadata", e);
    let format: Format = serde_json::from_str(header).map_err(damaged)?;
    if format.format != FORMAT {
        return Ok(None);
    }
    let header: Header = serde_json::from_str(header).map_err(damaged)?;
    read(reader, &header).map(Some)
}

fn read(reader: &Reader<'_>, header: &Header) -> Result<Model> {
    let Some((_, affinity)) = AFFINITIES.iter().find(|(name, _)| *name == header.affinity) else {
        return Err(reader.corrupt("affinity", format!("unknown affinity {}", header.affinity)));
    };
    let (center, shape) = reader.f32("center")?;
    if shape.len() != 1 || center.is_empty() {
        return Err(reader.corrupt("center", format!("shape {shape:?} instead of one dimension")));
    }
    let front = match (&header.scattering, &header.backbone) {
        (None, None) => None,
        (Some([height, width]), None) => {
            let scattering =
                Scattering::new(*height, *width).map_err(|e| reader.corrupt("scattering", e.to_string()))?;
            Some(Front::Scattering(if header.turned { scattering.turned() } else { scattering }))
        }
        (None, Some(plan)) => Some(Front::Backbone(plan.read(reader)?)),
        (Some(_), Some(_)) => return Err(reader.corrupt("metadata", "both scattering and a backbone".into())),
    };
    if let Some(front) = front.as_ref().filter(|f| f.n_out() != center.len()) {
        let detail = format!("{} values for images of {} features", center.len(), front.n_out());
        return Err(reader.corrupt("center", detail));
    }
    let matrix = |name: &str, columns: Option<usize>| -> Result<(Vec<f32>, usize, usize)> {
        let (values, shape) = reader.f32(name)?;
        match shape[..] {
            [rows, found] if rows > 0 && found > 0 && columns.is_none_or(|c| c == found) => Ok((values, rows, found)),
            _ => Err(reader.corrupt(name, format!("shape {shape:?} does not fit the other tensors"))),
        }
    };
    let (map, p) = if reader.has("map") {
        let (values, rows, _) = matrix("map", Some(center.len()))?;
        (Some(values), rows)
    } else {
        (None, center.len())
    };
    let layers = |names: &[[&str; 2]]| reader.has(names[0][0]).then(|| read_layers(reader, names, p)).transpose();
    let (head, linear) = (layers(&CLUSTERS)?, layers(&FEATURES)?);
    let (metric, q) = if let Some(last) = head.as_ref().and_then(|layers| layers.last()) {
        (None, last.n_out())
    } else if reader.has("metric") {
        let (values, rows, _) = matrix("metric", Some(p))?;
        (Some(values), rows)
    } else {
        (None, p)
    };
    let (anchors, n_anchors, _) = matrix("anchors", Some(q))?;
    let labels: Vec<u32> = reader.offsets("anchor_labels")?.into_iter().map(|l| l as u32).collect();
    if header.clusters > MAX_CLUSTERS.max(n_anchors) {
        let detail = format!("{} clusters of {n_anchors} anchors", header.clusters);
        return Err(reader.corrupt("metadata", detail));
    }
    if labels.len() != n_anchors || labels.iter().any(|l| *l as usize >= header.clusters) {
        let detail = format!("{} labels of {} clusters for {n_anchors} anchors", labels.len(), header.clusters);
        return Err(reader.corrupt("anchor_labels", detail));
    }
    let bounded = |name: &str, range: std::ops::RangeInclusive<f64>| -> Result<Vec<f64>> {
        let values = reader.f64(name, n_anchors)?;
        match values.iter().position(|v| !range.contains(v)) {
            Some(at) => {
                let detail =
                    format!("value number {at}, {}, is not between {} and {}", values[at], range.start(), range.end());
                Err(reader.corrupt(name, detail))
            }
            None => Ok(values),
        }
    };
    if header.neighbours == 0 || header.neighbours > MAX_NEIGHBOURS || header.perplexity < 1.0 {
        let detail = format!("{} voters of perplexity {}", header.neighbours, header.perplexity);
        return Err(reader.corrupt("metadata", detail));
    }
    Ok(Model {
        clusters: header.clusters,
        front,
        transform: Transform { unit_first: header.unit_first, center, map },
        affinity: affinity.clone(),
        metric,
        head,
        linear,
        anchors,
        labels,
        log_scale: bounded("log_scale", LOG_SCALES)?,
        temperature: bounded("temperature", TEMPERATURES)?,
        top: bounded("top", TOPS)?,
        anchor_mass: reader.has("anchor_mass").then(|| bounded("anchor_mass", MASSES)).transpose()?,
        neighbours: header.neighbours,
        perplexity: header.perplexity,
    })
}

/// Ranges outside which no fit leads, and inside which votes are finite.
const LOG_SCALES: std::ops::RangeInclusive<f64> = -1e3..=1e3;
const TEMPERATURES: std::ops::RangeInclusive<f64> = 1e-14..=1e3;
const TOPS: std::ops::RangeInclusive<f64> = -1e6..=1e6;
const MASSES: std::ops::RangeInclusive<f64> = 1e-300..=1e300;

/// Names of trained layers: to the representation, to the images of a head.
const FEATURES: [[&str; 2]; 3] = [
    ["features.0.weight", "features.0.bias"],
    ["features.1.weight", "features.1.bias"],
    ["features.2.weight", "features.2.bias"],
];
const CLUSTERS: [[&str; 2]; 3] = [
    ["clusters.0.weight", "clusters.0.bias"],
    ["clusters.1.weight", "clusters.1.bias"],
    ["clusters.2.weight", "clusters.2.bias"],
];

fn read_layers(reader: &Reader<'_>, names: &[[&str; 2]], mut inputs: usize) -> Result<Vec<Layer>> {
    let layer = |[weight, bias]: &[&str; 2]| -> Result<Layer> {
        let (weights, shape) = reader.f32(weight)?;
        match shape[..] {
            [outputs, found] if outputs > 0 && found == inputs => {
                inputs = outputs;
                Ok(Layer { weights, bias: reader.shaped_f32(bias, &[outputs])? })
            }
            _ => Err(reader.corrupt(weight, format!("shape {shape:?} for {inputs} inputs"))),
        }
    };
    names.iter().map(layer).collect()
}

/// Far above any graph; a bound on what a damaged file can make predictions allocate.
const MAX_NEIGHBOURS: usize = 1 << 16;
/// Clusters of a model that has fewer anchors than that.
const MAX_CLUSTERS: usize = 1 << 16;

/// Writes a clustering's model into `file`, which is then complete. Equal models give equal bytes.
///
/// # Errors
/// [`IoError::Write`].
pub fn write_clustering(model: &Model, file: AtomicFile) -> Result<()> {
    write_all(file, |path| to_bytes(model, path))
}

/// The bytes that [`write_clustering`] writes.
///
/// # Errors
/// [`IoError::Write`] if a part exceeds what the format can hold.
pub fn clustering_to_bytes(model: &Model) -> Result<Vec<u8>> {
    to_bytes(model, "a model")
}

fn to_bytes(model: &Model, path: &str) -> Result<Vec<u8>> {
    let mut tensors = BTreeMap::new();
    let (d, p, q) = (model.transform.center.len(), model.transform.n_out(), model.n_out());
    let n = model.labels.len();
    put_f32(&mut tensors, "center", Some(&model.transform.center), &[d]);
    put_f32(&mut tensors, "map", model.transform.map.as_deref(), &[p, d]);
    put_f32(&mut tensors, "metric", model.metric.as_deref(), &[q, p]);
    for (names, layers) in [(FEATURES, &model.linear), (CLUSTERS, &model.head)] {
        for ([weight, bias], layer) in names.iter().zip(layers.iter().flatten()) {
            put_f32(&mut tensors, weight, Some(&layer.weights), &[layer.n_out(), layer.n_in()]);
            put_f32(&mut tensors, bias, Some(&layer.bias), &[layer.n_out()]);
        }
    }
    put_f32(&mut tensors, "anchors", Some(&model.anchors), &[n, q]);
    put_u32(&mut tensors, "anchor_labels", &model.labels);
    let per_anchor = [("log_scale", &model.log_scale), ("temperature", &model.temperature), ("top", &model.top)];
    for (name, values) in per_anchor.into_iter().chain(model.anchor_mass.as_ref().map(|mass| ("anchor_mass", mass))) {
        tensors.insert(name, (Dtype::F64, vec![n], values.iter().flat_map(|v| v.to_le_bytes()).collect()));
    }
    let (scattering, network) = match &model.front {
        Some(Front::Scattering(scattering)) => (Some(scattering.image()), None),
        Some(Front::Backbone(network)) => (None, Some(network)),
        None => (None, None),
    };
    if let Some(network) = network {
        backbone::put(&mut tensors, network);
    }
    let name = AFFINITIES.iter().find(|(_, a)| *a == model.affinity).map_or("", |(name, _)| name);
    let header = Header {
        format: FORMAT.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        clusters: model.clusters,
        unit_first: model.transform.unit_first,
        scattering,
        turned: matches!(&model.front, Some(Front::Scattering(scattering)) if scattering.is_turned()),
        backbone: network.map(Plan::of),
        affinity: name.into(),
        neighbours: model.neighbours,
        perplexity: model.perplexity,
    };
    let text = serde_json::to_string(&header).map_err(|e| IoError::write(path)(std::io::Error::other(e)))?;
    tensor_bytes(&tensors, Some(text), path)
}

/// Writes every cluster's subspace: `subspaces` (f32, orthonormal rows stacked, `Σr x p`), `offsets` (u32, one more than
/// clusters) and `medoids` (u32, the typical row of each, the largest number for a cluster without rows).
///
/// # Errors
/// [`IoError::Write`].
pub fn write_subspaces(clusters: &[Cluster], n_dims: usize, file: AtomicFile) -> Result<()> {
    let mut rows = Vec::new();
    let mut offsets = vec![0u32];
    for cluster in clusters {
        let basis = cluster.subspace.basis();
        for j in 0..basis.n_cols() {
            rows.extend(basis.col(j).iter().map(|v| *v as f32));
        }
        offsets.push((rows.len() / n_dims) as u32);
    }
    let mut tensors = BTreeMap::new();
    put_f32(&mut tensors, "subspaces", Some(&rows), &[rows.len() / n_dims, n_dims]);
    put_u32(&mut tensors, "offsets", &offsets);
    let medoids: Vec<u32> = clusters.iter().map(|c| c.medoid.map_or(u32::MAX, |i| i as u32)).collect();
    put_u32(&mut tensors, "medoids", &medoids);
    write_all(file, |path| tensor_bytes(&tensors, None, path))
}

fn put_u32(tensors: &mut BTreeMap<&'static str, Stored>, name: &'static str, values: &[u32]) {
    tensors.insert(name, (Dtype::U32, vec![values.len()], values.iter().flat_map(|v| v.to_le_bytes()).collect()));
}
