//! Leading eigenvectors of large symmetric operators: block iteration with a Chebyshev filter.
//!
//! Each round damps the unwanted part of the spectrum, `[lower, smallest Ritz value]`, by a Chebyshev polynomial of the
//! operator, orthonormalises the block and rotates it onto its Ritz vectors (Zhou, Saad, Tiago, Chelikowsky, "Parallel
//! self-consistent-field calculations using Chebyshev-filtered subspace acceleration", 2006). A block finds as many equal
//! eigenvalues as it is wide, which single-vector Lanczos does not: clusters make nearly equal ones.

use rayon::prelude::*;
use subspan_linalg::{Mat, cholesky, eigh, gemm, par_gram, qr_factor};

use crate::draw::Stream;
use crate::error::Result;

/// A symmetric matrix known by its products with blocks of vectors.
pub(crate) trait Operator: Sync {
    /// Number of rows.
    fn side(&self) -> usize;

    /// `out = A X` with `x` and `out` of `side x width`, row-major; bits do not depend on the number of threads.
    fn apply(&self, x: &[f64], width: usize, out: &mut [f64]);
}

/// A dense symmetric matrix as an operator.
impl Operator for Mat {
    fn side(&self) -> usize {
        self.n_rows()
    }

    fn apply(&self, x: &[f64], width: usize, out: &mut [f64]) {
        gemm::mul(self.as_slice(), self.n_cols(), x, width, out);
    }
}

/// Leading eigenpairs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pairs {
    /// Descending.
    pub(crate) values: Vec<f64>,
    /// `side x count`, row-major.
    pub(crate) vectors: Vec<f64>,
    /// Largest residual `‖A v − λ v‖ / |λ|` of any pair.
    pub(crate) residual: f64,
}

/// Sides up to which the whole matrix is decomposed at once.
const DENSE_SIDE: usize = 512;
/// Rounds of filter, orthonormalisation and rotation.
const MAX_ROUNDS: usize = 40;
/// Growth of the leading direction over the edge of the filter in one round: more would make the block's columns alike.
const MAX_GROWTH: f64 = 1e5;
/// Largest degree of the filter.
const MAX_DEGREE: f64 = 40.0;

/// Eigenvalues below this share of the largest need no relative accuracy.
const NEGLIGIBLE: f64 = 1e-7;

/// The `count` largest eigenvalues and their vectors; `lower` bounds the spectrum from below, `tolerance` each residual
/// relative to its own value. Returns what it has after 40 rounds; the residual tells.
///
/// # Errors
/// What the dense factorizations report (non-finite entries).
///
/// # Panics
/// If `count` exceeds the side.
pub(crate) fn largest(op: &dyn Operator, count: usize, lower: f64, tolerance: f64, seed: u64) -> Result<Pairs> {
    let n = op.side();
    assert!(count <= n, "no more eigenvectors than rows");
    let width = count + (count / 4).max(8);
    if n <= DENSE_SIDE || 3 * width >= n {
        return dense(op, count);
    }
    let stream = Stream::new(seed, "eigenvectors");
    let mut v = vec![0.0; n * width];
    v.par_chunks_mut(width).enumerate().for_each(|(i, row)| {
        let mut rng = stream.rng(i as u64);
        row.iter_mut().for_each(|v| *v = rng.normal());
    });
    orthonormalize(&mut v, width)?;
    let mut av = vec![0.0; n * width];
    let mut pairs = None;
    for round in 0.. {
        op.apply(&v, width, &mut av);
        let values = rotate(&mut v, &mut av, width)?;
        let residual = residual(&v, &av, &values, count);
        if residual <= tolerance || round == MAX_ROUNDS {
            pairs = Some((values, residual));
            break;
        }
        // Wide enough to divide by, even when the block has nothing but the bottom of the spectrum.
        let cut = values[width - 1].max(lower + 1e-9 * (values[0] - lower));
        v = filtered(op, v, &av, width, [lower, cut, values[0]]);
        orthonormalize(&mut v, width)?;
    }
    let (mut values, residual) = pairs.unwrap_or_default();
    values.truncate(count);
    let vectors = v.chunks_exact(width).flat_map(|row| row[..count].iter().copied()).collect();
    Ok(Pairs { values, vectors, residual })
}

/// The filter polynomial of the operator applied to `x`; `ax` is the operator applied to `x`.
fn filtered(op: &dyn Operator, x: Vec<f64>, ax: &[f64], width: usize, [lower, cut, top]: [f64; 3]) -> Vec<f64> {
    let (half, center) = (0.5 * (cut - lower), 0.5 * (cut + lower));
    let reach = ((top - center) / half).max(1.0 + 1e-9);
    let degree = (MAX_GROWTH.acosh() / reach.acosh()).clamp(1.0, MAX_DEGREE) as usize;
    let first = half / (top - center);
    let mut sigma = first;
    // y = (A x − center x) · first / half; scaled so that the top eigenvector keeps its length.
    let mut y = ax.to_vec();
    combine(&mut y, first / half, &x, -center * first / half);
    let mut x = x;
    let mut ay = vec![0.0; y.len()];
    for _ in 1..degree {
        let next = 1.0 / (2.0 / first - sigma);
        op.apply(&y, width, &mut ay);
        let (a, b, c) = (2.0 * next / half, -2.0 * next * center / half, -sigma * next);
        x.par_iter_mut().zip(&y).zip(&ay).for_each(|((x, y), ay)| *x = a * ay + b * y + c * *x);
        std::mem::swap(&mut x, &mut y);
        sigma = next;
    }
    y
}

