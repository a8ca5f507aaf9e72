//! Probabilities worth their name: temperature scaling, and how good they are.
//!
//! C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks", ICML 2017.

use serde::Serialize;

use super::head::{argmax, softmax};

/// Equal-width bins of the calibration error.
const BINS: usize = 15;
/// Searched logarithms of the temperature: from a hundredth to a hundredfold.
const LOG_RANGE: f64 = 4.6;
/// Width of the last interval: three digits of the temperature.
const LOG_TOLERANCE: f64 = 1e-3;

/// How good predictions are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scores {
    /// Share of samples whose class was predicted.
    pub accuracy: f64,
    /// Mean negative logarithm of the probability of the true class.
    pub nll: f64,
    /// Expected calibration error: mean over 15 equal-width bins of |confidence − accuracy|, weighted by their samples.
    pub ece: f64,
}

/// One bin of confidences.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Bin {
    /// Samples whose top probability lies in it.
    pub count: usize,
    /// Their mean top probability.
    pub confidence: f64,
    /// The share of them whose class was predicted.
    pub accuracy: f64,
}

/// The reliability diagram: 15 bins of equal width over the top probability, of `logits` divided by `temperature`.
///
/// # Panics
/// If there is not one true class per row.
pub fn reliability(logits: &[f64], classes: &[u32], n_classes: usize, temperature: f64) -> Vec<Bin> {
    assert_eq!(logits.len(), classes.len() * n_classes, "one true class per row");
    let mut bins = vec![Bin::default(); BINS];
    let mut row = vec![0.0; n_classes];
    for (logits, class) in logits.chunks_exact(n_classes).zip(classes) {
        row.iter_mut().zip(logits).for_each(|(r, l)| *r = l / temperature);
        softmax(&mut row);
        let best = argmax(&row);
        let bin = &mut bins[bin_of(row[best])];
        bin.count += 1;
        bin.confidence += row[best];
        bin.accuracy += f64::from(u8::from(best == *class as usize));
    }
    for bin in bins.iter_mut().filter(|b| b.count > 0) {
        bin.confidence /= bin.count as f64;
        bin.accuracy /= bin.count as f64;
    }
    bins
}

fn bin_of(confidence: f64) -> usize {
    ((confidence * BINS as f64) as usize).min(BINS - 1)
}

/// Scores `logits` (`n x n_classes`) divided by `temperature` against the true classes.
///
/// # Panics
/// If there is not one true class per row.
///
/// ```
/// let s = subspan::classify::scores(&[3.0, 0.0, 0.0, 3.0], &[0, 0], 2, 1.0);
/// assert_eq!(s.accuracy, 0.5);
/// ```
pub fn scores(logits: &[f64], classes: &[u32], n_classes: usize, temperature: f64) -> Scores {
    assert_eq!(logits.len(), classes.len() * n_classes, "one true class per row");
    let (mut hits, mut nll) = (0, 0.0);
    let mut bins = [(0.0, 0.0); BINS];
    let mut row = vec![0.0; n_classes];
    for (logits, class) in logits.chunks_exact(n_classes).zip(classes) {
        row.iter_mut().zip(logits).for_each(|(r, l)| *r = l / temperature);
        let truth = row[*class as usize];
        nll += softmax(&mut row) - truth;
        let best = argmax(&row);
        let hit = f64::from(u8::from(best == *class as usize));
        hits += usize::from(best == *class as usize);
        let bin = &mut bins[bin_of(row[best])];
        bin.0 += row[best];
        bin.1 += hit;
    }
    let n = classes.len().max(1) as f64;
    let gap: f64 = bins.iter().map(|(confidence, hits)| (confidence - hits).abs()).sum();
    Scores { accuracy: hits as f64 / n, nll: nll / n, ece: gap / n }
}

/// The temperature of least negative log-likelihood, between 0.01 and 100, by golden section (convex in its inverse, so
/// unimodal in its logarithm).
///
/// Of `n` samples, `1/(n + 2)` of each one's target is spread over all classes, as Platt does ("Probabilistic outputs for support
/// vector machines", 1999): a few samples that are all right do not promise certainty.
///
/// # Panics
/// If there is not one true class per row.
pub fn temperature(logits: &[f64], classes: &[u32], n_classes: usize) -> f64 {
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let spread = 1.0 / (classes.len() as f64 + 2.0);
    // Spreading adds a term linear in 1/T: the mean excess of the true class's logit over the average one.
    let excess: f64 = logits
        .chunks_exact(n_classes)
        .zip(classes)
        .map(|(row, class)| row[*class as usize] - row.iter().sum::<f64>() / n_classes as f64)
        .sum::<f64>()
        / classes.len().max(1) as f64;
    let nll = |log: f64| scores(logits, classes, n_classes, log.exp()).nll + spread * excess / log.exp();
    let (mut low, mut high) = (-LOG_RANGE, LOG_RANGE);
    let (mut a, mut b) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_a, mut at_b) = (nll(a), nll(b));
    while high - low > LOG_TOLERANCE {
        if at_a <= at_b {
            (high, b, at_b) = (b, a, at_a);
            a = high - ratio * (high - low);
            at_a = nll(a);
        } else {
            (low, a, at_a) = (a, b, at_b);
            b = low + ratio * (high - low);
            at_b = nll(b);
        }
    }
    (0.5 * (low + high)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    /// Logits whose classes are drawn from their own softmax.
    fn honest(n: usize, seed: u64) -> (Vec<f64>, Vec<u32>) {
        let mut rng = Stream::new(seed, "honest").rng(0);
        let (mut logits, mut classes) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let mut row: Vec<f64> = (0..3).map(|_| 1.5 * rng.normal()).collect();
            logits.extend_from_slice(&row);
            softmax(&mut row);
            let u = rng.uniform();
            classes.push(if u < row[0] { 0 } else { 1 + u32::from(u >= row[0] + row[1]) });
        }
        (logits, classes)
    }

    #[test]
    fn a_known_temperature_is_found_and_calibrates() {
        let (logits, classes) = honest(20_000, 1);
        for t in [0.2, 1.0, 5.0] {
            let scaled: Vec<f64> = logits.iter().map(|l| l * t).collect();
            let found = temperature(&scaled, &classes, 3);
            assert!((found / t - 1.0).abs() < 0.05, "{found} for {t}");
            let (before, after) = (scores(&scaled, &classes, 3, 1.0), scores(&scaled, &classes, 3, found));
            assert!(after.nll <= before.nll + 1e-6 && after.ece < 0.02 && after.accuracy == before.accuracy);
        }
    }

    #[test]
    fn a_few_right_samples_do_not_promise_certainty() {
        let logits = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        let t = temperature(&logits, &[0, 1, 0], 2);
        let confidence = 1.0 / (1.0 + (-1.0 / t).exp());
        // Spread 1/5: the most likely confidence is 1 − 1/10.
        assert!((confidence - 0.9).abs() < 1e-3, "{confidence}");
    }

    #[test]
    fn the_calibration_error_of_certain_and_wrong_is_one() {
        let s = scores(&[100.0, 0.0], &[1], 2, 1.0);
        assert_eq!((s.accuracy, s.ece, s.nll), (0.0, 1.0, 100.0));
    }
}
