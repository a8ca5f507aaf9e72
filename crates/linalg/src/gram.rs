//! Symmetric rank-n update: `G += Aᵀ A` for a block of data rows.
//!
//! The columns are cut into groups of one vector (8 values with AVX-512, 4 with AVX2); the first group takes the remainder,
//! so that every other group is full. A micro-kernel keeps a tile of `G`, one group of rows by up to three groups of
//! columns, in registers and walks down the rows of `A`: it broadcasts the values of the tile's rows and multiplies them with
//! the vectors of the tile's columns. Both are contiguous in a row of `A`, so no transposition is needed. Only tiles on and
//! above the diagonal are visited.
//!
//! Rows are taken in tiles that stay in cache. Wide rows (and rows shorter than a vector) are first copied into column
//! panels, one group each, so that the micro-kernel reads a few contiguous streams instead of one line per page.
//!
//! A tile of wide rows that are mostly zeros adds only the products of what is not zero.
//!
//! Every entry of `G` receives its products in row order by fused multiply-add, whatever the tile or the vector width.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::simd::{LANES, Scratch, dispatch, load, load_lanes, prefetch, store, store_lanes};
use crate::sparse::Nonzeros;

/// Adds `Aᵀ A` to the upper triangle of `gram` (row-major, `n_cols x n_cols`); the lower triangle is not touched.
///
/// `rows` holds whole rows of `A`. Each entry of `gram` receives its products in row order by fused multiply-add, so the
/// result does not depend on the vector width of the machine.
///
/// Floor: `n d (d+1)` flop, `8 n d` bytes read. Nothing is allocated per call.
///
/// # Panics
/// If `rows.len()` is not a multiple of `n_cols` or `gram.len() != n_cols²`.
///
/// ```
/// let mut gram = [0.0; 4];
/// subspan_linalg::gram::add_gram(&[1.0, 2.0, 3.0, 4.0], 2, &mut gram);
/// assert_eq!(gram, [10.0, 14.0, 0.0, 20.0]);
/// ```
pub fn add_gram(rows: &[f64], n_cols: usize, gram: &mut [f64]) {
    check_gram(rows, n_cols, gram);
    // SAFETY: `gram` is an exclusive borrow of the whole matrix.
    unsafe { add_gram_columns(rows, n_cols, None, gram.as_mut_ptr(), 0..n_cols) };
}

/// Adds `Aᵀ diag(w) A` to the upper triangle of `gram`; otherwise like [`add_gram`].
///
/// Row `i` enters as `√wᵢ aᵢ`, scaled while it is copied into the cache tile. A weight may be zero.
///
/// # Panics
/// As [`add_gram`], or if there is not one weight per row. Weights must be non-negative.
///
/// ```
/// let mut gram = [0.0; 4];
/// subspan_linalg::gram::add_weighted_gram(&[1.0, 2.0, 3.0, 4.0], 2, &[4.0, 0.0], &mut gram);
/// assert_eq!(gram, [4.0, 8.0, 0.0, 16.0]);
/// ```
pub fn add_weighted_gram(rows: &[f64], n_cols: usize, weights: &[f64], gram: &mut [f64]) {
    check_gram(rows, n_cols, gram);
    assert_eq!(rows.len(), weights.len() * n_cols, "one weight per row");
    // SAFETY: `gram` is an exclusive borrow of the whole matrix.
    unsafe { add_gram_columns(rows, n_cols, Some(weights), gram.as_mut_ptr(), 0..n_cols) };
}

fn check_gram(rows: &[f64], n_cols: usize, gram: &[f64]) {
    assert_eq!(gram.len(), n_cols * n_cols, "gram is n_cols x n_cols");
    assert!(rows.is_empty() || rows.len().is_multiple_of(n_cols), "rows holds whole rows");
}

/// Copies the upper triangle of a row-major square matrix onto the lower one.
pub fn symmetrize(gram: &mut [f64], n_cols: usize) {
    for i in 1..n_cols {
        for j in 0..i {
            gram[i * n_cols + j] = gram[j * n_cols + i];
        }
    }
}

/// Column groups of a micro-kernel tile: with one group of rows it fills the registers (24 of 32 with AVX-512, 12 of 16 with
/// AVX2) and leaves room for the three vectors and the broadcast.
const TILE_GROUPS: usize = 3;

/// Rows of a packed tile: three panels of a tile's columns take 36 KB of a 48 KB first-level cache.
const PACKED_ROWS: usize = 192;

/// Rows wider than this are packed. Below, the copy costs more than the strided reads.
const DIRECT_MAX_COLS: usize = 128;

/// Values of a tile that is read in place: 32 KB fit a first-level cache, and the next tile is fetched meanwhile.
const DIRECT_TILE_LEN: usize = 4 * 1024;

