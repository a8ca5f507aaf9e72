//! The classifier's head: logits, cross-entropy and gradients, in either precision.
//!
//! With unit rows `x̂` and the frame `P_c` of class `c`: `z_c = P_c x̂`, logit `l_c = γ ‖z_c‖`. With `g = p − t` (probabilities minus
//! targets, times the sample's share of the batch) and `u_c = z_c / ‖z_c‖`:
//! `∂L/∂P_c = γ Σ g_c u_c x̂ᵀ` and `∂L/∂x̂ = γ Σ_c g_c P_cᵀ u_c`. At `z_c = 0` the subgradient 0 is taken.

use rayon::prelude::*;
use subspan_linalg::{Real, gemm, segment_lengths};

/// Below this a projection has no direction, and a row no length.
const TINY: f64 = 1e-12;
/// Fewest rows per task where rows are small work.
pub(crate) const TASK_ROWS: usize = 16;

/// The shape of a head: `offsets[c]..offsets[c + 1]` are the rows of class `c` in the stacked frames.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a, T> {
    /// All frames, one below the other: `offsets.last() x n_cols`.
    pub frames: &'a [T],
    /// One more than there are classes, from zero on.
    pub offsets: &'a [usize],
    /// Values per sample.
    pub n_cols: usize,
    /// Scale of the logits.
    pub gamma: f64,
}

impl<T: Real> Head<'_, T> {
    /// Number of classes.
    pub fn n_classes(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Rows of all frames together.
    fn n_dims(&self) -> usize {
        self.offsets[self.n_classes()]
    }

    /// Projections `z` (`b x Σk`) and logits (`b x C`, `f64`) of unit rows `x` (`b x n_cols`).
    ///
    /// # Panics
    /// If `x` does not hold whole rows.
    pub fn forward(&self, x: &[T]) -> (Vec<T>, Vec<f64>) {
        let b = x.len() / self.n_cols;
        let mut z = vec![T::default(); b * self.n_dims()];
        gemm::mul_transposed(x, self.frames, self.n_cols, &mut z);
        let mut logits = vec![0.0; b * self.n_classes()];
        // Without any direction (an online learner's first moments) all logits are zero.
        let rows = z.par_chunks_exact(self.n_dims().max(1)).zip(logits.par_chunks_exact_mut(self.n_classes()));
        rows.with_min_len(TASK_ROWS).for_each(|(z, logits)| self.lengths(z, logits));
        (z, logits)
    }

    /// The logits of one sample from its projections.
    fn lengths(&self, z: &[T], logits: &mut [f64]) {
        for (o, logit) in self.offsets.windows(2).zip(logits) {
            *logit = self.gamma * norm(&z[o[0]..o[1]]);
        }
    }

    /// The gradients of the loss with the coefficients `g` (`b x C`) of [`cross_entropy`]: by the frames (`Σk x n_cols`).
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    pub fn frame_gradient(&self, x: &[T], z: &[T], g: &[f64]) -> Vec<T> {
        let mut out = vec![T::default(); self.frames.len()];
        gemm::transposed_mul(&self.directions(z, g), self.n_dims(), x, self.n_cols, &mut out);
        out
    }

    /// The gradients by the frames of the given classes alone, one below the other.
    ///
    /// # Panics
    /// If the shapes do not fit each other or there is no such class.
    pub fn frame_gradient_of(&self, x: &[T], z: &[T], g: &[f64], classes: &[usize]) -> Vec<T> {
        let parts = || classes.iter().map(|c| self.offsets[*c]..self.offsets[c + 1]);
        let n_dims: usize = parts().map(|p| p.len()).sum();
        let mut out = vec![T::default(); n_dims * self.n_cols];
        if n_dims == 0 {
            return out;
        }
        let mut h = Vec::with_capacity(x.len() / self.n_cols * n_dims);
        for row in self.directions(z, g).chunks_exact(self.n_dims()) {
            parts().for_each(|p| h.extend_from_slice(&row[p]));
        }
        gemm::transposed_mul(&h, n_dims, x, self.n_cols, &mut out);
        out
    }

    /// By the samples before they were brought to length one (`b x n_cols`); `lengths` are theirs.
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    pub fn sample_gradient(&self, x: &[T], lengths: &[f64], z: &[T], g: &[f64]) -> Vec<T> {
        let mut out = vec![T::default(); x.len()];
        gemm::mul(&self.directions(z, g), self.n_dims(), self.frames, self.n_cols, &mut out);
        for ((out, x), length) in out.chunks_exact_mut(self.n_cols).zip(x.chunks_exact(self.n_cols)).zip(lengths) {
            if *length < TINY {
                out.fill(T::default());
                continue;
            }
            let along: f64 = out.iter().zip(x).map(|(o, x)| o.to_f64() * x.to_f64()).sum();
            out.iter_mut().zip(x).for_each(|(o, x)| *o = T::from_f64((o.to_f64() - along * x.to_f64()) / length));
        }
        out
    }

    /// `γ g_c u_c`, class after class (`b x Σk`).
    fn directions(&self, z: &[T], g: &[f64]) -> Vec<T> {
        let mut h = z.to_vec();
        let rows = h.par_chunks_exact_mut(self.n_dims()).zip(g.par_chunks_exact(self.n_classes()));
        rows.with_min_len(TASK_ROWS).for_each(|(h, g)| {
            for (o, g) in self.offsets.windows(2).zip(g) {
                let part = &mut h[o[0]..o[1]];
                let scale = T::from_f64(self.gamma * g / norm(part).max(TINY));
                part.iter_mut().for_each(|v| *v = scale * *v);
            }
        });
        h
    }
}

