//! Every class a subspace: a classifier whose logits are the lengths of a unit sample's projections.
//!
//! After H. Wang, Z. Li, W. Zhang, "Get the best of both worlds: improving accuracy and transferability by Grassmann class
//! representation", ICCV 2023, with a geodesic step that needs no singular value decomposition ([`step`]), closed-form starts
//! (CLAFIC), calibrated probabilities and a measure of strangeness kept apart from the classifier.
//!
//! [`run`] holds out a share of every class, trains on the rest, chooses by the held-out samples when to stop, the dimension
//! (if asked) and the temperature, trains again on all samples, and does the same for the rivals it is compared with.

mod calibrate;
mod clafic;
mod config;
mod contrast;
mod geometry;
pub mod head;
mod labelled;
mod lazy;
mod linear;
mod literal;
mod logistic;
mod model;
mod newton;
mod online;
mod portrait;
mod samples;
pub mod step;
mod strange;
mod train;
mod warm;

use serde::Serialize;

pub use calibrate::{Bin, Scores, reliability, scores, temperature};
pub use config::{Config, Dim, Init, Method, SCALES, STEPS};
pub use contrast::Contrast;
pub use geometry::{orthonormality_defect, orthonormalize, span};
pub use labelled::Labelled;
pub use literal::literal_step;
pub use model::{Examination, Frames, Model, Predictions, Scorer};
pub use online::{Online, OnlineConfig, Turning, turn};
pub use portrait::{Portrait, class_angles, portraits};
pub use samples::{DenseSamples, Samples};
pub use step::{MomentumMode, Update};
pub use strange::Reconstruction;
pub use train::Epoch;
pub use warm::linear_start;

use clafic::Spectrum;
use contrast::Moments;
use model::logits_and_codes;
use train::Task;

use crate::draw::Stream;
use crate::error::{Error, Result};
use crate::observe::{self, Observer};

/// Dimensions tried by [`Dim::Auto`] and by the CLAFIC rival.
const DIMS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Fewest and most passes when they are not given. More than 30 gain nothing on pixels, sentence embeddings or network features.
const EPOCHS: (usize, usize) = (10, 30);

/// Columns up to which strangeness has a [`Contrast`]: its form has as many entries as their square (64 MiB).
const WIDEST_CONTRAST: usize = 4096;

/// Length of the mean of unit samples from which they differ little beside it.
const ALIGNED: f64 = 0.99;

/// A trained classifier and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The classifier.
    pub model: Model,
    /// Figures of its training.
    pub summary: Summary,
    /// Classifiers fitted beside it, on the same samples with the same held-out ones.
    pub rivals: Vec<Rival>,
}

/// A classifier fitted for comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Rival {
    /// `linear`, `lda` or `clafic`.
    pub name: &'static str,
    /// The classifier, without a reconstruction.
    pub model: Model,
    /// Scores on the held-out samples before training on all.
    pub held_out: Option<Scores>,
}

/// Figures of a training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Dimension of the class subspaces; `None` for a linear classifier.
    pub k: Option<usize>,
    /// Scores on the held-out samples before training on all.
    pub held_out: Option<Scores>,
    /// The softmax temperature.
    pub temperature: f64,
    /// The training's passes, before training on all samples.
    pub epochs: Vec<Epoch>,
    /// Passes that were kept.
    pub epochs_used: usize,
    /// Largest angle of any step, radians.
    pub max_step_angle: f64,
    /// Samples of length zero, which train nothing.
    pub zero_rows: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Trains a classifier.
