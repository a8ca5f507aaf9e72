//! Probabilities from logits.

use pulp::{Simd, WithSimd};

use crate::simd::dispatch;

/// The softmax of `scale` times every row of `n_classes` logits, to single precision, in `out`, and the index of every row's largest
/// logit, the first of equals, in `best`. On the calling thread, with the same bits for any vector width. Floor: about 30 instructions
/// per vector of logits.
///
/// # Panics
/// If `logits` does not hold whole rows, or `out` not one value per logit, or `best` not one per row.
///
/// ```
/// let (mut p, mut best) = ([0f32; 2], [0]);
/// subspan_linalg::softmax(&[0.0, 3f64.ln()], 2, 1.0, &mut p, &mut best);
/// assert!(best == [1] && (p[1] - 0.75).abs() < 1e-6);
/// ```
pub fn softmax(logits: &[f64], n_classes: usize, scale: f64, out: &mut [f32], best: &mut [u32]) {
    assert!(n_classes > 0 && logits.len() == best.len() * n_classes, "whole rows");
    assert_eq!(logits.len(), out.len(), "one probability per logit");
    dispatch(Softmax { logits, n_classes, scale, out, best });
}

struct Softmax<'a> {
    logits: &'a [f64],
    n_classes: usize,
    scale: f64,
    out: &'a mut [f32],
    best: &'a mut [u32],
}

/// Logits that are worked on together, on every machine.
const LANES: usize = 16;

impl WithSimd for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.logits.chunks_exact(self.n_classes).zip(self.out.chunks_exact_mut(self.n_classes));
        for ((logits, out), best) in rows.zip(self.best) {
            *best = one(logits, self.scale, out);
        }
    }
}

/// One row's softmax and the index of its largest logit.
#[inline(always)]
fn one(logits: &[f64], scale: f64, out: &mut [f32]) -> u32 {
    let (blocks, rest) = logits.as_chunks::<LANES>();
    // A whole vector at the end, too: no share for what is not there.
    let mut tail = [f64::NEG_INFINITY; LANES];
    tail.iter_mut().zip(rest).for_each(|(t, l)| *t = *l);
    let mut maxima = tail;
    for block in blocks {
        for l in 0..LANES {
            maxima[l] = if block[l] > maxima[l] { block[l] } else { maxima[l] };
        }
    }
    let max = maxima.iter().fold(f64::NEG_INFINITY, |max, l| if *l > max { *l } else { max });
    // Whole blocks at a time: a comparison of every single logit would take as long as the exponentials.
    let missed = blocks.iter().take_while(|block| !block.iter().fold(false, |hit, l| hit | (*l == max))).count();
    let best = logits[missed * LANES..].iter().position(|l| *l == max).map_or(0, |i| missed * LANES + i);
    let mut sums = shares(&tail, max, scale);
    let (outs, out_rest) = out.as_chunks_mut::<LANES>();
    out_rest.iter_mut().zip(&sums).for_each(|(o, s)| *o = *s);
    for (block, out) in blocks.iter().zip(outs) {
        *out = shares(block, max, scale);
        for l in 0..LANES {
            sums[l] += out[l];
        }
    }
    let sum: f64 = sums.iter().map(|s| f64::from(*s)).sum();
    let inverse = (1.0 / sum) as f32;
    out.iter_mut().for_each(|p| *p *= inverse);
    best as u32
}

/// `exp(scale (l − max))` of a block.
#[inline(always)]
fn shares(block: &[f64; LANES], max: f64, scale: f64) -> [f32; LANES] {
    let mut shares = [0f32; LANES];
    // Differences in double precision: logits far from zero keep the digits of theirs.
    for l in 0..LANES {
        shares[l] = (scale * (block[l] - max)) as f32;
    }
    // A loop of its own: together with the one above, vectors would be as short as double precision makes them.
    for share in &mut shares {
        *share = exp(*share);
    }
    shares
}

/// `eˣ` for `x <= 0` to two units in the last place; zero below -87 (where single precision loses digits).
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Below, results would be subnormal.
    const LOWEST: f32 = -87.0;
    /// `ln 2` in two parts: multiples up to 126 of the first are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// Adding it rounds to a whole number, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// Taylor's; with `|r| <= ln 2 / 2` the next term is below 2⁻²⁷.
    const TERMS: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let clamped = if x > LOWEST { x } else { LOWEST };
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let r = whole.mul_add(-LN_2[1], whole.mul_add(-LN_2[0], clamped));
    let mut y = TERMS[0];
    for term in &TERMS[1..] {
        y = y.mul_add(r, *term);
    }
    // The power of two goes into the exponent's bits.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    if x > LOWEST { y * power } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::test::{for_each_width, noise};

    #[test]
    fn every_width_gives_the_definition_and_the_same_bits() {
        for n in [1, 2, 15, 16, 17, 100, 1000] {
            for (size, scale) in [(1.0, 1.0), (30.0, 2.5), (1e4, 1.0), (0.0, 1.0)] {
                let logits: Vec<f64> = noise(n, 5).iter().map(|v| 1e3 + v * size).collect();
                let max = logits.iter().copied().fold(f64::MIN, f64::max);
                let exact: Vec<f64> = logits.iter().map(|l| (scale * (l - max)).exp()).collect();
                let total: f64 = exact.iter().sum();
                let mut first = None;
                for_each_width(|name, width| {
                    let mut out = vec![0f32; n];
                    let mut best = [0];
                    width.run(Softmax { logits: &logits, n_classes: n, scale, out: &mut out, best: &mut best });
                    assert_eq!(best[0] as usize, logits.iter().position(|l| *l == max).unwrap());
                    for (p, e) in out.iter().zip(&exact) {
                        let (p, e) = (f64::from(*p), e / total);
                        assert!(
                            (p - e).abs() <= 2e-7 + 5e-7 * e && (p - e).abs() <= 1e-5 * e + 1e-37,
                            "{name} {n}: {p:e} {e:e}"
                        );
                    }
                    assert!(first.get_or_insert_with(|| out.clone()) == &out, "{name}, n = {n}");
                });
            }
        }
    }

    #[test]
    fn the_first_of_equals_is_the_largest() {
        let mut logits = vec![0.0; 3 * 40];
        logits[5] = 2.0;
        logits[33] = 2.0;
        logits[40 + 39] = 1.0;
        let (mut out, mut best) = (vec![0f32; 3 * 40], [9; 3]);
        softmax(&logits, 40, 1.0, &mut out, &mut best);
        assert_eq!(best, [5, 39, 0]);
        assert!(out[80..].iter().all(|p| (p - 0.025).abs() < 1e-7));
    }

    #[test]
    fn the_exponential_is_good_to_two_units() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(x <= -87.0 || (found - exact).abs() <= 1.3e-7 * exact, "{x}: {found:e} {exact:e}");
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }
}
