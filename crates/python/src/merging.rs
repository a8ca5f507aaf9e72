//! Checkpoints matched, aligned and merged.

use std::collections::BTreeMap;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::json;
use subspan::merge::analysis::{overlaps, spectra};
use subspan::merge::{
    Comparison, DType, Layout, MatchConfig, MemoryModel, MergeError, Model, Permutations, Rule, Tensor, TensorView,
    check_alike, compare, derive, derive_from_graph, match_weights, merge_many, merge_tensor,
};
use subspan_io::{parse_graph, parse_spec, spec_text};

use crate::errors::of_io;
use crate::run::Caller;

/// A tensor as Python hands it over: name, type as in safetensors files, shape, bytes.
type Given<'py> = (String, String, Vec<usize>, PyReadonlyArray1<'py, u8>);

/// Types whose elements can be moved but not computed with.
const OPAQUE: [(&str, usize); 9] =
    [("I64", 8), ("I32", 4), ("I16", 2), ("I8", 1), ("U64", 8), ("U32", 4), ("U16", 2), ("U8", 1), ("BOOL", 1)];

fn dtype(name: &str) -> PyResult<DType> {
    Ok(match name {
        "F64" => DType::F64,
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        other => match OPAQUE.iter().find(|(name, _)| *name == other) {
            Some((name, size)) => DType::Opaque { name, size: *size },
            None => return Err(PyValueError::new_err(format!("tensors of type {other} are not supported"))),
        },
    })
}

/// Tensors in Python's memory.
struct Borrowed<'a> {
    label: String,
    tensors: BTreeMap<&'a str, (DType, &'a [usize], &'a [u8])>,
}

impl<'a> Borrowed<'a> {
    fn new(label: &str, given: &'a [Given<'_>]) -> PyResult<Self> {
        let mut tensors = BTreeMap::new();
        for (name, dtype_name, shape, bytes) in given {
            let (dtype, data) = (dtype(dtype_name)?, bytes.as_slice()?);
            if shape.iter().product::<usize>() * dtype.size() != data.len() {
                return Err(PyValueError::new_err(format!("tensor {name}: its bytes do not fit its shape")));
            }
            tensors.insert(name.as_str(), (dtype, shape.as_slice(), data));
        }
        Ok(Self { label: label.into(), tensors })
    }
}

impl Model for Borrowed<'_> {
    fn label(&self) -> &str {
        &self.label
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().copied().collect()
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, (dtype, shape, data)) = self.tensors.get_key_value(name)?;
        Some(TensorView { name, dtype: *dtype, shape, data })
    }
}

fn of_merge(e: MergeError) -> subspan::Error {
    match e {
        MergeError::Library(e) => e,
        other => subspan::Error::Source(Box::new(other)),
    }
}

/// The spec in a file's text, derived from an ONNX file's graph, or derived from the tensors.
fn layout(model: &dyn Model, spec: Option<&str>, graph: Option<&[u8]>) -> PyResult<Layout> {
    let bad = |e: MergeError| PyValueError::new_err(e.to_string());
    let spec = match (spec, graph) {
        (Some(text), _) => parse_spec(text, "the spec").map_err(of_io)?,
        (None, Some(bytes)) => {
            let graph = parse_graph(bytes, "the graph").map_err(of_io)?;
            derive_from_graph(&graph, model, false).map_err(bad)?.spec
        }
        (None, None) => derive(model, None, false).map_err(bad)?.spec,
    };
    Layout::new(spec, model).map_err(bad)
}

/// Matches every model after the first to it; returns their permutations, the spec as text and figures as JSON. With
/// `weights`, also the merged model's tensors.
#[pyfunction]
#[pyo3(signature = (models, spec, restarts, seed, identity=false, weights=None, gamma=None, progress=None, threads=None, graph=None))]
pub(crate) fn match_models<'py>(
    py: Python<'py>,
    models: Vec<Vec<Given<'py>>>,
    spec: Option<String>,
    restarts: usize,
    seed: u64,
    identity: bool,
    weights: Option<Vec<f64>>,
    gamma: Option<f64>,
    progress: Option<Py<PyAny>>,
    threads: Option<usize>,
    graph: Option<Vec<u8>>,
) -> PyResult<Bound<'py, PyDict>> {
    let label = |i: usize| format!("model {}", i + 1);
    let borrowed: Vec<Borrowed<'_>> =
        models.iter().enumerate().map(|(i, given)| Borrowed::new(&label(i), given)).collect::<PyResult<_>>()?;
    let models: Vec<&dyn Model> = borrowed.iter().map(|m| m as &dyn Model).collect();
    let layout = layout(models[0], spec.as_deref(), graph.as_deref())?;
    let config = MatchConfig { restarts, ..MatchConfig::default() };
    let job = Job { layout: &layout, models: &models, config: &config, seed, identity, gamma };
    let (found, merged) = Caller { py, progress, threads }.run(|observer| {
        let found = job.matched(observer).map_err(of_merge)?;
        let merged = weights.map(|w| job.merged(&found.permutations, &w)).transpose().map_err(of_merge)?;
        Ok((found, merged))
    })?;
    let dict = PyDict::new(py);
    dict.set_item("spec", spec_text(layout.spec()))?;
    let all: Vec<Bound<'py, PyDict>> =
        found.permutations.iter().map(|p| of_permutations(py, p)).collect::<PyResult<_>>()?;
    dict.set_item("permutations", all)?;
    dict.set_item("summary", found.summary.to_string())?;
    let aligned = borrowed[1..].iter().zip(&found.permutations).map(|(m, p)| of_model(py, layout.apply(m, p)));
    dict.set_item("aligned", aligned.collect::<PyResult<Vec<_>>>()?)?;
    dict.set_item("merged", merged.map(|m| of_model(py, m)).transpose()?)?;
    Ok(dict)
}

