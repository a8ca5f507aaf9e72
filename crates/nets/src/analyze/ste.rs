//! Matching by the loss: straight-through estimators, two different algorithms of that name.
//!
//! **Projected** (Ainsworth, Hayase, Srinivasa, 2209.04836, section 3.3): a latent model `θ̃` starts at the first model; every step
//! matches the second model to it by weights, and moves `θ̃` down the gradient of the loss in the middle, taken as if the
//! permutations did not depend on it.
//!
//! **Latent** (as in STE-MM): every perm has logits `X`; the permutation is the best assignment of `X`, and its gradient
//! `dL/dP = ½ Gram(g, B)` is used as that of `X`.
//!
//! Both keep the permutations with the lowest loss in the middle on the given samples, those of weight matching included.

use subspan::assign::lap::{self, Warm};
use subspan::draw::Stream;
use subspan::merge::{
    DType, Layout, MatchConfig, Matched, MemoryModel, Model, Permutations, cross_grams, match_weights,
};
use subspan::{Event, Observer, Silent};

use crate::error::{NetError, Result};
use crate::evaluate::{Labelled, batch_gradient, check, evaluate};
use crate::forward::Mode;
use crate::graph::Net;
use crate::optimize::{Optimizer, Rule};
use crate::repair::reset_norms;
use crate::tensor::{Params, Tensor, lerp};

use super::curve::params_of;

/// What is optimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SteForm {
    /// A model near the first, to which the second is matched by weights.
    Projected,
    /// Logits of every permutation.
    Latent,
}

/// Settings of a straight-through estimator.
#[derive(Debug, Clone, PartialEq)]
pub struct SteConfig {
    /// Which one.
    pub form: SteForm,
    /// Gradient steps; by default ten passes over the samples (projected) or 800 (latent).
    pub steps: Option<usize>,
    /// Samples per step.
    pub batch: usize,
    /// Adam's rate; by default 1e-3 (projected) or 0.1 (latent).
    pub lr: Option<f32>,
    /// Settings of weight matching: the candidate to beat, and the projection.
    pub matching: MatchConfig,
}

impl Default for SteConfig {
    fn default() -> Self {
        Self { form: SteForm::Projected, steps: None, batch: 256, lr: None, matching: MatchConfig::default() }
    }
}

/// Passes over the samples of the projected form.
const PASSES: usize = 10;
/// Steps of the latent form.
const LATENT_STEPS: usize = 800;
/// Candidates that are judged on all samples, evenly spread over the steps.
const JUDGED: usize = 20;
/// Sweeps of a projection: it starts where the last one ended, and the latent model has hardly moved.
const SWEEPS: usize = 4;
/// Deviation of the first logits: far below a step, so that only ties are broken at random.
const FIRST_LOGITS: f64 = 1e-3;

/// What a straight-through estimator found.
#[derive(Debug, Clone)]
pub struct Ste {
    /// The permutations of the second model.
    pub permutations: Permutations,
    /// Loss in the middle on the given samples, by weight matching and by `permutations`; never more than the former.
    pub loss: [f64; 2],
    /// Steps taken until `permutations` were found; 0 if weight matching was not beaten.
    pub found_at: usize,
    /// Steps taken.
    pub steps: usize,
    /// The weight matching that was to beat.
    pub weights: Matched,
}

