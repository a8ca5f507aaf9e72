//! A sample as a file: the drawn rows with their ids, probabilities and weights.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use subspan::{Error, Result};

use crate::atomic::AtomicFile;
use crate::error::IoError;
use crate::table::Table;

/// The columns put before the input's own.
const OWN_COLUMNS: [&str; 3] = ["row_id", "probability", "weight"];
/// Rows encoded at a time.
const SLICE_ROWS: usize = 65_536;

/// Writes a sample of `table` as parquet: `row_id` (u64, position in the input), `probability` and `weight` (f64), then all
/// columns of the input with their names and types (dictionaries as their plain values). An input column of one of those
/// three names gets an underscore at its end (as many as it takes). The bytes are a function of the arguments.
///
/// `row_ids` increase; `records` are those of the rows, as encoded by the table's blocks, or empty: then the rows are read
/// again. The file appears whole or not at all.
///
/// # Errors
/// What reading or writing meets.
///
/// # Panics
/// If the slices differ in length (`records` may be empty), or `row_ids` do not increase or exceed the table.
pub fn write_sample(
    path: impl AsRef<Path>,
    table: &Table,
    row_ids: &[u64],
    probabilities: &[f64],
    weights: &[f64],
    records: &[Box<[u8]>],
) -> Result<()> {
    let file = AtomicFile::create(path)?;
    write_sample_to(file, table, row_ids, probabilities, weights, records)
}

/// [`write_sample`] into a file that was opened before the work began.
///
/// # Errors
/// As [`write_sample`].
///
/// # Panics
/// As [`write_sample`].
pub fn write_sample_to(
    mut file: AtomicFile,
    table: &Table,
    row_ids: &[u64],
    probabilities: &[f64],
    weights: &[f64],
    records: &[Box<[u8]>],
) -> Result<()> {
    let n = row_ids.len();
    assert!(probabilities.len() == n && weights.len() == n, "one probability and one weight per row");
    assert!(records.is_empty() || records.len() == n, "one record per row, or none");
    assert!(row_ids.is_sorted_by(|a, b| a < b), "row ids increase");
    assert!(row_ids.last().is_none_or(|id| *id < table.n_input_rows()), "row ids lie within the table");
    let target = file.target().display().to_string();
    let fail = |e: ParquetError| -> Error { write_error(&target, e).into() };

    let input = table.schema();
    let mut taken: HashSet<&str> = input.fields().iter().map(|f| f.name().as_str()).collect();
    taken.extend(OWN_COLUMNS);
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut fields = vec![
        Field::new(OWN_COLUMNS[0], DataType::UInt64, false),
        Field::new(OWN_COLUMNS[1], DataType::Float64, false),
        Field::new(OWN_COLUMNS[2], DataType::Float64, false),
    ];
    let nothing = table.original_rows(&[], &[])?;
    for field in nothing.schema().fields() {
        let mut name = field.name().clone();
        if OWN_COLUMNS.contains(&name.as_str()) {
            while taken.contains(name.as_str()) {
                name.push('_');
            }
        }
        fields.push(field.as_ref().clone().with_name(name));
    }
    let schema = Arc::new(Schema::new(fields));
    let mut writer = ArrowWriter::try_new(&mut file, Arc::clone(&schema), Some(properties)).map_err(fail)?;
    for from in (0..n).step_by(SLICE_ROWS) {
        let rows = from..n.min(from + SLICE_ROWS);
        let records = if records.is_empty() { records } else { &records[rows.clone()] };
        let originals = table.original_rows(&row_ids[rows.clone()], records)?;
        let own: [ArrayRef; 3] = [
            Arc::new(UInt64Array::from(row_ids[rows.clone()].to_vec())),
            Arc::new(Float64Array::from(probabilities[rows.clone()].to_vec())),
            Arc::new(Float64Array::from(weights[rows].to_vec())),
        ];
        let columns = own.into_iter().chain(originals.columns().iter().cloned()).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(IoError::from)?;
        writer.write(&batch).map_err(fail)?;
    }
    writer.close().map_err(fail)?;
    file.commit()?;
    Ok(())
}

/// A failed write as the system's error, where there is one.
fn write_error(path: &str, e: ParquetError) -> IoError {
    let source = match e {
        ParquetError::External(e) => match e.downcast::<std::io::Error>() {
            Ok(e) => *e,
            Err(e) => std::io::Error::other(e),
        },
        other => std::io::Error::other(other),
    };
    IoError::Write { path: path.into(), source }
}
