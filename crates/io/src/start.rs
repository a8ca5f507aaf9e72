//! Where the training of a classifier may start: an earlier model, or the last layer of a network.

use safetensors::SafeTensors;
use subspan::classify::Model;

use crate::clustering::{AnyModel, read_any_model};
use crate::error::{IoError, Result};
use crate::guard::decoding;
use crate::matrix::Matrix;
use crate::model::is_model;

/// Names under which the last layer is looked for, in this order: the one of the Grassmann class representation's published
/// checkpoints, then those that networks commonly give a linear head.
const NAMES: [&str; 6] = ["head.fc.weight", "weight", "fc.weight", "head.weight", "classifier.weight", "linear.weight"];

/// What was found to start from.
#[derive(Debug)]
pub enum Start {
    /// A classifier of this program.
    Model(Box<Model>),
    /// The rows of a layer: one per class of a linear head, several per class where each has a subspace.
    Layer {
        /// Row-major.
        rows: Vec<f32>,
        /// Values per row.
        n_cols: usize,
        /// One per row, if the layer has them.
        bias: Option<Vec<f32>>,
    },
}

/// Reads a model, or a layer: a tensor named in `FILE.safetensors:TENSOR` (its bias is looked for beside it), the first of the
/// usual names if none is given, or a matrix in `.npy` or `.npz:KEY`.
///
/// # Errors
/// [`IoError`]: no such file or tensor (the error lists those there are), malformed.
pub fn read_start(path: &str) -> Result<Start> {
    if path.to_ascii_lowercase().ends_with(".safetensors") && std::path::Path::new(path).exists() {
        if is_model(path)? {
            return match read_any_model(path)? {
                AnyModel::Classifier(model) => Ok(Start::Model(model)),
                AnyModel::Clustering(_) => {
                    Err(IoError::unsupported(path, "a model of subspan cluster, which has no classes"))
                }
            };
        }
        let names = tensor_names(path)?;
        let Some(name) = NAMES.into_iter().find(|n| names.iter().any(|m| m == n)) else {
            return Err(IoError::NoSuchPart {
                path: path.into(),
                kind: "tensor",
                part: NAMES[0].into(),
                available: names,
            });
        };
        return layer(path, name, &names);
    }
    let (file, tensor) = crate::path_and_part(path, &[".safetensors:"]);
    if let Some(tensor) = tensor {
        return layer(file, tensor, &tensor_names(file)?);
    }
    let matrix = Matrix::open(path)?;
    Ok(Start::Layer { rows: matrix.to_f32()?, n_cols: matrix.n_cols(), bias: None })
}

fn layer(path: &str, name: &str, names: &[String]) -> Result<Start> {
    let matrix = Matrix::open(&format!("{path}:{name}"))?;
    let beside = name.strip_suffix("weight").map(|prefix| format!("{prefix}bias"));
    let bias = match beside.filter(|bias| names.contains(bias)) {
        Some(bias) => Some(Matrix::open(&format!("{path}:{bias}"))?.to_f32()?),
        None => None,
    };
    Ok(Start::Layer { rows: matrix.to_f32()?, n_cols: matrix.n_cols(), bias })
}

fn tensor_names(path: &str) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(IoError::open(path))?;
    decoding(path, "header", || {
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| IoError::corrupt(path, "header", e))?;
        let mut names: Vec<String> = tensors.names().into_iter().map(str::to_string).collect();
        names.sort_unstable();
        Ok(names)
    })
}
