//! Single tensors of a `.safetensors` file, read in place.

use std::sync::Arc;

use safetensors::tensor::{Dtype, Metadata};

use crate::array::{DType, StoredArray};
use crate::bytes::{ByteSource, open_file};
use crate::error::{IoError, Result};
use crate::guard::decoding;

/// The format's own limit on its header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Opens the tensor `name`; a file of one tensor needs no name.
pub(crate) fn open(path: &str, name: Option<&str>) -> Result<StoredArray> {
    let (file, len) = open_file(path)?;
    let whole = ByteSource::File { file: Arc::new(file), offset: 0, len };
    let mut size = [0; 8];
    whole.read_exact_at(&mut size, 0).map_err(IoError::read(path, "header"))?;
    let header_len = u64::from_le_bytes(size);
    if header_len > MAX_HEADER_BYTES || header_len > len - size.len() as u64 {
        return Err(IoError::corrupt(path, "header", format!("a header of {header_len} bytes does not fit")));
    }
    let data = size.len() as u64 + header_len;
    let mut header = vec![0; data as usize];
    whole.read_exact_at(&mut header, 0).map_err(IoError::read(path, "header"))?;
    decoding(path, "header", || {
        // The library's own entry points want the whole file in memory; its metadata type checks all but the file's length.
        let metadata: Metadata =
            serde_json::from_slice(&header[size.len()..]).map_err(|e| IoError::corrupt(path, "header", e))?;
        if metadata.data_len() as u64 != len - data {
            let detail = format!("{} bytes declared, {} present", metadata.data_len(), len - data);
            return Err(IoError::corrupt(path, "data", detail));
        }
        let names = metadata.offset_keys();
        let chosen = match name {
            None if names.len() == 1 => names.first().map(String::as_str),
            other => other,
        };
        let info = chosen.and_then(|name| metadata.info(name)).ok_or_else(|| IoError::NoSuchPart {
            path: path.into(),
            kind: "tensor",
            part: name.unwrap_or_default().into(),
            available: names.clone(),
        })?;
        let (start, end) = info.data_offsets;
        let ByteSource::File { file, .. } = &whole else {
            return Err(IoError::corrupt(path, "data", "not a file"));
        };
        StoredArray {
            path: name.map_or_else(|| path.to_owned(), |name| format!("{path}:{name}")),
            source: ByteSource::File {
                file: Arc::clone(file),
                offset: data + start as u64,
                len: end.saturating_sub(start) as u64,
            },
            offset: 0,
            dtype: dtype(info.dtype)
                .ok_or_else(|| IoError::unsupported(path, format!("a tensor of type {:?}", info.dtype)))?,
            big_endian: false,
            fortran: false,
            shape: info.shape.iter().map(|d| *d as u64).collect(),
        }
        .check()
    })
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::U16 => DType::U16,
        Dtype::I16 => DType::I16,
        Dtype::U32 => DType::U32,
        Dtype::I32 => DType::I32,
        Dtype::U64 => DType::U64,
        Dtype::I64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        _ => return None,
    })
}
