//! Inner products of the rows of two frames.

use pulp::{Simd, WithSimd};

use super::LANES;
use crate::real::Real;

/// Bytes of a row in a segment, after which the lanes go to `f64`: that bounds the rounding of rows of any length, and eight
/// segments of rows that lie a multiple of 4 KB apart do not push each other out of a 12-way first-level cache.
const SEGMENT_BYTES: usize = 4096;

/// `out[i, j] = ⟨aᵢ, bⱼ⟩`; of a symmetric product (`b` is `a`) only tiles that reach the upper triangle.
pub struct Dots<'a, T> {
    pub(super) a: &'a [T],
    pub(super) b: &'a [T],
    pub(super) n_cols: usize,
    pub(super) symmetric: bool,
    pub(super) out: &'a mut [f64],
}

impl<T: Real> WithSimd for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, n_cols, symmetric, out } = self;
        let (ka, kb) = (a.len() / n_cols, b.len() / n_cols);
        let most = if S::REGISTER_COUNT >= 32 { 8 } else { 4 };
        out.fill(0.0);
        for from in (0..n_cols).step_by(SEGMENT_BYTES / size_of::<T>()) {
            let n = (n_cols - from).min(SEGMENT_BYTES / size_of::<T>());
            let mut i = 0;
            while i < ka {
                // The largest power of two that is left, up to the tile's height.
                let height = most.min(1 << (ka - i).ilog2());
                let mut j = if symmetric { i / 2 * 2 } else { 0 };
                while j < kb {
                    let tile = Tile {
                        simd,
                        a: a[i * n_cols + from..].as_ptr(),
                        b: b[j * n_cols + from..].as_ptr(),
                        stride: n_cols,
                        n,
                        out: &mut out[i * kb + j..],
                        out_stride: kb,
                    };
                    let width = if kb - j >= 2 { 2 } else { 1 };
                    match (height, width) {
                        (8, 2) => simd.vectorize(Sized::<S, T, 8, 2>(tile)),
                        (8, 1) => simd.vectorize(Sized::<S, T, 8, 1>(tile)),
                        (4, 2) => simd.vectorize(Sized::<S, T, 4, 2>(tile)),
                        (4, 1) => simd.vectorize(Sized::<S, T, 4, 1>(tile)),
                        (2, 2) => simd.vectorize(Sized::<S, T, 2, 2>(tile)),
                        (2, 1) => simd.vectorize(Sized::<S, T, 2, 1>(tile)),
                        (1, 2) => simd.vectorize(Sized::<S, T, 1, 2>(tile)),
                        _ => simd.vectorize(Sized::<S, T, 1, 1>(tile)),
                    }
                    j += width;
                }
                i += height;
            }
        }
    }
}

/// A segment of some rows of either side.
struct Tile<'a, S, T> {
    simd: S,
    a: *const T,
    b: *const T,
    /// From a row to the next.
    stride: usize,
    /// Columns of the segment; every row of the tile has as many.
    n: usize,
    /// Where the tile's products are added.
    out: &'a mut [f64],
    out_stride: usize,
}

/// A tile of `A` by `B` rows.
struct Sized<'a, S, T, const A: usize, const B: usize>(Tile<'a, S, T>);

impl<S: Simd, T: Real, const A: usize, const B: usize> WithSimd for Sized<'_, S, T, A, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<U: Simd>(self, _: U) {
        let Tile { simd, a, b, stride, n, out, out_stride } = self.0;
        let width = size_of::<T::Vector<S>>() / size_of::<T>();
        let whole = n / LANES * LANES;
        let mut sums = [[[T::default(); LANES]; B]; A];
        // SAFETY: `A` and `B` rows of `n` values each are readable, and a lane's slot has room for the vector at `part`.
        unsafe {
            for part in (0..LANES).step_by(width) {
                let mut acc = [[T::splat(simd, T::default()); B]; A];
                for at in (part..whole).step_by(LANES) {
                    let mut y = [T::splat(simd, T::default()); B];
                    for j in 0..B {
                        y[j] = b.add(j * stride + at).cast::<T::Vector<S>>().read_unaligned();
                    }
                    for i in 0..A {
                        let x = a.add(i * stride + at).cast::<T::Vector<S>>().read_unaligned();
                        for j in 0..B {
                            acc[i][j] = T::mul_add(simd, x, y[j], acc[i][j]);
                        }
                    }
                }
                for i in 0..A {
                    for j in 0..B {
                        sums[i][j].as_mut_ptr().add(part).cast::<T::Vector<S>>().write_unaligned(acc[i][j]);
                    }
                }
            }
            for at in whole..n {
                for i in 0..A {
                    for j in 0..B {
                        let sum = &mut sums[i][j][at - whole];
                        *sum = T::fused(*a.add(i * stride + at), *b.add(j * stride + at), *sum);
                    }
                }
            }
        }
        for i in 0..A {
            for j in 0..B {
                out[i * out_stride + j] += joined(&sums[i][j]);
            }
        }
    }
}

/// The sum of the lanes in `f64`, halves first.
#[inline(always)]
fn joined<T: Real>(lanes: &[T; LANES]) -> f64 {
    let mut eight = [0.0; 8];
    for l in 0..8 {
        eight[l] = lanes[l].to_f64() + lanes[l + 8].to_f64();
    }
    crate::simd::join_lanes(&eight)
}