///
/// # Errors
/// A parameter out of range, a dimension above the number of columns, divergence, what the samples report.
///
/// ```
/// use subspan::{Silent, classify::{self, Config, DenseSamples, Labelled}};
/// // Two lines through the origin.
/// let values: Vec<f32> = (1..=40).flat_map(|i| if i % 2 == 0 { [i as f32, 0.1] } else { [0.1, -(i as f32)] }).collect();
/// let codes: Vec<u32> = (1..=40).map(|i| i % 2).collect();
/// let classes = ["even".to_string(), "odd".to_string()];
/// let samples = DenseSamples::new(&values, 2)?;
/// let config = Config { dim: classify::Dim::Fixed(1), ..Config::default() };
/// let outcome = classify::run(&Labelled::new(&samples, &codes, &classes)?, &config, 0, &Silent)?;
/// assert_eq!(outcome.model.predict(&DenseSamples::new(&[-3.0, 0.0], 2)?)?.codes, [0]);
/// # Ok::<(), subspan::Error>(())
/// ```
pub fn run(data: &Labelled<'_>, config: &Config, seed: u64, observer: &dyn Observer) -> Result<Outcome> {
    config.check_columns(data.n_cols())?;
    if let Init::Frames(frames) = &config.init {
        frames.check(data.n_classes(), data.n_cols())?;
    }
    let (train, held_out) = data.split(config.held_out, seed);
    let job = Job::new(data, config, seed, observer, train, held_out)?;
    let mut summary = Summary {
        k: None,
        held_out: None,
        temperature: 1.0,
        epochs: Vec::new(),
        epochs_used: 0,
        max_step_angle: 0.0,
        zero_rows: 0,
        warnings: Vec::new(),
    };
    let fitted = match config.method {
        Method::Gcr => job.gcr(&mut summary)?,
        Method::Clafic => job.clafic(config.dim, &mut summary)?,
        Method::Linear => job.linear()?,
    };
    summary.held_out = fitted.held_out;
    summary.temperature = fitted.model.temperature;
    job.warn(&mut summary)?;
    let mut model = fitted.model;
    if config.reconstruction_dim > 0 {
        model.reconstruction = Some(job.reconstruction()?);
    }
    let mut rivals = Vec::new();
    if config.rivals {
        observe::phase(observer, "rivals", None);
        let mut own = summary.clone();
        // One that cannot be fitted is no reason to lose the classifier.
        let mut add = |name, fitted: Result<Fitted>| match fitted {
            Ok(fitted) => {
                rivals.push(Rival { name, model: fitted.model, held_out: fitted.held_out });
                Ok(())
            }
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(e) => {
                summary.warnings.push(format!("no {name} beside it: {e}"));
                Ok(())
            }
        };
        if config.method != Method::Linear {
            add("linear", job.linear())?;
        }
        add("lda", job.lda())?;
        if config.method != Method::Clafic {
            add("clafic", job.clafic(Dim::Auto, &mut own))?;
        }
    }
    Ok(Outcome { model, summary, rivals })
}

/// A classifier, with its scores on the held-out samples before it was trained on all.
struct Fitted {
    model: Model,
    held_out: Option<Scores>,
}

/// What all fits of a run share.
struct Job<'a> {
    data: &'a Labelled<'a>,
    config: &'a Config,
    seed: u64,
    observer: &'a dyn Observer,
    train: Vec<usize>,
    held_out: Vec<usize>,
    all: Vec<usize>,
    center: Option<Vec<f32>>,
    class_weights: Vec<f64>,
    /// Of the training samples alone.
    spectra: Vec<Spectrum>,
    /// Of all samples.
    all_spectra: Vec<Spectrum>,
}

