//! One module per verb.

pub(crate) mod analyze;
pub(crate) mod classify;
pub(crate) mod cluster;
pub(crate) mod demo;
pub(crate) mod matching;
pub(crate) mod merge;
pub(crate) mod models;
pub(crate) mod predict;
pub(crate) mod regress;
pub(crate) mod sample;
