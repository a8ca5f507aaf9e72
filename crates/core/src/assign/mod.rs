//! Doubly stochastic matrices and their vertices, permutations.

pub mod lap;
pub mod quadratic;
pub mod sinkhorn;
pub mod truncated;
