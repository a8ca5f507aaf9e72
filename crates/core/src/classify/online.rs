//! Learning from a stream, one sample at a time: every class turns by a small rotation towards a sample of its own and away from others'.
//!
//! For a unit sample `x̂` at an angle `φ` to the subspace, with `z = P x̂`, `u = z/‖z‖`, `e = Pᵀu` and `r = x̂ − Pᵀz`, turning by `s` is
//! `P ← P + u ((cos s − 1) e + sin s · r/‖r‖)ᵀ`, after which the angle is `φ − s`: the geodesic step of [`super::step`] for the gradient of one
//! sample, in `O(k d)`. `s` is kept within `[φ − π/2, φ]`, so that neither the sample nor its orthogonal complement is overshot. (E. Oja,
//! "Subspace methods of pattern recognition", 1983, rotates in the same plane by other rules.)
//!
//! A class begins with the leading directions of its first samples and takes up directions of what its subspace leaves of later ones
//! until it has its full dimension. Each sample is predicted before it is learned from; the temperature is fitted to the last
//! of these predictions, so that probabilities are calibrated without a sample held out.

use serde::{Deserialize, Serialize};
use subspan_linalg::frames;

use super::calibrate::temperature;
use super::clafic::Spectrum;
use super::geometry;
use super::head::{argmax, softmax};
use super::model::{Frames, Model, Scorer};
use super::samples::{Samples, for_blocks, normalize};
use crate::error::{Error, Result};
use crate::observe::Observer;

/// Which classes turn, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Turning {
    /// All, along the gradient of the cross-entropy.
    #[default]
    Softmax,
    /// The true class and the winner, by equal angles, when they differ (the learning subspace method of Kohonen and Oja).
    Mistakes,
}

/// How an [`Online`] classifier learns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OnlineConfig {
    /// Dimension of the class subspaces once they are full.
    pub dim: usize,
    /// Scale of the logits.
    pub gamma: f64,
    /// Which classes turn, and how far.
    pub turning: Turning,
    /// Rate of the first sample: of the gradient, or the angle in radians of [`Turning::Mistakes`].
    pub rate: f64,
    /// Samples after which the rate has fallen to `1/√2`; it goes on falling like the root of their number.
    pub half_life: f64,
}

impl Default for OnlineConfig {
    fn default() -> Self {
        Self { dim: 8, gamma: 25.0, turning: Turning::Softmax, rate: 0.003, half_life: 10_000.0 }
    }
}

impl OnlineConfig {
    /// # Errors
    /// [`Error::Parameter`] naming the first one out of range.
    pub fn check(&self, n_cols: usize) -> Result<()> {
        for (name, value) in [("gamma", self.gamma), ("rate", self.rate), ("half life", self.half_life)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::parameter(name, value, "a positive finite number"));
            }
        }
        match self.dim {
            k if (1..=n_cols).contains(&k) => Ok(()),
            k => Err(Error::parameter("k", k, format!("1 to {n_cols}, the number of columns"))),
        }
    }
}

/// Gradients smaller than this (a probability) turn nothing.
const LEAST_GRADIENT: f64 = 1e-3;
/// Projections and residuals shorter than this have no direction.
const TINY: f64 = 1e-7;
/// Rotations of a class after which its rows are made orthonormal again.
const RESTORE_EVERY: u32 = 200;
/// A class takes up directions that hold at least this share of what it leaves of its new samples.
const LEAST_SHARE: f64 = 1e-4;
/// Predictions that decide the temperature.
const RECENT: usize = 2000;

/// A classifier that learns from a stream. Its state can be saved and resumed (it serialises).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Online {
    config: OnlineConfig,
    classes: Vec<String>,
    n_cols: usize,
    rows: Vec<f32>,
    offsets: Vec<usize>,
    center: Option<Vec<f32>>,
    /// Samples learned from.
    seen: u64,
    /// Rotations of each class since its rows were orthonormal.
    rotations: Vec<u32>,
    /// Logits of the last predictions, and the true classes; the next one replaces the one at `seen % RECENT`.
    recent_logits: Vec<f64>,
    recent_codes: Vec<u32>,
    /// Until there are predictions.
    temperature: f64,
}

impl Online {
    /// A classifier that has seen nothing.
    ///
    /// # Errors
    /// [`Error::Classes`] for fewer than two classes, [`Error::Parameter`].
    pub fn new(classes: &[String], n_cols: usize, config: OnlineConfig) -> Result<Self> {
        if classes.len() < 2 {
            let label = classes.first().cloned().unwrap_or_default();
            return Err(Error::Classes { found: classes.len(), label });
        }
        config.check(n_cols)?;
        Ok(Self {
            config,
            classes: classes.to_vec(),
            n_cols,
            rows: Vec::new(),
            offsets: vec![0; classes.len() + 1],
            center: None,
            seen: 0,
            rotations: vec![0; classes.len()],
            recent_logits: Vec::new(),
            recent_codes: Vec::new(),
            temperature: 1.0,
        })
    }

