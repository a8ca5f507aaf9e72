//! Newton's method for logistic regression, its equations solved by conjugate gradients.
//!
//! The loss and its gradient are those of all samples, the Hessian that of some of them (R. Byrd, G. Chin, W. Neveitt, J. Nocedal, "On
//! the use of stochastic Hessian information in optimization methods for machine learning", SIAM J. Optim. 21, 2011): a product with it
//! costs a fraction of a pass, and an approximate Hessian only makes more steps, it does not move the solution. Where a step turns out
//! too long, the Hessian has missed some curvature: it looks at twice the samples from then on.
//!
//! The Hessian of the mean loss is at most half the covariance in every direction (D. Böhning, "Multinomial logistic regression
//! algorithm", Ann. Inst. Stat. Math. 44, 1992) and has about its eigenvectors, so `h Σ + λ I` with the mean curvature `h` is a good
//! preconditioner: raw pixels, whose covariance spans six orders of magnitude, need some dozens of products instead of thousands.

use subspan_linalg::{Cholesky, Mat, cholesky};

use super::linear::dot;
use super::logistic::{Curvature, Logistic, Pass};
use crate::error::Result;

/// Largest entry of the gradient at a solution, over the typical size of one coordinate; that of the common implementations.
const TOLERANCE: f64 = 1e-4;
/// A solution is also one when the next step promises less than this share of the loss: what is left is far below what held-out
/// samples can tell, and close to the rounding of single precision.
const LEAST_DECREASE: f64 = 1e-6;
/// A point is near the solution when the step to it promised less than this share of the loss.
const NEAR: f64 = 1e-2;
/// Steps per penalty; the path's warm starts rarely need as many.
const MAX_STEPS: usize = 60;
/// Residual at which a step's equations are solved well enough, relative to the gradient (both in the preconditioner's norm): the
/// Hessian of some samples is no more accurate than that.
const RESIDUAL: f64 = 0.1;
/// Products with the Hessian per step, at most.
const MAX_PRODUCTS: usize = 60;
/// Share of the predicted decrease that a step must keep (Armijo).
const ARMIJO: f64 = 1e-4;
/// Halvings after which a direction is given up: single-precision losses cannot tell smaller steps apart.
const MAX_HALVINGS: usize = 20;

/// Minimises the penalised loss from `point` on, unless `give_up` says so of a point near the solution; returns
/// whether it did.
pub(crate) fn solve(
    problem: &Logistic<'_>,
    point: &mut Vec<f64>,
    penalty: f64,
    mut give_up: impl FnMut(&[f64]) -> Result<bool>,
) -> Result<bool> {
    let Pass { mut value, mut gradient, curvature } = problem.value(point, penalty)?;
    let start = Start::new(&problem.covariance, curvature, penalty)?;
    // Unit-length samples spread over d columns have gradients of that size.
    let tolerance = TOLERANCE / (problem.covariance.n_rows() as f64).sqrt();
    let mut sample = problem.sample(1)?;
    let mut doublings = 0;
    for _ in 0..MAX_STEPS {
        if gradient.iter().all(|g| g.abs() <= tolerance) {
            break;
        }
        let direction = direction(&problem.curvature(sample.as_ref(), point, penalty)?, &gradient, &start)?;
        let slope = dot(&direction, &gradient);
        let mut t = 1.0;
        let mut accepted = None;
        for _ in 0..MAX_HALVINGS {
            let next: Vec<f64> = point.iter().zip(&direction).map(|(p, d)| p + t * d).collect();
            let pass = problem.value(&next, penalty)?;
            if pass.value <= value + ARMIJO * t * slope {
                accepted = Some((next, pass));
                break;
            }
            t *= 0.5;
        }
        let Some((next, pass)) = accepted else { break };
        let (settled, near) = (-0.5 * slope <= LEAST_DECREASE * value, -0.5 * slope <= NEAR * value);
        (*point, value, gradient) = (next, pass.value, pass.gradient);
        if settled {
            break;
        }
        if near && give_up(point)? {
            return Ok(false);
        }
        if t < 1.0 && sample.is_some() {
            doublings += 1;
            sample = problem.sample(1 << doublings)?;
        }
    }
    Ok(true)
}

/// Minus the inverse Hessian times the gradient, nearly: preconditioned conjugate gradients from zero on, so always downhill.
fn direction(curvature: &Curvature<'_>, gradient: &[f64], start: &Start) -> Result<Vec<f64>> {
    let mut x = vec![0.0; gradient.len()];
    let mut residual: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut z = start.solve(&residual);
    let mut p = z.clone();
    let mut size = dot(&residual, &z);
    let target = RESIDUAL * RESIDUAL * size;
    for _ in 0..MAX_PRODUCTS {
        let product = curvature.times(&p)?;
        let bend = dot(&p, &product);
        if bend <= 0.0 {
            break;
        }
        let step = size / bend;
        x.iter_mut().zip(&p).for_each(|(x, p)| *x += step * p);
        residual.iter_mut().zip(&product).for_each(|(r, q)| *r -= step * q);
        z = start.solve(&residual);
        let next = dot(&residual, &z);
        if next <= target {
            break;
        }
        p.iter_mut().zip(&z).for_each(|(p, z)| *p = z + next / size * *p);
        size = next;
    }
    Ok(x)
}

/// The preconditioner: `(h Σ + λ I)⁻¹` for the weights of a class, `1/h` for its bias.
struct Start {
    factor: Cholesky,
    curvature: f64,
    d: usize,
}

impl Start {
    fn new(covariance: &Mat, curvature: f64, penalty: f64) -> Result<Self> {
        /// Of a classifier that is certain of every sample.
        const LEAST_CURVATURE: f64 = 1e-4;
        let (d, curvature) = (covariance.n_rows(), curvature.max(LEAST_CURVATURE));
        let hessian = Mat::from_fn(d, d, |i, j| curvature * covariance[(i, j)] + if i == j { penalty } else { 0.0 });
        Ok(Self { factor: cholesky(&hessian)?, curvature, d })
    }

    fn solve(&self, v: &[f64]) -> Vec<f64> {
        let n_classes = v.len() / (self.d + 1);
        let (weights, bias) = v.split_at(n_classes * self.d);
        let columns = Mat::from_fn(self.d, n_classes, |i, c| weights[c * self.d + i]);
        let mut out = self.factor.solve_mat(&columns).transpose().into_vec();
        out.extend(bias.iter().map(|b| b / self.curvature));
        out
    }
}
