//! NumPy's `.npy` format, versions 1 to 3 (NEP 1): a magic number, a Python dictionary as text, the raw elements.

use std::sync::Arc;

use crate::array::{DType, StoredArray};
use crate::bytes::{ByteSource, open_file};
use crate::error::{IoError, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// NumPy writes headers of one or two hundred bytes; a longer one than this holds a structured type with thousands of fields.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// What the header says of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elements {
    Number {
        dtype: DType,
        big_endian: bool,
    },
    /// Fixed-width text, `width` UCS-4 characters.
    Unicode {
        width: usize,
        big_endian: bool,
    },
    /// Fixed-width bytes.
    Bytes {
        width: usize,
    },
}

/// A parsed header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) elements: Elements,
    pub(crate) fortran: bool,
    pub(crate) shape: Vec<u64>,
    /// Where the elements begin.
    pub(crate) data: u64,
}

/// Opens a `.npy` file of numbers.
pub(crate) fn open(path: &str) -> Result<StoredArray> {
    let (file, len) = open_file(path)?;
    array(path, ByteSource::File { file: Arc::new(file), offset: 0, len })
}

/// The numeric array in `source`, a whole `.npy` file.
pub(crate) fn array(path: &str, source: ByteSource) -> Result<StoredArray> {
    let header = read_header(path, &source)?;
    let Elements::Number { dtype, big_endian } = header.elements else {
        return Err(IoError::unsupported(path, "an array of text, not of numbers"));
    };
    let Header { fortran, shape, data: offset, .. } = header;
    StoredArray { path: path.into(), source, offset, dtype, big_endian, fortran, shape }.check()
}

/// Reads and parses the header of `source`.
pub(crate) fn read_header(path: &str, source: &ByteSource) -> Result<Header> {
    let mut start = [0; 12];
    let known = source.len().min(start.len() as u64) as usize;
    source.read_exact_at(&mut start[..known], 0).map_err(IoError::read(path, "header"))?;
    if !start[..known].starts_with(MAGIC) {
        return Err(IoError::corrupt(path, "byte 0", "this is no .npy file"));
    }
    let (text_start, len) = match start[6] {
        1 => (10, u64::from(u16::from_le_bytes([start[8], start[9]]))),
        2 | 3 => (12, u64::from(u32::from_le_bytes([start[8], start[9], start[10], start[11]]))),
        version => return Err(IoError::corrupt(path, "byte 6", format!("unknown .npy version {version}"))),
    };
    if len > MAX_HEADER_BYTES || text_start + len > source.len() {
        return Err(IoError::corrupt(path, "header", format!("a header of {len} bytes does not fit")));
    }
    let mut text = vec![0; len as usize];
    source.read_exact_at(&mut text, text_start).map_err(IoError::read(path, "header"))?;
    parse_dictionary(path, &text, text_start, text_start + len)
}

/// A cursor over the header's text.
struct Parser<'a> {
    path: &'a str,
    text: &'a [u8],
    at: usize,
    /// Position of the text in the file.
    start: u64,
}

fn parse_dictionary(path: &str, text: &[u8], start: u64, data: u64) -> Result<Header> {
    let mut p = Parser { path, text, at: 0, start };
    let (mut elements, mut fortran, mut shape) = (None, None, None);
    p.expect(b'{')?;
    while p.peek() != Some(b'}') {
        let key = p.string()?;
        p.expect(b':')?;
        match key {
            "descr" => elements = Some(p.descr()?),
            "fortran_order" => fortran = Some(p.boolean()?),
            "shape" => shape = Some(p.tuple()?),
            _ => return Err(p.error(format!("unknown key {key}"))),
        }
        if p.peek() == Some(b',') {
            p.at += 1;
        } else {
            break;
        }
    }
    p.expect(b'}')?;
    if p.peek().is_some() {
        return Err(p.error("text after the dictionary"));
    }
    match (elements, fortran, shape) {
        (Some(elements), Some(fortran), Some(shape)) => Ok(Header { elements, fortran, shape, data }),
        _ => Err(p.error("descr, fortran_order or shape is missing")),
    }
}

impl<'a> Parser<'a> {
    fn error(&self, detail: impl ToString) -> IoError {
        IoError::corrupt(self.path, format!("byte {}", self.start + self.at as u64), detail)
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.peek() != Some(byte) {
            return Err(self.error(format!("expected {}", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<&'a str> {
        let quote = match self.peek() {
            Some(q @ (b'\'' | b'"')) => q,
            _ => return Err(self.error("expected a quoted name")),
        };
        let rest = &self.text[self.at + 1..];
        let len = rest.iter().position(|b| *b == quote).ok_or_else(|| self.error("unfinished name"))?;
        let text = std::str::from_utf8(&rest[..len]).map_err(|_| self.error("name is not UTF-8"))?;
        self.at += len + 2;
        Ok(text)
    }

    /// A run of letters and digits.
    fn word(&mut self) -> &'a [u8] {
        self.peek();
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn boolean(&mut self) -> Result<bool> {
        match self.word() {
            b"True" => Ok(true),
            b"False" => Ok(false),
            _ => Err(self.error("expected True or False")),
        }
    }

    fn tuple(&mut self) -> Result<Vec<u64>> {
        self.expect(b'(')?;
        let mut dims = Vec::new();
        while self.peek() != Some(b')') {
            let word = self.word();
            // Python 2 wrote long integers as `3L`.
            let digits = word.strip_suffix(b"L").unwrap_or(word);
            let dim = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
            dims.push(dim.ok_or_else(|| self.error("expected a dimension"))?);
            if self.peek() == Some(b',') {
                self.at += 1;
            } else {
                break;
            }
        }
        self.expect(b')')?;
        Ok(dims)
    }

    fn descr(&mut self) -> Result<Elements> {
        if self.peek() == Some(b'[') {
            return Err(IoError::Unsupported {
                path: self.path.into(),
                what: "a structured array".into(),
                hint: Some("save one plain array per field, or the table as parquet".into()),
            });
        }
        let descr = self.string()?;
        elements(descr).ok_or_else(|| {
            let object = descr.ends_with('O');
            IoError::Unsupported {
                path: self.path.into(),
                what: if object {
                    "an array of Python objects (a pickle), which is never loaded".into()
                } else {
                    format!("elements of type {descr}")
                },
                hint: Some("save it as an array of numbers, e.g. with .astype(numpy.float32)".into()),
            }
        })
    }
}

/// The element type that NumPy calls `descr`.
fn elements(descr: &str) -> Option<Elements> {
    let (order, kind) = match descr.as_bytes().first()? {
        b'<' | b'|' | b'=' => (false, &descr[1..]),
        b'>' => (true, &descr[1..]),
        _ => (false, descr),
    };
    let dtype = match kind {
        "b1" | "?" => DType::Bool,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        _ => {
            let width = kind.get(1..)?.parse().ok()?;
            return match kind.as_bytes()[0] {
                b'U' => Some(Elements::Unicode { width, big_endian: order }),
                b'S' => Some(Elements::Bytes { width }),
                _ => None,
            };
        }
    };
    Some(Elements::Number { dtype, big_endian: order })
}