    /// Goes on from a trained classifier of subspaces, with its scale and its centre.
    ///
    /// # Errors
    /// [`Error::Parameter`] if it is linear.
    pub fn from_model(model: &Model, config: OnlineConfig) -> Result<Self> {
        let Scorer::Subspaces { frames, gamma, center } = &model.scorer else {
            return Err(Error::parameter("method", "linear", "one with subspaces, to learn on from a stream"));
        };
        let config = OnlineConfig { gamma: *gamma, dim: config.dim.max(frames.largest()), ..config };
        let mut this = Self::new(&model.classes, model.n_cols, config)?;
        this.rows.clone_from(&frames.rows);
        this.offsets.clone_from(&frames.offsets);
        this.center.clone_from(center);
        this.temperature = model.temperature;
        Ok(this)
    }

    /// The state, for [`Online::from_bytes`] of the same version.
    ///
    /// # Errors
    /// [`Error::State`]; does not happen.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        postcard::to_allocvec(self).map_err(|_| Error::State { chunk: None, what: "cannot be written" })
    }

    /// Goes on where [`Online::to_bytes`] was taken, with the same bits.
    ///
    /// # Errors
    /// [`Error::State`] for bytes of something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let corrupt = Error::State { chunk: None, what: "is not one of an online classifier" };
        let Ok(this) = postcard::from_bytes::<Self>(bytes) else { return Err(corrupt) };
        let (n, recent) = (this.classes.len(), this.recent_codes.len());
        let fits = n >= 2
            && this.config.check(this.n_cols).is_ok()
            && this.offsets.len() == n + 1
            && this.offsets[0] == 0
            && this.offsets.windows(2).all(|o| o[0] <= o[1] && o[1] - o[0] <= this.n_cols)
            && this.offsets[n].checked_mul(this.n_cols) == Some(this.rows.len())
            && this.center.as_ref().is_none_or(|c| c.len() == this.n_cols)
            && this.rotations.len() == n
            && this.recent_logits.len() == recent * n
            && recent <= RECENT
            && this.recent_codes.iter().all(|c| (*c as usize) < n);
        if fits { Ok(this) } else { Err(corrupt) }
    }

    /// Samples learned from.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Learns from samples, in their order; `codes[i]` is the class of sample `i`.
    ///
    /// Cost per sample: `2 Σk d` flop to predict, `6 k d` for each class that turns.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one code per sample, a code names no class, or the samples have other columns; what the source
    /// reports. Samples learned from before the error stay learned.
    pub fn learn(&mut self, samples: &dyn Samples, codes: &[u32], observer: &dyn Observer) -> Result<()> {
        if codes.len() != samples.n_rows() {
            return Err(Error::Shape { what: "the list of labels", found: codes.len(), expected: samples.n_rows() });
        }
        if samples.n_cols() != self.n_cols {
            return Err(Error::Shape { what: "a sample", found: samples.n_cols(), expected: self.n_cols });
        }
        if let Some(code) = codes.iter().find(|c| **c as usize >= self.classes.len()) {
            return Err(Error::Shape { what: "a class index", found: *code as usize, expected: self.classes.len() });
        }
        let center = self.center.clone();
        let all: Vec<usize> = (0..codes.len()).collect();
        for_blocks(samples, &all, |rows, values| {
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            normalize(values, self.n_cols, center.as_deref());
            let codes = &codes[rows[0]..rows[0] + rows.len()];
            self.grow(values, codes)?;
            for (x, code) in values.chunks_exact(self.n_cols).zip(codes) {
                self.learn_one(x, *code as usize)?;
            }
            Ok(())
        })
    }

    /// The classifier as it is now. A class without a sample has no subspace: it is never predicted.
    pub fn model(&self) -> Model {
        let n_classes = self.classes.len();
        let t = match self.recent_codes.as_slice() {
            [] => self.temperature,
            codes => temperature(&self.recent_logits, codes, n_classes),
        };
        Model {
            classes: self.classes.clone(),
            n_cols: self.n_cols,
            scorer: Scorer::Subspaces {
                frames: Frames { rows: self.rows.clone(), offsets: self.offsets.clone() },
                gamma: self.config.gamma,
                center: self.center.clone(),
            },
            temperature: t,
            reconstruction: None,
        }
    }

    /// Adds directions to the classes that are not full, from their samples in the block.
    fn grow(&mut self, values: &[f32], codes: &[u32]) -> Result<()> {
        let d = self.n_cols;
        for c in 0..self.classes.len() {
            let range = self.offsets[c]..self.offsets[c + 1];
            let missing = self.config.dim.saturating_sub(range.len());
            let own = values.chunks_exact(d).zip(codes).filter(|(_, code)| **code as usize == c);
            let own: Vec<&[f32]> = own.map(|(x, _)| x).collect();
            if missing == 0 || own.is_empty() {
                continue;
            }
            let frame = &self.rows[range.start * d..range.end * d];
            let rests: Vec<f64> = own.iter().flat_map(|x| rest(frame, x, d)).collect();
            let spectrum = Spectrum::of_rows(&rests, d, missing)?;
            let total: f64 = rests.iter().map(|v| v * v).sum::<f64>() / own.len() as f64;
            let kept = spectrum.values.iter().take_while(|v| **v > LEAST_SHARE * total && **v > TINY * TINY).count();
            let mut grown = [frame, &spectrum.directions()[..kept * d]].concat();
            if kept > 0 {
                geometry::orthonormalize(&mut grown, d)?;
            }
            self.rows.splice(range.start * d..range.end * d, grown);
            self.offsets[c + 1..].iter_mut().for_each(|o| *o += kept);
        }
        Ok(())
    }

    fn learn_one(&mut self, x: &[f32], truth: usize) -> Result<()> {
        let (d, n_classes) = (self.n_cols, self.classes.len());
        let mut z = vec![0.0; self.offsets[n_classes]];
        if !z.is_empty() {
            frames::cross(&self.rows, x, d, &mut z);
        }
        let length = |o: &[usize]| z[o[0]..o[1]].iter().map(|v| v * v).sum::<f64>().sqrt();
        let lengths: Vec<f64> = self.offsets.windows(2).map(length).collect();
        let mut p: Vec<f64> = lengths.iter().map(|l| self.config.gamma * l).collect();
        self.remember(&p, truth);
        let winner = argmax(&p);
        softmax(&mut p);
        let rate = self.config.rate / (1.0 + self.seen as f64 / self.config.half_life).sqrt();
        self.seen += 1;
        for (c, p) in p.into_iter().enumerate() {
            let pull = match self.config.turning {
                Turning::Softmax if c == truth => 1.0 - p,
                Turning::Softmax => -p,
                Turning::Mistakes => f64::from(u8::from(c == truth)) - f64::from(u8::from(c == winner)),
            };
            if pull.abs() < LEAST_GRADIENT {
                continue;
            }
            let distance = (1.0 - lengths[c] * lengths[c]).max(0.0).sqrt();
            let angle = match self.config.turning {
                Turning::Softmax => rate * self.config.gamma * pull * distance,
                Turning::Mistakes => rate * pull,
            };
            let range = self.offsets[c]..self.offsets[c + 1];
            let frame = &mut self.rows[range.start * d..range.end * d];
            turn(frame, d, x, &z[range], angle);
            self.rotations[c] += 1;
            if self.rotations[c] >= RESTORE_EVERY {
                geometry::orthonormalize(frame, d)?;
                self.rotations[c] = 0;
            }
        }
        Ok(())
    }

    fn remember(&mut self, logits: &[f64], truth: usize) {
        if self.recent_codes.len() < RECENT {
            self.recent_codes.push(truth as u32);
            self.recent_logits.extend_from_slice(logits);
        } else {
            let at = (self.seen % RECENT as u64) as usize;
            self.recent_codes[at] = truth as u32;
            self.recent_logits[at * logits.len()..(at + 1) * logits.len()].copy_from_slice(logits);
        }
    }
}

