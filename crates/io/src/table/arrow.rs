//! Arrow IPC tables (`.arrow`, `.feather` version 2), in the file or the stream form; a chunk is a record batch.
//!
//! Both forms are sequences of messages. Opening notes where each is, reading no data, so that batches of a stream, too, can be
//! read in any order.

use std::fs::File;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::{Block, Message, MessageHeader, MetadataVersion, RecordBatch as BatchHeader};
use arrow::ipc::{root_as_footer, root_as_message};

use super::store::{Request, Store};
use crate::bytes::{open_file, read_exact_at};
use crate::error::{IoError, Result};
use crate::guard::decoding;

/// First and last bytes of the file form; the first are padded to eight.
const MAGIC: &[u8; 6] = b"ARROW1";
const MAGIC_PADDED_BYTES: u64 = 8;
/// First bytes of Feather version 1, another format.
const FEATHER_1_MAGIC: &[u8; 4] = b"FEA1";
/// Starts every message since version 0.15 of the format.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Length of the end of the file form: footer length and magic.
const TRAILER_BYTES: u64 = 10;
/// No codec expands by more: Zstandard turns at least 4 bytes into at most a 128 KiB block.
const MAX_EXPANSION: u64 = 1 << 15;
/// Slack of the check above for tiny buffers.
const EXPANSION_SLACK: u64 = 1 << 16;
/// No buffer of a table that fits in memory batch by batch is larger.
const MAX_BUFFER_BYTES: u64 = 1 << 33;

/// An indexed Arrow IPC file.
#[derive(Debug)]
pub(crate) struct ArrowStore {
    path: String,
    len: u64,
    schema: SchemaRef,
    version: MetadataVersion,
    dictionaries: Vec<Place>,
    /// Each batch, and how many of the dictionaries it may refer to.
    batches: Vec<(Place, usize)>,
    starts: Vec<u64>,
}

/// Where a message is: its header, then its body.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    header: u64,
    body: u64,
}

impl ArrowStore {
    /// Finds the schema and the messages.
    pub(crate) fn open(path: &str) -> Result<Self> {
        let (file, len) = open_file(path)?;
        let mut start = [0; MAGIC.len()];
        let known = start.len().min(len as usize);
        read_exact_at(&file, &mut start[..known], 0).map_err(IoError::read(path, "header"))?;
        if start.starts_with(FEATHER_1_MAGIC) {
            return Err(IoError::Unsupported {
                path: path.into(),
                what: "a Feather version 1 file".into(),
                hint: Some("write it again as Feather version 2 or parquet".into()),
            });
        }
        let input = Input { path, file: &file, len };
        decoding(path, "header", || if start == *MAGIC { input.index_file() } else { input.index_stream() })
    }
}

/// The file while it is being indexed.
struct Input<'a> {
    path: &'a str,
    file: &'a File,
    len: u64,
}

