//! Dense layers: `Y = X Wᵀ + b`.

use subspan_linalg::{Real, gemm};

/// `y` (`n x out`) for `x` (`n x n_in`) and `w` (`out x n_in`). Floor: `2 n out n_in` flop.
pub(crate) fn forward<T: Real>(x: &[T], w: &[T], bias: Option<&[T]>, n_in: usize) -> Vec<T> {
    let (n, out) = (x.len() / n_in, w.len() / n_in);
    let mut y = vec![T::default(); n * out];
    gemm::mul_transposed(x, w, n_in, &mut y);
    if let Some(bias) = bias {
        for row in y.chunks_exact_mut(out) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += *b);
        }
    }
    y
}

/// Gradients for `dy` (`n x out`): of the weight, of the bias, and of `x` where `w` is given.
pub(crate) fn backward<T: Real>(
    x: &[T],
    w: Option<&[T]>,
    dy: &[T],
    n_in: usize,
    out: usize,
) -> (Vec<T>, Vec<T>, Option<Vec<T>>) {
    let n = x.len() / n_in;
    let mut dw = vec![T::default(); out * n_in];
    gemm::transposed_mul(dy, out, x, n_in, &mut dw);
    let mut db = vec![T::default(); out];
    for row in dy.chunks_exact(out) {
        db.iter_mut().zip(row).for_each(|(b, d)| *b += *d);
    }
    let dx = w.map(|w| {
        let mut dx = vec![T::default(); n * n_in];
        gemm::mul(dy, out, w, n_in, &mut dx);
        dx
    });
    (dw, db, dx)
}
