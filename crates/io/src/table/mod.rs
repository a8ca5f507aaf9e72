//! Tables: any supported file as a stream of numeric row blocks.

mod arrow;
mod block;
mod categories;
mod csv;
mod npy;
mod parquet;
mod records;
mod schema;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::arrow::array::{ArrayRef, RecordBatch};
use ::arrow::compute::cast;
use ::arrow::datatypes::{Field, Schema, SchemaRef};
use subspan::Result;
use subspan::record::InputRecord;
use subspan::rows::{RowBlock, RowSource, block_rows};

use self::block::Block;
use self::records::BatchRecords;
use self::schema::Plan;
use self::store::{Request, Store};
use crate::bytes::fingerprint;
use crate::error::IoError;
use crate::{npz, path_and_part};

/// The only column of `file`, or the one named `column`, whole, and its name: for labels.
pub(crate) fn one_column(file: &str, column: Option<&str>) -> Result<(ArrayRef, String)> {
    let (backend, _) = Backend::open(file)?;
    let Backend::Columns(store) = &backend else {
        return Err(IoError::UnknownFormat { path: file.into(), supported: SUPPORTED }.into());
    };
    let schema = store.schema();
    let index = match column {
        Some(name) => schema::find(file, schema, name)?,
        None if schema.fields().len() == 1 => 0,
        None => {
            let available = schema.fields().iter().map(|f| f.name().clone()).collect();
            return Err(
                IoError::NoSuchPart { path: file.into(), kind: "column", part: String::new(), available }.into()
            );
        }
    };
    let ids: Vec<u64> = (0..backend.n_rows()).collect();
    let columns = records::fetch(&**store, &[index], &ids)?;
    Ok((Arc::clone(&columns[0]), schema.field(index).name().clone()))
}

/// What to do with rows that lack a value, or hold NaN or an infinity, in a column that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// Stop, naming the column and the first such row.
    #[default]
    Error,
    /// Leave such rows out; the others keep their positions in the input as ids.
    Drop,
}

/// Which columns of a table to use, and how.
#[derive(Debug, Clone, Default)]
pub struct TableOptions {
    /// Columns of the design, in this order; all but the target when `None`.
    pub columns: Option<Vec<String>>,
    /// Columns to leave out of the design.
    pub exclude: Vec<String>,
    /// A column of numbers that becomes the last column of every block.
    pub target: Option<String>,
    /// Leave out the first level of each text column: its indicators and an intercept would be linearly dependent.
    pub drop_first_level: bool,
    /// What to do with missing and non-finite values.
    pub missing: Missing,
}

/// A table in one or more files, as a [`RowSource`].
///
/// Numbers and booleans are used as they are, dates as days since 1970-01-01, timestamps as seconds since then, times as
/// seconds since midnight, durations as seconds. Text becomes one 0/1 column `name=level` per level, levels sorted (levels
/// that occur only in dropped rows included). In CSV files the types are inferred from all rows; empty fields, `NA`, `N/A`,
/// `NaN`, `nan`, `null` and `NULL` are missing; dates are text. A nameless CSV column is called `Unnamed: i`. Row ids
/// are positions in the input (files in sorted path order). Each scan opens its file anew and holds one batch of rows, so
/// memory is bounded by the batch; scans may run in parallel. Damaged files are an error of the scan that meets the damage.
#[derive(Debug)]
pub struct Table {
    path: String,
    files: Vec<String>,
    backend: Backend,
    plan: Plan,
    /// Rows left out of each chunk by its last scan.
    dropped: Vec<AtomicU64>,
}

#[derive(Debug)]
enum Backend {
    Columns(Box<dyn Store>),
    Array(npy::ArrayStore),
}

/// The columns that `subspan sample` puts before the input's own.
pub(crate) const SAMPLE_COLUMNS: [&str; 3] = ["row_id", "probability", SAMPLE_WEIGHT];
/// The one of them that says how many rows of the table a row stands for.
pub(crate) const SAMPLE_WEIGHT: &str = "weight";

/// Table formats, for the hint of an unknown one.
const SUPPORTED: &str = ".parquet (a file, a directory or a pattern), .csv, .csv.gz, .arrow, .feather, .npy, .npz:KEY";

