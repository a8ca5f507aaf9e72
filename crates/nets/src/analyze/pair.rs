//! The analysis of two models.

use serde::Serialize;
use subspan::merge::analysis::{Alignment, Barrier, LayerSpectrum, overlaps, spectra};
use subspan::merge::{Comparison, Layout, Model, Permutations, compare, match_weights};
use subspan::{Event, Observer};

use crate::error::Result;
use crate::tensor::Params;

use super::activations::match_activations;
use super::curve::{Curves, Evaluation, params_of};
use super::intervention::{Intervention, intervene};
use super::{AnalyzeConfig, Method};

/// A distance before and after matching.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Distance {
    /// Name of the tensor.
    pub name: String,
    /// `‖A − B‖`.
    pub before: f64,
    /// `‖A − π(B)‖`.
    pub after: f64,
}

/// The singular values of one layer of both models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spectrum {
    /// Name of the tensor.
    pub name: String,
    /// Of the first model, descending.
    pub first: Vec<f64>,
    /// Of the second.
    pub second: Vec<f64>,
    /// `max |s_A − s_B| / s_max`.
    pub gap: f64,
    /// Directions at or above the threshold, of both.
    pub kept: [usize; 2],
}

/// All that is known of two models.
#[derive(Debug, Clone)]
pub struct PairAnalysis {
    /// The permutations of the second.
    pub permutations: Permutations,
    /// `Σ ⟨A, B⟩` and `‖A − B‖` before and after, in total and per tensor.
    pub before: Comparison,
    /// After matching.
    pub after: Comparison,
    /// Sweeps of weight matching; none for another method.
    pub sweeps: Option<usize>,
    /// Whether the matching is proved to be the best, perm by perm.
    pub certified: bool,
    /// What that proves.
    pub certificate_scope: Option<subspan::merge::Scope>,
    /// Singular values.
    pub spectra: Vec<Spectrum>,
    /// `R(γ)` before and after matching for each threshold.
    pub alignment: Vec<[Alignment; 2]>,
    /// `R(γ)` between the merged model and the first.
    pub merged_alignment: Alignment,
    /// Curves, with data.
    pub curves: Option<Curves>,
    /// The Taylor estimate and the truth, before and after matching, with data and without BatchNorm.
    pub taylor: Option<[(f64, f64); 2]>,
    /// Matching on parts of the directions.
    pub intervention: Option<Intervention>,
}

impl PairAnalysis {
    /// `1 − ‖A − π(B)‖ / ‖A − B‖`; 0 for equal models.
    pub fn distance_reduction(&self) -> f64 {
        reduction(&self.before, &self.after)
    }

    /// Distances per tensor.
    pub fn distances(&self) -> Vec<Distance> {
        let pairs = self.before.tensors.iter().zip(&self.after.tensors);
        pairs
            .map(|((name, b), (_, a))| Distance {
                name: name.clone(),
                before: b.distance.sqrt(),
                after: a.distance.sqrt(),
            })
            .collect()
    }

    /// Barriers before and after matching.
    pub fn barriers(&self) -> Option<[Barrier; 2]> {
        self.curves.as_ref().map(|c| [Barrier::of(&c.raw), Barrier::of(&c.matched)])
    }

    /// `R` at the configured threshold, before and after.
    pub fn alignment_at(&self, gamma: f64) -> Option<&[Alignment; 2]> {
        self.alignment.iter().find(|pair| pair[0].gamma == gamma)
    }
}

/// `1 − after / before`; 0 for equal models.
pub(crate) fn reduction(before: &Comparison, after: &Comparison) -> f64 {
    let whole = before.distance();
    if whole == 0.0 { 0.0 } else { 1.0 - after.distance() / whole }
}

