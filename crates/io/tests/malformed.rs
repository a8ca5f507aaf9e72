//! The catalogue: each malformed input gives one line that names the file and the place.

mod common;

use common::*;
use subspan_io::{IoError, Matrix, Table, TableOptions};

fn table_error(path: &str) -> IoError {
    failure(path, &TableOptions::default())
}

/// The error's line without the file's name.
fn line(path: &str) -> String {
    let e = table_error(path);
    let text = e.to_string();
    assert!(text.contains(path), "the file is named: {text}");
    text.replace(path, "FILE")
}

#[test]
fn names_that_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    assert_eq!(line(&format!("{root}/none.parquet")), "cannot open FILE: no such file or directory");
    assert_eq!(line(&format!("{root}/none.csv")), "cannot open FILE: no such file or directory");
    assert_eq!(line(root), "FILE: no .parquet file there");
    assert_eq!(line(&format!("{root}/*.parquet")), "FILE: no .parquet file there");
    assert_eq!(line(&format!("{root}/table.xlsx")), "FILE: unknown file format");
    assert!(table_error("table.xlsx").hint().unwrap().contains(".csv.gz"));
    std::fs::create_dir(dir.path().join("d.npy")).unwrap();
    let e = Matrix::open(&format!("{root}/d.npy")).unwrap_err();
    assert_eq!(e.to_string(), format!("cannot open {root}/d.npy: it is a directory"));
    for name in ["e.parquet", "e.csv", "e.csv.gz", "e.arrow", "e.feather", "e.npy", "e.npz"] {
        assert_eq!(line(&put(&dir, name, b"")), "FILE: the file is empty", "{name}");
    }
}

#[test]
fn other_content_than_the_name_says() {
    let dir = tempfile::tempdir().unwrap();
    let text = b"this is a plain text file, long enough to hold any of the headers";
    for name in ["t.parquet", "t.arrow", "t.npy", "t.npz", "t.csv.gz"] {
        let e = table_error(&put(&dir, name, text));
        assert!(matches!(e, IoError::Corrupt { .. }), "{name}: {e:?}");
    }
    for name in ["t.safetensors", "t-idx3-ubyte", "t-idx3-ubyte.gz"] {
        let e = Matrix::open(&put(&dir, name, text)).unwrap_err();
        assert!(matches!(e, IoError::Corrupt { .. }), "{name}: {e:?}");
    }
}

#[test]
fn truncated_files() {
    let dir = tempfile::tempdir().unwrap();
    for subject in [
        ("t.npy", npy_f64(10, 3, &[1.0; 30])),
        ("t.npz", npz_bytes(&[("a", &npy_f64(10, 3, &[1.0; 30]))], true)),
        ("t.parquet", parquet_bytes(&mixed_batch(50, 1), 20, parquet::basic::Compression::SNAPPY)),
        ("t.arrow", arrow_bytes(&mixed_batch(50, 1), 20, false, None)),
        ("s.arrow", arrow_bytes(&mixed_batch(50, 1), 20, true, None)),
        ("t.csv.gz", gzip(b"a,b\n1,2\n3,4\n")),
    ] {
        let (name, bytes) = subject;
        for keep in [bytes.len() - 9, bytes.len() / 2, 5] {
            let path = put(&dir, name, &bytes[..keep]);
            let e = table_error(&path);
            assert!(matches!(e, IoError::Corrupt { .. }), "{name} cut to {keep}: {e:?}");
        }
    }
    for (name, bytes) in [
        ("t.safetensors", safetensors_bytes(&[("w", vec![4, 4], vec![1.0; 16])])),
        ("t-idx2-ubyte", idx_bytes(8, &[10, 3], &[1; 30])),
        ("t-idx2-ubyte.gz", gzip(&idx_bytes(8, &[10, 3], &[1; 30]))),
    ] {
        for keep in [bytes.len() - 1, bytes.len() / 2, 3] {
            let e = Matrix::open(&put(&dir, name, &bytes[..keep])).unwrap_err();
            assert!(matches!(e, IoError::Corrupt { .. }), "{name} cut to {keep}: {e:?}");
        }
    }
}

