//! CSV tables, plain or gzipped, with a header line.
//!
//! Opening reads the file once: it checks every line, infers types over the whole file, collects the levels of text columns and
//! notes where chunks begin, so that later passes can read chunks in parallel (a gzipped file is one chunk).

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flate2::bufread::MultiGzDecoder;

use super::categories::Levels;
use super::store::{Request, Store};
use crate::bytes::open_file;
use crate::error::{IoError, Result};

/// A chunk ends after so many rows ...
const CHUNK_ROWS: u64 = 65_536;
/// ... or so many bytes, whichever comes first.
const CHUNK_BYTES: u64 = 8 << 20;
/// Read buffer.
const BUFFER_BYTES: usize = 1 << 18;
/// Fields that stand for a missing value.
const MISSING: [&str; 7] = ["", "NA", "N/A", "NaN", "nan", "null", "NULL"];

/// An indexed CSV file.
#[derive(Debug)]
pub(crate) struct CsvStore {
    path: String,
    len: u64,
    gzip: bool,
    schema: SchemaRef,
    levels: Vec<Levels>,
    /// Where each chunk begins.
    offsets: Vec<u64>,
    starts: Vec<u64>,
}

impl CsvStore {
    /// Reads the file once.
    pub(crate) fn open(path: &str) -> Result<Self> {
        let gzip = path.to_ascii_lowercase().ends_with(".gz");
        let (file, len) = open_file(path)?;
        let mut reader = reader(file, gzip);
        let names = header(path, &mut reader)?;
        let mut guesses = vec![Guess::default(); names.len()];
        let (mut offsets, mut starts) = (vec![reader.position().byte()], vec![0]);
        let mut record = ByteRecord::new();
        let mut n_rows = 0;
        while reader.read_byte_record(&mut record).map_err(|e| convert(path, e))? {
            let (byte, line) = record.position().map_or((0, 0), |p| (p.byte(), p.line()));
            let last = offsets.len() - 1;
            if !gzip && (n_rows - starts[last] == CHUNK_ROWS || byte - offsets[last] >= CHUNK_BYTES) {
                offsets.push(byte);
                starts.push(n_rows);
            }
            for (guess, field) in guesses.iter_mut().zip(record.iter()) {
                let text = std::str::from_utf8(field)
                    .map_err(|_| IoError::NotUtf8 { path: path.into(), place: format!("line {line}") })?;
                guess.see(text);
            }
            n_rows += 1;
        }
        starts.push(n_rows);
        if n_rows == 0 {
            return Err(IoError::Empty { path: path.into(), what: "rows" });
        }
        let fields: Vec<Field> = names.iter().zip(&guesses).map(|(n, g)| Field::new(n, g.data_type(), true)).collect();
        let levels = guesses.into_iter().map(|guess| guess.levels).collect();
        Ok(Self { path: path.into(), len, gzip, schema: Arc::new(Schema::new(fields)), levels, offsets, starts })
    }
}

/// The column names of the first line.
fn header(path: &str, reader: &mut Reader<Box<dyn Read>>) -> Result<Vec<String>> {
    let record = reader.byte_headers().map_err(|e| convert(path, e))?;
    let mut names = Vec::new();
    for (j, field) in record.iter().enumerate() {
        let name = std::str::from_utf8(field)
            .map_err(|_| IoError::NotUtf8 { path: path.into(), place: "the header".into() })?
            .trim();
        // A table saved together with its row labels has a nameless first column; pandas reads it under this name.
        names.push(if name.is_empty() { format!("Unnamed: {j}") } else { name.to_owned() });
    }
    if names.is_empty() {
        return Err(IoError::Empty { path: path.into(), what: "columns" });
    }
    // Numbers in the first line are data, but for 0, 1, 2, ...: the names that pandas gives to nameless columns.
    let counted = names.iter().enumerate().all(|(j, name)| *name == j.to_string());
    if !counted && names.iter().all(|name| name.parse::<f64>().is_ok()) {
        return Err(IoError::NoHeader { path: path.into() });
    }
    Ok(names)
}

fn reader(file: File, gzip: bool) -> Reader<Box<dyn Read>> {
    let source: Box<dyn Read> =
        if gzip { Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, file))) } else { Box::new(file) };
    ReaderBuilder::new().buffer_capacity(BUFFER_BYTES).from_reader(source)
}

fn convert(path: &str, e: ::csv::Error) -> IoError {
    let place = e.position().map_or_else(|| "content".into(), |p| format!("line {}", p.line()));
    match e.into_kind() {
        ErrorKind::UnequalLengths { pos, expected_len, len } => {
            IoError::Ragged { path: path.into(), line: pos.map_or(0, |p| p.line()), found: len, expected: expected_len }
        }
        ErrorKind::Io(e) => IoError::read(path, &place)(e),
        ErrorKind::Utf8 { .. } => IoError::NotUtf8 { path: path.into(), place },
        other => IoError::corrupt(path, place, format!("{other:?}")),
    }
}

