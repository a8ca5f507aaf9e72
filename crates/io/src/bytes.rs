//! Bytes that can be read at any position, from several threads, without a shared cursor.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use crate::error::{IoError, Result};

/// A range of a file, or bytes in memory.
#[derive(Debug, Clone)]
pub(crate) enum ByteSource {
    /// `len` bytes of a file from `offset`.
    File { file: Arc<File>, offset: u64, len: u64 },
    /// Decompressed or small content.
    Memory(Arc<[u8]>),
}

impl ByteSource {
    /// Number of bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `out` with the bytes from `start`.
    pub(crate) fn read_exact_at(&self, out: &mut [u8], start: u64) -> io::Result<()> {
        if start.checked_add(out.len() as u64).is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self {
            Self::File { file, offset, .. } => read_exact_at(file, out, offset + start),
            Self::Memory(bytes) => {
                // Within `len`, so within `usize`.
                let start = start as usize;
                out.copy_from_slice(&bytes[start..start + out.len()]);
                Ok(())
            }
        }
    }
}

/// Opens a regular file with content.
pub(crate) fn open_file(path: &str) -> Result<(File, u64)> {
    let file = File::open(path).map_err(IoError::open(path))?;
    let meta = file.metadata().map_err(IoError::open(path))?;
    if meta.is_dir() {
        return Err(IoError::open(path)(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory")));
    }
    if meta.len() == 0 {
        return Err(IoError::Empty { path: path.into(), what: "bytes" });
    }
    Ok((file, meta.len()))
}

/// Positional read that leaves no cursor behind.
pub(crate) fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, out, offset);
    #[cfg(windows)]
    {
        use std::os::windows::fs::FileExt;
        let mut done = 0;
        while done < out.len() {
            match file.seek_read(&mut out[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }
}

/// A reader of its own over a shared file.
#[derive(Debug, Clone)]
pub(crate) struct FileCursor {
    pub(crate) file: Arc<File>,
    pub(crate) position: u64,
}

impl Read for FileCursor {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let n = std::os::unix::fs::FileExt::read_at(&*self.file, out, self.position)?;
        #[cfg(windows)]
        let n = std::os::windows::fs::FileExt::seek_read(&*self.file, out, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

/// Files up to this size are hashed whole.
const WHOLE_HASH_BYTES: u64 = 64 << 20;
/// Bytes hashed at each end of a larger file: enough for any header and footer in practice.
const END_HASH_BYTES: u64 = 1 << 20;

/// A 64-bit hash of a file: of its size and content, or, above 64 MiB, of its size and its first and last MiB (where
/// headers, footers and schemas live). It tells files apart; it is no defence against forgery.
pub(crate) fn fingerprint(paths: &[String]) -> Result<String> {
    let mut hash = Hasher::default();
    let mut buffer = vec![0; END_HASH_BYTES as usize];
    for path in paths {
        let (file, len) = open_file(path)?;
        hash.word(len);
        let (head, tail) =
            if len <= WHOLE_HASH_BYTES { (0..len, len..len) } else { (0..END_HASH_BYTES, len - END_HASH_BYTES..len) };
        for range in [head, tail] {
            let mut at = range.start;
            while at < range.end {
                let part = &mut buffer[..END_HASH_BYTES.min(range.end - at) as usize];
                read_exact_at(&file, part, at).map_err(IoError::read(path, "content"))?;
                hash.bytes(part);
                at += part.len() as u64;
            }
        }
    }
    Ok(format!("{:016x}", hash.finish()))
}

/// Multiply and rotate over little-endian 64-bit words, then the 64-bit finalizer of MurmurHash3.
struct Hasher(u64);

impl Default for Hasher {
    fn default() -> Self {
        // The offset basis of FNV-1a, so that a leading zero word changes the state.
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher {
    fn word(&mut self, word: u64) {
        // The odd constant is 2^64 divided by the golden ratio.
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in words.by_ref() {
            self.word(word.iter().rev().fold(0, |w, b| (w << 8) | u64::from(*b)));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            self.word(rest.iter().rev().fold(rest.len() as u64, |w, b| (w << 8) | u64::from(*b)));
        }
    }

    fn finish(&self) -> u64 {
        let mut h = self.0;
        h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ (h >> 33)
    }
}
