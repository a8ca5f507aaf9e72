//! Passes as data: what a worker of an engine needs to fold one chunk of a table, and the sealed state that it hands back.
//!
//! A method runs on the driver as it does on one machine. Where its source is [`Distributed`], a pass is not folded in this
//! process: it becomes a *task* (bytes), which the engine hands to a worker for every chunk; the worker's states come back, are
//! checked (each chunk there once, no bit flipped, no row missing) and merged in chunk order, so that the result has the bits of
//! a local run. A pass that has no form as data is folded by the driver itself.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use subspan_linalg::apply::RowFactor;

use crate::draw::fnv1a;
use crate::error::{Error, Result};
use crate::observe::{Event, Observer};
use crate::rows::{self, RowBlock, RowSource};

/// Folds chunks elsewhere: an engine's driver side, or states that were written to files.
pub trait Remote: Sync {
    /// Folds every chunk of the table by `task` and returns the sealed states, in any order.
    ///
    /// # Errors
    /// What the engine reports.
    fn fold(&self, task: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Whether one more pass costs more than larger states, as it does where people start every pass.
    fn passes_are_dear(&self) -> bool {
        false
    }
}

/// How rows come about from those of the table that workers read.
#[derive(Clone, Serialize, Deserialize)]
pub enum RowMap {
    /// Columns multiplied by numbers.
    Scale(Vec<f64>),
    /// Rows multiplied by a factor.
    Factor(RowFactor),
    /// Rows `[a, b]` of a regression.
    Extend {
        /// With a column of ones before the target.
        intercept: bool,
        /// Less these offsets of the features; empty for none.
        offsets: Vec<f64>,
        /// With targets 0 and 1 as −1 and +1.
        signs: bool,
    },
    /// Monomials of the columns, for this even `p`.
    Lift {
        /// The norm.
        p: f64,
    },
}

/// Where a source's chunks are folded, and how its rows come about there.
pub struct Origin<'a> {
    /// Who folds.
    pub remote: &'a dyn Remote,
    /// Maps from the table's rows to the source's, first to last.
    pub maps: Vec<RowMap>,
}

impl Origin<'_> {
    /// The origin of a source that maps the rows of this one.
    #[must_use]
    pub fn then(mut self, map: RowMap) -> Self {
        self.maps.push(map);
        self
    }
}

/// A table whose passes are folded elsewhere.
pub struct Distributed<'a> {
    source: &'a dyn RowSource,
    remote: &'a dyn Remote,
}

impl<'a> Distributed<'a> {
    /// `source` is the same table, as the driver sees it.
    pub fn new(source: &'a dyn RowSource, remote: &'a dyn Remote) -> Self {
        Self { source, remote }
    }
}

impl RowSource for Distributed<'_> {
    fn n_cols(&self) -> usize {
        self.source.n_cols()
    }

    fn n_rows(&self) -> Option<u64> {
        self.source.n_rows()
    }

    fn redundant(&self) -> Vec<usize> {
        self.source.redundant()
    }

    fn origin(&self) -> Option<Origin<'_>> {
        Some(Origin { remote: self.remote, maps: Vec::new() })
    }

    fn n_chunks(&self) -> usize {
        self.source.n_chunks()
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        self.source.scan(chunk, visit)
    }
}

/// A pass that has a form as data.
pub(crate) trait Pass: Serialize + DeserializeOwned + Sync {
    /// Tells passes apart.
    const NAME: &'static str;
    /// What a chunk is folded into.
    type State: Serialize + DeserializeOwned + Send;

    fn start(&self, n_cols: usize) -> Self::State;
    fn step(&self, state: &mut Self::State, block: &RowBlock<'_>) -> Result<()>;
    fn merge(&self, total: &mut Self::State, part: Self::State);
}

/// One pass over a source, here or where its chunks are.
pub(crate) fn run<P: Pass>(source: &dyn RowSource, pass: &P, observer: &dyn Observer) -> Result<P::State> {
    let n_cols = source.n_cols();
    let Some(origin) = source.origin() else {
        let (start, step, merge) =
            (|| pass.start(n_cols), |s: &mut _, b: &RowBlock<'_>| pass.step(s, b), |t: &mut _, p| pass.merge(t, p));
        return rows::fold(source, observer, start, step, merge);
    };
    let task = Task { name: P::NAME.into(), maps: origin.maps, pass: encode(pass)? };
    let task = encode(&task)?;
    let states = origin.remote.fold(&task)?;
    let mut total = None;
    for state in collect(&task, &states, source.n_chunks(), source.n_rows())? {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let part: P::State = decode(state.payload, state.chunk)?;
        observer.event(Event::Advance { steps: state.rows });
        match &mut total {
            None => total = Some(part),
            Some(total) => pass.merge(total, part),
        }
    }
    Ok(total.unwrap_or_else(|| pass.start(n_cols)))
}

/// What a worker is told.
#[derive(Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) maps: Vec<RowMap>,
    pub(crate) pass: Vec<u8>,
}

impl Task {
    /// Reads a task that a driver of this version wrote.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        postcard::from_bytes(bytes).map_err(|_| Error::State { chunk: None, what: "is no task of this version" })
    }
}

/// First bytes of a sealed state; the last is the format's version.
const MAGIC: [u8; 8] = *b"subspan\x02";

/// A chunk's state.
#[derive(Debug, Serialize, Deserialize)]
struct Sealed<'a> {
    magic: [u8; 8],
    /// Hash of the task.
    task: u64,
    chunk: u64,
    rows: u64,
    #[serde(borrow, with = "serde_bytes")]
    payload: &'a [u8],
}

