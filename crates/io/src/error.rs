//! The catalogue of what can be wrong with a file, each with its place.

use std::io;

use arrow::error::ArrowError;
use subspan::merge::MergeError;

/// The result of every fallible function of this crate.
pub type Result<T, E = IoError> = std::result::Result<T, E>;

/// What is wrong with an input or an output. `Display` is one line; [`IoError::hint`] is the next step, where there is one.
#[derive(Debug)]
#[non_exhaustive]
pub enum IoError {
    /// A file that cannot be opened: absent, a directory, no permission.
    Open {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Reading failed half-way.
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The output cannot be written: unwritable directory, full disk.
    Write {
        /// The file as the user named it.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A directory or a pattern without a matching file.
    NoMatch {
        /// The directory or pattern.
        path: String,
    },
    /// A name whose extension is none of those supported.
    UnknownFormat {
        /// The file.
        path: String,
        /// The extensions supported here.
        supported: &'static str,
    },
    /// A container without the array, tensor or column asked for.
    NoSuchPart {
        /// The container.
        path: String,
        /// `"array"`, `"tensor"` or `"column"`.
        kind: &'static str,
        /// What was asked for; empty when nothing was.
        part: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The content contradicts its own format: truncated, bit-flipped, wrong magic.
    Corrupt {
        /// The file.
        path: String,
        /// Where: `header`, `byte 10`, `row group 3`, ...
        place: String,
        /// What is wrong there.
        detail: String,
    },
    /// Well-formed, but nothing that can be read as numbers here.
    Unsupported {
        /// The file.
        path: String,
        /// What was found.
        what: String,
        /// What to do instead, if known.
        hint: Option<String>,
    },
    /// A file or table without bytes, rows or columns.
    Empty {
        /// The file.
        path: String,
        /// `"bytes"`, `"rows"` or `"columns"`.
        what: &'static str,
    },
    /// One file of a table whose columns differ from the first's.
    SchemaDiffers {
        /// The file that differs.
        path: String,
        /// The file it was compared with.
        first: String,
        /// The first difference.
        detail: String,
    },
    /// Two columns of one name.
    DuplicateColumn {
        /// The file, or the option that names a column twice.
        path: String,
        /// The name.
        column: String,
    },
    /// A column that the table does not have.
    UnknownColumn {
        /// The table.
        path: String,
        /// What was asked for.
        column: String,
        /// Names that look alike.
        near: Vec<String>,
    },
    /// A choice of columns that makes no sense.
    Selection {
        /// What is wrong with it.
        detail: String,
    },
    /// A column that has no meaning as numbers.
    ColumnType {
        /// The table.
        path: String,
        /// The column.
        column: String,
        /// Its type.
        data_type: String,
        /// Whether it is the target.
        target: bool,
    },
    /// A text column with more levels than one-hot encoding is meant for.
    TooManyLevels {
        /// The table.
        path: String,
        /// The column.
        column: String,
        /// The most levels accepted.
        limit: usize,
    },
    /// A missing or non-finite value.
    Missing {
        /// The table.
        path: String,
        /// The column.
        column: String,
        /// Position of the first such row in the input.
        row: u64,
        /// `"missing"`, `"NaN"`, `"infinite"` or, for single precision, `"too large"`.
        value: &'static str,
    },
    /// A line with another number of fields than the header.
    Ragged {
        /// The file.
        path: String,
        /// The line, counted from 1.
        line: u64,
        /// Fields found.
        found: u64,
        /// Fields of the header.
        expected: u64,
    },
    /// A CSV file whose first line holds numbers.
    NoHeader {
        /// The file.
        path: String,
    },
    /// Text that is not UTF-8.
    NotUtf8 {
        /// The file.
        path: String,
        /// Where.
        place: String,
    },
    /// Columns that could be decoded, but not converted.
    Convert {
        /// What the columnar library said.
        source: ArrowError,
    },
    /// A permutation spec, or permutations, with something wrong in them.
    Merge {
        /// The file.
        path: String,
        /// What is wrong.
        source: Box<MergeError>,
    },
    /// A file that changed between two passes.
    Changed {
        /// The file.
        path: String,
    },
}

impl IoError {
    /// A malformed file.
    pub(crate) fn corrupt(path: &str, place: impl Into<String>, detail: impl ToString) -> Self {
        Self::Corrupt { path: path.into(), place: place.into(), detail: one_line(&detail.to_string()) }
    }

    /// Well-formed but unusable content.
    pub(crate) fn unsupported(path: &str, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), what: what.into(), hint: None }
    }

    /// A name whose extension says nothing, or nothing that is there.
    pub(crate) fn unknown_format(path: &str, file: &str, supported: &'static str) -> Self {
        match std::fs::metadata(file) {
            Ok(meta) if meta.is_dir() => Self::Unsupported {
                path: path.into(),
                what: "a directory, a file is needed".into(),
                hint: Some(format!("supported: {supported}")),
            },
            Err(source)
                if source.kind() == io::ErrorKind::NotFound && std::path::Path::new(file).extension().is_none() =>
            {
                Self::Open { path: path.into(), source }
            }
            _ => Self::UnknownFormat { path: path.into(), supported },
        }
    }

    /// A file that cannot be opened.
    pub(crate) fn open(path: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Open { path: path.into(), source }
    }

    /// A failed read. The end of the file where there should be more is a truncated file.
    pub(crate) fn read(path: &str, place: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::corrupt(path, place, "the file ends too early"),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::corrupt(path, place, source),
            _ => Self::Read { path: path.into(), source },
        }
    }

