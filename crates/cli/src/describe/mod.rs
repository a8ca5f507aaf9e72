//! What reports draw of a sample and of a fit, beyond the figures that the methods hand back.

mod fit;
mod sample;

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
