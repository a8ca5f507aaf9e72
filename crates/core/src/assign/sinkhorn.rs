//! Symmetric doubly stochastic scaling: the positive `u` for which every row of `Γ = diag(u) K diag(u)` sums to one.
//!
//! `Γ` is the doubly stochastic matrix that maximises `<A, Γ> − η Σ Γ log Γ` when `K = exp(A / η)`. Plain sweeps
//! `u ← √(u / K u)` multiply the error by `(1 − λ)/2` over the eigenvalues `λ` of `Γ`: quick for a kernel with a heavy diagonal,
//! hopeless where mutual nearest pairs bring an eigenvalue near −1. Newton steps, solved by conjugate gradients, finish the work
//! (Knight and Ruiz, "A fast algorithm for matrix balancing", 2013).

use rayon::prelude::*;

/// A symmetric matrix without negative entries, known by its products with vectors.
pub trait Kernel: Sync {
    /// Number of rows.
    fn side(&self) -> usize;

    /// `out = K x`; every entry must depend on `x` alone, not on the number of threads.
    fn mul(&self, x: &[f64], out: &mut [f64]);
}

/// A symmetric matrix stored whole, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Dense<'a> {
    values: &'a [f64],
    side: usize,
}

impl<'a> Dense<'a> {
    /// `values` of a `side x side` symmetric matrix.
    ///
    /// # Panics
    /// If the number of values is another.
    pub fn new(values: &'a [f64], side: usize) -> Self {
        assert_eq!(values.len(), side * side, "a square matrix");
        Self { values, side }
    }
}

impl Kernel for Dense<'_> {
    fn side(&self) -> usize {
        self.side
    }

    fn mul(&self, x: &[f64], out: &mut [f64]) {
        subspan_linalg::par_mul_vec(self.values, x, out);
    }
}

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Largest deviation of a row sum from one.
    pub tolerance: f64,
    /// Plain sweeps before Newton steps.
    pub sweeps: usize,
    /// Products with the kernel after which to give up.
    pub max_products: usize,
    /// Conjugate gradient iterations per Newton step.
    pub max_inner: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { tolerance: 1e-6, sweeps: 20, max_products: 3000, max_inner: 60 }
    }
}

/// A scaling and how far it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// `ln u`.
    pub log_scale: Vec<f64>,
    /// Largest deviation of a row sum from one; infinite if a row of the kernel is empty.
    pub error: f64,
    /// Products with the kernel.
    pub products: usize,
    /// Whether the tolerance was reached.
    pub converged: bool,
}

/// Relative residual of the inner solves: a Newton step need not be better than its own quadratic error.
const INNER_TOLERANCE: f64 = 1e-2;
/// Largest change of `ln u` in one Newton step.
const MAX_STEP: f64 = 1.0;

/// Scales a symmetric kernel to unit row sums. Cost: one product per sweep and per inner iteration.
///
/// ```
/// use subspan::assign::sinkhorn::{Dense, Options, scale};
/// // Three rows, nothing on the diagonal: the only symmetric scaling halves each row.
/// let kernel = [0.0, 2.0, 5.0, 2.0, 0.0, 1.0, 5.0, 1.0, 0.0];
/// let u: Vec<f64> = scale(&Dense::new(&kernel, 3), &Options::default()).log_scale.iter().map(|f| f.exp()).collect();
/// assert!((u[0] * u[2] * 5.0 - 0.5).abs() < 1e-5);
/// ```
pub fn scale(kernel: &dyn Kernel, options: &Options) -> Scaling {
    scale_to(kernel, &vec![1.0; kernel.side()], options)
}

/// [`scale`] to given row sums: a row of mass 2 counts like two rows of mass 1 that share it. Errors are relative to the mass.
///
/// # Panics
/// If there is not one mass per row. Masses must be positive.
pub fn scale_to(kernel: &dyn Kernel, mass: &[f64], options: &Options) -> Scaling {
    let n = kernel.side();
    assert_eq!(mass.len(), n, "one mass per row");
    let mut state = State { kernel, mass, u: vec![1.0; n], sums: vec![0.0; n], products: 0 };
    state.update();
    let mut error = state.error();
    for _ in 0..options.sweeps {
        if !error.is_finite() || error <= options.tolerance {
            break;
        }
        state.sweep();
        error = state.error();
    }
    while error.is_finite() && error > options.tolerance && state.products < options.max_products {
        let before = state.u.clone();
        state.newton(options.max_inner);
        let reached = state.error();
        if reached.is_finite() && reached < error {
            error = reached;
        } else {
            state.u = before;
            state.update();
            for _ in 0..options.sweeps.max(1) {
                state.sweep();
            }
            error = state.error();
        }
    }
    let log_scale = state.u.iter().map(|u| u.ln()).collect();
    Scaling { log_scale, error, products: state.products, converged: error <= options.tolerance }
}

