//! Products of tall row-major matrices in either precision, in parallel over fixed blocks of the result's rows.
//!
//! Each block is one sequential product (faer), so the bits do not depend on the number of threads. Floor: `2 m n k` flop.

use rayon::prelude::*;

use crate::mixed;
use crate::real::{Real, Strided};

/// Rows of the result per task: enough work to amortize packing, few enough to feed every thread.
const BLOCK_ROWS: usize = 64;

/// Fewest and most rows of the result per task where the second operand is packed once per task: tasks of large problems are large.
const TASK_ROWS: std::ops::RangeInclusive<usize> = 64..=512;
/// Enough to feed the cores of one machine.
const MOST_TASKS: usize = 16;

/// Rows per task of a result of `n` rows.
fn task_rows(n: usize) -> usize {
    n.div_ceil(MOST_TASKS).clamp(*TASK_ROWS.start(), *TASK_ROWS.end())
}

/// `out = X Wᵀ`: every row of `x` against every row of `w`, both of `n_cols` values; `out` has one row per row of `x`.
///
/// # Panics
/// If the slices do not hold whole rows, or `out` has the wrong size.
///
/// ```
/// let mut out = [0f32; 2];
/// subspan_linalg::gemm::mul_transposed(&[1.0, 2.0], &[3.0, 4.0, 1.0, -1.0], 2, &mut out);
/// assert_eq!(out, [11.0, -1.0]);
/// ```
pub fn mul_transposed<T: Real>(x: &[T], w: &[T], n_cols: usize, out: &mut [T]) {
    assert!(n_cols > 0 && x.len().is_multiple_of(n_cols) && w.len().is_multiple_of(n_cols), "whole rows");
    let (n, m) = (x.len() / n_cols, w.len() / n_cols);
    assert_eq!(out.len(), n * m, "one value per pair of rows");
    if out.is_empty() {
        return;
    }
    let wt = Strided { values: w, n_rows: n_cols, n_cols: m, row_stride: 1, col_stride: n_cols };
    let rows = task_rows(n);
    out.par_chunks_mut(rows * m).zip(x.par_chunks(rows * n_cols)).for_each(|(out, x)| {
        let x = Strided { values: x, n_rows: x.len() / n_cols, n_cols, row_stride: n_cols, col_stride: 1 };
        T::product(out, x, wt);
    });
}

/// Products of at most so many terms, and those of a single row, take other paths in faer, which round differently.
const SMALL: usize = 16 * 16 * 16;

/// [`mul_transposed`] as one product on the calling thread: for callers that are tasks themselves, `w` is packed once for all rows of `x`.
/// The bits of a row of the result do not depend on the other rows of `x`, nor on how many there are: small products are padded.
///
/// # Panics
/// As [`mul_transposed`].
pub fn mul_transposed_here<T: Real>(x: &[T], w: &[T], n_cols: usize, out: &mut [T]) {
    assert!(n_cols > 0 && x.len().is_multiple_of(n_cols) && w.len().is_multiple_of(n_cols), "whole rows");
    let (n, m) = (x.len() / n_cols, w.len() / n_cols);
    assert_eq!(out.len(), n * m, "one value per pair of rows");
    if out.is_empty() {
        return;
    }
    let wt = Strided { values: w, n_rows: n_cols, n_cols: m, row_stride: 1, col_stride: n_cols };
    let of = |x, n_rows| Strided { values: x, n_rows, n_cols, row_stride: n_cols, col_stride: 1 };
    let least = SMALL / w.len() + 2;
    if n >= least {
        return T::product(out, of(x, n), wt);
    }
    let mut padded = x.to_vec();
    padded.resize(least * n_cols, T::default());
    let mut all = vec![T::default(); least * m];
    T::product(&mut all, of(&padded, least), wt);
    out.copy_from_slice(&all[..n * m]);
}

