//! Arrow IPC tables, in both forms, with and without compression.

mod common;

use arrow::ipc::CompressionType;
use common::*;
use subspan::rows::RowSource;
use subspan_io::{TableOptions, write_sample};

#[test]
fn file_and_stream_hold_the_same_rows_as_parquet() {
    let dir = tempfile::tempdir().unwrap();
    let batch = mixed_batch(300, 4);
    let parquet = put(&dir, "t.parquet", &parquet_bytes(&batch, 300, parquet::basic::Compression::SNAPPY));
    let expected = read_all(&open(&parquet)).unwrap();
    for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        for stream in [false, true] {
            let path = put(&dir, "t.feather", &arrow_bytes(&batch, 70, stream, compression));
            let table = open(&path);
            assert_eq!((table.n_chunks(), table.n_rows()), (5, Some(300)));
            let whole = read_all(&table).unwrap();
            assert_eq!((&whole.ids, &whole.values), (&expected.ids, &expected.values), "stream {stream}");
            let out = dir.path().join("out.parquet");
            write_sample(&out, &table, &[0, 299], &[1.0, 1.0], &[1.0, 1.0], &[]).unwrap();
            assert_eq!(read_parquet(&out).num_columns(), 3 + batch.num_columns());
        }
    }
}

#[test]
fn a_stream_may_end_without_its_end_mark() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = arrow_bytes(&mixed_batch(20, 4), 10, true, None);
    let whole = put(&dir, "whole.arrow", &bytes);
    let open_ended = put(&dir, "open.arrow", &bytes[..bytes.len() - 8]);
    assert_eq!(read_all(&open(&whole)).unwrap(), read_all(&open(&open_ended)).unwrap());
}

#[test]
fn the_older_feather_format_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(&dir, "old.feather", b"FEA1....................FEA1");
    let e = failure(&path, &TableOptions::default());
    assert_eq!(e.to_string(), format!("{path}: a Feather version 1 file"));
    assert!(e.hint().unwrap().contains("parquet"));
}