impl Table {
    /// Opens `path` and reads what is needed to know its columns: footers and headers; a CSV file, and text columns of any
    /// file, are read through once.
    ///
    /// # Errors
    /// [`IoError`], as [`subspan::Error::Source`].
    pub fn open(path: &str, options: &TableOptions) -> Result<Self> {
        let (backend, files) = Backend::open(path)?;
        let plan = Plan::new(path, backend.schema(), options, |text| match &backend {
            Backend::Columns(store) => categories::discover(&**store, text),
            // Arrays have no text columns.
            Backend::Array(_) => Ok(Vec::new()),
        })?;
        if backend.n_rows() == 0 {
            return Err(IoError::Empty { path: path.into(), what: "rows" }.into());
        }
        let dropped = (0..backend.n_chunks()).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { path: path.into(), files, backend, plan, dropped })
    }

    /// Names of the design's columns, in order, without the target.
    pub fn column_names(&self) -> &[String] {
        &self.plan.names
    }

    /// Name of the target, the last column of every block, if there is one.
    pub fn target_name(&self) -> Option<&str> {
        self.plan.target.as_deref()
    }

    /// The first text column that is used, if any.
    pub(crate) fn text_column(&self) -> Option<&str> {
        let text = |used: &&schema::Used| matches!(used.kind, schema::Kind::Levels { .. });
        self.plan.used.iter().find(text).map(|used| used.name.as_str())
    }

    /// Number of columns of the input.
    pub fn n_input_columns(&self) -> usize {
        self.schema().fields().len()
    }

    /// Number of rows of the input, dropped ones included.
    pub fn n_input_rows(&self) -> u64 {
        self.backend.n_rows()
    }

    /// Rows left out for a missing value, among the chunks scanned so far: after a full pass, in the whole table.
    pub fn dropped_rows(&self) -> u64 {
        self.dropped.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    /// Whether the design holds what `sample` writes beside a table's own columns.
    pub(crate) fn is_sample(&self) -> bool {
        SAMPLE_COLUMNS.iter().all(|name| self.column_names().iter().any(|c| c == name))
    }

    /// Refuses a table whose rows count by weights, for work that counts rows alike.
    ///
    /// # Errors
    /// [`IoError::Unsupported`].
    pub fn refuse_sample(&self) -> Result<(), IoError> {
        if !self.is_sample() {
            return Ok(());
        }
        Err(IoError::Unsupported {
            path: self.path.clone(),
            what: "these are the rows of a sample, which count by their weights; here they would count alike".into(),
            hint: Some(format!("take the table that was sampled, or --exclude {}", SAMPLE_COLUMNS.join(","))),
        })
    }

    /// What the user should know of how columns were read.
    pub fn warnings(&self) -> &[String] {
        &self.plan.warnings
    }

    /// What was read, for the run record. Reads up to 64 MiB of each file for the fingerprint.
    ///
    /// # Errors
    /// [`IoError`] if the file has gone.
    pub fn input_record(&self) -> Result<InputRecord> {
        Ok(InputRecord {
            path: self.path.clone(),
            shape: vec![self.backend.n_rows(), self.n_input_columns() as u64],
            dtype: match &self.backend {
                Backend::Columns(_) => "mixed".into(),
                Backend::Array(array) => array.array().dtype.name().into(),
            },
            fingerprint: fingerprint(&self.files)?,
        })
    }

    /// The input's columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        self.backend.schema()
    }

    /// The original rows `ids` (increasing), from their records where those are given: one batch of all input columns, with
    /// their names and types (dictionaries unpacked).
    pub(crate) fn original_rows(&self, ids: &[u64], records: &[Box<[u8]>]) -> Result<RecordBatch> {
        let schema = self.schema();
        let columns = match &self.backend {
            Backend::Array(store) if records.is_empty() => {
                let records = records::fetch_raw(store.array(), ids)?;
                records::decode_raw(store.array(), &records)?
            }
            Backend::Array(store) => records::decode_raw(store.array(), records)?,
            Backend::Columns(store) => self.original_columns(&**store, ids, records)?,
        };
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .map(|f| Field::new(f.name(), records::plain_type(f.data_type()), f.is_nullable()))
            .collect();
        let typed = columns.iter().zip(&fields).map(|(column, field)| cast(column, field.data_type()));
        let typed = typed.collect::<Result<Vec<_>, _>>().map_err(IoError::from)?;
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), typed).map_err(IoError::from)?)
    }

    fn original_columns(&self, store: &dyn Store, ids: &[u64], records: &[Box<[u8]>]) -> Result<Vec<ArrayRef>> {
        let recorded: &[usize] = if records.is_empty() { &[] } else { &self.plan.sources };
        let rest: Vec<usize> = (0..self.n_input_columns()).filter(|c| !recorded.contains(c)).collect();
        let mut decoded =
            if recorded.is_empty() { Vec::new() } else { records::decode(store.schema(), recorded, records)? };
        if !rest.is_empty() {
            decoded.extend(records::fetch(store, &rest, ids)?);
        }
        let mut placed: Vec<(usize, ArrayRef)> = recorded.iter().copied().chain(rest).zip(decoded).collect();
        placed.sort_by_key(|(c, _)| *c);
        Ok(placed.into_iter().map(|(_, column)| column).collect())
    }
}

