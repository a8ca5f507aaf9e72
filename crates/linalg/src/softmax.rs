//! Probabilities from logits.

use pulp::{Simd, WithSimd};

use crate::simd::dispatch;

/// Replaces `row` by probabilities of single precision's accuracy in `out` (the softmax of `scale` times the row); returns the index
/// of the largest logit, the first of equals. On the calling thread, with the same bits for any vector width. Floor: about 20
/// instructions per vector of logits.
///
/// # Panics
/// If `out` does not hold one value per logit or there is none.
///
/// ```
/// let mut p = [0f32; 2];
/// assert_eq!(subspan_linalg::softmax(&[0.0, 3f64.ln()], 1.0, &mut p), 1);
/// assert!((p[1] - 0.75).abs() < 1e-6);
/// ```
pub fn softmax(logits: &[f64], scale: f64, out: &mut [f32]) -> usize {
    assert!(!logits.is_empty() && logits.len() == out.len(), "one probability per logit");
    dispatch(Softmax { logits, scale, out })
}

struct Softmax<'a> {
    logits: &'a [f64],
    scale: f64,
    out: &'a mut [f32],
}

/// Sums kept apart while adding along a row, on every machine.
const LANES: usize = 16;

impl WithSimd for Softmax<'_> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        let Self { logits, scale, out } = self;
        let mut maxima = [f64::NEG_INFINITY; LANES];
        let (blocks, rest) = logits.as_chunks::<LANES>();
        for block in blocks {
            for l in 0..LANES {
                maxima[l] = if block[l] > maxima[l] { block[l] } else { maxima[l] };
            }
        }
        let max = maxima.iter().chain(rest).copied().fold(f64::NEG_INFINITY, f64::max);
        let best = logits.iter().position(|l| *l == max).unwrap_or(0);
        // Differences in double precision: logits far from zero keep the digits of theirs.
        let mut sums = [0f32; LANES];
        let (outs, out_rest) = out.as_chunks_mut::<LANES>();
        for (block, out) in blocks.iter().zip(outs) {
            for l in 0..LANES {
                out[l] = exp((scale * (block[l] - max)) as f32);
                sums[l] += out[l];
            }
        }
        for (l, (logit, out)) in rest.iter().zip(out_rest).enumerate() {
            *out = exp((scale * (logit - max)) as f32);
            sums[l] += *out;
        }
        let sum: f64 = sums.iter().map(|s| f64::from(*s)).sum();
        let inverse = (1.0 / sum) as f32;
        out.iter_mut().for_each(|p| *p *= inverse);
        best
    }
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
                    let best = width.run(Softmax { logits: &logits, scale, out: &mut out });
                    assert_eq!(best, logits.iter().position(|l| *l == max).unwrap());
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
    fn the_exponential_is_good_to_two_units() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(x <= -87.0 || (found - exact).abs() <= 1.3e-7 * exact, "{x}: {found:e} {exact:e}");
        }
        assert_eq!((exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }
}
