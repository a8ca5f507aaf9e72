//! More than two models, all matched to the first: every pair's barrier, and the mean of all.

use serde::Serialize;
use subspan::merge::analysis::Barrier;
use subspan::merge::{Layout, Model, Permutations, compare};
use subspan::{Event, Observer};

use crate::error::Result;
use crate::evaluate::Scores;
use crate::tensor::{Params, Tensor};

use super::curve::{Evaluation, params_of};
use super::intervention::INTERVENTION_POINTS;

/// One pair of models, before and after all are matched to the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// Numbers of the models, from 0.
    pub models: [usize; 2],
    /// `‖a − b‖` as they are and as matched.
    pub distance: [f64; 2],
    /// Barriers, with data.
    pub barrier: Option<[Barrier; 2]>,
}

/// All pairs, and the mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Several {
    /// Every pair.
    pub pairs: Vec<Side>,
    /// Scores of every model alone, with data.
    pub alone: Vec<Scores>,
    /// Scores of the mean of the models as they are, and as matched.
    pub mean: Option<[Scores; 2]>,
}

/// Compares all pairs of models under their permutations (the first one's is the identity).
///
/// # Errors
/// As [`super::analyze_pair`].
pub fn analyze_several(
    layout: &Layout,
    models: &[&dyn Model],
    permutations: &[Permutations],
    evaluation: Option<&Evaluation<'_>>,
    observer: &dyn Observer,
) -> Result<Several> {
    let identity = Permutations::identity(layout.spec());
    let n = models.len();
    let steps = (n * (n - 1) * INTERVENTION_POINTS) as u64;
    observer.event(Event::Phase { name: "pairs", total: Some(steps) });
    let moved: Vec<_> = models.iter().zip(permutations).map(|(m, p)| layout.apply(*m, p)).collect();
    let params = |models: &[&dyn Model]| -> Result<Vec<Params<f32>>> {
        evaluation.map_or(Ok(Vec::new()), |e| models.iter().map(|m| params_of(e.net, *m)).collect())
    };
    let matched: Vec<&dyn Model> = moved.iter().map(|m| m as &dyn Model).collect();
    let (raw, aligned) = (params(models)?, params(&matched)?);
    let mut pairs = Vec::new();
    for i in 0..n {
        for j in i + 1..n {
            let distance =
                |a: &dyn Model, b: &dyn Model| Ok::<_, crate::NetError>(compare(layout, a, b, &identity)?.distance());
            let barrier = match evaluation {
                None => None,
                Some(e) => {
                    let of = |p: &[Params<f32>]| {
                        Ok::<_, crate::NetError>(Barrier::of(&e.curve(
                            &p[i],
                            &p[j],
                            INTERVENTION_POINTS,
                            None,
                            observer,
                        )?))
                    };
                    Some([of(&raw)?, of(&aligned)?])
                }
            };
            let distance = [distance(models[i], models[j])?, distance(matched[i], matched[j])?];
            pairs.push(Side { models: [i, j], distance, barrier });
        }
    }
    let (mut alone, mut mean) = (Vec::new(), None);
    if let Some(e) = evaluation {
        alone = raw.iter().map(|p| e.scores(p)).collect::<Result<_>>()?;
        mean = Some([e.merged_scores(&average(&raw), observer)?, e.merged_scores(&average(&aligned), observer)?]);
    }
    Ok(Several { pairs, alone, mean })
}

/// The mean of all models, in double precision.
fn average(models: &[Params<f32>]) -> Params<f32> {
    let n = models.len() as f64;
    let one = |(name, first): (&String, &Tensor<f32>)| {
        let sum = |i: usize| models.iter().map(|m| f64::from(m[name].values[i])).sum::<f64>();
        let values = (0..first.values.len()).map(|i| (sum(i) / n) as f32).collect();
        (name.clone(), Tensor { shape: first.shape.clone(), values })
    };
    models[0].iter().map(one).collect()
}
