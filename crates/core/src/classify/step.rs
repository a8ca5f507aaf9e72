//! The geodesic step of one class on the Grassmann manifold, without a singular value decomposition.
//!
//! A class is a frame `P` (`k x d`, orthonormal rows) with a buffer `M` of the same shape (the gradient with momentum). With
//! `W = M Pᵀ` the tangent part of `M` is `G = M − W P`, and moving along the geodesic of direction `G` by `a` gives
//!
//! `P ← (C − a S W) P + a S M`, with `T = a² G Gᵀ`, `G Gᵀ = M Mᵀ − W Wᵀ`, `C = cos √T`, `S = sin √T / √T`.
//!
//! Both functions are entire series in `T`, so no eigenvectors are needed and repeated singular values do no harm. The result
//! is the same matrix as that of the classical form by thin SVD (Edelman, Arias, Smith, "The geometry of algorithms with
//! orthogonality constraints", SIAM J. Matrix Anal. Appl. 20, 1998). Cost: `7 k² d` flop (11 with transport) and `O(k³)`.

use subspan_linalg::Real;
use subspan_linalg::frames::{combine, combine_both, cross, small_mul};

use super::geometry;
use crate::error::Result;

/// How the buffer is carried along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MomentumMode {
    /// The buffer stays as it is and is projected when it is used; what the authors' program does.
    #[default]
    Ambient,
    /// The buffer is made tangent and transported in parallel along the geodesic.
    Transported,
}

/// What a step does besides moving.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepOptions {
    /// How the buffer is carried along.
    pub momentum: MomentumMode,
    /// Whether to restore orthonormal rows in the same pass (one Newton-Schulz step, `k² d` more flop). Steps whose buffer has
    /// a large part inside the span do so by themselves.
    pub reorthogonalize: bool,
    /// Largest angle of a step, radians; longer steps are cut. `None` for no limit.
    pub max_angle: Option<f64>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepReport {
    /// Upper bound of the largest angle moved, radians (`√‖T‖_∞`, at most `k^¼` above it).
    pub angle: f64,
    /// Whether the frame was so far from orthonormal that it was rebuilt and its buffer emptied.
    pub rebuilt: bool,
}

/// Rows farther from orthonormal than this (`‖P Pᵀ − I‖_∞`) are rebuilt: Newton-Schulz diverges soon after.
const CORRUPT: f64 = 0.5;

/// Rows are restored in every step whose buffer has more than this (`|a| ‖W‖_∞`) in the span of the frame: a defect `E` of the
/// rows leaves `W E` of that part in what should be tangent, so it grows by `1 + |a| ‖W‖` a step. Below this it grows less than
/// twelvefold in 50 steps; without the rule, subspaces that fill most of the space diverge within a few dozen.
const DRIFT: f64 = 0.05;

/// Number of terms after the leading one: truncation below 4e-9 (`f32`) or 1e-15 (`f64`) for `‖T‖ ≤` the bound,
/// from `‖T‖^(m+1) / (2m+2)!`.
const DEGREES: [(f64, usize, usize); 6] =
    [(1e-6, 1, 2), (1e-4, 1, 3), (1e-3, 2, 3), (1e-2, 2, 4), (0.1, 3, 6), (1.0, 5, 9)];

