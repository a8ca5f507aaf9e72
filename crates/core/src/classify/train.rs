//! Training of the subspaces: Riemannian stochastic gradient descent with momentum.

use rayon::prelude::*;

use super::calibrate::{scores, temperature};
use super::config::Config;
use super::head::{Head, cross_entropy};
use super::labelled::Labelled;
use super::model::{Frames, Scorer, logits_and_codes};
use super::samples::normalize;
use super::step::{StepOptions, StepReport, descend};
use crate::draw::Stream;
use crate::error::{Error, Result};
use crate::observe::{self, Event, Observer};

/// One pass over the training samples.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Epoch {
    /// Mean loss of the pass's batches.
    pub loss: f64,
    /// Negative log-likelihood of the held-out samples at their best temperature.
    pub held_out_nll: Option<f64>,
    /// Accuracy on the held-out samples.
    pub held_out_accuracy: Option<f64>,
}

/// The subspaces after training.
pub(crate) struct Trained {
    pub(crate) frames: Frames,
    pub(crate) curve: Vec<Epoch>,
    /// Passes up to the frames above.
    pub(crate) best: usize,
    /// Largest angle of any step, radians.
    pub(crate) max_angle: f64,
}

/// What training works on.
pub(crate) struct Task<'a> {
    pub(crate) data: &'a Labelled<'a>,
    pub(crate) rows: &'a [usize],
    /// Rows that decide when to stop; empty: train `stop_after` passes.
    pub(crate) held_out: &'a [usize],
    pub(crate) center: Option<&'a [f32]>,
    /// One per class.
    pub(crate) class_weights: &'a [f64],
    /// Passes of the schedule.
    pub(crate) epochs: usize,
    /// Passes done at most.
    pub(crate) stop_after: usize,
}

/// Trains `frames` by minibatches; the rate falls from `config.lr` to zero along half a cosine.
pub(crate) fn train(
    task: &Task<'_>,
    mut frames: Frames,
    config: &Config,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Trained> {
    let n_cols = task.data.n_cols();
    let batch = config.batch_size.min(task.rows.len());
    let steps = task.rows.len().div_ceil(batch);
    let mut buffers = vec![0f32; frames.rows.len()];
    let mut trained = Trained { frames: frames.clone(), curve: Vec::new(), best: 0, max_angle: 0.0 };
    let mut best_nll = f64::INFINITY;
    let stream = Stream::new(seed, "classify batches");
    observe::phase(observer, "solve", Some(task.stop_after as u64));
    for epoch in 0..task.stop_after {
        let order = stream.rng(epoch as u64).permutation(task.rows.len());
        let mut total = 0.0;
        for (i, order) in order.chunks(batch).enumerate() {
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            let rows: Vec<usize> = order.iter().map(|i| task.rows[*i]).collect();
            let (loss, gradient) = gradient(task, &frames, config.gamma, &rows)?;
            if !loss.is_finite() {
                return Err(Error::Diverged { epoch: epoch + 1, lr: config.lr });
            }
            total += loss;
            let t = epoch * steps + i;
            let rate = config.lr * 0.5 * (1.0 + (std::f64::consts::PI * t as f64 / (steps * task.epochs) as f64).cos());
            let options = StepOptions {
                momentum: config.momentum_mode,
                reorthogonalize: (t + 1).is_multiple_of(config.reorth_every),
                max_angle: None,
            };
            let report = move_classes(&mut frames, &mut buffers, &gradient, n_cols, config.momentum, rate, options)?;
            trained.max_angle = trained.max_angle.max(report);
        }
        let mut entry = Epoch { loss: total / steps as f64, held_out_nll: None, held_out_accuracy: None };
        if task.held_out.is_empty() {
            trained.best = epoch + 1;
        } else {
            let scorer = Scorer::Subspaces {
                frames: frames.clone(),
                gamma: config.gamma,
                center: task.center.map(<[_]>::to_vec),
            };
            let (logits, codes) = logits_and_codes(&scorer, task.data, task.held_out)?;
            let n_classes = task.data.n_classes();
            let s = scores(&logits, &codes, n_classes, temperature(&logits, &codes, n_classes));
            (entry.held_out_nll, entry.held_out_accuracy) = (Some(s.nll), Some(s.accuracy));
            observe::metric(observer, "held_out_nll", s.nll);
            if s.nll < best_nll {
                best_nll = s.nll;
                trained.best = epoch + 1;
                trained.frames = frames.clone();
            }
        }
        trained.curve.push(entry);
        observer.event(Event::Advance { steps: 1 });
        if !task.held_out.is_empty() && config.patience.is_some_and(|patience| epoch + 1 >= trained.best + patience) {
            break;
        }
    }
    if task.held_out.is_empty() {
        trained.frames = frames;
    }
    Ok(trained)
}

/// The loss of a batch and its gradient by the frames.
fn gradient(task: &Task<'_>, frames: &Frames, gamma: f64, rows: &[usize]) -> Result<(f64, Vec<f32>)> {
    let (n_cols, n_classes) = (task.data.n_cols(), task.data.n_classes());
    let mut x = vec![0f32; rows.len() * n_cols];
    task.data.samples.gather(rows, &mut x)?;
    normalize(&mut x, n_cols, task.center);
    let head = Head { frames: &frames.rows, offsets: &frames.offsets, n_cols, gamma };
    let (z, logits) = head.forward(&x);
    let mut targets = vec![0.0; logits.len()];
    let mut weights = vec![0.0; rows.len()];
    for (i, row) in rows.iter().enumerate() {
        let class = task.data.codes[*row] as usize;
        targets[i * n_classes + class] = 1.0;
        weights[i] = task.class_weights[class];
    }
    let (loss, g) = cross_entropy(&logits, &targets, &weights, n_classes);
    Ok((loss, head.frame_gradient(&x, &z, &g)))
}

/// Momentum and geodesic step of every class, each class on one thread; the largest angle moved.
fn move_classes(
    frames: &mut Frames,
    buffers: &mut [f32],
    gradient: &[f32],
    n_cols: usize,
    momentum: f64,
    rate: f64,
    options: StepOptions,
) -> Result<f64> {
    let offsets = frames.offsets.clone();
    let mut rest = (frames.rows.as_mut_slice(), buffers, gradient);
    let mut parts = Vec::with_capacity(offsets.len() - 1);
    for o in offsets.windows(2) {
        let len = (o[1] - o[0]) * n_cols;
        let (p, p_rest) = rest.0.split_at_mut(len);
        let (m, m_rest) = rest.1.split_at_mut(len);
        let (e, e_rest) = rest.2.split_at(len);
        parts.push((p, m, e));
        rest = (p_rest, m_rest, e_rest);
    }
    let reports: Vec<StepReport> = parts
        .into_par_iter()
        .map(|(p, m, e)| descend(p, m, e, n_cols, [rate, momentum], options))
        .collect::<Result<_>>()?;
    Ok(reports.iter().fold(0.0, |max, r| r.angle.max(max)))
}
