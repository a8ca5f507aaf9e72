//! Linear combinations of rows, in place.

use pulp::{Simd, WithSimd};

use crate::real::Real;
use crate::simd::prefetch;

/// Columns of a strip whose old rows are set aside while the new ones are made: 16 KB for 32 rows of `f32`.
const STRIP: usize = 128;

/// Rows of a tile: with two vectors of columns they and their operands fit the registers.
#[inline(always)]
fn most_rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 8 } else { 4 }
}

/// `sums ← scale·sums + values`.
pub struct Accumulate<'a, T> {
    pub(super) sums: &'a mut [T],
    pub(super) scale: T,
    pub(super) values: &'a [T],
    pub(super) ahead: &'a [T],
}

impl<T: Real> WithSimd for Accumulate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        /// A cache line.
        const LINE_BYTES: usize = 64;
        let Self { sums, scale, values, ahead } = self;
        let width = size_of::<T::Vector<S>>() / size_of::<T>();
        let line = (LINE_BYTES / size_of::<T>()).max(width);
        let factor = T::splat(simd, scale);
        let mut lines = sums.chunks_exact_mut(line);
        let mut at = 0;
        for sums in &mut lines {
            prefetch(ahead[at..].as_ptr().cast());
            for from in (0..line).step_by(width) {
                // SAFETY: `from + width <= line`, and all three slices hold the line at `at`.
                unsafe {
                    let to = sums.as_mut_ptr().add(from).cast::<T::Vector<S>>();
                    let add = values[at..].as_ptr().add(from).cast::<T::Vector<S>>();
                    to.write_unaligned(T::mul_add(simd, factor, to.read_unaligned(), add.read_unaligned()));
                }
            }
            at += line;
        }
        for (sum, value) in lines.into_remainder().iter_mut().zip(&values[at..]) {
            *sum = T::fused(scale, *sum, *value);
        }
    }
}

/// `rows ← P·rows + Q·others`; the coefficients are transposed.
pub struct Combine<'a, T> {
    pub(super) rows: &'a mut [T],
    pub(super) p: &'a [T],
    pub(super) others: &'a [T],
    pub(super) q: &'a [T],
    pub(super) n_cols: usize,
    pub(super) k: usize,
}

impl<T: Real> WithSimd for Combine<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, p, others, q, n_cols, k } = self;
        let other = Operand { coefficients: q, rows: others.as_ptr(), stride: n_cols };
        if k <= most_rows::<S>() && k.is_power_of_two() {
            // One tile holds all new rows of its columns before it stores them: nothing needs to be set aside.
            let out = rows.as_mut_ptr();
            let own = Operand { coefficients: p, rows: out.cast_const(), stride: n_cols };
            // SAFETY: both operands have `k` rows of `n_cols` values, and so has the target.
            unsafe { combine(simd, k, n_cols, [own, other], out, n_cols) };
            return;
        }
        let mut old = vec![T::default(); k * STRIP];
        for from in (0..n_cols).step_by(STRIP) {
            let n = STRIP.min(n_cols - from);
            set_aside(rows, n_cols, from, n, &mut old);
            let own = Operand { coefficients: p, rows: old.as_ptr(), stride: STRIP };
            let other = Operand { rows: others[from..].as_ptr(), ..other };
            // SAFETY: the strip has `k` rows of `STRIP` values; `n` columns from `from` on are in every row of the others.
            unsafe { combine(simd, k, n, [own, other], rows[from..].as_mut_ptr(), n_cols) };
        }
    }
}

/// `rows ← P·rows + Q·others` and `others ← R·rows + S·others`; the coefficients are transposed.
pub struct CombineBoth<'a, T> {
    pub(super) rows: &'a mut [T],
    pub(super) others: &'a mut [T],
    pub(super) n_cols: usize,
    pub(super) k: usize,
    pub(super) p: &'a [T],
    pub(super) q: &'a [T],
    pub(super) r: &'a [T],
    pub(super) s: &'a [T],
}

impl<T: Real> WithSimd for CombineBoth<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, others, n_cols, k, p, q, r, s } = self;
        let mut old = vec![T::default(); 2 * k * STRIP];
        let (own, other) = old.split_at_mut(k * STRIP);
        for from in (0..n_cols).step_by(STRIP) {
            let n = STRIP.min(n_cols - from);
            set_aside(rows, n_cols, from, n, own);
            set_aside(others, n_cols, from, n, other);
            let operands = |a, b| {
                [
                    Operand { coefficients: a, rows: own.as_ptr(), stride: STRIP },
                    Operand { coefficients: b, rows: other.as_ptr(), stride: STRIP },
                ]
            };
            // SAFETY: the strips have `k` rows of `STRIP` values; `n` columns from `from` on are in every row of the targets.
            unsafe {
                combine(simd, k, n, operands(p, q), rows[from..].as_mut_ptr(), n_cols);
                combine(simd, k, n, operands(r, s), others[from..].as_mut_ptr(), n_cols);
            }
        }
    }
}