/// Moves `frame` (`k x n_cols`) along the geodesic of its `buffer`'s tangent part by `a`; minus the learning rate descends.
///
/// # Errors
/// [`crate::Error::Linalg`] if a frame to be rebuilt is not finite.
///
/// # Panics
/// If `frame` and `buffer` do not hold the same number of rows of `n_cols` values.
pub fn step<T: Real>(
    frame: &mut [T],
    buffer: &mut [T],
    n_cols: usize,
    a: f64,
    options: StepOptions,
) -> Result<StepReport> {
    assert!(n_cols > 0 && frame.len().is_multiple_of(n_cols) && frame.len() == buffer.len(), "frames of one shape");
    let k = frame.len() / n_cols;
    let still = buffer.iter().all(|m| *m == T::default());
    let mut w = vec![0.0; k * k];
    if !still {
        cross(buffer, frame, n_cols, &mut w);
    }
    let mut polish = None;
    if options.reorthogonalize || a.abs() * norm_inf(&w, k) > DRIFT {
        let n = gram(frame, n_cols, k);
        if defect(&n, k) > CORRUPT {
            geometry::orthonormalize(frame, n_cols)?;
            buffer.fill(T::default());
            return Ok(StepReport { angle: 0.0, rebuilt: true });
        }
        // One Newton-Schulz step: eigenvalue errors e become −¾e² + ¼e³, and no row flips or turns.
        polish = Some(affine(-0.5, &n, 1.5, k));
    }
    if still {
        if let Some(polish) = polish {
            combine(frame, &polish, buffer, &w, n_cols);
        }
        return Ok(StepReport::default());
    }
    if let Some(polish) = &polish {
        w = mul(&w, polish, k);
    }
    let gamma = tangent_gram(&gram(buffer, n_cols, k), &w, k);
    let (a, angle) = limited(a, norm_inf(&gamma, k).sqrt(), options.max_angle);
    let (cos, sinc) = if k == 1 { cos_sinc_scalar(a * a * gamma[0]) } else { cos_sinc::<T>(a, &gamma, k) };

    // P ← ((C − a S W) B) P + a S M, where B restores orthonormal rows.
    let mut p = mul(&sinc, &w, k);
    p.iter_mut().zip(&cos).for_each(|(p, c)| *p = c - a * *p);
    let q: Vec<f64> = sinc.iter().map(|s| a * s).collect();
    // M ← C M − ((C W + a Γ S) B) P: the direction moved in parallel along its own geodesic.
    let mut r = Vec::new();
    if options.momentum == MomentumMode::Transported {
        r = mul(&cos, &w, k);
        r.iter_mut().zip(mul(&gamma, &sinc, k)).for_each(|(r, g)| *r = -(*r + a * g));
    }
    if let Some(polish) = &polish {
        p = mul(&p, polish, k);
        r = if r.is_empty() { r } else { mul(&r, polish, k) };
    }
    match options.momentum {
        MomentumMode::Ambient => combine(frame, &p, buffer, &q, n_cols),
        MomentumMode::Transported => combine_both(frame, buffer, n_cols, [&p, &q], [&r, &cos]),
    }
    Ok(StepReport { angle, rebuilt: false })
}

/// One step of gradient descent with momentum: `buffer ← momentum · buffer + gradient`, then [`step`] by minus the rate.
///
/// # Errors
/// As [`step`].
///
/// # Panics
/// If the three do not hold the same number of rows of `n_cols` values.
pub fn descend<T: Real>(
    frame: &mut [T],
    buffer: &mut [T],
    gradient: &[T],
    n_cols: usize,
    [rate, momentum]: [f64; 2],
    options: StepOptions,
) -> Result<StepReport> {
    assert_eq!(buffer.len(), gradient.len(), "one gradient per value");
    let momentum = T::from_f64(momentum);
    buffer.iter_mut().zip(gradient).for_each(|(m, g)| *m = momentum * *m + *g);
    step(frame, buffer, n_cols, -rate, options)
}

/// The rate and the angle after the limit.
fn limited(a: f64, speed: f64, max_angle: Option<f64>) -> (f64, f64) {
    let angle = a.abs() * speed;
    match max_angle {
        Some(max) if angle > max => (a * max / angle, max),
        _ => (a, angle),
    }
}

fn gram<T: Real>(rows: &[T], n_cols: usize, k: usize) -> Vec<f64> {
    let mut n = vec![0.0; k * k];
    cross(rows, rows, n_cols, &mut n);
    n
}

