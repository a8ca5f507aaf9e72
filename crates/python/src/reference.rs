//! The library's own step and loss, for the tests of the PyTorch layer, which has the same formulas.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2};
use pyo3::prelude::*;
use subspan::assign::sinkhorn::{Diagonal, Options, project, project_gradient};
use subspan::classify::head::{Head, cross_entropy};
use subspan::classify::step::{self, StepOptions};
use subspan::classify::{MomentumMode, Update, orthonormalize};
use subspan::cluster::learn::published::published_step;
use subspan::cluster::rate::{Columns, rate_gradient};

use crate::arrays::matrix;
use crate::errors::of_library;

type Moved<'py> = (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<f64>>, f64);

/// One geodesic step: the new frame, the new buffer, the angle.
#[pyfunction]
pub(crate) fn geodesic_step<'py>(
    py: Python<'py>,
    frame: PyReadonlyArray2<'py, f64>,
    buffer: PyReadonlyArray2<'py, f64>,
    a: f64,
    transported: bool,
    reorthogonalize: bool,
    max_angle: Option<f64>,
) -> PyResult<Moved<'py>> {
    let n_cols = frame.as_array().ncols();
    let (mut frame, mut buffer) = (frame.to_vec()?, buffer.to_vec()?);
    let momentum = if transported { MomentumMode::Transported } else { MomentumMode::Ambient };
    let options = StepOptions { momentum, reorthogonalize, max_angle, ..StepOptions::default() };
    let report = step::step(&mut frame, &mut buffer, n_cols, a, options).map_err(of_library)?;
    Ok((matrix(py, frame, n_cols)?, matrix(py, buffer, n_cols)?, report.angle))
}

type Descended<'py> = (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<f64>>);

/// One step of descent with momentum, by the series or as published: the new frame and buffer.
#[pyfunction]
pub(crate) fn descend<'py>(
    py: Python<'py>,
    frame: PyReadonlyArray2<'py, f64>,
    buffer: PyReadonlyArray2<'py, f64>,
    gradient: PyReadonlyArray2<'py, f64>,
    rates: [f64; 2],
    reorthogonalize: bool,
    literal: bool,
) -> PyResult<Descended<'py>> {
    let n_cols = frame.as_array().ncols();
    let (mut frame, mut buffer, gradient) = (frame.to_vec()?, buffer.to_vec()?, gradient.to_vec()?);
    let update = if literal { Update::Literal } else { Update::Series };
    let options = StepOptions { reorthogonalize, update, ..StepOptions::default() };
    step::descend(&mut frame, &mut buffer, &gradient, n_cols, rates, options).map_err(of_library)?;
    Ok((matrix(py, frame, n_cols)?, matrix(py, buffer, n_cols)?))
}

type Loss<'py> = (f64, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<f64>>);

/// Mean cross-entropy of a head on samples of any length: its value and its gradients by frames and samples.
#[pyfunction]
pub(crate) fn head_loss<'py>(
    py: Python<'py>,
    frames: PyReadonlyArray2<'py, f64>,
    k: usize,
    gamma: f64,
    x: PyReadonlyArray2<'py, f64>,
    targets: PyReadonlyArray2<'py, f64>,
) -> PyResult<Loss<'py>> {
    let (n_cols, n_classes) = (x.as_array().ncols(), targets.as_array().ncols());
    let (frames, mut x, targets) = (frames.to_vec()?, x.to_vec()?, targets.to_vec()?);
    let offsets: Vec<usize> = (0..=n_classes).map(|c| c * k).collect();
    let lengths: Vec<f64> = x.chunks(n_cols).map(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
    for (row, length) in x.chunks_mut(n_cols).zip(&lengths) {
        row.iter_mut().for_each(|v| *v = if *length > 0.0 { *v / length } else { 0.0 });
    }
    let head = Head { frames: &frames, offsets: &offsets, n_cols, gamma };
    let (z, logits) = head.forward(&x);
    let (loss, g) = cross_entropy(&logits, &targets, &vec![1.0; lengths.len()], n_classes);
    let by_samples = head.sample_gradient(&x, &lengths, &z, &g);
    Ok((loss, matrix(py, head.frame_gradient(&x, &z, &g), n_cols)?, matrix(py, by_samples, n_cols)?))
}

/// Orthonormal rows of the same span.
#[pyfunction]
pub(crate) fn orthonormal_rows<'py>(
    py: Python<'py>,
    frame: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let n_cols = frame.as_array().ncols();
    let mut frame = frame.to_vec()?;
    orthonormalize(&mut frame, n_cols).map_err(of_library)?;
    matrix(py, frame, n_cols)
}

type Rates<'py> = (f64, f64, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<f64>>);

/// Coding rates of unit rows under a membership, and the gradient of their difference by rows and (flat) membership.
#[pyfunction]
pub(crate) fn rates<'py>(
    py: Python<'py>,
    rows: PyReadonlyArray2<'py, f64>,
    membership: PyReadonlyArray2<'py, f64>,
    eps2: f64,
) -> PyResult<Rates<'py>> {
    let d = rows.as_array().ncols();
    let found = rate_gradient(&rows.to_vec()?, d, &membership.to_vec()?, eps2, Columns::Unit).map_err(of_library)?;
    let by_rows = matrix(py, found.rows, d)?;
    Ok((found.rates.whole, found.rates.parts, by_rows, found.membership.into_pyarray(py)))
}

type Projected<'py> = (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<f64>>);

/// The doubly stochastic projection of a symmetric affinity without its diagonal, and the gradient by the affinity of a loss
/// whose gradient by the projection is `gradient`.
#[pyfunction]
pub(crate) fn doubly_stochastic<'py>(
    py: Python<'py>,
    affinity: PyReadonlyArray2<'py, f64>,
    eta: f64,
    gradient: PyReadonlyArray2<'py, f64>,
) -> PyResult<Projected<'py>> {
    let side = affinity.as_array().ncols();
    let options = Options { tolerance: 1e-12, ..Options::default() };
    let gamma = project(&affinity.to_vec()?, side, eta, Diagonal::Zero, &options).gamma;
    let back = project_gradient(&gamma, side, &gradient.to_vec()?, eta);
    Ok((matrix(py, gamma, side)?, matrix(py, back, side)?))
}

type Published<'py> = (f64, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<f64>>);

/// The clustering loss as its authors published it, of the outputs of two heads: its value, the membership, and its gradients by both.
#[pyfunction]
pub(crate) fn published_loss<'py>(
    py: Python<'py>,
    features: PyReadonlyArray2<'py, f64>,
    clusters: PyReadonlyArray2<'py, f64>,
    eta: f64,
    eps2: f64,
) -> PyResult<Published<'py>> {
    let [n, d] = [features.as_array().nrows(), features.as_array().ncols()];
    let found = published_step(&features.to_vec()?, &clusters.to_vec()?, d, eta, eps2).map_err(of_library)?;
    let gradients = (matrix(py, found.features, d)?, matrix(py, found.clusters, d)?);
    Ok((found.loss, matrix(py, found.membership, n)?, gradients.0, gradients.1))
}