#[test]
fn numpy_headers_that_lie_or_ask_for_code() {
    let dir = tempfile::tempdir().unwrap();
    let of = |descr: &str, shape: &str| put(&dir, "t.npy", &npy_bytes(descr, false, shape, &[0; 16]));
    assert_eq!(line(&of("<f8", "(3,)")), "FILE: corrupt file, data: truncated: 24 bytes declared, 16 present");
    assert_eq!(line(&of("<f8", "(1,)")), "FILE: corrupt file, data: 8 bytes follow the declared array");
    let huge = format!("({}, {})", u64::MAX, u64::MAX);
    assert!(line(&of("<f8", &huge)).contains("impossible shape"));
    assert_eq!(line(&of("|O", "(2,)")), "FILE: an array of Python objects (a pickle), which is never loaded");
    assert_eq!(line(&of("<c16", "(1,)")), "FILE: elements of type <c16");
    assert_eq!(line(&of("<U2", "(2,)")), "FILE: an array of text, not of numbers");
    assert_eq!(line(&of("<f8", "()")), "FILE: a single number, not an array");
    assert_eq!(line(&of("<f8", "(0, 4)")), "FILE: corrupt file, data: 16 bytes follow the declared array");
    assert_eq!(line(&of("<f4", "(2, 2, 1)")), "FILE: an array of 3 dimensions, a table has two");
    let empty = put(&dir, "t.npy", &npy_bytes("<f8", false, "(0, 4)", &[]));
    assert_eq!(line(&empty), "FILE: the table has no rows");
    let flat = put(&dir, "t.npy", &npy_bytes("<f8", false, "(4, 0)", &[]));
    assert_eq!(line(&flat), "FILE: the table has no columns");
    let mut long = b"\x93NUMPY\x02\x00".to_vec();
    long.extend(u32::MAX.to_le_bytes());
    assert!(line(&put(&dir, "t.npy", &long)).contains("a header of 4294967295 bytes does not fit"));
}

#[test]
fn csv_lines_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let of = |text: &[u8]| put(&dir, "t.csv", text);
    assert_eq!(line(&of(b"a,b\n1,2\n3\n")), "FILE: line 3 has 1 fields, the header has 2");
    assert_eq!(line(&of(b"a,b\n1,2\n\"x\ny\",2\n3,4,5\n")), "FILE: line 5 has 3 fields, the header has 2");
    assert_eq!(line(&of(b"a,b\n")), "FILE: the table has no rows");
    assert_eq!(line(&of(b"1.5,2\n3,4\n")), "FILE: the first line holds numbers, not column names");
    assert_eq!(line(&of(b"a,a\n1,2\n")), "FILE: column a appears twice");
    // A level that is called like a column.
    assert_eq!(line(&of(b"a=u,a\n1,t\n3,u\n")), "FILE: column a=u appears twice");
    assert_eq!(line(&of(b"a,b\n1,\xff\n")), "FILE: line 2 is not UTF-8 text");
    assert_eq!(line(&of(b"\xff,b\n1,2\n")), "FILE: the header is not UTF-8 text");
    assert_eq!(line(&of(b"a,b\n1,2\n,4\n")), "FILE: missing value in column a, row 1");
    assert_eq!(line(&of(b"a,b\n1,inf\n")), "FILE: infinite value in column b, row 0");
    assert_eq!(open(&of(b"0,1\n5,6\n")).column_names(), ["0", "1"], "numbered columns are names");
    assert_eq!(open(&of(b",x\n0,6\n")).column_names(), ["Unnamed: 0", "x"]);
    assert_eq!(open(&of(b"a,b\n 1 , 2.5\n")).column_names(), ["a", "b"]);
}

#[test]
fn files_of_one_table_must_agree() {
    let dir = tempfile::tempdir().unwrap();
    let batch = mixed_batch(10, 1);
    let none = parquet::basic::Compression::UNCOMPRESSED;
    let first = put(&dir, "a.parquet", &parquet_bytes(&batch, 10, none));
    let second = put(&dir, "b.parquet", &parquet_bytes(&batch.project(&[0, 1, 2]).unwrap(), 10, none));
    let e = table_error(dir.path().to_str().unwrap());
    assert_eq!(e.to_string(), format!("{second}: columns differ from those of {first}: 3 columns, not 8"));
    put(&dir, "b.parquet", &parquet_bytes(&batch.project(&[1, 0, 2, 3, 4, 5, 6, 7]).unwrap(), 10, none));
    let e = table_error(dir.path().to_str().unwrap());
    assert!(e.to_string().ends_with("column small where x was expected"), "{e}");
}

#[test]
fn a_file_that_changes_between_passes_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let none = parquet::basic::Compression::UNCOMPRESSED;
    let path = put(&dir, "t.parquet", &parquet_bytes(&mixed_batch(10, 1), 10, none));
    let table = open(&path);
    put(&dir, "t.parquet", &parquet_bytes(&mixed_batch(20, 1), 10, none));
    let e = cause(read_all(&table).unwrap_err());
    assert_eq!(e.to_string(), format!("{path}: the file changed while it was read"));
}

#[test]
fn archives_that_unpack_to_more_than_they_can() {
    let dir = tempfile::tempdir().unwrap();
    // A gzipped idx file whose header declares 4 GB.
    let bomb = gzip(&idx_bytes(8, &[u32::MAX, 1], &[0; 100]));
    let e = Matrix::open(&put(&dir, "b-idx2-ubyte.gz", &bomb)).unwrap_err();
    assert!(e.to_string().contains("cannot unpack"), "{e}");
    // An archive whose directory declares a member of 4 GB (fields of 4 bytes at 20 and 24 of the entry).
    let mut npz = npz_bytes(&[("a", &npy_f64(10, 1, &[0.0; 10]))], true);
    let entry = npz.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    npz[entry + 24..entry + 28].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    let e = Table::open(&(put(&dir, "b.npz", &npz) + ":a"), &TableOptions::default()).unwrap_err();
    assert!(matches!(cause(e), IoError::Corrupt { .. }));
}
