//! Classifiers whose classes are subspaces.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use subspan::classify::{self, Config, Dim, Frames, Labelled, Method, Model, Online, OnlineConfig, Scorer};
use subspan::{Mat, Subspace};
use subspan_io::{AtomicFile, model_from_bytes, model_to_bytes, read_model, write_model};

use crate::arrays::{Matrix, column, matrix};
use crate::errors::{of_io, of_library};
use crate::run::Caller;

/// The fields of a classification job, as keyword arguments.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Job {
    method: String,
    /// `None` to choose on held-out samples.
    k: Option<usize>,
    gamma: f64,
    lr: f64,
    momentum: f64,
    batch_size: usize,
    epochs: Option<usize>,
    balanced: bool,
    center: bool,
    held_out: f64,
}

impl Job {
    fn config(&self) -> PyResult<Config> {
        let method: Method = self.method.parse().map_err(of_library)?;
        let config = Config {
            method,
            dim: self.k.map_or(Dim::Auto, Dim::Fixed),
            gamma: self.gamma,
            lr: self.lr,
            momentum: self.momentum,
            batch_size: self.batch_size,
            epochs: self.epochs,
            balanced: self.balanced,
            center: self.center,
            held_out: self.held_out,
            rivals: false,
            ..Config::default()
        };
        config.check().map_err(of_library)?;
        Ok(config)
    }
}

/// Trains a classifier; returns it and the figures of its training as JSON.
#[pyfunction]
#[pyo3(signature = (x, codes, classes, job, seed, progress=None, threads=None))]
pub(crate) fn train<'py>(
    py: Python<'py>,
    x: Matrix<'py>,
    codes: PyReadonlyArray1<'py, u32>,
    classes: Vec<String>,
    job: Job,
    seed: u64,
    progress: Option<Py<PyAny>>,
    threads: Option<usize>,
) -> PyResult<(Classifier, String)> {
    let (values, codes, config) = (x.view(), column(&codes)?, job.config()?);
    let outcome = Caller { py, progress, threads }
        .run(move |observer| classify::run(&Labelled::new(&values, codes, &classes)?, &config, seed, observer))?;
    let summary = serde_json::to_string(&outcome.summary).unwrap_or_else(|_| "null".into());
    Ok((Classifier { model: outcome.model }, summary))
}

/// Codes, probabilities and strangeness of samples.
type Predicted<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray2<f32>>, Option<Bound<'py, PyArray1<f32>>>);

/// Stacked frames, and where each class's rows begin and end.
type Stacked<'py> = (Bound<'py, PyArray2<f32>>, Vec<usize>);

/// A trained classifier.
#[pyclass(module = "subspan._native", frozen)]
pub(crate) struct Classifier {
    model: Model,
}

#[pymethods]
impl Classifier {
    /// Class codes (u32), probabilities (f32, one column per class) and strangeness (f32) of samples.
    #[pyo3(signature = (x, threads=None))]
    fn predict<'py>(&self, py: Python<'py>, x: Matrix<'py>, threads: Option<usize>) -> PyResult<Predicted<'py>> {
        let (values, model) = (x.view(), &self.model);
        let found = Caller { py, progress: None, threads }.run(move |_| model.predict(&values))?;
        Ok((
            found.codes.into_pyarray(py),
            matrix(py, found.probabilities, model.classes.len())?,
            found.strangeness.map(|s| s.into_pyarray(py)),
        ))
    }

