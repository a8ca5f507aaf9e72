//! Samples with their classes, and how some of them are held out.

use super::samples::{self, Samples};
use crate::draw::Stream;
use crate::error::{Error, Result};

/// Samples with one class each.
#[derive(Clone, Copy)]
pub struct Labelled<'a> {
    pub(crate) samples: &'a dyn Samples,
    pub(crate) codes: &'a [u32],
    pub(crate) classes: &'a [String],
}

impl<'a> Labelled<'a> {
    /// `codes[i]` is the index in `classes` of sample `i`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one code per sample or a code names no class; [`Error::Classes`] unless at least two
    /// classes have samples.
    pub fn new(samples: &'a dyn Samples, codes: &'a [u32], classes: &'a [String]) -> Result<Self> {
        if codes.len() != samples.n_rows() {
            return Err(Error::Shape { what: "the list of labels", found: codes.len(), expected: samples.n_rows() });
        }
        if let Some(code) = codes.iter().find(|c| **c as usize >= classes.len()) {
            return Err(Error::Shape { what: "a class index", found: *code as usize, expected: classes.len() });
        }
        let this = Self { samples, codes, classes };
        let members = this.members(&(0..codes.len()).collect::<Vec<_>>());
        let present: Vec<&String> =
            classes.iter().zip(&members).filter(|(_, m)| !m.is_empty()).map(|(c, _)| c).collect();
        match (present.as_slice(), members.iter().position(Vec::is_empty)) {
            ([] | [_], _) => Err(Error::Classes {
                found: present.len(),
                label: present.first().map_or_else(String::new, |c| (*c).clone()),
            }),
            (_, Some(c)) => Err(Error::parameter("class", &classes[c], "the label of at least one sample")),
            _ => Ok(this),
        }
    }

    /// Names of the classes.
    pub fn classes(&self) -> &'a [String] {
        self.classes
    }

    /// Values per sample.
    pub fn n_cols(&self) -> usize {
        self.samples.n_cols()
    }

    /// Number of classes.
    pub(crate) fn n_classes(&self) -> usize {
        self.classes.len()
    }

    /// The rows of each class among `rows`, in their order.
    pub(crate) fn members(&self, rows: &[usize]) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.n_classes()];
        for row in rows {
            members[self.codes[*row] as usize].push(*row);
        }
        members
    }

    /// The classes of `rows`.
    pub(crate) fn codes_of(&self, rows: &[usize]) -> Vec<u32> {
        rows.iter().map(|r| self.codes[*r]).collect()
    }

    /// Rows to train on and rows held out, ascending: a fraction of every class (rounded up, but never its last row).
    pub(crate) fn split(&self, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let stream = Stream::new(seed, "classify held out");
        let mut held = vec![false; self.codes.len()];
        for (c, members) in self.members(&(0..self.codes.len()).collect::<Vec<_>>()).iter().enumerate() {
            let count = ((fraction * members.len() as f64).ceil() as usize).min(members.len().saturating_sub(1));
            for i in &stream.rng(c as u64).permutation(members.len())[..count] {
                held[members[*i]] = true;
            }
        }
        (0..held.len()).partition(|i| !held[*i])
    }

    /// The mean of `rows`, added in `f64`, in the order of `rows`.
    pub(crate) fn mean(&self, rows: &[usize]) -> Result<Vec<f64>> {
        let mut sum = vec![0.0; self.n_cols()];
        samples::for_blocks(self.samples, rows, |_, values| {
            for row in values.chunks_exact(sum.len()) {
                sum.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
            }
            Ok(())
        })?;
        sum.iter_mut().for_each(|s| *s /= rows.len().max(1) as f64);
        Ok(sum)
    }
}