/// What the values of a column seen so far have in common.
#[derive(Debug, Clone)]
struct Guess {
    any: bool,
    integer: bool,
    number: bool,
    boolean: bool,
    levels: Levels,
}

impl Default for Guess {
    fn default() -> Self {
        Self { any: false, integer: true, number: true, boolean: true, levels: Levels::default() }
    }
}

impl Guess {
    fn see(&mut self, field: &str) {
        let text = field.trim();
        if is_missing(text) {
            return;
        }
        self.any = true;
        self.integer = self.integer && text.parse::<i64>().is_ok();
        // What is an integer is a number.
        self.number = self.integer || (self.number && text.parse::<f64>().is_ok());
        self.boolean = self.boolean && boolean(text).is_some();
        self.levels.insert(field);
    }

    fn data_type(&self) -> DataType {
        match self {
            Self { any: false, .. } => DataType::Float64,
            Self { boolean: true, .. } => DataType::Boolean,
            Self { integer: true, .. } => DataType::Int64,
            Self { number: true, .. } => DataType::Float64,
            _ => DataType::Utf8,
        }
    }
}

fn is_missing(text: &str) -> bool {
    text.len() <= 4 && MISSING.contains(&text)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

impl Store for CsvStore {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn starts(&self) -> &[u64] {
        &self.starts
    }

    fn known_levels(&self, column: usize) -> Option<Levels> {
        Some(self.levels[column].clone())
    }

    fn read(
        &self,
        chunk: usize,
        request: &Request<'_>,
        visit: &mut dyn FnMut(&RecordBatch) -> subspan::Result<()>,
    ) -> subspan::Result<()> {
        let changed = || IoError::Changed { path: self.path.clone() };
        let (mut file, len) = open_file(&self.path)?;
        if len != self.len {
            return Err(changed().into());
        }
        let mut reader = if self.gzip {
            let mut reader = reader(file, true);
            header(&self.path, &mut reader)?;
            reader
        } else {
            file.seek(SeekFrom::Start(self.offsets[chunk])).map_err(IoError::read(&self.path, "content"))?;
            let source: Box<dyn Read> = Box::new(file);
            ReaderBuilder::new().has_headers(false).buffer_capacity(BUFFER_BYTES).from_reader(source)
        };
        let fields: Vec<Field> = request.columns.iter().map(|c| self.schema.field(*c).clone()).collect();
        let schema = Arc::new(Schema::new(fields));
        let mut record = ByteRecord::new();
        let mut left = self.starts[chunk + 1] - self.starts[chunk];
        while left > 0 {
            let n = left.min(request.batch_rows as u64);
            let mut builders: Vec<Builder> = schema.fields().iter().map(|f| Builder::new(f.data_type())).collect();
            for _ in 0..n {
                if !reader.read_byte_record(&mut record).map_err(|e| convert(&self.path, e))? {
                    return Err(changed().into());
                }
                for (builder, column) in builders.iter_mut().zip(request.columns) {
                    record.get(*column).and_then(|field| builder.push(field)).ok_or_else(changed)?;
                }
            }
            let columns = builders.into_iter().map(Builder::finish).collect();
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(IoError::from)?;
            visit(&batch)?;
            left -= n;
        }
        Ok(())
    }
}

/// A column under construction.
enum Builder {
    Integer(Int64Builder),
    Number(Float64Builder),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
}

impl Builder {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Int64 => Self::Integer(Int64Builder::new()),
            DataType::Float64 => Self::Number(Float64Builder::new()),
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            _ => Self::Text(StringBuilder::new()),
        }
    }

    /// Adds a field; `None` if it is not of the column's type.
    fn push(&mut self, field: &[u8]) -> Option<()> {
        let field = std::str::from_utf8(field).ok()?;
        let text = field.trim();
        let present = !is_missing(text);
        match self {
            Self::Integer(b) => b.append_option(if present { Some(text.parse().ok()?) } else { None }),
            Self::Number(b) => b.append_option(if present { Some(text.parse().ok()?) } else { None }),
            Self::Boolean(b) => b.append_option(if present { Some(boolean(text)?) } else { None }),
            Self::Text(b) => b.append_option(present.then_some(field)),
        }
        Some(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Integer(mut b) => Arc::new(b.finish()),
            Self::Number(mut b) => Arc::new(b.finish()),
            Self::Boolean(mut b) => Arc::new(b.finish()),
            Self::Text(mut b) => Arc::new(b.finish()),
        }
    }
}
