//! Manifold linearizing and clustering: the loss of a trained head, and what the head is.
//!
//! A head maps unit rows to features `z`, in which clusters become subspaces, and to `q`, whose absolute cosines make the membership
//! `Γ`. Both are trained to raise `R(Z) − Rc(Z, Γ)` (see [`super::rate`]). A row's second view is one of its neighbours in the graph
//! that the projection chose: features are frozen, so there is nothing else to augment. Once it is known which clusters are kept, a representation
//! is trained anew with them in place of `Γ`.

mod head;
mod partition;
pub mod published;

use subspan_linalg::gemm;

pub(crate) use head::apply;
pub use head::{Head, Layer};
pub use partition::{PartitionStep, partition_step};

use super::prepare::to_unit;
use super::rate::fast::Shortcut;
use super::rate::{Columns, Rates, before_unit, rate_gradient, whole_rate};
use crate::assign::sinkhorn::{Diagonal, Options, project, project_gradient};
use crate::error::Result;

/// What a learner is given.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// Unit rows, `n x n_cols`.
    pub rows: &'a [f32],
    /// Values per row.
    pub n_cols: usize,
    /// What each row counts, one on average; empty where all count alike.
    pub weights: &'a [f64],
    /// The nearest rows of each, `n x k`.
    pub neighbours: &'a [u32],
    /// Neighbours per row.
    pub k: usize,
    /// Seed of every random choice.
    pub seed: u64,
}

