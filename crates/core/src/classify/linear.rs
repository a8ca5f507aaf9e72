//! The linear rivals: multinomial logistic regression by L-BFGS and linear discriminant analysis with shrinkage.
//!
//! Both see the samples minus their mean, over the root of their mean squared length: the same classifiers as on the samples
//! themselves (the bias is free), but well scaled. The penalty and the shrinkage are chosen by the held-out likelihood.

use std::collections::VecDeque;

use subspan_linalg::{Mat, cholesky, gemm, par_gram};

use super::calibrate::{scores, temperature};
use super::head::softmax;
use super::labelled::Labelled;
use super::model::{Scorer, logits_and_codes};
use super::samples::for_blocks;
use crate::error::{Error, Result};
use crate::observe::Observer;

/// Ridge penalties tried, from strong to weak, each from the last one's solution (mean loss + penalty/2 ‖W‖²).
const PENALTIES: [f64; 5] = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7];
/// Shares of a multiple of the identity tried in the pooled covariance.
const SHRINKAGES: [f64; 5] = [1e-4, 1e-3, 1e-2, 0.1, 0.5];
/// Largest entry of the gradient at a solution; that of the common implementations.
const TOLERANCE: f64 = 1e-4;
/// Iterations per penalty; the path's warm starts rarely need as many.
const MAX_ITERATIONS: usize = 300;
/// Pairs that L-BFGS remembers.
const MEMORY: usize = 10;
/// Share of the predicted decrease that a step must keep (Armijo).
const ARMIJO: f64 = 1e-4;
/// Halvings after which a direction is given up: single-precision losses cannot tell smaller steps apart.
const MAX_HALVINGS: usize = 20;

/// Shift and scale of the samples.
struct Scaling {
    mean: Vec<f64>,
    scale: f64,
}

impl Scaling {
    fn of(data: &Labelled<'_>, rows: &[usize]) -> Result<Self> {
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

    fn apply(&self, values: &mut [f32]) {
        for row in values.chunks_exact_mut(self.mean.len()) {
            row.iter_mut().zip(&self.mean).for_each(|(v, m)| *v = ((f64::from(*v) - m) * self.scale) as f32);
        }
    }

    /// The scorer of the original samples from weights (`C x d`) and biases of the scaled ones.
    fn scorer(&self, weights: &[f64], bias: &[f64]) -> Scorer {
        let d = self.mean.len();
        let shift = |w: &[f64]| -> f64 { w.iter().zip(&self.mean).map(|(w, m)| w * m).sum::<f64>() * self.scale };
        Scorer::Linear {
            bias: weights.chunks_exact(d).zip(bias).map(|(w, b)| (b - shift(w)) as f32).collect(),
            weights: weights.iter().map(|w| (w * self.scale) as f32).collect(),
        }
    }
}

/// A fitted scorer and the setting that was chosen for it.
pub(crate) type Chosen = (Scorer, f64);

/// The candidate of the best held-out likelihood (each at its best temperature), the first of equals.
struct Best {
    nll: f64,
    index: usize,
}

impl Best {
    fn new() -> Self {
        Self { nll: f64::INFINITY, index: 0 }
    }

    fn offer(&mut self, index: usize, scorer: &Scorer, data: &Labelled<'_>, held_out: &[usize]) -> Result<bool> {
        let (logits, codes) = logits_and_codes(scorer, data, held_out)?;
        let t = temperature(&logits, &codes, data.n_classes());
        let nll = scores(&logits, &codes, data.n_classes(), t).nll;
        let better = nll < self.nll;
        if better {
            *self = Self { nll, index };
        }
        Ok(better)
    }
}

/// Logistic regression on `rows`: the scorer of the chosen penalty, and that penalty. With `penalty`, only that one is fitted.
pub(crate) fn logistic(
    data: &Labelled<'_>,
    rows: &[usize],
    held_out: &[usize],
    class_weights: &[f64],
    penalty: Option<f64>,
    observer: &dyn Observer,
) -> Result<Chosen> {
    let scaling = Scaling::of(data, rows)?;
    let problem = Logistic { data, rows, scaling: &scaling, class_weights, observer };
    let (d, n_classes) = (data.n_cols(), data.n_classes());
    let mut point = vec![0.0; n_classes * (d + 1)];
    let split = |point: &[f64]| scaling.scorer(&point[..n_classes * d], &point[n_classes * d..]);
    if let Some(penalty) = penalty {
        // Down the path to the given penalty: each solution is near the next.
        for step in PENALTIES.into_iter().filter(|p| *p >= penalty) {
            problem.solve(&mut point, step)?;
        }
        return Ok((split(&point), penalty));
    }
    let (mut best, mut chosen) = (Best::new(), split(&point));
    for (i, penalty) in PENALTIES.into_iter().enumerate() {
        problem.solve(&mut point, penalty)?;
        let scorer = split(&point);
        if best.offer(i, &scorer, data, held_out)? {
            chosen = scorer;
        } else {
            // The likelihood has one peak along the path.
            break;
        }
    }
    Ok((chosen, PENALTIES[best.index]))
}

struct Logistic<'a> {
    data: &'a Labelled<'a>,
    rows: &'a [usize],
    scaling: &'a Scaling,
    class_weights: &'a [f64],
    observer: &'a dyn Observer,
}

