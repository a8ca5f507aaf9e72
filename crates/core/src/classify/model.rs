//! A trained classifier: what predictions need, and nothing else.

use rayon::prelude::*;
use subspan_linalg::{gemm, softmax};

use super::calibrate::{Bin, Scores, reliability, scores};
use super::contrast::{Contrast, Known};
use super::head::{Head, argmax};
use super::labelled::Labelled;
use super::samples::{Samples, for_blocks, normalize, normalize_here};
use crate::error::{Error, Result};

/// Samples that are predicted at a time: enough to pack the subspaces for, few enough to stay in the second-level cache.
const TILE_ROWS: usize = 128;

/// Subspaces of one surrounding space, stacked.
#[derive(Debug, Clone, PartialEq)]
pub struct Frames {
    /// Orthonormal rows, subspace after subspace: `offsets.last() x n_cols`.
    pub rows: Vec<f32>,
    /// The rows of subspace `c` are `offsets[c]..offsets[c + 1]`.
    pub offsets: Vec<usize>,
}

impl Frames {
    /// The largest dimension.
    pub(crate) fn largest(&self) -> usize {
        self.offsets.windows(2).map(|o| o[1] - o[0]).max().unwrap_or(0)
    }

    /// Whether there are `n_classes` subspaces of dimension 1 to `n_cols`.
    pub(crate) fn check(&self, n_classes: usize, n_cols: usize) -> Result<()> {
        let found = self.offsets.len().saturating_sub(1);
        if found != n_classes {
            return Err(Error::Shape { what: "the list of starting subspaces", found, expected: n_classes });
        }
        let rows = self.offsets[n_classes];
        if rows * n_cols != self.rows.len() {
            let found = self.rows.len() / rows.max(1);
            return Err(Error::Shape { what: "a row of the starting subspaces", found, expected: n_cols });
        }
        match self.offsets.windows(2).map(|o| o[1].saturating_sub(o[0])).find(|k| !(1..=n_cols).contains(k)) {
            Some(k) => Err(Error::parameter("dimension of a starting subspace", k, format!("1 to {n_cols}"))),
            None => Ok(()),
        }
    }
}

/// How classes are scored.
#[derive(Debug, Clone, PartialEq)]
pub enum Scorer {
    /// `gamma` times the length of the unit sample's projection on the class's subspace.
    Subspaces {
        /// One subspace per class.
        frames: Frames,
        /// Scale of the logits.
        gamma: f64,
        /// Subtracted from a sample before it is brought to length one.
        center: Option<Vec<f32>>,
    },
    /// A linear function of the sample.
    Linear {
        /// `n_classes x n_cols`.
        weights: Vec<f32>,
        /// One per class.
        bias: Vec<f32>,
    },
}

/// A trained classifier.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Values per sample.
    pub n_cols: usize,
    /// How classes are scored.
    pub scorer: Scorer,
    /// Probabilities are the softmax of the logits divided by this.
    pub temperature: f64,
    /// One subspace per class that describes its samples, for [`Predictions::strangeness`]; fitted apart from the classifier,
    /// because training turns the classifier's subspaces into contrasts, whose residuals say nothing about strange samples.
    pub reconstruction: Option<Reconstruction>,
}

/// What strangeness is measured against.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconstruction {
    /// One subspace per class.
    pub frames: Frames,
    /// Subtracted before a sample is brought to length one.
    pub center: Option<Vec<f32>>,
    /// A second measure, joined with the sine of the angle to the nearest subspace; older models and very wide ones have none.
    pub contrast: Option<Contrast>,
}

/// What a model says of samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// The most probable class of each sample, the first of equals.
    pub codes: Vec<u32>,
    /// `n x n_classes`; rows sum to one.
    pub probabilities: Vec<f32>,
    /// From 0 to 1, 1 for a zero sample. With a [`Contrast`]: the weighted mean of it and of the sine of the angle to the nearest class's
    /// reconstruction subspace, both in deviations from known samples' mean, `s`, as `(1 + s / √(1 + s²)) / 2`; without: the sine.
    pub strangeness: Option<Vec<f32>>,
}

/// Where a model errs.
#[derive(Debug, Clone, PartialEq)]
pub struct Examination {
    /// Samples of class `a` that were taken for class `b`, at `a * n_classes + b`.
    pub confusion: Vec<u64>,
    /// Accuracy against confidence, with the model's temperature.
    pub reliability: Vec<Bin>,
    /// The same without it.
    pub uncalibrated: Vec<Bin>,
}