thread_local! {
    /// The tile copy, kept per thread: blocks are often small, and a fresh buffer per call would cost page faults.
    static TILE: RefCell<Scratch> = RefCell::default();
    /// What is not zero in a tile.
    static NONZEROS: RefCell<Nonzeros> = RefCell::default();
}

/// Adds to the columns of the upper triangle whose tile (of up to `TILE_COLUMNS` columns) starts in `columns`: ranges that
/// cover `0..n_cols` give, in any order or at once, the bits of one call with all columns.
///
/// # Safety
/// `gram` is `n_cols x n_cols`, and nobody else uses the upper triangle of these columns meanwhile.
pub(crate) unsafe fn add_gram_columns(
    rows: &[f64],
    n_cols: usize,
    weights: Option<&[f64]>,
    gram: *mut f64,
    columns: Range<usize>,
) {
    dispatch(AddGram { rows, n_cols, weights, gram, columns });
}

struct AddGram<'a> {
    rows: &'a [f64],
    n_cols: usize,
    weights: Option<&'a [f64]>,
    gram: *mut f64,
    columns: Range<usize>,
}

impl WithSimd for AddGram<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let d = self.n_cols;
        if d == 0 || self.rows.is_empty() {
            return;
        }
        let groups = Groups::new(d, S::F64_LANES);
        let tiles = groups.tiles(self.columns);
        if tiles.is_empty() {
            return;
        }
        let used = groups.count.min(tiles.end * TILE_GROUPS);
        let packed = d < S::F64_LANES || d > DIRECT_MAX_COLS;
        let tile_rows = if packed { PACKED_ROWS } else { DIRECT_TILE_LEN / d };
        TILE.with_borrow_mut(|scratch| {
            for (t, tile) in self.rows.chunks(tile_rows * d).enumerate() {
                let weights = self.weights.map(|w| &w[t * tile_rows..]);
                let n = tile.len() / d;
                let next = tile.as_ptr_range().end;
                let columns =
                    groups.start(tiles.start * TILE_GROUPS)..groups.start(groups.count.min(tiles.end * TILE_GROUPS));
                if NONZEROS.with_borrow_mut(|nonzeros| {
                    simd.vectorize(AddSparse { tile, n_cols: d, weights, gram: self.gram, columns, nonzeros })
                }) {
                    continue;
                }
                let source = if packed {
                    // One line more than the rows need, so that panels do not share the same few places in the cache.
                    let panel_len = n * groups.width + LANES;
                    let panels = scratch.take(panel_len * used);
                    simd.vectorize(Pack { tile, weights, groups, panel_len, panels });
                    Source { ptr: panels.as_ptr(), row_step: groups.width, panel_len: Some(panel_len), ahead: None }
                } else if let Some(weights) = weights {
                    let scaled = scratch.take(tile.len());
                    simd.vectorize(Scale { tile, n_cols: d, weights, scaled });
                    Source { ptr: scaled.as_ptr(), row_step: d, panel_len: None, ahead: Some(next) }
                } else {
                    Source { ptr: tile.as_ptr(), row_step: d, panel_len: None, ahead: Some(next) }
                };
                // SAFETY: `source` holds `n` rows of the groups used (read in place only if a row has a whole vector), and
                // the caller promised the columns of `gram`.
                unsafe { add_tile(simd, n, source, groups, tiles.clone(), self.gram) };
            }
        });
    }
}

/// Adds a tile of rows that are mostly zeros to some columns of the upper triangle; says whether it was one.
struct AddSparse<'a> {
    tile: &'a [f64],
    n_cols: usize,
    weights: Option<&'a [f64]>,
    gram: *mut f64,
    columns: Range<usize>,
    nonzeros: &'a mut Nonzeros,
}

impl WithSimd for AddSparse<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        let Self { tile, n_cols, weights, gram, columns, nonzeros } = self;
        if !nonzeros.gather(tile, n_cols) {
            return false;
        }
        for t in 0..nonzeros.n_rows() {
            let scale = weights.map_or(1.0, |w| w[t].sqrt());
            let (places, values) = nonzeros.row(t);
            for (p, (j, x)) in places.iter().zip(values).enumerate() {
                // SAFETY: a column of the tile is a row of the matrix.
                let line = unsafe { gram.add(*j as usize * n_cols) };
                for (k, y) in places[p..].iter().zip(&values[p..]).filter(|(k, _)| columns.contains(&(**k as usize))) {
                    // SAFETY: the entry lies on or right of the diagonal, in the columns that the caller promised.
                    unsafe {
                        let entry = line.add(*k as usize);
                        *entry = f64::mul_add(x * scale, y * scale, *entry);
                    }
                }
            }
        }
        true
    }
}

/// The columns as groups of `width`, of which the first holds what is left over.
#[derive(Clone, Copy)]
struct Groups {
    n_cols: usize,
    width: usize,
    count: usize,
}

