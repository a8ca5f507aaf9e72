//! The library's errors as Python's, with the same text.

use std::io::ErrorKind;

use pyo3::exceptions::{PyFileNotFoundError, PyKeyboardInterrupt, PyOSError, PyPermissionError, PyValueError};
use pyo3::prelude::*;
use subspan::Error;
use subspan::merge::MergeError;
use subspan_io::IoError;

/// What the system refused is an `OSError`, everything else a `ValueError`.
pub(crate) fn of_library(e: Error) -> PyErr {
    let hint = e.hint();
    match e {
        Error::Cancelled => PyKeyboardInterrupt::new_err(()),
        Error::Source(source) => match source.downcast::<IoError>() {
            Ok(io) => of_io(*io),
            // The merge's own errors are about the models, not about the system.
            Err(other) if other.is::<MergeError>() => PyValueError::new_err(other.to_string()),
            Err(other) => PyOSError::new_err(other.to_string()),
        },
        other => with_hint(PyValueError::new_err(other.to_string()), hint),
    }
}

/// See [`of_library`].
pub(crate) fn of_io(e: IoError) -> PyErr {
    let text = e.to_string();
    let error = match &e {
        IoError::Open { source, .. } | IoError::Read { source, .. } | IoError::Write { source, .. } => {
            match source.kind() {
                ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
                ErrorKind::PermissionDenied => PyPermissionError::new_err(text),
                _ => PyOSError::new_err(text),
            }
        }
        IoError::NoMatch { .. } => PyFileNotFoundError::new_err(text),
        _ => PyValueError::new_err(text),
    };
    with_hint(error, e.hint())
}

/// Adds the next step as a note, where Python has notes (3.11) and the step is not one of the command line's flags.
fn with_hint(error: PyErr, hint: Option<String>) -> PyErr {
    if let Some(hint) = hint.filter(|hint| !hint.contains("--")) {
        // Without notes the message stands alone.
        Python::attach(|py| drop(error.value(py).call_method1("add_note", (hint,))));
    }
    error
}
