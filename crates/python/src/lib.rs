//! The native half of the `subspan` wheel: arrays in, arrays out, and nothing decided here. What Python users meet (checks of
//! their arrays, estimators, engines) is written in Python, beside this crate in `python/subspan`.

mod arrays;
mod classifying;
mod clustering;
mod errors;
mod fitting;
mod merging;
mod pool;
mod reference;
mod run;
mod sampling;
mod tables;

use std::ffi::OsString;

use pyo3::prelude::*;

/// The command line; returns the exit code.
#[pyfunction]
fn main(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| subspan_cli::main(arguments))
}

#[pymodule]
fn _native(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_function(wrap_pyfunction!(main, m)?)?;
    m.add_function(wrap_pyfunction!(sampling::leverage_scores, m)?)?;
    m.add_function(wrap_pyfunction!(sampling::lewis_weights, m)?)?;
    m.add_function(wrap_pyfunction!(sampling::sensitivities, m)?)?;
    m.add_function(wrap_pyfunction!(sampling::sample_array, m)?)?;
    m.add_function(wrap_pyfunction!(sampling::sample_table, m)?)?;
    m.add_function(wrap_pyfunction!(fitting::fit, m)?)?;
    m.add_function(wrap_pyfunction!(fitting::fit_table, m)?)?;
    m.add_function(wrap_pyfunction!(classifying::train, m)?)?;
    m.add_function(wrap_pyfunction!(clustering::find_clusters, m)?)?;
    m.add_function(wrap_pyfunction!(clustering::scattering, m)?)?;
    m.add_function(wrap_pyfunction!(reference::doubly_stochastic, m)?)?;
    m.add_function(wrap_pyfunction!(reference::descend, m)?)?;
    m.add_function(wrap_pyfunction!(reference::geodesic_step, m)?)?;
    m.add_function(wrap_pyfunction!(reference::head_loss, m)?)?;
    m.add_function(wrap_pyfunction!(reference::orthonormal_rows, m)?)?;
    m.add_function(wrap_pyfunction!(reference::published_loss, m)?)?;
    m.add_function(wrap_pyfunction!(reference::rates, m)?)?;
    m.add_function(wrap_pyfunction!(merging::match_models, m)?)?;
    m.add_class::<classifying::Learner>()?;
    m.add_class::<clustering::Clustering>()?;
    m.add_class::<tables::Table>()?;
    m.add_class::<classifying::Classifier>()
}
