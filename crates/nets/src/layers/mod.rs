//! One file per kind of layer: forward, and the vector-Jacobian product backward. Batches are row-major, one sample per row,
//! a sample channel by channel. Sums over samples run in a fixed order, so bits do not depend on the number of threads.

pub(crate) mod act;
pub(crate) mod conv;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod pool;

/// Samples per task of a sum over samples; fixed, so that the order of the sum is.
pub(crate) const CHUNK: usize = 16;
