//! Original records of sampled rows, as bytes, and back.
//!
//! A pass decodes only the columns that the design uses, so a record holds those; the other columns of the few sampled rows are
//! read once more when the sample is written.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, PrimitiveArray, RecordBatch, UInt64Array};
use arrow::compute::{cast, concat_batches, take, take_record_batch};
use arrow::datatypes::*;
use arrow::row::{RowConverter, SortField};
use half::f16;
use rayon::prelude::*;
use subspan::Error;
use subspan::rows::Records;
use subspan::rows::block_rows;

use super::store::{Request, Store};
use crate::array::{DType, StoredArray};
use crate::error::{IoError, Result};

/// Records of a batch of columns.
pub(crate) struct BatchRecords<'a> {
    pub(crate) batch: &'a RecordBatch,
    /// Places in the batch of the block's rows, if they differ.
    pub(crate) kept: Option<&'a [usize]>,
}

impl Records for BatchRecords<'_> {
    fn encode(&self, rows: &[usize]) -> Result<Vec<Box<[u8]>>, Error> {
        let place = |row: &usize| self.kept.map_or(*row, |kept| kept[*row]) as u64;
        let places = UInt64Array::from_iter_values(rows.iter().map(place));
        let columns = self.batch.columns();
        let chosen =
            columns.iter().map(|c| take(c, &places, None)).collect::<Result<Vec<_>, _>>().map_err(IoError::from)?;
        let encoded =
            converter(columns.iter().map(|c| c.data_type()))?.convert_columns(&chosen).map_err(IoError::from)?;
        Ok(encoded.iter().map(|row| row.data().into()).collect())
    }
}

fn converter<'a>(types: impl Iterator<Item = &'a DataType>) -> Result<RowConverter> {
    Ok(RowConverter::new(types.map(|t| SortField::new(t.clone())).collect())?)
}

/// The columns `sources` of the given records, with the input's types.
pub(crate) fn decode(schema: &Schema, sources: &[usize], records: &[Box<[u8]>]) -> Result<Vec<ArrayRef>> {
    // A dictionary and its plain values have the same encoding.
    let types: Vec<DataType> = sources.iter().map(|c| plain_type(schema.field(*c).data_type())).collect();
    let converter = converter(types.iter())?;
    let parser = converter.parser();
    Ok(converter.convert_rows(records.iter().map(|bytes| parser.parse(bytes)))?)
}

/// The type of a column once it is written back: dictionaries are unpacked.
pub(crate) fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain_type(values),
        other => other.clone(),
    }
}

/// The columns `columns` (increasing) of the rows `ids` (increasing), in one pass over the chunks that hold them.
pub(crate) fn fetch(store: &dyn Store, columns: &[usize], ids: &[u64]) -> Result<Vec<ArrayRef>, Error> {
    let fields: Vec<FieldRef> = columns
        .iter()
        .map(|c| {
            let field = store.schema().field(*c);
            Arc::new(Field::new(field.name(), plain_type(field.data_type()), true))
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let starts = store.starts();
    let request = Request { columns, batch_rows: block_rows(columns.len()), levels: false };
    let read = |chunk: usize| -> Result<Vec<RecordBatch>, Error> {
        let mut parts = Vec::new();
        let mut wanted = within(ids, starts[chunk], starts[chunk + 1]);
        if wanted.is_empty() {
            return Ok(parts);
        }
        let mut first = starts[chunk];
        store.read(chunk, &request, &mut |batch| {
            let here = within(wanted, first, first + batch.num_rows() as u64);
            if !here.is_empty() {
                let places = UInt64Array::from_iter_values(here.iter().map(|id| id - first));
                let rows = take_record_batch(batch, &places).map_err(IoError::from)?;
                let plain = rows.columns().iter().zip(schema.fields()).map(|(c, f)| cast(c, f.data_type()));
                let plain = plain.collect::<Result<Vec<_>, _>>().map_err(IoError::from)?;
                parts.push(RecordBatch::try_new(Arc::clone(&schema), plain).map_err(IoError::from)?);
                wanted = &wanted[here.len()..];
            }
            first += batch.num_rows() as u64;
            Ok(())
        })?;
        Ok(parts)
    };
    let parts: Vec<_> = (0..starts.len() - 1).into_par_iter().map(read).collect();
    let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    Ok(concat_batches(&schema, &parts).map_err(IoError::from)?.columns().to_vec())
}

/// The part of the increasing `ids` in `[from, to)`.
pub(crate) fn within(ids: &[u64], from: u64, to: u64) -> &[u64] {
    &ids[ids.partition_point(|id| *id < from)..ids.partition_point(|id| *id < to)]
}

/// Records of a block of a plain array: the rows' own bytes.
pub(crate) struct RawRecords<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) row_bytes: usize,
    pub(crate) kept: Option<&'a [usize]>,
}

