//! Training of the subspaces: Riemannian stochastic gradient descent with momentum.

use super::calibrate::{scores, temperature};
use super::config::Config;
use super::head::{Head, cross_entropy};
use super::labelled::Labelled;
use super::lazy::Lazy;
use super::model::{Frames, Scorer, logits_and_codes};
use super::samples::normalize;
use super::step::{StackedFrames, StepOptions, descend_all};
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
    let mut lazy = (config.lazy_tau > 0.0).then(|| Lazy::new(task.data.n_classes(), config.lazy_tau, config.momentum));
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
            let batch = Batch::read(task, &frames, config.gamma, &rows)?;
            if !batch.loss.is_finite() {
                return Err(Error::Diverged { epoch: epoch + 1, lr: config.lr });
            }
            total += batch.loss;
            let t = epoch * steps + i;
            let rate = config.lr * 0.5 * (1.0 + (std::f64::consts::PI * t as f64 / (steps * task.epochs) as f64).cos());
            let options = StepOptions {
                momentum: config.momentum_mode,
                reorthogonalize: (t + 1).is_multiple_of(config.reorth_every),
                max_angle: None,
                update: config.update,
            };
            let rates = [rate, config.momentum];
            let head = Head { frames: &frames.rows, offsets: &frames.offsets, n_cols, gamma: config.gamma };
            let angle = if let Some(lazy) = &mut lazy {
                let awake = lazy.awake(&batch.loads(config.gamma), rate);
                let gradient = head.frame_gradient_of(&batch.x, &batch.z, &batch.g, &awake);
                lazy.descend(stacked(&mut frames, &mut buffers, n_cols), &awake, &gradient, rates, options)?
            } else {
                let gradient = head.frame_gradient(&batch.x, &batch.z, &batch.g);
                let reports = descend_all(stacked(&mut frames, &mut buffers, n_cols), &gradient, rates, options)?;
                reports.iter().fold(0.0, |max, r| r.angle.max(max))
            };
            trained.max_angle = trained.max_angle.max(angle);
        }
        if let Some(lazy) = &mut lazy {
            lazy.wake_all(stacked(&mut frames, &mut buffers, n_cols))?;
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

fn stacked<'a>(frames: &'a mut Frames, buffers: &'a mut [f32], n_cols: usize) -> StackedFrames<'a, f32> {
    StackedFrames { frames: &mut frames.rows, buffers, offsets: &frames.offsets, n_cols }
}

/// Samples of one step, and what the head says of them.
struct Batch {
    /// Unit rows.
    x: Vec<f32>,
    /// Their projections.
    z: Vec<f32>,
    /// The loss's gradient by the logits (`b x C`).
    g: Vec<f64>,
    /// Class of each sample.
    codes: Vec<u32>,
    loss: f64,
}

impl Batch {
    fn read(task: &Task<'_>, frames: &Frames, gamma: f64, rows: &[usize]) -> Result<Self> {
        let (n_cols, n_classes) = (task.data.n_cols(), task.data.n_classes());
        let mut x = vec![0f32; rows.len() * n_cols];
        task.data.samples.gather(rows, &mut x)?;
        normalize(&mut x, n_cols, task.center);
        let head = Head { frames: &frames.rows, offsets: &frames.offsets, n_cols, gamma };
        let (z, logits) = head.forward(&x);
        let codes = task.data.codes_of(rows);
        let mut targets = vec![0.0; logits.len()];
        let mut weights = vec![0.0; rows.len()];
        for (i, class) in codes.iter().enumerate() {
            targets[i * n_classes + *class as usize] = 1.0;
            weights[i] = task.class_weights[*class as usize];
        }
        let (loss, g) = cross_entropy(&logits, &targets, &weights, n_classes);
        Ok(Self { x, z, g, codes, loss })
    }

    /// Bounds of the norms of the classes' gradients; infinite for those of the samples.
    fn loads(&self, gamma: f64) -> Vec<f64> {
        let n_classes = self.g.len() / self.codes.len();
        let mut loads = vec![0.0; n_classes];
        for row in self.g.chunks_exact(n_classes) {
            loads.iter_mut().zip(row).for_each(|(load, g)| *load += gamma * g.abs());
        }
        self.codes.iter().for_each(|c| loads[*c as usize] = f64::INFINITY);
        loads
    }
}
