//! A sample's probabilities and weights in few numbers.

use serde::Serialize;

/// Bars of the histogram of probabilities.
const BINS: usize = 24;

/// One bar: a range of probabilities, and the shares of the table's and of the sample's rows in it.
#[derive(Debug, Serialize)]
pub(crate) struct Bin {
    low: f64,
    high: f64,
    /// Estimated: a kept row stands for one over its probability rows of the table.
    table: f64,
    sample: f64,
}

/// Histogram of the probabilities of being kept, over equal steps of their logarithm.
pub(crate) fn probabilities(kept: &[f64]) -> Vec<Bin> {
    let smallest = kept.iter().copied().fold(1.0, f64::min);
    if kept.is_empty() || smallest >= 1.0 {
        return Vec::new();
    }
    let edge = |i: usize| smallest.powf(1.0 - i as f64 / BINS as f64);
    let mut bins: Vec<Bin> =
        (0..BINS).map(|i| Bin { low: edge(i), high: edge(i + 1), table: 0.0, sample: 0.0 }).collect();
    let all: f64 = kept.iter().map(|q| q.recip()).sum();
    for q in kept {
        let place = (1.0 - q.ln() / smallest.ln()) * BINS as f64;
        let bin = &mut bins[(place as usize).min(BINS - 1)];
        bin.table += q.recip() / all;
        bin.sample += 1.0 / kept.len() as f64;
    }
    bins
}

/// Order statistics of the weights.
#[derive(Debug, Serialize)]
pub(crate) struct Weights {
    min: f64,
    median: f64,
    p90: f64,
    max: f64,
}

/// Smallest, median, 90 % and largest weight.
pub(crate) fn weights(weights: &[f64]) -> Option<Weights> {
    let mut sorted = weights.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted.get(((sorted.len().checked_sub(1)?) as f64 * share).round() as usize).copied();
    Some(Weights { min: at(0.0)?, median: at(0.5)?, p90: at(0.9)?, max: at(1.0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_the_table_leans_to_small_probabilities() {
        let bins = probabilities(&[0.01, 0.01, 0.5, 1.0]);
        let sum = |f: fn(&Bin) -> f64| bins.iter().map(f).sum::<f64>();
        assert!((sum(|b| b.table) - 1.0).abs() < 1e-12 && (sum(|b| b.sample) - 1.0).abs() < 1e-12);
        assert!((bins[0].low - 0.01).abs() < 1e-12 && (bins[BINS - 1].high - 1.0).abs() < 1e-12);
        assert!((bins[0].table - 200.0 / 203.0).abs() < 1e-12 && bins[0].sample == 0.5);
        assert!(probabilities(&[1.0, 1.0]).is_empty());
    }

    #[test]
    fn weights_are_summed_up_by_order() {
        let w = weights(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((w.min, w.median, w.max), (1.0, 2.0, 3.0));
        assert!(weights(&[]).is_none());
    }
}