impl Logistic<'_> {
    /// Penalised weighted mean loss and its gradient at weights followed by biases.
    fn value(&self, point: &[f64], penalty: f64) -> Result<(f64, Vec<f64>)> {
        if self.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let (d, n_classes) = (self.data.n_cols(), self.data.n_classes());
        let (weights, bias) = point.split_at(n_classes * d);
        let w32: Vec<f32> = weights.iter().map(|w| *w as f32).collect();
        let mut gradient = vec![0.0; point.len()];
        let (mut loss, mut total) = (0.0, 0.0);
        let mut part = vec![0f32; n_classes * d];
        for_blocks(self.data.samples, self.rows, |rows, x| {
            self.scaling.apply(x);
            let mut z = vec![0f32; rows.len() * n_classes];
            gemm::mul_transposed(x, &w32, d, &mut z);
            let mut logits = vec![0.0; n_classes];
            for (row, z) in rows.iter().zip(z.chunks_exact_mut(n_classes)) {
                let class = self.data.codes[*row] as usize;
                let weight = self.class_weights[class];
                logits.iter_mut().zip(&*z).zip(bias).for_each(|((l, z), b)| *l = f64::from(*z) + b);
                let truth = logits[class];
                loss += weight * (softmax(&mut logits) - truth);
                total += weight;
                logits[class] -= 1.0;
                for c in 0..n_classes {
                    gradient[n_classes * d + c] += weight * logits[c];
                    z[c] = (weight * logits[c]) as f32;
                }
            }
            gemm::transposed_mul(&z, n_classes, x, d, &mut part);
            gradient.iter_mut().zip(&part).for_each(|(g, p)| *g += f64::from(*p));
            Ok(())
        })?;
        gradient.iter_mut().for_each(|g| *g /= total);
        gradient.iter_mut().zip(weights).for_each(|(g, w)| *g += penalty * w);
        Ok((loss / total + 0.5 * penalty * dot(weights, weights), gradient))
    }

    /// L-BFGS with backtracking from `point` on.
    fn solve(&self, point: &mut Vec<f64>, penalty: f64) -> Result<()> {
        let (mut value, mut gradient) = self.value(point, penalty)?;
        let mut pairs: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
        for _ in 0..MAX_ITERATIONS {
            if gradient.iter().all(|g| g.abs() <= TOLERANCE * self.gradient_scale()) {
                break;
            }
            let mut direction = two_loop(&gradient, &pairs);
            if dot(&direction, &gradient) >= 0.0 {
                pairs.clear();
                direction = two_loop(&gradient, &pairs);
            }
            let slope = dot(&direction, &gradient);
            let mut t = if pairs.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt() } else { 1.0 };
            let mut accepted = None;
            for _ in 0..MAX_HALVINGS {
                let next: Vec<f64> = point.iter().zip(&direction).map(|(p, d)| p + t * d).collect();
                let (next_value, next_gradient) = self.value(&next, penalty)?;
                if next_value <= value + ARMIJO * t * slope {
                    accepted = Some((next, next_value, next_gradient));
                    break;
                }
                t *= 0.5;
            }
            let Some((next, next_value, next_gradient)) = accepted else { break };
            let s: Vec<f64> = next.iter().zip(&*point).map(|(a, b)| a - b).collect();
            let y: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
            let sy = dot(&s, &y);
            if sy > 0.0 {
                if pairs.len() == MEMORY {
                    pairs.pop_front();
                }
                pairs.push_back((s, y, 1.0 / sy));
            }
            (*point, value, gradient) = (next, next_value, next_gradient);
        }
        Ok(())
    }

    /// Unit-length samples spread over d columns have gradients that small.
    fn gradient_scale(&self) -> f64 {
        1.0 / (self.data.n_cols() as f64).sqrt()
    }
}

