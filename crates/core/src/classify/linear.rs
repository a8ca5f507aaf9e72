//! The linear rivals: what they share, and linear discriminant analysis with shrinkage ([`logistic`](super::logistic) is the other).
//!
//! Both see the samples minus their mean, over the root of their mean squared length: the same classifiers as on the samples
//! themselves (the bias is free), but well scaled. The penalty and the shrinkage are chosen by the held-out likelihood.

use subspan_linalg::{Mat, cholesky, par_gram};

use super::calibrate::{scores, temperature};
use super::labelled::Labelled;
use super::model::{Scorer, logits_and_codes};
use super::samples::for_blocks;
use crate::error::{Error, Result};
use crate::observe::Observer;

/// Shares of a multiple of the identity tried in the pooled covariance.
const SHRINKAGES: [f64; 5] = [1e-4, 1e-3, 1e-2, 0.1, 0.5];

/// Shift and scale of the samples.
pub(crate) struct Scaling {
    pub(crate) mean: Vec<f64>,
    scale: f64,
}

impl Scaling {
    pub(crate) fn of(data: &Labelled<'_>, rows: &[usize]) -> Result<Self> {
        let mean = data.mean(rows)?;
        let mut squares = 0.0;
        for_blocks(data.samples, rows, |_, values| {
            for row in values.chunks_exact(mean.len()) {
                squares += row.iter().zip(&mean).map(|(v, m)| (f64::from(*v) - m).powi(2)).sum::<f64>();
            }
            Ok(())
        })?;
        if squares == 0.0 {
            return Err(Error::AllZero);
        }
        Ok(Self { mean, scale: (rows.len() as f64 / squares).sqrt() })
    }

    pub(crate) fn apply(&self, values: &mut [f32]) {
        for row in values.chunks_exact_mut(self.mean.len()) {
            row.iter_mut().zip(&self.mean).for_each(|(v, m)| *v = ((f64::from(*v) - m) * self.scale) as f32);
        }
    }

    /// The scorer of the original samples from weights (`C x d`) and biases of the scaled ones.
    pub(crate) fn scorer(&self, weights: &[f64], bias: &[f64]) -> Scorer {
        let d = self.mean.len();
        let shift = |w: &[f64]| -> f64 { w.iter().zip(&self.mean).map(|(w, m)| w * m).sum::<f64>() * self.scale };
        Scorer::Linear {
            bias: weights.chunks_exact(d).zip(bias).map(|(w, b)| (b - shift(w)) as f32).collect(),
            weights: weights.iter().map(|w| (w * self.scale) as f32).collect(),
        }
    }

    /// The inverse of [`Scaling::scorer`]: weights, then biases.
    pub(crate) fn point(&self, weights: &[f32], bias: &[f32]) -> Vec<f64> {
        let d = self.mean.len();
        let mut point: Vec<f64> = weights.iter().map(|w| f64::from(*w) / self.scale).collect();
        let along = |w: &[f32]| -> f64 { w.iter().zip(&self.mean).map(|(w, m)| f64::from(*w) * m).sum() };
        point.extend(weights.chunks_exact(d).zip(bias).map(|(w, b)| f64::from(*b) + along(w)));
        point
    }
}

/// A fitted scorer and the setting that was chosen for it.
pub(crate) type Chosen = (Scorer, f64);

/// The candidate of the best held-out likelihood (each at its best temperature), the first of equals.
pub(crate) struct Best {
    nll: f64,
    pub(crate) index: usize,
}

impl Best {
    pub(crate) fn new() -> Self {
        Self { nll: f64::INFINITY, index: 0 }
    }

    pub(crate) fn offer(
        &mut self,
        index: usize,
        scorer: &Scorer,
        data: &Labelled<'_>,
        held_out: &[usize],
    ) -> Result<bool> {
        let nll = held_out_nll(scorer, data, held_out)?;
        let better = nll < self.nll;
        if better {
            *self = Self { nll, index };
        }
        Ok(better)
    }

