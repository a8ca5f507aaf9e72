//! A factor applied to every data row: `A F` and the squared norms of its rows.
//!
//! The factor is copied once per call into panels of one vector of columns, zeros in front so that every panel is full. A
//! micro-kernel keeps a tile of `A F`, up to 8 rows by 3 panels, in registers and walks along the columns of `A`: it
//! broadcasts one value of each row and multiplies it with the panels' vectors. For a triangular factor the walk ends, panel
//! by panel, at the diagonal.
//!
//! Wide rows that are mostly zeros are taken apart first: panel by panel, only what is not zero is multiplied.
//!
//! Every entry of `A F` is added up in the order of the columns of `A` by fused multiply-add, and a row's squared norm over 8
//! virtual lanes (column `j` belongs to lane `j - r mod 8`) that are joined in a fixed order. So a row's result is a function
//! of that row and the factor alone.
#![allow(unsafe_code)]

mod row_factor;

use std::cell::RefCell;

use pulp::{Simd, WithSimd};

pub use row_factor::RowFactor;

use crate::Mat;
pub use crate::matvec::{add_tr_mul_vec, all_finite, max_abs_columns, mul_vec, scale_columns};
use crate::simd::{LANES, Scratch, dispatch, join_lanes, load, prefetch, store, store_lanes};
use crate::sparse::{MIN_COLS, Nonzeros};

/// `out[i] = ‖aᵢ F‖²` for every row `aᵢ` of `rows`.
///
/// `factor` is `n_cols x r`; `upper` says that it is upper triangular (square), which halves the work: what it holds below
/// the diagonal is not read. A row's result is a function of that row and the factor alone: it does not depend on the row's
/// position in the block, on the block's length or on the vector width of the machine.
///
/// Floor: `2 n d r` flop (`n d (d+1)` when `upper`), `8 n d` bytes read; the factor stays in cache and no `n x r` temporary
/// is made. The factor is rearranged once per call (`d r` copies), so calls with few rows should be rare.
///
/// # Panics
/// If the lengths do not fit each other.
///
/// ```
/// use subspan_linalg::{Mat, apply::row_norms_sq};
/// let mut out = [0.0; 2];
/// row_norms_sq(&[1.0, 2.0, 3.0, 4.0], &Mat::from_rows(&[[1.0, 1.0], [0.0, 2.0]]), true, &mut out);
/// assert_eq!(out, [1.0 + 25.0, 9.0 + 121.0]);
/// ```
pub fn row_norms_sq(rows: &[f64], factor: &Mat, upper: bool, out: &mut [f64]) {
    let (d, r) = (factor.n_rows(), factor.n_cols());
    assert_eq!(rows.len(), out.len() * d, "one result per row");
    assert!(!upper || d == r, "an upper triangular factor is square");
    apply_once(rows, factor, upper, Out::Norms(out));
}

/// `out = A F`, row-major `n x r`: the rows mapped by the factor. The zeros of an upper triangular factor are skipped.
///
/// Floor: `2 n d r` flop (`n d (d+1)` when upper triangular), `8 n d` bytes read and `8 n r` written.
///
/// # Panics
/// If the lengths do not fit each other.
///
/// ```
/// use subspan_linalg::{Mat, apply::map_rows};
/// let mut out = [0.0; 4];
/// map_rows(&[1.0, 2.0, 3.0, 4.0], &Mat::from_rows(&[[1.0, 1.0], [0.0, 2.0]]), &mut out);
/// assert_eq!(out, [1.0, 5.0, 3.0, 11.0]);
/// ```
pub fn map_rows(rows: &[f64], factor: &Mat, out: &mut [f64]) {
    let (d, r) = (factor.n_rows(), factor.n_cols());
    assert_eq!(rows.len() * r, out.len() * d, "one mapped row per row");
    let upper = d == r && (1..d).all(|i| factor.row(i)[..i].iter().all(|v| *v == 0.0));
    apply_once(rows, factor, upper, Out::Rows(out));
}

/// Panels of a micro-kernel tile: with 8 rows it fills the registers (24 of 32 with AVX-512; with AVX2 4 rows, 12 of 16).
const TILE_PANELS: usize = 3;

/// Widths at which a triangular factor takes two short tiles, whose walks cost more to end one by one than that saves (found by
/// measurement: the branches of such short loops are mispredicted).
const FLAT_COLS: std::ops::Range<usize> = 25..48;

/// Rows whose results are kept at a time.
const MAX_BLOCK_ROWS: usize = 64;

