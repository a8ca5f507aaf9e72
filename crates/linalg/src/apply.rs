//! A factor applied to every data row.

use crate::Mat;

/// `out[i] = ‖aᵢ F‖²` for every row `aᵢ` of `rows`.
///
/// `factor` is `n_cols x r`; `upper` says that it is upper triangular (square), which halves the work. A row's result is a
/// function of that row and the factor alone: it does not depend on the row's position in the block, on the block's length
/// or on the vector width of the machine.
///
/// Floor: `2 n d r` flop (`n d²` when `upper`), `8 n d` bytes read; the factor stays in cache and no `n x r` temporary is made.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn row_norms_sq(rows: &[f64], factor: &Mat, upper: bool, out: &mut [f64]) {
    let (d, r) = (factor.n_rows(), factor.n_cols());
    assert_eq!(rows.len(), out.len() * d, "one result per row");
    assert!(!upper || d == r, "an upper triangular factor is square");
    let mut z = vec![0.0; r];
    for (row, out) in rows.chunks_exact(d.max(1)).zip(out) {
        z.fill(0.0);
        for (k, a) in row.iter().enumerate() {
            let from = if upper { k } else { 0 };
            for (z, f) in z[from..].iter_mut().zip(&factor.row(k)[from..]) {
                *z = f64::mul_add(*a, *f, *z);
            }
        }
        *out = z.iter().fold(0.0, |s, z| f64::mul_add(*z, *z, s));
    }
}

/// `out = A F`, row-major `n x r`: the rows mapped by the factor.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn map_rows(rows: &[f64], factor: &Mat, out: &mut [f64]) {
    let (d, r) = (factor.n_rows(), factor.n_cols());
    assert_eq!(rows.len() * r, out.len() * d, "one mapped row per row");
    for (row, z) in rows.chunks_exact(d.max(1)).zip(out.chunks_exact_mut(r.max(1))) {
        z.fill(0.0);
        for (k, a) in row.iter().enumerate() {
            for (z, f) in z.iter_mut().zip(factor.row(k)) {
                *z = f64::mul_add(*a, *f, *z);
            }
        }
    }
}

/// `out[i] = aᵢ · x` for every row.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn mul_vec(rows: &[f64], x: &[f64], out: &mut [f64]) {
    assert_eq!(rows.len(), out.len() * x.len(), "one result per row");
    for (row, out) in rows.chunks_exact(x.len().max(1)).zip(out) {
        *out = crate::mat::dot(row, x);
    }
}

/// `out += Aᵀ y`: the rows added up with coefficients `y`.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn add_tr_mul_vec(rows: &[f64], y: &[f64], out: &mut [f64]) {
    assert_eq!(rows.len(), y.len() * out.len(), "one coefficient per row");
    for (row, y) in rows.chunks_exact(out.len().max(1)).zip(y) {
        for (out, a) in out.iter_mut().zip(row) {
            *out = f64::mul_add(*y, *a, *out);
        }
    }
}
