//! Doubly stochastic matrices and their vertices, permutations.

pub mod lap;
