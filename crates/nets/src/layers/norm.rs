//! BatchNorm: with running statistics, or with those of the batch.

use rayon::prelude::*;
use subspan_linalg::Real;

use crate::graph::NORM_EPS;

/// Mean and (biased) variance of each channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Moments {
    pub(crate) mean: Vec<f64>,
    pub(crate) var: Vec<f64>,
    /// Values per channel.
    pub(crate) count: usize,
}

/// Sums that run side by side, so that additions need not wait for each other.
const LANES: usize = 8;

/// The sum of `f(a, b)` over two planes, in double precision.
#[inline(always)]
fn sum<T: Real>(a: &[T], b: &[T], f: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0f64; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for ((s, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *s += f(a.to_f64(), b.to_f64());
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f(a.to_f64(), b.to_f64())).sum();
    lanes.iter().sum::<f64>() + rest
}

/// The planes of channel `c`, one per sample.
fn planes<T>(x: &[T], channels: usize, places: usize, c: usize) -> impl Iterator<Item = &[T]> {
    x.chunks_exact(channels * places).map(move |s| &s[c * places..(c + 1) * places])
}

/// The moments of each channel of a batch `x` with `places` positions per channel; two passes, in double precision.
pub(crate) fn moments<T: Real>(x: &[T], channels: usize, places: usize) -> Moments {
    let count = x.len() / channels;
    let (mean, var) = (0..channels)
        .into_par_iter()
        .map(|c| {
            let own = || planes(x, channels, places, c);
            let mean = own().map(|p| sum(p, p, |v, _| v)).sum::<f64>() / count as f64;
            (mean, own().map(|p| sum(p, p, |v, _| (v - mean) * (v - mean))).sum::<f64>() / count as f64)
        })
        .unzip();
    Moments { mean, var, count }
}

/// `1 / √(var + ε)` of each channel.
fn inverse_roots(var: &[f64]) -> Vec<f64> {
    var.iter().map(|v| 1.0 / (v + NORM_EPS).sqrt()).collect()
}

/// `(x − mean) / √(var + ε) · weight + bias` in place.
pub(crate) fn forward<T: Real>(x: &mut [T], places: usize, mean: &[f64], var: &[f64], affine: Option<(&[T], &[T])>) {
    let channels = mean.len();
    let inverse = inverse_roots(var);
    let (scale, shift): (Vec<T>, Vec<T>) = (0..channels)
        .map(|c| {
            let (w, b) = affine.map_or((1.0, 0.0), |(w, b)| (w[c].to_f64(), b[c].to_f64()));
            (T::from_f64(w * inverse[c]), T::from_f64(b - w * inverse[c] * mean[c]))
        })
        .unzip();
    x.par_chunks_mut(channels * places).for_each(|sample| {
        for (c, plane) in sample.chunks_exact_mut(places).enumerate() {
            plane.iter_mut().for_each(|v| *v = *v * scale[c] + shift[c]);
        }
    });
}

/// Gradients of the weight and the bias; `dy` becomes the gradient of `x`. With `batch` the statistics are functions of `x`.
pub(crate) fn backward<T: Real>(
    x: &[T],
    dy: &mut [T],
    places: usize,
    mean: &[f64],
    var: &[f64],
    weight: Option<&[T]>,
    batch: bool,
) -> (Vec<T>, Vec<T>) {
    let channels = mean.len();
    let inverse = inverse_roots(var);
    let count = (x.len() / channels) as f64;
    let sums: Vec<(f64, f64)> = (0..channels)
        .into_par_iter()
        .map(|c| {
            let own = || planes(x, channels, places, c).zip(planes(dy, channels, places, c));
            let normed = own().map(|(x, d)| sum(x, d, |x, d| (x - mean[c]) * inverse[c] * d)).sum();
            (own().map(|(_, d)| sum(d, d, |d, _| d)).sum(), normed)
        })
        .collect();
    dy.par_chunks_mut(channels * places).zip(x.par_chunks(channels * places)).for_each(|(dy, x)| {
        for (c, (dy, x)) in dy.chunks_exact_mut(places).zip(x.chunks_exact(places)).enumerate() {
            let scale = inverse[c] * weight.map_or(1.0, |w| w[c].to_f64());
            let (mean_d, mean_nd) = if batch { (sums[c].0 / count, sums[c].1 / count) } else { (0.0, 0.0) };
            // scale · (d − mean_d − (x − mean) · inverse · mean_nd), as two products and a constant.
            let slope = -scale * inverse[c] * mean_nd;
            let constant = T::from_f64(-scale * mean_d - slope * mean[c]);
            let (scale, slope) = (T::from_f64(scale), T::from_f64(slope));
            dy.iter_mut().zip(x).for_each(|(d, x)| *d = scale * *d + slope * *x + constant);
        }
    });
    let dw = sums.iter().map(|s| T::from_f64(s.1)).collect();
    let db = sums.iter().map(|s| T::from_f64(s.0)).collect();
    (dw, db)
}