/// What a subspace leaves of a sample: `x − Pᵀ P x`.
fn rest(frame: &[f32], x: &[f32], d: usize) -> Vec<f64> {
    let mut rest: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
    for row in frame.chunks_exact(d) {
        let along: f64 = row.iter().zip(&rest).map(|(p, v)| f64::from(*p) * v).sum();
        rest.iter_mut().zip(row).for_each(|(v, p)| *v -= along * f64::from(*p));
    }
    rest
}

/// Turns a frame (`k x n_cols`) in the plane of its projection `z` of the unit sample `x` by `angle` towards it, or away from it if
/// negative; at most up to it or to its orthogonal complement. Returns the angle turned.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn turn<T: subspan_linalg::Real>(frame: &mut [T], n_cols: usize, x: &[T], z: &[f64], angle: f64) -> f64 {
    assert!(x.len() == n_cols && frame.len() == z.len() * n_cols, "a sample, a frame and its projection");
    let length = z.iter().map(|v| v * v).sum::<f64>().sqrt();
    if length < TINY {
        return 0.0;
    }
    let mut e = vec![0.0; n_cols];
    for (row, z) in frame.chunks_exact(n_cols).zip(z) {
        e.iter_mut().zip(row).for_each(|(e, p)| *e += z / length * p.to_f64());
    }
    let mut r: Vec<f64> = x.iter().zip(&e).map(|(x, e)| x.to_f64() - length * e).collect();
    let distance = r.iter().map(|v| v * v).sum::<f64>().sqrt();
    if distance < TINY {
        return 0.0;
    }
    let phi = distance.atan2(length);
    let angle = angle.clamp(phi - std::f64::consts::FRAC_PI_2, phi);
    let (along, across) = (angle.cos() - 1.0, angle.sin() / distance);
    r.iter_mut().zip(&e).for_each(|(r, e)| *r = along * e + across * *r);
    for (row, z) in frame.chunks_exact_mut(n_cols).zip(z) {
        let u = z / length;
        row.iter_mut().zip(&r).for_each(|(p, v)| *p = T::from_f64(p.to_f64() + u * v));
    }
    angle
}

#[cfg(test)]
mod tests;