/// `out = Hᵀ X`: rows of `x` (`n x n_cols`) added up with the coefficients in the columns of `h` (`n x m`); `out` is `m x n_cols`.
///
/// # Panics
/// If the slices do not hold the same number of whole rows, or `out` has the wrong size.
///
/// ```
/// let mut out = [0f64; 2];
/// subspan_linalg::gemm::transposed_mul(&[2.0, 1.0], 1, &[1.0, 2.0, 3.0, 4.0], 2, &mut out);
/// assert_eq!(out, [5.0, 8.0]);
/// ```
pub fn transposed_mul<T: Real>(h: &[T], m: usize, x: &[T], n_cols: usize, out: &mut [T]) {
    assert!(n_cols > 0 && m > 0 && x.len().is_multiple_of(n_cols), "whole rows");
    let n = x.len() / n_cols;
    assert!(h.len() == n * m && out.len() == m * n_cols, "shapes of a product");
    if n == 0 {
        return out.fill(T::default());
    }
    let x = Strided { values: x, n_rows: n, n_cols, row_stride: n_cols, col_stride: 1 };
    out.par_chunks_mut(BLOCK_ROWS * n_cols).enumerate().for_each(|(block, out)| {
        let values = &h[block * BLOCK_ROWS..];
        let ht = Strided { values, n_rows: out.len() / n_cols, n_cols: n, row_stride: 1, col_stride: m };
        T::product(out, ht, x);
    });
}

/// `out = H W`: every row of `h` (`n x m`) as coefficients of the rows of `w` (`m x n_cols`); `out` is `n x n_cols`.
///
/// # Panics
/// If the shapes do not fit each other.
///
/// ```
/// let mut out = [0f32; 2];
/// subspan_linalg::gemm::mul(&[2.0, 1.0], 2, &[1.0, 2.0, 3.0, 4.0], 2, &mut out);
/// assert_eq!(out, [5.0, 8.0]);
/// ```
pub fn mul<T: Real>(h: &[T], m: usize, w: &[T], n_cols: usize, out: &mut [T]) {
    assert!(n_cols > 0 && m > 0 && h.len().is_multiple_of(m), "whole rows");
    assert!(w.len() == m * n_cols && out.len() == h.len() / m * n_cols, "shapes of a product");
    let w = Strided { values: w, n_rows: m, n_cols, row_stride: n_cols, col_stride: 1 };
    let rows = task_rows(h.len() / m);
    out.par_chunks_mut(rows * n_cols).zip(h.par_chunks(rows * m)).for_each(|(out, h)| {
        let h = Strided { values: h, n_rows: h.len() / m, n_cols: m, row_stride: m, col_stride: 1 };
        T::product(out, h, w);
    });
}

/// [`mul`] as one product on the calling thread: for callers that are tasks themselves, `w` is packed once for all rows of `h`.
///
/// # Panics
/// As [`mul`].
pub fn mul_here<T: Real>(h: &[T], m: usize, w: &[T], n_cols: usize, out: &mut [T]) {
    assert!(n_cols > 0 && m > 0 && h.len().is_multiple_of(m), "whole rows");
    assert!(w.len() == m * n_cols && out.len() == h.len() / m * n_cols, "shapes of a product");
    let w = Strided { values: w, n_rows: m, n_cols, row_stride: n_cols, col_stride: 1 };
    T::product(out, Strided { values: h, n_rows: h.len() / m, n_cols: m, row_stride: m, col_stride: 1 }, w);
}

/// [`transposed_mul`] as one product on the calling thread.
///
/// # Panics
/// As [`transposed_mul`].
pub fn transposed_mul_here<T: Real>(h: &[T], m: usize, x: &[T], n_cols: usize, out: &mut [T]) {
    assert!(n_cols > 0 && m > 0 && x.len().is_multiple_of(n_cols), "whole rows");
    let n = x.len() / n_cols;
    assert!(h.len() == n * m && out.len() == m * n_cols, "shapes of a product");
    let x = Strided { values: x, n_rows: n, n_cols, row_stride: n_cols, col_stride: 1 };
    T::product(out, Strided { values: h, n_rows: m, n_cols: n, row_stride: 1, col_stride: m }, x);
}

