//! Products of small square matrices in `f64`.

use pulp::{Simd, WithSimd};

use crate::simd::dispatch;

/// `out = s A B + c I` for small row-major matrices of side `k`; added up in the order of `A`'s columns by fused multiply-add.
///
/// # Panics
/// If a slice does not hold `k²` values.
///
/// ```
/// let mut out = [0.0; 4];
/// subspan_linalg::frames::small_mul(&[1.0, 2.0, 3.0, 4.0], &[0.0, 1.0, 1.0, 0.0], 2, [2.0, 10.0], &mut out);
/// assert_eq!(out, [14.0, 2.0, 8.0, 16.0]);
/// ```
pub fn small_mul(a: &[f64], b: &[f64], k: usize, [s, c]: [f64; 2], out: &mut [f64]) {
    assert!([a.len(), b.len(), out.len()].iter().all(|n| *n == k * k), "square matrices of side {k}");
    dispatch(SmallMul { a, b, k, s, c, out });
}

struct SmallMul<'a> {
    a: &'a [f64],
    b: &'a [f64],
    k: usize,
    s: f64,
    c: f64,
    out: &'a mut [f64],
}

impl WithSimd for SmallMul<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match self.k {
            1 => self.sized::<1>(),
            2 => self.sized::<2>(),
            4 => self.sized::<4>(),
            8 => self.sized::<8>(),
            16 => self.sized::<16>(),
            32 => self.sized::<32>(),
            _ => self.any(),
        }
    }
}

impl SmallMul<'_> {
    /// A side that is known: the row of the result stays in registers.
    #[inline(always)]
    fn sized<const K: usize>(self) {
        let (b, _) = self.b.as_chunks::<K>();
        let (out, _) = self.out.as_chunks_mut::<K>();
        for (i, (out, a)) in out.iter_mut().zip(self.a.as_chunks::<K>().0).enumerate() {
            let mut sum = [0.0; K];
            for l in 0..K {
                for j in 0..K {
                    sum[j] = a[l].mul_add(b[l][j], sum[j]);
                }
            }
            for j in 0..K {
                out[j] = self.s * sum[j];
            }
            out[i] += self.c;
        }
    }

    #[inline(always)]
    fn any(self) {
        let k = self.k;
        for (i, (out, a)) in self.out.chunks_exact_mut(k).zip(self.a.chunks_exact(k)).enumerate() {
            out.fill(0.0);
            for (a, b) in a.iter().zip(self.b.chunks_exact(k)) {
                out.iter_mut().zip(b).for_each(|(sum, b)| *sum = a.mul_add(*b, *sum));
            }
            out.iter_mut().for_each(|sum| *sum *= self.s);
            out[i] += self.c;
        }
    }
}
