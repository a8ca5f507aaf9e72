//! The hand-written digits of the demo, in memory.

use std::path::Path;

use subspan::classify::DenseSamples;
use subspan::record::InputRecord;
use subspan_io::{Labels, Matrix, write_bytes_atomically};

use crate::failure::Failure;

/// 1,797 images of 8 x 8 pixels; see `fixtures/make_digits.py`.
const NPZ: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/digits.npz"));

/// The name under which the data is put beside the report.
pub(super) const FILE: &str = "digits.npz";

/// Images in rows, each with its digit.
pub(super) struct Digits {
    values: Vec<f32>,
    codes: Vec<u32>,
    pub(super) classes: Vec<String>,
    pub(super) n_cols: usize,
    pub(super) shape: Vec<u64>,
    pub(super) inputs: Vec<InputRecord>,
}

/// Some of the images.
pub(super) struct Part {
    values: Vec<f32>,
    pub(super) codes: Vec<u32>,
    n_cols: usize,
}

impl Digits {
    /// Writes the data beside the report and reads it.
    pub(super) fn unpack(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(FILE);
        write_bytes_atomically(&path, NPZ)?;
        let inside = |key: &str| format!("{}:{key}", path.display());
        let (matrix, labels) = (Matrix::open(&inside("images"))?, Labels::open(&inside("labels"))?);
        Ok(Self {
            values: matrix.to_f32()?,
            codes: labels.codes,
            classes: labels.classes,
            n_cols: matrix.n_cols(),
            shape: matrix.shape().to_vec(),
            inputs: vec![matrix.input_record()?, labels.input],
        })
    }

    /// The images whose row and digit `keep` accepts.
    pub(super) fn part(&self, keep: impl Fn(usize, u32) -> bool) -> Part {
        let rows: Vec<usize> = (0..self.codes.len()).filter(|i| keep(*i, self.codes[*i])).collect();
        let image = |i: &usize| &self.values[i * self.n_cols..(i + 1) * self.n_cols];
        Part {
            values: rows.iter().flat_map(image).copied().collect(),
            codes: rows.iter().map(|i| self.codes[*i]).collect(),
            n_cols: self.n_cols,
        }
    }
}

impl Part {
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(super) fn samples(&self) -> subspan::Result<DenseSamples<'_>> {
        DenseSamples::new(&self.values, self.n_cols)
    }
}