fn norm<T: Real>(z: &[T]) -> f64 {
    z.iter().map(|v| v.to_f64() * v.to_f64()).sum::<f64>().sqrt()
}

/// Weighted mean cross-entropy of `logits` (`b x C`) against soft `targets` (`b x C`, rows summing to one), and its gradient by
/// the logits, `(p − t) w / Σw` (`b x C`).
///
/// # Panics
/// If the shapes do not fit each other.
///
/// ```
/// use subspan::classify::head::cross_entropy;
/// let (loss, g) = cross_entropy(&[0.0, 0.0], &[1.0, 0.0], &[1.0], 2);
/// assert!((loss - 2f64.ln()).abs() < 1e-15);
/// assert_eq!(g, [-0.5, 0.5]);
/// ```
pub fn cross_entropy(logits: &[f64], targets: &[f64], weights: &[f64], n_classes: usize) -> (f64, Vec<f64>) {
    assert!(logits.len() == targets.len() && logits.len() == weights.len() * n_classes, "one target per logit");
    let total: f64 = weights.iter().sum();
    let mut gradient = logits.to_vec();
    let mut loss = 0.0;
    let rows = gradient.chunks_exact_mut(n_classes).zip(targets.chunks_exact(n_classes)).zip(weights);
    for ((row, targets), weight) in rows {
        let along: f64 = row.iter().zip(targets).map(|(l, t)| l * t).sum();
        let share = if total > 0.0 { weight / total } else { 0.0 };
        loss += share * (softmax(row) - along);
        row.iter_mut().zip(targets).for_each(|(p, t)| *p = share * (*p - t));
    }
    (loss, gradient)
}

/// Replaces logits by probabilities; returns the logarithm of the sum of their exponentials.
pub(crate) fn softmax(row: &mut [f64]) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for v in row.iter_mut() {
        *v = (*v - max).exp();
        sum += *v;
    }
    row.iter_mut().for_each(|v| *v /= sum);
    max + sum.ln()
}

/// The lowest index of the largest value.
pub(crate) fn argmax(row: &[f64]) -> usize {
    row.iter().enumerate().fold((0, f64::NEG_INFINITY), |best, (i, v)| if *v > best.1 { (i, *v) } else { best }).0
}

