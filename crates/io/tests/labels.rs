//! Labels: classes are sorted as people count, whatever the format.

mod common;

use std::sync::Arc;

use arrow::array::*;
use common::*;
use subspan_io::{IoError, Labels};

fn check(path: &str, classes: &[&str], codes: &[u32]) {
    let labels = Labels::open(path).unwrap();
    assert_eq!(
        (labels.classes, labels.codes),
        (classes.iter().map(|c| c.to_string()).collect(), codes.to_vec()),
        "{path}"
    );
    assert_eq!((labels.input.path.as_str(), labels.input.shape), (path, vec![codes.len() as u64]));
}

#[test]
fn integers_are_sorted_as_numbers_and_text_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let numbers = [10_i16, 2, -1, 10];
    let data: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
    let npy = npy_bytes("<i2", false, "(4,)", &data);
    let (classes, codes) = (["-1", "2", "10"], [2, 1, 0, 2]);
    check(&put(&dir, "l.npy", &npy), &classes, &codes);
    check(&(put(&dir, "l.npz", &npz_bytes(&[("y", &npy), ("x", &npy)], true)) + ":y"), &classes, &codes);
    let floats: Vec<u8> = numbers.iter().flat_map(|v| f32::from(*v).to_le_bytes()).collect();
    check(&put(&dir, "f.npy", &npy_bytes("<f4", false, "(4, 1)", &floats)), &classes, &codes);
    check(&(put(&dir, "l.csv", b"id,y\n0,10\n1,2\n2,-1\n3,10\n") + ":y"), &classes, &codes);
    check(&put(&dir, "only.csv.gz", &gzip(b"y\n10\n2\n-1\n10\n")), &classes, &codes);
    let idx = idx_bytes(8, &[4], &[9, 0, 10, 9]);
    check(&put(&dir, "l-idx1-ubyte", &idx), &["0", "9", "10"], &[1, 0, 2, 1]);
    check(&put(&dir, "l-idx1-ubyte.gz", &gzip(&idx)), &["0", "9", "10"], &[1, 0, 2, 1]);

    let text: DictionaryArray<arrow::datatypes::Int32Type> = ["cat", "ape", "cat"].into_iter().collect();
    let batch = RecordBatch::try_from_iter([
        ("x", Arc::new(Int8Array::from(vec![0, 1, 2])) as ArrayRef),
        ("y", Arc::new(text)),
    ])
    .unwrap();
    let parquet = put(&dir, "l.parquet", &parquet_bytes(&batch, 2, parquet::basic::Compression::SNAPPY));
    check(&format!("{parquet}:y"), &["ape", "cat"], &[1, 0, 1]);
    let wide: Vec<u8> = ["cat", "å", ""]
        .iter()
        .flat_map(|s| s.chars().map(u32::from).chain([0; 3]).take(3).flat_map(u32::to_le_bytes).collect::<Vec<_>>())
        .collect();
    check(&put(&dir, "u.npy", &npy_bytes("<U3", false, "(3,)", &wide)), &["", "cat", "å"], &[1, 2, 0]);
    check(&put(&dir, "s.npy", &npy_bytes("|S2", false, "(2,)", b"b\0aa")), &["aa", "b"], &[1, 0]);
}

#[test]
fn what_is_no_label_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let csv = put(&dir, "l.csv", b"x,y\n0.5,a\n1.5,\n");
    let line = |path: &str| Labels::open(path).unwrap_err().to_string().replace(&csv, "FILE");
    assert_eq!(line(&csv), "FILE: which column is meant?");
    assert_eq!(line(&format!("{csv}:z")), "FILE: no column named z");
    assert_eq!(line(&format!("{csv}:x")), "FILE: label 0.5 in row 0 is neither an integer nor text");
    assert_eq!(line(&format!("{csv}:y")), "FILE: missing value in column y, row 1");
    let matrix = put(&dir, "m.npy", &npy_f64(2, 2, &[1.0; 4]));
    assert!(matches!(Labels::open(&matrix), Err(IoError::Unsupported { .. })));
    let bad = put(&dir, "u.npy", &npy_bytes("<U1", false, "(1,)", &0x0011_0000_u32.to_le_bytes()));
    assert!(matches!(Labels::open(&bad), Err(IoError::NotUtf8 { .. })));
    let empty = put(&dir, "e.npy", &npy_bytes("<i4", false, "(0,)", &[]));
    assert!(matches!(Labels::open(&empty), Err(IoError::Empty { what: "rows", .. })));
}
