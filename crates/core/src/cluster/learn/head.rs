//! What a trained head is: dense layers from unit rows to unit rows.

use rayon::prelude::*;
use subspan_linalg::gemm;

use super::super::prepare::{BLOCK, to_unit};

/// A dense layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// `outputs x inputs`.
    pub weights: Vec<f32>,
    /// One per output.
    pub bias: Vec<f32>,
}

/// A trained head: two stacks of dense layers with rectifiers between them, each to unit rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// To the representation `z`.
    pub features: Vec<Layer>,
    /// To the rows `q` whose cosines are the affinity.
    pub clusters: Vec<Layer>,
}

impl Layer {
    /// Values of an output.
    pub fn n_out(&self) -> usize {
        self.bias.len()
    }

    /// Values of an input.
    pub fn n_in(&self) -> usize {
        self.weights.len() / self.bias.len()
    }

    /// Outputs of whole blocks of rows.
    fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; rows.len() / self.n_in() * self.n_out()];
        gemm::mul_transposed(rows, &self.weights, self.n_in(), &mut out);
        out.chunks_exact_mut(self.n_out()).for_each(|row| row.iter_mut().zip(&self.bias).for_each(|(v, b)| *v += b));
        out
    }
}

impl Head {
    /// Values of a representation row.
    pub fn n_features(&self) -> usize {
        self.features.last().map_or(0, Layer::n_out)
    }

    /// Values of a cluster row.
    pub fn n_clusters(&self) -> usize {
        self.clusters.last().map_or(0, Layer::n_out)
    }

    /// `z` of rows; a row's image does not depend on which rows come with it.
    ///
    /// # Panics
    /// If `rows` does not hold whole rows.
    pub fn representation(&self, rows: &[f32]) -> Vec<f32> {
        apply(&self.features, rows)
    }

    /// `q` of rows, as [`representation`](Self::representation).
    ///
    /// # Panics
    /// If `rows` does not hold whole rows.
    pub fn cluster_rows(&self, rows: &[f32]) -> Vec<f32> {
        apply(&self.clusters, rows)
    }
}

/// Unit rows at the end of a stack of layers with rectifiers between them; a row's image does not depend on which rows come with it.
pub(crate) fn apply(layers: &[Layer], rows: &[f32]) -> Vec<f32> {
    let (Some(first), Some(last)) = (layers.first(), layers.last()) else { return rows.to_vec() };
    let (d, n_out) = (first.n_in(), last.n_out());
    assert!(rows.len().is_multiple_of(d), "whole rows");
    let mut out = vec![0f32; rows.len() / d * n_out];
    out.par_chunks_mut(BLOCK * n_out).zip(rows.par_chunks(BLOCK * d)).for_each(|(out, rows)| {
        let mut values = rows.to_vec();
        values.resize(BLOCK * d, 0.0);
        for (k, layer) in layers.iter().enumerate() {
            if k > 0 {
                values.iter_mut().for_each(|v| *v = v.max(0.0));
            }
            values = layer.apply(&values);
        }
        out.copy_from_slice(&values[..out.len()]);
        out.chunks_exact_mut(n_out).for_each(to_unit);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    #[test]
    fn images_do_not_depend_on_their_company() {
        let mut rng = Stream::new(1, "layers").rng(0);
        let mut layer = |inputs: usize, outputs: usize| Layer {
            weights: (0..inputs * outputs).map(|_| rng.normal() as f32).collect(),
            bias: (0..outputs).map(|_| rng.normal() as f32).collect(),
        };
        let head = Head { features: vec![layer(6, 9), layer(9, 7), layer(7, 3)], clusters: vec![layer(6, 2)] };
        let rows: Vec<f32> = (0..100 * 6).map(|_| rng.normal() as f32).collect();
        let one = &rows[70 * 6..71 * 6];
        let (z, q) = (head.representation(&rows), head.cluster_rows(&rows));
        assert_eq!(z[210..213], head.representation(one));
        assert_eq!(q[140..142], head.cluster_rows(one));
        assert!(z.chunks_exact(3).all(|r| (r.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5));
        // Rectifiers are between layers only: signs of the last one stay.
        let sum: f32 = (0..6).map(|c| head.clusters[0].weights[c] * one[c]).sum::<f32>() + head.clusters[0].bias[0];
        assert_eq!(q[140].signum(), sum.signum());
    }
}
