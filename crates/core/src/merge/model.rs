//! A model as named tensors.

use std::collections::BTreeMap;

use super::error::{MergeError, Result};
use super::tensor::{Tensor, TensorView};

/// Named tensors that can be looked at one by one: a mapped checkpoint, or [`MemoryModel`].
pub trait Model: Sync {
    /// What to call the model in messages: its file.
    fn label(&self) -> &str;

    /// Every tensor's name, in the order of the file.
    fn names(&self) -> Vec<&str>;

    /// A tensor by name.
    fn tensor(&self, name: &str) -> Option<TensorView<'_>>;

    /// A tensor by name.
    ///
    /// # Errors
    /// [`MergeError::UnknownTensor`].
    fn require(&self, name: &str) -> Result<TensorView<'_>> {
        self.tensor(name).ok_or_else(|| MergeError::UnknownTensor { tensor: name.into(), model: self.label().into() })
    }
}

/// A model in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryModel {
    /// What to call it in messages.
    pub label: String,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

impl MemoryModel {
    /// An empty model.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), tensors: BTreeMap::new() }
    }

    /// A copy of every tensor of `model`.
    pub fn copy(model: &dyn Model) -> Self {
        let owned = |name: &str| model.tensor(name).map(|t| (name.to_string(), t.to_owned()));
        Self { label: model.label().into(), tensors: model.names().into_iter().filter_map(owned).collect() }
    }
}

impl Model for MemoryModel {
    fn label(&self) -> &str {
        &self.label
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get_key_value(name).map(|(name, t)| t.view(name))
    }
}

/// Checks that models have the same tensors of the same shapes. Dtypes may differ.
///
/// # Errors
/// The first tensor that one lacks, or whose shapes differ.
pub fn check_alike(first: &dyn Model, other: &dyn Model) -> Result<()> {
    let missing = |tensor: &str, model: &dyn Model, other: &dyn Model| MergeError::MissingTensor {
        tensor: tensor.into(),
        model: model.label().into(),
        other: other.label().into(),
    };
    for name in first.names() {
        let (Some(a), b) = (first.tensor(name), other.tensor(name)) else { continue };
        let b = b.ok_or_else(|| missing(name, other, first))?;
        if a.shape != b.shape {
            return Err(MergeError::ShapeDiffers {
                tensor: name.into(),
                left: (first.label().into(), a.shape.to_vec()),
                right: (other.label().into(), b.shape.to_vec()),
            });
        }
        if a.dtype != b.dtype && !(a.dtype.is_float() && b.dtype.is_float()) {
            return Err(MergeError::Unsupported {
                what: format!(
                    "tensor {name} is {} in {} and {} in {}",
                    a.dtype.name(),
                    first.label(),
                    b.dtype.name(),
                    other.label()
                ),
                hint: Some("floating types may differ between models, others not".into()),
            });
        }
    }
    match other.names().into_iter().find(|name| first.tensor(name).is_none()) {
        Some(name) => Err(missing(name, first, other)),
        None => Ok(()),
    }
}
