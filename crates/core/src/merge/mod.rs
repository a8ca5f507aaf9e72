//! Two or more models into one: permutation specs, matching by weights, aligned and merged checkpoints.
//!
//! Hidden units of a network can change places without changing what it computes. A [`Spec`] says which axes of which tensors
//! move together; a [`Layout`] is a spec bound to the shapes of a model; [`Permutations`] hold one permutation per perm;
//! [`Layout::apply`] moves the units of a model; [`compare`] measures what that changes. A [`Model`] is anything with named
//! tensors, for example a mapped file.
//!
//! S. K. Ainsworth, J. Hayase, S. Srinivasa, "Git Re-Basin: merging models modulo permutation symmetries" (2209.04836);
//! A. Ito, M. Yamada, A. Kumagai, "Analysis of linear mode connectivity via permutation-based weight matching" (2402.04051).

pub mod analysis;
mod apply;
mod combine;
mod compose;
mod derive;
mod distance;
mod error;
mod gram;
pub mod graph;
mod layout;
mod many;
mod model;
mod permutations;
mod spec;
mod tensor;
mod weights;

#[cfg(test)]
mod tests;

pub use apply::Gathered;
pub use combine::{Mixed, Rule, Sink, copy_tensor, mean_model, merge_tensor};
pub use derive::{Derived, derive};
pub use distance::{Comparison, Sums, compare};
pub use error::{MergeError, Result};
pub use graph::derive_from_graph;
pub use layout::{BoundTensor, Layout, Place};
pub use many::{MatchedMany, merge_many};
pub use model::{MemoryModel, Model, check_alike};
pub use permutations::Permutations;
pub use spec::{Axes, OUTER, PermInfo, Piece, Solve, Spec};
pub use tensor::{DType, Tensor, TensorView, narrow_f32, narrow_f64, widen_f32, widen_f64};
pub use weights::{MatchConfig, Matched, Scope, cross_grams, match_weights};
