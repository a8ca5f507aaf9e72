//! Symmetric rank-n update: `G += Aᵀ A` for a block of data rows.

/// Adds `Aᵀ A` to the upper triangle of `gram` (row-major, `n_cols x n_cols`); the lower triangle is not touched.
///
/// `rows` holds whole rows of `A`. Each entry of `gram` receives its products in row order by fused multiply-add, so the
/// result does not depend on the vector width of the machine.
///
/// Floor: `n d (d+1)` flop, `8 n d` bytes read.
///
/// # Panics
/// If `rows.len()` is not a multiple of `n_cols` or `gram.len() != n_cols²`.
pub fn add_gram(rows: &[f64], n_cols: usize, gram: &mut [f64]) {
    assert_eq!(gram.len(), n_cols * n_cols, "gram is n_cols x n_cols");
    if n_cols == 0 {
        return;
    }
    assert_eq!(rows.len() % n_cols, 0, "rows holds whole rows");
    for row in rows.chunks_exact(n_cols) {
        for j in 0..n_cols {
            let a = row[j];
            for (g, b) in gram[j * n_cols + j..(j + 1) * n_cols].iter_mut().zip(&row[j..]) {
                *g = f64::mul_add(a, *b, *g);
            }
        }
    }
}

/// Adds `Aᵀ diag(w) A` to the upper triangle of `gram`; otherwise like [`add_gram`].
///
/// # Panics
/// As [`add_gram`], or if there is not one weight per row. Weights must be non-negative.
pub fn add_weighted_gram(rows: &[f64], n_cols: usize, weights: &[f64], gram: &mut [f64]) {
    assert_eq!(rows.len(), weights.len() * n_cols, "one weight per row");
    let mut scaled = vec![0.0; TILE_ROWS * n_cols];
    for (tile, w) in rows.chunks(TILE_ROWS * n_cols).zip(weights.chunks(TILE_ROWS)) {
        for ((to, from), w) in scaled.chunks_exact_mut(n_cols).zip(tile.chunks_exact(n_cols)).zip(w) {
            let s = w.sqrt();
            to.iter_mut().zip(from).for_each(|(t, f)| *t = f * s);
        }
        add_gram(&scaled[..tile.len()], n_cols, gram);
    }
}

/// Rows scaled at a time by [`add_weighted_gram`]: a tile that stays in cache up to a few hundred columns.
const TILE_ROWS: usize = 128;

/// Copies the upper triangle of a row-major square matrix onto the lower one.
pub fn symmetrize(gram: &mut [f64], n_cols: usize) {
    for i in 1..n_cols {
        for j in 0..i {
            gram[i * n_cols + j] = gram[j * n_cols + i];
        }
    }
}