    /// Logits (f64, one column per class) of samples.
    #[pyo3(signature = (x, threads=None))]
    fn logits<'py>(
        &self,
        py: Python<'py>,
        x: Matrix<'py>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let (values, model) = (x.view(), &self.model);
        let logits = Caller { py, progress: None, threads }.run(move |_| model.logits(&values))?;
        matrix(py, logits, model.classes.len())
    }

    /// The class subspaces: orthonormal rows (f32), and where each class's begin and end. `None` for a linear classifier.
    fn frames<'py>(&self, py: Python<'py>) -> PyResult<Option<Stacked<'py>>> {
        let Some(frames) = self.subspaces() else { return Ok(None) };
        Ok(Some((matrix(py, frames.rows.clone(), self.model.n_cols)?, frames.offsets.clone())))
    }

    /// Principal angles in radians between classes, class by class in row order: for each pair as many as the smaller
    /// subspace has dimensions. `None` for a linear classifier.
    fn class_angles(&self) -> PyResult<Option<Vec<Vec<f64>>>> {
        let Some(Frames { rows, offsets }) = self.subspaces() else { return Ok(None) };
        let d = self.model.n_cols;
        let span = |o: &[usize]| {
            let frame = Mat::from_fn(d, o[1] - o[0], |i, j| f64::from(rows[(o[0] + j) * d + i]));
            Subspace::span(&frame).map_err(of_library)
        };
        let spaces = offsets.windows(2).map(span).collect::<PyResult<Vec<_>>>()?;
        let pairs = spaces.iter().flat_map(|a| spaces.iter().map(move |b| a.principal_angles(b)));
        pairs.collect::<subspan::Result<Vec<_>>>().map(Some).map_err(of_library)
    }

    /// Names of the classes, as a file holds them.
    #[getter]
    fn classes(&self) -> Vec<String> {
        self.model.classes.clone()
    }

    /// Values per sample.
    #[getter]
    fn n_features(&self) -> usize {
        self.model.n_cols
    }

    /// Probabilities are the softmax of the logits divided by this.
    #[getter]
    fn temperature(&self) -> f64 {
        self.model.temperature
    }

    /// Whether strangeness can be told.
    #[getter]
    fn has_reconstruction(&self) -> bool {
        self.model.reconstruction.is_some()
    }

    /// Writes a file as `subspan classify` does.
    fn save(&self, path: &str) -> PyResult<()> {
        write_model(&self.model, AtomicFile::create(path).map_err(of_io)?).map_err(of_io)
    }

    /// Reads such a file.
    #[classmethod]
    fn load(_: &Bound<'_, PyType>, path: &str) -> PyResult<Self> {
        Ok(Self { model: read_model(path).map_err(of_io)? })
    }

    /// The content of such a file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &model_to_bytes(&self.model).map_err(of_io)?))
    }

    /// A classifier from the content of a file.
    #[classmethod]
    fn from_bytes(_: &Bound<'_, PyType>, bytes: &[u8]) -> PyResult<Self> {
        Ok(Self { model: model_from_bytes("the pickled classifier", bytes).map_err(of_io)? })
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        Ok((py.get_type::<Self>().getattr("from_bytes")?, (self.to_bytes(py)?,)))
    }
}

/// A classifier that learns from a stream.
#[pyclass(module = "subspan._native")]
pub(crate) struct Learner {
    online: Online,
}

#[pymethods]
impl Learner {
    #[new]
    fn new(classes: Vec<String>, n_features: usize, k: usize, gamma: f64, rate: f64) -> PyResult<Self> {
        let config = OnlineConfig { dim: k, gamma, rate, ..OnlineConfig::default() };
        Ok(Self { online: Online::new(&classes, n_features, config).map_err(of_library)? })
    }

    /// Goes on from a trained classifier.
    #[classmethod]
    fn of(_: &Bound<'_, PyType>, classifier: &Classifier, rate: f64) -> PyResult<Self> {
        let config = OnlineConfig { dim: 1, rate, ..OnlineConfig::default() };
        Ok(Self { online: Online::from_model(&classifier.model, config).map_err(of_library)? })
    }

    /// Learns from samples in their order.
    #[pyo3(signature = (x, codes, threads=None))]
    fn learn<'py>(
        &mut self,
        py: Python<'py>,
        x: Matrix<'py>,
        codes: PyReadonlyArray1<'py, u32>,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let (values, codes, online) = (x.view(), column(&codes)?, &mut self.online);
        Caller { py, progress: None, threads }.run(move |observer| online.learn(&values, codes, observer))
    }

    /// The classifier as it is now.
    fn classifier(&self) -> Classifier {
        Classifier { model: self.online.model() }
    }

    /// Samples learned from.
    #[getter]
    fn seen(&self) -> u64 {
        self.online.seen()
    }

    /// The state.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.online.to_bytes().map_err(of_library)?))
    }

    /// Goes on where `to_bytes` was taken.
    #[classmethod]
    fn from_bytes(_: &Bound<'_, PyType>, bytes: &[u8]) -> PyResult<Self> {
        Ok(Self { online: Online::from_bytes(bytes).map_err(of_library)? })
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        Ok((py.get_type::<Self>().getattr("from_bytes")?, (self.to_bytes(py)?,)))
    }
}

impl Classifier {
    fn subspaces(&self) -> Option<&Frames> {
        match &self.model.scorer {
            Scorer::Subspaces { frames, .. } => Some(frames),
            Scorer::Linear { .. } => None,
        }
    }
}
