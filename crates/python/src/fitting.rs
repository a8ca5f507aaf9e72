//! Robust linear fits.

use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use subspan::regress::{self, Config, Fit, Loss, Mode, Outcome};
use subspan_io::Table as FileTable;

use crate::arrays::{Matrix, Table, column};
use crate::errors::of_library;
use crate::run::Caller;
use crate::sampling::Columns;

/// The fields of a regression job, as keyword arguments.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Job {
    loss: String,
    p: f64,
    quantiles: Vec<f64>,
    delta: f64,
    l2: f64,
    n_rows: Option<u64>,
    exact: bool,
    intercept: bool,
}

impl Job {
    pub(crate) fn config(self) -> PyResult<Config> {
        let loss = match self.loss.as_str() {
            "l1" => Loss::L1,
            "l2" => Loss::L2,
            "lp" => Loss::Lp { p: self.p },
            "quantile" => Loss::Quantile { levels: self.quantiles },
            "huber" => Loss::Huber { delta: self.delta },
            "logistic" => Loss::Logistic { l2: self.l2 },
            other => {
                let names = "one of l1, l2, lp, quantile, huber, logistic";
                return Err(of_library(subspan::Error::parameter("loss", other, names)));
            }
        };
        let mode = match (self.exact, self.n_rows) {
            (true, _) => Mode::Exact,
            (false, Some(rows)) => Mode::Rows(rows),
            (false, None) => Mode::Full,
        };
        let config = Config { loss, mode, intercept: self.intercept, certify: true };
        config.check().map_err(of_library)?;
        Ok(config)
    }
}

/// Fits `y` to the columns of `x`.
#[pyfunction]
#[pyo3(signature = (x, y, job, seed, progress=None, threads=None))]
pub(crate) fn fit<'py>(
    py: Python<'py>,
    x: Matrix<'py>,
    y: PyReadonlyArray1<'py, f64>,
    job: Job,
    seed: u64,
    progress: Option<Py<PyAny>>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let (values, target, config) = (x.view(), column(&y)?, job.config()?);
    let outcome = Caller { py, progress, threads }
        .run(move |observer| regress::run(&Table::like_file(values, Some(target))?, &config, seed, observer))?;
    to_dict(py, &outcome, values.n_cols())
}

/// Fits a column of a file to the others, out of core unless the fit is on all rows.
#[pyfunction]
#[pyo3(signature = (path, columns, job, seed, progress=None, threads=None))]
pub(crate) fn fit_table<'py>(
    py: Python<'py>,
    path: String,
    columns: Columns,
    job: Job,
    seed: u64,
    progress: Option<Py<PyAny>>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let (config, options) = (job.config()?, columns.options()?);
    let (outcome, names) = Caller { py, progress, threads }.run(move |observer| {
        let table = FileTable::open(&path, &options)?;
        table.refuse_sample()?;
        Ok((regress::run(&table, &config, seed, observer)?, table.column_names().to_vec()))
    })?;
    let dict = to_dict(py, &outcome, names.len())?;
    dict.set_item("columns", names)?;
    Ok(dict)
}

/// The fits' arrays and figures.
pub(crate) fn to_dict<'py>(py: Python<'py>, outcome: &Outcome, n_cols: usize) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let each = |f: fn(&Fit) -> f64| outcome.fits.iter().map(f).collect::<Vec<_>>();
    let coefficients = outcome.fits.iter().flat_map(|fit| fit.coefficients.iter().copied()).collect();
    dict.set_item("coefficients", crate::arrays::matrix(py, coefficients, n_cols)?)?;
    dict.set_item("intercepts", each(|fit| fit.intercept).into_pyarray(py))?;
    dict.set_item("objectives", each(|fit| fit.objective).into_pyarray(py))?;
    dict.set_item("relative_gaps", outcome.fits.iter().map(|fit| fit.relative_gap).collect::<Vec<_>>())?;
    dict.set_item("iterations", outcome.fits.iter().map(|fit| fit.iterations).collect::<Vec<_>>())?;
    dict.set_item("rows_used", outcome.rows_used)?;
    dict.set_item("rows_in", outcome.rows_in)?;
    dict.set_item("warnings", &outcome.warnings)?;
    Ok(dict)
}