/// `G Gᵀ = M Mᵀ − W Wᵀ`, made symmetric; its diagonal is not negative.
fn tangent_gram(mm: &[f64], w: &[f64], k: usize) -> Vec<f64> {
    let entry = |i: usize, j: usize| {
        let ww: f64 = (0..k).map(|l| w[i * k + l] * w[j * k + l]).sum();
        0.5 * (mm[i * k + j] + mm[j * k + i]) - ww
    };
    let mut gamma = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..k {
            gamma[i * k + j] = if i == j { entry(i, i).max(0.0) } else { entry(i.min(j), i.max(j)) };
        }
    }
    gamma
}

/// `cos √t` and `sin √t / √t` of a scalar `t ≥ 0`.
fn cos_sinc_scalar(t: f64) -> (Vec<f64>, Vec<f64>) {
    let h = t.sqrt();
    // Below this h² / 6 is under half an ulp of one.
    let sinc = if h < 1e-8 { 1.0 } else { h.sin() / h };
    (vec![h.cos()], vec![sinc])
}

/// `cos √T` and `sin √T / √T` for `T = a² Γ`, by truncated series and doubling.
fn cos_sinc<T: Real>(a: f64, gamma: &[f64], k: usize) -> (Vec<f64>, Vec<f64>) {
    let mut t: Vec<f64> = gamma.iter().map(|g| a * a * g).collect();
    let mut norm = norm_inf(&t, k);
    let mut doublings = 0;
    while norm > 1.0 && norm.is_finite() {
        norm /= 4.0;
        doublings += 1;
    }
    let shrink = 0.25f64.powi(doublings);
    t.iter_mut().for_each(|t| *t *= shrink);
    let degree = degree(norm, T::EPSILON);
    let (mut cos, mut sinc) = (identity(k), identity(k));
    // Horner: C = I − T/(1·2) (I − T/(3·4) (I − ...)), S = I − T/(2·3) (I − T/(4·5) (I − ...)).
    for j in (1..=degree).rev() {
        let (even, odd) = ((2 * j - 1) * (2 * j), 2 * j * (2 * j + 1));
        cos = affine(-1.0 / even as f64, &mul(&t, &cos, k), 1.0, k);
        sinc = affine(-1.0 / odd as f64, &mul(&t, &sinc, k), 1.0, k);
    }
    for _ in 0..doublings {
        // sin 2x / 2x = (sin x / x) cos x, cos 2x = 2 cos² x − 1.
        sinc = mul(&sinc, &cos, k);
        cos = affine(2.0, &mul(&cos, &cos, k), -1.0, k);
    }
    (cos, sinc)
}

/// Terms needed for `‖T‖ ≤ norm ≤ 1` in storage of machine precision `epsilon`.
fn degree(norm: f64, epsilon: f64) -> usize {
    let double = epsilon < 1e-10;
    let (_, f32_terms, f64_terms) =
        DEGREES.into_iter().find(|(bound, ..)| norm <= *bound).unwrap_or(DEGREES[DEGREES.len() - 1]);
    if double { f64_terms } else { f32_terms }
}

fn identity(k: usize) -> Vec<f64> {
    affine(0.0, &vec![0.0; k * k], 1.0, k)
}

/// `s A + c I`.
fn affine(s: f64, a: &[f64], c: f64, k: usize) -> Vec<f64> {
    let mut out: Vec<f64> = a.iter().map(|v| s * v).collect();
    out.iter_mut().step_by(k + 1).for_each(|v| *v += c);
    out
}

fn mul(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let mut out = vec![0.0; k * k];
    small_mul(a, b, k, &mut out);
    out
}

fn norm_inf(a: &[f64], k: usize) -> f64 {
    a.chunks_exact(k).map(|row| row.iter().map(|v| v.abs()).sum()).fold(0.0, f64::max)
}

fn defect(n: &[f64], k: usize) -> f64 {
    norm_inf(&affine(1.0, n, -1.0, k), k)
}

#[cfg(test)]
mod tests;
