//! Decoders of large formats may panic on damaged files; here a panic becomes an error, and stays silent.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::error::{IoError, Result};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs one decoding step of `path`; a panic inside it is reported as a corrupt file.
///
/// The process's panic hook is wrapped once, so that panics of guarded steps (and only those) print nothing.
pub(crate) fn decoding<T>(path: &str, place: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                previous(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(step));
    GUARDED.set(outer);
    outcome.unwrap_or_else(|_| Err(IoError::corrupt(path, place, "the decoder gave up")))
}
