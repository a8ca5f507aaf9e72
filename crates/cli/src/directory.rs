//! Directories of results.

use std::path::{Path, PathBuf};
use std::{fs, io};

use subspan_io::IoError;

use crate::failure::Failure;

/// A directory of results; directories that it made go again if the work does not finish and they are empty.
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    made: std::cell::RefCell<Vec<PathBuf>>,
}

impl Directory {
    /// The directory `path`, made if need be; the one above it must be there.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let directory = Self { path: path.into(), made: Vec::new().into() };
        directory.make(path)?;
        Ok(directory)
    }

    /// A directory of that name inside.
    pub(crate) fn inside(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        self.make(&path)?;
        Ok(path)
    }

    fn make(&self, path: &Path) -> Result<(), Failure> {
        match fs::create_dir(path) {
            Ok(()) => self.made.borrow_mut().push(path.into()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(source) => return Err(IoError::Write { path: path.display().to_string(), source }.into()),
        }
        Ok(())
    }

    /// The work is finished.
    pub(crate) fn keep(&self) {
        self.made.borrow_mut().clear();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for path in self.made.borrow().iter().rev() {
            // Only an empty directory goes; what was written whole may stay.
            let _ = fs::remove_dir(path);
        }
    }
}