/// `x = a x + b y`.
fn combine(x: &mut [f64], a: f64, y: &[f64], b: f64) {
    x.par_iter_mut().zip(y).for_each(|(x, y)| *x = a * *x + b * y);
}

/// Makes the columns of `v` orthonormal: Cholesky twice, Householder where that fails.
fn orthonormalize(v: &mut Vec<f64>, width: usize) -> Result<()> {
    for _ in 0..2 {
        // Columns of very different length would spoil the factor.
        let gram = par_gram(v, width);
        let scale: Vec<f64> = (0..width).map(|i| gram[(i, i)].max(f64::MIN_POSITIVE).sqrt().recip()).collect();
        let even = Mat::from_fn(width, width, |i, j| gram[(i, j)] * scale[i] * scale[j]);
        let Ok(factor) = cholesky(&even) else {
            let n = v.len() / width;
            *v = qr_factor(&Mat::from_vec(n, width, std::mem::take(v)))?.0.into_vec();
            return Ok(());
        };
        let inverse = factor.inverse_upper();
        let map = Mat::from_fn(width, width, |i, j| scale[i] * inverse[(i, j)]);
        let mut out = vec![0.0; v.len()];
        gemm::mul(v, width, map.as_slice(), width, &mut out);
        *v = out;
    }
    Ok(())
}

/// Rotates the block (and its image) onto Ritz vectors; their values, descending.
fn rotate(v: &mut Vec<f64>, av: &mut Vec<f64>, width: usize) -> Result<Vec<f64>> {
    let mut t = Mat::zeros(width, width);
    gemm::transposed_mul(v, width, av, width, t.as_mut_slice());
    let t = Mat::from_fn(width, width, |i, j| 0.5 * (t[(i, j)] + t[(j, i)]));
    let e = eigh(&t)?;
    let turn = Mat::from_fn(width, width, |i, j| e.vectors[(i, width - 1 - j)]);
    for block in [v, av] {
        let mut out = vec![0.0; block.len()];
        gemm::mul(block, width, turn.as_slice(), width, &mut out);
        *block = out;
    }
    Ok(e.values.into_iter().rev().collect())
}

fn residual(v: &[f64], av: &[f64], values: &[f64], count: usize) -> f64 {
    let width = values.len();
    let mut squares = vec![0.0; count];
    for (row, image) in v.chunks_exact(width).zip(av.chunks_exact(width)) {
        for j in 0..count {
            squares[j] += (image[j] - values[j] * row[j]).powi(2);
        }
    }
    let scale = |j: usize| values[j].abs().max(NEGLIGIBLE * values[0].abs()).max(f64::MIN_POSITIVE);
    squares.iter().enumerate().fold(0.0, |m: f64, (j, s)| m.max(s.sqrt() / scale(j)))
}

fn dense(op: &dyn Operator, count: usize) -> Result<Pairs> {
    let n = op.side();
    let mut whole = Mat::zeros(n, n);
    op.apply(Mat::identity(n).as_slice(), n, whole.as_mut_slice());
    let e = eigh(&Mat::from_fn(n, n, |i, j| 0.5 * (whole[(i, j)] + whole[(j, i)])))?;
    let vectors =
        (0..n).flat_map(|i| (0..count).map(move |j| (i, j))).map(|(i, j)| e.vectors[(i, n - 1 - j)]).collect();
    Ok(Pairs { values: e.values.into_iter().rev().take(count).collect(), vectors, residual: 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_pairs_are_found_also_equal_ones() {
        let n = 900;
        // A reflected diagonal: eigenvalues known, vectors dense.
        let spectrum = |i: usize| match i {
            0 => 1.0,
            1..=3 => 0.99,
            4..=9 => 0.9 - 0.01 * i as f64,
            _ => 0.7 - 1.6 * i as f64 / n as f64,
        };
        let mut rng = Stream::new(1, "axis").rng(0);
        let axis: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let square: f64 = axis.iter().map(|v| v * v).sum();
        let reflect = |i: usize, j: usize| f64::from(i == j) - 2.0 * axis[i] * axis[j] / square;
        let scaled = Mat::from_fn(n, n, |i, j| spectrum(i) * reflect(i, j));
        let a = Mat::from_fn(n, n, reflect).mul(&scaled);
        let pairs = largest(&a, 10, -1.0, 1e-8, 0).unwrap();
        for (i, value) in pairs.values.iter().enumerate() {
            assert!((value - spectrum(i)).abs() < 1e-9, "{:?}", pairs.values);
        }
        assert!(pairs.residual < 1e-8);
        let gram = par_gram(&pairs.vectors, 10);
        assert!((0..100).all(|at| (gram.as_slice()[at] - f64::from(at / 10 == at % 10)).abs() < 1e-12));
    }
}
