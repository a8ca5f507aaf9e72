//! What the report of a classifier draws: where it errs, and what its subspaces look like.

use serde_json::{Value, json};
use subspan::RunRecord;
use subspan::classify::{Labelled, Model, Samples, Scorer, class_angles, portraits};
use subspan_report::images;

use crate::failure::Failure;

/// Samples shown per direction.
const NEAREST: usize = 8;
/// Directions of a class whose samples are shown.
const DIRECTIONS: usize = 4;

/// Which classes are taken for which, and whether probabilities mean what they say, on samples called `what`.
pub(crate) fn mistakes(
    record: &mut RunRecord,
    model: &Model,
    samples: &dyn Samples,
    codes: &[u32],
    what: &str,
) -> Result<(), Failure> {
    let found = model.examine(samples, codes)?;
    record.result("examined_on", what);
    record.result("confusion", found.confusion.chunks(model.classes.len()).collect::<Vec<_>>());
    record.result("reliability", found.reliability);
    record.result("uncalibrated", found.uncalibrated);
    Ok(())
}

/// Angles between the subspaces, their energies, and the samples nearest to their directions; with `shape`, as images of that
/// height, width and number of channels. A linear classifier has none of this.
pub(crate) fn subspaces(
    record: &mut RunRecord,
    model: &Model,
    data: &Labelled<'_>,
    samples: &dyn Samples,
    shape: Option<[usize; 3]>,
) -> Result<(), Failure> {
    let Scorer::Subspaces { frames, .. } = &model.scorer else { return Ok(()) };
    let smallest = |angles: &Vec<f64>| angles.first().copied().unwrap_or(0.0).to_degrees();
    let angles: Vec<f64> = class_angles(frames, model.n_cols)?.iter().map(smallest).collect();
    record.result("class_angles", angles.chunks(model.classes.len()).collect::<Vec<_>>());
    let mut out = Vec::new();
    for portrait in portraits(model, data, NEAREST)? {
        let mut entry = json!(portrait);
        if let Some(shape) = shape {
            entry["tiles"] = tiles(samples, &portrait.nearest, shape)?;
        }
        out.push(entry);
    }
    record.result("portraits", out);
    Ok(())
}

fn tiles(samples: &dyn Samples, nearest: &[Vec<usize>], shape: [usize; 3]) -> Result<Value, Failure> {
    let rows: Vec<usize> = nearest.iter().take(DIRECTIONS).flatten().copied().collect();
    let mut values = vec![0f32; rows.len() * samples.n_cols()];
    samples.gather(&rows, &mut values)?;
    Ok(images(shape, &values))
}