/// Values of a block of rows: 128 KB, a fraction of a second-level cache, is read again for every three panels.
const BLOCK_LEN: usize = 16 * 1024;

/// Rows that share a walk through the panels when they are mostly zeros: a panel stays in the first-level cache for all of them.
const SPARSE_ROWS: usize = 256;

thread_local! {
    /// The rearranged factor, kept per thread.
    static PANELS: RefCell<Panels> = RefCell::default();
    /// What is not zero in a few rows.
    static NONZEROS: RefCell<Nonzeros> = RefCell::default();
}

/// Rearranges `factor` into this thread's panels and applies it.
fn apply_once(rows: &[f64], factor: &Mat, upper: bool, out: Out<'_>) {
    PANELS.with_borrow_mut(|panels| {
        dispatch(Prepare { factor, upper, panels });
        dispatch(Apply { rows, panels, out });
    });
}

enum Out<'a> {
    Norms(&'a mut [f64]),
    Rows(&'a mut [f64]),
}

struct Prepare<'a> {
    factor: &'a Mat,
    upper: bool,
    panels: &'a mut Panels,
}

impl WithSimd for Prepare<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.panels.fill(self.factor, self.upper, S::F64_LANES);
    }
}

struct Apply<'a> {
    rows: &'a [f64],
    panels: &'a Panels,
    out: Out<'a>,
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let panels = self.panels;
        let (d, r) = (panels.d, panels.r);
        if d == 0 || r == 0 {
            match self.out {
                Out::Norms(out) | Out::Rows(out) => out.fill(0.0),
            }
            return;
        }
        assert_eq!(panels.width, S::F64_LANES, "the panels are as wide as this machine's vectors");
        if d >= MIN_COLS {
            return NONZEROS.with_borrow_mut(|nonzeros| {
                let mut sums = Vec::new();
                for (b, rows) in self.rows.chunks(SPARSE_ROWS * d).enumerate() {
                    let (first, n) = (b * SPARSE_ROWS, rows.len() / d);
                    match &mut self.out {
                        Out::Norms(out) => {
                            let out = &mut out[first..first + n];
                            sums.clear();
                            sums.resize(n, [0.0; LANES]);
                            let target = Target::Sums(sums.as_mut_ptr().cast());
                            if simd.vectorize(ApplySparse { simd, rows, panels, nonzeros, target }) {
                                out.iter_mut().zip(&sums).for_each(|(o, s)| *o = join_lanes(s));
                            } else {
                                Apply { rows, panels, out: Out::Norms(out) }.dense(simd);
                            }
                        }
                        Out::Rows(out) => {
                            let out = &mut out[first * r..(first + n) * r];
                            let target = Target::Rows(out.as_mut_ptr());
                            if !simd.vectorize(ApplySparse { simd, rows, panels, nonzeros, target }) {
                                Apply { rows, panels, out: Out::Rows(out) }.dense(simd);
                            }
                        }
                    }
                }
            });
        }
        self.dense(simd);
    }
}

impl Apply<'_> {
    #[inline(always)]
    fn dense<S: Simd>(self, simd: S) {
        let panels = self.panels;
        let (d, r) = (panels.d, panels.r);
        let block_rows = (BLOCK_LEN / d).clamp(full_rows::<S>(), MAX_BLOCK_ROWS);
        match self.out {
            Out::Norms(out) => {
                for (block, out) in self.rows.chunks(block_rows * d).zip(out.chunks_mut(block_rows)) {
                    let mut sums = [[0.0; LANES]; MAX_BLOCK_ROWS];
                    // SAFETY: `block` holds `out.len()` rows and there are sums for as many.
                    unsafe { apply_block(simd, block, panels, Target::Sums(sums.as_mut_ptr().cast())) };
                    out.iter_mut().zip(&sums).for_each(|(o, s)| *o = join_lanes(s));
                }
            }
            Out::Rows(out) => {
                for (block, out) in self.rows.chunks(block_rows * d).zip(out.chunks_mut(block_rows * r)) {
                    // SAFETY: `out` holds one mapped row per row of `block`.
                    unsafe { apply_block(simd, block, panels, Target::Rows(out.as_mut_ptr())) };
                }
            }
        }
    }
}

/// Rows of a full tile.
#[inline(always)]
const fn full_rows<S: Simd>() -> usize {
    if S::F64_LANES >= 8 { 8 } else { 4 }
}