impl Scorer {
    /// Logits (`n x n_classes`) of samples (`n x n_cols`), which are changed.
    pub(crate) fn logits(&self, values: &mut [f32], n_cols: usize) -> Vec<f64> {
        let tiles = values.par_chunks_mut(TILE_ROWS * n_cols).map(|values| self.logits_here(values, n_cols));
        tiles.collect::<Vec<_>>().concat()
    }

    /// [`Scorer::logits`] on the calling thread.
    fn logits_here(&self, values: &mut [f32], n_cols: usize) -> Vec<f64> {
        match self {
            Self::Subspaces { frames, gamma, center } => {
                normalize_here(values, n_cols, center.as_deref());
                Head { frames: &frames.rows, offsets: &frames.offsets, n_cols, gamma: *gamma }.logits_here(values)
            }
            Self::Linear { weights, bias } => {
                let mut products = vec![0f32; values.len() / n_cols * bias.len()];
                gemm::mul_transposed_here(values, weights, n_cols, &mut products);
                let mut logits = vec![0.0; products.len()];
                for (row, logits) in products.chunks_exact(bias.len()).zip(logits.chunks_exact_mut(bias.len())) {
                    logits.iter_mut().zip(row).zip(bias).for_each(|((l, p), b)| *l = f64::from(*p) + f64::from(*b));
                }
                logits
            }
        }
    }

    /// Logits of the given rows.
    pub(crate) fn logits_of(&self, samples: &dyn Samples, rows: &[usize]) -> Result<Vec<f64>> {
        let mut logits = Vec::new();
        for_blocks(samples, rows, |_, values| {
            logits.extend(self.logits(values, samples.n_cols()));
            Ok(())
        })?;
        Ok(logits)
    }
}

impl Model {
    /// Classes, probabilities and, if the model has a reconstruction, strangeness of every sample, block by block.
    ///
    /// # Errors
    /// [`Error::Shape`] if the samples do not have the model's number of columns; what the source reports.
    pub fn predict(&self, samples: &dyn Samples) -> Result<Predictions> {
        self.check_columns(samples)?;
        let (n, d, n_classes) = (samples.n_rows(), self.n_cols, self.classes.len());
        let mut codes = vec![0u32; n];
        let mut probabilities = vec![0f32; n * n_classes];
        let mut strangeness = vec![0f32; n];
        // One tile of samples after the other goes the whole way while it is in the cache.
        let tiles = codes
            .par_chunks_mut(TILE_ROWS)
            .zip(probabilities.par_chunks_mut(TILE_ROWS * n_classes))
            .zip(strangeness.par_chunks_mut(TILE_ROWS));
        let one = |first: usize, codes: &mut [u32], probabilities: &mut [f32], strange: &mut [f32]| {
            let rows: Vec<usize> = (first..first + codes.len()).collect();
            let mut values = vec![0f32; rows.len() * d];
            samples.gather(&rows, &mut values)?;
            if let Some(reconstruction) = &self.reconstruction {
                strange.copy_from_slice(&reconstruction.strangeness(&mut values.clone(), d));
            }
            let logits = self.scorer.logits_here(&mut values, d);
            let rows = logits.chunks_exact(n_classes).zip(probabilities.chunks_exact_mut(n_classes));
            codes.iter_mut().zip(rows).for_each(|(code, (logits, out))| {
                *code = softmax(logits, 1.0 / self.temperature, out) as u32;
            });
            Ok(())
        };
        // All tiles are tried, so that the error is that of the first bad row.
        let all = tiles
            .enumerate()
            .map(|(i, ((codes, probabilities), strange))| one(i * TILE_ROWS, codes, probabilities, strange));
        all.collect::<Vec<Result<()>>>().into_iter().collect::<Result<()>>()?;
        let strangeness = self.reconstruction.as_ref().map(|_| strangeness);
        Ok(Predictions { codes, probabilities, strangeness })
    }

    /// Logits of every sample (`n x n_classes`), block by block: probabilities are the softmax of them divided by the temperature.
    ///
    /// # Errors
    /// As [`Model::predict`].
    pub fn logits(&self, samples: &dyn Samples) -> Result<Vec<f64>> {
        self.check_columns(samples)?;
        self.scorer.logits_of(samples, &(0..samples.n_rows()).collect::<Vec<_>>())
    }

    /// How well the model predicts labelled samples of its own classes, in its own order.
    ///
    /// # Errors
    /// As [`Model::predict`]; [`Error::Shape`] if the codes do not fit the samples or the classes.
    pub fn evaluate(&self, samples: &dyn Samples, codes: &[u32]) -> Result<Scores> {
        Ok(scores(&self.checked_logits(samples, codes)?, codes, self.classes.len(), self.temperature))
    }

