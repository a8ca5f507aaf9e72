//! Multinomial logistic regression, converged: the path of penalties, and passes over the samples; [`newton`](super::newton) walks it.

use rayon::prelude::*;
use subspan_linalg::{Mat, frames, gemm, par_gram};

use super::head::softmax;
use super::labelled::Labelled;
use super::linear::{Best, Chosen, Scaling, dot};
use super::model::Scorer;
use super::newton;
use super::samples::for_blocks;
use crate::error::{Error, Result};
use crate::observe::Observer;

/// Ridge penalties tried, from strong to weak, each from the last one's solution (mean loss + penalty/2 ‖W‖²).
const PENALTIES: [f64; 5] = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7];
/// Values up to which scaled samples are kept in memory (1 GiB); more are read again in every pass.
const MAX_KEPT: usize = 1 << 28;
/// Rows multiplied at a time: they stay in the second-level cache for both products.
const TILE_ROWS: usize = 128;
/// Partial sums of a pass, at most: their number must not depend on the threads.
const MAX_PARTS: usize = 32;
/// Classes up to which inner products of whole rows are faster than a packed product, whose tiles would stay half empty.
const FEW_CLASSES: usize = 32;
/// Samples per dimension that the preconditioner looks at.
const SAMPLES_PER_COLUMN: usize = 16;
/// Samples that the curvature looks at: so many per dimension, and per class at least. What is seen of the curvature then differs
/// from all of it by a third at most in any direction that several samples fill.
const CURVATURE_PER_COLUMN: usize = 8;
const CURVATURE_PER_CLASS: usize = 600;

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
        newton::solve(&problem, &mut point, *penalty, |_| Ok(false))?;
        return Ok((problem.scorer(&point), *penalty));
    }
    let mut point = vec![0.0; data.n_classes() * (data.n_cols() + 1)];
    let (mut best, mut chosen) = (Best::new(), problem.scorer(&point));
    for (i, penalty) in PENALTIES.into_iter().enumerate() {
        // The likelihood has one peak along the path: two steps near the next solution that leave it clearly worse than at the
        // best one so far are beyond the peak.
        let mut worse = 0;
        let beyond = |point: &[f64]| -> Result<bool> {
            worse = if best.beats(&problem.scorer(point), data, held_out)? { worse + 1 } else { 0 };
            Ok(worse == 2)
        };
        if !newton::solve(&problem, &mut point, penalty, beyond)? {
            break;
        }
        let scorer = problem.scorer(&point);
        if !best.offer(i, &scorer, data, held_out)? {
            break;
        }
        chosen = scorer;
    }
    Ok((chosen, PENALTIES[best.index]))
}

/// Scaled samples, in memory unless there are too many.
pub(crate) struct Rows<'a> {
    data: &'a Labelled<'a>,
    rows: Vec<usize>,
    kept: Option<Vec<f32>>,
}

/// A regression problem.
pub(crate) struct Logistic<'a> {
    all: Rows<'a>,
    pub(crate) scaling: Scaling,
    pub(crate) covariance: Mat,
    class_weights: &'a [f64],
    observer: &'a dyn Observer,
}

/// The penalised loss at a point.
pub(crate) struct Pass {
    pub(crate) value: f64,
    pub(crate) gradient: Vec<f64>,
    /// Mean of `p (1 − p)` over samples and classes.
    pub(crate) curvature: f64,
}

/// The Hessian at a point.
pub(crate) struct Curvature<'a> {
    problem: &'a Logistic<'a>,
    rows: &'a Rows<'a>,
    /// Of the samples it looks at (`m x C`).
    probabilities: Vec<f32>,
    penalty: f64,
}

impl<'a> Logistic<'a> {
    pub(crate) fn new(
        data: &'a Labelled<'a>,
        rows: &[usize],
        class_weights: &'a [f64],
        observer: &'a dyn Observer,
    ) -> Result<Self> {
        let scaling = Scaling::of(data, rows)?;
        let d = data.n_cols();
        let some: Vec<usize> = every(rows, SAMPLES_PER_COLUMN * d);
        let mut covariance = Mat::zeros(d, d);
        for_blocks(data.samples, &some, |_, values| {
            scaling.apply(values);
            let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            let part = par_gram(&values, d);
            covariance.as_mut_slice().iter_mut().zip(part.as_slice()).for_each(|(g, p)| *g += p / some.len() as f64);
            Ok(())
        })?;
        let all = Rows::new(data, rows.to_vec(), &scaling)?;
        Ok(Self { all, scaling, covariance, class_weights, observer })
    }