impl Records for RawRecords<'_> {
    fn encode(&self, rows: &[usize]) -> Result<Vec<Box<[u8]>>, Error> {
        let place = |row: &usize| self.kept.map_or(*row, |kept| kept[*row]);
        Ok(rows.iter().map(|row| self.bytes[place(row) * self.row_bytes..][..self.row_bytes].into()).collect())
    }
}

/// The raw records of the rows `ids` of an array.
pub(crate) fn fetch_raw(array: &StoredArray, ids: &[u64]) -> Result<Vec<Box<[u8]>>> {
    let mut buffer = Vec::new();
    ids.iter()
        .map(|id| {
            array.read_raw(*id, 1, &mut buffer)?;
            Ok(buffer.as_slice().into())
        })
        .collect()
}

/// Raw records as columns of the array's own type.
pub(crate) fn decode_raw(array: &StoredArray, records: &[Box<[u8]>]) -> Result<Vec<ArrayRef>> {
    let size = array.dtype.size();
    let column = |j: usize| -> ArrayRef {
        macro_rules! numbers {
            ($arrow:ty, $native:ty) => {{
                let each = records.iter().map(|record| {
                    let mut bytes = [0; size_of::<$native>()];
                    bytes.copy_from_slice(&record[j * size..][..size]);
                    if array.big_endian { <$native>::from_be_bytes(bytes) } else { <$native>::from_le_bytes(bytes) }
                });
                Arc::new(PrimitiveArray::<$arrow>::from_iter_values(each))
            }};
        }
        match array.dtype {
            DType::Bool => Arc::new(BooleanArray::from_iter(records.iter().map(|record| Some(record[j] != 0)))),
            DType::U8 => numbers!(UInt8Type, u8),
            DType::U16 => numbers!(UInt16Type, u16),
            DType::U32 => numbers!(UInt32Type, u32),
            DType::U64 => numbers!(UInt64Type, u64),
            DType::I8 => numbers!(Int8Type, i8),
            DType::I16 => numbers!(Int16Type, i16),
            DType::I32 => numbers!(Int32Type, i32),
            DType::I64 => numbers!(Int64Type, i64),
            DType::F16 => numbers!(Float16Type, f16),
            DType::F32 => numbers!(Float32Type, f32),
            DType::F64 => numbers!(Float64Type, f64),
            // No file format of tables stores it.
            DType::BF16 => cast_bf16(records, j),
        }
    };
    if records.iter().any(|record| record.len() != array.n_cols() * size) {
        return Err(IoError::Changed { path: array.path.clone() });
    }
    Ok((0..array.n_cols()).map(column).collect())
}

/// `bf16` values as the `f32` they are the upper half of.
fn cast_bf16(records: &[Box<[u8]>], j: usize) -> ArrayRef {
    let each = records.iter().map(|record| f32::from_le_bytes([0, 0, record[2 * j], record[2 * j + 1]]));
    Arc::new(PrimitiveArray::<Float32Type>::from_iter_values(each))
}

/// The arrow type of an array's columns.
pub(crate) fn arrow_type(dtype: DType) -> DataType {
    match dtype {
        DType::Bool => DataType::Boolean,
        DType::U8 => DataType::UInt8,
        DType::U16 => DataType::UInt16,
        DType::U32 => DataType::UInt32,
        DType::U64 => DataType::UInt64,
        DType::I8 => DataType::Int8,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::F16 => DataType::Float16,
        DType::F32 | DType::BF16 => DataType::Float32,
        DType::F64 => DataType::Float64,
    }
}
