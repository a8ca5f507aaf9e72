//! Labels: one class per sample, from integers or text.

use std::collections::{HashMap, HashSet};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use subspan::record::InputRecord;

use crate::array::{DType, StoredArray};
use crate::bytes::{ByteSource, fingerprint, open_file};
use crate::error::{IoError, Result, own};
use crate::npy::Elements;
use crate::table::one_column;
use crate::{idx, npy, npz, path_and_part};

/// Label formats, for the hint of an unknown one.
const SUPPORTED: &str = ".npy, .npz:KEY, idx or idx.gz, .csv:COLUMN, .csv.gz:COLUMN, .parquet:COLUMN";
/// Numbers (or characters) decoded at a time.
const BLOCK_VALUES: usize = 1 << 16;
/// Integers up to this size survive the way through `f64`.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// One class per sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// Names of the classes: integers in numeric order, text in byte order.
    pub classes: Vec<String>,
    /// Index into `classes` for each sample.
    pub codes: Vec<u32>,
    /// What was read, for the run record.
    pub input: InputRecord,
}

impl Labels {
    /// Reads labels from `path`.
    ///
    /// # Errors
    /// [`IoError`]: no such file, part or column, malformed, a missing label, or numbers that are no integers.
    pub fn open(path: &str) -> Result<Self> {
        let (file, part) = path_and_part(path, &[".npz:", ".csv:", ".csv.gz:", ".parquet:", ".arrow:", ".feather:"]);
        let lower = file.to_ascii_lowercase();
        let (values, dtype) = if lower.ends_with(".npy") {
            let (handle, len) = open_file(file)?;
            let source = ByteSource::File { file: std::sync::Arc::new(handle), offset: 0, len };
            from_npy(path, source)?
        } else if lower.ends_with(".npz") {
            from_npy(&npz::label(file, part), npz::member(file, part)?)?
        } else if idx::is_name(file) {
            integers(&idx::open(file)?)?
        } else if [".csv", ".csv.gz", ".parquet", ".arrow", ".feather"].iter().any(|end| lower.ends_with(end)) {
            from_column(file, part)?
        } else {
            return Err(IoError::unknown_format(path, file, SUPPORTED));
        };
        let input = InputRecord {
            path: path.into(),
            shape: vec![values.len() as u64],
            dtype,
            fingerprint: fingerprint(&[file.to_owned()])?,
        };
        let (classes, codes) = match values {
            _ if values.is_empty() => return Err(IoError::Empty { path: path.into(), what: "rows" }),
            Values::Integers(values) => encode(values),
            Values::Text(values) => encode(values),
        };
        Ok(Self { classes, codes, input })
    }
}

