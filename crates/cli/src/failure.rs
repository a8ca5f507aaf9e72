//! How a run fails: one line, a hint, and the exit code that scripts rely on.

use std::io::{self, Write};
use std::panic;
use std::sync::Once;

use subspan::Error;
use subspan::merge::MergeError;
use subspan_io::IoError;
use subspan_nets::NetError;

use crate::interrupt;

/// The work failed: bad data, no convergence, input or output.
pub(crate) const WORK: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;

/// What an interrupted run says.
pub(crate) const INTERRUPTED: &str = "interrupted";

/// Why a run ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The user must change the command line.
    Usage { message: String, hint: Option<String> },
    /// The user must change the data, the place or the method.
    Work { message: String, hint: Option<String> },
    /// Ctrl-C or a polite kill.
    Interrupted,
}

/// Prints a line to standard error. Where that is full or closed, there is nobody left to tell.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

impl Failure {
    pub(crate) fn usage<H: Into<String>>(message: impl Into<String>, hint: Option<H>) -> Self {
        Self::Usage { message: message.into(), hint: hint.map(Into::into) }
    }

    /// Tells the user, and gives the exit code.
    pub(crate) fn report(&self) -> u8 {
        let (message, hint, code) = match self {
            Self::Usage { message, hint } => (message.as_str(), hint.as_deref(), USAGE),
            Self::Work { message, hint } => (message.as_str(), hint.as_deref(), WORK),
            Self::Interrupted => (INTERRUPTED, None, interrupt::exit_code()),
        };
        say(&format!("error: {message}"));
        if let Some(hint) = hint {
            say(&format!("hint: {hint}"));
        }
        code
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let hint = e.hint();
        match e {
            Error::Cancelled => Self::Interrupted,
            Error::Parameter { .. } => Self::Usage { message: e.to_string(), hint },
            Error::Source(source) => match source.downcast::<IoError>() {
                Ok(io) => (*io).into(),
                Err(other) => Self::Work { message: other.to_string(), hint },
            },
            other => Self::Work { message: other.to_string(), hint },
        }
    }
}

impl From<IoError> for Failure {
    fn from(e: IoError) -> Self {
        Self::Work { message: e.to_string(), hint: e.hint() }
    }
}

impl From<MergeError> for Failure {
    fn from(e: MergeError) -> Self {
        match e {
            MergeError::Library(e) => e.into(),
            e => Self::Work { message: e.to_string(), hint: e.hint() },
        }
    }
}

impl From<NetError> for Failure {
    fn from(e: NetError) -> Self {
        match e {
            NetError::Cancelled => Self::Interrupted,
            NetError::Merge(e) => e.into(),
            NetError::Library(e) => e.into(),
            NetError::Parameter { .. } | NetError::LayerList { .. } => {
                Self::Usage { message: e.to_string(), hint: e.hint() }
            }
            e => Self::Work { message: e.to_string(), hint: e.hint() },
        }
    }
}

/// No panic text reaches a user: the first panic becomes one line, and later ones (of other threads) nothing.
pub(crate) fn silence_panics() {
    static TOLD: Once = Once::new();
    panic::set_hook(Box::new(|info| {
        TOLD.call_once(|| {
            let message =
                info.payload_as_str().unwrap_or("no message").split_whitespace().collect::<Vec<_>>().join(" ");
            let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
            say(&format!("error: internal error (please report): {message}, at {place}"));
        });
    }));
}