    fn scorer(&self, point: &[f64]) -> Scorer {
        let (weights, bias) = point.split_at(self.all.data.n_classes() * self.all.data.n_cols());
        self.scaling.scorer(weights, bias)
    }

    /// Penalised weighted mean loss and its gradient at weights followed by biases. Cost: `4 n C d` flop, or the samples' bytes.
    pub(crate) fn value(&self, point: &[f64], penalty: f64) -> Result<Pass> {
        if self.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let n_classes = self.all.data.n_classes();
        let turn = |i: usize, row: &mut [f64]| {
            let class = self.all.data.codes[self.all.rows[i]] as usize;
            let weight = self.class_weights[class];
            let truth = row[class];
            let loss = softmax(row) - truth;
            let curvature: f64 = row.iter().map(|p| p * (1.0 - p)).sum();
            row[class] -= 1.0;
            row.iter_mut().for_each(|v| *v *= weight);
            [weight * loss, weight, weight * curvature]
        };
        let (mut gradient, [loss, weight, curvature]) = self.all.sweep(&self.scaling, point, turn)?;
        let weights = &point[..point.len() - n_classes];
        gradient.iter_mut().for_each(|g| *g /= weight);
        gradient.iter_mut().zip(weights).for_each(|(g, w)| *g += penalty * w);
        let value = loss / weight + 0.5 * penalty * dot(weights, weights);
        Ok(Pass { value, gradient, curvature: curvature / weight / n_classes as f64 })
    }

    /// Samples for the curvature to look at, `times` as many as are usually enough; `None` if those are all.
    pub(crate) fn sample(&self, times: usize) -> Result<Option<Rows<'a>>> {
        let data = self.all.data;
        let enough = (CURVATURE_PER_COLUMN * data.n_cols()).max(CURVATURE_PER_CLASS * data.n_classes());
        let some = every(&self.all.rows, times * enough);
        if some.len() == self.all.rows.len() { Ok(None) } else { Rows::new(data, some, &self.scaling).map(Some) }
    }

    /// The Hessian at a point, of the given samples or of all.
    pub(crate) fn curvature<'s>(
        &'s self,
        sample: Option<&'s Rows<'a>>,
        point: &[f64],
        penalty: f64,
    ) -> Result<Curvature<'s>> {
        let rows = sample.unwrap_or(&self.all);
        let probabilities = rows.probabilities(&self.scaling, point, rows.data.n_classes())?;
        Ok(Curvature { problem: self, rows, probabilities, penalty })
    }
}

impl Curvature<'_> {
    /// The Hessian times a vector. Cost: `4 m C d` flop for the `m` samples it looks at.
    pub(crate) fn times(&self, v: &[f64]) -> Result<Vec<f64>> {
        let problem = self.problem;
        let rows = self.rows;
        let n_classes = rows.data.n_classes();
        let turn = |i: usize, row: &mut [f64]| {
            let weight = problem.class_weights[rows.data.codes[rows.rows[i]] as usize];
            let p = &self.probabilities[i * n_classes..(i + 1) * n_classes];
            let mean: f64 = row.iter().zip(p).map(|(r, p)| r * f64::from(*p)).sum();
            row.iter_mut().zip(p).for_each(|(r, p)| *r = weight * f64::from(*p) * (*r - mean));
            [weight, 0.0, 0.0]
        };
        let (mut out, [weight, ..]) = rows.sweep(&problem.scaling, v, turn)?;
        out.iter_mut().for_each(|o| *o /= weight);
        out.iter_mut().zip(&v[..v.len() - n_classes]).for_each(|(o, v)| *o += self.penalty * v);
        Ok(out)
    }
}

/// About `enough` of the rows, evenly spread; all if there are fewer.
fn every(rows: &[usize], enough: usize) -> Vec<usize> {
    rows.iter().copied().step_by((rows.len() / enough).max(1)).collect()
}

impl<'a> Rows<'a> {
    fn new(data: &'a Labelled<'a>, rows: Vec<usize>, scaling: &Scaling) -> Result<Self> {
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
        Ok(Self { data, rows, kept })
    }

    /// The scaled samples from `first` on, a tile of them; `read` is where they go if they are not in memory.
    fn tile<'s>(&'s self, scaling: &Scaling, first: usize, to: usize, read: &'s mut Vec<f32>) -> Result<&'s [f32]> {
        let d = self.data.n_cols();
        let to = (first + TILE_ROWS).min(to);
        if let Some(values) = &self.kept {
            return Ok(&values[first * d..to * d]);
        }
        read.resize((to - first) * d, 0.0);
        self.data.samples.gather(&self.rows[first..to], read)?;
        scaling.apply(read);
        Ok(read)
    }

