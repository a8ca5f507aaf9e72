//! Open sets: how strange a sample is to all classes of a model, by what its classes look like rather than by its logits.

use super::contrast::{Contrast, Known};
use super::head::Head;
use super::labelled::Labelled;
use super::model::{Frames, Scratch};
use super::samples::{for_blocks, normalize, normalize_here};
use crate::error::Result;

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

impl Reconstruction {
    /// Strangeness of samples, on the calling thread.
    pub(super) fn strangeness(&self, values: &[f32], n_cols: usize, scratch: &mut Scratch) -> Vec<f32> {
        let mut unit = std::mem::take(&mut scratch.copy);
        unit.clear();
        unit.extend_from_slice(values);
        normalize_here(&mut unit, n_cols, self.center.as_deref());
        let sines = self.sines(&unit, n_cols, None, scratch);
        let strangeness = match &self.contrast {
            None => sines.iter().map(|s| *s as f32).collect(),
            Some(contrast) => {
                let rows = sines.iter().zip(contrast.of(&unit, None)).zip(unit.chunks_exact(n_cols));
                let joined = |((sine, measure), row): ((&f64, f64), &[f32])| {
                    if row.iter().all(|v| *v == 0.0) { 1.0 } else { contrast.join(*sine, measure) }
                };
                rows.map(joined).collect()
            }
        };
        scratch.copy = unit;
        strangeness
    }

    /// `min_c √(1 − ‖Q_c x̂‖²)` of unit rows, without the given class of each if there are any.
    fn sines(&self, unit: &[f32], n_cols: usize, without: Option<&[u32]>, scratch: &mut Scratch) -> Vec<f64> {
        let Scratch { scales, products, logits: cosines, .. } = scratch;
        let offsets = &self.frames.offsets;
        scales.clear();
        scales.resize(unit.len() / n_cols, 1.0);
        let head = Head { frames: &self.frames.rows, offsets, n_cols, gamma: 1.0 };
        head.project_here(unit, products);
        head.logits_here(products, scales, cosines);
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
        let (mut known, mut scratch) = (Known::default(), Scratch::default());
        for_blocks(data.samples, rows, |rows, values| {
            normalize(values, d, self.center.as_deref());
            let some = || values.chunks_exact(d).zip(rows).filter(|(x, _)| x.iter().any(|v| *v != 0.0));
            let unit: Vec<f32> = some().flat_map(|(x, _)| x).copied().collect();
            let codes: Vec<u32> = some().map(|(_, row)| data.codes[*row]).collect();
            for (measures, without) in [(&mut known.own, None), (&mut known.others, Some(&codes[..]))] {
                measures[0].extend(self.sines(&unit, d, without, &mut scratch));
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