/// The factor as panels of `width` columns each: value `(k, l)` of panel `q` at `(q d + k) width + l`.
#[derive(Default)]
struct Panels {
    data: Scratch,
    d: usize,
    r: usize,
    width: usize,
    /// Zero columns in front, which make the columns a whole number of virtual lanes.
    pad: usize,
    upper: bool,
    /// Whether a tile's walk ends panel by panel.
    stepped: bool,
}

impl Panels {
    /// Copies the factor; nothing is allocated if an earlier one was as large.
    #[inline(always)]
    fn fill(&mut self, factor: &Mat, upper: bool, width: usize) {
        let (d, r) = (factor.n_rows(), factor.n_cols());
        let pad = r.next_multiple_of(LANES) - r;
        (self.d, self.r, self.width, self.pad, self.upper) = (d, r, width, pad, upper);
        self.stepped = !FLAT_COLS.contains(&d);
        if d == 0 || r == 0 {
            return;
        }
        for q in 0..self.count() {
            let end = if self.stepped { self.end(q) } else { d };
            let panel = &mut self.data.take(d * (r + pad))[q * d * width..][..end * width];
            let missing = pad.saturating_sub(q * width).min(width);
            // First column of the panel.
            let columns = (q * width + missing).saturating_sub(pad);
            for (k, to) in panel.chunks_exact_mut(width).enumerate() {
                to[..missing].fill(0.0);
                let from = &factor.row(k)[columns..][..width - missing];
                to[missing..].copy_from_slice(from);
                if upper && k > columns {
                    to[missing..].iter_mut().take(k - columns).for_each(|t| *t = 0.0);
                }
            }
        }
    }

    fn count(&self) -> usize {
        (self.r + self.pad) / self.width
    }

    /// Number of rows of the factor that panel `q` needs.
    #[inline(always)]
    fn end(&self, q: usize) -> usize {
        if self.upper { ((q + 1) * self.width).saturating_sub(self.pad) } else { self.d }
    }
}

#[derive(Clone, Copy)]
enum Target {
    /// `LANES` sums per row, to which the squares are added.
    Sums(*mut f64),
    /// The mapped rows.
    Rows(*mut f64),
}

/// Applies the factor to a block of whole rows.
///
/// # Safety
/// The target has room for every row of the block.
#[inline(always)]
unsafe fn apply_block<S: Simd>(simd: S, block: &[f64], panels: &Panels, target: Target) {
    let n = block.len() / panels.d;
    for first in (0..panels.count()).step_by(TILE_PANELS) {
        let count = TILE_PANELS.min(panels.count() - first);
        for row in (0..n).step_by(full_rows::<S>()) {
            if first == 0 {
                // The same rows of the next block: the tiles' short strides escape the hardware's own prefetching.
                let next = block.as_ptr().wrapping_add(block.len() + row * panels.d);
                (0..full_rows::<S>() * panels.d).step_by(LANES).for_each(|at| prefetch(next.wrapping_add(at)));
            }
            let tile = Tile { simd, a: &block[row * panels.d..], panels, first, row, target };
            // SAFETY: the caller's promise.
            unsafe { tile.run(full_rows::<S>().min(n - row), count) };
        }
    }
}

/// Applies the factor to rows that are mostly zeros; says whether they were.
struct ApplySparse<'a, S> {
    simd: S,
    rows: &'a [f64],
    panels: &'a Panels,
    nonzeros: &'a mut Nonzeros,
    /// Has room for every row.
    target: Target,
}

impl<S: Simd> WithSimd for ApplySparse<'_, S> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<T: Simd>(self, _: T) -> bool {
        let Self { simd, rows, panels, nonzeros, target } = self;
        if !nonzeros.gather(rows, panels.d) {
            return false;
        }
        let width = S::F64_LANES;
        for q in 0..panels.count() {
            let end = panels.end(q);
            let panel = panels.data.values()[q * panels.d * width..].as_ptr();
            for row in 0..nonzeros.n_rows() {
                let (columns, values) = nonzeros.row(row);
                let mut acc = simd.splat_f64s(0.0);
                for (k, x) in columns.iter().zip(values) {
                    if *k as usize >= end {
                        break;
                    }
                    // SAFETY: the panel has a vector for each of the factor's rows up to `end`.
                    let vector = unsafe { load::<S>(panel.wrapping_add(*k as usize * width)) };
                    acc = simd.mul_add_f64s(simd.splat_f64s(*x), vector, acc);
                }
                // SAFETY: the caller's promise; lanes of columns that do not exist are not stored.
                unsafe {
                    match target {
                        Target::Sums(sums) => {
                            let at = sums.wrapping_add(row * LANES + q * width % LANES);
                            store::<S>(at, simd.mul_add_f64s(acc, acc, load::<S>(at)));
                        }
                        Target::Rows(out) => {
                            let at = out.wrapping_add(row * panels.r + q * width).wrapping_sub(panels.pad);
                            let missing = panels.pad.saturating_sub(q * width);
                            if missing == 0 {
                                store::<S>(at, acc);
                            } else if missing < width {
                                store_lanes(simd, at, acc, missing, width);
                            }
                        }
                    }
                }
            }
        }
        true
    }
}

