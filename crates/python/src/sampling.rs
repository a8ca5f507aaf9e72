//! Scores of rows, and samples of arrays and of files.

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use subspan::sample::{self, Config, Sample, Size};
use subspan_io::{Missing, Table as FileTable, TableOptions, write_sample};

use crate::arrays::{Matrix, Table};
use crate::errors::of_library;
use crate::run::Caller;

/// Leverage of every row.
#[pyfunction]
#[pyo3(signature = (x, progress=None, threads=None))]
pub(crate) fn leverage_scores<'py>(
    py: Python<'py>,
    x: Matrix<'py>,
    progress: Option<Py<PyAny>>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let values = x.view();
    let scores = Caller { py, progress, threads }
        .run(move |observer| sample::leverage_scores(&Table::in_memory(values)?, observer))?;
    Ok(scores.into_pyarray(py))
}

/// Lewis weights of every row.
#[pyfunction]
#[pyo3(signature = (x, p, progress=None, threads=None))]
pub(crate) fn lewis_weights<'py>(
    py: Python<'py>,
    x: Matrix<'py>,
    p: f64,
    progress: Option<Py<PyAny>>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let values = x.view();
    let weights = Caller { py, progress, threads }
        .run(move |observer| sample::lewis_weights(&Table::in_memory(values)?, p, observer))?;
    Ok(weights.into_pyarray(py))
}

/// Certified upper bounds of every row's sensitivity.
#[pyfunction]
#[pyo3(signature = (x, p, progress=None, threads=None))]
pub(crate) fn sensitivities<'py>(
    py: Python<'py>,
    x: Matrix<'py>,
    p: f64,
    progress: Option<Py<PyAny>>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let values = x.view();
    let bounds = Caller { py, progress, threads }.run(move |observer| {
        let (rows, n_cols) = (values.to_rows()?, values.n_cols());
        sample::SensitivitySolver::new(&rows, n_cols, None, p)?.par_bounds(&rows, observer)
    })?;
    Ok(bounds.iter().map(|b| b.upper).collect::<Vec<_>>().into_pyarray(py))
}

/// The fields of a sampling job, as keyword arguments.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Job {
    p: f64,
    n_rows: Option<u64>,
    epsilon: Option<f64>,
    rule: String,
    draw: String,
    certify: bool,
}

impl Job {
    pub(crate) fn config(&self) -> PyResult<Config> {
        let size = match (self.epsilon, self.n_rows) {
            (Some(epsilon), _) => Size::Epsilon(epsilon),
            (None, rows) => Size::Rows(rows.unwrap_or(0)),
        };
        let (rule, draw) = (self.rule.parse().map_err(of_library)?, self.draw.parse().map_err(of_library)?);
        let config = Config { size, rule, draw, certify: self.certify, ..Config::rows(self.p, 0) };
        config.check().map_err(of_library)?;
        Ok(config)
    }
}

/// Samples a matrix.
#[pyfunction]
#[pyo3(signature = (x, job, seed, progress=None, threads=None))]
pub(crate) fn sample_array<'py>(
    py: Python<'py>,
    x: Matrix<'py>,
    job: Job,
    seed: u64,
    progress: Option<Py<PyAny>>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let (values, config) = (x.view(), job.config()?);
    let sample = Caller { py, progress, threads }
        .run(move |observer| sample::run(&Table::like_file(values, None)?, &config, seed, observer))?;
    to_dict(py, sample)
}

/// Which columns of a file to use, and how.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Columns {
    columns: Option<Vec<String>>,
    exclude: Vec<String>,
    missing: String,
    target: Option<String>,
    drop_first_level: bool,
}

impl Columns {
    pub(crate) fn options(self) -> PyResult<TableOptions> {
        let missing = match self.missing.as_str() {
            "error" => Missing::Error,
            "drop" => Missing::Drop,
            other => {
                return Err(of_library(subspan::Error::parameter("missing", other, "one of error, drop")));
            }
        };
        let Self { columns, exclude, target, drop_first_level, .. } = self;
        Ok(TableOptions { columns, exclude, target, drop_first_level, missing })
    }
}

/// Samples a file, out of core; writes the sample where `output` says.
#[pyfunction]
#[pyo3(signature = (path, columns, job, seed, output=None, progress=None, threads=None))]
pub(crate) fn sample_table<'py>(
    py: Python<'py>,
    path: String,
    columns: Columns,
    job: Job,
    seed: u64,
    output: Option<String>,
    progress: Option<Py<PyAny>>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let (config, options) = (job.config()?, columns.options()?);
    let (sample, names) = Caller { py, progress, threads }.run(move |observer| {
        let table = FileTable::open(&path, &options)?;
        table.refuse_sample()?;
        let sample = sample::run(&table, &config, seed, observer)?;
        if let Some(output) = output {
            write_sample(output, &table, &sample.row_ids, &sample.probabilities, &sample.weights, &sample.records)?;
        }
        Ok((sample, table.column_names().to_vec()))
    })?;
    let dict = to_dict(py, sample)?;
    dict.set_item("columns", names)?;
    Ok(dict)
}

/// A sample's arrays, and its figures as JSON.
pub(crate) fn to_dict(py: Python<'_>, sample: Sample) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    let json = |value: serde_json::Result<String>| value.unwrap_or_else(|_| "null".into());
    dict.set_item("summary", json(serde_json::to_string(&sample.summary)))?;
    dict.set_item("certificate", json(serde_json::to_string(&sample.certificate)))?;
    let indices: Vec<i64> = sample.row_ids.iter().map(|id| *id as i64).collect();
    dict.set_item("indices", indices.into_pyarray(py))?;
    dict.set_item("probabilities", sample.probabilities.into_pyarray(py))?;
    dict.set_item("weights", sample.weights.into_pyarray(py))?;
    let n_cols = sample.rows.n_cols();
    dict.set_item("rows", crate::arrays::matrix(py, sample.rows.as_slice().to_vec(), n_cols)?)?;
    Ok(dict)
}
