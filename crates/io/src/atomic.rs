//! Outputs that are there whole or not at all: written beside the target, then renamed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::NamedTempFile;

use crate::disk::{Flusher, reserve};
use crate::error::{IoError, Result};

/// Hidden files being written right now, for [`remove_partial_files`].
static PARTIAL: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn partial() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    PARTIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every file that is still being written: for the handler of an interrupt, which must not wait for destructors.
pub fn remove_partial_files() {
    let all = std::mem::take(&mut *partial());
    // Files before the directories that hold them, inner directories before outer ones. The order of paths alone does not tell:
    // those of files are absolute, those of directories as typed.
    let directories: Vec<&PathBuf> = all.iter().rev().filter(|path| fs::remove_file(path).is_err()).collect();
    for path in directories {
        // Nothing more can be done for a file that will not go; a directory that is not empty holds older files.
        let _ = fs::remove_dir(path);
    }
}

/// A file that appears under its name only when it is complete.
///
/// [`AtomicFile::create`] opens a hidden file beside the target at once, so that an unwritable place is known before the long
/// work; [`AtomicFile::commit`] makes it durable and renames it. Dropped without a commit, it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    /// Taken by `commit`.
    file: Option<NamedTempFile>,
    /// Whether the disk must have all of it before it gets its name.
    durable: bool,
    /// Bytes since the disk was last asked to take them.
    pending: usize,
    flusher: Option<Flusher>,
}

/// After so many bytes the disk begins to take them, while more are computed: the wait at the end is for the last of them only.
const FLUSH_BYTES: usize = 1 << 26;

impl AtomicFile {
    /// Prepares to write `path`. An existing file there stays as it is until the commit.
    ///
    /// # Errors
    /// [`IoError::Write`] if the path is a directory, or its directory is absent or not writable.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let mut target = path.as_ref().to_path_buf();
        let shown = target.display().to_string();
        let fail = IoError::write(&shown);
        if let Ok(meta) = fs::metadata(&target) {
            if meta.is_dir() {
                return Err(fail(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory")));
            }
            // A rename would put a file in the place of the device, or of what the process writes to otherwise.
            if !meta.is_file() || ["/dev", "/proc"].iter().any(|system| target.starts_with(system)) {
                return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
            }
            // Through a link, the file behind it is replaced, not the link.
            target = fs::canonicalize(&target).map_err(IoError::write(&shown))?;
        }
        let named = !shown.ends_with(std::path::is_separator);
        let Some(name) = target.file_name().filter(|_| named) else {
            return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "it names no file")));
        };
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".partial");
        #[cfg(unix)]
        {
            // The usual mode of a new file (the process's mask still applies), not the private one of a temporary file.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        // The registry is held across creation, so that no interrupt falls between the two.
        let mut registry = partial();
        let file = builder.tempfile_in(directory).map_err(|e| fail(without_path(e)))?;
        registry.insert(file.path().to_path_buf());
        drop(registry);
        Ok(Self { target, file: Some(file), durable: true, pending: 0, flusher: None })
    }

    /// Where the file will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Reserves room on the disk for all `bytes` of a large file, where the system can: a disk without that room is known before
    /// the long work, and blocks need not be found while they are written.
    ///
    /// # Errors
    /// [`IoError::Write`] if there is no room.
    pub fn reserve(&mut self, bytes: u64) -> Result<()> {
        let shown = self.target.display().to_string();
        self.open().and_then(|file| reserve(file, bytes)).map_err(IoError::write(&shown))
    }

    /// Leaves it to the system when the disk takes the file, as other programs do: [`AtomicFile::commit`] waits no more, and a power
    /// failure soon after it may lose what is in the file.
    pub fn without_sync(&mut self) {
        self.durable = false;
    }

    /// Makes the file durable, unless it is [`without_sync`](Self::without_sync), and gives it its name.
    ///
    /// # Errors
    /// [`IoError::Write`]; nothing is left behind then.
    pub fn commit(mut self) -> Result<()> {
        let path = self.target.display().to_string();
        let Some(file) = self.file.take() else { return Ok(()) };
        let hidden = file.path().to_path_buf();
        let flushed = self.flusher.take().map_or(Ok(()), Flusher::finish);
        let sync = || if self.durable { file.as_file().sync_all() } else { Ok(()) };
        let outcome = flushed.and_then(|()| sync()).map_err(IoError::write(&path)).and_then(|()| {
            // A failed rename hands the file back in the error, which removes it.
            file.persist(&self.target).map_err(|e| IoError::write(&path)(e.error))
        });
        partial().remove(&hidden);
        outcome.map(drop)
    }

    /// Asks the flusher, unless it is still busy with what came before.
    fn begin_flush(&mut self) -> io::Result<()> {
        if self.flusher.is_none() {
            self.flusher = Some(Flusher::start(self.open()?)?);
        }
        match &self.flusher {
            // It ends early only on a failure, which is then this write's.
            Some(flusher) if !flusher.ask() => self.flusher.take().map_or(Ok(()), Flusher::finish),
            _ => Ok(()),
        }
    }

    fn open(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Some(file) => Ok(file.as_file_mut()),
            None => Err(io::Error::other("the file is closed")),
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.open()?.write(bytes)?;
        self.pending += written;
        if self.durable && self.pending >= FLUSH_BYTES {
            self.pending = 0;
            self.begin_flush()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open()?.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            let hidden = file.path().to_path_buf();
            drop(file);
            partial().remove(&hidden);
        }
    }
}

