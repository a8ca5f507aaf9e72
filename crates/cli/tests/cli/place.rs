//! The language of the tests: a place with files, a command, and what is expected of it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::Float64Type;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use serde_json::Value;
use tempfile::TempDir;

/// A directory of its own, removed at the end.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(name), content).unwrap();
        self
    }

    /// `cities.parquet` in row groups of `group` rows: 6,000 rows of `x`, `z`, a text column `city` with one rare level, and
    /// `y = 3 + 2 x - z + (1 in b, -4 in c, 30 in rare)` but for every 20th row, which is far off.
    pub(crate) fn cities(self, group: usize) -> Self {
        let n = 6_000;
        let noise = |i: usize, k: u64| {
            let h = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_mul(2 * k + 1);
            (h >> 40) as f64 / (1u64 << 24) as f64 - 0.5
        };
        let city = |i: usize| match i {
            4_321 | 4_400 => "rare",
            i => ["a", "b", "c"][i % 3],
        };
        let x: Vec<f64> = (0..n).map(|i| 4.0 * noise(i, 1)).collect();
        let z: Vec<f64> = (0..n).map(|i| 2.0 * noise(i, 2)).collect();
        let y: Vec<f64> = (0..n)
            .map(|i| {
                let effect = match city(i) {
                    "b" => 1.0,
                    "c" => -4.0,
                    "rare" => 30.0,
                    _ => 0.0,
                };
                let off = if i % 20 == 7 { 500.0 } else { 0.0 };
                3.0 + 2.0 * x[i] - z[i] + effect + off
            })
            .collect();
        let columns: [(&str, ArrayRef); 4] = [
            ("x", Arc::new(Float64Array::from(x))),
            ("z", Arc::new(Float64Array::from(z))),
            ("city", Arc::new(StringArray::from_iter_values((0..n).map(city)))),
            ("y", Arc::new(Float64Array::from(y))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
        let file = fs::File::create(self.path("cities.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        self
    }

    /// The program about to run here.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_subspan"));
        command.args(arguments.split_whitespace()).current_dir(self.0.path());
        command
    }

    /// Runs the program with these arguments.
    pub(crate) fn run(&self, arguments: &str) -> Ran<'_> {
        Ran { place: self, call: arguments.into(), output: self.command(arguments).output().unwrap() }
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    pub(crate) fn parquet(&self, name: &str) -> RecordBatch {
        let file = fs::File::open(self.path(name)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let schema = Arc::clone(reader.schema());
        let batches: Vec<RecordBatch> = reader.build().unwrap().map(|b| b.unwrap()).collect();
        concat_batches(&schema, &batches).unwrap()
    }

    /// The ids of a sample file.
    pub(crate) fn row_ids(&self, name: &str) -> Vec<u64> {
        let batch = self.parquet(name);
        let ids = batch.column_by_name("row_id").unwrap().as_any().downcast_ref::<UInt64Array>().unwrap();
        ids.values().to_vec()
    }

    /// A column of numbers of a sample file.
    pub(crate) fn numbers(&self, name: &str, column: &str) -> Vec<f64> {
        use arrow::array::AsArray;
        self.parquet(name).column_by_name(column).unwrap().as_primitive::<Float64Type>().values().to_vec()
    }

    /// Names of all files here, hidden ones too.
    pub(crate) fn files(&self) -> Vec<String> {
        self.files_in("")
    }

    /// Names of all files in a directory here.
    pub(crate) fn files_in(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A finished run.
pub(crate) struct Ran<'a> {
    place: &'a Place,
    call: String,
    output: Output,
}

impl Ran<'_> {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }

    #[track_caller]
    fn exits(self, code: i32) -> Self {
        let all = format!("subspan {}\n{}{}", self.call, self.stdout(), self.stderr());
        assert_eq!(self.output.status.code(), Some(code), "{all}");
        self
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// The work failed: one line of error.
    #[track_caller]
    pub(crate) fn fails(self) -> Self {
        self.exits(1).with_one_error()
    }

    /// The command line makes no sense: one line of error.
    #[track_caller]
    pub(crate) fn misuses(self) -> Self {
        self.exits(2).with_one_error()
    }

    #[track_caller]
    fn with_one_error(self) -> Self {
        let text = self.stderr();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.first().is_some_and(|l| l.starts_with("error: ")), "{text}");
        assert!(lines[1..].iter().all(|l| l.starts_with("hint: ")) && lines.len() <= 2, "{text}");
        assert!(self.stdout().is_empty(), "nothing on stdout: {}", self.stdout());
        self
    }

    /// stderr has all these words.
    #[track_caller]
    pub(crate) fn naming(self, words: &[&str]) -> Self {
        let text = self.stderr();
        for word in words {
            assert!(text.contains(word), "\"{word}\" is missing in: {text}");
        }
        self
    }

    /// stdout has all these words.
    #[track_caller]
    pub(crate) fn saying(self, words: &[&str]) -> Self {
        let text = self.stdout();
        for word in words {
            assert!(text.contains(word), "\"{word}\" is missing in: {text}");
        }
        self
    }

    /// These are the only files now.
    #[track_caller]
    pub(crate) fn leaving(self, files: &[&str]) -> Self {
        assert_eq!(self.place.files(), files, "after subspan {}", self.call);
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub(crate) fn record(self) -> Value {
        serde_json::from_str(&self.stdout()).unwrap_or_else(|e| panic!("{e}: {}", self.stdout()))
    }
}
