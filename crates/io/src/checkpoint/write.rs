//! Checkpoints written tensor by tensor: headers are known in advance, data streams through.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use subspan::merge::{DType, TensorView};

use super::INDEX;
use super::header::METADATA;
use crate::atomic::{AtomicFile, OutputDirectory};
use crate::error::{IoError, Result};

/// Alignment of a header, so that data begins at a multiple of it.
const ALIGNMENT: usize = 8;

/// Name, dtype and shape of a tensor to come.
type Planned = (String, DType, Vec<usize>);

/// What a checkpoint will consist of: files with their tensors, in order, and metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointPlan {
    /// Name of each file, its tensors in the order of their bytes, its metadata.
    pub files: Vec<(String, Vec<Planned>, BTreeMap<String, String>)>,
    /// Whether the files make up a directory, even if there is one only.
    pub directory: bool,
}

impl CheckpointPlan {
    /// Names of all tensors in the order they must be written in.
    pub fn names(&self) -> Vec<&str> {
        self.files.iter().flat_map(|(_, tensors, _)| tensors).map(|(name, _, _)| name.as_str()).collect()
    }
}

/// A checkpoint being written. It appears whole at [`CheckpointWriter::finish`], or not at all.
#[derive(Debug)]
pub struct CheckpointWriter {
    plan: CheckpointPlan,
    /// Where the checkpoint goes: a file or a directory.
    target: PathBuf,
    files: Vec<AtomicFile>,
    /// After the files, so that it is empty when it goes.
    directory: Option<OutputDirectory>,
    /// The file and tensor to be written next, and bytes still to come of it.
    at: (usize, usize),
    left: usize,
}

impl CheckpointWriter {
    /// Opens the output at `target`, a file or, for a plan of several files, a directory, and reserves room on its disk. An existing
    /// checkpoint there stays until the end.
    ///
    /// # Errors
    /// [`IoError::Write`].
    pub fn create(target: &Path, plan: CheckpointPlan) -> Result<Self> {
        let (directory, mut files) = if plan.directory || plan.files.len() > 1 {
            let directory = OutputDirectory::create(target)?;
            let files = plan.files.iter().map(|(name, _, _)| directory.file(name)).collect::<Result<_>>()?;
            (Some(directory), files)
        } else {
            (None, vec![AtomicFile::create(target)?])
        };
        for (file, (_, tensors, metadata)) in files.iter_mut().zip(&plan.files) {
            let data: usize = tensors.iter().map(|(_, dtype, shape)| n_bytes(*dtype, shape)).sum();
            file.reserve((header(tensors, metadata).len() + data) as u64)?;
        }
        let mut writer = Self { plan, target: target.to_path_buf(), files, directory, at: (0, 0), left: 0 };
        writer.begin_file()?;
        writer.begin_tensor()?;
        Ok(writer)
    }

    /// See [`AtomicFile::without_sync`].
    #[must_use]
    pub fn without_sync(mut self) -> Self {
        self.files.iter_mut().for_each(AtomicFile::without_sync);
        self
    }

    /// Where the checkpoint will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The next bytes of the current tensor, or the first ones of the next: tensors follow each other as planned.
    ///
    /// # Errors
    /// [`IoError::Write`]; also for bytes beyond the plan, which is a programmer's error.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.left == 0 || self.at.0 >= self.files.len() {
                return Err(self.failed(io::Error::other("more bytes than planned")));
            }
            let now = bytes.len().min(self.left);
            let written = self.files[self.at.0].write_all(&bytes[..now]);
            written.map_err(|e| self.failed(e))?;
            self.left -= now;
            bytes = &bytes[now..];
            if self.left == 0 {
                self.at.1 += 1;
                self.begin_tensor()?;
            }
        }
        Ok(())
    }

    /// Makes the checkpoint complete and gives it its name.
    ///
    /// # Errors
    /// [`IoError::Write`]; also for tensors still to come, which is a programmer's error.
    pub fn finish(self) -> Result<()> {
        if self.at.0 < self.files.len() {
            return Err(self.failed(io::Error::other("fewer bytes than planned")));
        }
        let index = self.directory.as_ref().filter(|_| self.plan.files.len() > 1).map(|d| d.file(INDEX)).transpose()?;
        let text = self.index();
        let shown = self.target.display().to_string();
        for file in self.files {
            file.commit()?;
        }
        if let Some(mut index) = index {
            index.write_all(text.as_bytes()).map_err(IoError::write(&shown))?;
            index.commit()?;
        }
        if let Some(directory) = self.directory {
            directory.keep();
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> IoError {
        IoError::write(&self.target.display().to_string())(source)
    }

    /// Which tensor is in which file.
    fn index(&self) -> String {
        let mut weights = Map::new();
        let mut total = 0;
        for (file, tensors, _) in &self.plan.files {
            for (name, dtype, shape) in tensors {
                weights.insert(name.clone(), json!(file));
                total += n_bytes(*dtype, shape);
            }
        }
        format!("{:#}\n", json!({"metadata": {"total_size": total}, "weight_map": weights}))
    }

    /// Writes the header of the current file.
    fn begin_file(&mut self) -> Result<()> {
        let Some((_, tensors, metadata)) = self.plan.files.get(self.at.0) else { return Ok(()) };
        let bytes = header(tensors, metadata);
        let written = self.files[self.at.0].write_all(&bytes);
        written.map_err(|e| self.failed(e))
    }

    /// Goes on to the next tensor that has bytes, in the next file if need be.
    fn begin_tensor(&mut self) -> Result<()> {
        while let Some((_, tensors, _)) = self.plan.files.get(self.at.0) {
            match tensors.get(self.at.1) {
                Some((_, dtype, shape)) => {
                    self.left = n_bytes(*dtype, shape);
                    if self.left > 0 {
                        return Ok(());
                    }
                    self.at.1 += 1;
                }
                None => {
                    self.at = (self.at.0 + 1, 0);
                    self.begin_file()?;
                }
            }
        }
        Ok(())
    }
}

fn n_bytes(dtype: DType, shape: &[usize]) -> usize {
    shape.iter().product::<usize>() * dtype.size()
}

/// Length and JSON of a header, padded.
fn header(tensors: &[Planned], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert(METADATA.into(), json!(metadata));
    }
    let mut at = 0;
    for (name, dtype, shape) in tensors {
        let end = at + n_bytes(*dtype, shape);
        entries.insert(name.clone(), json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes
}

/// Writes small tensors at once.
///
/// # Errors
/// [`IoError::Write`].
pub(crate) fn write_tensors(
    mut file: AtomicFile,
    tensors: &[TensorView<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let shown = file.target().display().to_string();
    let planned: Vec<Planned> = tensors.iter().map(|t| (t.name.to_string(), t.dtype, t.shape.to_vec())).collect();
    file.write_all(&header(&planned, metadata)).map_err(IoError::write(&shown))?;
    for tensor in tensors {
        file.write_all(tensor.data).map_err(IoError::write(&shown))?;
    }
    file.commit()
}
