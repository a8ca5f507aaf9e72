//! Ctrl-C and polite kills: the first asks the work to stop, the second stops it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{process, thread};

use crate::failure::INTERRUPTED;

static ASKED: AtomicBool = AtomicBool::new(false);

/// How long the work may take to stop by itself, so that a long step without a look at the flag does not hold the user.
const GRACE: Duration = Duration::from_secs(3);

/// Whether the user wants the work to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Listens for interrupts from now on.
pub(crate) fn install() {
    // Fails only where the system has no signals: then its own way of stopping a program applies.
    let _ = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            stop();
        }
        thread::spawn(|| {
            thread::sleep(GRACE);
            stop();
        });
    });
}

/// Ends the program, leaving no half-written file.
fn stop() -> ! {
    subspan_io::remove_partial_files();
    process::exit(i32::from(INTERRUPTED))
}