impl Input<'_> {
    fn corrupt(&self, place: &str, detail: impl ToString) -> IoError {
        IoError::corrupt(self.path, place, detail)
    }

    /// `len` bytes at `offset`, unless they lie outside the file.
    fn bytes(&self, offset: u64, len: u64, place: &str) -> Result<Vec<u8>> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(self.corrupt(place, format!("{len} bytes at byte {offset} lie outside the file")));
        }
        let mut bytes = vec![0; len as usize];
        read_exact_at(self.file, &mut bytes, offset).map_err(IoError::read(self.path, place))?;
        Ok(bytes)
    }

    /// The file form ends with a footer that lists all messages.
    fn index_file(&self) -> Result<ArrowStore> {
        let place = "footer";
        let trailer = self.bytes(self.len.saturating_sub(TRAILER_BYTES), TRAILER_BYTES, place)?;
        let trailer = trailer.try_into().unwrap_or([0; TRAILER_BYTES as usize]);
        let footer_len = read_footer_length(trailer).map_err(|e| self.corrupt(place, e))? as u64;
        let footer_start = (self.len - TRAILER_BYTES).checked_sub(footer_len);
        let footer_start = footer_start.ok_or_else(|| self.corrupt(place, "longer than the file"))?;
        let footer = self.bytes(footer_start, footer_len, place)?;
        let footer = root_as_footer(&footer).map_err(|e| self.corrupt(place, e))?;
        let schema = footer.schema().ok_or_else(|| self.corrupt(place, "no schema"))?;
        let schema = try_fb_to_schema(schema).map_err(|e| self.corrupt(place, e))?;
        let mut found = Found::new(footer.version());
        for block in footer.dictionaries().iter().flatten() {
            found.dictionaries.push(self.place(block)?);
        }
        for block in footer.recordBatches().iter().flatten() {
            let place = self.place(block)?;
            let header = self.bytes(place.offset, place.header, "record batch")?;
            let rows = self.batch_rows(&self.message(&header)?)?;
            self.add_batch(&mut found, place, rows)?;
        }
        Ok(self.store(schema, found))
    }

    fn place(&self, block: &Block) -> Result<Place> {
        let number = |n: i64| u64::try_from(n).ok();
        let sizes = (number(block.offset()), number(block.metaDataLength().into()), number(block.bodyLength()));
        let (Some(offset), Some(header), Some(body)) = sizes else {
            return Err(self.corrupt("footer", "a negative size"));
        };
        let end = header.checked_add(body).and_then(|size| size.checked_add(offset));
        if offset < MAGIC_PADDED_BYTES || end.is_none_or(|end| end > self.len) {
            return Err(self.corrupt("footer", "a block outside the file"));
        }
        Ok(Place { offset, header, body })
    }

    /// The stream form is read message by message, skipping bodies.
    fn index_stream(&self) -> Result<ArrowStore> {
        let (mut schema, mut found) = (None, Found::new(MetadataVersion::V5));
        let mut offset = 0;
        while offset < self.len {
            let text = format!("message at byte {offset}");
            let start = self.bytes(offset, 8.min(self.len - offset), &text)?;
            // Before version 0.15 there was no continuation mark, only the length.
            let (prefix, size) = match start.as_slice() {
                [0xff, 0xff, 0xff, 0xff, a, b, c, d] => (8, u32::from_le_bytes([*a, *b, *c, *d])),
                [a, b, c, d, ..] => (4, u32::from_le_bytes([*a, *b, *c, *d])),
                _ => return Err(self.corrupt(&text, "the file ends too early")),
            };
            if size == 0 {
                break;
            }
            let header_len = prefix + u64::from(size);
            let header = self.bytes(offset, header_len, &text)?;
            let message = self.message(&header)?;
            let body = u64::try_from(message.bodyLength()).map_err(|_| self.corrupt(&text, "a negative size"))?;
            let end = offset.checked_add(header_len).and_then(|at| at.checked_add(body));
            let end = end.filter(|end| *end <= self.len).ok_or_else(|| self.corrupt(&text, "truncated"))?;
            let place = Place { offset, header: header_len, body };
            match message.header_type() {
                MessageHeader::Schema => {
                    let header = message.header_as_schema().ok_or_else(|| self.corrupt(&text, "no schema"))?;
                    schema = Some(try_fb_to_schema(header).map_err(|e| self.corrupt(&text, e))?);
                    found.version = message.version();
                }
                _ if schema.is_none() => return Err(self.corrupt(&text, "this is no Arrow file")),
                MessageHeader::DictionaryBatch => found.dictionaries.push(place),
                MessageHeader::RecordBatch => {
                    let rows = self.batch_rows(&message)?;
                    self.add_batch(&mut found, place, rows)?;
                }
                other => return Err(self.corrupt(&text, format!("unexpected message {other:?}"))),
            }
            offset = end;
        }
        match schema {
            Some(schema) => Ok(self.store(schema, found)),
            None => Err(self.corrupt("byte 0", "this is no Arrow file")),
        }
    }

    fn message<'b>(&self, header: &'b [u8]) -> Result<Message<'b>> {
        message(header).ok_or_else(|| self.corrupt("message", "not a valid header"))
    }

    fn batch_rows(&self, message: &Message<'_>) -> Result<u64> {
        let rows = message.header_as_record_batch().and_then(|batch| u64::try_from(batch.length()).ok());
        rows.ok_or_else(|| self.corrupt("record batch", "impossible number of rows"))
    }

    fn add_batch(&self, found: &mut Found, place: Place, rows: u64) -> Result<()> {
        let end = found.starts.last().copied().unwrap_or(0).checked_add(rows);
        found.starts.push(end.ok_or_else(|| self.corrupt("record batch", "impossible number of rows"))?);
        found.batches.push((place, found.dictionaries.len()));
        Ok(())
    }

    fn store(&self, schema: Schema, found: Found) -> ArrowStore {
        let Found { version, dictionaries, batches, starts } = found;
        let schema = Arc::new(Schema::new(schema.fields));
        ArrowStore { path: self.path.into(), len: self.len, schema, version, dictionaries, batches, starts }
    }
}

