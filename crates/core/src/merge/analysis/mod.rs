//! Why a merge works or fails: singular values and directions of two models, what matching aligns, and what follows for the loss.
//!
//! | question | function |
//! |---|---|
//! | how alike are the spectra | [`spectra`], [`LayerSpectrum::gap`] |
//! | which directions has matching aligned, `R(γ)` | [`overlaps`], [`Overlaps::alignment`] |
//! | do few directions carry the effect | [`keep_directions`], [`spoil`] |
//! | how high is the barrier | [`Barrier::of`] |
//! | does curvature at the ends foretell it | [`taylor_gap`] |
//!
//! Kernels are unfolded to `out x (in · height · width)`. All of it works on any [`Model`](super::Model); nothing here runs a network.
//!
//! A. Ito, M. Yamada, A. Kumagai, "Analysis of linear mode connectivity via permutation-based weight matching" (2402.04051).

mod alignment;
mod curve;
mod intervene;
mod spectrum;
mod taylor;

#[cfg(test)]
mod tests;

pub use alignment::{Alignment, LayerAlignment, LayerOverlap, Overlaps, overlaps};
pub use curve::{Barrier, Point, grid};
pub use intervene::{Arm, Filtered, keep_directions, match_distance, spoil};
pub use spectrum::{LayerSpectrum, spectra};
pub use taylor::{TAYLOR_STEP, taylor_gap};