/// Matches `b` to `a` and analyses what that changes.
///
/// # Errors
/// Models that cannot be matched; parameters or samples that do not fit the network; an interrupt.
///
/// # Panics
/// If the models are not alike.
pub fn analyze_pair(
    layout: &Layout,
    a: &dyn Model,
    b: &dyn Model,
    evaluation: Option<&Evaluation<'_>>,
    config: &AnalyzeConfig,
    seed: u64,
    observer: &dyn Observer,
) -> Result<PairAnalysis> {
    config.check()?;
    let ends =
        evaluation.map(|e| Ok::<_, crate::NetError>([params_of(e.net, a)?, params_of(e.net, b)?])).transpose()?;
    let identity = Permutations::identity(layout.spec());
    let mut out = match (config.method, evaluation, &ends) {
        (Method::Activations, Some(e), Some([pa, pb])) => {
            let data = e.train.unwrap_or(e.data);
            let permutations = match_activations(e.net, layout, [pa, pb], &data)?;
            let before = compare(layout, a, b, &identity)?;
            let after = compare(layout, a, b, &permutations)?;
            PairAnalysis::new(permutations, before, after)
        }
        _ => {
            let m = match_weights(layout, a, b, None, &config.matching, seed, observer)?;
            let (sweeps, certified, scope) = (Some(m.sweeps), m.certified, Some(m.scope));
            PairAnalysis {
                sweeps,
                certified,
                certificate_scope: scope,
                ..PairAnalysis::new(m.permutations, m.before, m.after)
            }
        }
    };
    let n_layers = layout.tensors.iter().filter(|t| t.in_cost && t.shape.len() >= 2).count() as u64;
    observer.event(Event::Phase { name: "decompose", total: Some(3 * n_layers) });
    let (sa, sb) = (spectra(layout, a, observer)?, spectra(layout, b, observer)?);
    out.spectra = sa.iter().zip(&sb).map(|(x, y)| spectrum(x, y, config.gamma)).collect();
    let (raw, matched) = (overlaps(layout, &sa, &sb, &identity), overlaps(layout, &sa, &sb, &out.permutations));
    out.alignment = config.gammas().into_iter().map(|g| [raw.alignment(g), matched.alignment(g)]).collect();
    let merged = midpoint(layout, a, b, &out.permutations)?;
    let sm = spectra(layout, &merged, observer)?;
    out.merged_alignment = overlaps(layout, &sa, &sm, &identity).alignment(config.gamma);

    if let (Some(e), Some([pa, pb])) = (evaluation, &ends) {
        let aligned = params_of(e.net, &layout.apply(b, &out.permutations))?;
        observer.event(Event::Phase { name: "evaluate", total: Some(2 * config.points as u64) });
        out.curves = Some(curves(e, pa, pb, &aligned, config.points, observer)?);
        observer.event(Event::Phase { name: "expand", total: None });
        let pair = (e.taylor(pa, pb)?, e.taylor(pa, &aligned)?);
        out.taylor = pair.0.zip(pair.1).map(|(raw, matched)| [raw, matched]);
    }
    if config.intervention {
        out.intervention = Some(intervene(layout, a, b, [&sa, &sb], &out, evaluation, config, seed, observer)?);
    }
    Ok(out)
}

impl PairAnalysis {
    fn new(permutations: Permutations, before: Comparison, after: Comparison) -> Self {
        Self {
            permutations,
            before,
            after,
            sweeps: None,
            certified: false,
            certificate_scope: None,
            spectra: Vec::new(),
            alignment: Vec::new(),
            merged_alignment: Alignment { gamma: 0.0, total: 0.0, per_layer: Vec::new() },
            curves: None,
            taylor: None,
            intervention: None,
        }
    }
}

fn curves(
    e: &Evaluation<'_>,
    a: &Params<f32>,
    b: &Params<f32>,
    aligned: &Params<f32>,
    points: usize,
    observer: &dyn Observer,
) -> Result<Curves> {
    let raw = e.curve(a, b, points, None, observer)?;
    Ok(Curves { raw, matched: e.curve(a, aligned, points, None, observer)? })
}

fn spectrum(a: &LayerSpectrum, b: &LayerSpectrum, gamma: f64) -> Spectrum {
    Spectrum {
        name: a.name.clone(),
        first: a.svd.s.clone(),
        second: b.svd.s.clone(),
        gap: a.gap(b),
        kept: [a.kept(gamma), b.kept(gamma)],
    }
}

/// `½ (A + π(B))` of the tensors that take part in the distance, for its directions.
fn midpoint(
    layout: &Layout,
    a: &dyn Model,
    b: &dyn Model,
    permutations: &Permutations,
) -> Result<subspan::merge::MemoryModel> {
    use subspan::merge::{DType, MemoryModel, Tensor};
    let mut out = MemoryModel::new("the merged model");
    for tensor in layout.tensors.iter().filter(|t| t.in_cost) {
        let (x, y) = (a.require(&tensor.name)?, b.require(&tensor.name)?);
        let y = layout.gathered(y, permutations).to_tensor();
        let pairs = x.to_f64().into_iter().zip(y.view(&tensor.name).to_f64());
        let values: Vec<f32> = pairs.map(|(x, y)| (0.5 * (x + y)) as f32).collect();
        out.tensors.insert(tensor.name.clone(), Tensor::from_f32(x.shape, &values, DType::F32));
    }
    Ok(out)
}
