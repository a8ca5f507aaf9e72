//! A sample drawn by many processes that share a folder of states: each folds its chunks, the last step combines.
//!
//! There is no driver that stays alive. Every process replays the run from the states in the folder up to the first pass that is
//! not complete; `--shard` then folds its own chunks of that pass, `--combine` needs every pass. A chunk's state is a file of its
//! own, so a shard that is run again adds nothing: it finds its states, or replaces damaged ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use subspan::remote::{Distributed, Remote, chunk_of};
use subspan::rows::RowSource;
use subspan::sample::{self, Config, Sample};
use subspan::{Error, Observer};
use subspan_io::{IoError, Table, write_bytes_atomically};

use crate::failure::Failure;

/// One of `n` shards, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    index: usize,
    count: usize,
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parsed {
            Some((index, count)) if 1 <= index && index <= count => Ok(Self { index, count }),
            _ => Err("i/n with i from 1 to n is needed, such as 3/8".into()),
        }
    }
}

/// What a shard did.
pub(crate) struct Folded {
    /// Counted from 1; `None` if every pass was complete.
    pub(crate) pass: Option<usize>,
    /// Chunks of this shard, and how many of them were there already.
    pub(crate) chunks: usize,
    pub(crate) found: usize,
}

/// The states in a folder.
struct Folder<'a> {
    path: &'a Path,
    n_chunks: usize,
    /// Passes asked for so far.
    passes: AtomicUsize,
}

/// A pass whose states are not all there.
#[derive(Debug)]
struct Incomplete {
    pass: usize,
    task: Vec<u8>,
    missing: Vec<usize>,
}

impl std::fmt::Display for Incomplete {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        /// Chunks listed by number.
        const LISTED: usize = 5;
        let shown: Vec<String> = self.missing.iter().take(LISTED).map(ToString::to_string).collect();
        let more = self.missing.len().saturating_sub(LISTED);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        write!(f, "pass {} lacks the states of chunks {}{rest}", self.pass, shown.join(", "))
    }
}

impl std::error::Error for Incomplete {}

impl Folder<'_> {
    fn file(&self, pass: usize, chunk: usize) -> PathBuf {
        self.path.join(format!("pass-{pass}.chunk-{chunk}.state"))
    }

    fn read(&self, pass: usize, chunk: usize) -> Result<Option<Vec<u8>>, IoError> {
        let file = self.file(pass, chunk);
        match fs::read(&file) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IoError::Read { path: file.display().to_string(), source }),
        }
    }

    /// Checks the state of a chunk; names its file if it cannot be used.
    fn check(&self, pass: usize, chunk: usize, task: &[u8], state: &[u8]) -> subspan::Result<()> {
        let place = || self.file(pass, chunk).display().to_string();
        match chunk_of(task, state) {
            Ok(found) if found == chunk => Ok(()),
            Ok(found) => Err(Error::Source(format!("{}: the state of chunk {found}", place()).into())),
            Err(e) => Err(Error::Source(format!("{}: {e}", place()).into())),
        }
    }
}

impl Remote for Folder<'_> {
    fn fold(&self, task: &[u8]) -> subspan::Result<Vec<Vec<u8>>> {
        let pass = self.passes.fetch_add(1, Ordering::Relaxed) + 1;
        let (mut states, mut missing) = (Vec::with_capacity(self.n_chunks), Vec::new());
        for chunk in 0..self.n_chunks {
            match self.read(pass, chunk)? {
                None => missing.push(chunk),
                Some(state) => {
                    self.check(pass, chunk, task, &state)?;
                    states.push(state);
                }
            }
        }
        if missing.is_empty() {
            return Ok(states);
        }
        Err(Error::Source(Box::new(Incomplete { pass, task: task.to_vec(), missing })))
    }

    fn passes_are_dear(&self) -> bool {
        true
    }
}