/// Matches the second of two models to the first by the loss of the network half-way between them on `data`. Cost: a gradient per
/// step, and a short weight matching (projected) or all Gram matrices and assignments (latent). BatchNorm uses the batch while
/// stepping, and statistics measured on the samples when candidates are judged. The bits do not depend on the number of threads.
///
/// # Errors
/// Parameters or samples that do not fit; perms with groups, which need heads that no network here has; an interrupt.
pub fn match_ste(
    net: &Net,
    layout: &Layout,
    models: [&dyn Model; 2],
    data: &Labelled<'_, f32>,
    config: &SteConfig,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Ste> {
    let ends = [params_of(net, models[0])?, params_of(net, models[1])?];
    check(net, &ends[0], data)?;
    let n = data.y.len();
    if config.batch == 0 {
        return Err(NetError::Parameter { name: "batch", value: "0".into(), expected: "at least 1" });
    }
    let steps = config.steps.unwrap_or(match config.form {
        SteForm::Projected => PASSES * n.div_ceil(config.batch),
        SteForm::Latent => LATENT_STEPS,
    });
    let weights = match_weights(layout, models[0], models[1], None, &config.matching, seed, observer)?;
    observer.event(Event::Phase { name: "estimate", total: Some(steps as u64) });
    let mut run =
        Run { net, layout, models, ends, data, config, batches: Batches::new(seed, n, config.batch), observer };
    let first = run.judge(&weights.permutations)?;
    let mut best = Best { permutations: weights.permutations.clone(), loss: first, at: 0 };
    match config.form {
        SteForm::Projected => run.projected(&weights.permutations, steps, seed, &mut best)?,
        SteForm::Latent => run.latent(steps, seed, &mut best)?,
    }
    Ok(Ste { permutations: best.permutations, loss: [first, best.loss], found_at: best.at, steps, weights })
}

struct Best {
    permutations: Permutations,
    loss: f64,
    at: usize,
}

/// What both forms share.
struct Run<'a> {
    net: &'a Net,
    layout: &'a Layout,
    models: [&'a dyn Model; 2],
    ends: [Params<f32>; 2],
    data: &'a Labelled<'a, f32>,
    config: &'a SteConfig,
    batches: Batches,
    observer: &'a dyn Observer,
}

impl Run<'_> {
    fn projected(&mut self, start: &Permutations, steps: usize, seed: u64, best: &mut Best) -> Result<()> {
        let matching = MatchConfig { max_sweeps: SWEEPS, restarts: 1, ..self.config.matching.clone() };
        let mut optimizer = Optimizer::new(Rule::Adam, self.config.lr.unwrap_or(1e-3), 0.0);
        let mut latent = self.ends[0].clone();
        let mut permutations = start.clone();
        let mut moved = self.moved(&permutations)?;
        for step in 1..=steps {
            let mut gradient = self.gradient(&latent, &moved)?;
            // Half of the middle is the latent model.
            gradient.values_mut().flat_map(|t| &mut t.values).for_each(|v| *v *= 0.5);
            optimizer.step(&mut latent, &gradient);
            let model = self.as_model(&latent);
            let seed = seed.wrapping_add(step as u64);
            let next =
                match_weights(self.layout, &model, self.models[1], Some(&permutations), &matching, seed, &Silent)?;
            if next.permutations != permutations {
                permutations = next.permutations;
                moved = self.moved(&permutations)?;
            }
            self.consider(&permutations, step, steps, best)?;
        }
        Ok(())
    }

    fn latent(&mut self, steps: usize, seed: u64, best: &mut Best) -> Result<()> {
        let mut permutations = Permutations::identity(self.layout.spec());
        let free: Vec<(String, usize)> =
            self.layout.perms.iter().filter(|(_, p)| p.is_free()).map(|(id, p)| (id.clone(), p.size)).collect();
        if let Some((id, _)) = self.layout.perms.iter().find(|(_, p)| p.is_free() && p.groups.is_some()) {
            let what = format!("perm {id} has groups, for which the latent estimator has no logits");
            return Err(
                subspan::merge::MergeError::Unsupported { what, hint: Some("use the projected form".into()) }.into()
            );
        }
        let logits = |(id, n): &(String, usize)| {
            let mut rng = Stream::new(seed, &format!("logits {id}")).rng(0);
            let values = (0..n * n).map(|_| (FIRST_LOGITS * rng.normal()) as f32).collect();
            (id.clone(), Tensor::new(vec![*n, *n], values))
        };
        let mut logits: Params<f32> = free.iter().map(logits).collect();
        let mut optimizer = Optimizer::new(Rule::Adam, self.config.lr.unwrap_or(0.1), 0.0);
        let mut warm: Vec<Option<(Vec<usize>, Vec<f64>)>> = vec![None; free.len()];
        for step in 1..=steps {
            for ((id, n), warm) in free.iter().zip(&mut warm) {
                let costs: Vec<f32> = logits[id].values.iter().map(|x| -x).collect();
                let start = warm.as_ref().map(|(columns, duals)| Warm { columns, duals });
                let found = lap::minimize(&costs, *n, start);
                let found = found.map_err(|_| NetError::NonFinite { what: format!("the logits of {id}") })?;
                permutations.set(id, found.columns.clone());
                *warm = Some((found.columns, found.duals));
            }
            let moved = self.moved(&permutations)?;
            let first = self.ends[0].clone();
            let gradient = self.gradient(&first, &moved)?;
            let gradient = self.as_model(&gradient);
            let mut slopes = Params::new();
            for (id, gram) in cross_grams(self.layout, &gradient, self.models[1], &permutations)? {
                let n = logits[&id].shape[0];
                slopes.insert(id, Tensor::new(vec![n, n], gram.iter().map(|v| 0.5 * v).collect()));
            }
            self.consider(&permutations, step, steps, best)?;
            optimizer.step(&mut logits, &slopes);
        }
        Ok(())
    }

    /// The second model's parameters, moved.
    fn moved(&self, permutations: &Permutations) -> Result<Params<f32>> {
        params_of(self.net, &self.layout.apply(self.models[1], permutations))
    }

    /// The gradient of the loss half-way between two models on the next batch.
    fn gradient(&mut self, a: &Params<f32>, b: &Params<f32>) -> Result<Params<f32>> {
        if self.observer.cancelled() {
            return Err(NetError::Cancelled);
        }
        self.observer.event(Event::Advance { steps: 1 });
        let (x, y) = self.batches.next(self.data, self.net.len_at(Net::INPUT));
        let part = Labelled { x, y };
        Ok(batch_gradient(self.net, &lerp(a, b, 0.5), &part, y.len(), Mode::Batch).1)
    }

    /// Parameters in place of the first model's; what the network does not use is zero.
    fn as_model(&self, params: &Params<f32>) -> MemoryModel {
        let mut out = MemoryModel::new("the latent model");
        for tensor in self.layout.tensors.iter().filter(|t| t.in_cost) {
            let zeros = || vec![0.0; tensor.shape.iter().product()];
            let values = params.get(&tensor.name).map_or_else(zeros, |t| t.values.clone());
            out.tensors
                .insert(tensor.name.clone(), subspan::merge::Tensor::from_f32(&tensor.shape, &values, DType::F32));
        }
        out
    }

    /// The loss in the middle on all samples.
    fn judge(&self, permutations: &Permutations) -> Result<f64> {
        let mut middle = lerp(&self.ends[0], &self.moved(permutations)?, 0.5);
        if self.net.has_norm() {
            reset_norms(self.net, &mut middle, self.data, self.observer)?;
        }
        let loss = evaluate(self.net, &middle, self.data)?.loss;
        if loss.is_finite() { Ok(loss) } else { Err(NetError::NonFinite { what: "the merged model".into() }) }
    }

    /// Judges a candidate where one is due, and keeps it if it is the best.
    fn consider(&self, permutations: &Permutations, step: usize, steps: usize, best: &mut Best) -> Result<()> {
        let every = steps.div_ceil(JUDGED).max(1);
        if step.is_multiple_of(every) || step == steps {
            let loss = self.judge(permutations)?;
            if loss < best.loss {
                *best = Best { permutations: permutations.clone(), loss, at: step };
            }
        }
        Ok(())
    }
}

/// Batches in seeded orders, pass after pass.
struct Batches {
    orders: Stream,
    order: Vec<usize>,
    at: usize,
    pass: u64,
    size: usize,
    n: usize,
    x: Vec<f32>,
    y: Vec<u32>,
}

impl Batches {
    fn new(seed: u64, n: usize, size: usize) -> Self {
        let orders = Stream::new(seed, "estimator batches");
        Self { orders, order: Vec::new(), at: 0, pass: 0, size, n, x: Vec::new(), y: Vec::new() }
    }

    fn next(&mut self, data: &Labelled<'_, f32>, per_sample: usize) -> (&[f32], &[u32]) {
        if self.at >= self.order.len() {
            self.order = self.orders.rng(self.pass).permutation(self.n);
            self.pass += 1;
            self.at = 0;
        }
        let end = (self.at + self.size).min(self.n);
        self.x.clear();
        self.y.clear();
        for row in &self.order[self.at..end] {
            self.x.extend_from_slice(&data.x[row * per_sample..(row + 1) * per_sample]);
            self.y.push(data.y[*row]);
        }
        self.at = end;
        (&self.x, &self.y)
    }
}
