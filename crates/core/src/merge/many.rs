//! More than two models.
//!
//! Either every model is matched to the first, or all to each other's mean in turn (MergeMany of Ainsworth, Hayase, Srinivasa,
//! 2209.04836, here starting from where each model stands, so that `Σ ‖θ − mean‖²` never grows). Both ways the permutations
//! between any two models are made of one per model, so going around a circle of models leads back.

use super::combine::mean_model;
use super::distance::{Comparison, compare};
use super::error::Result;
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
/// As [`match_weights`]; specs with pieces inside pieces whose permutations do not compose ([`Layout::then`]).
pub fn merge_many(
    layout: &Layout,
    models: &[&dyn Model],
    config: &MatchConfig,
    seed: u64,
    observer: &dyn Observer,
) -> Result<MatchedMany> {
    let identity = Permutations::identity(layout.spec());
    // Whether permutations compose is known before the work.
    layout.inverse(&identity)?;
    let mut permutations = vec![identity.clone(); models.len()];
    let further = MatchConfig { restarts: 1, ..config.clone() };
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
            // The first match of a model begins from nothing, others go on from the one before.
            let (start, config) = if round == 0 { (None, config) } else { (Some(&permutations[l]), &further) };
            let found: Matched = match_weights(layout, &mean, models[l], start, config, seed, observer)?;
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
    let back = layout.inverse(&permutations[0])?;
    let permutations: Vec<Permutations> =
        permutations[1..].iter().map(|p| layout.then(p, &back)).collect::<Result<_>>()?;
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

#[cfg(test)]
mod tests {
    use super::super::tests::{random_model, spec};
    use super::super::{DType, MemoryModel, PermInfo, Piece};
    use super::*;
    use crate::observe::Silent;

    /// A layer of heads in groups, with perms of the values' dimensions inside each group.
    fn nested() -> Layout {
        let heads = PermInfo { groups: Some(2), ..PermInfo::new(4) };
        let inner = |k: usize| Piece { tile: 2, stride: Some(3), ..Piece::whole(format!("v{k}")).at(6 * k) };
        let spec = spec(
            &[("heads", heads), ("v0", PermInfo::new(3)), ("v1", PermInfo::new(3))],
            &[
                ("q", vec![vec![Piece::blocks("heads", 2)], vec![]]),
                (
                    "v",
                    vec![
                        vec![Piece::blocks("heads.outer", 3), Piece::whole("v0").at(0), Piece::whole("v1").at(3)],
                        vec![],
                    ],
                ),
                ("o", vec![vec![], vec![Piece::blocks("heads", 3), inner(0), inner(1)]]),
            ],
        );
        Layout::new(spec, &model(1)).unwrap()
    }

    fn model(seed: u64) -> MemoryModel {
        random_model(&[("q", &[8, 20]), ("v", &[6, 20]), ("o", &[20, 12])], DType::F32, seed)
    }

    #[test]
    fn orders_of_one_model_come_back_to_it_and_the_spread_never_grows() {
        let layout = nested();
        let a = model(1);
        let moved: Vec<MemoryModel> =
            (2..4).map(|seed| layout.apply(&a, &Permutations::random(layout.spec(), seed, false))).collect();
        let models: [&dyn Model; 3] = [&a, &moved[0], &moved[1]];
        let found = merge_many(&layout, &models, &MatchConfig::default(), 0, &Silent).unwrap();
        assert!(found.converged && found.history.windows(2).all(|w| w[1] <= w[0] * (1.0 + 1e-9)));
        // Around the circle of models and back: 1 to 2 to 3 to 1.
        let p = &found.permutations;
        let between = layout.then(&layout.inverse(&p[0]).unwrap(), &p[1]).unwrap();
        let around = layout.then(&layout.then(&p[0], &between).unwrap(), &layout.inverse(&p[1]).unwrap()).unwrap();
        assert!(around.is_identity());
        if found.history[found.history.len() - 1] == 0.0 {
            assert_eq!(layout.apply(&moved[1], &p[1]).tensors, a.tensors);
        }
        let unlike = [model(5), model(6)];
        let models: [&dyn Model; 3] = [&a, &unlike[0], &unlike[1]];
        let found = merge_many(&layout, &models, &MatchConfig::default(), 0, &Silent).unwrap();
        assert!(found.converged && found.history.windows(2).all(|w| w[1] <= w[0] * (1.0 + 1e-9)));
        assert!(found.history[found.history.len() - 1] < found.history[0]);
    }
}
