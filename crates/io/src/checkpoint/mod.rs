//! Checkpoints: one `.safetensors` file, or a directory of shards with `model.safetensors.index.json`.
//!
//! Files are mapped, never loaded; headers are read as untrusted input: every offset, shape and name is checked before a tensor
//! is handed out.

mod header;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use subspan::InputRecord;
use subspan::merge::{Model, TensorView};

use crate::bytes::{fingerprint, open_file};
use crate::error::{IoError, Result};

pub use header::TensorInfo;
pub(crate) use write::write_tensors;
pub use write::{CheckpointPlan, CheckpointWriter};

/// The index of a sharded checkpoint.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The file of a checkpoint directory without shards.
const SINGLE: &str = "model.safetensors";
/// What other programs store checkpoints in, and this one does not read.
const PICKLED: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];

/// One mapped file of a checkpoint.
#[derive(Debug)]
struct Shard {
    /// As shown in messages.
    path: String,
    map: Mmap,
    header: header::Header,
}

/// A checkpoint, open for reading. Its tensors are views into mapped files.
#[derive(Debug)]
pub struct Checkpoint {
    path: String,
    /// Directory of the shards; `None` for a single file.
    directory: Option<PathBuf>,
    shards: Vec<Shard>,
    /// Names in the order of the files, with the shard and the tensor's number in it.
    order: Vec<(usize, usize)>,
    by_name: BTreeMap<String, (usize, usize)>,
}

impl Checkpoint {
    /// Opens a `.safetensors` file, a directory with an index of shards or with `model.safetensors`, or such an index.
    ///
    /// # Errors
    /// [`IoError`]: no such file; another format (with what to do about it); a damaged header, named with its tensor; a tensor in
    /// two shards, or in none.
    pub fn open(path: &str) -> Result<Self> {
        let place = Path::new(path);
        let index = if place.is_dir() {
            let index = place.join(INDEX);
            if !index.exists() && place.join(SINGLE).exists() {
                let mut found = Self::files(path, vec![place.join(SINGLE)])?;
                found.directory = Some(place.to_path_buf());
                return Ok(found);
            }
            if !index.exists() {
                return Err(IoError::Unsupported {
                    path: path.into(),
                    what: format!("the directory has neither {INDEX} nor {SINGLE}"),
                    hint: Some("name a .safetensors file, or a directory as the Hugging Face hub lays it out".into()),
                });
            }
            index
        } else if path.ends_with(".index.json") {
            place.to_path_buf()
        } else {
            refuse_pickles(place)?;
            return Self::files(path, vec![place.to_path_buf()]);
        };
        Self::sharded(path, &index)
    }

    fn files(path: &str, files: Vec<PathBuf>) -> Result<Self> {
        let mut found = Self {
            path: path.into(),
            directory: None,
            shards: Vec::new(),
            order: Vec::new(),
            by_name: BTreeMap::new(),
        };
        for file in files {
            let shown = file.display().to_string();
            let (opened, _) = open_file(&shown)?;
            let map = map(&opened, &shown)?;
            let header = header::Header::parse(&shown, &map)?;
            let shard = found.shards.len();
            for (at, tensor) in header.tensors.iter().enumerate() {
                if let Some((other, _)) = found.by_name.insert(tensor.name.clone(), (shard, at)) {
                    let other = &found.shards[other].path;
                    let detail = format!("also in {other}");
                    return Err(IoError::corrupt(&shown, format!("tensor {}", tensor.name), detail));
                }
                found.order.push((shard, at));
            }
            found.shards.push(Shard { path: shown, map, header });
        }
        Ok(found)
    }

