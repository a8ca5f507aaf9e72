//! The idx format of the MNIST files, plain or gzipped: two zero bytes, type, number of dimensions, big-endian sizes, values.

use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use crate::array::{DType, StoredArray};
use crate::bytes::{ByteSource, open_file};
use crate::error::{IoError, Result};

/// Deflate expands by at most this factor; see [`crate::npz`].
const MAX_DEFLATE_RATIO: u64 = 1032;
/// Slack of the check above for tiny files.
const RATIO_SLACK_BYTES: u64 = 4096;

/// Whether a file's name is one of an idx file: `...-ubyte`, `.idx`, `.idx3`, `.idx1-ubyte`, each also with `.gz`.
pub(crate) fn is_name(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let bare = lower.strip_suffix(".gz").unwrap_or(&lower);
    bare.ends_with("-ubyte") || bare.rsplit(['.', '/']).next().is_some_and(|end| end.starts_with("idx"))
}

/// Opens an idx file; a gzipped one is decompressed into memory.
pub(crate) fn open(path: &str) -> Result<StoredArray> {
    let (file, len) = open_file(path)?;
    if path.to_ascii_lowercase().ends_with(".gz") {
        return unpack(path, file, len);
    }
    let source = ByteSource::File { file: Arc::new(file), offset: 0, len };
    let mut start = [0; 4];
    source.read_exact_at(&mut start, 0).map_err(IoError::read(path, "header"))?;
    let mut sizes = vec![0; 4 * usize::from(start[3])];
    source.read_exact_at(&mut sizes, 4).map_err(IoError::read(path, "header"))?;
    array(path, start, &sizes, source)
}

fn unpack(path: &str, file: File, len: u64) -> Result<StoredArray> {
    let mut reader = MultiGzDecoder::new(BufReader::new(file));
    let mut start = [0; 4];
    reader.read_exact(&mut start).map_err(IoError::read(path, "header"))?;
    let mut sizes = vec![0; 4 * usize::from(start[3])];
    reader.read_exact(&mut sizes).map_err(IoError::read(path, "header"))?;
    let (dtype, shape) = header(path, start, &sizes)?;
    let bytes = shape.iter().try_fold(dtype.size() as u64, |n, d| n.checked_mul(*d));
    let limit = len.saturating_mul(MAX_DEFLATE_RATIO).saturating_add(RATIO_SLACK_BYTES);
    let Some(bytes) = bytes.filter(|bytes| *bytes <= limit) else {
        return Err(IoError::corrupt(path, "header", format!("{len} bytes cannot unpack to shape {shape:?}")));
    };
    let mut content = [&start, sizes.as_slice()].concat();
    // Grows with what really comes out; one byte more than declared tells a file that goes on.
    reader.take(bytes + 1).read_to_end(&mut content).map_err(IoError::read(path, "data"))?;
    array(path, start, &sizes, ByteSource::Memory(content.into()))
}

fn array(path: &str, start: [u8; 4], sizes: &[u8], source: ByteSource) -> Result<StoredArray> {
    let (dtype, shape) = header(path, start, sizes)?;
    let offset = (start.len() + sizes.len()) as u64;
    StoredArray { path: path.into(), source, offset, dtype, big_endian: true, fortran: false, shape }.check()
}

fn header(path: &str, start: [u8; 4], sizes: &[u8]) -> Result<(DType, Vec<u64>)> {
    let dtype = match start {
        [0, 0, 0x08, _] => DType::U8,
        [0, 0, 0x09, _] => DType::I8,
        [0, 0, 0x0b, _] => DType::I16,
        [0, 0, 0x0c, _] => DType::I32,
        [0, 0, 0x0d, _] => DType::F32,
        [0, 0, 0x0e, _] => DType::F64,
        _ => return Err(IoError::corrupt(path, "byte 0", "this is no idx file")),
    };
    Ok((dtype, sizes.as_chunks::<4>().0.iter().map(|b| u64::from(u32::from_be_bytes(*b))).collect()))
}
