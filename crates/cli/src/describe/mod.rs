//! What reports draw of a sample, of a fit and of a classifier, beyond the figures that the methods hand back.

mod classes;
mod clusters;
mod fit;
mod sample;

pub(crate) use classes::{mistakes, subspaces};
pub(crate) use clusters::clusters;
pub(crate) use fit::{by_name, fits, spread};
pub(crate) use sample::{probabilities, weights};

use subspan_io::Missing;

/// The name that users type.
pub(crate) fn missing(missing: Missing) -> &'static str {
    match missing {
        Missing::Error => "error",
        Missing::Drop => "drop",
    }
}
