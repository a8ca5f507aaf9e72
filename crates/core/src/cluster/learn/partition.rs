//! The loss of a representation whose clusters are known: every cluster near a subspace, different ones apart.

use super::super::rate::{Rates, before_unit, whole_rate};
use super::units;
use crate::error::Result;

/// The loss of [`partition_step`] with its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionStep {
    /// Of all rows, and of each cluster's own weighted by its share.
    pub rates: Rates,
    /// With respect to the rows before they were brought to length one, `B x d`.
    pub features: Vec<f32>,
}

/// The loss `−(R(Z) − Σ_k (n_k/n) R(Z_k))/2` of `d`-vectors as layers put them out, not brought to length one, and their clusters: the
/// rate reduction with a membership of zeros and ones (Yu et al., "Learning diverse and discriminative representations via the
/// principle of maximal coding rate reduction", NeurIPS 2020). Cost: `2 B d²` flop and a factorization of side `d` or of a
/// cluster's rows, whichever is smaller, for each.
///
/// # Errors
/// [`crate::Error::Linalg`] for outputs that are not finite.
///
/// # Panics
/// If there is not one label per row.
pub fn partition_step(features: &[f32], d: usize, labels: &[u32], clusters: usize, eps2: f64) -> Result<PartitionStep> {
    let n = labels.len();
    assert_eq!(features.len(), n * d, "a label per row");
    let ([rows, _], [lengths, _]) = units([features, &[]], d);
    let (whole, mut gradient) = whole_rate(&rows, d, eps2)?;
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); clusters];
    labels.iter().enumerate().for_each(|(i, label)| members[*label as usize].push(i));
    let mut parts = 0.0;
    for members in members.iter().filter(|members| !members.is_empty()) {
        let share = members.len() as f64 / n as f64;
        let own: Vec<f32> = members.iter().flat_map(|i| &rows[i * d..(i + 1) * d]).copied().collect();
        let (rate, by_rows) = whole_rate(&own, d, eps2)?;
        parts += share * rate;
        for (i, by_row) in members.iter().zip(by_rows.chunks_exact(d)) {
            let gradient = &mut gradient[i * d..(i + 1) * d];
            gradient.iter_mut().zip(by_row).for_each(|(g, v)| *g -= share as f32 * v);
        }
    }
    gradient.iter_mut().for_each(|g| *g *= -0.5);
    before_unit(&mut gradient, &rows, d, &lengths);
    Ok(PartitionStep { rates: Rates { whole, parts }, features: gradient })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    #[test]
    fn the_step_descends_its_loss_and_rests_where_clusters_fill_subspaces_of_their_own() {
        let (n, d, clusters) = (30, 6, 3);
        let mut rng = Stream::new(0, "outputs").rng(0);
        let rows: Vec<f32> = (0..n * d).map(|_| rng.normal() as f32).collect();
        let labels: Vec<u32> = (0..n as u32).map(|i| i % 7 % 3).collect();
        let at = |rows: &[f32]| partition_step(rows, d, &labels, clusters, 0.1).unwrap();
        let step = at(&rows);
        assert!(step.rates.parts > 0.0 && step.rates.parts < step.rates.whole);
        let square: f64 = step.features.iter().map(|g| f64::from(*g).powi(2)).sum();
        let h = 1e-2 / square.sqrt();
        let loss = |sign: f64| {
            let moved: Vec<f32> = rows.iter().zip(&step.features).map(|(v, g)| v + (sign * h) as f32 * g).collect();
            -0.5 * at(&moved).rates.reduction()
        };
        let slope = (loss(1.0) - loss(-1.0)) / (2.0 * h);
        assert!((slope / square - 1.0).abs() < 0.02, "{slope} {square}");
        // Clusters on two axes each, both as often: a stationary point.
        let labels: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
        let mut ideal = vec![0f32; n * d];
        (0..n).for_each(|i| ideal[i * d + 2 * (i % 3) + i / 3 % 2] = 2.0);
        let step = partition_step(&ideal, d, &labels, clusters, 0.1).unwrap();
        assert!(step.features.iter().all(|g| g.abs() < 1e-6));
        assert!(
            (step.rates.whole - 6.0 * 11f64.ln()).abs() < 1e-6 && (step.rates.parts - 2.0 * 31f64.ln()).abs() < 1e-6
        );
    }
}