    /// A failed write.
    pub(crate) fn write(path: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { path: path.into(), source }
    }

    /// The next step for the user, where one is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { value: "too large", .. } => "scale the values: single precision ends at 3.4e38".into(),
            Self::Missing { .. } => {
                "--missing drop leaves such rows out (sample and regress); for other verbs, fill them or leave them out first".into()
            }
            Self::TooManyLevels { column, .. } => format!("--exclude {column} leaves the column out"),
            Self::ColumnType { column, target: false, .. } => format!("--exclude {column} leaves the column out"),
            Self::ColumnType { target: true, .. } => "the target must be a column of numbers".into(),
            Self::UnknownColumn { near, .. } if !near.is_empty() => format!("did you mean {}?", near.join(" or ")),
            Self::NoSuchPart { kind, available, .. } if !available.is_empty() => {
                let shown = available.iter().take(MAX_LISTED).cloned().collect::<Vec<_>>().join(", ");
                let rest = if available.len() > MAX_LISTED { ", ..." } else { "" };
                format!("name one {kind} after a colon: {shown}{rest}")
            }
            Self::UnknownFormat { supported, .. } => format!("supported: {supported}"),
            Self::NoHeader { .. } => "add a first line with the column names".into(),
            Self::Unsupported { hint, .. } => return hint.clone(),
            Self::Merge { source, .. } => return source.hint(),
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space or write elsewhere".into()
            }
            _ => return None,
        })
    }
}

/// Names listed in a hint.
const MAX_LISTED: usize = 12;

impl std::fmt::Display for IoError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open { path, source } => write!(f, "cannot open {path}: {}", plain(source)),
            Self::Read { path, source } => write!(f, "cannot read {path}: {}", plain(source)),
            Self::Write { path, source } => write!(f, "cannot write {path}: {}", plain(source)),
            Self::NoMatch { path } => write!(f, "{path}: no .parquet file there"),
            Self::UnknownFormat { path, .. } => write!(f, "{path}: unknown file format"),
            Self::NoSuchPart { path, kind, part, .. } if part.is_empty() => {
                write!(f, "{path}: which {kind} is meant?")
            }
            Self::NoSuchPart { path, kind, part, .. } => write!(f, "{path}: no {kind} named {part}"),
            Self::Corrupt { path, place, detail } => write!(f, "{path}: corrupt file, {place}: {detail}"),
            Self::Unsupported { path, what, .. } => write!(f, "{path}: {what}"),
            Self::Empty { path, what: "bytes" } => write!(f, "{path}: the file is empty"),
            Self::Empty { path, what } => write!(f, "{path}: the table has no {what}"),
            Self::SchemaDiffers { path, first, detail } => {
                write!(f, "{path}: columns differ from those of {first}: {detail}")
            }
            Self::DuplicateColumn { path, column } => write!(f, "{path}: column {column} appears twice"),
            Self::UnknownColumn { path, column, .. } => write!(f, "{path}: no column named {column}"),
            Self::Selection { detail } => write!(f, "{detail}"),
            Self::ColumnType { path, column, data_type, target } => {
                let role = if *target { "as the target" } else { "as a number" };
                write!(f, "{path}: column {column} of type {data_type} cannot be used {role}")
            }
            Self::TooManyLevels { path, column, limit } => {
                write!(f, "{path}: text column {column} has more than {limit} levels")
            }
            Self::Missing { path, column, row, value } => {
                write!(f, "{path}: {value} value in column {column}, row {row}")
            }
            Self::Ragged { path, line, found, expected } => {
                write!(f, "{path}: line {line} has {found} fields, the header has {expected}")
            }
            Self::NoHeader { path } => write!(f, "{path}: the first line holds numbers, not column names"),
            Self::NotUtf8 { path, place } => write!(f, "{path}: {place} is not UTF-8 text"),
            Self::Merge { path, source } => write!(f, "{path}: {source}"),
            Self::Convert { source } => write!(f, "cannot convert columns: {}", one_line(&source.to_string())),
            Self::Changed { path } => write!(f, "{path}: the file changed while it was read"),
        }
    }
}

/// A system error without its number.
fn plain(e: &io::Error) -> String {
    let text = one_line(&e.to_string());
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// Messages of decoders may span lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl std::error::Error for IoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open { source, .. } | Self::Read { source, .. } | Self::Write { source, .. } => Some(source),
            Self::Convert { source } => Some(source),
            Self::Merge { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl From<ArrowError> for IoError {
    fn from(source: ArrowError) -> Self {
        Self::Convert { source }
    }
}

impl From<IoError> for subspan::Error {
    fn from(e: IoError) -> Self {
        Self::Source(Box::new(e))
    }
}

/// This room's error out of the library's, which it was put into by this room.
pub(crate) fn own(e: subspan::Error) -> IoError {
    let outside =
        |e: Box<dyn std::error::Error + Send + Sync>| IoError::Convert { source: ArrowError::ExternalError(e) };
    match e {
        subspan::Error::Source(e) => e.downcast::<IoError>().map_or_else(outside, |e| *e),
        other => outside(Box::new(other)),
    }
}