/// A directory for several outputs. If it had to be made, it goes again unless it is kept.
#[derive(Debug)]
pub struct OutputDirectory {
    path: PathBuf,
    made: bool,
}

impl OutputDirectory {
    /// Makes sure that `path` is a directory; its parent must exist.
    ///
    /// # Errors
    /// [`IoError::Write`] if there is something else, or it cannot be made.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let shown = path.display().to_string();
        // The registry is held across creation, so that no interrupt falls between the two.
        let mut registry = partial();
        match fs::create_dir(&path) {
            Ok(()) => {
                registry.insert(path.clone());
                Ok(Self { path, made: true })
            }
            Err(_) if path.is_dir() => Ok(Self { path, made: false }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(IoError::write(&shown)(io::Error::new(
                io::ErrorKind::NotADirectory,
                "it is a file, a directory is needed",
            ))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().map_or_else(String::new, |p| p.display().to_string());
                let text = format!("there is no directory {parent}");
                Err(IoError::write(&shown)(io::Error::new(io::ErrorKind::NotFound, text)))
            }
            Err(e) => Err(IoError::write(&shown)(e)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Prepares to write a file in it.
    ///
    /// # Errors
    /// As [`AtomicFile::create`].
    pub fn file(&self, name: &str) -> Result<AtomicFile> {
        AtomicFile::create(self.path.join(name))
    }

    /// Keeps the directory.
    pub fn keep(mut self) {
        partial().remove(&self.path);
        self.made = false;
    }
}

impl Drop for OutputDirectory {
    fn drop(&mut self) {
        if self.made {
            // Not empty if files in it were completed: then it stays.
            let _ = fs::remove_dir(&self.path);
            partial().remove(&self.path);
        }
    }
}

/// The system's own words: temporary files' errors add the hidden file's name, but users know the target.
fn without_path(e: io::Error) -> io::Error {
    let text = e.to_string();
    io::Error::new(e.kind(), text.split(" at path ").next().unwrap_or_default().to_owned())
}

/// Writes a whole file at once.
///
/// # Errors
/// [`IoError::Write`].
pub fn write_bytes_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(&path)?;
    file.write_all(bytes).map_err(IoError::write(&path.as_ref().display().to_string()))?;
    file.commit()
}

/// Writes `value` as indented JSON.
///
/// # Errors
/// [`IoError::Write`].
pub fn write_json(path: impl AsRef<Path>, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| IoError::write(&path.as_ref().display().to_string())(io::Error::other(e)))?;
    text.push(b'\n');
    write_bytes_atomically(path, &text)
}