    /// [`Model::evaluate`] in detail: which classes are taken for which, and whether probabilities mean what they say.
    ///
    /// # Errors
    /// As [`Model::evaluate`].
    pub fn examine(&self, samples: &dyn Samples, codes: &[u32]) -> Result<Examination> {
        let (logits, n) = (self.checked_logits(samples, codes)?, self.classes.len());
        let mut confusion = vec![0; n * n];
        for (row, truth) in logits.chunks_exact(n).zip(codes) {
            confusion[*truth as usize * n + argmax(row)] += 1;
        }
        Ok(Examination {
            confusion,
            reliability: reliability(&logits, codes, n, self.temperature),
            uncalibrated: reliability(&logits, codes, n, 1.0),
        })
    }

    fn checked_logits(&self, samples: &dyn Samples, codes: &[u32]) -> Result<Vec<f64>> {
        self.check_columns(samples)?;
        if codes.len() != samples.n_rows() {
            return Err(Error::Shape { what: "the list of labels", found: codes.len(), expected: samples.n_rows() });
        }
        if let Some(code) = codes.iter().find(|c| **c as usize >= self.classes.len()) {
            return Err(Error::Shape { what: "a class index", found: *code as usize, expected: self.classes.len() });
        }
        let rows: Vec<usize> = (0..codes.len()).collect();
        self.scorer.logits_of(samples, &rows)
    }

    fn check_columns(&self, samples: &dyn Samples) -> Result<()> {
        match samples.n_cols() {
            n if n == self.n_cols => Ok(()),
            n => Err(Error::Shape { what: "a sample", found: n, expected: self.n_cols }),
        }
    }
}

impl Reconstruction {
    /// Strangeness of samples, which become unit rows; on the calling thread.
    fn strangeness(&self, values: &mut [f32], n_cols: usize) -> Vec<f32> {
        normalize_here(values, n_cols, self.center.as_deref());
        let sines = self.sines(values, n_cols, None);
        let Some(contrast) = &self.contrast else { return sines.iter().map(|s| *s as f32).collect() };
        let rows = sines.iter().zip(contrast.of(values, None)).zip(values.chunks_exact(n_cols));
        let joined = |((sine, measure), row): ((&f64, f64), &[f32])| {
            if row.iter().all(|v| *v == 0.0) { 1.0 } else { contrast.join(*sine, measure) }
        };
        rows.map(joined).collect()
    }

    /// `min_c √(1 − ‖Q_c x̂‖²)` of unit rows, without the given class of each if there are any.
    fn sines(&self, unit: &[f32], n_cols: usize, without: Option<&[u32]>) -> Vec<f64> {
        let offsets = &self.frames.offsets;
        let head = Head { frames: &self.frames.rows, offsets, n_cols, gamma: 1.0 };
        let mut cosines = head.logits_here(unit);
        let rows = cosines.chunks_exact_mut(offsets.len() - 1).enumerate();
        rows.map(|(i, row)| {
            if let Some(classes) = without {
                row[classes[i] as usize] = 0.0;
            }
            sine(row.iter().copied().fold(0.0, f64::max))
        })
        .collect()
    }

    /// Both measures of the given rows but zero ones.
    pub(crate) fn measures(&self, data: &Labelled<'_>, rows: &[usize], contrast: &Contrast) -> Result<Known> {
        let d = data.n_cols();
        let mut known = Known::default();
        for_blocks(data.samples, rows, |rows, values| {
            normalize(values, d, self.center.as_deref());
            let some = || values.chunks_exact(d).zip(rows).filter(|(x, _)| x.iter().any(|v| *v != 0.0));
            let unit: Vec<f32> = some().flat_map(|(x, _)| x).copied().collect();
            let codes: Vec<u32> = some().map(|(_, row)| data.codes[*row]).collect();
            for (measures, without) in [(&mut known.own, None), (&mut known.others, Some(&codes[..]))] {
                measures[0].extend(self.sines(&unit, d, without));
                measures[1].extend(contrast.of(&unit, without));
            }
            Ok(())
        })?;
        Ok(known)
    }
}

fn sine(cosine: f64) -> f64 {
    (1.0 - cosine * cosine).max(0.0).sqrt()
}

/// Scores of a scorer on rows of labelled data.
pub(crate) fn logits_and_codes(scorer: &Scorer, data: &Labelled<'_>, rows: &[usize]) -> Result<(Vec<f64>, Vec<u32>)> {
    Ok((scorer.logits_of(data.samples, rows)?, data.codes_of(rows)))
}
