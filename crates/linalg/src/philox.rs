//! The counter-based generator Philox4x32-10, one block at a time or vectorized over consecutive counters.
//!
//! Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

use pulp::{Simd, WithSimd};

use crate::simd::dispatch;

const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;
const LOW: u64 = 0xFFFF_FFFF;

/// The 128 random bits of one counter under one key.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    block(counter.map(|c| [u64::from(c)]), key).map(|c| c[0] as u32)
}

/// `out[i]` is a number in the open interval (0, 1): (53 bits of the block with counter `first + i` and key `key`, + ½) · 2⁻⁵³.
///
/// Floor: about 10 integer operations per round and number, eight numbers at a time with AVX-512.
pub fn fill_uniform(key: u64, first: u64, out: &mut [f64]) {
    dispatch(FillUniform { key, first, out });
}

struct FillUniform<'a> {
    key: u64,
    first: u64,
    out: &'a mut [f64],
}

/// Counters worked on side by side: plain loops over arrays of this length become vector instructions.
const LANES: usize = 16;

impl WithSimd for FillUniform<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let key = [self.key as u32, (self.key >> 32) as u32];
        for (k, out) in self.out.chunks_mut(LANES).enumerate() {
            let mut counter = [[0u64; LANES]; 4];
            for lane in 0..LANES {
                let index = self.first.wrapping_add((k * LANES + lane) as u64);
                counter[0][lane] = index & LOW;
                counter[1][lane] = index >> 32;
            }
            let words = block(counter, key);
            let mut uniform = [0.0; LANES];
            for lane in 0..LANES {
                uniform[lane] = to_unit(words[0][lane], words[1][lane]);
            }
            out.copy_from_slice(&uniform[..out.len()]);
        }
    }
}

/// The number in (0, 1) made of a block's first two words.
#[inline(always)]
pub fn to_unit(low: u64, high: u64) -> f64 {
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    (((low | high << 32) >> 11) as f64 + 0.5) * UNIT
}

/// `N` blocks side by side, word by word; words are held in 64 bits each, so that a product is one multiplication.
#[inline(always)]
fn block<const N: usize>(mut c: [[u64; N]; 4], key: [u32; 2]) -> [[u64; N]; 4] {
    let mut k = key;
    for round in 0..ROUNDS {
        if round > 0 {
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        }
        for i in 0..N {
            let p0 = (c[0][i] & LOW) * MULTIPLIERS[0];
            let p1 = (c[2][i] & LOW) * MULTIPLIERS[1];
            c[0][i] = (p1 >> 32) ^ c[1][i] ^ u64::from(k[0]);
            c[1][i] = p1 & LOW;
            c[2][i] = (p0 >> 32) ^ c[3][i] ^ u64::from(k[1]);
            c[3][i] = p0 & LOW;
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution.
    #[test]
    fn the_published_vectors() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
        assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]);
        assert_eq!(
            philox4x32_10([0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344], [0xA409_3822, 0x299F_31D0]),
            [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]
        );
    }

    #[test]
    fn many_numbers_are_the_single_ones() {
        let key = 0x0123_4567_89AB_CDEF;
        for n in [0, 1, 15, 16, 17, 100] {
            let first = u64::from(u32::MAX) - 5;
            let mut out = vec![0.0; n];
            fill_uniform(key, first, &mut out);
            for (i, u) in out.iter().enumerate() {
                let index = first + i as u64;
                let b = philox4x32_10([index as u32, (index >> 32) as u32, 0, 0], [key as u32, (key >> 32) as u32]);
                assert_eq!(*u, to_unit(b[0].into(), b[1].into()));
            }
        }
    }
}
