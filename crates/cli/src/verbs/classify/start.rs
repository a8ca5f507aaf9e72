//! `--start`: from a file to the subspaces that training begins at.

use std::collections::HashMap;

use subspan::classify::{Frames, Labelled, Model, Scorer, linear_start, orthonormality_defect, orthonormalize};
use subspan_io::{Start, read_start};
use subspan_report::significant;

use crate::failure::Failure;

/// Rows whose products are off by less than this are a basis that only needs polishing.
const NEARLY_ORTHONORMAL: f64 = 0.1;

/// The subspaces of `path` for the classes of `data`, and what the user should know. A linear head becomes subspaces of dimension
/// `k` that decide alike.
pub(super) fn frames(path: &str, data: &Labelled<'_>, k: usize) -> Result<(Frames, Option<String>), Failure> {
    let (d, classes) = (data.n_cols(), data.classes());
    let wide = |found: usize| {
        let message = format!("{path} has rows of {found} values, the samples have {d}");
        if found == d { Ok(()) } else { Err(Failure::Work { message, hint: None }) }
    };
    match read_start(path)? {
        Start::Model(model) => {
            wide(model.n_cols)?;
            let order = order(path, &model, classes)?;
            match &model.scorer {
                Scorer::Subspaces { frames, .. } => Ok((reordered(frames, &order, d), None)),
                Scorer::Linear { weights, bias } => {
                    let rows: Vec<f32> = order.iter().flat_map(|c| &weights[c * d..(c + 1) * d]).copied().collect();
                    let bias: Vec<f32> = order.iter().map(|c| bias[*c]).collect();
                    Ok((linear_start(data, &rows, &bias, k)?, None))
                }
            }
        }
        Start::Layer { rows, n_cols, bias } => {
            wide(n_cols)?;
            layer(path, rows, bias, data, k)
        }
    }
}

/// For each class of the data its place in the model.
fn order(path: &str, model: &Model, classes: &[String]) -> Result<Vec<usize>, Failure> {
    let places: HashMap<&str, usize> = model.classes.iter().map(String::as_str).zip(0..).collect();
    let place = |class: &String| {
        places.get(class.as_str()).copied().ok_or_else(|| Failure::Work {
            message: format!("{path} has no class {class}; it has {}", some(&model.classes)),
            hint: Some("start from a model of the same classes, or without --start".into()),
        })
    };
    classes.iter().map(place).collect()
}

/// A few of many names.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, ... ({} in all)", names.len()) } else { shown }
}

fn reordered(frames: &Frames, order: &[usize], d: usize) -> Frames {
    let mut out = Frames { rows: Vec::with_capacity(frames.rows.len()), offsets: vec![0] };
    for c in order {
        out.rows.extend_from_slice(&frames.rows[frames.offsets[*c] * d..frames.offsets[c + 1] * d]);
        out.offsets.push(out.rows.len() / d);
    }
    out
}

/// Rows grouped by class are subspaces; one row per class that is not of length one, or has a bias, is a linear head.
fn layer(
    path: &str,
    mut rows: Vec<f32>,
    bias: Option<Vec<f32>>,
    data: &Labelled<'_>,
    k: usize,
) -> Result<(Frames, Option<String>), Failure> {
    let (d, n_classes) = (data.n_cols(), data.classes().len());
    let n_rows = rows.len() / d;
    if n_rows == 0 || !n_rows.is_multiple_of(n_classes) {
        return Err(Failure::Work {
            message: format!("{path} has {n_rows} rows, which {n_classes} classes cannot share equally"),
            hint: Some("name another tensor, FILE.safetensors:TENSOR".into()),
        });
    }
    let own = n_rows / n_classes;
    let worst = rows.chunks_exact(own * d).map(|frame| orthonormality_defect(frame, d)).fold(0.0, f64::max);
    if own == 1 && (bias.is_some() || worst > NEARLY_ORTHONORMAL) {
        let bias = bias.unwrap_or_else(|| vec![0.0; n_classes]);
        return Ok((linear_start(data, &rows, &bias, k)?, None));
    }
    for frame in rows.chunks_exact_mut(own * d) {
        orthonormalize(frame, d)?;
    }
    let offsets = (0..=n_classes).map(|c| c * own).collect();
    let far = worst > NEARLY_ORTHONORMAL;
    let warning =
        format!("the rows of {path} were not orthonormal (off by {}); their spans are kept", significant(worst, 2));
    Ok((Frames { rows, offsets }, far.then_some(warning)))
}
