//! Threads that survive a fork: a child process has none of its parent's threads, so it starts its own.

use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// The pools of one process, by their number of threads; zero stands for one per core.
struct Pools {
    process: u32,
    started: Vec<(usize, Arc<ThreadPool>)>,
}

static POOLS: Mutex<Pools> = Mutex::new(Pools { process: 0, started: Vec::new() });

/// The pool of `threads` threads, one per core if `None`. Called with the interpreter held, so that no fork finds the list
/// locked.
pub(crate) fn of(_: Python<'_>, threads: Option<usize>) -> PyResult<Arc<ThreadPool>> {
    if threads == Some(0) {
        return Err(PyValueError::new_err("n_threads must be at least 1, not 0"));
    }
    let wanted = threads.unwrap_or(0);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if pools.process != process::id() {
        // A parent's pools cannot even be dropped here: that would wait for threads that do not exist.
        std::mem::take(&mut pools.started).into_iter().for_each(|(_, pool)| std::mem::forget(pool));
        pools.process = process::id();
    }
    if let Some((_, pool)) = pools.started.iter().find(|(n, _)| *n == wanted) {
        return Ok(Arc::clone(pool));
    }
    let pool = ThreadPoolBuilder::new().num_threads(wanted).build();
    let pool = Arc::new(pool.map_err(|e| PyValueError::new_err(format!("cannot start the threads: {e}")))?);
    pools.started.push((wanted, Arc::clone(&pool)));
    Ok(pool)
}