struct Found {
    version: MetadataVersion,
    dictionaries: Vec<Place>,
    batches: Vec<(Place, usize)>,
    starts: Vec<u64>,
}

impl Found {
    fn new(version: MetadataVersion) -> Self {
        Self { version, dictionaries: Vec::new(), batches: Vec::new(), starts: vec![0] }
    }
}

/// The message in `header`, verified.
fn message(header: &[u8]) -> Option<Message<'_>> {
    let skip = if header.starts_with(&CONTINUATION) { 8 } else { 4 };
    root_as_message(header.get(skip..)?).ok()
}

/// Checks the sizes that compressed buffers claim to unpack to, before anything of that size is allocated.
fn check_expansion(bytes: &[u8], place: Place) -> Option<()> {
    let header = message(&bytes[..place.header as usize])?;
    let batch: BatchHeader<'_> = match header.header_type() {
        MessageHeader::DictionaryBatch => header.header_as_dictionary_batch()?.data()?,
        _ => header.header_as_record_batch()?,
    };
    if batch.compression().is_none() {
        return Some(());
    }
    let body = &bytes[place.header as usize..];
    for buffer in batch.buffers().iter().flatten() {
        let (at, len) = (usize::try_from(buffer.offset()).ok()?, usize::try_from(buffer.length()).ok()?);
        let packed = body.get(at..at.checked_add(len)?)?;
        let Some(claim) = packed.first_chunk::<8>().map(|b| i64::from_le_bytes(*b)) else { continue };
        let limit = (packed.len() as u64).saturating_mul(MAX_EXPANSION).saturating_add(EXPANSION_SLACK);
        if u64::try_from(claim).is_ok_and(|claim| claim > limit.min(MAX_BUFFER_BYTES)) {
            return None;
        }
    }
    Some(())
}

impl Store for ArrowStore {
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
        let path = &self.path;
        let (file, len) = open_file(path)?;
        if len != self.len {
            return Err(IoError::Changed { path: path.clone() }.into());
        }
        let text = format!("record batch {chunk}");
        let corrupt = |detail: &str| IoError::corrupt(path, &*text, detail);
        let (place, n_dictionaries) = self.batches[chunk];
        let batch = decoding(path, &text, || {
            let bad = |e: ArrowError| IoError::corrupt(path, &*text, e);
            let load = |place: Place| {
                let bytes = Input { path, file: &file, len }.bytes(place.offset, place.header + place.body, &text)?;
                check_expansion(&bytes, place).ok_or_else(|| corrupt("impossible buffer sizes"))?;
                let block = Block::new(place.offset as i64, place.header as i32, place.body as i64);
                Ok::<_, IoError>((block, Buffer::from_vec(bytes)))
            };
            let mut decoder =
                FileDecoder::new(Arc::clone(&self.schema), self.version).with_projection(request.columns.to_vec());
            for place in &self.dictionaries[..n_dictionaries] {
                let (block, bytes) = load(*place)?;
                decoder.read_dictionary(&block, &bytes).map_err(bad)?;
            }
            let (block, bytes) = load(place)?;
            decoder.read_record_batch(&block, &bytes).map_err(bad)?.ok_or_else(|| corrupt("no data"))
        })?;
        if batch.num_rows() as u64 != self.starts[chunk + 1] - self.starts[chunk] {
            return Err(corrupt("another number of rows than declared").into());
        }
        for from in (0..batch.num_rows()).step_by(request.batch_rows) {
            visit(&batch.slice(from, request.batch_rows.min(batch.num_rows() - from)))?;
        }
        Ok(())
    }
}