impl Groups {
    fn new(n_cols: usize, width: usize) -> Self {
        Self { n_cols, width, count: n_cols.div_ceil(width) }
    }

    /// First column of group `q`.
    #[inline(always)]
    fn start(self, q: usize) -> usize {
        (self.n_cols + q * self.width).saturating_sub(self.count * self.width)
    }

    /// The column tiles that start in `columns`.
    #[inline(always)]
    fn tiles(self, columns: Range<usize>) -> Range<usize> {
        let first_from =
            |column| (0..self.count.div_ceil(TILE_GROUPS)).filter(|t| self.start(t * TILE_GROUPS) < column).count();
        first_from(columns.start)..first_from(columns.end)
    }

    /// Number of columns of group `q`.
    #[inline(always)]
    fn len(self, q: usize) -> usize {
        self.start(q + 1) - self.start(q)
    }
}

/// The rows of a tile: in place, or as one panel per group.
#[derive(Clone, Copy)]
struct Source {
    ptr: *const f64,
    row_step: usize,
    panel_len: Option<usize>,
    /// Where the rows of the next tile are; they are as far apart as this one's.
    ahead: Option<*const f64>,
}

impl Source {
    /// Where group `q` of the first row starts.
    #[inline(always)]
    fn group(self, q: usize, groups: Groups) -> *const f64 {
        self.ptr.wrapping_add(self.panel_len.map_or(groups.start(q), |len| q * len))
    }
}

/// Copies a tile of rows, scaled by the roots of their weights. (An operation of its own, so that it is compiled for the
/// vectors of the machine.)
struct Scale<'a> {
    tile: &'a [f64],
    n_cols: usize,
    weights: &'a [f64],
    scaled: &'a mut [f64],
}

impl WithSimd for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (d, width) = (self.n_cols, S::F64_LANES);
        assert!(d >= width && self.tile.len() == self.scaled.len());
        for ((to, from), w) in self.scaled.chunks_exact_mut(d).zip(self.tile.chunks_exact(d)).zip(self.weights) {
            let s = simd.splat_f64s(w.sqrt());
            let (from, to) = (from.as_ptr(), to.as_mut_ptr());
            // The last vector ends with the row.
            for j in (0..d - width).step_by(width).chain([d - width]) {
                // SAFETY: both rows have `d` values, at least a vector.
                unsafe { store::<S>(to.add(j), simd.mul_f64s(load::<S>(from.add(j)), s)) };
            }
        }
    }
}

/// Copies a tile of rows into panels, as many as there is room for, scaled by the roots of their weights: group `q` of row `t`
/// at `q panel_len + t width`, the short first group padded with zeros.
struct Pack<'a> {
    tile: &'a [f64],
    weights: Option<&'a [f64]>,
    groups: Groups,
    panel_len: usize,
    panels: &'a mut [f64],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tile, weights, groups, panel_len, panels } = self;
        let (d, width, head) = (groups.n_cols, S::F64_LANES, groups.len(0));
        for (t, row) in tile.chunks_exact(d).enumerate() {
            let root = weights.map_or(1.0, |w| w[t].sqrt());
            let s = simd.splat_f64s(root);
            let first = &mut panels[t * width..][..width];
            first[head..].fill(0.0);
            first.iter_mut().zip(&row[..head]).for_each(|(t, f)| *t = f * root);
            let others = panels[panel_len..].chunks_exact_mut(panel_len);
            for (panel, from) in others.zip(row[head..].chunks_exact(width)) {
                let to = &mut panel[t * width..][..width];
                // SAFETY: both hold one vector.
                unsafe { store::<S>(to.as_mut_ptr(), simd.mul_f64s(load::<S>(from.as_ptr()), s)) };
            }
        }
    }
}

/// Adds the products of `n` rows to the given column tiles of the upper triangle.
///
/// # Safety
/// `source` holds `n` rows of the groups, each group readable as a whole vector; `gram` is `n_cols x n_cols`.
#[inline(always)]
unsafe fn add_tile<S: Simd>(simd: S, n: usize, source: Source, groups: Groups, tiles: Range<usize>, gram: *mut f64) {
    // Each micro-kernel fetches one line of every row of the next tile: there are more of them than lines.
    let lines = groups.n_cols.div_ceil(LANES);
    let mut line = 0;
    for q_first in tiles.map(|t| t * TILE_GROUPS) {
        let q_end = groups.count.min(q_first + TILE_GROUPS);
        for p in 0..q_end {
            let q = p.max(q_first);
            let gap = groups.start(q + 1) - groups.start(q);
            let tile = Tile {
                simd,
                n,
                a: source.group(p, groups),
                b: source.group(q, groups),
                b_gap: source.panel_len.unwrap_or(gap),
                b_step: source.panel_len.unwrap_or(groups.width),
                row_step: source.row_step,
                ahead: source.ahead.filter(|_| line < lines).map(|ahead| ahead.wrapping_add(line * LANES)),
                g: gram.wrapping_add(groups.start(p) * groups.n_cols + groups.start(q)),
                g_gap: gap,
                g_step: groups.n_cols,
                diagonal: p == q,
            };
            // SAFETY: the caller's promise; the tile lies inside the triangle.
            unsafe { tile.run(groups.len(p), q_end - q) };
            line += 1;
        }
    }
}

