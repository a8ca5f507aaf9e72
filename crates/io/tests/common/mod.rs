//! Small generated files, and tables read back whole.
#![allow(dead_code, unreachable_pub)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use subspan::observe::Silent;
use subspan::rows::fold;
use subspan_io::{IoError, Missing, Table, TableOptions};

/// A small deterministic generator (SplitMix64), for test data only.
pub struct Mixer(pub u64);

impl Mixer {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A table with one column of each common kind: f64, f32, i64, bool, text, dictionary, timestamp, and a target.
pub fn mixed_batch(n: usize, seed: u64) -> RecordBatch {
    let mut mixer = Mixer(seed);
    let cities = ["Oslo", "Bergen", "Tromsø", "Å"];
    let x: Vec<f64> = (0..n).map(|_| mixer.unit() - 0.5).collect();
    let small: Vec<f32> = (0..n).map(|_| mixer.unit() as f32).collect();
    let count: Vec<i64> = (0..n).map(|_| mixer.below(100) as i64 - 50).collect();
    let flag: Vec<bool> = (0..n).map(|_| mixer.below(2) == 0).collect();
    let city: Vec<&str> = (0..n).map(|_| cities[mixer.below(4) as usize]).collect();
    let carrier: DictionaryArray<arrow::datatypes::Int8Type> =
        (0..n).map(|_| ["AA", "DL", "UA"][mixer.below(3) as usize]).collect();
    let time: Vec<i64> = (0..n).map(|i| 1_700_000_000_000 + i as i64 * 500).collect();
    let y: Vec<f64> = (0..n).map(|i| i as f64).collect();
    RecordBatch::try_from_iter([
        ("x", Arc::new(Float64Array::from(x)) as ArrayRef),
        ("small", Arc::new(Float32Array::from(small))),
        ("count", Arc::new(Int64Array::from(count))),
        ("flag", Arc::new(BooleanArray::from(flag))),
        ("city", Arc::new(StringArray::from(city))),
        ("carrier", Arc::new(carrier)),
        ("time", Arc::new(TimestampMillisecondArray::from(time).with_timezone("UTC"))),
        ("y", Arc::new(Float64Array::from(y))),
    ])
    .unwrap()
}

pub fn write_parquet(path: &Path, batch: &RecordBatch, group_rows: usize) {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

pub fn read_parquet(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(|b| b.unwrap()).collect();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

/// Bytes of a `.npy` file.
pub fn npy_bytes(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    bytes
}

pub fn npy_f64(rows: usize, cols: usize, values: &[f64]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    npy_bytes("<f8", false, &format!("({rows}, {cols})"), &data)
}

pub fn npz_bytes(members: &[(&str, &[u8])], deflate: bool) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let method = if deflate { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in members {
        writer.start_file(format!("{name}.npy"), options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn put(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> String {
    let path: PathBuf = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A table read whole.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Whole {
    pub ids: Vec<u64>,
    pub values: Vec<f64>,
    pub records: Vec<Box<[u8]>>,
}

pub fn read_all(table: &Table) -> subspan::Result<Whole> {
    fold(
        table,
        &Silent,
        Whole::default,
        |whole, block| {
            whole.ids.extend((0..block.n_rows()).map(|i| block.id(i)));
            whole.values.extend(block.values);
            let rows: Vec<usize> = (0..block.n_rows()).collect();
            whole.records.extend(block.records.unwrap().encode(&rows)?);
            Ok(())
        },
        |total, mut part| {
            total.ids.append(&mut part.ids);
            total.values.append(&mut part.values);
            total.records.append(&mut part.records);
        },
    )
}

pub fn open(path: &str) -> Table {
    Table::open(path, &TableOptions::default()).unwrap()
}

pub fn drop_missing() -> TableOptions {
    TableOptions { missing: Missing::Drop, ..TableOptions::default() }
}

/// The room's own error behind the library's.
pub fn cause(e: subspan::Error) -> IoError {
    match e {
        subspan::Error::Source(e) => *e.downcast::<IoError>().unwrap(),
        other => panic!("not an I/O error: {other}"),
    }
}

/// The error of opening `path` and reading it through.
pub fn failure(path: &str, options: &TableOptions) -> IoError {
    match Table::open(path, options) {
        Err(e) => cause(e),
        Ok(table) => cause(read_all(&table).unwrap_err()),
    }
}

pub fn schema_of(fields: &[(&str, DataType)]) -> Arc<Schema> {
    Arc::new(Schema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>()))
}

/// Bytes of an Arrow IPC file or stream in batches of `batch_rows`.
pub fn arrow_bytes(
    batch: &RecordBatch,
    batch_rows: usize,
    stream: bool,
    compression: Option<arrow::ipc::CompressionType>,
) -> Vec<u8> {
    use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut bytes = Vec::new();
    let slices =
        (0..batch.num_rows()).step_by(batch_rows).map(|i| batch.slice(i, batch_rows.min(batch.num_rows() - i)));
    if stream {
        let mut writer = StreamWriter::try_new_with_options(&mut bytes, &batch.schema(), options).unwrap();
        slices.for_each(|slice| writer.write(&slice).unwrap());
        writer.finish().unwrap();
    } else {
        let mut writer = FileWriter::try_new_with_options(&mut bytes, &batch.schema(), options).unwrap();
        slices.for_each(|slice| writer.write(&slice).unwrap());
        writer.finish().unwrap();
    }
    bytes
}

/// Bytes of an idx file.
pub fn idx_bytes(kind: u8, shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, kind, shape.len() as u8];
    shape.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// Bytes of a safetensors file of f32 tensors.
pub fn safetensors_bytes(tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let data: Vec<Vec<u8>> = tensors.iter().map(|(_, _, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape, _), bytes)| (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    serialize(views, None).unwrap()
}

/// Bytes of a parquet file.
pub fn parquet_bytes(batch: &RecordBatch, group_rows: usize, compression: parquet::basic::Compression) -> Vec<u8> {
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).set_compression(compression).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}
