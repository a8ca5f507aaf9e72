//! Arrays inside an `.npz` file: a zip archive of `.npy` files.

use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::Arc;

use zip::{CompressionMethod, ZipArchive};

use crate::array::StoredArray;
use crate::bytes::{ByteSource, open_file};
use crate::error::{IoError, Result};
use crate::guard::decoding;
use crate::npy;

/// Deflate expands by at most this factor (a 258-byte match takes at least 2 bits): what claims more is no honest archive.
const MAX_DEFLATE_RATIO: u64 = 1032;
/// Slack of the check above for tiny members.
const RATIO_SLACK_BYTES: u64 = 4096;

/// Opens the array `key` (with or without `.npy`) of an archive; an archive of one array needs no key.
///
/// A stored array is read in place; a compressed one is decompressed into memory.
pub(crate) fn open(path: &str, key: Option<&str>) -> Result<StoredArray> {
    npy::array(&label(path, key), member(path, key)?)
}

/// How the user named the array.
pub(crate) fn label(path: &str, key: Option<&str>) -> String {
    key.map_or_else(|| path.to_owned(), |key| format!("{path}:{key}"))
}

/// The bytes of one member.
pub(crate) fn member(path: &str, key: Option<&str>) -> Result<ByteSource> {
    let (file, len) = open_file(path)?;
    let file = Arc::new(file);
    decoding(path, "archive", || {
        let bad = |e: zip::result::ZipError| match e {
            zip::result::ZipError::Io(e) => IoError::read(path, "archive")(e),
            e => IoError::corrupt(path, "archive", e),
        };
        let mut archive = ZipArchive::new(BufReader::new(&*file)).map_err(bad)?;
        let name = choose(path, &archive, key)?;
        let mut entry = archive.by_name(&name).map_err(bad)?;
        let (size, packed) = (entry.size(), entry.compressed_size());
        let place = || format!("array {name}");
        match entry.compression() {
            CompressionMethod::Stored => {
                let offset = entry.data_start().ok_or_else(|| IoError::corrupt(path, place(), "no data"))?;
                if size != packed || offset.checked_add(size).is_none_or(|end| end > len) {
                    return Err(IoError::corrupt(path, place(), "truncated"));
                }
                Ok(ByteSource::File { file: Arc::clone(&file), offset, len: size })
            }
            CompressionMethod::Deflated => {
                if packed > len || size > packed.saturating_mul(MAX_DEFLATE_RATIO) + RATIO_SLACK_BYTES {
                    return Err(IoError::corrupt(path, place(), format!("{packed} bytes cannot unpack to {size}")));
                }
                // Grows with what really comes out, and the archive checks the content's CRC at its end.
                let mut bytes = Vec::new();
                entry.by_ref().take(size + 1).read_to_end(&mut bytes).map_err(IoError::read(path, &place()))?;
                if bytes.len() as u64 != size {
                    return Err(IoError::corrupt(path, place(), "unpacks to another size than declared"));
                }
                Ok(ByteSource::Memory(bytes.into()))
            }
            other => Err(IoError::unsupported(path, format!("array {name} is compressed with {other}"))),
        }
    })
}

fn choose(path: &str, archive: &ZipArchive<BufReader<&File>>, key: Option<&str>) -> Result<String> {
    let mut names = Vec::new();
    for name in archive.file_names() {
        names.push(name.map_err(|e| IoError::corrupt(path, "archive", e))?.into_owned());
    }
    names.sort();
    let bare = |name: &String| name.strip_suffix(".npy").unwrap_or(name).to_owned();
    match key {
        Some(key) => names.iter().find(|n| *n == key || bare(n) == key).cloned(),
        None if names.len() == 1 => names.first().cloned(),
        None => None,
    }
    .ok_or_else(|| IoError::NoSuchPart {
        path: path.into(),
        kind: "array",
        part: key.unwrap_or_default().into(),
        available: names.iter().map(bare).collect(),
    })
}