/// Does what the first product of a process would do: asks the system about the caches, which takes most of a millisecond.
pub fn prepare() {
    mul_here(&[0f32; 1024], 32, &[0f32; 1024], 32, &mut [0f32; 1024]);
}

/// How the vectors of a panel lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vectors {
    /// Each vector's entries are adjacent.
    Rows,
    /// Entry `l` of all vectors is adjacent.
    Columns,
}

/// `out[i, j] += ⟨xᵢ, wⱼ⟩` for two sets of `n_entries`-vectors. Products are single precision, sums over calls double: with at
/// most a few hundred entries a call, long inner products keep nearly single-precision's relative accuracy whatever their length.
/// In parallel over fixed blocks of the result's rows, so the bits do not depend on the number of threads. Floor: `2 m n k` flop.
///
/// # Panics
/// If the slices do not hold whole vectors, or `out` has the wrong size.
pub fn add_inner_products(x: &[f32], w: &[f32], n_entries: usize, vectors: Vectors, out: &mut [f64]) {
    for_row_blocks(x, w, n_entries, vectors, out, |products, out, x, w| {
        products.resize(out.len(), 0.0);
        f32::product(products, x, w);
        mixed::add(out, products);
    });
}

/// `out[i, j] −= ⟨xᵢ, wⱼ⟩`, as [`add_inner_products`] but in single precision throughout, which is half the memory of the result and
/// nothing besides.
///
/// # Panics
/// As [`add_inner_products`].
pub fn subtract_inner_products(x: &[f32], w: &[f32], n_entries: usize, vectors: Vectors, out: &mut [f32]) {
    for_row_blocks(x, w, n_entries, vectors, out, |_, out, x, w| f32::subtract_product(out, x, w));
}

