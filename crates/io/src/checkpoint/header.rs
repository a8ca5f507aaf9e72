//! The header of a safetensors file: 8 bytes of length, JSON, data. Nothing in it is believed unchecked.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use subspan::merge::DType;

use crate::error::{IoError, Result};

/// The format's own limit on its header.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Bytes of the header's length.
const LENGTH_BYTES: usize = 8;
/// The header's entry that is no tensor.
pub(super) const METADATA: &str = "__metadata__";

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// How elements are stored.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where its bytes are in the file.
    pub range: Range<usize>,
}

/// All a file says about its tensors, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) metadata: BTreeMap<String, String>,
}

impl Header {
    /// Reads the header of `file`, all of the file's bytes.
    pub(super) fn parse(path: &str, file: &[u8]) -> Result<Self> {
        let corrupt = |detail: String| IoError::corrupt(path, "header", detail);
        let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
            return Err(corrupt(format!("{} bytes are no safetensors file", file.len())));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER_BYTES || length > rest.len() as u64 {
            let found = rest.len();
            return Err(corrupt(format!(
                "a header of {length} bytes does not fit into the {found} bytes that follow: this is no .safetensors file or a part of one"
            )));
        }
        let (text, data) = rest.split_at(length as usize);
        if text.first() != Some(&b'{') {
            return Err(corrupt("it does not begin with a brace: no safetensors file".into()));
        }
        let entries: Entries = serde_json::from_slice(text).map_err(|e| corrupt(e.to_string()))?;
        let mut metadata = BTreeMap::new();
        let mut tensors = Vec::new();
        let mut names = HashSet::new();
        let start = LENGTH_BYTES + text.len();
        for (name, value) in entries.0 {
            if !names.insert(name.clone()) {
                return Err(IoError::corrupt(path, format!("tensor {name}"), "two tensors of this name"));
            }
            if name == METADATA {
                metadata = serde_json::from_value(value)
                    .map_err(|_| IoError::corrupt(path, METADATA, "not a map of text to text"))?;
            } else {
                let tensor = tensor(&name, &value, data.len(), start);
                tensors.push(tensor.map_err(|detail| IoError::corrupt(path, format!("tensor {name}"), detail))?);
            }
        }
        tensors.sort_by(|a, b| (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name)));
        let mut end = start;
        for t in &tensors {
            if t.range.start != end {
                let what = if t.range.start < end { "overlaps the tensor before" } else { "leaves a hole before it" };
                return Err(IoError::corrupt(path, format!("tensor {}", t.name), what));
            }
            end = t.range.end;
        }
        if end != file.len() {
            return Err(IoError::corrupt(path, "data", format!("{} bytes belong to no tensor", file.len() - end)));
        }
        Ok(Self { tensors, metadata })
    }
}

/// Checks one entry; the error is what is wrong with it.
fn tensor(name: &str, value: &serde_json::Value, data_len: usize, start: usize) -> Result<TensorInfo, String> {
    let numbers = |key: &str| -> Result<Vec<usize>, String> {
        let list = value.get(key).and_then(|v| v.as_array()).ok_or_else(|| format!("has no {key}"))?;
        let number = |v: &serde_json::Value| v.as_u64().and_then(|v| usize::try_from(v).ok());
        list.iter().map(|v| number(v).ok_or_else(|| format!("has {v} in its {key}"))).collect()
    };
    let word = value.get("dtype").and_then(|d| d.as_str()).ok_or("has no dtype")?;
    let dtype = dtype(word).ok_or_else(|| format!("has the unknown dtype {word}"))?;
    let (shape, offsets) = (numbers("shape")?, numbers("data_offsets")?);
    let [from, to] = offsets[..] else { return Err("needs two data_offsets".into()) };
    if to < from {
        return Err(format!("ends at byte {to}, before its begin at {from}"));
    }
    if to > data_len {
        return Err(format!("ends at byte {to} of {data_len}: the file is truncated"));
    }
    let size = shape.iter().try_fold(dtype.size(), |n, d| n.checked_mul(*d));
    if size != Some(to - from) {
        return Err(format!("of shape {shape:?} and dtype {word} has {} bytes", to - from));
    }
    Ok(TensorInfo { name: name.into(), dtype, shape, range: start + from..start + to })
}

fn dtype(word: &str) -> Option<DType> {
    let opaque = |name, size| DType::Opaque { name, size };
    Some(match word {
        "F64" => DType::F64,
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "BOOL" => opaque("BOOL", 1),
        "U8" => opaque("U8", 1),
        "I8" => opaque("I8", 1),
        "F8_E5M2" => opaque("F8_E5M2", 1),
        "F8_E4M3" => opaque("F8_E4M3", 1),
        "F8_E8M0" => opaque("F8_E8M0", 1),
        "U16" => opaque("U16", 2),
        "I16" => opaque("I16", 2),
        "U32" => opaque("U32", 4),
        "I32" => opaque("I32", 4),
        "U64" => opaque("U64", 8),
        "I64" => opaque("I64", 8),
        "C64" => opaque("C64", 8),
        _ => return None,
    })
}

/// A JSON object with all of its entries, repeated names included.
struct Entries(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
