//! One module per verb.

pub(crate) mod demo;
pub(crate) mod regress;
pub(crate) mod sample;
