//! From a linear head to subspaces that decide alike.
//!
//! Normalised weights would lose the sign, length and bias of each class's weight. But a softmax does not change when one vector is
//! added to all weights: here it is chosen so that all weights have one length and the winner's logit is also the largest in
//! magnitude. Then the line of each weight is a subspace, and the longest projection is the linear head's decision.

use subspan_linalg::{Eigh, Mat, eigh, psd_factor};

use super::geometry::orthonormalize;
use super::labelled::Labelled;
use super::linear::dot;
use super::model::Frames;
use super::samples::{for_blocks, normalize};
use crate::error::{Error, Result};

/// Share of the largest eigenvalue of the samples' Gram matrix below which a direction does not serve to stand for the constant:
/// a relative cut of 1e-6 on singular values.
const CUT: f64 = 1e-12;
/// Largest relative error with which the lengths must agree.
const EQUAL: f64 = 1e-6;
/// Share that the lift exceeds the smallest sufficient one by: some hundred roundings of single precision.
const SLACK: f64 = 1e-5;

/// Subspaces of dimension `k` that decide like the linear head with `weights` (`n_classes x n_cols`) and `bias` on the samples of
/// `data`: exactly if the bias is zero or the samples' span holds a constant, and the samples share a direction beside what
/// tells classes apart. The other `k - 1` directions of each class are those of least energy, which change scores least.
///
/// Cost `n d²` flop and an eigenproblem of side `n_cols`.
///
/// # Errors
/// [`Error::Shape`] if the head does not fit the data; [`Error::Parameter`] if its weights cannot be brought to one length, which
/// takes at most as many classes as columns and independent differences.
pub fn linear_start(data: &Labelled<'_>, weights: &[f32], bias: &[f32], k: usize) -> Result<Frames> {
    let (d, n_classes) = (data.n_cols(), data.n_classes());
    for (what, found, expected) in
        [("the linear head", weights.len(), n_classes * d), ("the list of biases", bias.len(), n_classes)]
    {
        if found != expected {
            return Err(Error::Shape { what, found, expected });
        }
    }
    let all: Vec<usize> = (0..data.codes.len()).collect();
    let moments = Moments::of(data, &all)?;
    let mut head: Vec<f64> = weights.iter().map(|w| f64::from(*w)).collect();
    if bias.iter().any(|b| *b != 0.0) {
        let constant = moments.constant();
        for (w, b) in head.chunks_exact_mut(d).zip(bias) {
            w.iter_mut().zip(&constant).for_each(|(w, q)| *w += f64::from(*b) * q);
        }
    }
    let differences = Mat::from_fn(n_classes - 1, d, |c, j| head[(c + 1) * d + j] - head[j]);
    let products = differences.mul(&differences.transpose());
    let factor = psd_factor(&products)?;
    // The shortest v with 2 (w_c − w_0)·v = ‖w_0‖² − ‖w_c‖².
    let square = |c: usize| dot(&head[c * d..(c + 1) * d], &head[c * d..(c + 1) * d]);
    let gaps: Vec<f64> = (1..n_classes).map(|c| 0.5 * (square(0) - square(c))).collect();
    let shift = differences.transpose().mul_vec(&factor.solve(&gaps));
    head.chunks_exact_mut(d).for_each(|w| w.iter_mut().zip(&shift).for_each(|(w, v)| *w += v));
    let lengths: Vec<f64> = (0..n_classes).map(|c| square_of(&head, c, d).sqrt()).collect();
    let (least, most) = lengths.iter().fold((f64::INFINITY, 0.0), |(l, m), v| (f64::min(l, *v), f64::max(m, *v)));
    if most - least > EQUAL * most || !most.is_normal() {
        let expected = "a linear head whose weights differ independently, with no more classes than columns";
        return Err(Error::parameter("start", format!("lengths from {least:.3e} to {most:.3e}"), expected));
    }
    // What samples share beside the differences: lifting all logits along it changes no decision.
    let mut common = moments.mean_direction;
    let inside = differences.transpose().mul_vec(&factor.solve(&differences.mul_vec(&common)));
    common.iter_mut().zip(&inside).for_each(|(c, i)| *c -= i);
    let length = dot(&common, &common).sqrt();
    if length > EQUAL {
        common.iter_mut().for_each(|c| *c /= length);
        let lift = least_lift(data, &all, &head, &common)?;
        head.chunks_exact_mut(d).for_each(|w| w.iter_mut().zip(&common).for_each(|(w, n)| *w += lift * n));
    }
    let mut frames = Frames { rows: Vec::with_capacity(n_classes * k * d), offsets: vec![0] };
    let side = moments.eigen.values.len();
    for w in head.chunks_exact(d) {
        let mut frame: Vec<f64> = w.to_vec();
        for i in 0..k - 1 {
            frame.extend(moments.eigen.vectors.col(i.min(side - 1)));
        }
        orthonormalize(&mut frame, d)?;
        frames.rows.extend(frame.iter().map(|v| *v as f32));
        frames.offsets.push(frames.offsets.last().map_or(0, |o| o + k));
    }
    Ok(frames)
}