/// Minus the approximate inverse Hessian times the gradient.
fn two_loop(gradient: &[f64], pairs: &VecDeque<(Vec<f64>, Vec<f64>, f64)>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(pairs.len());
    for (s, y, rho) in pairs.iter().rev() {
        let alpha = rho * dot(s, &q);
        q.iter_mut().zip(y).for_each(|(q, y)| *q -= alpha * y);
        alphas.push(alpha);
    }
    if let Some((_, y, rho)) = pairs.back() {
        let scale = 1.0 / (rho * dot(y, y));
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for ((s, y, rho), alpha) in pairs.iter().zip(alphas.iter().rev()) {
        let beta = rho * dot(y, &q);
        q.iter_mut().zip(s).for_each(|(q, s)| *q += (alpha - beta) * s);
    }
    q
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;
    use crate::classify::DenseSamples;
    use crate::draw::Stream;

    /// Three Gaussian classes of one covariance, for which both classifiers are right.
    fn gaussians(n: usize, seed: u64) -> (Vec<f32>, Vec<u32>, Vec<String>) {
        let mut rng = Stream::new(seed, "gaussians").rng(0);
        let means = [[2.0, 0.0, 5.0], [0.0, 2.0, 5.0], [-2.0, -2.0, 5.0]];
        let codes: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
        let values = codes.iter().flat_map(|c| means[*c as usize]).map(|m| (m + rng.normal()) as f32).collect();
        (values, codes, ["a", "b", "c"].map(String::from).to_vec())
    }

    #[test]
    fn both_reach_the_accuracy_of_the_true_model() {
        let (values, codes, classes) = gaussians(1500, 1);
        let samples = DenseSamples::new(&values, 3).unwrap();
        let data = Labelled::new(&samples, &codes, &classes).unwrap();
        let (train, held): (Vec<usize>, Vec<usize>) = (0..1500).partition(|i| i % 5 > 0);
        let fits = [
            logistic(&data, &train, &held, &[1.0; 3], None, &Silent).unwrap(),
            discriminant(&data, &train, &held, None, &Silent).unwrap(),
        ];
        let (test, truth, _) = gaussians(3000, 2);
        let test = DenseSamples::new(&test, 3).unwrap();
        let rows: Vec<usize> = (0..3000).collect();
        for (scorer, _) in fits {
            let s = scores(&scorer.logits_of(&test, &rows).unwrap(), &truth, 3, 1.0);
            // The Bayes accuracy of these classes is 0.917 (by a million draws of the true model).
            assert!(s.accuracy > 0.90 && s.ece < 0.03, "{s:?}");
        }
    }

    #[test]
    fn the_solution_is_stationary() {
        let (values, codes, classes) = gaussians(300, 3);
        let samples = DenseSamples::new(&values, 3).unwrap();
        let data = Labelled::new(&samples, &codes, &classes).unwrap();
        let rows: Vec<usize> = (0..300).collect();
        let scaling = Scaling::of(&data, &rows).unwrap();
        let problem = Logistic {
            data: &data,
            rows: &rows,
            scaling: &scaling,
            class_weights: &[1.0, 2.0, 0.5],
            observer: &Silent,
        };
        let mut point = vec![0.0; 12];
        problem.solve(&mut point, 1e-3).unwrap();
        let (value, gradient) = problem.value(&point, 1e-3).unwrap();
        assert!(gradient.iter().all(|g| g.abs() <= 1e-4), "{gradient:?}");
        for i in 0..12 {
            let mut moved = point.clone();
            moved[i] += 0.05;
            let (up, slope) = problem.value(&moved, 1e-3).unwrap();
            assert!(up >= value - 1e-5 && slope[i] > gradient[i], "{i}");
        }
    }
}
