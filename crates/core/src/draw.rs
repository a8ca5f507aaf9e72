//! Random numbers that are functions of what they are for: (seed, stream name, index), never of a loop's order.
//!
//! The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key
//! is the 64-bit seed mixed with the stream's name; the counter is the 64-bit index (low words) and a draw number (high words).
//! The same row of the same table therefore draws the same number in any block, on any thread, on any machine.

use serde::{Deserialize, Serialize};
use subspan_linalg::philox::{fill_uniform, philox4x32_10, to_unit};

/// A named stream of keyed random numbers.
///
/// ```
/// use subspan::draw::Stream;
/// let rows = Stream::new(0, "rows");
/// assert_eq!(rows.uniform(17), Stream::new(0, "rows").uniform(17));
/// assert_ne!(rows.uniform(17), Stream::new(1, "rows").uniform(17));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream `name` under `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        Self { key: mix(seed ^ fnv1a(name.as_bytes())) }
    }

    /// The 128 random bits of draw number `draw` at `index`.
    pub fn bits(&self, index: u64, draw: u64) -> [u32; 4] {
        philox4x32_10(
            [index as u32, (index >> 32) as u32, draw as u32, (draw >> 32) as u32],
            [self.key as u32, (self.key >> 32) as u32],
        )
    }

    /// A number in the open interval (0, 1), a multiple of 2⁻⁵⁴: (53 random bits + ½) · 2⁻⁵³.
    pub fn uniform(&self, index: u64) -> f64 {
        let b = self.bits(index, 0);
        to_unit(b[0].into(), b[1].into())
    }

    /// [`Stream::uniform`] of the consecutive indices from `first` on.
    pub fn uniforms(&self, first: u64, out: &mut [f64]) {
        fill_uniform(self.key, first, out);
    }

    /// A sequential generator at `index`, for work that needs many numbers.
    pub fn rng(&self, index: u64) -> Rng {
        Rng { stream: *self, index, draw: 0, spare: None }
    }
}

/// A sequential generator: draw after draw of one [`Stream`] at one index.
#[derive(Debug, Clone)]
pub struct Rng {
    stream: Stream,
    index: u64,
    draw: u64,
    spare: Option<f64>,
}

impl Rng {
    fn next_bits(&mut self) -> [u32; 4] {
        let b = self.stream.bits(self.index, self.draw);
        self.draw += 1;
        b
    }

    /// The next number in (0, 1).
    pub fn uniform(&mut self) -> f64 {
        let b = self.next_bits();
        to_unit(b[0].into(), b[1].into())
    }

    /// The next standard normal number (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        if let Some(z) = self.spare.take() {
            return z;
        }
        let b = self.next_bits();
        let radius = (-2.0 * to_unit(b[0].into(), b[1].into()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * to_unit(b[2].into(), b[3].into())).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// An integer in `0..n`, unbiased up to 2⁻⁶⁴.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "an integer below zero does not exist");
        let b = self.next_bits();
        ((u128::from(u64::from(b[0]) | u64::from(b[1]) << 32) * u128::from(n)) >> 64) as u64
    }

    /// A uniformly random order of `0..n` (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64 + 1) as usize);
        }
        order
    }
}

/// The finalizer of SplitMix64: every bit of the key depends on every bit of the seed and the name.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// FNV-1a, 64 bits: a fixed, documented hash (the standard library's may change between releases).
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniforms_pass_a_chi_square_test() {
        let stream = Stream::new(7, "rows");
        let (bins, n) = (64, 64_000);
        let mut counts = vec![0f64; bins];
        for i in 0..n {
            counts[(stream.uniform(i) * bins as f64) as usize] += 1.0;
        }
        let mean = n as f64 / bins as f64;
        let chi2: f64 = counts.iter().map(|c| (c - mean).powi(2) / mean).sum();
        // 63 degrees of freedom: the 0.001 and 0.999 quantiles.
        assert!((32.5..103.4).contains(&chi2), "chi2 = {chi2}");
    }

    #[test]
    fn normals_have_the_moments_of_a_normal() {
        let mut rng = Stream::new(3, "normal").rng(0);
        let z: Vec<f64> = (0..100_000).map(|_| rng.normal()).collect();
        let moment = |k: i32| z.iter().map(|v| v.powi(k)).sum::<f64>() / z.len() as f64;
        assert!(moment(1).abs() < 0.013 && (moment(2) - 1.0).abs() < 0.018 && (moment(4) - 3.0).abs() < 0.13);
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut p = Stream::new(0, "p").rng(5).permutation(100);
        assert_ne!(p, (0..100).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..100).collect::<Vec<_>>());
    }
}
