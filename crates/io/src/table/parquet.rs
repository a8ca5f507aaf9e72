//! Parquet tables: a file, a directory of files or a pattern; a chunk is a row group or a
//! piece of a large one, read in bounded batches.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

use super::store::{Request, Store};
use crate::bytes::{FileCursor, open_file};
use crate::error::{IoError, Result};
use crate::guard::decoding;

/// One or more parquet files with the same columns.
#[derive(Debug)]
pub(crate) struct ParquetStore {
    files: Vec<ParquetFile>,
    schema: SchemaRef,
    chunks: Vec<Chunk>,
    starts: Vec<u64>,
}

/// Row groups of more than one and a half times as many rows are read in pieces of about this many: writers that put a million
/// rows into a group would leave all cores but one idle. Pages before a piece are skipped without being decompressed.
const PIECE_ROWS: u64 = 1 << 17;

/// Most pieces of a row group, whatever number of rows a damaged footer claims.
const MAX_PIECES: u64 = 256;

/// Rows of a row group.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    file: usize,
    group: usize,
    /// First row, counted in the group.
    offset: u64,
    /// Whether no rows of the group come after it.
    last: bool,
}

#[derive(Debug)]
struct ParquetFile {
    path: String,
    len: u64,
    metadata: ArrowReaderMetadata,
    /// The same with text columns read as dictionaries.
    with_levels: ArrowReaderMetadata,
}

impl ParquetStore {
    /// Reads the footers of `paths`.
    pub(crate) fn open(paths: &[String]) -> Result<Self> {
        let files = paths.iter().map(|path| ParquetFile::open(path)).collect::<Result<Vec<_>>>()?;
        let Some(first) = files.first() else {
            return Err(IoError::NoMatch { path: String::new() });
        };
        let schema = Arc::new(Schema::new(first.metadata.schema().fields().clone()));
        let mut chunks = Vec::new();
        let mut starts = vec![0];
        let mut n_rows = 0_u64;
        for (f, file) in files.iter().enumerate() {
            if let Some(detail) = difference(&schema, file.metadata.schema()) {
                return Err(IoError::SchemaDiffers { path: file.path.clone(), first: first.path.clone(), detail });
            }
            for (g, group) in file.metadata.metadata().row_groups().iter().enumerate() {
                for column in group.columns() {
                    if let codec @ (Compression::BROTLI(_) | Compression::LZO) = column.compression() {
                        return Err(IoError::Unsupported {
                            path: file.path.clone(),
                            what: format!("a file compressed with {codec}"),
                            hint: Some("write it with zstd, snappy, gzip or lz4 compression".into()),
                        });
                    }
                }
                let impossible = || IoError::corrupt(&file.path, "footer", "impossible number of rows");
                let rows = u64::try_from(group.num_rows()).map_err(|_| impossible())?;
                let first = n_rows;
                n_rows = n_rows.checked_add(rows).ok_or_else(impossible)?;
                let pieces = rows.saturating_sub(PIECE_ROWS / 2).div_ceil(PIECE_ROWS).clamp(1, MAX_PIECES);
                for piece in 0..pieces {
                    chunks.push(Chunk { file: f, group: g, offset: rows / pieces * piece, last: piece + 1 == pieces });
                    starts.push(if piece + 1 == pieces { n_rows } else { first + rows / pieces * (piece + 1) });
                }
            }
        }
        Ok(Self { files, schema, chunks, starts })
    }
}

/// The first difference between two schemas; nullability does not count.
fn difference(a: &Schema, b: &Schema) -> Option<String> {
    for (x, y) in a.fields().iter().zip(b.fields()) {
        if x.name() != y.name() {
            return Some(format!("column {} where {} was expected", y.name(), x.name()));
        }
        if x.data_type() != y.data_type() {
            return Some(format!("column {} is {}, not {}", x.name(), y.data_type(), x.data_type()));
        }
    }
    let (n, m) = (a.fields().len(), b.fields().len());
    (n != m).then(|| format!("{m} columns, not {n}"))
}

impl ParquetFile {
    fn open(path: &str) -> Result<Self> {
        let (file, len) = open_file(path)?;
        let bytes = SharedFile { file: Arc::new(file), len };
        decoding(path, "footer", || {
            let bad = |e: ParquetError| IoError::corrupt(path, "footer", detail(e));
            let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new()).map_err(bad)?;
            let schema = metadata.schema();
            let fields: Vec<Field> = schema.fields().iter().map(|field| coded(field)).collect();
            let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
            let with_levels = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options).map_err(bad)?;
            Ok(Self { path: path.into(), len, metadata, with_levels })
        })
    }
}