struct Job<'a> {
    layout: &'a Layout,
    models: &'a [&'a dyn Model],
    config: &'a MatchConfig,
    seed: u64,
    identity: bool,
    gamma: Option<f64>,
}

/// What a match found.
struct Found {
    permutations: Vec<Permutations>,
    summary: serde_json::Value,
}

impl Job<'_> {
    fn matched(&self, observer: &dyn subspan::Observer) -> Result<Found, MergeError> {
        for other in &self.models[1..] {
            check_alike(self.models[0], *other)?;
        }
        let stay = Permutations::identity(self.layout.spec());
        let (permutations, pairs, sweeps, certified) = if self.identity {
            let pair = |m: &&dyn Model| compare(self.layout, self.models[0], *m, &stay).map(|c| (c.clone(), c));
            let pairs = self.models[1..].iter().map(pair).collect::<Result<Vec<_>, _>>()?;
            (vec![stay.clone(); pairs.len()], pairs, 0, false)
        } else if self.models.len() == 2 {
            let m = match_weights(self.layout, self.models[0], self.models[1], None, self.config, self.seed, observer)?;
            (vec![m.permutations], vec![(m.before, m.after)], m.sweeps, m.certified)
        } else {
            let m = merge_many(self.layout, self.models, self.config, self.seed, observer)?;
            (m.permutations, m.pairs, m.sweeps, m.certified)
        };
        let mut figures: Vec<serde_json::Value> = pairs.iter().map(|(before, after)| of_pair(before, after)).collect();
        if let Some(gamma) = self.gamma {
            let spectrum = |m: &dyn Model| spectra(self.layout, m, observer);
            let first = spectrum(self.models[0])?;
            for ((model, p), figures) in self.models[1..].iter().zip(&permutations).zip(&mut figures) {
                let other = spectrum(*model)?;
                let at = |p: &Permutations| overlaps(self.layout, &first, &other, p).alignment(gamma).total;
                figures["alignment"] = json!({ "gamma": gamma, "before": at(&stay), "after": at(p) });
            }
        }
        let summary = json!({ "pairs": figures, "sweeps": sweeps, "certified": certified });
        Ok(Found { permutations, summary })
    }

    fn merged(&self, permutations: &[Permutations], weights: &[f64]) -> Result<MemoryModel, MergeError> {
        let stay = Permutations::identity(self.layout.spec());
        let mut out = MemoryModel::new("the merged model");
        for name in self.models[0].names() {
            let moves = std::iter::once(&stay).chain(permutations);
            let mut sources = Vec::with_capacity(self.models.len());
            for (model, p) in self.models.iter().zip(moves) {
                sources.push(self.layout.gathered(model.require(name)?, p));
            }
            let view = *sources[0].view();
            let mut data = Vec::with_capacity(view.data.len());
            merge_tensor(&sources, weights, Rule::Mean, &mut |bytes| {
                data.extend_from_slice(bytes);
                Ok(())
            })?;
            out.tensors.insert(name.into(), Tensor { dtype: view.dtype, shape: view.shape.to_vec(), data });
        }
        Ok(out)
    }
}

fn of_pair(before: &Comparison, after: &Comparison) -> serde_json::Value {
    let reduction = if before.distance() > 0.0 { 1.0 - after.distance() / before.distance() } else { 0.0 };
    json!({
        "objective_before": before.objective(),
        "objective_after": after.objective(),
        "distance_before": before.distance(),
        "distance_after": after.distance(),
        "distance_reduction": reduction,
    })
}

fn of_permutations<'py>(py: Python<'py>, permutations: &Permutations) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (id, perm) in permutations.iter() {
        let perm: Vec<i64> = perm.iter().map(|i| *i as i64).collect();
        dict.set_item(id, perm.into_pyarray(py))?;
    }
    Ok(dict)
}

/// A tensor as it goes back: name, type, shape, bytes.
type Handed<'py> = (String, &'static str, Vec<usize>, Bound<'py, PyArray1<u8>>);

fn of_model(py: Python<'_>, model: MemoryModel) -> PyResult<Vec<Handed<'_>>> {
    let one = |(name, t): (String, Tensor)| (name, t.dtype.name(), t.shape, t.data.into_pyarray(py));
    Ok(model.tensors.into_iter().map(one).collect())
}