    /// For every sample `turn` gets its index and its scores at `point` (weights, then biases) and replaces them by coefficients;
    /// the coefficients' sums over the samples, times the samples for the weights, and the sums of what `turn` returns.
    fn sweep(
        &self,
        scaling: &Scaling,
        point: &[f64],
        turn: impl Fn(usize, &mut [f64]) -> [f64; 3] + Sync,
    ) -> Result<(Vec<f64>, [f64; 3])> {
        let (d, n_classes) = (self.data.n_cols(), self.data.n_classes());
        let (weights, bias) = point.split_at(n_classes * d);
        let weights: Vec<f32> = weights.iter().map(|w| *w as f32).collect();
        let part = |from: usize, to: usize| -> Result<(Vec<f64>, [f64; 3])> {
            let (mut sums, mut figures) = (vec![0.0; point.len()], [0.0; 3]);
            let (mut read, mut product, mut z) = (Vec::new(), vec![0f32; n_classes * d], Vec::new());
            let mut scores = Vec::new();
            for first in (from..to).step_by(TILE_ROWS) {
                let x = self.tile(scaling, first, to, &mut read)?;
                multiply(x, &weights, d, &mut z, &mut scores);
                for (i, (z, scores)) in
                    z.chunks_exact_mut(n_classes).zip(scores.chunks_exact_mut(n_classes)).enumerate()
                {
                    scores.iter_mut().zip(bias).for_each(|(s, b)| *s += b);
                    let more = turn(first + i, scores);
                    figures.iter_mut().zip(more).for_each(|(f, m)| *f += m);
                    sums[n_classes * d..].iter_mut().zip(&*scores).for_each(|(b, s)| *b += s);
                    z.iter_mut().zip(&*scores).for_each(|(z, s)| *z = *s as f32);
                }
                gemm::transposed_mul(&z, n_classes, x, d, &mut product);
                sums.iter_mut().zip(&product).for_each(|(s, p)| *s += f64::from(*p));
            }
            Ok((sums, figures))
        };
        let n = self.rows.len();
        let rows = n.div_ceil(MAX_PARTS).next_multiple_of(TILE_ROWS);
        let parts: Vec<_> = (0..n.div_ceil(rows))
            .into_par_iter()
            .map(|i| part(i * rows, ((i + 1) * rows).min(n)))
            .collect::<Result<_>>()?;
        let (mut sums, mut figures) = (vec![0.0; point.len()], [0.0; 3]);
        for (part, more) in parts {
            sums.iter_mut().zip(&part).for_each(|(s, p)| *s += p);
            figures.iter_mut().zip(more).for_each(|(f, m)| *f += m);
        }
        Ok((sums, figures))
    }

    /// Probabilities of the classes at `point` (`n x C`).
    fn probabilities(&self, scaling: &Scaling, point: &[f64], n_classes: usize) -> Result<Vec<f32>> {
        let d = self.data.n_cols();
        let (weights, bias) = point.split_at(n_classes * d);
        let weights: Vec<f32> = weights.iter().map(|w| *w as f32).collect();
        let mut out = vec![0f32; self.rows.len() * n_classes];
        out.par_chunks_mut(TILE_ROWS * n_classes).enumerate().try_for_each(|(i, out)| {
            let (mut read, mut z, mut scores) = (Vec::new(), Vec::new(), Vec::new());
            let x = self.tile(scaling, i * TILE_ROWS, self.rows.len(), &mut read)?;
            multiply(x, &weights, d, &mut z, &mut scores);
            for (out, row) in out.chunks_exact_mut(n_classes).zip(scores.chunks_exact_mut(n_classes)) {
                row.iter_mut().zip(bias).for_each(|(r, b)| *r += b);
                softmax(row);
                out.iter_mut().zip(&*row).for_each(|(o, r)| *o = *r as f32);
            }
            Ok::<(), Error>(())
        })?;
        Ok(out)
    }
}

/// Scores of a tile of samples before the bias; both buffers get one value per sample and class, `z` may hold anything.
fn multiply(x: &[f32], weights: &[f32], d: usize, z: &mut Vec<f32>, scores: &mut Vec<f64>) {
    let n = x.len() / d * (weights.len() / d);
    z.resize(n, 0.0);
    scores.resize(n, 0.0);
    if weights.len() / d <= FEW_CLASSES {
        frames::cross(x, weights, d, scores);
    } else {
        gemm::mul_transposed_here(x, weights, d, z);
        scores.iter_mut().zip(&*z).for_each(|(s, z)| *s = f64::from(*z));
    }
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
        newton::solve(&problem, &mut point, 1e-3, |_| Ok(false)).unwrap();
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
