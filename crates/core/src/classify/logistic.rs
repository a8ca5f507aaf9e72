//! Multinomial logistic regression, converged: L-BFGS preconditioned by the covariance of the samples.
//!
//! The Hessian of the mean loss is at most half the covariance in every direction (D. Böhning, "Multinomial logistic regression
//! algorithm", Ann. Inst. Stat. Math. 44, 1992) and has about its eigenvectors, so `h Σ + λ I` with the mean curvature `h` is a
//! good first Hessian: raw pixels, whose covariance spans six orders of magnitude, need some dozens of passes instead of thousands.

use std::collections::VecDeque;

use rayon::prelude::*;
use subspan_linalg::{Cholesky, Mat, cholesky, gemm, par_gram};

use super::head::softmax;
use super::labelled::Labelled;
use super::linear::{Best, Chosen, Scaling, dot};
use super::model::Scorer;
use super::samples::for_blocks;
use crate::error::{Error, Result};
use crate::observe::Observer;

/// Ridge penalties tried, from strong to weak, each from the last one's solution (mean loss + penalty/2 ‖W‖²).
const PENALTIES: [f64; 5] = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7];
/// Largest entry of the gradient at a solution, over the typical size of one coordinate; that of the common implementations.
const TOLERANCE: f64 = 1e-4;
/// An iteration has also converged when the last [`PATIENCE`] steps took less than this share off the loss: what is left is far
/// below what held-out samples can tell, and close to the rounding of single precision.
const LEAST_DECREASE: f64 = 1e-5;
const PATIENCE: usize = 8;
/// Iterations per penalty; the path's warm starts rarely need as many.
const MAX_ITERATIONS: usize = 300;
/// Pairs that L-BFGS remembers.
const MEMORY: usize = 20;
/// Share of the predicted decrease that a step must keep (Armijo).
const ARMIJO: f64 = 1e-4;
/// Halvings after which a direction is given up: single-precision losses cannot tell smaller steps apart.
const MAX_HALVINGS: usize = 20;
/// Values up to which scaled samples are kept in memory (1 GiB); more are read again in every pass.
const MAX_KEPT: usize = 1 << 28;
/// Rows multiplied at a time: they stay in the second-level cache for both products.
const TILE_ROWS: usize = 128;
/// Partial sums of a pass, at most: their number must not depend on the threads.
const MAX_PARTS: usize = 32;
/// Samples per dimension that the preconditioner looks at.
const SAMPLES_PER_COLUMN: usize = 16;

