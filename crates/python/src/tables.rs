//! Files as a driver and its workers see them.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use subspan::remote::Distributed;
use subspan::rows::RowSource;
use subspan::{regress, sample};
use subspan_io::{Table as FileTable, write_sample};

use crate::errors::of_library;
use crate::fitting;
use crate::run::Caller;
use crate::sampling::{Columns, Job, to_dict};

/// An open file.
#[pyclass(module = "subspan._native", frozen)]
pub(crate) struct Table {
    table: FileTable,
}

#[pymethods]
impl Table {
    #[new]
    fn open(path: &str, columns: Columns) -> PyResult<Self> {
        Ok(Self { table: FileTable::open(path, &columns.options()?).map_err(of_library)? })
    }

    /// Number of chunks: row groups of parquet files, ranges of rows of others.
    #[getter]
    fn n_chunks(&self) -> usize {
        self.table.n_chunks()
    }

    /// Number of rows, those that will be dropped included.
    #[getter]
    fn n_rows(&self) -> u64 {
        self.table.n_input_rows()
    }

    /// Folds one chunk by a task; returns its sealed state.
    fn fold_chunk<'py>(&self, py: Python<'py>, chunk: usize, task: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let table = &self.table;
        let state = Caller { py, progress: None, threads: Some(1) }
            .run(move |observer| regress::fold_chunk(table, chunk, task, observer))?;
        Ok(PyBytes::new(py, &state))
    }

    /// Samples the file; `fold` turns a task into the sealed states of all chunks. The bits are those of a local run.
    #[pyo3(signature = (job, seed, fold, output=None, progress=None))]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        job: Job,
        seed: u64,
        fold: Py<PyAny>,
        output: Option<String>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (table, config) = (&self.table, job.config()?);
        let sample = Caller { py, progress, threads: None }.run_remote(Some(&fold), move |observer, remote| {
            let sample = sample::run(&Distributed::new(table, remote), &config, seed, observer)?;
            if let Some(output) = output {
                write_sample(output, table, &sample.row_ids, &sample.probabilities, &sample.weights, &sample.records)?;
            }
            Ok(sample)
        })?;
        let dict = to_dict(py, sample)?;
        dict.set_item("columns", table.column_names())?;
        Ok(dict)
    }

    /// Fits the file's target; `fold` as of `sample`.
    #[pyo3(signature = (job, seed, fold, progress=None))]
    fn fit<'py>(
        &self,
        py: Python<'py>,
        job: fitting::Job,
        seed: u64,
        fold: Py<PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (table, config) = (&self.table, job.config()?);
        let outcome = Caller { py, progress, threads: None }.run_remote(Some(&fold), move |observer, remote| {
            regress::run(&Distributed::new(table, remote), &config, seed, observer)
        })?;
        let dict = fitting::to_dict(py, &outcome, table.column_names().len())?;
        dict.set_item("columns", table.column_names())?;
        Ok(dict)
    }
}
