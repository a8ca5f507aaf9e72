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

/// The moments of each channel of a batch `x` with `places` positions per channel; two passes, in double precision.
pub(crate) fn moments<T: Real>(x: &[T], channels: usize, places: usize) -> Moments {
    let n = x.len() / (channels * places);
    let count = n * places;
    let each = |c: usize, f: &dyn Fn(f64) -> f64| -> f64 {
        let planes = x.chunks_exact(channels * places).map(|s| &s[c * places..(c + 1) * places]);
        planes.flatten().map(|v| f(v.to_f64())).sum::<f64>() / count as f64
    };
    let (mean, var) = (0..channels)
        .into_par_iter()
        .map(|c| {
            let mean = each(c, &|v| v);
            (mean, each(c, &|v| (v - mean) * (v - mean)))
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
            let planes = |v: &[T]| -> Vec<f64> {
                v.chunks_exact(channels * places)
                    .flat_map(|s| &s[c * places..(c + 1) * places])
                    .map(|v| v.to_f64())
                    .collect()
            };
            let (x, dy) = (planes(x), planes(dy));
            let normed = x.iter().zip(&dy).map(|(x, d)| (x - mean[c]) * inverse[c] * d).sum();
            (dy.iter().sum(), normed)
        })
        .collect();
    dy.par_chunks_mut(channels * places).zip(x.par_chunks(channels * places)).for_each(|(dy, x)| {
        for (c, (dy, x)) in dy.chunks_exact_mut(places).zip(x.chunks_exact(places)).enumerate() {
            let scale = inverse[c] * weight.map_or(1.0, |w| w[c].to_f64());
            let (mean_d, mean_nd) = if batch { (sums[c].0 / count, sums[c].1 / count) } else { (0.0, 0.0) };
            dy.iter_mut().zip(x).for_each(|(d, x)| {
                let normed = (x.to_f64() - mean[c]) * inverse[c];
                *d = T::from_f64(scale * (d.to_f64() - mean_d - normed * mean_nd));
            });
        }
    });
    let dw = sums.iter().map(|s| T::from_f64(s.1)).collect();
    let db = sums.iter().map(|s| T::from_f64(s.0)).collect();
    (dw, db)
}