struct State<'a> {
    kernel: &'a dyn Kernel,
    /// What the rows shall sum to.
    mass: &'a [f64],
    u: Vec<f64>,
    /// `u ⊙ K u`.
    sums: Vec<f64>,
    products: usize,
}

impl State<'_> {
    fn update(&mut self) {
        self.kernel.mul(&self.u, &mut self.sums);
        self.sums.iter_mut().zip(&self.u).for_each(|(s, u)| *s *= u);
        self.products += 1;
    }

    fn error(&self) -> f64 {
        let off = self.sums.iter().zip(self.mass).map(|(s, m)| (s / m - 1.0).abs());
        let worst = off.fold(0.0, |m: f64, e| if e > m || e.is_nan() { e } else { m });
        // A row sum of zero or of NaN belongs to a row without entries.
        if self.sums.iter().all(|s| *s > 0.0) { worst } else { f64::INFINITY }
    }

    /// `u ← √(mass · u / K u) = u / √(row sum / mass)`.
    fn sweep(&mut self) {
        self.u.iter_mut().zip(&self.sums).zip(self.mass).for_each(|((u, s), m)| *u /= (s / m).sqrt());
        self.update();
    }

    /// `u ← u exp(δ)` with `(diag(row sums) + Γ) δ = mass − row sums`.
    fn newton(&mut self, max_inner: usize) {
        let n = self.u.len();
        let right: Vec<f64> = self.sums.iter().zip(self.mass).map(|(s, m)| m - s).collect();
        let mut scaled = vec![0.0; n];
        let (kernel, u, sums) = (self.kernel, &self.u, &self.sums);
        let (step, products) = conjugate_gradients(&right, INNER_TOLERANCE, max_inner, |x, out| {
            scaled.iter_mut().zip(u).zip(x).for_each(|((s, u), x)| *s = u * x);
            kernel.mul(&scaled, out);
            for i in 0..n {
                out[i] = out[i] * u[i] + sums[i] * x[i];
            }
        });
        self.products += products;
        self.u.iter_mut().zip(&step).for_each(|(u, d)| *u *= d.clamp(-MAX_STEP, MAX_STEP).exp());
        self.update();
    }
}

/// Solves `A x = b` for a positive semidefinite `A` and a `b` in its range, from zero; the solution and the products made.
pub(crate) fn conjugate_gradients(
    b: &[f64],
    tolerance: f64,
    max_iterations: usize,
    mut mul: impl FnMut(&[f64], &mut [f64]),
) -> (Vec<f64>, usize) {
    let n = b.len();
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let (mut x, mut r, mut p, mut ap) = (vec![0.0; n], b.to_vec(), b.to_vec(), vec![0.0; n]);
    let mut rr = dot(&r, &r);
    let goal = tolerance * tolerance * rr;
    let mut iterations = 0;
    while rr > goal && iterations < max_iterations {
        mul(&p, &mut ap);
        iterations += 1;
        let curvature = dot(&p, &ap);
        if curvature <= 0.0 || curvature.is_nan() {
            break;
        }
        let alpha = rr / curvature;
        for i in 0..n {
            x[i] += alpha * p[i];
            r[i] -= alpha * ap[i];
        }
        let next = dot(&r, &r);
        let beta = next / rr;
        rr = next;
        p.iter_mut().zip(&r).for_each(|(p, r)| *p = r + beta * *p);
    }
    (x, iterations)
}

/// What stands on the diagonal of an affinity before it is projected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diagonal {
    /// Nothing: a row is no evidence for itself.
    Zero,
    /// What the affinity has there.
    Keep,
}