/// A few rows by up to `TILE_PANELS` panels.
#[derive(Clone, Copy)]
struct Tile<'a, S> {
    simd: S,
    a: &'a [f64],
    panels: &'a Panels,
    /// First panel.
    first: usize,
    /// First row, as the target counts.
    row: usize,
    target: Target,
}

impl<S: Simd> Tile<'_, S> {
    /// # Safety
    /// `a` holds `rows` rows, `panels` has `count` panels from `first` on, and the target has room.
    #[inline(always)]
    unsafe fn run(self, rows: usize, count: usize) {
        macro_rules! pick {
            ($($rows:literal)*) => {
                match (rows, count) {
                    $(($rows, 1) if $rows <= full_rows::<S>() => self.simd.vectorize(Sized::<S, $rows, 1>(self)),
                    ($rows, 2) if $rows <= full_rows::<S>() => self.simd.vectorize(Sized::<S, $rows, 2>(self)),
                    ($rows, 3) if $rows <= full_rows::<S>() => self.simd.vectorize(Sized::<S, $rows, 3>(self)),)*
                    _ => unreachable!("a tile has 1 to 8 rows and 1 to 3 panels"),
                }
            };
        }
        pick!(1 2 3 4 5 6 7 8)
    }
}

struct Sized<'a, S, const ROWS: usize, const COUNT: usize>(Tile<'a, S>);

impl<S: Simd, const ROWS: usize, const COUNT: usize> WithSimd for Sized<'_, S, ROWS, COUNT> {
    type Output = ();

    #[inline(always)]
    fn with_simd<T: Simd>(self, _: T) {
        let Tile { simd, a, panels, first, row, target } = self.0;
        let (d, width) = (panels.d, S::F64_LANES);
        let a = a.as_ptr();
        let f = panels.data.values().as_ptr().wrapping_add(first * d * width);
        let mut acc = [[simd.splat_f64s(0.0); COUNT]; ROWS];
        let mut k = 0;
        // A triangular factor's panels end one after the other. Written out, so that the accumulators stay in registers.
        macro_rules! walk {
            ($from:literal) => {
                if $from < COUNT {
                    let end = panels.end(if panels.stepped { first + $from } else { first + COUNT - 1 });
                    while k < end {
                        let mut vectors = [simd.splat_f64s(0.0); COUNT];
                        for v in $from..COUNT {
                            // SAFETY: there are `COUNT` panels of `d` vectors, and `k < d`.
                            vectors[v] = unsafe { load::<S>(f.wrapping_add(v * d * width + k * width)) };
                        }
                        for i in 0..ROWS {
                            // SAFETY: there are `ROWS` rows of `d` values.
                            let x = simd.splat_f64s(unsafe { *a.wrapping_add(i * d + k) });
                            for v in $from..COUNT {
                                acc[i][v] = simd.mul_add_f64s(x, vectors[v], acc[i][v]);
                            }
                        }
                        k += 1;
                    }
                }
            };
        }
        walk!(0);
        walk!(1);
        walk!(2);
        // SAFETY: the target has room for `ROWS` rows from `row` on; lanes of columns that do not exist are not stored.
        unsafe {
            match target {
                Target::Sums(sums) => {
                    for i in 0..ROWS {
                        for v in 0..COUNT {
                            let at = sums.wrapping_add((row + i) * LANES + (first + v) * width % LANES);
                            store::<S>(at, simd.mul_add_f64s(acc[i][v], acc[i][v], load::<S>(at)));
                        }
                    }
                }
                Target::Rows(out) => {
                    for v in 0..COUNT {
                        let column = (first + v) * width;
                        let out = out.wrapping_add(row * panels.r + column).wrapping_sub(panels.pad);
                        let missing = panels.pad.saturating_sub(column);
                        if missing == 0 {
                            for i in 0..ROWS {
                                store::<S>(out.wrapping_add(i * panels.r), acc[i][v]);
                            }
                        } else if missing < width {
                            for i in 0..ROWS {
                                store_lanes(simd, out.wrapping_add(i * panels.r), acc[i][v], missing, width);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