/// Runs a task, which has a buffer to use again, for every block of rows of `out`, with the block's vectors as rows and all of `w` as
/// columns.
fn for_row_blocks<T: Send>(
    x: &[f32],
    w: &[f32],
    n_entries: usize,
    vectors: Vectors,
    out: &mut [T],
    task: impl Fn(&mut Vec<f32>, &mut [T], Strided<'_, f32>, Strided<'_, f32>) + Sync,
) {
    assert!(n_entries > 0 && x.len().is_multiple_of(n_entries) && w.len().is_multiple_of(n_entries), "whole vectors");
    let (n, m) = (x.len() / n_entries, w.len() / n_entries);
    assert_eq!(out.len(), n * m, "one value per pair of vectors");
    if out.is_empty() {
        return;
    }
    let rows = task_rows(n);
    let w = match vectors {
        Vectors::Rows => Strided { values: w, n_rows: n_entries, n_cols: m, row_stride: 1, col_stride: n_entries },
        Vectors::Columns => Strided { values: w, n_rows: n_entries, n_cols: m, row_stride: m, col_stride: 1 },
    };
    let of_rows = |first: usize, rows: usize| match vectors {
        Vectors::Rows => {
            let values = &x[first * n_entries..(first + rows) * n_entries];
            Strided { values, n_rows: rows, n_cols: n_entries, row_stride: n_entries, col_stride: 1 }
        }
        Vectors::Columns => {
            Strided { values: &x[first..], n_rows: rows, n_cols: n_entries, row_stride: 1, col_stride: n }
        }
    };
    out.par_chunks_mut(rows * m).enumerate().for_each_init(Vec::new, |buffer, (block, out)| {
        let x = of_rows(block * rows, out.len() / m);
        task(buffer, out, x, w);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::test::noise;

    fn naive(n: usize, m: usize, k: usize, f: impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
        let entry = |i, j| (0..k).map(|l| f(i, j, l)).sum();
        (0..n).flat_map(|i| (0..m).map(move |j| (i, j))).map(|(i, j)| entry(i, j)).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-12, "{f} {e}");
        }
    }

    #[test]
    fn products_are_those_of_the_definition() {
        for (n, m, d) in [(1, 1, 1), (3, 5, 7), (130, 70, 65), (64, 129, 3)] {
            let (x, w, h) = (noise(n * d, 1), noise(m * d, 2), noise(n * m, 3));
            let mut out = vec![0.0; n * m];
            mul_transposed(&x, &w, d, &mut out);
            assert_close(&out, &naive(n, m, d, |i, j, l| x[i * d + l] * w[j * d + l]));
            let mut here = vec![0.0; n * m];
            mul_transposed_here(&x, &w, d, &mut here);
            assert_close(&here, &out);
            let mut out = vec![0.0; m * d];
            transposed_mul(&h, m, &x, d, &mut out);
            assert_close(&out, &naive(m, d, n, |i, j, l| h[l * m + i] * x[l * d + j]));
            let mut out = vec![0.0; n * d];
            mul(&h, m, &w, d, &mut out);
            assert_close(&out, &naive(n, d, m, |i, j, l| h[i * m + l] * w[l * d + j]));
        }
    }

    #[test]
    fn inner_products_add_up_in_both_layouts() {
        for (n, m, k) in [(1, 1, 1), (3, 5, 7), (130, 70, 65)] {
            let single = |v: Vec<f64>| -> Vec<f32> { v.into_iter().map(|v| (v * 8.0).round() as f32).collect() };
            let (x, w) = (single(noise(n * k, 1)), single(noise(m * k, 2)));
            let expected = naive(n, m, k, |i, j, l| 2.0 * f64::from(x[i * k + l]) * f64::from(w[j * k + l]));
            let mut out = vec![0.0; n * m];
            add_inner_products(&x, &w, k, Vectors::Rows, &mut out);
            let transposed =
                |v: &[f32], n: usize| -> Vec<f32> { (0..k).flat_map(|l| (0..n).map(move |i| v[i * k + l])).collect() };
            add_inner_products(&transposed(&x, n), &transposed(&w, m), k, Vectors::Columns, &mut out);
            assert_close(&out, &expected);
            let mut out = vec![0.0; n * m];
            subtract_inner_products(&x, &w, k, Vectors::Rows, &mut out);
            subtract_inner_products(&transposed(&x, n), &transposed(&w, m), k, Vectors::Columns, &mut out);
            // Small whole numbers, so that no digit is lost.
            assert_close(&out.iter().map(|v| -f64::from(*v)).collect::<Vec<_>>(), &expected);
        }
    }

    #[test]
    fn a_row_does_not_see_its_company() {
        let single = |v: Vec<f64>| -> Vec<f32> { v.into_iter().map(|v| v as f32).collect() };
        for (m, d) in [(1, 3), (2, 3), (6, 4), (10, 65), (160, 784), (33, 1500)] {
            let (x, w) = (single(noise(900 * d, 1)), single(noise(m * d, 2)));
            let mut all = vec![0f32; 900 * m];
            mul_transposed_here(&x, &w, d, &mut all);
            for (first, n) in [(0, 1), (7, 1), (3, 2), (10, 20), (100, 128), (400, 500)] {
                let mut some = vec![0f32; n * m];
                mul_transposed_here(&x[first * d..(first + n) * d], &w, d, &mut some);
                assert!(some == all[first * m..(first + n) * m], "{n} rows from {first} on, {m} x {d}");
            }
        }
    }

    #[test]
    fn threads_do_not_change_the_bits() {
        let (n, m, d) = (300, 90, 50);
        let (x, w): (Vec<f32>, Vec<f32>) =
            (noise(n * d, 1).iter().map(|v| *v as f32).collect(), noise(m * d, 2).iter().map(|v| *v as f32).collect());
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut z = vec![0f32; n * m];
                mul_transposed(&x, &w, d, &mut z);
                let mut e = vec![0f32; m * d];
                transposed_mul(&z, m, &x, d, &mut e);
                (z, e)
            })
        };
        assert_eq!(run(1), run(3));
    }
}
