//! Files to Subspan's tables and matrices, and back: the only room that opens files.
//!
//! - [`Table`]: parquet, CSV, Arrow and NumPy files as a stream of numeric row blocks; [`write_sample`] writes rows of it back.
//! - [`Matrix`]: features and images from NumPy, safetensors, idx and parquet files, in memory.
//! - [`Labels`]: one class per sample.
//! - [`read_model`], [`write_model`]: classifiers; [`write_clustering`]: clusterings; [`read_any_model`]: either;
//!   [`write_npy_f32`], [`write_npy_labels`], [`NpyRows`]: what they predict.
//! - [`Checkpoint`], [`CheckpointWriter`]: models as safetensors files, whole or in shards, mapped and streamed;
//!   [`read_spec`], [`spec_text`]: permutation specs; [`read_graph`]: the ONNX files they are derived from;
//!   [`read_permutations`], [`write_permutations`].
//! - [`AtomicFile`]: outputs that are there whole or not at all.
//! - [`IoError`]: the catalogue of what can be wrong with a file, each with its place and a hint.

mod array;
mod atomic;
mod backbone;
mod bytes;
mod checkpoint;
mod clustering;
mod disk;
mod error;
mod guard;
mod idx;
mod inputs;
mod labels;
mod matrix;
mod membership;
mod model;
mod npy;
mod npz;
mod onnx;
mod onnx_graph;
mod permutations;
mod sample;
mod samples;
mod spec;
mod start;
mod table;
mod tensors;
mod write_npy;

pub use array::DType;
pub use atomic::{AtomicFile, OutputDirectory, remove_partial_files, write_bytes_atomically, write_json};
pub use checkpoint::{Checkpoint, CheckpointPlan, CheckpointWriter, TensorInfo};
pub use clustering::{
    AnyModel, clustering_from_bytes, clustering_to_bytes, read_any_model, write_clustering, write_subspaces,
};
pub use error::{IoError, Result};
pub use inputs::{is_part_of, same_place};
pub use labels::Labels;
pub use matrix::Matrix;
pub use membership::write_membership;
pub use model::{model_from_bytes, model_to_bytes, read_model, write_model};
pub use onnx::write_onnx;
pub use onnx_graph::{parse_graph, read_graph};
pub use permutations::{read_permutations, write_permutations};
pub use sample::{write_sample, write_sample_to};
pub use samples::MatrixSamples;
pub use spec::{parse_spec, read_spec, spec_text};
pub use start::{Start, read_start};
pub use table::{Missing, Table, TableOptions};
pub use write_npy::{NpyRows, write_npy_f32, write_npy_i64, write_npy_labels};

/// Splits `archive.npz:KEY` (and the like) into the file and the part after the colon; `containers` are endings such as
/// `.npz:`. A name that exists as a whole is never split.
pub(crate) fn path_and_part<'a>(path: &'a str, containers: &[&str]) -> (&'a str, Option<&'a str>) {
    if std::path::Path::new(path).exists() {
        return (path, None);
    }
    let lower = path.to_ascii_lowercase();
    for container in containers {
        if let Some(at) = lower.rfind(container) {
            let colon = at + container.len() - 1;
            return (&path[..colon], Some(&path[colon + 1..]));
        }
    }
    (path, None)
}
