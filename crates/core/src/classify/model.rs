//! A trained classifier: what predictions need, and nothing else.

use rayon::prelude::*;
use subspan_linalg::{gemm, row_lengths, softmax};

use super::calibrate::{Bin, Scores, reliability, scores};
use super::head::{Head, argmax};
use super::labelled::Labelled;
use super::samples::{Samples, ZERO, for_blocks, normalize_here};
use super::strange::Reconstruction;
use crate::error::{Error, Result};

/// Rows up to this length are multiplied as they are: no product of them overflows.
const LONG: f64 = 1e15;

/// Fewest and most samples that are predicted at a time: enough to pack the subspaces for, few enough to feed every thread.
const TILE_ROWS: std::ops::RangeInclusive<usize> = 128..=512;
/// Tiles up to this many values stay in the second-level cache.
const TILE_VALUES: usize = 1 << 17;
/// Subspaces of more values come from memory for every tile, which then is as large as it may be.
const CACHED_VALUES: usize = 1 << 19;
/// Enough tiles to feed the cores of one machine.
const MOST_TILES: usize = 16;

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

/// Buffers of a tile of samples, kept from one tile to the next.
#[derive(Default)]
pub(super) struct Scratch {
    /// Samples that are not used where they lie.
    pub(super) copy: Vec<f32>,
    /// The inverse lengths of samples, or one.
    pub(super) scales: Vec<f64>,
    /// Products of samples with all rows of the scorer.
    pub(super) products: Vec<f32>,
    /// What the classes of the samples get.
    pub(super) logits: Vec<f64>,
}

/// What a tile of samples is told.
struct Told<'a> {
    codes: &'a mut [u32],
    probabilities: &'a mut [f32],
    strangeness: &'a mut [f32],
}

impl Scorer {
    /// How many of `n` samples make a tile.
    fn tile_rows(&self, n: usize, n_cols: usize) -> usize {
        let (least, most) = TILE_ROWS.into_inner();
        let values = match self {
            Self::Subspaces { frames, .. } => frames.rows.len(),
            Self::Linear { weights, .. } => weights.len(),
        };
        let fit = if values > CACHED_VALUES { most } else { (TILE_VALUES / n_cols).clamp(least, most) };
        n.div_ceil(MOST_TILES).clamp(least, fit)
    }

    /// Logits (`n x n_classes`) of samples (`n x n_cols`).
    pub(crate) fn logits(&self, values: &[f32], n_cols: usize) -> Vec<f64> {
        let rows = self.tile_rows(values.len() / n_cols, n_cols);
        let tiles = values.par_chunks(rows * n_cols).map_init(Scratch::default, |scratch, values| {
            self.logits_here(values, n_cols, scratch);
            scratch.logits.clone()
        });
        tiles.collect::<Vec<_>>().concat()
    }

    /// [`Scorer::logits`] on the calling thread, into the scratch.
    fn logits_here(&self, values: &[f32], n_cols: usize, scratch: &mut Scratch) {
        let Scratch { copy, scales, products, logits } = scratch;
        match self {
            Self::Subspaces { frames, gamma, center } => {
                let head = Head { frames: &frames.rows, offsets: &frames.offsets, n_cols, gamma: *gamma };
                if !project_as_they_are(&head, values, center.is_some(), scales, products) {
                    direct(values, n_cols, center.as_deref(), copy, scales);
                    head.project_here(copy, products);
                }
                head.logits_here(products, scales, logits);
            }
            Self::Linear { weights, bias } => {
                products.resize(values.len() / n_cols * bias.len(), 0.0);
                gemm::mul_transposed_here(values, weights, n_cols, products);
                logits.resize(products.len(), 0.0);
                for (row, logits) in products.chunks_exact(bias.len()).zip(logits.chunks_exact_mut(bias.len())) {
                    logits.iter_mut().zip(row).zip(bias).for_each(|((l, p), b)| *l = f64::from(*p) + f64::from(*b));
                }
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
        let rows = self.scorer.tile_rows(n, d);
        let tiles = codes
            .par_chunks_mut(rows)
            .zip(probabilities.par_chunks_mut(rows * n_classes))
            .zip(strangeness.par_chunks_mut(rows))
            .map(|((codes, probabilities), strangeness)| Told { codes, probabilities, strangeness });
        let one = |(read, scratch): &mut (Vec<f32>, Scratch), (tile, told): (usize, Told<'_>)| {
            let (first, n) = (tile * rows, told.codes.len());
            let values = match samples.slice(first, n) {
                Some(values) => values,
                None => {
                    read.resize(n * d, 0.0);
                    samples.gather(&(first..first + n).collect::<Vec<_>>(), read)?;
                    read
                }
            };
            self.tell(values, told, scratch);
            Ok(())
        };
        // All tiles are tried, so that the error is that of the first bad row.
        let all = tiles.enumerate().map_init(Default::default, one);
        all.collect::<Vec<Result<()>>>().into_iter().collect::<Result<()>>()?;
        let strangeness = self.reconstruction.as_ref().map(|_| strangeness);
        Ok(Predictions { codes, probabilities, strangeness })
    }

    /// Predictions of a tile, on the calling thread.
    fn tell(&self, values: &[f32], told: Told<'_>, scratch: &mut Scratch) {
        if let Some(reconstruction) = &self.reconstruction {
            told.strangeness.copy_from_slice(&reconstruction.strangeness(values, self.n_cols, scratch));
        }
        self.scorer.logits_here(values, self.n_cols, scratch);
        let Told { codes, probabilities, .. } = told;
        softmax(&scratch.logits, self.classes.len(), 1.0 / self.temperature, probabilities, codes);
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

/// Whether a sample of this length is multiplied as it is.
fn ordinary(length: f64) -> bool {
    (ZERO..=LONG).contains(&length)
}

/// Projects samples where they lie, if nothing is to be subtracted and all lengths are ordinary: lengths are added up after the
/// product, which has brought the samples into the cache. Returns whether it could; if not, `scales` are the lengths, or ones where
/// something is to be subtracted.
fn project_as_they_are(
    head: &Head<'_, f32>,
    values: &[f32],
    centered: bool,
    scales: &mut Vec<f64>,
    products: &mut Vec<f32>,
) -> bool {
    scales.clear();
    scales.resize(values.len() / head.n_cols, 1.0);
    if centered {
        return false;
    }
    head.project_here(values, products);
    row_lengths(values, head.n_cols, scales);
    let all = scales.iter().all(|length| ordinary(*length));
    scales.iter_mut().filter(|_| all).for_each(|s| *s = s.recip());
    all
}

/// Copies samples, brought to length one where they are centred or their length is not ordinary, and turns the lengths of the others
/// into scales that do the same to their projections. What a sample becomes depends on it alone.
fn direct(values: &[f32], n_cols: usize, center: Option<&[f32]>, copy: &mut Vec<f32>, scales: &mut [f64]) {
    copy.clear();
    copy.extend_from_slice(values);
    for (row, scale) in copy.chunks_exact_mut(n_cols).zip(scales) {
        if center.is_none() && ordinary(*scale) {
            *scale = scale.recip();
        } else {
            normalize_here(row, n_cols, center);
            *scale = 1.0;
        }
    }
}

/// Scores of a scorer on rows of labelled data.
pub(crate) fn logits_and_codes(scorer: &Scorer, data: &Labelled<'_>, rows: &[usize]) -> Result<(Vec<f64>, Vec<u32>)> {
    Ok((scorer.logits_of(data.samples, rows)?, data.codes_of(rows)))
}