/// The state of a chunk as bytes that tell whether a bit of them has changed.
pub(crate) fn seal(task: &[u8], chunk: usize, rows: u64, state: &impl Serialize) -> Result<Vec<u8>> {
    let payload = &encode(state)?;
    let mut bytes = encode(&Sealed { magic: MAGIC, task: fnv1a(task), chunk: chunk as u64, rows, payload })?;
    bytes.extend(checksum(&bytes).to_le_bytes());
    Ok(bytes)
}

/// A sum that every flipped bit changes: each step is a bijection of what came before. Words instead of bytes, since rows that are
/// wanted make states of megabytes.
fn checksum(bytes: &[u8]) -> u64 {
    /// Odd, bits spread evenly (the fractional part of the golden ratio).
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}

/// The chunk that a sealed state belongs to, if it is whole and of this task.
///
/// # Errors
/// [`Error::State`].
pub fn chunk_of(task: &[u8], state: &[u8]) -> Result<usize> {
    open(task, state).map(|state| state.chunk as usize)
}

fn open<'a>(task: &[u8], bytes: &'a [u8]) -> Result<Sealed<'a>> {
    let damaged = Error::State { chunk: None, what: "is damaged" };
    let Some((content, sum)) = bytes.split_last_chunk::<8>() else { return Err(damaged) };
    if checksum(content) != u64::from_le_bytes(*sum) {
        return Err(damaged);
    }
    let sealed: Sealed<'_> = postcard::from_bytes(content).map_err(|_| damaged)?;
    let fail = |what| Err(Error::State { chunk: Some(sealed.chunk), what });
    if sealed.magic != MAGIC {
        return fail("is of another version");
    }
    if sealed.task != fnv1a(task) {
        return fail("is of another run or pass");
    }
    Ok(sealed)
}

/// Every chunk's state, once, in chunk order.
fn collect<'a>(task: &[u8], states: &'a [Vec<u8>], n_chunks: usize, n_rows: Option<u64>) -> Result<Vec<Sealed<'a>>> {
    let mut all = states.iter().map(|bytes| open(task, bytes)).collect::<Result<Vec<_>>>()?;
    all.sort_by_key(|state| state.chunk);
    let fail = |chunk, what| Err(Error::State { chunk: Some(chunk), what });
    for (i, state) in all.iter().enumerate() {
        let expected = i as u64;
        match state.chunk {
            chunk if chunk < expected => return fail(chunk, "is there twice"),
            chunk if chunk > expected => return fail(expected, "is missing"),
            chunk if i >= n_chunks => return fail(chunk, "is not of this table"),
            _ => {}
        }
    }
    if all.len() < n_chunks {
        return fail(all.len() as u64, "is missing");
    }
    let rows: u64 = all.iter().map(|state| state.rows).sum();
    match n_rows {
        Some(n) if n != rows => {
            Err(Error::Shape { what: "the chunks' rows", found: rows as usize, expected: n as usize })
        }
        _ => Ok(all),
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(|_| Error::State { chunk: None, what: "cannot be written" })
}

fn decode<T: DeserializeOwned>(bytes: &[u8], chunk: u64) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|_| Error::State { chunk: Some(chunk), what: "is damaged" })
}

/// The pass of a task.
pub(crate) fn pass_of<P: Pass>(task: &Task) -> Result<P> {
    postcard::from_bytes(&task.pass).map_err(|_| Error::State { chunk: None, what: "is no task of this version" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &[u8] = b"a task";

    fn states(chunks: &[usize]) -> Vec<Vec<u8>> {
        chunks.iter().map(|c| seal(TASK, *c, 10, &vec![*c as f64; 3]).unwrap()).collect()
    }

    fn told(chunks: &[usize], n_chunks: usize, n_rows: Option<u64>) -> String {
        collect(TASK, &states(chunks), n_chunks, n_rows).unwrap_err().to_string()
    }

    #[test]
    fn states_come_back_in_chunk_order_whatever_came_first() {
        let states = states(&[2, 0, 1]);
        let all = collect(TASK, &states, 3, Some(30)).unwrap();
        assert_eq!(all.iter().map(|s| s.chunk).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(decode::<Vec<f64>>(all[2].payload, 2).unwrap(), [2.0; 3]);
    }

    #[test]
    fn a_missing_a_double_and_a_foreign_chunk_are_named() {
        assert_eq!(told(&[0, 2], 3, None), "the state of chunk 1 is missing");
        assert_eq!(told(&[0, 1], 3, None), "the state of chunk 2 is missing");
        assert_eq!(told(&[], 1, None), "the state of chunk 0 is missing");
        assert_eq!(told(&[0, 1, 1, 2], 3, None), "the state of chunk 1 is there twice");
        assert_eq!(told(&[0, 1, 2, 3], 3, None), "the state of chunk 3 is not of this table");
        assert!(told(&[0, 1], 2, Some(21)).contains("21"));
        let other = collect(b"another task", &states(&[0]), 1, None).unwrap_err();
        assert_eq!(other.to_string(), "the state of chunk 0 is of another run or pass");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let state = &states(&[0])[0];
        for byte in 0..state.len() {
            for bit in 0..8 {
                let mut bad = state.clone();
                bad[byte] ^= 1 << bit;
                assert!(collect(TASK, &[bad], 1, None).is_err(), "byte {byte}, bit {bit}");
            }
            assert!(collect(TASK, &[state[..byte].to_vec()], 1, None).is_err(), "cut at {byte}");
        }
    }
}
