//! More than two models.
//!
//! Either every model is matched to the first, or all to each other's mean in turn (MergeMany of Ainsworth, Hayase, Srinivasa,
//! 2209.04836, here starting from where each model stands, so that `Σ ‖θ − mean‖²` never grows). Both ways the permutations
//! between any two models are made of one per model, so going around a circle of models leads back.

use super::combine::mean_model;
use super::distance::{Comparison, compare};
use super::error::{MergeError, Result};
use super::layout::Layout;
use super::model::Model;
use super::permutations::Permutations;
use super::weights::{MatchConfig, Matched, match_weights};
use crate::draw::Stream;
use crate::observe::{Observer, metric};

/// Rounds over all models at most.
const MAX_ROUNDS: usize = 50;

/// Permutations of several models, relative to the first.
#[derive(Debug, Clone)]
pub struct MatchedMany {
    /// For the second, third, ... model.
    pub permutations: Vec<Permutations>,
    /// Against the first model, before and after, for the second, third, ... model.
    pub pairs: Vec<(Comparison, Comparison)>,
    /// `Σ ‖θ − mean‖²` after each round, the start included.
    pub history: Vec<f64>,
    /// Whether a round changed nothing.
    pub converged: bool,
    /// Whether every model's last match was certified.
    pub certified: bool,
    /// Sweeps of all matches.
    pub sweeps: usize,
}

/// Matches `models` to each other: each in turn to the mean of the others, until nothing changes. Memory: one model in single
/// precision.
///
/// # Errors
/// As [`match_weights`]; specs with pieces inside pieces, whose permutations do not compose.
pub fn merge_many(
    layout: &Layout,
    models: &[&dyn Model],
    config: &MatchConfig,
    seed: u64,
    observer: &dyn Observer,
) -> Result<MatchedMany> {
    if layout.is_nested() {
        return Err(MergeError::Unsupported {
            what: "the spec has perms inside units of others, which cannot be matched to a mean of several models"
                .into(),
            hint: Some("--many anchor matches every model to the first".into()),
        });
    }
    let identity = Permutations::identity(layout.spec());
    let mut permutations = vec![identity.clone(); models.len()];
    let orders = Stream::new(seed, "models");
    let mut history = vec![spread(layout, models, &permutations)?];
    let (mut converged, mut sweeps) = (false, 0);
    let mut certified = vec![false; models.len()];
    for round in 0..MAX_ROUNDS {
        let mut moved = false;
        for l in orders.rng(round as u64).permutation(models.len()) {
            let others: Vec<usize> = (0..models.len()).filter(|m| *m != l).collect();
            let rest: Vec<(&dyn Model, &Permutations)> =
                others.iter().map(|m| (models[*m], &permutations[*m])).collect();
            let mean = mean_model(layout, &rest)?;
            let found: Matched =
                match_weights(layout, &mean, models[l], Some(&permutations[l]), config, seed, observer)?;
            sweeps += found.sweeps;
            certified[l] = found.certified;
            moved |= found.permutations != permutations[l];
            permutations[l] = found.permutations;
        }
        history.push(spread(layout, models, &permutations)?);
        metric(observer, "spread", history[history.len() - 1]);
        if !moved {
            converged = true;
            break;
        }
    }
    // Everything as the first model sees it.
    let back = permutations[0].inverse();
    let permutations: Vec<Permutations> = permutations[1..].iter().map(|p| p.then(&back)).collect();
    let pair = |(model, p): (&&dyn Model, &Permutations)| {
        Ok((compare(layout, models[0], *model, &identity)?, compare(layout, models[0], *model, p)?))
    };
    let pairs = models[1..].iter().zip(&permutations).map(pair).collect::<Result<_>>()?;
    let certified = converged && certified.into_iter().all(|c| c);
    Ok(MatchedMany { permutations, pairs, history, converged, certified, sweeps })
}

/// `Σ ‖θ − mean‖²` over the tensors of the cost.
fn spread(layout: &Layout, models: &[&dyn Model], permutations: &[Permutations]) -> Result<f64> {
    let all: Vec<(&dyn Model, &Permutations)> = models.iter().copied().zip(permutations).collect();
    let mean = mean_model(layout, &all)?;
    all.iter().map(|(model, p)| Ok(compare(layout, &mean, *model, p)?.total.distance)).sum()
}
