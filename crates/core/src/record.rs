//! The run record: what ran, on what, with which result and in what time. Serialises to `run.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One input of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputRecord {
    /// As the user named it.
    pub path: String,
    /// Rows, columns, ... as read.
    pub shape: Vec<u64>,
    /// Storage type of the values, or `"mixed"` for a table.
    pub dtype: String,
    /// A hash of the content, or of size, schema and footer where the file is too large to hash.
    pub fingerprint: String,
}

/// Everything worth keeping of a run.
///
/// ```
/// use subspan::RunRecord;
/// let mut record = RunRecord::new("sample", 7, 2);
/// record.result("rows_out", 2000);
/// let text = serde_json::to_string(&record).unwrap();
/// assert_eq!(serde_json::from_str::<RunRecord>(&text).unwrap(), record);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of this software.
    pub subspan: String,
    /// The verb.
    pub command: String,
    /// The resolved configuration.
    pub config: Map<String, Value>,
    /// The seed.
    pub seed: u64,
    /// Threads used.
    pub threads: usize,
    /// What was read.
    pub inputs: Vec<InputRecord>,
    /// What came out.
    pub results: Map<String, Value>,
    /// Wall time of each phase, seconds.
    pub seconds: BTreeMap<String, f64>,
    /// Largest resident memory of the process, bytes, where the system tells.
    pub peak_rss_bytes: Option<u64>,
}

impl RunRecord {
    /// An empty record of `command`.
    pub fn new(command: &str, seed: u64, threads: usize) -> Self {
        Self {
            subspan: env!("CARGO_PKG_VERSION").into(),
            command: command.into(),
            config: Map::new(),
            seed,
            threads,
            inputs: Vec::new(),
            results: Map::new(),
            seconds: BTreeMap::new(),
            peak_rss_bytes: None,
        }
    }

    /// Sets one result. Non-finite numbers become `null`, as JSON has no others.
    pub fn result(&mut self, name: &str, value: impl Serialize) {
        self.results.insert(name.into(), serde_json::to_value(value).unwrap_or(Value::Null));
    }

    /// Sets one configuration entry.
    pub fn configure(&mut self, name: &str, value: impl Serialize) {
        self.config.insert(name.into(), serde_json::to_value(value).unwrap_or(Value::Null));
    }

    /// Adds seconds to a phase.
    pub fn time(&mut self, phase: &str, seconds: f64) {
        *self.seconds.entry(phase.into()).or_default() += seconds;
    }
}
