//! From scores to probabilities: `q = min(1, floor + max(scale · score, guard))`, and the scale that makes them add up to a
//! target number of rows.
//!
//! A streaming pass cannot keep every score, so it keeps a [`ScoreHistogram`]; rows already in memory are solved exactly by
//! [`solve_scale`]. Both search the same increasing function of the scale.

use serde::{Deserialize, Serialize};

/// How a score becomes a probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Inclusion {
    /// Multiplies the score; infinite to keep every row with a positive score.
    pub(crate) scale: f64,
    /// Added to every probability (the paper's literal rule), else zero.
    pub(crate) floor: f64,
    /// Multiplies the leverage: keeps the sample's rank when it is small (rank guard).
    pub(crate) guard: f64,
}

impl Inclusion {
    /// The probability of a row. A row without score and leverage is all zero and is never drawn.
    pub(crate) fn probability(&self, score: f64, leverage: f64) -> f64 {
        if !(score > 0.0 || leverage > 0.0) {
            return 0.0;
        }
        // 0 · ∞ can only arise for a zero score, which max() then ignores.
        (self.floor + (self.scale * score).max(self.guard * leverage)).min(1.0)
    }
}

/// The scale at which the probabilities of all rows add up to `target`, exact to rounding.
///
/// Zero if guard and floor alone reach the target, infinite if there are no more than `target` rows to keep.
pub(crate) fn solve_scale(scores: &[f64], leverages: &[f64], floor: f64, guard: f64, target: f64) -> f64 {
    let drawable = scores.iter().zip(leverages).filter(|(s, t)| **s > 0.0 || **t > 0.0).count();
    if drawable as f64 <= target {
        return f64::INFINITY;
    }
    search(target, |scale| {
        let inclusion = Inclusion { scale, floor, guard };
        scores.iter().zip(leverages).map(|(s, t)| inclusion.probability(*s, *t)).sum()
    })
}

/// The zero of `expected(scale) − target` for an increasing, continuous `expected`, by bisection over the bits of the scale:
/// 64 steps end at neighbouring floating-point numbers whatever the magnitude.
fn search(target: f64, expected: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0u64, f64::MAX.to_bits());
    if expected(0.0) >= target {
        return 0.0;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if expected(f64::from_bits(middle)) < target {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::from_bits(high)
}

/// What a pass remembers of all scores: enough to find the scale to about one part in ten thousand.
///
/// With score `s` and guard `h < 1 − floor` of a row, `Σ min(1, floor + max(c s, h))` splits into two sums over
/// one-dimensional keys: `Σ floor + min(c s, 1 − floor)`, whose rows change sides at `c = (1 − floor)/s`, and
/// `Σ max(h − c s, 0)`, whose rows change sides at `c = h/s`. Each is summed per bin of its key (64 bins per octave); only the one bin that holds the crossing is
/// approximate, and its error is second order in the bin's width.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ScoreHistogram {
    floor: f64,
    guard: f64,
    /// No scale below this is asked for.
    least: f64,
    /// Rows that guard and floor alone make certain.
    certain: u64,
    /// All other rows with a positive score or leverage.
    drawable: u64,
    /// Sum of the scores of all rows.
    score_sum: f64,
    /// Keyed by `h/s`: (Σ h, Σ s).
    by_guard: Bins,
    /// Keyed by `s`: (rows, Σ s).
    by_score: Bins,
}

impl ScoreHistogram {
    pub(crate) fn new(floor: f64, guard: f64) -> Self {
        Self { floor, guard, ..Self::default() }
    }

    /// Promises that the scale will not be below `least`: rows whose guard cannot matter then cost less to add.
    pub(crate) fn skipping_below(mut self, least: f64) -> Self {
        self.least = least;
        self
    }

    /// Adds one row.
    #[inline]
    pub(crate) fn add(&mut self, score: f64, leverage: f64) {
        if !(score > 0.0 || leverage > 0.0) {
            return;
        }
        self.score_sum += score;
        let guard = self.guard * leverage;
        if self.floor + guard >= 1.0 {
            self.certain += 1;
            return;
        }
        self.drawable += 1;
        if guard > self.least * score {
            self.by_guard.add(guard / score.max(f64::MIN_POSITIVE), [guard, score]);
        }
        self.by_score.add(score, [1.0, score]);
    }

    /// Adds another histogram of the same floor and guard.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.certain += other.certain;
        self.drawable += other.drawable;
        self.score_sum += other.score_sum;
        self.by_guard.merge(&other.by_guard);
        self.by_score.merge(&other.by_score);
    }

    /// Rows that can be drawn at all.
    pub(crate) fn rows(&self) -> u64 {
        self.certain + self.drawable
    }

    /// Sum of all scores.
    pub(crate) fn score_sum(&self) -> f64 {
        self.score_sum
    }

    /// Sum of the probabilities at `scale`.
    pub(crate) fn expected(&self, scale: f64) -> f64 {
        if scale == f64::INFINITY {
            return self.rows() as f64;
        }
        let room = 1.0 - self.floor;
        let scored: f64 = self.by_score.iter().map(|[rows, score]| (scale * score).min(room * rows)).sum();
        let guarded: f64 = self.by_guard.iter().map(|[guard, score]| (guard - scale * score).max(0.0)).sum();
        self.certain as f64 + self.floor * self.drawable as f64 + scored + guarded
    }

    /// The scale at which the probabilities add up to `target`; like [`solve_scale`].
    pub(crate) fn solve(&self, target: f64) -> f64 {
        if self.rows() as f64 <= target { f64::INFINITY } else { search(target, |scale| self.expected(scale)) }
    }
}

