//! Singular values and directions of every layer.

use rayon::prelude::*;
use subspan_linalg::{Mat, ThinSvd, thin_svd};

use super::super::layout::Layout;
use super::super::model::Model;
use super::super::{MergeError, Result};
use crate::Observer;
use crate::error::Error;
use crate::observe::Event;

/// The singular value decomposition of one weight.
pub struct LayerSpectrum {
    /// Name of the tensor.
    pub name: String,
    /// Rows and columns after unfolding.
    pub shape: [usize; 2],
    /// `W = U diag(s) Vᵀ`, thin.
    pub svd: ThinSvd,
    /// Number of singular values above `max(shape) · 2⁻⁵² · s_max`, the rounding of the decomposition.
    pub rank: usize,
}

impl LayerSpectrum {
    /// Number of directions with `s ≥ γ s_max` (and above rounding).
    pub fn kept(&self, gamma: f64) -> usize {
        let cut = gamma * self.svd.s.first().copied().unwrap_or(0.0);
        self.svd.s[..self.rank].partition_point(|s| *s >= cut)
    }

    /// `max |s_A − s_B| / max(s_max)`: how much two spectra differ.
    pub fn gap(&self, other: &Self) -> f64 {
        let largest = self.svd.s.iter().chain(&other.svd.s).copied().fold(0.0, f64::max);
        let pairs = self.svd.s.iter().zip(&other.svd.s);
        if largest > 0.0 { pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest } else { 0.0 }
    }
}

/// The decomposition of every weight of two or more axes that takes part in the distance, in the order of the layout. Layers
/// run in parallel. Cost: about `20 m² n` flop for a layer of `n x m`, `m ≤ n`.
///
/// # Errors
/// A tensor the model lacks, entries that are not finite, an interrupt.
pub fn spectra(layout: &Layout, model: &dyn Model, observer: &dyn Observer) -> Result<Vec<LayerSpectrum>> {
    let layers: Vec<_> = layout.tensors.iter().filter(|t| t.in_cost && t.shape.len() >= 2).collect();
    let one = |name: &str| -> Result<LayerSpectrum> {
        if observer.cancelled() {
            return Err(Error::Cancelled.into());
        }
        let view = model.require(name)?;
        let rows = view.shape[0];
        let columns = view.shape[1..].iter().product();
        let svd = thin_svd(&Mat::from_vec(rows, columns, view.to_f64())).map_err(Error::from)?;
        let rounding = rows.max(columns) as f64 * f64::EPSILON * svd.s.first().copied().unwrap_or(0.0);
        let rank = svd.s.partition_point(|s| *s > rounding);
        observer.event(Event::Advance { steps: 1 });
        Ok(LayerSpectrum { name: name.into(), shape: [rows, columns], svd, rank })
    };
    layers.par_iter().map(|t| one(&t.name)).collect::<Result<Vec<_>, MergeError>>()
}