    /// Whether it is clearly better than `scorer`; nothing is before the first offer.
    pub(crate) fn beats(&self, scorer: &Scorer, data: &Labelled<'_>, held_out: &[usize]) -> Result<bool> {
        /// More than what is left to gain near a solution.
        const CLEARLY: f64 = 1.01;
        Ok(self.nll < f64::INFINITY && CLEARLY * self.nll < held_out_nll(scorer, data, held_out)?)
    }
}

fn held_out_nll(scorer: &Scorer, data: &Labelled<'_>, held_out: &[usize]) -> Result<f64> {
    let (logits, codes) = logits_and_codes(scorer, data, held_out)?;
    let t = temperature(&logits, &codes, data.n_classes());
    Ok(scores(&logits, &codes, data.n_classes(), t).nll)
}

pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Linear discriminant analysis on `rows`: the scorer of the chosen shrinkage, and that shrinkage. With `shrinkage`, only that
/// one is fitted.
pub(crate) fn discriminant(
    data: &Labelled<'_>,
    rows: &[usize],
    held_out: &[usize],
    shrinkage: Option<f64>,
    observer: &dyn Observer,
) -> Result<Chosen> {
    let scaling = Scaling::of(data, rows)?;
    let (d, n_classes) = (data.n_cols(), data.n_classes());
    let mut gram = Mat::zeros(d, d);
    let mut means = Mat::zeros(n_classes, d);
    let mut counts = vec![0.0; n_classes];
    for_blocks(data.samples, rows, |rows, values| {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        scaling.apply(values);
        let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        let part = par_gram(&values, d);
        gram.as_mut_slice().iter_mut().zip(part.as_slice()).for_each(|(g, p)| *g += p);
        for (row, values) in rows.iter().zip(values.chunks_exact(d)) {
            let class = data.codes[*row] as usize;
            counts[class] += 1.0;
            means.row_mut(class).iter_mut().zip(values).for_each(|(m, v)| *m += v);
        }
        Ok(())
    })?;
    for (c, count) in counts.iter().enumerate() {
        means.row_mut(c).iter_mut().for_each(|m| *m /= f64::max(*count, 1.0));
    }
    // Σ within = (Σ x xᵀ − Σ_c n_c m_c m_cᵀ) / n.
    let weighted = Mat::from_fn(n_classes, d, |c, j| counts[c] * means[(c, j)]);
    let between = means.transpose().mul(&weighted);
    let n = rows.len() as f64;
    let within = Mat::from_fn(d, d, |i, j| (gram[(i, j)] - between[(i, j)]) / n);
    let fit = |shrinkage: f64| -> Result<Scorer> {
        let level = (0..d).map(|i| within[(i, i)]).sum::<f64>() / d as f64;
        // Samples that all equal their class's mean have no covariance; any multiple of the identity ranks the same.
        let level = if level > 0.0 { level } else { 1.0 };
        let covariance = Mat::from_fn(d, d, |i, j| {
            (1.0 - shrinkage) * within[(i, j)] + if i == j { shrinkage * level } else { 0.0 }
        });
        let solved = cholesky(&covariance)?.solve_mat(&means.transpose()).transpose();
        let bias: Vec<f64> = (0..n_classes)
            .map(|c| (counts[c] / n).max(f64::MIN_POSITIVE).ln() - 0.5 * dot(solved.row(c), means.row(c)))
            .collect();
        Ok(scaling.scorer(solved.as_slice(), &bias))
    };
    if let Some(shrinkage) = shrinkage {
        return Ok((fit(shrinkage)?, shrinkage));
    }
    let mut best = Best::new();
    let mut chosen = fit(SHRINKAGES[SHRINKAGES.len() - 1])?;
    for (i, shrinkage) in SHRINKAGES.into_iter().enumerate() {
        let scorer = fit(shrinkage)?;
        if best.offer(i, &scorer, data, held_out)? {
            chosen = scorer;
        }
    }
    Ok((chosen, SHRINKAGES[best.index]))
}