impl<'a> Job<'a> {
    fn new(
        data: &'a Labelled<'a>,
        config: &'a Config,
        seed: u64,
        observer: &'a dyn Observer,
        train: Vec<usize>,
        held_out: Vec<usize>,
    ) -> Result<Self> {
        let all: Vec<usize> = (0..data.codes.len()).collect();
        let center =
            if config.center { Some(data.mean(&train)?.iter().map(|v| *v as f32).collect::<Vec<_>>()) } else { None };
        let members = data.members(&all);
        let balance = |n: usize| all.len() as f64 / (members.len() * n) as f64;
        let class_weights = members.iter().map(|m| if config.balanced { balance(m.len()) } else { 1.0 }).collect();
        let wanted = match config.dim {
            Dim::Fixed(k) if !config.rivals => k,
            Dim::Fixed(k) => k.max(DIMS[DIMS.len() - 1]),
            Dim::Auto => DIMS[DIMS.len() - 1],
        };
        let largest = wanted.max(config.reconstruction_dim).min(data.n_cols());
        let needs = config.method != Method::Linear || config.rivals;
        observe::phase(observer, "score", None);
        let spectra_of = |rows: &[usize]| clafic::spectra(data, rows, center.as_deref(), largest, observer);
        let spectra = if needs { spectra_of(&train)? } else { Vec::new() };
        let needs = config.reconstruction_dim > 0 || config.refit && needs || config.method != Method::Linear;
        let all_spectra = if needs { spectra_of(&all)? } else { Vec::new() };
        Ok(Self { data, config, seed, observer, train, held_out, all, center, class_weights, spectra, all_spectra })
    }

    /// Candidates for the dimension; at least one.
    fn dims(&self, dim: Dim) -> Vec<usize> {
        match dim {
            Dim::Fixed(k) => vec![k],
            Dim::Auto => DIMS.into_iter().filter(|k| *k <= self.data.n_cols()).collect(),
        }
    }

    fn frames(&self, spectra: &[Spectrum], k: usize) -> Result<Frames> {
        let mut frames = Frames { rows: Vec::new(), offsets: vec![0] };
        for (c, spectrum) in spectra.iter().enumerate() {
            frames.rows.extend(spectrum.frame(k, self.data.n_cols(), c, self.seed)?.0);
            frames.offsets.push((c + 1) * k);
        }
        Ok(frames)
    }

    fn start(&self, spectra: &[Spectrum], k: usize) -> Result<Frames> {
        match &self.config.init {
            Init::Clafic => self.frames(spectra, k),
            Init::Frames(frames) => Ok(frames.clone()),
            Init::Random => {
                let stream = Stream::new(self.seed, "classify start");
                let mut frames = Frames { rows: Vec::new(), offsets: vec![0] };
                for c in 0..self.data.n_classes() {
                    frames.rows.extend(geometry::random::<f32>(&stream, c as u64, k, self.data.n_cols())?);
                    frames.offsets.push((c + 1) * k);
                }
                Ok(frames)
            }
        }
    }

    fn subspaces(&self, frames: Frames) -> Scorer {
        Scorer::Subspaces { frames, gamma: self.config.gamma, center: self.center.clone() }
    }

    /// Calibrates `scorer` on the held-out samples; `refitted` then takes its place in the model.
    fn calibrated(&self, scorer: Scorer, refitted: Option<Scorer>) -> Result<Fitted> {
        let n_classes = self.data.n_classes();
        let (mut t, mut held_out) = (1.0, None);
        if !self.held_out.is_empty() {
            let (logits, codes) = logits_and_codes(&scorer, self.data, &self.held_out)?;
            t = temperature(&logits, &codes, n_classes);
            held_out = Some(scores(&logits, &codes, n_classes, t));
        }
        let model = Model {
            classes: self.data.classes.to_vec(),
            n_cols: self.data.n_cols(),
            scorer: refitted.unwrap_or(scorer),
            temperature: t,
            reconstruction: None,
        };
        Ok(Fitted { model, held_out })
    }

    fn gcr(&self, summary: &mut Summary) -> Result<Fitted> {
        let k = match &self.config.init {
            Init::Frames(frames) => frames.largest(),
            _ => self.dimension()?,
        };
        let trained = self.train_on(&self.train, &self.held_out, self.start(&self.spectra, k)?, self.epochs(), None)?;
        summary.k = Some(k);
        summary.epochs = trained.curve;
        summary.epochs_used = trained.best;
        summary.max_step_angle = trained.max_angle;
        let refitted = if self.config.refit && !self.held_out.is_empty() {
            let start = self.start(&self.all_spectra, k)?;
            Some(self.subspaces(self.train_on(&self.all, &[], start, self.epochs(), Some(trained.best))?.frames))
        } else {
            None
        };
        self.calibrated(self.subspaces(trained.frames), refitted)
    }

