//! `R(γ)`: how far the singular directions of two models agree.
//!
//! `R(γ) = Σ_l Σ_ij (u_i^A · P u_j^B)(v_i^A · Q v_j^B) / Σ_l k_l` over directions with `s ≥ γ s_max` of their own layer and model,
//! `k_l` the smaller number of kept ones. The double sum is `⟨U_A V_Aᵀ, P U_B V_Bᵀ Qᵀ⟩`, so it needs no pairing of directions and does
//! not depend on the basis within a degenerate singular value; by von Neumann's inequality `|R| ≤ 1`.

use serde::Serialize;
use subspan_linalg::Mat;

use super::super::layout::Layout;
use super::super::permutations::Permutations;
use super::spectrum::LayerSpectrum;

/// Inner products of the singular directions of one layer of two models, all pairs.
pub struct LayerOverlap {
    /// Name of the tensor.
    pub name: String,
    /// `u_i^A · P u_j^B`.
    pub left: Mat,
    /// `v_i^A · Q v_j^B`.
    pub right: Mat,
}

/// The inner products of every layer: enough for `R(γ)` at any γ.
pub struct Overlaps<'a> {
    a: &'a [LayerSpectrum],
    b: &'a [LayerSpectrum],
    /// One per layer.
    pub layers: Vec<LayerOverlap>,
}

/// `R(γ)` of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerAlignment {
    /// Name of the tensor.
    pub name: String,
    /// The layer's own `R`.
    pub r: f64,
    /// `‖U_Aᵀ P U_B‖² / k`: how far the spans of the left directions agree.
    pub left: f64,
    /// The same of the right directions.
    pub right: f64,
    /// Directions kept of each model.
    pub kept: [usize; 2],
}

/// `R(γ)` of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alignment {
    /// The threshold.
    pub gamma: f64,
    /// Over all layers.
    pub total: f64,
    /// Of each layer.
    pub per_layer: Vec<LayerAlignment>,
}

/// The inner products between the directions of `a` and those of `b` moved by `permutations`. Cost: `4 k² n` flop per layer.
///
/// # Panics
/// If the spectra are of different layers.
pub fn overlaps<'a>(
    layout: &Layout,
    a: &'a [LayerSpectrum],
    b: &'a [LayerSpectrum],
    permutations: &Permutations,
) -> Overlaps<'a> {
    assert_eq!(a.len(), b.len(), "spectra of the same layers");
    let layers = a
        .iter()
        .zip(b)
        .map(|(a, b)| {
            assert_eq!((&a.name, a.shape), (&b.name, b.shape), "spectra of the same layers");
            let (rows, columns) = unfolded_sources(layout, &a.name, permutations);
            let left = a.svd.u.transpose().mul(&gather(&b.svd.u, rows.as_deref()));
            let right = a.svd.v.transpose().mul(&gather(&b.svd.v, columns.as_deref()));
            LayerOverlap { name: a.name.clone(), left, right }
        })
        .collect();
    Overlaps { a, b, layers }
}

impl Overlaps<'_> {
    /// `R(γ)`, in total and per layer. A layer without directions counts for nothing; without any, the total is 0.
    pub fn alignment(&self, gamma: f64) -> Alignment {
        let (mut sum, mut count) = (0.0, 0);
        let mut per_layer = Vec::new();
        for ((a, b), layer) in self.a.iter().zip(self.b).zip(&self.layers) {
            let kept = [a.kept(gamma), b.kept(gamma)];
            let (mut both, mut left, mut right) = (0.0, 0.0, 0.0);
            for i in 0..kept[0] {
                for (l, r) in layer.left.row(i)[..kept[1]].iter().zip(&layer.right.row(i)[..kept[1]]) {
                    both += l * r;
                    left += l * l;
                    right += r * r;
                }
            }
            let k = kept[0].min(kept[1]);
            sum += both;
            count += k;
            let share = |v: f64| if k > 0 { v / k as f64 } else { 0.0 };
            per_layer.push(LayerAlignment {
                name: layer.name.clone(),
                r: share(both),
                left: share(left),
                right: share(right),
                kept,
            });
        }
        let total = if count > 0 { sum / count as f64 } else { 0.0 };
        Alignment { gamma, total, per_layer }
    }
}

/// Where rows and columns of the unfolded tensor come from; `None` where nothing moves.
pub(super) fn unfolded_sources(
    layout: &Layout,
    name: &str,
    permutations: &Permutations,
) -> (Option<Vec<usize>>, Option<Vec<usize>>) {
    let mut sources = layout.sources(name, permutations);
    let shape = layout.tensor(name).map_or(&[][..], |t| &t.shape);
    if sources.is_empty() {
        return (None, None);
    }
    let inner = sources.split_off(1);
    let rows = sources.pop().flatten();
    if inner.iter().all(Option::is_none) {
        return (rows, None);
    }
    let mut columns = vec![0];
    for (source, length) in inner.iter().zip(&shape[1..]) {
        let step = |at: &usize| {
            let at = at * length;
            (0..*length).map(move |x| at + source.as_ref().map_or(x, |s| s[x]))
        };
        columns = columns.iter().flat_map(step).collect();
    }
    (rows, Some(columns))
}

/// Rows of `m` in the order of `source`.
fn gather(m: &Mat, source: Option<&[usize]>) -> Mat {
    match source {
        None => m.clone(),
        Some(source) => {
            let rows: Vec<f64> = source.iter().flat_map(|i| m.row(*i)).copied().collect();
            Mat::from_vec(source.len(), m.n_cols(), rows)
        }
    }
}