/// A doubly stochastic matrix with the scaling that made it.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// `side x side`, exactly symmetric.
    pub gamma: Vec<f64>,
    /// The scaling of the kernel with absorbed row maxima.
    pub scaling: Scaling,
}

/// The doubly stochastic matrix nearest to `affinity` (symmetric, `side x side`) at temperature `eta`:
/// the maximiser of `<A, Γ> − η Σ Γ log Γ`. Cost: `8 side²` bytes and a product per iteration.
///
/// # Panics
/// If the affinity does not have that side, or `eta` is not positive.
pub fn project(affinity: &[f64], side: usize, eta: f64, diagonal: Diagonal, options: &Options) -> Projection {
    assert!(affinity.len() == side * side && eta > 0.0, "a square affinity and a positive temperature");
    let dropped = |i: usize, j: usize| i == j && diagonal == Diagonal::Zero;
    // Row maxima are absorbed into the scaling, so that no row underflows.
    let tops: Vec<f64> = (0..side)
        .map(|i| {
            (0..side).filter(|j| !dropped(i, *j)).map(|j| affinity[i * side + j]).fold(f64::NEG_INFINITY, f64::max)
        })
        .collect();
    let mut gamma = vec![0.0; side * side];
    gamma.par_chunks_mut(side).enumerate().for_each(|(i, row)| {
        for (j, k) in row.iter_mut().enumerate().filter(|(j, _)| !dropped(i, *j)) {
            *k = exp_capped((affinity[i * side + j] - 0.5 * (tops[i] + tops[j])) / eta);
        }
    });
    let scaling = scale(&Dense::new(&gamma, side), options);
    let u: Vec<f64> = scaling.log_scale.iter().map(|f| f.exp()).collect();
    gamma.par_chunks_mut(side).enumerate().for_each(|(i, row)| {
        // u_i u_j first: the same product for (i, j) and (j, i), so that Γ is symmetric to the last bit.
        row.iter_mut().zip(&u).for_each(|(g, uj)| *g *= u[i] * uj);
    });
    Projection { gamma, scaling }
}

/// `exp`, bounded so that products of two values stay finite.
pub(crate) fn exp_capped(x: f64) -> f64 {
    /// Above it, a pair of rows outweighs all others anyway.
    const CAP: f64 = 80.0;
    x.min(CAP).exp()
}

/// The gradient with respect to the affinity of a loss whose gradient with respect to `Γ` is `gradient`, through the whole
/// projection (the implicit function theorem at its fixed point; Eisenberger et al., CVPR 2022, for one symmetric scaling):
/// with `P` the symmetric part of `Γ ⊙ gradient / η`, solve `(I + Γ) λ = 2 P 1` and return `P − Γ ⊙ (λ 1ᵀ + 1 λᵀ)/2`.
///
/// # Panics
/// If the matrices do not have the same square shape.
pub fn project_gradient(gamma: &[f64], side: usize, gradient: &[f64], eta: f64) -> Vec<f64> {
    assert!(gamma.len() == side * side && gradient.len() == side * side, "square matrices");
    let mut out = vec![0.0; side * side];
    out.par_chunks_mut(side).enumerate().for_each(|(i, row)| {
        for (j, p) in row.iter_mut().enumerate() {
            let at = i * side + j;
            *p = 0.5 * gamma[at] * (gradient[at] + gradient[j * side + i]) / eta;
        }
    });
    let right: Vec<f64> = out.par_chunks(side).map(|row| 2.0 * row.iter().sum::<f64>()).collect();
    let (lambda, _) = conjugate_gradients(&right, GRADIENT_TOLERANCE, GRADIENT_ITERATIONS, |x, product| {
        subspan_linalg::par_mul_vec(gamma, x, product);
        product.iter_mut().zip(x).for_each(|(p, x)| *p += x);
    });
    out.par_chunks_mut(side).enumerate().for_each(|(i, row)| {
        for (j, p) in row.iter_mut().enumerate() {
            *p -= 0.5 * gamma[i * side + j] * (lambda[i] + lambda[j]);
        }
    });
    out
}

/// Relative residual of the gradient's linear system: finite differences then agree to about six digits.
const GRADIENT_TOLERANCE: f64 = 1e-8;
/// The system's condition is below 30 for temperatures that training uses.
const GRADIENT_ITERATIONS: usize = 200;

#[cfg(test)]
mod tests;