/// Labels as stored.
enum Values {
    Integers(Vec<i64>),
    Text(Vec<String>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Text(values) => values.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Sorted classes and the code of each value.
fn encode<T: Ord + std::hash::Hash + Clone + ToString>(values: Vec<T>) -> (Vec<String>, Vec<u32>) {
    let mut classes: Vec<&T> = values.iter().collect::<HashSet<_>>().into_iter().collect();
    classes.sort();
    let code: HashMap<&T, u32> = classes.iter().copied().zip(0..).collect();
    let codes = values.iter().map(|value| code[value]).collect();
    (classes.into_iter().map(ToString::to_string).collect(), codes)
}

fn from_npy(path: &str, source: ByteSource) -> Result<(Values, String)> {
    let header = npy::read_header(path, &source)?;
    let (width, unit, big_endian) = match header.elements {
        Elements::Number { .. } => return integers(&npy::array(path, source)?),
        Elements::Unicode { width, big_endian } => (width, 4, big_endian),
        Elements::Bytes { width } => (width, 1, false),
    };
    // The same checks as for an array of numbers, one code unit being a column.
    let mut shape = header.shape;
    one_per_sample(path, &shape)?;
    if width == 0 {
        return Err(IoError::unsupported(path, "labels without text"));
    }
    shape.push(width as u64);
    let dtype = if unit == 4 { DType::U32 } else { DType::U8 };
    let offset = header.data;
    let array = StoredArray { path: path.into(), source, offset, dtype, big_endian, fortran: false, shape }.check()?;
    let mut labels = Vec::new();
    let mut units = Vec::new();
    for_blocks(&array, |values| {
        for text in values.chunks_exact(width) {
            units.clear();
            units.extend(text.iter().map(|unit| *unit as u32));
            let end = units.iter().rposition(|unit| *unit != 0).map_or(0, |last| last + 1);
            let not_text = || IoError::NotUtf8 { path: path.into(), place: format!("label {}", labels.len()) };
            labels.push(
                match unit {
                    4 => units[..end].iter().map(|u| char::from_u32(*u)).collect::<Option<String>>(),
                    _ => String::from_utf8(units[..end].iter().map(|u| *u as u8).collect()).ok(),
                }
                .ok_or_else(not_text)?,
            );
        }
        Ok(())
    })?;
    Ok((Values::Text(labels), "text".into()))
}

fn one_per_sample(path: &str, shape: &[u64]) -> Result<()> {
    if shape.is_empty() || shape[1..].iter().any(|d| *d != 1) {
        return Err(IoError::unsupported(
            path,
            format!("an array of shape {shape:?}, labels have one value per sample"),
        ));
    }
    Ok(())
}

fn for_blocks(array: &StoredArray, mut visit: impl FnMut(&[f64]) -> Result<()>) -> Result<()> {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    let step = (BLOCK_VALUES / array.n_cols().max(1)).max(1) as u64;
    let mut first = 0;
    while first < array.n_rows() {
        let n = step.min(array.n_rows() - first);
        array.read_f64(first, n as usize, &mut bytes, &mut values)?;
        visit(&values)?;
        first += n;
    }
    Ok(())
}

fn integers(array: &StoredArray) -> Result<(Values, String)> {
    one_per_sample(&array.path, &array.shape)?;
    let mut labels = Vec::new();
    for_blocks(array, |values| {
        for value in values {
            labels.push(integer(&array.path, labels.len(), *value)?);
        }
        Ok(())
    })?;
    Ok((Values::Integers(labels), array.dtype.name().into()))
}

/// A label that may be stored as a floating-point number.
fn integer(path: &str, row: usize, value: f64) -> Result<i64> {
    if value.fract() == 0.0 && value.abs() <= EXACT_INTEGERS {
        return Ok(value as i64);
    }
    Err(IoError::unsupported(path, format!("label {value} in row {row} is neither an integer nor text")))
}

fn from_column(file: &str, column: Option<&str>) -> Result<(Values, String)> {
    let (array, name) = one_column(file, column).map_err(own)?;
    if let Some(row) = (0..array.len()).find(|i| array.logical_nulls().is_some_and(|valid| valid.is_null(*i))) {
        return Err(IoError::Missing { path: file.into(), column: name, row: row as u64, value: "missing" });
    }
    let dtype = array.data_type().to_string();
    let values = match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(&array, &DataType::LargeUtf8)?;
            Values::Text(text.as_string::<i64>().iter().flatten().map(Into::into).collect())
        }
        DataType::Boolean => Values::Text(array.as_boolean().iter().flatten().map(|b| b.to_string()).collect()),
        t if t.is_integer() => Values::Integers(whole(file, &array)?),
        t if t.is_floating() => {
            let numbers = cast(&array, &DataType::Float64)?;
            let numbers = numbers.as_primitive::<arrow::datatypes::Float64Type>().values();
            Values::Integers(numbers.iter().enumerate().map(|(i, v)| integer(file, i, *v)).collect::<Result<_>>()?)
        }
        _ => return Err(IoError::unsupported(file, format!("column {name} of type {dtype} holds no labels"))),
    };
    Ok((values, dtype))
}

fn whole(file: &str, array: &ArrayRef) -> Result<Vec<i64>> {
    let numbers = cast(array, &DataType::Int64)?;
    if numbers.null_count() > 0 {
        return Err(IoError::unsupported(file, "a label that exceeds 64-bit signed integers"));
    }
    Ok(numbers.as_primitive::<Int64Type>().values().to_vec())
}