/// Refuses states of a table with another content; the first process notes which table it is.
fn check_table(table: &Table, folder: &Path) -> Result<(), Failure> {
    let file = folder.join("table.fingerprint");
    let record = table.input_record()?;
    match fs::read_to_string(&file) {
        Ok(found) if found.trim() == record.fingerprint => Ok(()),
        Ok(_) => Err(Failure::Work {
            message: format!(
                "{}: states of another table than {}, or of what it was before",
                folder.display(),
                record.path
            ),
            hint: Some("start again in a new folder".into()),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Ok(write_bytes_atomically(&file, format!("{}\n", record.fingerprint).as_bytes())?)
        }
        Err(source) => Err(IoError::Read { path: file.display().to_string(), source }.into()),
    }
}

/// The sample from the states of all passes.
pub(crate) fn combine(
    table: &Table,
    config: &Config,
    seed: u64,
    folder: &Path,
    observer: &dyn Observer,
) -> Result<Sample, Failure> {
    if !folder.is_dir() {
        let hint = Some("--combine takes the folder that the shards wrote, their -o".into());
        return Err(Failure::Work { message: format!("{}: no such folder of states", folder.display()), hint });
    }
    check_table(table, folder)?;
    let states = Folder { path: folder, n_chunks: table.n_chunks(), passes: AtomicUsize::new(0) };
    sample::run(&Distributed::new(table, &states), config, seed, observer).map_err(|e| match e {
        Error::Source(source) if source.is::<Incomplete>() => Failure::Work {
            message: format!("{}: {source}", folder.display()),
            hint: Some("run every shard once more, then combine again".into()),
        },
        Error::Source(source) if !source.is::<IoError>() => {
            Failure::Work { message: source.to_string(), hint: Some("run its shard again".into()) }
        }
        e => e.into(),
    })
}

/// Folds this shard's chunks of the first pass that is not complete. Damaged states of its own are replaced.
pub(crate) fn fold(
    table: &Table,
    config: &Config,
    seed: u64,
    shard: Shard,
    folder: &Path,
    observer: &dyn Observer,
) -> Result<Folded, Failure> {
    fs::create_dir_all(folder).map_err(|source| IoError::Write { path: folder.display().to_string(), source })?;
    check_table(table, folder)?;
    let states = Folder { path: folder, n_chunks: table.n_chunks(), passes: AtomicUsize::new(0) };
    let own: Vec<usize> = (0..states.n_chunks).filter(|chunk| chunk % shard.count == shard.index - 1).collect();
    let replay = Replay { states: &states, own: &own };
    let Incomplete { pass, task, .. } = match sample::run(&Distributed::new(table, &replay), config, seed, observer) {
        Ok(_) => return Ok(Folded { pass: None, chunks: own.len(), found: own.len() }),
        Err(Error::Source(source)) => match source.downcast::<Incomplete>() {
            Ok(incomplete) => *incomplete,
            Err(other) if other.is::<IoError>() => return Err(Error::Source(other).into()),
            Err(other) => {
                let hint = Some("run its shard again".into());
                return Err(Failure::Work { message: other.to_string(), hint });
            }
        },
        Err(e) => return Err(e.into()),
    };
    let done: Vec<bool> = own
        .par_iter()
        .map(|chunk| {
            if let Some(state) = states.read(pass, *chunk)?
                && states.check(pass, *chunk, &task, &state).is_ok()
            {
                return Ok(true);
            }
            let state = sample::fold_chunk(table, *chunk, &task, observer)?;
            write_bytes_atomically(states.file(pass, *chunk), &state)?;
            Ok(false)
        })
        .collect::<Result<_, Error>>()?;
    Ok(Folded { pass: Some(pass), chunks: own.len(), found: done.iter().filter(|found| **found).count() })
}

/// The states as a shard replays them: a damaged one of its own counts as missing.
struct Replay<'a> {
    states: &'a Folder<'a>,
    own: &'a [usize],
}

impl Remote for Replay<'_> {
    fn fold(&self, task: &[u8]) -> subspan::Result<Vec<Vec<u8>>> {
        let pass = self.states.passes.load(Ordering::Relaxed) + 1;
        for chunk in self.own {
            if let Some(state) = self.states.read(pass, *chunk)?
                && self.states.check(pass, *chunk, task, &state).is_err()
            {
                let file = self.states.file(pass, *chunk);
                fs::remove_file(&file).map_err(|source| IoError::Write { path: file.display().to_string(), source })?;
            }
        }
        self.states.fold(task)
    }

    fn passes_are_dear(&self) -> bool {
        self.states.passes_are_dear()
    }
}
