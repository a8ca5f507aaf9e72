//! What matching does to two or more models: distances, directions, and, with data, the loss between them.
//!
//! Everything that needs no network works on any checkpoint; with an [`Evaluation`] curves, barriers and the Taylor estimate
//! are added. The formulas are those of [`subspan::merge::analysis`].

mod activations;
mod curve;
mod intervention;
mod pair;
mod several;
mod ste;
mod study;

pub use activations::match_activations;
pub use curve::{Curves, Evaluation, params_of};
pub use intervention::{ArmResult, INTERVENTION_POINTS, Intervention, intervene};
pub use pair::{Distance, PairAnalysis, Spectrum, analyze_pair};
pub use several::{Several, Side, analyze_several};
pub use ste::{Ste, SteConfig, SteForm, match_ste};
pub use study::{Study, StudyRow, StudyVariable, mlp_spec, model_of, study, train_model};

use serde::Serialize;
use subspan::merge::MatchConfig;

/// What is analysed.
#[derive(Debug, Clone, PartialEq)]
pub struct AnalyzeConfig {
    /// How models are matched.
    pub method: Method,
    /// Settings of weight matching.
    pub matching: MatchConfig,
    /// Threshold of the directions that count, as a share of the largest singular value of their layer.
    pub gamma: f64,
    /// Points of a curve, both ends included; odd.
    pub points: usize,
    /// Whether to match on parts of the directions as well.
    pub intervention: bool,
    /// Largest barrier, nats, up to which two models count as linearly connected.
    pub tolerance: f64,
}

impl Default for AnalyzeConfig {
    fn default() -> Self {
        Self {
            method: Method::Weights,
            matching: MatchConfig::default(),
            gamma: 0.3,
            points: 25,
            intervention: true,
            tolerance: 0.02,
        }
    }
}

/// How models are matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// By weights.
    Weights,
    /// By the correlations of activations on the evaluation's samples.
    Activations,
}

/// Thresholds of the curve `R(γ)` besides the configured one.
pub const GAMMAS: [f64; 5] = [0.0, 0.1, 0.2, 0.3, 0.5];

impl AnalyzeConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`subspan::Error::Parameter`].
    pub fn check(&self) -> subspan::Result<()> {
        use subspan::Error;
        if !(0.0..=1.0).contains(&self.gamma) {
            return Err(Error::parameter("gamma", self.gamma, "between 0 and 1"));
        }
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            return Err(Error::parameter("tolerance", self.tolerance, "at least 0"));
        }
        subspan::merge::analysis::grid(self.points).map(|_| ())
    }

    /// [`GAMMAS`] and the configured threshold, in order.
    pub fn gammas(&self) -> Vec<f64> {
        let mut out = GAMMAS.to_vec();
        if !out.contains(&self.gamma) {
            out.push(self.gamma);
        }
        out.sort_by(f64::total_cmp);
        out
    }
}
