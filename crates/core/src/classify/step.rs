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

use rayon::prelude::*;
use subspan_linalg::Real;
use subspan_linalg::frames::{accumulate, combine, combine_both, cross, inner, small_mul};

use super::geometry;
use super::literal::literal_step;
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

/// How the move is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Update {
    /// By series in `k x k` matrices.
    #[default]
    Series,
    /// By a singular value decomposition and, to restore orthonormal rows, a QR decomposition, as published
    /// ([`super::literal_step`]); the buffer is ambient and steps are not cut.
    Literal,
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
    /// How the move is computed.
    pub update: Update,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepReport {
    /// Upper bound of the largest angle moved, radians (`√‖T‖_∞`, at most `k^¼` above it).
    pub angle: f64,
    /// Upper bound of the largest singular value of the buffer's tangent part (`√‖Γ‖_∞`).
    pub speed: f64,
    /// Whether the frame was so far from orthonormal that it was rebuilt and its buffer emptied.
    pub rebuilt: bool,
}

/// Rows farther from orthonormal than this (`‖P Pᵀ − I‖_∞`) are rebuilt: Newton-Schulz diverges soon after.
const CORRUPT: f64 = 0.5;

/// Rows are restored in every step whose buffer has more than this (`|a| ‖W‖_∞`) in the span of the frame: a defect `E` of the
/// rows leaves `W E` of that part in what should be tangent, so it grows by `1 + |a| ‖W‖` a step. Below this it grows less than
/// twelvefold in 50 steps; without the rule, subspaces that fill most of the space diverge within a few dozen.
const DRIFT: f64 = 0.05;

/// Values of the classes that are moved by one task at least: enough work to pay for handing it out.
const TASK_VALUES: usize = 1 << 14;

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
    if options.update == Update::Literal {
        let angle = literal_step(frame, buffer, n_cols, a, options.reorthogonalize)?;
        return Ok(StepReport { angle, speed: angle / a.abs(), rebuilt: false });
    }
    // One allocation for all k x k matrices of the step.
    let mut squares = vec![0.0; 8 * k * k];
    let mut squares = squares.chunks_exact_mut(k * k);
    let [w, gamma, t, cos, sinc, p, q, spare] = std::array::from_fn(|_| squares.next().expect("eight of them"));

    inner(buffer, n_cols, gamma);
    let still = gamma.iter().all(|m| *m == 0.0);
    if !still {
        cross(buffer, frame, n_cols, w);
    }
    let polishes = options.reorthogonalize || a.abs() * norm_inf(w, k) > DRIFT;
    let mut polish = Vec::new();
    if polishes {
        inner(frame, n_cols, spare);
        if defect(spare, k) > CORRUPT {
            geometry::orthonormalize(frame, n_cols)?;
            buffer.fill(T::default());
            return Ok(StepReport { rebuilt: true, ..StepReport::default() });
        }
        // One Newton-Schulz step: eigenvalue errors e become −¾e² + ¼e³, and no row flips or turns.
        polish = spare.iter().map(|n| -0.5 * n).collect();
        polish.iter_mut().step_by(k + 1).for_each(|v| *v += 1.5);
        times(w, &polish, k, spare);
    }
    if still {
        if polishes {
            combine(frame, &polish, buffer, w, n_cols);
        }
        return Ok(StepReport::default());
    }
    make_tangent(gamma, w, k, [t, spare]);
    let speed = norm_inf(gamma, k).sqrt();
    let (a, angle) = limited(a, speed, options.max_angle);
    if k == 1 {
        (cos[0], sinc[0]) = cos_sinc_scalar(a * a * gamma[0]);
    } else {
        t.iter_mut().zip(&*gamma).for_each(|(t, g)| *t = a * a * g);
        cos_sinc(t, k, T::EPSILON, [cos, sinc, spare]);
    }

    // P ← ((C − a S W) B) P + a S M, where B restores orthonormal rows.
    small_mul(sinc, w, k, [-a, 0.0], p);
    p.iter_mut().zip(&*cos).for_each(|(p, c)| *p += c);
    q.iter_mut().zip(&*sinc).for_each(|(q, s)| *q = a * s);
    if polishes {
        times(p, &polish, k, spare);
    }
    match options.momentum {
        MomentumMode::Ambient => combine(frame, p, buffer, q, n_cols),
        MomentumMode::Transported => {
            // M ← C M − ((C W + a Γ S) B) P: the direction moved in parallel along its own geodesic.
            let r = t;
            small_mul(cos, w, k, [-1.0, 0.0], r);
            small_mul(gamma, sinc, k, [-a, 0.0], spare);
            r.iter_mut().zip(&*spare).for_each(|(r, g)| *r += g);
            if polishes {
                times(r, &polish, k, spare);
            }
            combine_both(frame, buffer, n_cols, [p, q], [r, cos]);
        }
    }
    Ok(StepReport { angle, speed, rebuilt: false })
}

