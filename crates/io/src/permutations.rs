//! Permutations as a safetensors file: one tensor of 64-bit integers per perm.

use std::collections::BTreeMap;

use subspan::merge::{DType, Model, Permutations, Spec, TensorView};

use crate::atomic::AtomicFile;
use crate::checkpoint::{Checkpoint, write_tensors};
use crate::error::{IoError, Result};

/// How 64-bit integers are stored.
const I64: DType = DType::Opaque { name: "I64", size: 8 };

/// Writes every permutation under its perm id, `scope` in front of it (such as a model's name and a slash, or nothing).
///
/// # Errors
/// [`IoError::Write`].
pub fn write_permutations(models: &[(&str, &Permutations)], file: AtomicFile) -> Result<()> {
    let mut stored: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (scope, permutations) in models {
        for (id, perm) in permutations.iter() {
            let bytes = perm.iter().flat_map(|j| (*j as i64).to_le_bytes()).collect();
            stored.push((format!("{scope}{id}"), vec![perm.len()], bytes));
        }
    }
    let views: Vec<TensorView<'_>> =
        stored.iter().map(|(name, shape, data)| TensorView { name, dtype: I64, shape, data }).collect();
    write_tensors(file, &views, &BTreeMap::new())
}

/// Reads the permutations of `spec` that are stored behind `scope`; perms that are not stored stay.
///
/// # Errors
/// [`IoError`]: a damaged file; other than integers; no permutation of the spec.
pub fn read_permutations(path: &str, spec: &Spec, scope: &str) -> Result<Permutations> {
    let stored = Checkpoint::open(path)?;
    let mut given = BTreeMap::new();
    for name in stored.names() {
        let (Some(id), Some(tensor)) = (name.strip_prefix(scope), stored.tensor(name)) else { continue };
        if tensor.dtype != I64 || tensor.shape.len() != 1 {
            let detail = format!("{} of shape {:?} instead of a list of I64", tensor.dtype.name(), tensor.shape);
            return Err(IoError::corrupt(path, format!("tensor {name}"), detail));
        }
        let numbers = tensor.data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b));
        let perm: Option<Vec<usize>> = numbers.map(|j| usize::try_from(j).ok()).collect();
        let perm = perm.ok_or_else(|| IoError::corrupt(path, format!("tensor {name}"), "a negative unit"))?;
        given.insert(id.to_string(), perm);
    }
    Permutations::new(spec, given).map_err(|e| IoError::Merge { path: path.into(), source: Box::new(e) })
}