/// Copies `n` columns from `from` on.
#[inline(always)]
fn set_aside<T: Real>(rows: &[T], n_cols: usize, from: usize, n: usize, strip: &mut [T]) {
    for (strip, row) in strip.chunks_exact_mut(STRIP).zip(rows.chunks_exact(n_cols)) {
        strip[..n].copy_from_slice(&row[from..from + n]);
    }
}

/// Rows to be combined, with their coefficients (for each row those of all results).
#[derive(Clone, Copy)]
struct Operand<'a, T> {
    coefficients: &'a [T],
    rows: *const T,
    /// From a row to the next.
    stride: usize,
}

/// `k` new rows of `n` columns at `out`.
///
/// # Safety
/// Both operands have `k` rows of `n` values, `out` has `k` rows `out_stride` apart of as many, which are no operand's unless one
/// tile makes all `k` of them.
#[inline(always)]
unsafe fn combine<S: Simd, T: Real>(
    simd: S,
    k: usize,
    n: usize,
    operands: [Operand<'_, T>; 2],
    out: *mut T,
    out_stride: usize,
) {
    let mut i = 0;
    while i < k {
        let height = most_rows::<S>().min(1 << (k - i).ilog2());
        let tile = Tile { simd, first: i, k, n, operands, out: out.wrapping_add(i * out_stride), out_stride };
        match height {
            8 => simd.vectorize(Sized::<S, T, 8>(tile)),
            4 => simd.vectorize(Sized::<S, T, 4>(tile)),
            2 => simd.vectorize(Sized::<S, T, 2>(tile)),
            _ => simd.vectorize(Sized::<S, T, 1>(tile)),
        }
        i += height;
    }
}

/// Some of the new rows, from `first` on; see [`combine`].
struct Tile<'a, S, T> {
    simd: S,
    first: usize,
    k: usize,
    n: usize,
    operands: [Operand<'a, T>; 2],
    out: *mut T,
    out_stride: usize,
}

/// `ROWS` of them.
struct Sized<'a, S, T, const ROWS: usize>(Tile<'a, S, T>);

impl<S: Simd, T: Real, const ROWS: usize> WithSimd for Sized<'_, S, T, ROWS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<U: Simd>(self, _: U) {
        let tile = self.0;
        let width = size_of::<T::Vector<S>>() / size_of::<T>();
        let mut at = 0;
        // SAFETY: the columns are inside `n`; the rest is the promise of `combine`.
        unsafe {
            while at + 2 * width <= tile.n {
                columns::<S, T, ROWS, 2>(&tile, at);
                at += 2 * width;
            }
            while at + width <= tile.n {
                columns::<S, T, ROWS, 1>(&tile, at);
                at += width;
            }
            while at < tile.n {
                column::<S, T, ROWS>(&tile, at);
                at += 1;
            }
        }
    }
}

/// `VECTORS` vectors of columns from `at` on.
///
/// # Safety
/// They are inside the tile.
#[inline(always)]
unsafe fn columns<S: Simd, T: Real, const ROWS: usize, const VECTORS: usize>(tile: &Tile<'_, S, T>, at: usize) {
    let (simd, width) = (tile.simd, size_of::<T::Vector<S>>() / size_of::<T>());
    let mut acc = [[T::splat(simd, T::default()); VECTORS]; ROWS];
    // SAFETY: the caller's promise; there are `k` coefficients per operand row, `first + ROWS <= k`.
    unsafe {
        for operand in &tile.operands {
            let mut row = operand.rows.add(at);
            let mut coefficients = operand.coefficients.as_ptr().add(tile.first);
            for _ in 0..tile.k {
                let mut x = [T::splat(simd, T::default()); VECTORS];
                for v in 0..VECTORS {
                    x[v] = row.add(v * width).cast::<T::Vector<S>>().read_unaligned();
                }
                for i in 0..ROWS {
                    let c = T::splat(simd, *coefficients.add(i));
                    for v in 0..VECTORS {
                        acc[i][v] = T::mul_add(simd, c, x[v], acc[i][v]);
                    }
                }
                row = row.wrapping_add(operand.stride);
                coefficients = coefficients.wrapping_add(tile.k);
            }
        }
        for i in 0..ROWS {
            for v in 0..VECTORS {
                tile.out.add(i * tile.out_stride + at + v * width).cast::<T::Vector<S>>().write_unaligned(acc[i][v]);
            }
        }
    }
}

/// One column.
///
/// # Safety
/// It is inside the tile.
#[inline(always)]
unsafe fn column<S: Simd, T: Real, const ROWS: usize>(tile: &Tile<'_, S, T>, at: usize) {
    let mut acc = [T::default(); ROWS];
    // SAFETY: as in `columns`.
    unsafe {
        for operand in &tile.operands {
            for j in 0..tile.k {
                let x = *operand.rows.add(j * operand.stride + at);
                for i in 0..ROWS {
                    acc[i] = T::fused(operand.coefficients[j * tile.k + tile.first + i], x, acc[i]);
                }
            }
        }
        for i in 0..ROWS {
            *tile.out.add(i * tile.out_stride + at) = acc[i];
        }
    }
}
