//! The loss as the authors published it (Chu et al., ICLR 2024), for comparison: their truncated layer with its diagonal, columns
//! weighted by their sums, half of each rate and a penalty on the membership's squares. One view of each row.

use subspan_linalg::{Real, gemm};

use super::super::rate::{Columns, Rates, before_unit, rate_gradient};
use crate::assign::truncated::{fixed_bias_gradient, softmax_with_bias};
use crate::error::Result;

/// Weight of half the membership's sum of squares.
const PENALTY: f64 = 0.05;

/// The loss with its gradient with respect to the outputs of both heads.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedStep<T> {
    /// `−R/2 + Rc/2 + 0.05 ‖Γ‖²/2`.
    pub loss: f64,
    /// The two rates.
    pub rates: Rates,
    /// The membership, `B x B`; rows sum to one.
    pub membership: Vec<f64>,
    /// With respect to the features before they were brought to length one, `B x d`.
    pub features: Vec<T>,
    /// With respect to the cluster rows before they were brought to length one, `B x d`.
    pub clusters: Vec<T>,
}

/// The published loss of a batch of `d`-vectors as two heads put them out, not brought to length one.
///
/// # Errors
/// [`crate::Error::Linalg`] for outputs that are not finite.
///
/// # Panics
/// If the shapes do not fit each other, or `eta` or `eps2` is not positive.
pub fn published_step<T: Real>(
    features: &[T],
    clusters: &[T],
    d: usize,
    eta: f64,
    eps2: f64,
) -> Result<PublishedStep<T>> {
    assert!(features.len() == clusters.len() && features.len().is_multiple_of(d), "whole rows of both heads");
    let n = features.len() / d;
    let (z, z_lengths) = unit(features, d);
    let (q, q_lengths) = unit(clusters, d);
    let mut products = vec![T::default(); n * n];
    gemm::mul_transposed(&q, &q, d, &mut products);
    let affinity: Vec<f64> = products.iter().map(|v| v.to_f64().abs()).collect();
    let (gamma, _) = softmax_with_bias(&affinity, n, eta);
    let membership: Vec<T> = gamma.iter().map(|g| T::from_f64(*g)).collect();
    let rate = rate_gradient(&z, d, &membership, eps2, Columns::Sums)?;
    let squares: f64 = gamma.iter().map(|g| g * g).sum();
    let loss = -0.5 * rate.rates.reduction() + 0.5 * PENALTY * squares;
    let mut by_features: Vec<T> = rate.rows.iter().map(|g| T::from_f64(-0.5 * g.to_f64())).collect();
    before_unit(&mut by_features, &z, d, &z_lengths);
    let upstream: Vec<f64> = rate.membership.iter().zip(&gamma).map(|(r, g)| -0.5 * r.to_f64() + PENALTY * g).collect();
    let by_affinity = fixed_bias_gradient(&gamma, n, &upstream, eta);
    let signed: Vec<T> = (0..n * n)
        .map(|at| {
            let both = by_affinity[at] + by_affinity[at % n * n + at / n];
            let product = products[at].to_f64();
            T::from_f64(if product == 0.0 { 0.0 } else { product.signum() * both })
        })
        .collect();
    let mut by_clusters = vec![T::default(); n * d];
    gemm::mul(&signed, n, &q, d, &mut by_clusters);
    before_unit(&mut by_clusters, &q, d, &q_lengths);
    Ok(PublishedStep { loss, rates: rate.rates, membership: gamma, features: by_features, clusters: by_clusters })
}

/// Keeps the gradient of a vanishing row finite.
const SHORTEST: f64 = 1e-12;

/// Unit rows and the lengths they had.
fn unit<T: Real>(rows: &[T], d: usize) -> (Vec<T>, Vec<f64>) {
    let lengths: Vec<f64> = rows
        .chunks_exact(d)
        .map(|row| row.iter().map(|v| v.to_f64().powi(2)).sum::<f64>().sqrt().max(SHORTEST))
        .collect();
    let units =
        rows.chunks_exact(d).zip(&lengths).flat_map(|(row, l)| row.iter().map(move |v| T::from_f64(v.to_f64() / l)));
    (units.collect(), lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    #[test]
    fn rows_are_exact_and_gradients_agree_with_differences_at_fixed_biases() {
        let (n, d, eta, eps2) = (14, 5, 0.2, 0.1);
        let mut rng = Stream::new(2, "heads").rng(0);
        let mut draw = || -> Vec<f64> { (0..n * d).map(|_| rng.normal()).collect() };
        let (z, q) = (draw(), draw());
        let step = published_step(&z, &q, d, eta, eps2).unwrap();
        let affinity = |q: &[f64]| -> Vec<f64> {
            let (q, _) = unit(q, d);
            (0..n * n).map(|at| (0..d).map(|l| q[at / n * d + l] * q[at % n * d + l]).sum::<f64>().abs()).collect()
        };
        let (gamma, bias) = softmax_with_bias(&affinity(&q), n, eta);
        assert!(gamma.iter().zip(&step.membership).all(|(a, b)| (a - b).abs() < 1e-12));
        for row in gamma.chunks_exact(n) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        // Five half-steps leave the columns close to one.
        assert!((0..n).all(|j| ((0..n).map(|i| gamma[i * n + j]).sum::<f64>() - 1.0).abs() < 0.05));
        let loss = |z: &[f64], q: &[f64]| {
            let a = affinity(q);
            let mut g = vec![0.0; n * n];
            for i in 0..n {
                let e: Vec<f64> = (0..n).map(|j| ((a[i * n + j] + bias[j]) / eta).exp()).collect();
                let sum: f64 = e.iter().sum();
                (0..n).for_each(|j| g[i * n + j] = e[j] / sum);
            }
            let rates = rate_gradient(&unit(z, d).0, d, &g, eps2, Columns::Sums).unwrap().rates;
            -0.5 * rates.reduction() + 0.025 * g.iter().map(|v| v * v).sum::<f64>()
        };
        assert!((loss(&z, &q) - step.loss).abs() < 1e-12);
        let h = 1e-5;
        for at in 0..n * d {
            let moved = |which: usize, by: f64| {
                let mut both = [z.clone(), q.clone()];
                both[which][at] += by;
                loss(&both[0], &both[1])
            };
            for (which, found) in [(0, step.features[at]), (1, step.clusters[at])] {
                let slope = (moved(which, h) - moved(which, -h)) / (2.0 * h);
                assert!((found - slope).abs() < 1e-7, "{which} {at}: {found} {slope}");
            }
        }
    }
}
