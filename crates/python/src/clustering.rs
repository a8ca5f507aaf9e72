//! Clusterings into subspaces.

use std::borrow::Cow;

use numpy::{IntoPyArray, PyArray1, PyArray2};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyType};
use subspan::cluster::{self, Clusters, Config, Features, Method, Model, Scattering};
use subspan_io::{
    AnyModel, AtomicFile, IoError, clustering_from_bytes, clustering_to_bytes, read_any_model, write_clustering,
};
use subspan_nets::{Manifold, ManifoldLearner};

use crate::arrays::{Matrix, matrix};
use crate::errors::{of_io, of_library};
use crate::run::Caller;

/// The fields of a clustering job, as keyword arguments.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Job {
    /// `None` to choose on the data.
    n_clusters: Option<usize>,
    method: String,
    affinity: Option<String>,
    neighbours: Option<usize>,
    max_clusters: Option<usize>,
    anchors: Option<usize>,
    unequal: bool,
}

impl Job {
    fn config(&self) -> PyResult<Config> {
        let affinity = self.affinity.as_ref().map(|a| a.parse()).transpose().map_err(of_library)?;
        let config = Config {
            clusters: self.n_clusters.map_or(Clusters::Auto, Clusters::Fixed),
            method: self.method.parse().map_err(of_library)?,
            affinity,
            neighbours: self.neighbours,
            max_clusters: self.max_clusters,
            anchors: self.anchors,
            unequal: self.unequal,
            ..Config::default()
        };
        config.check().map_err(of_library)?;
        Ok(config)
    }
}

/// Clusters the rows of `x`; returns a model and what is known of the rows.
#[pyfunction]
#[pyo3(signature = (x, job, seed, progress=None, threads=None))]
pub(crate) fn find_clusters<'py>(
    py: Python<'py>,
    x: Matrix<'py>,
    job: Job,
    seed: u64,
    progress: Option<Py<PyAny>>,
    threads: Option<usize>,
) -> PyResult<(Clustering, Bound<'py, PyDict>)> {
    let (values, config) = (x.view(), job.config()?);
    let outcome = Caller { py, progress, threads }.run(move |observer| {
        let rows = values.to_features()?;
        let features = Features::new(&rows, values.n_cols())?;
        match config.method {
            Method::Projection => cluster::run(&features, &config, seed, observer),
            Method::Mlc => {
                let learner = ManifoldLearner { settings: Manifold::default(), observer };
                cluster::run_learned(&features, &config, &learner, seed, observer)
            }
        }
    })?;
    let dict = PyDict::new(py);
    let labels: Vec<i64> = outcome.labels.iter().map(|l| i64::from(*l)).collect();
    dict.set_item("labels", labels.into_pyarray(py))?;
    dict.set_item("confidence", outcome.confidence.into_pyarray(py))?;
    dict.set_item("representation", matrix(py, outcome.representation, outcome.n_dims)?)?;
    dict.set_item("sizes", outcome.clusters.iter().map(|c| c.size).collect::<Vec<_>>())?;
    dict.set_item("medoids", outcome.clusters.iter().map(|c| c.medoid).collect::<Vec<_>>())?;
    let basis = |c: &cluster::Cluster| {
        let basis = c.subspace.basis();
        matrix(py, basis.as_slice().to_vec(), basis.n_cols())
    };
    dict.set_item("subspaces", outcome.clusters.iter().map(basis).collect::<PyResult<Vec<_>>>()?)?;
    dict.set_item("summary", serde_json::to_string(&outcome.summary).unwrap_or_else(|_| "null".into()))?;
    Ok((Clustering { model: outcome.model }, dict))
}

/// Scattering features (f32) of grey images, a row each.
#[pyfunction]
#[pyo3(signature = (x, shape, turned=false, threads=None))]
pub(crate) fn scattering<'py>(
    py: Python<'py>,
    x: Matrix<'py>,
    shape: [usize; 2],
    turned: bool,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let plain = Scattering::new(shape[0], shape[1]).map_err(of_library)?;
    let filters = if turned { plain.turned() } else { plain };
    let (values, n_out) = (x.view(), filters.n_out());
    let rows = Caller { py, progress: None, threads }.run(move |_| Ok(filters.apply(&values.to_single())))?;
    matrix(py, rows, n_out)
}

/// A clustering that labels new rows.
#[pyclass(module = "subspan._native", frozen)]
pub(crate) struct Clustering {
    model: Model,
}

/// Labels, confidence and strangeness.
type Predicted<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<f32>>);

#[pymethods]
impl Clustering {
    /// Labels (i64), confidence (f32) and strangeness (f32) of rows.
    #[pyo3(signature = (x, threads=None))]
    fn predict<'py>(&self, py: Python<'py>, x: Matrix<'py>, threads: Option<usize>) -> PyResult<Predicted<'py>> {
        let (values, model) = (x.view(), &self.model);
        let found = Caller { py, progress: None, threads }.run(move |_| {
            let rows = values.to_single();
            model.predict(&Features::new(&rows, values.n_cols())?, false)
        })?;
        let labels: Vec<i64> = found.labels.iter().map(|l| i64::from(*l)).collect();
        Ok((labels.into_pyarray(py), found.confidence.into_pyarray(py), found.strangeness.into_pyarray(py)))
    }

    /// Unit rows (f32) in which clusters are subspaces.
    #[pyo3(signature = (x, threads=None))]
    fn transform<'py>(
        &self,
        py: Python<'py>,
        x: Matrix<'py>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (values, model) = (x.view(), &self.model);
        let rows = Caller { py, progress: None, threads }.run(move |_| {
            let rows: Cow<'_, [f32]> = values.to_single();
            model.represent(&Features::new(&rows, values.n_cols())?)
        })?;
        matrix(py, rows, self.model.n_represented())
    }

    /// Values per row.
    #[getter]
    fn n_features(&self) -> usize {
        self.model.n_cols()
    }

    /// Number of clusters.
    #[getter]
    fn n_clusters(&self) -> usize {
        self.model.clusters
    }

    /// Writes a file as `subspan cluster` does.
    fn save(&self, path: &str) -> PyResult<()> {
        write_clustering(&self.model, AtomicFile::create(path).map_err(of_io)?).map_err(of_io)
    }

    /// Reads such a file.
    #[classmethod]
    fn load(_: &Bound<'_, PyType>, path: &str) -> PyResult<Self> {
        match read_any_model(path).map_err(of_io)? {
            AnyModel::Clustering(model) => Ok(Self { model: *model }),
            AnyModel::Classifier(_) => Err(of_io(IoError::Unsupported {
                path: path.into(),
                what: "a model of subspan classify, not of subspan cluster".into(),
                hint: Some("GrassmannClassifier.load reads it".into()),
            })),
        }
    }

    /// The content of such a file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &clustering_to_bytes(&self.model).map_err(of_io)?))
    }

    /// A clustering from the content of a file.
    #[classmethod]
    fn from_bytes(_: &Bound<'_, PyType>, bytes: &[u8]) -> PyResult<Self> {
        Ok(Self { model: clustering_from_bytes("the pickled clustering", bytes).map_err(of_io)? })
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        Ok((py.get_type::<Self>().getattr("from_bytes")?, (self.to_bytes(py)?,)))
    }
}
