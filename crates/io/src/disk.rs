//! What the disk is asked for while a large file is written: room in advance, and to take what is there already.

use std::fs::File;
use std::io;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

/// Files of so many bytes are worth a reservation.
const RESERVED_BYTES: u64 = 1 << 24;
/// What a reservation fails with if there is no room, and not because the file system makes none.
const NO_ROOM: [io::ErrorKind; 3] =
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];

/// Gives a large file its length and its blocks, where the file system can.
///
/// # Errors
/// If there is no room.
pub(crate) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    match if bytes < RESERVED_BYTES { Ok(()) } else { allocate(file, bytes) } {
        Err(e) if NO_ROOM.contains(&e.kind()) => Err(e),
        _ => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    Ok(nix::fcntl::fallocate(file, nix::fcntl::FallocateFlags::empty(), 0, bytes)?)
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

/// A thread that makes what has been written durable, whenever it is asked.
#[derive(Debug)]
pub(crate) struct Flusher {
    ask: SyncSender<()>,
    /// Its first failure: the system reports one only once, so it must not be lost.
    thread: JoinHandle<io::Result<()>>,
}

impl Flusher {
    /// Starts the thread.
    pub(crate) fn start(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        let (ask, asked) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("flush".into())
            .spawn(move || asked.iter().try_for_each(|()| file.sync_data()))?;
        Ok(Self { ask, thread })
    }

    /// Asks it, unless it is still busy with what came before; whether it is there to be asked.
    pub(crate) fn ask(&self) -> bool {
        !matches!(self.ask.try_send(()), Err(TrySendError::Disconnected(())))
    }

    /// Waits until it has done what it was asked.
    pub(crate) fn finish(self) -> io::Result<()> {
        drop(self.ask);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the flushing thread failed")))
    }
}