    /// The dimension that was given, or the first candidate that the next one does not improve on, each after the fewest passes.
    fn dimension(&self) -> Result<usize> {
        let dims = self.dims(self.config.dim);
        let (mut best, mut best_nll) = (dims[0], f64::INFINITY);
        if dims.len() == 1 {
            return Ok(best);
        }
        for k in dims {
            let start = self.start(&self.spectra, k)?;
            let trained = self.train_on(&self.train, &self.held_out, start, self.epochs().min(EPOCHS.0), None)?;
            let kept = trained.best.checked_sub(1).and_then(|i| trained.curve.get(i));
            let nll = kept.and_then(|e| e.held_out_nll).unwrap_or(0.0);
            if nll >= best_nll {
                break;
            }
            (best, best_nll) = (k, nll);
        }
        Ok(best)
    }

    /// Passes of the schedule.
    fn epochs(&self) -> usize {
        let steps = self.train.len().div_ceil(self.config.batch_size.min(self.train.len()));
        self.config.epochs.unwrap_or_else(|| STEPS.div_ceil(steps).clamp(EPOCHS.0, EPOCHS.1))
    }

    fn train_on(
        &self,
        rows: &[usize],
        held_out: &[usize],
        start: Frames,
        epochs: usize,
        stop_after: Option<usize>,
    ) -> Result<train::Trained> {
        let task = Task {
            data: self.data,
            rows,
            held_out,
            center: self.center.as_deref(),
            class_weights: &self.class_weights,
            epochs,
            stop_after: stop_after.unwrap_or(epochs),
        };
        train::train(&task, start, self.config, self.seed, self.observer)
    }

    fn clafic(&self, dim: Dim, summary: &mut Summary) -> Result<Fitted> {
        let (mut best, mut best_accuracy) = (None, -1.0);
        for k in self.dims(dim) {
            let fitted = self.calibrated(self.subspaces(self.frames(&self.spectra, k)?), None)?;
            let accuracy = fitted.held_out.map_or(0.0, |s| s.accuracy);
            if accuracy > best_accuracy {
                (best, best_accuracy) = (Some((k, fitted)), accuracy);
            }
        }
        let (k, mut fitted) = best.expect("at least one dimension is tried");
        summary.k = Some(k);
        if self.config.refit {
            fitted.model.scorer = self.subspaces(self.frames(&self.all_spectra, k)?);
        }
        Ok(fitted)
    }

    fn linear(&self) -> Result<Fitted> {
        let fit = |rows: &[usize], refit| {
            logistic::logistic(self.data, rows, &self.held_out, &self.class_weights, refit, self.observer)
        };
        let chosen = fit(&self.train, None)?;
        let refitted = if self.config.refit { Some(fit(&self.all, Some(&chosen))?.0) } else { None };
        self.calibrated(chosen.0, refitted)
    }

    fn lda(&self) -> Result<Fitted> {
        let fit =
            |rows: &[usize], shrinkage| linear::discriminant(self.data, rows, &self.held_out, shrinkage, self.observer);
        let (scorer, shrinkage) = fit(&self.train, None)?;
        let refitted = if self.config.refit { Some(fit(&self.all, Some(shrinkage))?.0) } else { None };
        self.calibrated(scorer, refitted)
    }