/// On the calling thread, for callers that are tasks themselves.
impl Head<'_, f32> {
    /// Projections `P x` of rows of any length (`b x Σk`).
    pub(crate) fn project_here(&self, x: &[f32], projections: &mut Vec<f32>) {
        projections.resize(x.len() / self.n_cols * self.n_dims(), 0.0);
        gemm::mul_transposed_here(x, self.frames, self.n_cols, projections);
    }

    /// Logits (`b x C`) from projections of rows whose inverse lengths are `scales`, which become `γ` times as large.
    pub(crate) fn logits_here(&self, projections: &[f32], scales: &mut [f64], logits: &mut Vec<f64>) {
        logits.resize(scales.len() * self.n_classes(), 0.0);
        scales.iter_mut().for_each(|s| *s *= self.gamma);
        segment_lengths(projections, self.offsets, scales, logits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::geometry::random;
    use crate::draw::Stream;

    const D: usize = 7;
    const OFFSETS: [usize; 4] = [0, 2, 3, 6];

    fn frames() -> Vec<f64> {
        let stream = Stream::new(1, "frames");
        OFFSETS.windows(2).enumerate().flat_map(|(c, o)| random(&stream, c as u64, o[1] - o[0], D).unwrap()).collect()
    }

    fn unit(x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let lengths: Vec<f64> = x.chunks_exact(D).map(norm).collect();
        let unit = x.iter().enumerate().map(|(i, v)| if lengths[i / D] > 0.0 { v / lengths[i / D] } else { 0.0 });
        (unit.collect(), lengths)
    }

    fn loss(frames: &[f64], x: &[f64], targets: &[f64], weights: &[f64]) -> f64 {
        let head = Head { frames, offsets: &OFFSETS, n_cols: D, gamma: 4.0 };
        cross_entropy(&head.forward(&unit(x).0).1, targets, weights, 3).0
    }

    /// Five samples: two random, one inside the first subspace, one zero, and one with a soft target.
    fn batch() -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let mut rng = Stream::new(2, "samples").rng(0);
        let mut x: Vec<f64> = (0..5 * D).map(|_| rng.normal()).collect();
        x[2 * D..3 * D].copy_from_slice(&frames()[..D]);
        x[3 * D..4 * D].fill(0.0);
        let mut targets = vec![0.0; 15];
        for (i, class) in [0, 1, 2, 1].into_iter().enumerate() {
            targets[3 * i + class] = 1.0;
        }
        targets[12..].copy_from_slice(&[0.7, 0.1, 0.2]);
        (x, targets, vec![1.0, 0.5, 2.0, 1.0, 1.0])
    }

    fn gradients() -> (Vec<f64>, Vec<f64>) {
        let (x, targets, weights) = batch();
        let frames = frames();
        let head = Head { frames: &frames, offsets: &OFFSETS, n_cols: D, gamma: 4.0 };
        let (unit, lengths) = unit(&x);
        let (z, logits) = head.forward(&unit);
        let (_, g) = cross_entropy(&logits, &targets, &weights, 3);
        (head.frame_gradient(&unit, &z, &g), head.sample_gradient(&unit, &lengths, &z, &g))
    }

    #[test]
    fn gradients_are_those_of_central_differences() {
        let (x, targets, weights) = batch();
        let (by_frames, by_samples) = gradients();
        let h = 1e-5;
        let check = |found: &[f64], values: &[f64], skip: &dyn Fn(usize) -> bool, f: &dyn Fn(&[f64]) -> f64| {
            for i in (0..values.len()).filter(|i| !skip(*i)) {
                let mut v = values.to_vec();
                v[i] += h;
                let up = f(&v);
                v[i] -= 2.0 * h;
                let slope = (up - f(&v)) / (2.0 * h);
                assert!((found[i] - slope).abs() < 1e-6 * slope.abs().max(1e-3), "{i}: {} {slope}", found[i]);
            }
        };
        check(&by_frames, &frames(), &|_| false, &|f| loss(f, &x, &targets, &weights));
        // The zero sample has a kink; its gradient is zero by definition.
        check(&by_samples, &x, &|i| i / D == 3, &|x| loss(&frames(), x, &targets, &weights));
        assert!(by_samples[3 * D..4 * D].iter().all(|v| *v == 0.0));
    }

    #[test]
    fn gradients_by_samples_are_orthogonal_to_them() {
        let (x, ..) = batch();
        for (g, x) in gradients().1.chunks_exact(D).zip(x.chunks_exact(D)) {
            assert!(g.iter().zip(x).map(|(g, x)| g * x).sum::<f64>().abs() < 1e-14);
        }
    }

    #[test]
    fn a_sample_orthogonal_to_a_subspace_has_no_gradient_by_it() {
        let frames = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let head = Head { frames: &frames, offsets: &[0, 1, 2], n_cols: 3, gamma: 4.0 };
        let x = [0.0, 0.0, 1.0];
        let (z, logits) = head.forward(&x);
        let (_, g) = cross_entropy(&logits, &[1.0, 0.0], &[1.0], 2);
        assert!(head.frame_gradient(&x, &z, &g).iter().all(|v| *v == 0.0));
    }

    #[test]
    fn scores_know_neither_the_length_nor_the_sign_of_a_sample() {
        let (x, ..) = batch();
        let frames = frames();
        let head = Head { frames: &frames, offsets: &OFFSETS, n_cols: D, gamma: 25.0 };
        let scaled: Vec<f64> = x.iter().map(|v| -3.0 * v).collect();
        let (a, b) = (head.forward(&unit(&x).0).1, head.forward(&unit(&scaled).0).1);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12 && (0.0..=25.0 + 1e-12).contains(a)));
    }
}