fn square_of(head: &[f64], c: usize, d: usize) -> f64 {
    dot(&head[c * d..(c + 1) * d], &head[c * d..(c + 1) * d])
}

/// What the samples add up to.
struct Moments {
    /// Of `Σ x xᵀ`, ascending.
    eigen: Eigh,
    sum: Vec<f64>,
    /// Mean of the unit samples.
    mean_direction: Vec<f64>,
}

impl Moments {
    fn of(data: &Labelled<'_>, all: &[usize]) -> Result<Self> {
        let d = data.n_cols();
        let (mut gram, mut sum, mut mean) = (Mat::zeros(d, d), vec![0.0; d], vec![0.0; d]);
        let add = |to: &mut Vec<f64>, values: &[f32]| {
            for row in values.chunks_exact(d) {
                to.iter_mut().zip(row).for_each(|(t, v)| *t += f64::from(*v));
            }
        };
        for_blocks(data.samples, all, |_, values| {
            let wide: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            let part = subspan_linalg::par_gram(&wide, d);
            gram.as_mut_slice().iter_mut().zip(part.as_slice()).for_each(|(g, p)| *g += p);
            add(&mut sum, values);
            normalize(values, d, None);
            add(&mut mean, values);
            Ok(())
        })?;
        mean.iter_mut().for_each(|m| *m /= all.len() as f64);
        Ok(Self { eigen: eigh(&gram)?, sum, mean_direction: mean })
    }

    /// The least-squares solution of `F q ≈ 1`.
    fn constant(&self) -> Vec<f64> {
        let largest = self.eigen.values.last().copied().unwrap_or(0.0);
        let mut q = vec![0.0; self.sum.len()];
        for (i, value) in self.eigen.values.iter().enumerate().filter(|(_, v)| **v > CUT * largest) {
            let direction = self.eigen.vectors.col(i);
            let along = dot(&direction, &self.sum) / value;
            q.iter_mut().zip(&direction).for_each(|(q, v)| *q += along * v);
        }
        q
    }
}