    /// The shards an index lists, which must hold exactly the tensors it says.
    fn sharded(path: &str, index: &Path) -> Result<Self> {
        let shown = index.display().to_string();
        let text = std::fs::read(index).map_err(IoError::open(&shown))?;
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|e| IoError::corrupt(&shown, "index", e))?;
        let Some(weights) = value.get("weight_map").and_then(|w| w.as_object()) else {
            return Err(IoError::corrupt(&shown, "index", "no weight_map"));
        };
        let directory = index.parent().unwrap_or_else(|| Path::new("")).to_path_buf();
        let mut names = BTreeSet::new();
        for (tensor, file) in weights {
            let plain = file.as_str().filter(|f| Path::new(f).file_name().is_some_and(|n| n == *f));
            let Some(file) = plain else {
                return Err(IoError::corrupt(&shown, format!("tensor {tensor}"), format!("{file} is no file name")));
            };
            names.insert(file.to_string());
        }
        let mut found = Self::files(path, names.iter().map(|n| directory.join(n)).collect())?;
        for (tensor, file) in weights {
            let Some((shard, _)) = found.by_name.get(tensor) else {
                return Err(IoError::corrupt(&shown, format!("tensor {tensor}"), format!("{file} does not hold it")));
            };
            let real = &found.shards[*shard].path;
            if file.as_str().is_none_or(|f| *real != directory.join(f).display().to_string()) {
                return Err(IoError::corrupt(
                    &shown,
                    format!("tensor {tensor}"),
                    format!("it is in {real}, not in {file}"),
                ));
            }
        }
        if let Some(extra) = found.by_name.keys().find(|name| !weights.contains_key(*name)) {
            return Err(IoError::corrupt(&shown, format!("tensor {extra}"), "the index does not list it"));
        }
        found.directory = Some(directory);
        Ok(found)
    }

    /// As the user named it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The base name of outputs made of this checkpoint: its file's, or its directory's.
    pub fn base_name(&self) -> String {
        let place = self.directory.as_deref().unwrap_or(Path::new(&self.path));
        let real = place.canonicalize().unwrap_or_else(|_| place.to_path_buf());
        real.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned())
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// An entry of the files' metadata (`__metadata__` of the header): of the first file that has it.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.shards.iter().find_map(|s| s.header.metadata.get(key)).map(String::as_str)
    }

    /// The architecture's description beside the tensors, `config.json`, if there is one.
    ///
    /// # Errors
    /// [`IoError::Corrupt`] if it is no JSON.
    pub fn config(&self) -> Result<Option<serde_json::Value>> {
        let directory = match &self.directory {
            Some(directory) => directory.clone(),
            None => Path::new(&self.path).parent().map(Path::to_path_buf).unwrap_or_default(),
        };
        let file = directory.join("config.json");
        let shown = file.display().to_string();
        match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| IoError::corrupt(&shown, "content", e)),
            Err(_) => Ok(None),
        }
    }

    /// Number of elements of all tensors.
    pub fn n_parameters(&self) -> u64 {
        self.shards.iter().flat_map(|s| &s.header.tensors).map(|t| t.shape.iter().product::<usize>() as u64).sum()
    }

    /// Bytes of all tensors.
    pub fn n_bytes(&self) -> u64 {
        self.shards.iter().flat_map(|s| &s.header.tensors).map(|t| t.range.len() as u64).sum()
    }

    /// What a run record says about it: its number of tensors and of parameters.
    ///
    /// # Errors
    /// [`IoError::Read`].
    pub fn input_record(&self) -> Result<InputRecord> {
        let paths: Vec<String> = self.shards.iter().map(|s| s.path.clone()).collect();
        let mut dtypes: Vec<&str> = self
            .shards
            .iter()
            .flat_map(|s| &s.header.tensors)
            .filter(|t| t.dtype.is_float())
            .map(|t| t.dtype.name())
            .collect();
        dtypes.dedup();
        let dtype = match dtypes.as_slice() {
            [one] => one.to_lowercase(),
            _ => "mixed".into(),
        };
        Ok(InputRecord {
            path: self.path.clone(),
            shape: vec![self.order.len() as u64, self.n_parameters()],
            dtype,
            fingerprint: fingerprint(&paths)?,
        })
    }

    /// What an output shaped like this checkpoint consists of: the same files with the same tensors and metadata.
    pub fn plan(&self) -> CheckpointPlan {
        let file = |s: &Shard| {
            let name = Path::new(&s.path).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let tensors = s.header.tensors.iter().map(|t| (t.name.clone(), t.dtype, t.shape.clone())).collect();
            (name, tensors, s.header.metadata.clone())
        };
        CheckpointPlan { files: self.shards.iter().map(file).collect(), directory: self.is_directory() }
    }
}

impl Model for Checkpoint {
    fn label(&self) -> &str {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.order.iter().map(|(shard, at)| self.shards[*shard].header.tensors[*at].name.as_str()).collect()
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (shard, at) = self.by_name.get(name)?;
        let shard = &self.shards[*shard];
        let info = &shard.header.tensors[*at];
        let data = &shard.map[info.range.clone()];
        Some(TensorView { name: &info.name, dtype: info.dtype, shape: &info.shape, data })
    }
}

/// Maps a file.
#[allow(unsafe_code)]
fn map(file: &File, shown: &str) -> Result<Mmap> {
    // SAFETY: the map is read-only and private to this process. Another process that shortens the file meanwhile would make a
    // read fail hard; like every program that maps its inputs, this one expects them to stay as they are while it runs.
    let map = unsafe { Mmap::map(file) };
    map.map_err(|source| IoError::Read { path: shown.into(), source })
}

fn refuse_pickles(place: &Path) -> Result<()> {
    let ending = place.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    if place.exists() && PICKLED.contains(&ending.as_str()) {
        return Err(IoError::Unsupported {
            path: place.display().to_string(),
            what: "a pickled checkpoint, which could run code when read".into(),
            hint: Some(
                "convert it: safetensors.torch.save_file(torch.load(path, weights_only=True), \"model.safetensors\")"
                    .into(),
            ),
        });
    }
    Ok(())
}
