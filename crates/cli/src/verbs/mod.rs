//! One module per verb.

pub(crate) mod analyze;
pub(crate) mod classify;
pub(crate) mod cluster;
pub(crate) mod demo;
pub(crate) mod predict;
pub(crate) mod regress;
pub(crate) mod sample;