/// The smallest `β` with `β n·x̂ ≥ −(max_c l_c + min_c l_c)/2` on every sample with `n·x̂ > 0`.
fn least_lift(data: &Labelled<'_>, all: &[usize], head: &[f64], common: &[f64]) -> Result<f64> {
    let d = data.n_cols();
    let mut lift = 0.0f64;
    for_blocks(data.samples, all, |_, values| {
        normalize(values, d, None);
        for row in values.chunks_exact(d) {
            let x: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
            let along = dot(common, &x);
            if along <= 0.0 {
                continue;
            }
            let logits = head.chunks_exact(d).map(|w| dot(w, &x));
            let (low, high) = logits.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
            // A little more, so that the sample that decides is no tie after rounding to single precision.
            lift = lift.max(-0.5 * (1.0 + SLACK) * (low + high) / along);
        }
        Ok(())
    })?;
    Ok(lift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::DenseSamples;
    use crate::classify::head::{Head, argmax};
    use crate::draw::Stream;

    /// Samples with a positive mean, and a random linear head.
    fn problem(d: usize, n_classes: usize) -> (Vec<f32>, Vec<u32>, Vec<String>, Vec<f32>) {
        let mut rng = Stream::new(5, "warm").rng(0);
        let values: Vec<f32> = (0..300 * d).map(|_| 2.0 + rng.normal() as f32).collect();
        let codes = (0..300).map(|i| i as u32 % n_classes as u32).collect();
        // What all weights share decides nothing, but makes logits negative.
        let weights = (0..n_classes * d).map(|_| rng.normal() as f32 - 1.0).collect();
        (values, codes, (0..n_classes).map(|c| c.to_string()).collect(), weights)
    }

    fn decisions(frames: &Frames, values: &[f32], d: usize) -> Vec<usize> {
        let head = Head { frames: &frames.rows, offsets: &frames.offsets, n_cols: d, gamma: 25.0 };
        head.forward(values).1.chunks_exact(frames.offsets.len() - 1).map(argmax).collect()
    }

    #[test]
    fn the_linear_heads_decisions_survive_where_normalised_weights_lose_them() {
        let (d, n_classes) = (20, 6);
        let (values, codes, classes, weights) = problem(d, n_classes);
        let samples = DenseSamples::new(&values, d).unwrap();
        let data = Labelled::new(&samples, &codes, &classes).unwrap();
        let truth: Vec<usize> = values
            .chunks_exact(d)
            .map(|x| {
                let logits: Vec<f64> = weights
                    .chunks_exact(d)
                    .map(|w| w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum())
                    .collect();
                argmax(&logits)
            })
            .collect();
        let agree = |frames: &Frames| decisions(frames, &values, d).iter().zip(&truth).filter(|(a, b)| a == b).count();
        let frames = linear_start(&data, &weights, &[0.0; 6], 1).unwrap();
        assert_eq!(agree(&frames), 300);
        let naive = Frames { rows: weights.clone(), offsets: (0..=n_classes).collect() };
        assert!(agree(&naive) < 280, "{}", agree(&naive));
        // Directions of least energy disturb few decisions.
        let wider = linear_start(&data, &weights, &[0.0; 6], 2).unwrap();
        assert!(agree(&wider) > 200 && wider.offsets == [0, 2, 4, 6, 8, 10, 12]);
    }

    #[test]
    fn a_bias_is_folded_into_the_weights() {
        let (d, n_classes) = (20, 4);
        let (mut values, codes, classes, weights) = problem(d, n_classes);
        // A column of ones: the constant lies in the samples' span.
        values.iter_mut().skip(d - 1).step_by(d).for_each(|v| *v = 1.0);
        let samples = DenseSamples::new(&values, d).unwrap();
        let data = Labelled::new(&samples, &codes, &classes).unwrap();
        let bias = [3.0, -2.0, 1.0, 0.0];
        let frames = linear_start(&data, &weights, &bias, 1).unwrap();
        for (x, found) in values.chunks_exact(d).zip(decisions(&frames, &values, d)) {
            let logits: Vec<f64> = weights
                .chunks_exact(d)
                .zip(&bias)
                .map(|(w, b)| f64::from(*b) + w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>())
                .collect();
            assert_eq!(found, argmax(&logits));
        }
    }

    #[test]
    fn heads_that_cannot_be_brought_to_one_length_are_refused() {
        let (values, codes, classes, mut weights) = problem(3, 2);
        // Opposite in direction, different in length: no vector evens them out across dependent differences.
        weights = [weights, vec![1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 3.0, 0.0, 0.0]].concat()[6..].to_vec();
        let codes: Vec<u32> = codes.iter().enumerate().map(|(i, _)| i as u32 % 3).collect();
        let classes = [classes, vec!["2".to_string()]].concat();
        let samples = DenseSamples::new(&values, 3).unwrap();
        let data = Labelled::new(&samples, &codes, &classes).unwrap();
        assert!(matches!(linear_start(&data, &weights, &[0.0; 3], 1), Err(Error::Parameter { .. })));
        assert!(matches!(linear_start(&data, &weights, &[0.0; 2], 1), Err(Error::Shape { .. })));
    }
}
