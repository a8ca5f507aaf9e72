//! Matrices: every format and type gives the same numbers.

mod common;

use common::*;
use subspan_io::{IoError, Matrix};

#[test]
fn one_matrix_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<f64> = (0..24).map(f64::from).collect();
    let singles: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    let bytes: Vec<u8> = (0..24).collect();
    let npy = npy_f64(6, 4, &values);
    let columns = (0..4).map(|j| {
        let column: Vec<f64> = values.iter().skip(j).step_by(4).copied().collect();
        (format!("c{j}"), std::sync::Arc::new(arrow::array::Float64Array::from(column)) as arrow::array::ArrayRef)
    });
    let batch = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
    let idx = idx_bytes(8, &[6, 4], &bytes);
    let tensors = safetensors_bytes(&[("bias", vec![1], vec![0.0]), ("w", vec![6, 4], singles.clone())]);
    let only = safetensors_bytes(&[("w", vec![6, 4], singles.clone())]);
    let paths = [
        (put(&dir, "m.npy", &npy), "f64"),
        (put(&dir, "m.npz", &npz_bytes(&[("x", &npy), ("y", &npy)], true)) + ":y", "f64"),
        (put(&dir, "m.safetensors", &tensors) + ":w", "f32"),
        (put(&dir, "only.safetensors", &only), "f32"),
        (put(&dir, "m-idx2-ubyte", &idx), "u8"),
        (put(&dir, "m.idx2-ubyte.gz", &gzip(&idx)), "u8"),
        (put(&dir, "m.parquet", &parquet_bytes(&batch, 4, parquet::basic::Compression::SNAPPY)), "mixed"),
    ];
    for (path, dtype) in &paths {
        let matrix = Matrix::open(path).unwrap();
        assert_eq!((matrix.n_rows(), matrix.n_cols(), matrix.dtype()), (6, 4, *dtype), "{path}");
        assert_eq!(matrix.to_f64().unwrap(), values, "{path}");
        assert_eq!(matrix.to_f32().unwrap(), singles, "{path}");
        let record = matrix.input_record().unwrap();
        assert_eq!((&record.path, record.shape), (path, vec![6, 4]));
    }
}

#[test]
fn images_are_flattened_and_keep_their_shape() {
    let dir = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = (0..2 * 3 * 2 * 2).collect();
    let expected: Vec<f64> = pixels.iter().map(|v| f64::from(*v)).collect();
    let row_major = npy_bytes("|u1", false, "(2, 3, 2, 2)", &pixels);
    // The same array column-major: the first index runs fastest.
    let mut stored = Vec::new();
    for c in 0..2 {
        for x in 0..2 {
            for y in 0..3 {
                for i in 0..2 {
                    stored.push(pixels[((i * 3 + y) * 2 + x) * 2 + c]);
                }
            }
        }
    }
    let column_major = npy_bytes("|u1", true, "(2, 3, 2, 2)", &stored);
    let idx = idx_bytes(8, &[2, 3, 2, 2], &pixels);
    for (name, bytes) in [("r.npy", row_major), ("c.npy", column_major), ("i-idx4-ubyte", idx)] {
        let matrix = Matrix::open(&put(&dir, name, &bytes)).unwrap();
        assert_eq!((matrix.shape(), matrix.n_rows(), matrix.n_cols()), ([2, 3, 2, 2].as_slice(), 2, 12), "{name}");
        assert_eq!(matrix.to_f64().unwrap(), expected, "{name}");
    }
    let labels = Matrix::open(&put(&dir, "l-idx1-ubyte", &idx_bytes(8, &[3], &[7, 8, 9]))).unwrap();
    assert_eq!((labels.shape(), labels.n_cols()), ([3].as_slice(), 1));
}

#[test]
fn every_idx_type_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let wide: [(u8, Vec<u8>); 6] = [
        (0x08, vec![1, 2]),
        (0x09, vec![1, 2]),
        (0x0b, [1_i16, 2].iter().flat_map(|v| v.to_be_bytes()).collect()),
        (0x0c, [1_i32, 2].iter().flat_map(|v| v.to_be_bytes()).collect()),
        (0x0d, [1_f32, 2.0].iter().flat_map(|v| v.to_be_bytes()).collect()),
        (0x0e, [1_f64, 2.0].iter().flat_map(|v| v.to_be_bytes()).collect()),
    ];
    for (kind, data) in wide {
        let matrix = Matrix::open(&put(&dir, "m.idx", &idx_bytes(kind, &[2, 1], &data))).unwrap();
        assert_eq!(matrix.to_f64().unwrap(), [1.0, 2.0], "{kind:#x}");
    }
}

#[test]
fn values_that_are_no_numbers_are_named_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = put(&dir, "m.npy", &npy_f64(2, 2, &[1.0, 2.0, 3.0, f64::NAN]));
    let e = Matrix::open(&path).unwrap().to_f32().unwrap_err();
    assert_eq!(e.to_string(), format!("{path}: NaN value in column 1, row 1"));
    let path = put(&dir, "big.npy", &npy_f64(1, 2, &[1e300, 2.0]));
    let matrix = Matrix::open(&path).unwrap();
    assert_eq!(matrix.to_f64().unwrap(), [1e300, 2.0]);
    assert_eq!(matrix.to_f32().unwrap_err().to_string(), format!("{path}: too large value in column 0, row 0"));
    let path = put(&dir, "t.parquet", &parquet_bytes(&mixed_batch(5, 1), 5, parquet::basic::Compression::SNAPPY));
    let e = Matrix::open(&path).unwrap_err();
    assert_eq!(e.to_string(), format!("{path}: column city holds text, a matrix has only numbers"));
}

#[test]
fn parts_are_listed_when_none_or_a_wrong_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let npy = npy_f64(1, 1, &[0.0]);
    let npz = put(&dir, "m.npz", &npz_bytes(&[("x", &npy), ("y", &npy)], false));
    for (path, line) in [(npz.clone(), "which array is meant?"), (format!("{npz}:z"), "no array named z")] {
        let e = Matrix::open(&path).unwrap_err();
        assert_eq!(e.to_string(), format!("{npz}: {line}"));
        assert_eq!(e.hint().unwrap(), "name one array after a colon: x, y");
    }
    let tensors = safetensors_bytes(&[("a.b", vec![1], vec![0.0]), ("c", vec![1], vec![0.0])]);
    let path = put(&dir, "m.safetensors", &tensors);
    let e = Matrix::open(&format!("{path}:d")).unwrap_err();
    assert!(matches!(&e, IoError::NoSuchPart { kind: "tensor", .. }), "{e}");
    assert_eq!(Matrix::open(&format!("{path}:a.b")).unwrap().n_cols(), 1);
}