/// Pairs of sums per bin of a non-negative key: exponent and six leading mantissa bits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Bins {
    first: u32,
    sums: Vec<[f64; 2]>,
}

impl Bins {
    fn bin(key: f64) -> u32 {
        (key.to_bits() >> 46) as u32
    }

    #[inline]
    fn add(&mut self, key: f64, values: [f64; 2]) {
        let bin = Self::bin(key);
        // Wraps around to a large number for a bin below the first.
        match self.sums.get_mut(bin.wrapping_sub(self.first) as usize) {
            Some(sums) => {
                sums[0] += values[0];
                sums[1] += values[1];
            }
            None => self.add_to(bin, values),
        }
    }

    fn add_to(&mut self, bin: u32, values: [f64; 2]) {
        if self.sums.is_empty() {
            self.first = bin;
        } else if bin < self.first {
            let more = (self.first - bin) as usize;
            self.sums.splice(0..0, std::iter::repeat_n([0.0; 2], more));
            self.first = bin;
        }
        let k = (bin - self.first) as usize;
        if k >= self.sums.len() {
            self.sums.resize(k + 1, [0.0; 2]);
        }
        self.sums[k][0] += values[0];
        self.sums[k][1] += values[1];
    }

    fn merge(&mut self, other: &Self) {
        for (k, sums) in other.sums.iter().enumerate() {
            if *sums != [0.0; 2] {
                self.add_to(other.first + k as u32, *sums);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = [f64; 2]> + '_ {
        self.sums.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::draw::Stream;

    fn heavy_scores(n: usize, seed: u64) -> (Vec<f64>, Vec<f64>) {
        let mut rng = Stream::new(seed, "scores").rng(0);
        let scores: Vec<f64> = (0..n).map(|_| rng.uniform().powf(-1.2) / n as f64).collect();
        let leverages = scores.iter().map(|s| s * s * rng.uniform()).collect();
        (scores, leverages)
    }

    proptest! {
        #[test]
        fn probabilities_add_up_to_the_target(seed in 0u64..1000, target in 20.0..900.0f64, guard in 0.0..20.0f64) {
            let (s, t) = heavy_scores(1000, seed);
            let scale = solve_scale(&s, &t, 0.0, guard, target);
            let inclusion = Inclusion { scale, floor: 0.0, guard };
            let sum: f64 = s.iter().zip(&t).map(|(s, t)| inclusion.probability(*s, *t)).sum();
            if scale > 0.0 {
                prop_assert!((sum / target - 1.0).abs() < 1e-9, "{sum} for {target}");
            } else {
                prop_assert!(sum >= target);
            }
        }

        #[test]
        fn the_histogram_finds_the_same_scale(seed in 0u64..1000, target in 20.0..900.0f64, guard in 0.0..20.0f64) {
            let (s, t) = heavy_scores(1000, seed);
            let mut whole = ScoreHistogram::new(0.0, guard);
            let mut half = ScoreHistogram::new(0.0, guard);
            for (k, (s, t)) in s.iter().zip(&t).enumerate() {
                if k < 500 { whole.add(*s, *t) } else { half.add(*s, *t) }
            }
            whole.merge(&half);
            let scale = whole.solve(target);
            let inclusion = Inclusion { scale, floor: 0.0, guard };
            let sum: f64 = s.iter().zip(&t).map(|(s, t)| inclusion.probability(*s, *t)).sum();
            prop_assert!(scale == 0.0 || (sum / target - 1.0).abs() < 2e-3, "{sum} for {target}");
        }

        #[test]
        fn more_rows_never_get_a_smaller_scale(seed in 0u64..1000, target in 20.0..800.0f64) {
            let (s, t) = heavy_scores(1000, seed);
            prop_assert!(solve_scale(&s, &t, 0.0, 1.0, target) <= solve_scale(&s, &t, 0.0, 1.0, target + 10.0));
        }
    }

    #[test]
    fn a_dominant_row_is_certain_and_the_rest_share_what_is_left() {
        let scores = [1e9, 1.0, 1.0, 1.0, 1.0];
        let scale = solve_scale(&scores, &[0.0; 5], 0.0, 0.0, 3.0);
        let q = |s| Inclusion { scale, floor: 0.0, guard: 0.0 }.probability(s, 0.0);
        assert_eq!(q(1e9), 1.0);
        assert!((q(1.0) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_target_beyond_the_rows_keeps_them_all_but_never_a_zero_row() {
        let scale = solve_scale(&[0.5, 0.0, 1e-300], &[0.0; 3], 0.0, 0.0, 2.0);
        let inclusion = Inclusion { scale, floor: 0.0, guard: 0.0 };
        assert_eq!(inclusion.probability(1e-300, 0.0), 1.0);
        assert_eq!(inclusion.probability(0.0, 0.0), 0.0);
    }
}