impl Backend {
    /// Opens `path`, and names the files behind it.
    fn open(path: &str) -> crate::error::Result<(Self, Vec<String>)> {
        let (file, part) = path_and_part(path, &[".npz:"]);
        let lower = file.to_ascii_lowercase();
        let mut files = vec![file.to_owned()];
        let backend = if Path::new(file).is_dir() || lower.ends_with(".parquet") {
            files = parquet::paths(file)?;
            Backend::Columns(Box::new(parquet::ParquetStore::open(&files)?))
        } else if lower.ends_with(".csv") || lower.ends_with(".csv.gz") {
            Backend::Columns(Box::new(csv::CsvStore::open(file)?))
        } else if lower.ends_with(".arrow") || lower.ends_with(".feather") {
            Backend::Columns(Box::new(arrow::ArrowStore::open(file)?))
        } else if lower.ends_with(".npy") {
            Backend::Array(npy::ArrayStore::new(crate::npy::open(file)?)?)
        } else if lower.ends_with(".npz") {
            Backend::Array(npy::ArrayStore::new(npz::open(file, part)?)?)
        } else {
            return Err(IoError::unknown_format(path, file, SUPPORTED));
        };
        Ok((backend, files))
    }

    fn schema(&self) -> &SchemaRef {
        match self {
            Self::Columns(store) => store.schema(),
            Self::Array(store) => store.schema(),
        }
    }

    fn starts(&self) -> &[u64] {
        match self {
            Self::Columns(store) => store.starts(),
            Self::Array(store) => store.starts(),
        }
    }

    fn n_chunks(&self) -> usize {
        self.starts().len() - 1
    }

    fn n_rows(&self) -> u64 {
        self.starts().last().copied().unwrap_or(0)
    }
}

impl RowSource for Table {
    fn n_cols(&self) -> usize {
        self.plan.n_cols
    }

    /// `None` when rows may be dropped.
    fn n_rows(&self) -> Option<u64> {
        (self.plan.missing == Missing::Error).then(|| self.backend.n_rows())
    }

    fn redundant(&self) -> Vec<usize> {
        self.plan.redundant()
    }

    fn n_chunks(&self) -> usize {
        self.backend.n_chunks()
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let mut block = Block::default();
        let mut dropped = 0;
        let store = match &self.backend {
            Backend::Columns(store) => store,
            Backend::Array(store) => {
                dropped = store.scan(&self.path, &self.plan, chunk, &mut block, visit)?;
                self.dropped[chunk].store(dropped, Ordering::Relaxed);
                return Ok(());
            }
        };
        let mut first_row = store.starts()[chunk];
        let request = Request { columns: &self.plan.sources, batch_rows: block_rows(self.plan.n_cols), levels: true };
        store.read(chunk, &request, &mut |batch| {
            dropped += block.fill(&self.path, &self.plan, batch, first_row)?;
            if !block.values.is_empty() {
                visit(&RowBlock {
                    n_cols: self.plan.n_cols,
                    values: &block.values,
                    ids: block.ids(first_row),
                    records: Some(&BatchRecords { batch, kept: block.kept() }),
                })?;
            }
            first_row += batch.num_rows() as u64;
            Ok(())
        })?;
        self.dropped[chunk].store(dropped, Ordering::Relaxed);
        Ok(())
    }
}