/// Trains heads; lives where networks are.
pub trait Learner {
    /// Trains on a problem. `judge` gives a head's held-out code length in bits per row, the smaller the better; the head
    /// judged best is returned.
    ///
    /// # Errors
    /// What the judge reports, divergence, cancellation.
    fn learn(&self, problem: &Problem<'_>, judge: &mut dyn FnMut(&Head) -> Result<f64>) -> Result<Head>;

    /// Trains layers to a representation in which each of the clusters that `labels` say lies near a subspace of its own.
    ///
    /// # Errors
    /// Divergence, cancellation.
    fn linearize(&self, problem: &Problem<'_>, labels: &[u32], clusters: usize) -> Result<Vec<Layer>>;
}

/// Two views of the same rows as a head puts them out, not brought to length one.
#[derive(Debug, Clone, Copy)]
pub struct Views<'a> {
    /// `B x d` each.
    pub features: [&'a [f32]; 2],
    /// `B x d` each.
    pub clusters: [&'a [f32]; 2],
    /// `d`.
    pub n_dims: usize,
}

/// A loss with its gradient with respect to the outputs of the head.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The rates; `parts` is zero in the warm-up, where there are no parts.
    pub rates: Rates,
    /// Of each view's features.
    pub features: [Vec<f32>; 2],
    /// Of each view's cluster rows; empty in the warm-up.
    pub clusters: [Vec<f32>; 2],
}

/// The warm-up loss `−R(Z)/2 − λ mean z¹·z²`, with `Z` the unit mean of both views and `similarity` for `λ`.
///
/// # Errors
/// [`crate::Error::Linalg`] for outputs that are not finite.
pub fn spread_step(views: &Views<'_>, eps2: f64, similarity: f64) -> Result<Step> {
    let d = views.n_dims;
    let ([a, b], lengths) = units(views.features, d);
    let (mean, mean_lengths) = mean_rows(&a, &b, d);
    let (whole, mut gradient) = whole_rate(&mean, d, eps2)?;
    gradient.iter_mut().for_each(|g| *g *= -0.5);
    before_unit(&mut gradient, &mean, d, &mean_lengths);
    let features = per_view(gradient, [&a, &b], &lengths, d, similarity);
    Ok(Step { rates: Rates { whole, parts: 0.0 }, features, clusters: [Vec::new(), Vec::new()] })
}

/// The gradients with respect to both views before they were brought to length one, from that with respect to their sum, of a loss
/// that also has `−λ mean z¹·z²`.
fn per_view(by_sum: Vec<f32>, units: [&[f32]; 2], lengths: &[Vec<f64>; 2], d: usize, similarity: f64) -> [Vec<f32>; 2] {
    let pull = (similarity * d as f64 / by_sum.len() as f64) as f32;
    let mut features = [by_sum.clone(), by_sum];
    for (own, gradient) in features.iter_mut().enumerate() {
        gradient.iter_mut().zip(units[1 - own]).for_each(|(g, v)| *g -= pull * v);
        before_unit(gradient, units[own], d, &lengths[own]);
    }
    features
}

/// The loss `−(R(Z) − Rc(Z, Γ))/2 − λ mean z¹·z²`, with `Z` the unit mean and `Γ` the mean membership of both views at temperature
/// `eta`, and `similarity` for `λ`; the gradient goes through the whole projection. With a shortcut the rates come from it as long as
/// it passes its gate. Cost: see [`rate_gradient`].
///
/// # Errors
/// [`crate::Error::Linalg`] for outputs that are not finite.
pub fn manifold_step(
    views: &Views<'_>,
    eta: f64,
    eps2: f64,
    similarity: f64,
    shortcut: Option<&mut Shortcut>,
) -> Result<Step> {
    let d = views.n_dims;
    let n = views.features[0].len() / d;
    let ([a, b], lengths) = units(views.features, d);
    let (mean, mean_lengths) = mean_rows(&a, &b, d);
    let (q, q_lengths) = units(views.clusters, d);
    let products: Vec<Vec<f32>> = q
        .iter()
        .map(|q| {
            let mut out = vec![0f32; n * n];
            gemm::mul_transposed(q, q, d, &mut out);
            out
        })
        .collect();
    let gammas: Vec<Vec<f64>> = products
        .iter()
        .map(|p| {
            // The same value for (i, j) and (j, i), whatever the product's rounding.
            let affinity: Vec<f64> =
                (0..n * n).map(|at| f64::from(p[(at / n).min(at % n) * n + (at / n).max(at % n)].abs())).collect();
            project(&affinity, n, eta, Diagonal::Zero, &Options::default()).gamma
        })
        .collect();
    let gamma: Vec<f32> = gammas[0].iter().zip(&gammas[1]).map(|(a, b)| (0.5 * (a + b)) as f32).collect();
    // Half of the loss's −1/2: each view is half of the mean membership.
    let by_affinity = |membership: &[f32], view: usize| {
        let upstream: Vec<f64> = membership.iter().map(|g| -0.25 * f64::from(*g)).collect();
        project_gradient(&gammas[view], n, &upstream, eta)
    };
    let rate = match shortcut {
        None => rate_gradient(&mean, d, &gamma, eps2, Columns::Unit)?,
        Some(shortcut) => {
            shortcut.step(&mean, d, &gamma, eps2, &|g: &[f32]| [by_affinity(g, 0), by_affinity(g, 1)].concat())?
        }
    };
    let mut gradient = rate.rows;
    gradient.iter_mut().for_each(|g| *g *= -0.5);
    before_unit(&mut gradient, &mean, d, &mean_lengths);
    let features = per_view(gradient, [&a, &b], &lengths, d, similarity);
    let clusters = [0, 1].map(|v| {
        let by_affinity = by_affinity(&rate.membership, v);
        let signed: Vec<f32> = (0..n * n)
            .map(|at| {
                let sign = products[v][at].partial_cmp(&0.0).map_or(0.0, |o| o as i8 as f64);
                if at / n == at % n { 0.0 } else { (2.0 * sign * by_affinity[at]) as f32 }
            })
            .collect();
        let mut out = vec![0f32; n * d];
        gemm::mul(&signed, n, &q[v], d, &mut out);
        before_unit(&mut out, &q[v], d, &q_lengths[v]);
        out
    });
    Ok(Step { rates: rate.rates, features, clusters })
}

/// Unit rows of both views and the lengths they had.
fn units(views: [&[f32]; 2], d: usize) -> ([Vec<f32>; 2], [Vec<f64>; 2]) {
    let lengths = views.map(|rows| {
        let length = |row: &[f32]| row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
        rows.chunks_exact(d).map(|r| length(r).max(SHORTEST)).collect()
    });
    let rows = views.map(|rows| {
        let mut rows = rows.to_vec();
        rows.chunks_exact_mut(d).for_each(to_unit);
        rows
    });
    (rows, lengths)
}

/// Keeps the gradient of a vanishing row finite.
const SHORTEST: f64 = 1e-6;

/// The unit means of two unit rows each, and the lengths of the sums.
fn mean_rows(a: &[f32], b: &[f32], d: usize) -> (Vec<f32>, Vec<f64>) {
    let sum: Vec<f32> = a.iter().zip(b).map(|(a, b)| a + b).collect();
    let ([mean, _], [lengths, _]) = units([&sum, &[]], d);
    (mean, lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    const LAMBDA: f64 = 2.0;

    #[test]
    fn the_steps_descend_their_losses() {
        let (n, d) = (24, 5);
        let mut rng = Stream::new(0, "outputs").rng(0);
        let mut outputs: Vec<Vec<f32>> = (0..4).map(|_| (0..n * d).map(|_| rng.normal() as f32).collect()).collect();
        // Second views close to the first.
        for v in [1, 3] {
            let near: Vec<f32> = outputs[v - 1].iter().zip(&outputs[v]).map(|(a, b)| a + 0.3 * b).collect();
            outputs[v] = near;
        }
        let views =
            |o: &[Vec<f32>]| -> [[Vec<f32>; 2]; 2] { [[o[0].clone(), o[1].clone()], [o[2].clone(), o[3].clone()]] };
        let at = |o: &[Vec<f32>]| {
            let [features, clusters] = views(o);
            let views =
                Views { features: [&features[0], &features[1]], clusters: [&clusters[0], &clusters[1]], n_dims: d };
            manifold_step(&views, 0.2, 0.1, LAMBDA, None).unwrap()
        };
        let step = at(&outputs);
        let loss = |o: &[Vec<f32>]| {
            let ([a, b], _) = units([&o[0], &o[1]], d);
            let cosines: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a * b)).sum();
            -0.5 * at(o).rates.reduction() - LAMBDA * cosines / n as f64
        };
        let gradients = [&step.features[0], &step.features[1], &step.clusters[0], &step.clusters[1]];
        for part in 0..4 {
            let square: f64 = gradients[part].iter().map(|g| f64::from(*g).powi(2)).sum();
            let h = 1e-2 / square.sqrt();
            let moved = |sign: f64| {
                let mut o = outputs.clone();
                o[part].iter_mut().zip(gradients[part]).for_each(|(v, g)| *v += (sign * h) as f32 * g);
                loss(&o)
            };
            let slope = (moved(1.0) - moved(-1.0)) / (2.0 * h);
            assert!((slope / square - 1.0).abs() < 0.02, "part {part}: {slope} {square}");
        }
        let rates = step.rates;
        assert!(rates.parts > 0.0 && rates.parts < rates.whole);
    }
}
