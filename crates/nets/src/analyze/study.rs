//! The paper's study in small: how width and weight decay change what matching can do, on networks trained here.

use serde::Serialize;
use subspan::merge::{Axes, DType, Layout, MemoryModel, PermInfo, Piece, Spec};
use subspan::{Event, Observer, Silent};

use crate::error::Result;
use crate::evaluate::Labelled;
use crate::graph::Net;
use crate::tensor::Params;
use crate::train::{Training, initialize, mlp, train};

use super::curve::{Evaluation, params_of};
use super::pair::analyze_pair;
use super::{AnalyzeConfig, ArmResult};

/// What a study varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StudyVariable {
    /// Units per hidden layer.
    Width,
    /// Weight decay.
    WeightDecay,
}

/// A study's design.
#[derive(Debug, Clone, PartialEq)]
pub struct Study {
    /// What varies.
    pub variable: StudyVariable,
    /// Its values.
    pub values: Vec<f64>,
    /// Hidden layers.
    pub depth: usize,
    /// Units per hidden layer, where it does not vary.
    pub width: usize,
    /// How networks are trained; its weight decay counts where it does not vary.
    pub training: Training,
    /// Pairs per value; pair `k` has the seeds `2k` and `2k + 1` after the study's.
    pub pairs: usize,
}

/// One trained pair.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudyRow {
    /// The varied value.
    pub value: f64,
    /// Number of the pair.
    pub pair: usize,
    /// Mean test loss and accuracy of the two networks.
    pub loss: f64,
    /// Mean accuracy.
    pub accuracy: f64,
    /// Barrier before matching.
    pub barrier_before: f64,
    /// Barrier after.
    pub barrier_after: f64,
    /// Drop of accuracy after matching.
    pub accuracy_drop: f64,
    /// `1 − ‖A − π(B)‖ / ‖A − B‖`.
    pub distance_reduction: f64,
    /// `R(γ)` before matching.
    pub alignment_before: f64,
    /// `R(γ)` after.
    pub alignment_after: f64,
    /// `R(0)` after.
    pub alignment_of_all: f64,
    /// Share of directions with `s ≥ γ s_max`.
    pub directions: f64,
    /// The arms, if asked for.
    pub arms: Vec<ArmResult>,
}

/// Trains pairs and analyses each. `train_data` and `test` have `n_inputs` values per sample and labels below `n_classes`.
///
/// # Errors
/// Settings out of range, data that do not fit, an interrupt.
pub fn study(
    design: &Study,
    train_data: &Labelled<'_, f32>,
    test: &Labelled<'_, f32>,
    [n_inputs, n_classes]: [usize; 2],
    config: &AnalyzeConfig,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Vec<StudyRow>> {
    let steps = design.training.steps(train_data.y.len()) * 2 * (design.pairs * design.values.len()) as u64;
    observer.event(Event::Phase { name: "study", total: Some(steps) });
    let mut out = Vec::new();
    for value in &design.values {
        let (mut width, mut how) = (design.width, design.training);
        match design.variable {
            StudyVariable::Width => width = *value as usize,
            StudyVariable::WeightDecay => how.weight_decay = *value as f32,
        }
        let net = mlp(n_inputs, &vec![width; design.depth], n_classes);
        for pair in 0..design.pairs {
            let one = |k: usize| {
                let seed = seed.wrapping_add((2 * pair + k) as u64);
                train_model(&net, train_data, &how, seed, observer)
            };
            let (a, b) = (one(0)?, one(1)?);
            out.push(row(&net, &a, &b, test, config, seed, *value, pair)?);
        }
    }
    Ok(out)
}

fn row(
    net: &Net,
    a: &MemoryModel,
    b: &MemoryModel,
    test: &Labelled<'_, f32>,
    config: &AnalyzeConfig,
    seed: u64,
    value: f64,
    pair: usize,
) -> Result<StudyRow> {
    let layout = Layout::new(mlp_spec(net), a)?;
    let evaluation = Evaluation { net, data: *test, train: None };
    let found = analyze_pair(&layout, a, b, Some(&evaluation), config, seed, &Silent)?;
    let [raw, matched] = found.barriers().expect("curves come with data");
    let scores = [evaluation.scores(&params_of(net, a)?)?, evaluation.scores(&params_of(net, b)?)?];
    let [before, after] = found.alignment_at(config.gamma).expect("the configured threshold is among them");
    let all = found.alignment_at(0.0).expect("zero is among the thresholds");
    let (kept, whole) =
        found.spectra.iter().fold((0, 0), |(k, n), s| (k + s.kept[0] + s.kept[1], n + 2 * s.first.len()));
    Ok(StudyRow {
        value,
        pair,
        loss: (scores[0].loss + scores[1].loss) / 2.0,
        accuracy: (scores[0].accuracy + scores[1].accuracy) / 2.0,
        barrier_before: raw.loss,
        barrier_after: matched.loss,
        accuracy_drop: matched.accuracy,
        distance_reduction: found.distance_reduction(),
        alignment_before: before.total,
        alignment_after: after.total,
        alignment_of_all: all[1].total,
        directions: kept as f64 / whole as f64,
        arms: found.intervention.map_or_else(Vec::new, |i| i.arms),
    })
}

/// Trains a network of [`mlp`] from scratch; `seed` chooses its start and its batches.
///
/// # Errors
/// As [`train`].
pub fn train_model(
    net: &Net,
    data: &Labelled<'_, f32>,
    how: &Training,
    seed: u64,
    observer: &dyn Observer,
) -> Result<MemoryModel> {
    let mut params = initialize(net, |_| 0, seed);
    train(net, &mut params, data, how, seed, observer)?;
    Ok(model_of(&params, &format!("the network of seed {seed}")))
}

/// The parameters as a model.
pub fn model_of(params: &Params<f32>, label: &str) -> MemoryModel {
    let mut out = MemoryModel::new(label);
    for (name, t) in params {
        out.tensors.insert(name.clone(), subspan::merge::Tensor::from_f32(&t.shape, &t.values, DType::F32));
    }
    out
}

/// The permutation spec of a network made by [`mlp`].
pub fn mlp_spec(net: &Net) -> Spec {
    let layers: Vec<&str> = net.nodes().iter().filter_map(|n| n.op.weight()).collect();
    let mut spec = Spec::default();
    for (i, weight) in layers.iter().enumerate() {
        let out = if i + 1 < layers.len() { vec![Piece::whole(format!("h{i}"))] } else { Vec::new() };
        let input = if i > 0 { vec![Piece::whole(format!("h{}", i - 1))] } else { Vec::new() };
        if let (Some(id), Some(layer)) = (out.first().map(|p| p.perm.clone()), net.layer_of(weight)) {
            spec.perms.insert(id, PermInfo::new(net.node(layer).dims[0]));
            if let Some(bias) = net.node(layer).op.bias() {
                spec.tensors.insert(bias.into(), vec![out.clone()] as Axes);
            }
        }
        spec.tensors.insert((*weight).into(), vec![out, input]);
    }
    spec
}