/// One tile of `G`: a group of rows by `TILE_GROUPS` or fewer groups of columns.
#[derive(Clone, Copy)]
struct Tile<S> {
    simd: S,
    /// Rows of `A`.
    n: usize,
    /// The values of the tile's rows, in the first row of `A`.
    a: *const f64,
    /// The values of the tile's columns, in the first row of `A`: the second vector is at `b_gap`, others `b_step` further.
    b: *const f64,
    b_gap: usize,
    b_step: usize,
    /// From a row of `A` to the next.
    row_step: usize,
    /// What to bring into the cache: a line for each row.
    ahead: Option<*const f64>,
    /// The tile's entries: the second vector is at `g_gap`, others one vector further.
    g: *mut f64,
    g_gap: usize,
    /// From a row of `G` to the next.
    g_step: usize,
    /// Whether the first vector's columns are the tile's rows: what is left of the diagonal keeps its value.
    diagonal: bool,
}

impl<S: Simd> Tile<S> {
    /// # Safety
    /// As [`add_tile`].
    #[inline(always)]
    unsafe fn run(self, rows: usize, groups: usize) {
        macro_rules! pick {
            ($($rows:literal)*) => {
                match (rows, groups) {
                    $(($rows, 1) if $rows <= S::F64_LANES => self.simd.vectorize(Sized::<S, $rows, 1>(self)),
                    ($rows, 2) if $rows <= S::F64_LANES => self.simd.vectorize(Sized::<S, $rows, 2>(self)),
                    ($rows, 3) if $rows <= S::F64_LANES => self.simd.vectorize(Sized::<S, $rows, 3>(self)),)*
                    _ => unreachable!("a tile has 1 to 8 rows and 1 to 3 groups"),
                }
            };
        }
        pick!(1 2 3 4 5 6 7 8)
    }
}

struct Sized<S, const ROWS: usize, const GROUPS: usize>(Tile<S>);

impl<S: Simd, const ROWS: usize, const GROUPS: usize> WithSimd for Sized<S, ROWS, GROUPS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<T: Simd>(self, _: T) {
        let Tile { simd, n, mut a, mut b, b_gap, b_step, row_step, ahead, g, g_gap, g_step, diagonal } = self.0;
        let entry =
            |i: usize, v: usize| g.wrapping_add(i * g_step + if v == 0 { 0 } else { g_gap + (v - 1) * S::F64_LANES });
        // Rows shorter than a vector.
        let short = g_step < S::F64_LANES;
        let mut acc = [[simd.splat_f64s(0.0); GROUPS]; ROWS];
        // SAFETY: only entries of the tile on and right of the diagonal are read and written, and `a` and `b` stay within the
        // `n` rows of the source.
        unsafe {
            for i in 0..ROWS {
                for v in 0..GROUPS {
                    acc[i][v] =
                        if v == 0 && short { load_lanes(simd, entry(i, v), 0, g_gap) } else { load::<S>(entry(i, v)) };
                }
            }
            for t in 0..n {
                if let Some(ahead) = ahead {
                    prefetch(ahead.wrapping_add(t * row_step));
                }
                let mut vectors = [simd.splat_f64s(0.0); GROUPS];
                for v in 0..GROUPS {
                    vectors[v] = load::<S>(b.wrapping_add(if v == 0 { 0 } else { b_gap + (v - 1) * b_step }));
                }
                for i in 0..ROWS {
                    let x = simd.splat_f64s(*a.wrapping_add(i));
                    for v in 0..GROUPS {
                        acc[i][v] = simd.mul_add_f64s(x, vectors[v], acc[i][v]);
                    }
                }
                a = a.wrapping_add(row_step);
                b = b.wrapping_add(row_step);
            }
            for i in 0..ROWS {
                for v in 0..GROUPS {
                    let mut sum = acc[i][v];
                    if v == 0 && short {
                        store_lanes(simd, entry(i, v), sum, i, g_gap);
                        continue;
                    }
                    if v == 0 && diagonal {
                        // Other entries are stored as they are: a masked store costs more.
                        let lanes = simd.mask_between_m64s(i as u64, g_gap as u64).mask();
                        sum = simd.select_f64s(lanes, sum, load::<S>(entry(i, v)));
                    }
                    store::<S>(entry(i, v), sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
