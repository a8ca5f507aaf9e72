//! Subspan finds, samples, learns and aligns *linear structure*: the subspaces hidden in data, in features and in weights.
//!
//! This crate is pure computation on memory and streams: it opens no files, prints nothing, reads no clock, sets up no thread
//! pool and has no global state. Randomness is a function of a seed ([`draw`]), a table is a stream of row blocks ([`rows`]),
//! progress goes to an [`Observer`], and a result does not depend on the number of threads.

pub mod assign;
pub mod classify;
pub mod cluster;
pub mod draw;
pub mod error;
pub mod merge;
pub mod observe;
pub mod precision;
pub mod record;
pub mod regress;
pub mod remote;
mod reshape;
pub mod rows;
pub mod sample;
pub mod subspace;

pub use error::{Error, Result};
pub use observe::{Event, Observer, Silent};
pub use record::{InputRecord, RunRecord};
pub use rows::{DenseRows, RowBlock, RowSource};
pub use sample::Sample;
pub use subspace::Subspace;
pub use subspan_linalg::Mat;