/// Makes up for steps that were not made because there was no gradient. With rates `a₁, a₂, ...` and momentum `μ` they are one geodesic of
/// length `Σ aᵢ μⁱ` (`postponed`), and the buffer, carried along, shrinks by `μʲ` (`decay`).
///
/// # Errors
/// As [`step`].
///
/// # Panics
/// As [`step`].
pub fn catch_up<T: Real>(
    frame: &mut [T],
    buffer: &mut [T],
    n_cols: usize,
    [postponed, decay]: [f64; 2],
) -> Result<StepReport> {
    let options = StepOptions { momentum: MomentumMode::Transported, ..StepOptions::default() };
    let report = step(frame, buffer, n_cols, -postponed, options)?;
    let decay = T::from_f64(decay);
    buffer.iter_mut().for_each(|m| *m = decay * *m);
    Ok(report)
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
    accumulate(buffer, momentum, gradient, frame);
    step(frame, buffer, n_cols, -rate, options)
}

/// Frames and buffers of all classes, one below the other.
#[derive(Debug)]
pub struct StackedFrames<'a, T> {
    /// `offsets.last() x n_cols`.
    pub frames: &'a mut [T],
    /// Of the same shape.
    pub buffers: &'a mut [T],
    /// The rows of class `c` are `offsets[c]..offsets[c + 1]`.
    pub offsets: &'a [usize],
    /// Values per row.
    pub n_cols: usize,
}

/// [`descend`] of every class, in parallel; each class belongs to one thread, so the bits do not depend on their number.
///
/// # Errors
/// As [`step`], of the first class that fails.
///
/// # Panics
/// If a slice does not hold the rows of all classes.
pub fn descend_all<T: Real>(
    stacked: StackedFrames<'_, T>,
    gradient: &[T],
    rates: [f64; 2],
    options: StepOptions,
) -> Result<Vec<StepReport>> {
    let n_cols = stacked.n_cols;
    let mut gradient = gradient;
    let classes: Vec<_> = stacked
        .split()
        .into_iter()
        .map(|(p, m)| {
            let e = gradient.split_off(..p.len()).expect("gradients of all classes");
            (p, m, e)
        })
        .collect();
    let per_task = classes.first().map_or(1, |(p, ..)| TASK_VALUES / p.len().max(1)).max(1);
    let moved = classes.into_par_iter().with_min_len(per_task);
    moved.map(|(p, m, e)| descend(p, m, e, n_cols, rates, options)).collect()
}

impl<'a, T> StackedFrames<'a, T> {
    /// Frame and buffer of every class.
    pub(crate) fn split(self) -> Vec<(&'a mut [T], &'a mut [T])> {
        let Self { mut frames, mut buffers, offsets, n_cols } = self;
        let class = |o: &[usize]| {
            let len = (o[1] - o[0]) * n_cols;
            let frame = frames.split_off_mut(..len).expect("frames of all classes");
            (frame, buffers.split_off_mut(..len).expect("buffers of all classes"))
        };
        offsets.windows(2).map(class).collect()
    }
}

