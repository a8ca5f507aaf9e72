//! Ctrl-C and polite kills: the first asks the work to stop, the second stops it.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use std::{process, thread};

use crate::failure::{INTERRUPTED, say};

/// The signal that asked; 0 before there was one.
static ASKED: AtomicI32 = AtomicI32::new(0);

/// How long the work may take to stop by itself, so that a long step without a look at the flag does not hold the user.
const GRACE: Duration = Duration::from_secs(3);

/// Whether the user wants the work to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed) != 0
}

/// What the program returns then: 128 and the signal's number, as shells report it.
pub(crate) fn exit_code() -> u8 {
    128 + u8::try_from(ASKED.load(Ordering::Relaxed)).unwrap_or(0)
}

/// Listens for interrupts from now on: called before any thread is started.
///
/// The signals are blocked in all threads and a thread of their own waits for them, which tells which one came.
#[cfg(unix)]
pub(crate) fn install() {
    use nix::sys::signal::{SigSet, Signal};

    let heard = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    // A write beyond the limit of file sizes fails then, instead of ending the program.
    let mut blocked = heard;
    blocked.add(Signal::SIGXFSZ);
    // Fails only for sets that are none; then the system's own way of stopping a program applies.
    if blocked.thread_block().is_ok() {
        thread::spawn(move || {
            while let Ok(signal) = heard.wait() {
                hear(signal as i32);
            }
        });
    }
}

/// Listens for interrupts from now on.
#[cfg(not(unix))]
pub(crate) fn install() {
    /// Ctrl-C, where there are no signals.
    const INTERRUPT: i32 = 2;
    // Fails only where the system has no such thing: then its own way of stopping a program applies.
    let _ = ctrlc::set_handler(|| hear(INTERRUPT));
}

fn hear(signal: i32) {
    if ASKED.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        stop();
    }
    thread::spawn(|| {
        thread::sleep(GRACE);
        stop();
    });
}

/// Ends the program, leaving no half-written file.
fn stop() -> ! {
    subspan_io::remove_partial_files();
    say(&format!("error: {INTERRUPTED}"));
    process::exit(i32::from(exit_code()))
}
