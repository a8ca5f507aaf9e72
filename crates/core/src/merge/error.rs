//! What can be wrong with checkpoints, specs and permutations, each with the tensor, axis or perm it concerns.

use crate::Error;
use crate::assign::lap::LapError;

/// The result of every fallible function of this room.
pub type Result<T, E = MergeError> = std::result::Result<T, E>;

/// Why models cannot be matched or merged. `Display` is one line; [`MergeError::hint`] is the next step, where there is one.
#[derive(Debug)]
#[non_exhaustive]
pub enum MergeError {
    /// A tensor that one model lacks.
    MissingTensor {
        /// Its name.
        tensor: String,
        /// The model without it.
        model: String,
        /// The model with it.
        other: String,
    },
    /// A tensor whose shapes differ between two models.
    ShapeDiffers {
        /// Its name.
        tensor: String,
        /// One model and its shape.
        left: (String, Vec<usize>),
        /// The other.
        right: (String, Vec<usize>),
    },
    /// A spec that names a tensor the model lacks.
    UnknownTensor {
        /// Its name.
        tensor: String,
        /// The model.
        model: String,
    },
    /// A tensor with another number of axes than the spec gives it.
    Rank {
        /// Its name.
        tensor: String,
        /// Axes in the spec.
        spec: usize,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A piece of a perm that the spec does not declare.
    UnknownPerm {
        /// The perm.
        perm: String,
        /// Where it is used.
        tensor: String,
    },
    /// A perm whose size does not belong to the axis.
    PieceSize {
        /// The perm.
        perm: String,
        /// The tensor.
        tensor: String,
        /// The axis, from 0.
        axis: usize,
        /// Positions the piece reaches.
        needed: usize,
        /// Length of the axis.
        length: usize,
    },
    /// Two pieces that share a position without one lying inside a unit of the other.
    Overlap {
        /// The tensor.
        tensor: String,
        /// The axis, from 0.
        axis: usize,
        /// The first shared position.
        position: usize,
        /// One perm.
        first: String,
        /// The other.
        second: String,
    },
    /// A unit with another number of slots on an axis than the perm's other units.
    Incomplete {
        /// The tensor.
        tensor: String,
        /// The axis, from 0.
        axis: usize,
        /// The perm.
        perm: String,
        /// The unit.
        unit: usize,
        /// Its slots.
        slots: usize,
        /// Slots of unit 0.
        expected: usize,
    },
    /// Nothing that can be used as a piece, a perm or a range.
    Spec {
        /// What is wrong, with the perm or tensor.
        detail: String,
    },
    /// Numbers that are no permutation of the perm.
    NotAPermutation {
        /// The perm.
        perm: String,
        /// What is wrong.
        detail: String,
    },
    /// A NaN or an infinity in a tensor of the cost.
    NonFinite {
        /// The tensor.
        tensor: String,
        /// The model.
        model: String,
        /// Position of the first such element, row-major.
        index: usize,
    },
    /// No spec could be derived.
    NoSpec {
        /// What was tried.
        tried: String,
    },
    /// A derivation that does not fit one tensor.
    Derivation {
        /// The family that was recognised.
        family: String,
        /// The tensor.
        tensor: String,
        /// What does not fit.
        detail: String,
    },
    /// Something that cannot be done, and why.
    Unsupported {
        /// What.
        what: String,
        /// The next step.
        hint: Option<String>,
    },
    /// An error of the shared rooms, or the observer asked to stop.
    Library(Error),
}

impl MergeError {
    /// A malformed spec.
    pub fn spec(detail: impl Into<String>) -> Self {
        Self::Spec { detail: detail.into() }
    }

    /// The next step for the user, where one is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::MissingTensor { .. } => "models of one architecture are needed".into(),
            Self::ShapeDiffers { .. } => "models of different width or vocabulary cannot be matched".into(),
            Self::UnknownTensor { .. } => "the spec must be of this architecture".into(),
            Self::NoSpec { .. } => {
                "write a spec (--spec SPEC.toml), export the model to ONNX (--spec MODEL.onnx), or average as is with merge --no-match".into()
            }
            Self::Derivation { .. } => "write a spec (--spec SPEC.toml)".into(),
            Self::Incomplete { .. } => "every unit of a perm needs the same number of positions on an axis".into(),
            Self::Unsupported { hint, .. } => return hint.clone(),
            Self::Library(e) => return e.hint(),
            _ => return None,
        })
    }
}

impl std::fmt::Display for MergeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MissingTensor { tensor, model, other } => {
                write!(f, "{model}: no tensor {tensor}, which {other} has")
            }
            Self::ShapeDiffers { tensor, left, right } => {
                write!(f, "tensor {tensor} has shape {:?} in {} and {:?} in {}", left.1, left.0, right.1, right.0)
            }
            Self::UnknownTensor { tensor, model } => write!(f, "the spec names tensor {tensor}, which {model} lacks"),
            Self::Rank { tensor, spec, shape } => {
                write!(f, "the spec gives tensor {tensor} {spec} axes, its shape is {shape:?}")
            }
            Self::UnknownPerm { perm, tensor } => write!(f, "tensor {tensor} uses perm {perm}, which is not declared"),
            Self::PieceSize { perm, tensor, axis, needed, length } => {
                write!(f, "perm {perm} covers {needed} positions of axis {axis} of tensor {tensor}, which has {length}")
            }
            Self::Overlap { tensor, axis, position, first, second } => write!(
                f,
                "perms {first} and {second} overlap at position {position} of axis {axis} of tensor {tensor}, and neither lies inside a unit of the other"
            ),
            Self::Incomplete { tensor, axis, perm, unit, slots, expected } => write!(
                f,
                "unit {unit} of perm {perm} owns {slots} positions of axis {axis} of tensor {tensor}, unit 0 owns {expected}"
            ),
            Self::Spec { detail } => write!(f, "{detail}"),
            Self::NotAPermutation { perm, detail } => write!(f, "perm {perm}: {detail}"),
            Self::NonFinite { tensor, model, index } => {
                write!(f, "{model}: tensor {tensor} is not finite at element {index}")
            }
            Self::NoSpec { tried } => write!(f, "no permutation spec could be derived ({tried})"),
            Self::Derivation { family, tensor, detail } => write!(f, "read as {family}, but tensor {tensor} {detail}"),
            Self::Unsupported { what, .. } => write!(f, "{what}"),
            Self::Library(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for MergeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Library(e) => Some(e),
            _ => None,
        }
    }
}

impl From<Error> for MergeError {
    fn from(e: Error) -> Self {
        Self::Library(e)
    }
}

impl From<LapError> for MergeError {
    fn from(e: LapError) -> Self {
        Self::Unsupported { what: e.to_string(), hint: None }
    }
}
