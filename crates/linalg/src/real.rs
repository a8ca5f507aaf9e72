//! The two precisions of data and weights.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

mod sealed {
    use pulp::Simd;

    use crate::frames::{Accumulate, Combine, CombineBoth, Dots};
    use crate::simd::dispatch;

    /// Vectors of either precision, so that one kernel serves both.
    pub trait Vectors: Copy {
        type Vector<S: Simd>: Copy;

        fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;

        /// `a b + c` with one rounding.
        fn mul_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;

        /// The same of one value.
        fn fused(a: Self, b: Self, c: Self) -> Self;

        /// The kernels on frames, compiled here once and not by every crate that calls them.
        fn dots(kernel: Dots<'_, Self>);
        fn accumulate(kernel: Accumulate<'_, Self>);
        fn combine(kernel: Combine<'_, Self>);
        fn combine_both(kernel: CombineBoth<'_, Self>);
    }

    macro_rules! vectors {
        ($t:ty, $vector:ident, $splat:ident, $mul_add:ident) => {
            impl Vectors for $t {
                type Vector<S: Simd> = S::$vector;

                #[inline(always)]
                fn splat<S: Simd>(simd: S, value: Self) -> S::$vector {
                    simd.$splat(value)
                }

                #[inline(always)]
                fn mul_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                    simd.$mul_add(a, b, c)
                }

                #[inline(always)]
                fn fused(a: Self, b: Self, c: Self) -> Self {
                    a.mul_add(b, c)
                }

                fn dots(kernel: Dots<'_, Self>) {
                    dispatch(kernel);
                }

                fn accumulate(kernel: Accumulate<'_, Self>) {
                    dispatch(kernel);
                }

                fn combine(kernel: Combine<'_, Self>) {
                    dispatch(kernel);
                }

                fn combine_both(kernel: CombineBoth<'_, Self>) {
                    dispatch(kernel);
                }
            }
        };
    }

    vectors!(f32, f32s, splat_f32s, mul_add_f32s);
    vectors!(f64, f64s, splat_f64s, mul_add_f64s);
}

/// `f32` or `f64`: the storage of the kernels that exist in both ([`crate::gemm`], [`crate::frames`]).
pub trait Real:
    sealed::Vectors
    + Copy
    + Default
    + PartialEq
    + PartialOrd
    + Send
    + Sync
    + std::fmt::Debug
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::AddAssign
    + 'static
{
    /// Distance from one to the next larger number.
    const EPSILON: f64;

    /// The nearest number of this precision.
    fn from_f64(value: f64) -> Self;

    /// The same number in double precision.
    fn to_f64(self) -> f64;

    /// `out = A B` of strided matrices on the calling thread; `A` is `m x k`, `B` is `k x n`, `out` is `m x n` row-major.
    #[doc(hidden)]
    fn product(out: &mut [Self], a: Strided<'_, Self>, b: Strided<'_, Self>);

    /// `out −= A B`.
    #[doc(hidden)]
    fn subtract_product(out: &mut [Self], a: Strided<'_, Self>, b: Strided<'_, Self>);
}

/// A dense matrix with a stride per dimension.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Strided<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) n_rows: usize,
    pub(crate) n_cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a, T> Strided<'a, T> {
    fn view(self) -> MatRef<'a, T> {
        if self.col_stride == 1 {
            MatRef::from_row_major_slice_with_stride(self.values, self.n_rows, self.n_cols, self.row_stride)
        } else {
            MatRef::from_column_major_slice_with_stride(self.values, self.n_rows, self.n_cols, self.col_stride)
        }
    }
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            const EPSILON: f64 = <$t>::EPSILON as f64;

            #[inline]
            fn from_f64(value: f64) -> Self {
                value as Self
            }

            #[inline]
            fn to_f64(self) -> f64 {
                self.into()
            }

            fn product(out: &mut [Self], a: Strided<'_, Self>, b: Strided<'_, Self>) {
                let out = MatMut::from_row_major_slice_mut(out, a.n_rows, b.n_cols);
                matmul(out, Accum::Replace, a.view(), b.view(), 1.0, Par::Seq);
            }

            fn subtract_product(out: &mut [Self], a: Strided<'_, Self>, b: Strided<'_, Self>) {
                let out = MatMut::from_row_major_slice_mut(out, a.n_rows, b.n_cols);
                matmul(out, Accum::Add, a.view(), b.view(), -1.0, Par::Seq);
            }
        }
    };
}

real!(f32);
real!(f64);
