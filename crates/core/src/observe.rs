//! How a method speaks while it works: phases, progress and metrics, and how it is told to stop.

/// Something a method has to say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event<'a> {
    /// A phase begins; `total` is its number of steps (rows, iterations), if known.
    Phase {
        /// One of the names of the record's `seconds`: `score`, `draw`, `solve`, `certify`, ...
        name: &'a str,
        /// Steps to come.
        total: Option<u64>,
    },
    /// So many more steps of the current phase are done.
    Advance {
        /// Steps since the last event.
        steps: u64,
    },
    /// A figure worth showing.
    Metric {
        /// Its name.
        name: &'a str,
        /// Its value.
        value: f64,
    },
}

/// Receives a method's events, from any thread; the command line draws a progress bar, Python calls back.
pub trait Observer: Sync {
    /// Receives one event.
    fn event(&self, event: Event<'_>);

    /// Whether to stop; asked between blocks of rows and between iterations.
    fn cancelled(&self) -> bool {
        false
    }
}

/// The observer that listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// Announces a phase of `total` steps.
pub(crate) fn phase(observer: &dyn Observer, name: &str, total: Option<u64>) {
    observer.event(Event::Phase { name, total });
}

/// Announces a figure.
pub(crate) fn metric(observer: &dyn Observer, name: &str, value: f64) {
    observer.event(Event::Metric { name, value });
}