/// A text column as a dictionary.
fn coded(field: &Field) -> Field {
    let text = |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match field.data_type() {
        t if text(t) => (),
        DataType::Dictionary(_, values) if text(values) => (),
        _ => return field.clone(),
    }
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Field::new(field.name(), dictionary, field.is_nullable()).with_metadata(field.metadata().clone())
}

/// The decoder's message without its own prefix.
fn detail(e: ParquetError) -> String {
    match e {
        ParquetError::General(text) | ParquetError::EOF(text) | ParquetError::ArrowError(text) => text,
        other => other.to_string(),
    }
}

impl Store for ParquetStore {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn starts(&self) -> &[u64] {
        &self.starts
    }

    fn read(
        &self,
        chunk: usize,
        request: &Request<'_>,
        visit: &mut dyn FnMut(&RecordBatch) -> subspan::Result<()>,
    ) -> subspan::Result<()> {
        let Chunk { file, group, offset, last } = self.chunks[chunk];
        let ParquetFile { path, len, metadata, with_levels } = &self.files[file];
        let (file, len_now) = open_file(path)?;
        if len_now != *len {
            return Err(IoError::Changed { path: path.clone() }.into());
        }
        let place = format!("row group {group}");
        let mut missing = self.starts[chunk + 1] - self.starts[chunk];
        let metadata = if request.levels { with_levels } else { metadata };
        let mut reader = decoding(path, &place, || {
            let mask = ProjectionMask::roots(metadata.parquet_schema(), request.columns.iter().copied());
            let bytes = SharedFile { file: Arc::new(file), len: *len };
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata.clone())
                .with_row_groups(vec![group])
                .with_projection(mask)
                .with_batch_size(request.batch_rows);
            let reader = if offset == 0 { reader } else { reader.with_offset(offset as usize) };
            // The last piece is read to the end of the group: its rows must be as many as the footer says.
            let reader = if last { reader } else { reader.with_limit(missing as usize) };
            reader.build().map_err(|e| IoError::corrupt(path, &place, detail(e)))
        })?;
        while let Some(batch) =
            decoding(path, &place, || reader.next().transpose().map_err(|e| IoError::corrupt(path, &place, e)))?
        {
            missing = missing
                .checked_sub(batch.num_rows() as u64)
                .ok_or_else(|| IoError::corrupt(path, &place, "more rows than the footer says"))?;
            visit(&batch)?;
        }
        match missing {
            0 => Ok(()),
            _ => Err(IoError::corrupt(path, &place, format!("{missing} rows are missing")).into()),
        }
    }
}

/// A file read by position: scans in several threads share no cursor.
#[derive(Debug, Clone)]
struct SharedFile {
    file: Arc<File>,
    len: u64,
}

impl Length for SharedFile {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for SharedFile {
    type T = BufReader<FileCursor>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(BufReader::new(FileCursor { file: Arc::clone(&self.file), position: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        // A damaged footer may claim any length: believe none that the file does not have.
        if start.checked_add(length as u64).is_none_or(|end| end > self.len) {
            return Err(ParquetError::EOF(format!("{length} bytes at byte {start} lie outside the file")));
        }
        // Pages come by the thousand: their memory is not cleared first.
        let mut bytes = Vec::with_capacity(length);
        let file = FileCursor { file: Arc::clone(&self.file), position: start };
        file.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("the file ends after {} of {length} bytes", bytes.len())));
        }
        Ok(bytes.into())
    }
}

/// The parquet files that `path` names: itself, those of a directory, or those matching a pattern; in sorted order.
pub(crate) fn paths(path: &str) -> Result<Vec<String>> {
    let is_parquet = |p: &Path| p.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet")) && p.is_file();
    let mut found: Vec<String> = if Path::new(path).is_dir() {
        let entries = std::fs::read_dir(path).map_err(IoError::open(path))?;
        let entries = entries.collect::<Result<Vec<_>, _>>().map_err(IoError::open(path))?;
        entries.iter().map(|e| e.path()).filter(|p| is_parquet(p)).map(text).collect::<Result<_>>()?
    } else if is_pattern(path) {
        let matches = glob::glob(path).map_err(|e| IoError::Selection { detail: format!("{path}: {}", e.msg) })?;
        matches.flatten().filter(|p| is_parquet(p)).map(text).collect::<Result<_>>()?
    } else {
        return Ok(vec![path.into()]);
    };
    found.sort();
    if found.is_empty() { Err(IoError::NoMatch { path: path.into() }) } else { Ok(found) }
}

/// Whether `path` is a pattern rather than the name of something that exists.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[']) && !Path::new(path).exists()
}

fn text(path: std::path::PathBuf) -> Result<String> {
    path.into_os_string()
        .into_string()
        .map_err(|path| IoError::NotUtf8 { path: path.to_string_lossy().into_owned(), place: "the file's name".into() })
}
