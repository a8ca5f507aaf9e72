//! Tables whose columns differ so much in size that squares leave the range of `f64`.

use serde::{Deserialize, Serialize};
use subspan_linalg::apply::{max_abs_columns, scale_columns};
use subspan_linalg::column_scales;

use crate::error::Result;
use crate::observe::Observer;
use crate::remote::{self, Origin, Pass, RowMap};
use crate::rows::{RowBlock, RowSource};

/// The largest absolute value of every column.
#[derive(Serialize, Deserialize)]
pub(crate) struct MaxAbs;

impl Pass for MaxAbs {
    const NAME: &'static str = "max-abs";
    type State = Vec<f64>;

    fn start(&self, n_cols: usize) -> Vec<f64> {
        vec![0.0; n_cols]
    }

    fn step(&self, max: &mut Vec<f64>, block: &RowBlock<'_>) -> Result<()> {
        max_abs_columns(block.values, max);
        Ok(())
    }

    fn merge(&self, max: &mut Vec<f64>, other: Vec<f64>) {
        max.iter_mut().zip(other).for_each(|(m, v)| *m = m.max(v));
    }
}

/// A source with its columns multiplied by powers of two, which changes no score.
pub(crate) struct ScaledRows<'a> {
    source: &'a dyn RowSource,
    scales: Vec<f64>,
}

impl<'a> ScaledRows<'a> {
    /// Brings all columns to size one (one pass); `None` if no column needs it.
    pub(crate) fn new(source: &'a dyn RowSource, observer: &dyn Observer) -> Result<Option<Self>> {
        let max_abs = remote::run(source, &MaxAbs, observer)?;
        Ok(column_scales(&max_abs).map(|scales| Self { source, scales }))
    }

    /// Multiplies columns by `scales`.
    pub(crate) fn with_scales(source: &'a dyn RowSource, scales: Vec<f64>) -> Self {
        Self { source, scales }
    }

    /// Takes the scales off rows of this source.
    pub(crate) fn unscale(&self, values: &mut [f64]) {
        for row in values.chunks_exact_mut(self.scales.len()) {
            row.iter_mut().zip(&self.scales).for_each(|(v, s)| *v /= s);
        }
    }
}

impl RowSource for ScaledRows<'_> {
    fn n_cols(&self) -> usize {
        self.source.n_cols()
    }

    fn n_rows(&self) -> Option<u64> {
        self.source.n_rows()
    }

    fn redundant(&self) -> Vec<usize> {
        self.source.redundant()
    }

    fn origin(&self) -> Option<Origin<'_>> {
        Some(self.source.origin()?.then(RowMap::Scale(self.scales.clone())))
    }

    fn n_chunks(&self) -> usize {
        self.source.n_chunks()
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let mut scaled = Vec::new();
        self.source.scan(chunk, &mut |block| {
            scaled.resize(block.values.len(), 0.0);
            scale_columns(block.values, &self.scales, &mut scaled);
            visit(&RowBlock { values: &scaled, ..*block })
        })
    }
}
