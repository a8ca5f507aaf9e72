//! Rows that are, or may still come to be, in a sample.

use serde::{Deserialize, Serialize};

use super::Inclusion;
use crate::error::Result;
use crate::rows::RowBlock;

/// Rows with what decides about them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) n_cols: usize,
    pub(crate) ids: Vec<u64>,
    pub(crate) scores: Vec<f64>,
    pub(crate) leverages: Vec<f64>,
    pub(crate) uniforms: Vec<f64>,
    /// Final probabilities, set at the end of the draw.
    pub(crate) probabilities: Vec<f64>,
    pub(crate) values: Vec<f64>,
    #[serde(with = "whole")]
    pub(crate) records: Vec<Box<[u8]>>,
}

/// Byte strings at once instead of byte by byte.
mod whole {
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_bytes::{ByteBuf, Bytes};

    pub(super) fn serialize<S: Serializer>(strings: &[Box<[u8]>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(strings.iter().map(|s| Bytes::new(s)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Box<[u8]>>, D::Error> {
        let strings = Vec::<ByteBuf>::deserialize(from)?;
        Ok(strings.into_iter().map(|s| s.into_vec().into_boxed_slice()).collect())
    }
}

impl Kept {
    pub(super) fn new(n_cols: usize) -> Self {
        Self { n_cols, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Appends the rows of another list.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.ids.append(&mut other.ids);
        self.scores.append(&mut other.scores);
        self.leverages.append(&mut other.leverages);
        self.uniforms.append(&mut other.uniforms);
        self.probabilities.append(&mut other.probabilities);
        self.values.append(&mut other.values);
        self.records.append(&mut other.records);
    }

    /// Keeps the rows for which `keep(index)` holds.
    pub(crate) fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let chosen: Vec<usize> = (0..self.len()).filter(|i| keep(*i)).collect();
        if chosen.len() == self.len() {
            return;
        }
        fn pick<T>(all: &mut Vec<T>, chosen: &[usize]) {
            if !all.is_empty() {
                chosen.iter().enumerate().for_each(|(to, from)| all.swap(to, *from));
                all.truncate(chosen.len());
            }
        }
        pick(&mut self.ids, &chosen);
        pick(&mut self.scores, &chosen);
        pick(&mut self.leverages, &chosen);
        pick(&mut self.uniforms, &chosen);
        pick(&mut self.probabilities, &chosen);
        pick(&mut self.records, &chosen);
        let d = self.n_cols;
        for (to, from) in chosen.iter().enumerate() {
            self.values.copy_within(from * d..(from + 1) * d, to * d);
        }
        self.values.truncate(chosen.len() * d);
    }

    /// Keeps the rows whose uniform lies below their probability.
    pub(super) fn thin(&mut self, inclusion: &Inclusion) {
        let inside: Vec<bool> = (0..self.len())
            .map(|i| self.uniforms[i] < inclusion.probability(self.scores[i], self.leverages[i]))
            .collect();
        self.retain(|i| inside[i]);
    }

    /// Sets every row's probability.
    pub(super) fn set_probabilities(&mut self, inclusion: &Inclusion) {
        self.probabilities =
            self.scores.iter().zip(&self.leverages).map(|(s, t)| inclusion.probability(*s, *t)).collect();
    }

    /// Appends the chosen rows (increasing local indices) of a block.
    pub(super) fn extend(&mut self, block: &RowBlock<'_>, chosen: &[Choice]) -> Result<()> {
        for c in chosen {
            self.ids.push(block.id(c.row));
            self.scores.push(c.score);
            self.leverages.push(c.leverage);
            self.uniforms.push(c.uniform);
            self.values.extend_from_slice(block.row(c.row));
        }
        if let Some(records) = block.records
            && !chosen.is_empty()
        {
            let rows: Vec<usize> = chosen.iter().map(|c| c.row).collect();
            self.records.extend(records.encode(&rows)?);
        }
        Ok(())
    }
}

/// A row of a block, to be kept.
pub(super) struct Choice {
    pub(super) row: usize,
    pub(super) score: f64,
    pub(super) leverage: f64,
    pub(super) uniform: f64,
}