/// Logistic regression on `rows`: the scorer of the chosen penalty, and that penalty. With `refit`, the classifier of an earlier
/// fit, only that one's penalty is used, from its solution on.
pub(crate) fn logistic(
    data: &Labelled<'_>,
    rows: &[usize],
    held_out: &[usize],
    class_weights: &[f64],
    refit: Option<&Chosen>,
    observer: &dyn Observer,
) -> Result<Chosen> {
    let problem = Logistic::new(data, rows, class_weights, observer)?;
    if let Some((Scorer::Linear { weights, bias }, penalty)) = refit {
        let mut point = problem.scaling.point(weights, bias);
        problem.solve(&mut point, *penalty)?;
        return Ok((problem.scorer(&point), *penalty));
    }
    let mut point = vec![0.0; data.n_classes() * (data.n_cols() + 1)];
    let (mut best, mut chosen) = (Best::new(), problem.scorer(&point));
    for (i, penalty) in PENALTIES.into_iter().enumerate() {
        problem.solve(&mut point, penalty)?;
        let scorer = problem.scorer(&point);
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
    scaling: Scaling,
    /// Scaled samples, unless there are too many.
    kept: Option<Vec<f32>>,
    covariance: Mat,
    class_weights: &'a [f64],
    observer: &'a dyn Observer,
}

/// A pass over the samples.
struct Pass {
    value: f64,
    gradient: Vec<f64>,
    /// Mean of `p (1 − p)` over samples and classes.
    curvature: f64,
}

/// Sums over some of the samples.
struct Part {
    loss: f64,
    weight: f64,
    curvature: f64,
    gradient: Vec<f64>,
}

impl<'a> Logistic<'a> {
    fn new(
        data: &'a Labelled<'a>,
        rows: &'a [usize],
        class_weights: &'a [f64],
        observer: &'a dyn Observer,
    ) -> Result<Self> {
        let scaling = Scaling::of(data, rows)?;
        let d = data.n_cols();
        let mut kept = None;
        if rows.len() * d <= MAX_KEPT {
            let mut values = vec![0f32; rows.len() * d];
            let pieces = values.par_chunks_mut(TILE_ROWS * d).zip(rows.par_chunks(TILE_ROWS));
            pieces.try_for_each(|(values, rows)| {
                data.samples.gather(rows, values)?;
                scaling.apply(values);
                Ok::<(), Error>(())
            })?;
            kept = Some(values);
        }
        let every = (rows.len() / (SAMPLES_PER_COLUMN * d)).max(1);
        let some: Vec<usize> = rows.iter().copied().step_by(every).collect();
        let mut covariance = Mat::zeros(d, d);
        for_blocks(data.samples, &some, |_, values| {
            scaling.apply(values);
            let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            let part = par_gram(&values, d);
            covariance.as_mut_slice().iter_mut().zip(part.as_slice()).for_each(|(g, p)| *g += p / some.len() as f64);
            Ok(())
        })?;
        Ok(Self { data, rows, scaling, kept, covariance, class_weights, observer })
    }

    fn scorer(&self, point: &[f64]) -> Scorer {
        let (weights, bias) = point.split_at(self.data.n_classes() * self.data.n_cols());
        self.scaling.scorer(weights, bias)
    }

    /// Penalised weighted mean loss and its gradient at weights followed by biases.
    fn value(&self, point: &[f64], penalty: f64) -> Result<Pass> {
        if self.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let (d, n_classes) = (self.data.n_cols(), self.data.n_classes());
        let (weights, bias) = point.split_at(n_classes * d);
        let w32: Vec<f32> = weights.iter().map(|w| *w as f32).collect();
        let part_rows = self.rows.len().div_ceil(MAX_PARTS).max(8 * TILE_ROWS);
        let parts: Vec<Part> = (0..self.rows.len().div_ceil(part_rows))
            .into_par_iter()
            .map(|i| self.part(i * part_rows, ((i + 1) * part_rows).min(self.rows.len()), &w32, bias))
            .collect::<Result<_>>()?;
        let mut sum = Part { loss: 0.0, weight: 0.0, curvature: 0.0, gradient: vec![0.0; point.len()] };
        for part in parts {
            sum.loss += part.loss;
            sum.weight += part.weight;
            sum.curvature += part.curvature;
            sum.gradient.iter_mut().zip(&part.gradient).for_each(|(s, p)| *s += p);
        }
        let mut gradient = sum.gradient;
        gradient.iter_mut().for_each(|g| *g /= sum.weight);
        gradient.iter_mut().zip(weights).for_each(|(g, w)| *g += penalty * w);
        let value = sum.loss / sum.weight + 0.5 * penalty * dot(weights, weights);
        Ok(Pass { value, gradient, curvature: sum.curvature / sum.weight / n_classes as f64 })
    }

    /// Sums over the samples `from..to`.
    fn part(&self, from: usize, to: usize, weights: &[f32], bias: &[f64]) -> Result<Part> {
        let (d, n_classes) = (self.data.n_cols(), bias.len());
        let mut sum = Part { loss: 0.0, weight: 0.0, curvature: 0.0, gradient: vec![0.0; n_classes * (d + 1)] };
        let (mut read, mut product) = (Vec::new(), vec![0f32; n_classes * d]);
        let mut logits = vec![0.0; n_classes];
        for first in (from..to).step_by(TILE_ROWS) {
            let rows = &self.rows[first..(first + TILE_ROWS).min(to)];
            let x = match &self.kept {
                Some(values) => &values[first * d..(first + rows.len()) * d],
                None => {
                    read.resize(rows.len() * d, 0.0);
                    self.data.samples.gather(rows, &mut read)?;
                    self.scaling.apply(&mut read);
                    &read[..]
                }
            };
            let mut z = vec![0f32; rows.len() * n_classes];
            gemm::mul_transposed(x, weights, d, &mut z);
            for (row, z) in rows.iter().zip(z.chunks_exact_mut(n_classes)) {
                let class = self.data.codes[*row] as usize;
                let weight = self.class_weights[class];
                logits.iter_mut().zip(&*z).zip(bias).for_each(|((l, z), b)| *l = f64::from(*z) + b);
                let truth = logits[class];
                sum.loss += weight * (softmax(&mut logits) - truth);
                sum.weight += weight;
                sum.curvature += weight * logits.iter().map(|p| p * (1.0 - p)).sum::<f64>();
                logits[class] -= 1.0;
                for c in 0..n_classes {
                    sum.gradient[n_classes * d + c] += weight * logits[c];
                    z[c] = (weight * logits[c]) as f32;
                }
            }
            gemm::transposed_mul(&z, n_classes, x, d, &mut product);
            sum.gradient.iter_mut().zip(&product).for_each(|(g, p)| *g += f64::from(*p));
        }
        Ok(sum)
    }

    /// L-BFGS with backtracking from `point` on.
    fn solve(&self, point: &mut Vec<f64>, penalty: f64) -> Result<()> {
        let Pass { mut value, mut gradient, curvature } = self.value(point, penalty)?;
        let start = Start::new(&self.covariance, curvature, penalty)?;
        let mut pairs: VecDeque<Pair> = VecDeque::new();
        // Unit-length samples spread over d columns have gradients of that size.
        let tolerance = TOLERANCE / (self.data.n_cols() as f64).sqrt();
        let mut values = vec![value];
        for i in 0..MAX_ITERATIONS {
            let slow = i >= PATIENCE && values[i - PATIENCE] - value <= LEAST_DECREASE * value;
            if slow || gradient.iter().all(|g| g.abs() <= tolerance) {
                break;
            }
            let mut direction = two_loop(&gradient, &pairs, &start);
            if dot(&direction, &gradient) >= 0.0 {
                pairs.clear();
                direction = two_loop(&gradient, &pairs, &start);
            }
            let slope = dot(&direction, &gradient);
            let mut t = 1.0;
            let mut accepted = None;
            for _ in 0..MAX_HALVINGS {
                let next: Vec<f64> = point.iter().zip(&direction).map(|(p, d)| p + t * d).collect();
                let pass = self.value(&next, penalty)?;
                if pass.value <= value + ARMIJO * t * slope {
                    accepted = Some((next, pass));
                    break;
                }
                t *= 0.5;
            }
            let Some((next, pass)) = accepted else { break };
            let s: Vec<f64> = next.iter().zip(&*point).map(|(a, b)| a - b).collect();
            let y: Vec<f64> = pass.gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
            let sy = dot(&s, &y);
            if sy > 0.0 {
                if pairs.len() == MEMORY {
                    pairs.pop_front();
                }
                pairs.push_back(Pair { scale: sy / dot(&y, &start.solve(&y)), s, y, rho: 1.0 / sy });
            }
            (*point, value, gradient) = (next, pass.value, pass.gradient);
            values.push(value);
        }
        Ok(())
    }
}

/// The inverse of the first Hessian: `(h Σ + λ I)⁻¹` for the weights of a class, `1/h` for its bias.
struct Start {
    factor: Cholesky,
    curvature: f64,
    d: usize,
}

impl Start {
    fn new(covariance: &Mat, curvature: f64, penalty: f64) -> Result<Self> {
        /// Of a classifier that is certain of every sample.
        const LEAST_CURVATURE: f64 = 1e-4;
        let (d, curvature) = (covariance.n_rows(), curvature.max(LEAST_CURVATURE));
        let hessian = Mat::from_fn(d, d, |i, j| curvature * covariance[(i, j)] + if i == j { penalty } else { 0.0 });
        Ok(Self { factor: cholesky(&hessian)?, curvature, d })
    }

    fn solve(&self, v: &[f64]) -> Vec<f64> {
        let n_classes = v.len() / (self.d + 1);
        let (weights, bias) = v.split_at(n_classes * self.d);
        let columns = Mat::from_fn(self.d, n_classes, |i, c| weights[c * self.d + i]);
        let mut out = self.factor.solve_mat(&columns).transpose().into_vec();
        out.extend(bias.iter().map(|b| b / self.curvature));
        out
    }
}

/// A step, the change of the gradient along it, one over their product, and how much the first Hessian is to be scaled.
struct Pair {
    s: Vec<f64>,
    y: Vec<f64>,
    rho: f64,
    scale: f64,
}

/// Minus the approximate inverse Hessian times the gradient.
fn two_loop(gradient: &[f64], pairs: &VecDeque<Pair>, start: &Start) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let alpha = pair.rho * dot(&pair.s, &q);
        q.iter_mut().zip(&pair.y).for_each(|(q, y)| *q -= alpha * y);
        alphas.push(alpha);
    }
    q = start.solve(&q);
    if let Some(pair) = pairs.back() {
        q.iter_mut().for_each(|q| *q *= pair.scale);
    }
    for (pair, alpha) in pairs.iter().zip(alphas.iter().rev()) {
        let beta = pair.rho * dot(&pair.y, &q);
        q.iter_mut().zip(&pair.s).for_each(|(q, s)| *q += (alpha - beta) * s);
    }
    q
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;
    use crate::classify::calibrate::scores;
    use crate::classify::{DenseSamples, linear};
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
            linear::discriminant(&data, &train, &held, None, &Silent).unwrap(),
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
        let problem = Logistic::new(&data, &rows, &[1.0, 2.0, 0.5], &Silent).unwrap();
        let mut point = vec![0.0; 12];
        problem.solve(&mut point, 1e-3).unwrap();
        let Pass { value, gradient, .. } = problem.value(&point, 1e-3).unwrap();
        assert!(gradient.iter().all(|g| g.abs() <= 1e-4), "{gradient:?}");
        for i in 0..12 {
            let mut moved = point.clone();
            moved[i] += 0.05;
            let Pass { value: up, gradient: slope, .. } = problem.value(&moved, 1e-3).unwrap();
            assert!(up >= value - 1e-5 && slope[i] > gradient[i], "{i}");
        }
    }
}