/// The rate and the angle after the limit.
fn limited(a: f64, speed: f64, max_angle: Option<f64>) -> (f64, f64) {
    let angle = a.abs() * speed;
    match max_angle {
        Some(max) if angle > max => (a * max / angle, max),
        _ => (a, angle),
    }
}

/// `mm ← mm − W Wᵀ`: from `M Mᵀ` to `G Gᵀ`, symmetric, with a diagonal that is not negative.
fn make_tangent(mm: &mut [f64], w: &[f64], k: usize, [wt, ww]: [&mut [f64]; 2]) {
    for i in 0..k {
        for j in 0..k {
            wt[j * k + i] = w[i * k + j];
        }
    }
    small_mul(w, wt, k, [1.0, 0.0], ww);
    mm.iter_mut().zip(ww).for_each(|(m, w)| *m -= *w);
    mm.iter_mut().step_by(k + 1).for_each(|m| *m = m.max(0.0));
}

/// `cos √t` and `sin √t / √t` of a scalar `t ≥ 0`.
fn cos_sinc_scalar(t: f64) -> (f64, f64) {
    let h = t.sqrt();
    // Below this h² / 6 is under half an ulp of one.
    let sinc = if h < 1e-8 { 1.0 } else { h.sin() / h };
    (h.cos(), sinc)
}

/// `cos √T` and `sin √T / √T`, by truncated series and doubling; `t` is divided by a power of four.
fn cos_sinc(t: &mut [f64], k: usize, epsilon: f64, [cos, sinc, spare]: [&mut [f64]; 3]) {
    let mut norm = norm_inf(t, k);
    let mut doublings = 0;
    while norm > 1.0 && norm.is_finite() {
        norm /= 4.0;
        doublings += 1;
    }
    let shrink = 0.25f64.powi(doublings);
    t.iter_mut().for_each(|t| *t *= shrink);
    for series in [&mut *cos, &mut *sinc] {
        series.fill(0.0);
        series.iter_mut().step_by(k + 1).for_each(|v| *v = 1.0);
    }
    // Horner: C = I − T/(1·2) (I − T/(3·4) (I − ...)), S = I − T/(2·3) (I − T/(4·5) (I − ...)).
    for j in (1..=degree(norm, epsilon)).rev() {
        let (even, odd) = ((2 * j - 1) * (2 * j), 2 * j * (2 * j + 1));
        small_mul(t, cos, k, [-1.0 / even as f64, 1.0], spare);
        cos.copy_from_slice(spare);
        small_mul(t, sinc, k, [-1.0 / odd as f64, 1.0], spare);
        sinc.copy_from_slice(spare);
    }
    for _ in 0..doublings {
        // sin 2x / 2x = (sin x / x) cos x, cos 2x = 2 cos² x − 1.
        times(sinc, cos, k, spare);
        small_mul(cos, cos, k, [2.0, -1.0], spare);
        cos.copy_from_slice(spare);
    }
}

/// Terms needed for `‖T‖ ≤ norm ≤ 1` in storage of machine precision `epsilon`.
fn degree(norm: f64, epsilon: f64) -> usize {
    let double = epsilon < 1e-10;
    let (_, f32_terms, f64_terms) =
        DEGREES.into_iter().find(|(bound, ..)| norm <= *bound).unwrap_or(DEGREES[DEGREES.len() - 1]);
    if double { f64_terms } else { f32_terms }
}

/// `a ← a b`.
fn times(a: &mut [f64], b: &[f64], k: usize, spare: &mut [f64]) {
    small_mul(a, b, k, [1.0, 0.0], spare);
    a.copy_from_slice(spare);
}

fn norm_inf(a: &[f64], k: usize) -> f64 {
    a.chunks_exact(k).map(|row| row.iter().map(|v| v.abs()).sum()).fold(0.0, f64::max)
}

/// `‖N − I‖_∞`.
fn defect(n: &[f64], k: usize) -> f64 {
    let row = |(i, row): (usize, &[f64])| -> f64 {
        row.iter().enumerate().map(|(j, v)| if i == j { (v - 1.0).abs() } else { v.abs() }).sum()
    };
    n.chunks_exact(k).enumerate().map(row).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests;
