//! The causal test: which directions must be matched for the barrier to go away, and is it the distance that counts?
//!
//! Matching sees a part of each weight (large singular values, or the others); its permutations are applied to the whole
//! models. The control spoils the full matching, by shifting some of its units, until the distance is that of the bottom
//! part's matching: equal distance, directions still aligned for the most part.

use serde::Serialize;
use subspan::merge::analysis::{Arm, Barrier, LayerSpectrum, keep_directions, match_distance, overlaps};
use subspan::merge::{Layout, Model, Permutations, compare, match_weights};
use subspan::{Event, Observer, Silent};

use crate::error::{NetError, Result};

use super::AnalyzeConfig;
use super::curve::{Evaluation, params_of};
use super::pair::{PairAnalysis, reduction};

/// Points of the curves here: 11 find the barrier of curves with one hump.
pub const INTERVENTION_POINTS: usize = 11;

/// One way to choose the permutations, and what it gives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmResult {
    /// `none`, `all`, `top`, `bottom`, `bottom-with-biases` or `control`.
    pub arm: &'static str,
    /// Share of the directions that the matching saw.
    pub directions: f64,
    /// `1 − ‖A − π(B)‖ / ‖A − B‖` of the whole models.
    pub distance_reduction: f64,
    /// `R(γ)` of the whole models.
    pub alignment: f64,
    /// The barrier, with data.
    pub barrier: Option<Barrier>,
    /// Units that the control shifts.
    pub shifted_units: Option<usize>,
}

/// All arms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Intervention {
    /// The threshold between top and bottom.
    pub gamma: f64,
    /// Results, in the order of [`ArmResult::arm`]'s list.
    pub arms: Vec<ArmResult>,
}

/// Runs all arms for two models whose full matching is known. `spectra` are those of `a` and `b`.
///
/// # Errors
/// As [`super::analyze_pair`].
pub fn intervene(
    layout: &Layout,
    a: &dyn Model,
    b: &dyn Model,
    spectra: [&[LayerSpectrum]; 2],
    full: &PairAnalysis,
    evaluation: Option<&Evaluation<'_>>,
    config: &AnalyzeConfig,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Intervention> {
    const ARMS: [(Arm, &str); 3] =
        [(Arm::Top, "top"), (Arm::Bottom, "bottom"), (Arm::BottomWithBiases, "bottom-with-biases")];
    observer.event(Event::Phase { name: "intervene", total: Some(ARMS.len() as u64 + 3) });
    let start = evaluation.map(|e| params_of(e.net, a)).transpose()?;
    let judge =
        |arm: &'static str, permutations: &Permutations, directions: f64, shifted: Option<usize>| -> Result<_> {
            if observer.cancelled() {
                return Err(NetError::Cancelled);
            }
            let after = compare(layout, a, b, permutations)?;
            let barrier = match (evaluation, &start) {
                (Some(e), Some(start)) => {
                    let end = params_of(e.net, &layout.apply(b, permutations))?;
                    Some(Barrier::of(&e.curve(start, &end, INTERVENTION_POINTS, None, &Quiet(observer))?))
                }
                _ => None,
            };
            let alignment = overlaps(layout, spectra[0], spectra[1], permutations).alignment(config.gamma).total;
            observer.event(Event::Advance { steps: 1 });
            let distance_reduction = reduction(&full.before, &after);
            Ok(ArmResult { arm, directions, distance_reduction, alignment, barrier, shifted_units: shifted })
        };
    let mut arms = vec![
        judge("none", &Permutations::identity(layout.spec()), 0.0, None)?,
        judge("all", &full.permutations, 1.0, None)?,
    ];
    let mut bottom = None;
    for (arm, name) in ARMS {
        let part = |model, spectra| keep_directions(layout, model, spectra, config.gamma, arm);
        let (x, y) = (part(a, spectra[0])?, part(b, spectra[1])?);
        let found = match_weights(layout, &x.model, &y.model, None, &config.matching, seed, &Silent)?;
        arms.push(judge(name, &found.permutations, 0.5 * (x.share + y.share), None)?);
        if arm == Arm::Bottom {
            bottom = Some(compare(layout, a, b, &found.permutations)?.distance());
        }
    }
    if let Some(distance) = bottom {
        let (control, count) = match_distance(layout, a, b, &full.permutations, distance, seed)?;
        arms.push(judge("control", &control, 1.0, Some(count))?);
    }
    Ok(Intervention { gamma: config.gamma, arms })
}

/// Passes on whether to stop, but no events: the phase counts arms, not points.
struct Quiet<'a>(&'a dyn Observer);

impl Observer for Quiet<'_> {
    fn event(&self, _: Event<'_>) {}

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}