    fn reconstruction(&self) -> Result<Reconstruction> {
        let mut out = self.reconstruction_of(&self.all_spectra)?;
        if self.data.n_cols() > WIDEST_CONTRAST {
            return Ok(out);
        }
        let moments = |rows: &[usize]| Moments::of(self.data, rows, self.center.as_deref(), self.observer);
        let mut seen = moments(&self.train)?;
        // The standard is set by samples that the measures have not seen, if there are any.
        let (measures, known) = if self.held_out.is_empty() {
            (&out, &self.train)
        } else {
            let spectra = if self.spectra.is_empty() { self.spectra_of(&self.train)? } else { Vec::new() };
            let spectra = if self.spectra.is_empty() { &spectra } else { &self.spectra };
            (&self.reconstruction_of(spectra)?, &self.held_out)
        };
        let mut contrast = seen.contrast()?;
        let known = measures.measures(self.data, known, &contrast)?;
        if !self.held_out.is_empty() {
            seen.join(&moments(&self.held_out)?);
            contrast = seen.contrast()?;
        }
        contrast.standardize(&known);
        out.contrast = Some(contrast);
        Ok(out)
    }

    fn reconstruction_of(&self, spectra: &[Spectrum]) -> Result<Reconstruction> {
        let k = self.config.reconstruction_dim.min(self.data.n_cols());
        let mut frames = Frames { rows: Vec::new(), offsets: vec![0] };
        for (c, spectrum) in spectra.iter().enumerate() {
            // Never a random direction: a class with few samples gets a small subspace.
            let own = spectrum.values.len().min(k);
            frames.rows.extend(spectrum.frame(own, self.data.n_cols(), c, self.seed)?.0);
            frames.offsets.push(frames.offsets[c] + own);
        }
        Ok(Reconstruction { frames, center: self.center.clone(), contrast: None })
    }

    fn spectra_of(&self, rows: &[usize]) -> Result<Vec<Spectrum>> {
        clafic::spectra(self.data, rows, self.center.as_deref(), self.config.reconstruction_dim, self.observer)
    }

    /// What the data's shape makes likely to disappoint.
    fn warn(&self, summary: &mut Summary) -> Result<()> {
        let (n_cols, n_classes) = (self.data.n_cols(), self.data.n_classes());
        let mut sum = vec![0.0; n_cols];
        samples::for_blocks(self.data.samples, &self.all, |_, values| {
            summary.zero_rows += samples::normalize(values, n_cols, self.center.as_deref()) as u64;
            for row in values.chunks_exact(n_cols) {
                sum.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
            }
            Ok(())
        })?;
        if summary.zero_rows == self.all.len() as u64 {
            return Err(Error::NoDirections);
        }
        let mean = sum.iter().map(|s| s * s).sum::<f64>().sqrt() / self.all.len() as f64;
        if mean > ALIGNED {
            let text = format!("samples point nearly the same way (their mean direction has length {mean:.4})");
            summary.warnings.push(format!("{text}: centring, or subtracting an offset, may tell classes apart better"));
        }
        if summary.zero_rows > 0 {
            summary.warnings.push(format!("{} samples are zero and train nothing", summary.zero_rows));
        }
        if self.held_out.is_empty() {
            summary.warnings.push("every class has one sample: nothing was held out to calibrate on".into());
        }
        let Some(k) = summary.k else { return Ok(()) };
        let poor: Vec<&str> = self
            .all_spectra
            .iter()
            .zip(self.data.classes)
            .filter(|(s, _)| s.values.len() < k)
            .map(|(_, c)| c.as_str())
            .collect();
        if let Some(first) = poor.first() {
            let what = format!("{} classes span fewer than {k} directions (class {first} the first)", poor.len());
            summary.warnings.push(format!("{what}: the missing ones start at random"));
        }
        // A random direction has length √(k/d) on a subspace of dimension k.
        if 2 * k > n_cols && n_cols > 1 || n_classes * k > 16 * n_cols {
            summary.warnings.push(format!(
                "{n_classes} subspaces of dimension {k} crowd {n_cols} columns: scores come close to each other"
            ));
        }
        if summary.max_step_angle > 1.0 {
            let angle = summary.max_step_angle;
            summary.warnings.push(format!("a step turned a class by {angle:.1} rad: a lower learning rate is safer"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
