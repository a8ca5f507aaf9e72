//! Runs a job of the library on its threads while the calling Python thread stays awake: it runs signal handlers, so that
//! Ctrl-C stops the job, and calls the progress function, which never runs on a foreign thread.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use subspan::remote::Remote;
use subspan::{Event, Observer};

use crate::errors::of_library;
use crate::pool;

/// How long the caller sleeps before it looks for signals: short enough for Ctrl-C to feel immediate.
const TICK: Duration = Duration::from_millis(50);

/// Who is told about a job, and on how many threads it runs.
pub(crate) struct Caller<'py> {
    pub(crate) py: Python<'py>,
    /// Called with (phase, steps done, steps in all or `None`).
    pub(crate) progress: Option<Py<PyAny>>,
    pub(crate) threads: Option<usize>,
}

/// Chunks' states, or that the caller is stopping.
type Folded = subspan::Result<Vec<Vec<u8>>>;

/// What the job's threads tell the caller.
enum Message<T> {
    Phase(String, Option<u64>),
    Fold(Vec<u8>, Sender<Folded>),
    Done(thread::Result<subspan::Result<T>>),
}

struct Relay<T> {
    tell: Sender<Message<T>>,
    /// Whether anybody listens to phases.
    speaks: bool,
    steps: AtomicU64,
    stop: AtomicBool,
}

impl<T: Send> Observer for Relay<T> {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Phase { name, total } if self.speaks => {
                // The caller outlives the job, so somebody hears it.
                let _ = self.tell.send(Message::Phase(name.into(), total));
            }
            Event::Advance { steps } if self.speaks => {
                self.steps.fetch_add(steps, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Asks the caller's fold function, which talks to an engine.
impl<T: Send> Remote for Relay<T> {
    fn fold(&self, task: &[u8]) -> Folded {
        let (tell, hear) = mpsc::channel();
        let _ = self.tell.send(Message::Fold(task.to_vec(), tell));
        hear.recv().unwrap_or(Err(subspan::Error::Cancelled))
    }
}

/// The current phase as the progress function hears of it.
struct Phase {
    name: String,
    total: Option<u64>,
    done: u64,
    told: bool,
}

impl Phase {
    fn tell(&mut self, progress: &Py<PyAny>, more: u64) -> PyResult<()> {
        if more > 0 || !self.told {
            self.done += more;
            self.told = true;
            Python::attach(|py| progress.call1(py, (&self.name, self.done, self.total)))?;
        }
        Ok(())
    }
}

impl Caller<'_> {
    /// Runs `work` with the interpreter released.
    ///
    /// # Errors
    /// What a signal handler or the progress function raised, else the job's error.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce(&dyn Observer) -> subspan::Result<T> + Send) -> PyResult<T> {
        self.run_remote(None, |observer, _| work(observer))
    }

    /// [`Caller::run`] of work whose passes are folded by `fold`: a function from a task to the sealed states of all chunks.
    ///
    /// # Errors
    /// As [`Caller::run`], and what `fold` raised.
    pub(crate) fn run_remote<T: Send>(
        &self,
        fold: Option<&Py<PyAny>>,
        work: impl FnOnce(&dyn Observer, &dyn Remote) -> subspan::Result<T> + Send,
    ) -> PyResult<T> {
        let pool = pool::of(self.py, self.threads)?;
        let progress = self.progress.as_ref();
        self.py.detach(move || {
            let (tell, hear) = mpsc::channel();
            let relay =
                Relay { tell, speaks: progress.is_some(), steps: AtomicU64::new(0), stop: AtomicBool::new(false) };
            let mut raised = None;
            let outcome = pool.in_place_scope(|scope| {
                let relay = &relay;
                scope.spawn(move |_| {
                    let outcome = panic::catch_unwind(AssertUnwindSafe(|| work(relay, relay)));
                    let _ = relay.tell.send(Message::Done(outcome));
                });
                let mut phase: Option<Phase> = None;
                loop {
                    let message = hear.recv_timeout(TICK);
                    let mut look = || -> PyResult<()> {
                        if let (Some(progress), Some(phase)) = (progress, &mut phase) {
                            phase.tell(progress, relay.steps.swap(0, Ordering::Relaxed))?;
                        }
                        if matches!(message, Err(RecvTimeoutError::Timeout)) {
                            Python::attach(|py| py.check_signals())?;
                        }
                        Ok(())
                    };
                    if raised.is_none()
                        && let Err(e) = look()
                    {
                        raised = Some(e);
                        relay.stop.store(true, Ordering::Relaxed);
                    }
                    match message {
                        Ok(Message::Phase(name, total)) => phase = Some(Phase { name, total, done: 0, told: false }),
                        Ok(Message::Fold(task, tell)) => {
                            let states = match (fold, &raised) {
                                (Some(fold), None) => call(fold, &task),
                                _ => Err(PyKeyboardInterrupt::new_err(())),
                            };
                            // The job waits for it.
                            let _ = tell.send(states.map_err(|e| {
                                raised.get_or_insert(e);
                                relay.stop.store(true, Ordering::Relaxed);
                                subspan::Error::Cancelled
                            }));
                        }
                        Ok(Message::Done(outcome)) => return Some(outcome),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return None,
                    }
                }
            });
            match (raised, outcome) {
                (Some(e), _) => Err(e),
                (None, Some(Ok(outcome))) => outcome.map_err(of_library),
                (None, Some(Err(payload))) => panic::resume_unwind(payload),
                (None, None) => Err(of_library(subspan::Error::Cancelled)),
            }
        })
    }
}

/// The states that a fold function returns for a task.
fn call(fold: &Py<PyAny>, task: &[u8]) -> PyResult<Vec<Vec<u8>>> {
    Python::attach(|py| {
        let states: Vec<PyBackedBytes> = fold.call1(py, (PyBytes::new(py, task),))?.extract(py)?;
        Ok(states.iter().map(|state| state.to_vec()).collect())
    })
}
