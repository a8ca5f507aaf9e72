//! What a classifier is asked to be.

use super::model::Frames;
use super::step::{MomentumMode, Update};
use crate::error::{Error, Result};

/// How classes are scored and learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Grassmann class representation: one subspace per class, trained by Riemannian gradient descent.
    Gcr,
    /// One subspace per class, in closed form.
    Clafic,
    /// A linear softmax classifier (multinomial logistic regression), the baseline.
    Linear,
}

impl Method {
    /// The names users know.
    pub fn names() -> [&'static str; 3] {
        ["gcr", "clafic", "linear"]
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Self::names()[*self as usize])
    }
}

impl std::str::FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Gcr, Self::Clafic, Self::Linear]
            .into_iter()
            .find(|m| m.to_string() == name)
            .ok_or_else(|| Error::parameter("method", name, format!("one of {}", Self::names().join(", "))))
    }
}

/// Dimension of the class subspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// The same for every class.
    Fixed(usize),
    /// One of 1, 2, 4, ..., 32 for all, by the held-out likelihood after a short training: the first that the next does not improve on.
    Auto,
}

/// Where training starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// At the closed-form subspaces.
    Clafic,
    /// At random subspaces, as the authors' program does.
    Random,
    /// At given subspaces, one per class, whose dimensions then hold: those of an earlier model, or of [`super::linear_start`].
    Frames(Frames),
}

/// A classification job.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How classes are scored and learned.
    pub method: Method,
    /// Dimension of the class subspaces.
    pub dim: Dim,
    /// Scale of the logits.
    pub gamma: f64,
    /// Where training starts.
    pub init: Init,
    /// First learning rate; it falls to zero along half a cosine.
    pub lr: f64,
    /// Share of the buffer that survives a step.
    pub momentum: f64,
    /// How the buffer is carried along.
    pub momentum_mode: MomentumMode,
    /// How a step is computed; [`Update::Literal`] is slow and there for comparisons.
    pub update: Update,
    /// Angle in radians that a class's subspace may miss while steps that hardly touch it are left out; 0 to leave out none. Pays
    /// with far more classes than a batch has samples. Needs [`MomentumMode::Transported`], which makes up for idle steps exactly.
    pub lazy_tau: f64,
    /// Samples per step.
    pub batch_size: usize,
    /// Passes over the samples; `None` for as many as make about [`STEPS`] steps, between 10 and 30.
    pub epochs: Option<usize>,
    /// Passes without a better held-out likelihood before training stops; `None` to go through the whole schedule, which is
    /// better: the rate has to fall for the subspaces to settle. The pass of the best held-out likelihood is kept either way.
    pub patience: Option<usize>,
    /// Steps from one restoration of orthonormal rows to the next.
    pub reorth_every: usize,
    /// Weigh classes by one over their share of the samples.
    pub balanced: bool,
    /// Subtract the mean of the training samples first.
    pub center: bool,
    /// Share of each class that is held out to stop, to choose and to calibrate.
    pub held_out: f64,
    /// Train again on all samples once everything is chosen.
    pub refit: bool,
    /// Dimension of the reconstruction subspaces; 0 for none.
    pub reconstruction_dim: usize,
    /// Fit a linear classifier, LDA and CLAFIC beside it.
    pub rivals: bool,
}

/// Steps that training aims at when the passes are not given.
pub const STEPS: usize = 4000;

impl Default for Config {
    /// The paper's scale, rate and momentum (gamma 25, 0.1, 0.9) and its dimension 8; the rest is ours.
    fn default() -> Self {
        Self {
            method: Method::Gcr,
            dim: Dim::Fixed(8),
            gamma: 25.0,
            init: Init::Clafic,
            lr: 0.1,
            momentum: 0.9,
            momentum_mode: MomentumMode::Ambient,
            update: Update::Series,
            lazy_tau: 0.0,
            batch_size: 256,
            epochs: None,
            patience: None,
            reorth_every: 50,
            balanced: false,
            center: false,
            held_out: 0.1,
            refit: true,
            reconstruction_dim: 16,
            rivals: true,
        }
    }
}

/// Scales and temperatures that keep logits finite; the search for a temperature stays far inside.
pub const SCALES: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

impl Config {
    /// Checks every parameter that can be checked without data.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the first one out of range.
    pub fn check(&self) -> Result<()> {
        let positive = |name, value: f64| {
            if value.is_finite() && value > 0.0 {
                Ok(())
            } else {
                Err(Error::parameter(name, value, "a positive finite number"))
            }
        };
        if !SCALES.contains(&self.gamma) {
            let expected = format!("between {:e} and {:e}", SCALES.start(), SCALES.end());
            return Err(Error::parameter("gamma", self.gamma, expected));
        }
        positive("lr", self.lr)?;
        let at_least_one = |name, value: usize| {
            if value > 0 { Ok(()) } else { Err(Error::parameter(name, value, "at least 1")) }
        };
        if let Dim::Fixed(k) = self.dim {
            at_least_one("k", k)?;
        }
        at_least_one("batch size", self.batch_size)?;
        at_least_one("epochs", self.epochs.unwrap_or(1))?;
        at_least_one("patience", self.patience.unwrap_or(1))?;
        at_least_one("reorth_every", self.reorth_every)?;
        if !(0.0..1.0).contains(&self.momentum) {
            return Err(Error::parameter("momentum", self.momentum, "at least 0 and less than 1"));
        }
        if !(self.lazy_tau >= 0.0 && self.lazy_tau.is_finite()) {
            return Err(Error::parameter("lazy_tau", self.lazy_tau, "an angle of at least 0"));
        }
        if self.lazy_tau > 0.0 && self.momentum_mode != MomentumMode::Transported {
            return Err(Error::parameter("momentum mode", "ambient", "transported where lazy_tau is above 0"));
        }
        if self.update == Update::Literal && self.momentum_mode != MomentumMode::Ambient {
            return Err(Error::parameter("momentum mode", "transported", "ambient with the literal update"));
        }
        if !(self.held_out > 0.0 && self.held_out < 1.0) {
            return Err(Error::parameter("held-out share", self.held_out, "between 0 and 1, both excluded"));
        }
        Ok(())
    }

    /// [`Config::check`], and the dimension against the data's.
    ///
    /// # Errors
    /// [`Error::Parameter`].
    pub fn check_columns(&self, n_cols: usize) -> Result<()> {
        self.check()?;
        match self.dim {
            Dim::Fixed(k) if k > n_cols && self.method != Method::Linear => {
                Err(Error::parameter("k", k, format!("at most {n_cols}, the number of columns")))
            }
            _ => Ok(()),
        }
    }
}
