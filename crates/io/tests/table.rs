//! Tables: whatever the format, the same rows come out, with the user's choice of columns.

mod common;

use std::sync::Arc;

use arrow::array::*;
use common::*;
use subspan::rows::RowSource;
use subspan_io::{IoError, Missing, Table, TableOptions, write_sample};

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn a_large_row_group_is_read_in_pieces() {
    use parquet::basic::Compression;
    let dir = tempfile::tempdir().unwrap();
    let batch = mixed_batch(300_001, 5);
    let cut = open(&put(&dir, "cut.parquet", &parquet_bytes(&batch, 50_000, Compression::SNAPPY)));
    for codec in [Compression::UNCOMPRESSED, Compression::SNAPPY] {
        let whole = open(&put(&dir, "whole.parquet", &parquet_bytes(&batch, 300_001, codec)));
        assert!(whole.n_chunks() > 1);
        assert!(read_all(&whole).unwrap() == read_all(&cut).unwrap(), "{codec}");
    }
}

#[test]
fn parquet_columns_become_numbers_and_text_becomes_indicators() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let batch = mixed_batch(100, 1);
    write_parquet(&path, &batch, 30);
    let options = TableOptions { target: Some("y".into()), drop_first_level: true, ..Default::default() };
    let table = Table::open(path.to_str().unwrap(), &options).unwrap();
    let expected =
        ["x", "small", "count", "flag", "city=Oslo", "city=Tromsø", "city=Å", "carrier=DL", "carrier=UA", "time"];
    assert_eq!(table.column_names(), expected);
    assert_eq!((table.n_cols(), table.n_rows(), table.n_chunks()), (11, Some(100), 4));
    assert_eq!((table.target_name(), table.n_input_columns()), (Some("y"), 8));
    let whole = read_all(&table).unwrap();
    assert_eq!(whole.ids, (0..100).collect::<Vec<_>>());
    let city = batch.column(4).as_string::<i32>();
    for (i, row) in whole.values.chunks(11).enumerate() {
        assert_eq!(row[0], batch.column(0).as_primitive::<arrow::datatypes::Float64Type>().value(i));
        assert_eq!(row[1], f64::from(batch.column(1).as_primitive::<arrow::datatypes::Float32Type>().value(i)));
        assert_eq!(row[3], f64::from(batch.column(3).as_boolean().value(i)));
        let city = city.value(i);
        let indicators = [city == "Oslo", city == "Tromsø", city == "Å"].map(|b| f64::from(u8::from(b)));
        assert_eq!(row[4..7], indicators);
        // Half a second per row, in seconds whatever the stored unit.
        assert!((row[9] - (1_700_000_000.0 + 0.5 * i as f64)).abs() < 1e-6);
        assert_eq!(row[10], i as f64);
    }
    let all = Table::open(path.to_str().unwrap(), &TableOptions::default()).unwrap();
    assert!(all.column_names().contains(&"city=Bergen".into()), "every level without an intercept");
}

#[test]
fn row_groups_files_and_order_do_not_change_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let batch = mixed_batch(1000, 2);
    let whole = |path: &str| read_all(&open(path)).unwrap();
    let one = dir.path().join("one.parquet");
    write_parquet(&one, &batch, 1000);
    let expected = whole(one.to_str().unwrap());
    let other = dir.path().join("other.parquet");
    write_parquet(&other, &batch, 77);
    assert_eq!(whole(other.to_str().unwrap()), expected);
    let parts = dir.path().join("parts");
    std::fs::create_dir(&parts).unwrap();
    std::fs::write(parts.join("_SUCCESS"), "").unwrap();
    // Written out of order: read in sorted path order.
    for (name, from, n) in [("b.parquet", 400, 350), ("a.parquet", 0, 400), ("c.parquet", 750, 250)] {
        write_parquet(&parts.join(name), &batch.slice(from, n), 128);
    }
    assert_eq!(whole(parts.to_str().unwrap()), expected);
    assert_eq!(whole(&format!("{}/[abc].parquet", parts.display())), expected);
    let half = whole(&format!("{}/[ac].parquet", parts.display()));
    assert_eq!(half.ids, (0..650).collect::<Vec<_>>());
}

#[test]
fn every_codec_and_encoding_of_text_is_read() {
    use parquet::basic::Compression;
    let dir = tempfile::tempdir().unwrap();
    let batch = mixed_batch(200, 6);
    let read = |bytes: &[u8]| read_all(&open(&put(&dir, "t.parquet", bytes))).unwrap();
    let expected = read(&parquet_bytes(&batch, 70, Compression::UNCOMPRESSED));
    let codecs = [
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
        Compression::LZ4_RAW,
    ];
    for codec in codecs {
        assert_eq!(read(&parquet_bytes(&batch, 70, codec)), expected, "{codec}");
    }
    use arrow::datatypes::DataType::{Dictionary, LargeUtf8, UInt16, Utf8View};
    for text in [LargeUtf8, Utf8View, Dictionary(Box::new(UInt16), Box::new(LargeUtf8))] {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            let text =
                if field.name() == "city" { arrow::compute::cast(column, &text).unwrap() } else { column.clone() };
            (field.name().clone(), text)
        });
        let batch = RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).unwrap();
        let parquet = read(&parquet_bytes(&batch, 70, Compression::SNAPPY));
        assert_eq!(parquet, expected, "{text} in parquet");
        let arrow = read_all(&open(&put(&dir, "t.arrow", &arrow_bytes(&batch, 70, false, None)))).unwrap();
        assert_eq!(arrow.values, expected.values, "{text} in arrow");
    }
}

#[test]
fn points_in_time_are_the_same_numbers_in_every_unit() {
    let dir = tempfile::tempdir().unwrap();
    let batch = RecordBatch::try_from_iter([
        ("s", Arc::new(TimestampSecondArray::from(vec![86_400])) as ArrayRef),
        ("ns", Arc::new(TimestampNanosecondArray::from(vec![86_400_000_000_000]))),
        ("day", Arc::new(Date32Array::from(vec![3]))),
        ("millis", Arc::new(Date64Array::from(vec![3 * 86_400_000]))),
        ("noon", Arc::new(Time32MillisecondArray::from(vec![43_200_000]))),
        ("noon2", Arc::new(Time64NanosecondArray::from(vec![43_200_000_000_000]))),
        ("price", Arc::new(Decimal128Array::from(vec![1234]).with_precision_and_scale(10, 2).unwrap())),
    ])
    .unwrap();
    let path = put(&dir, "t.parquet", &parquet_bytes(&batch, 1, parquet::basic::Compression::SNAPPY));
    let values = read_all(&open(&path)).unwrap().values;
    for (value, expected) in values.iter().zip([86_400.0, 86_400.0, 3.0, 3.0, 43_200.0, 43_200.0, 12.34]) {
        assert!((value - expected).abs() < 1e-9 * expected, "{values:?}");
    }
}

#[test]
fn columns_without_numbers_can_be_left_out_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut lists = ListBuilder::new(Int32Builder::new());
    (0..9).for_each(|i| lists.append_value([Some(i), None]));
    let lists: ArrayRef = Arc::new(lists.finish());
    let batch = RecordBatch::try_from_iter([
        ("tags", lists.clone()),
        ("x", Arc::new(Int16Array::from_iter_values(0..9)) as ArrayRef),
        ("raw", Arc::new(BinaryArray::from_iter_values((0..9_u8).map(|i| vec![i; 2])))),
    ])
    .unwrap();
    let none = parquet::basic::Compression::UNCOMPRESSED;
    for (name, bytes) in
        [("t.parquet", parquet_bytes(&batch, 4, none)), ("t.arrow", arrow_bytes(&batch, 4, true, None))]
    {
        let path = put(&dir, name, &bytes);
        let e = failure(&path, &TableOptions::default());
        assert!(matches!(&e, IoError::ColumnType { column, .. } if column == "tags"), "{e}");
        let options = TableOptions { exclude: names(&["tags", "raw"]), ..Default::default() };
        let table = Table::open(&path, &options).unwrap();
        let whole = read_all(&table).unwrap();
        let out = dir.path().join("out.parquet");
        write_sample(
            &out,
            &table,
            &[3, 7],
            &[1.0; 2],
            &[1.0; 2],
            &[whole.records[3].clone(), whole.records[7].clone()],
        )
        .unwrap();
        let back = read_parquet(&out);
        assert_eq!(back.column(3).as_list::<i32>().value(1).as_primitive::<arrow::datatypes::Int32Type>().value(0), 7);
        assert_eq!(back.column(5).as_binary::<i32>().value(0), [3, 3]);
    }
}

#[test]
fn any_number_of_threads_reads_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    write_parquet(&path, &mixed_batch(5000, 3), 100);
    let read = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| read_all(&open(path.to_str().unwrap())).unwrap())
    };
    assert_eq!(read(1), read(4));
}

#[test]
fn csv_npy_and_npz_hold_the_same_table() {
    let dir = tempfile::tempdir().unwrap();
    let mut mixer = Mixer(5);
    let values: Vec<f64> = (0..300).map(|_| mixer.unit()).collect();
    let mut csv = String::from("c0,c1,c2\n");
    for row in values.chunks(3) {
        csv.push_str(&format!("{},{},{}\n", row[0], row[1], row[2]));
    }
    let npy = npy_f64(100, 3, &values);
    let paths = [
        put(&dir, "t.csv", csv.as_bytes()),
        put(&dir, "t.csv.gz", &gzip(csv.as_bytes())),
        put(&dir, "t.npy", &npy),
        put(&dir, "s.npz", &npz_bytes(&[("other", &npy_f64(1, 1, &[0.0])), ("a", &npy)], false)) + ":a",
        put(&dir, "d.npz", &npz_bytes(&[("a", &npy), ("other", &npy_f64(1, 1, &[0.0]))], true)) + ":a",
        put(&dir, "only.npz", &npz_bytes(&[("a", &npy)], true)),
    ];
    for path in &paths {
        let table = open(path);
        assert_eq!(table.column_names(), ["c0", "c1", "c2"], "{path}");
        assert_eq!(read_all(&table).unwrap().values, values, "{path}");
        let options =
            TableOptions { columns: Some(names(&["c2", "c0"])), target: Some("c1".into()), ..Default::default() };
        let table = Table::open(path, &options).unwrap();
        let expected: Vec<f64> = values.chunks(3).flat_map(|r| [r[2], r[0], r[1]]).collect();
        assert_eq!(read_all(&table).unwrap().values, expected, "{path}");
        let record = table.input_record().unwrap();
        assert_eq!((record.path.as_str(), record.shape), (path.as_str(), vec![100, 3]));
    }
}

#[test]
fn every_numpy_type_and_order_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let expected = [1.0, 2.0, 0.0, 4.0, 5.0, 6.0];
    let column_major = [1.0, 4.0, 2.0, 5.0, 0.0, 6.0];
    type Encode = fn(f64) -> Vec<u8>;
    let types: [(&str, Encode); 15] = [
        ("<f8", |v| v.to_le_bytes().into()),
        (">f8", |v| v.to_be_bytes().into()),
        ("<f4", |v| (v as f32).to_le_bytes().into()),
        (">f4", |v| (v as f32).to_be_bytes().into()),
        ("<f2", |v| half::f16::from_f64(v).to_le_bytes().into()),
        ("|u1", |v| vec![v as u8]),
        ("|i1", |v| vec![v as i8 as u8]),
        ("<u2", |v| (v as u16).to_le_bytes().into()),
        ("<i2", |v| (v as i16).to_le_bytes().into()),
        (">i2", |v| (v as i16).to_be_bytes().into()),
        ("<u4", |v| (v as u32).to_le_bytes().into()),
        ("<i4", |v| (v as i32).to_le_bytes().into()),
        ("<u8", |v| (v as u64).to_le_bytes().into()),
        ("<i8", |v| (v as i64).to_le_bytes().into()),
        (">i8", |v| (v as i64).to_be_bytes().into()),
    ];
    for (descr, encode) in types {
        for (fortran, values) in [(false, expected), (true, column_major)] {
            let data: Vec<u8> = values.iter().flat_map(|v| encode(*v)).collect();
            let path = put(&dir, "t.npy", &npy_bytes(descr, fortran, "(2, 3)", &data));
            let table = open(&path);
            let whole = read_all(&table).unwrap();
            assert_eq!(whole.values, expected, "{descr} fortran {fortran}");
            let out = dir.path().join("out.parquet");
            write_sample(&out, &table, &[1], &[0.5], &[2.0], &whole.records[1..]).unwrap();
            let back = read_parquet(&out);
            assert_eq!(back.num_columns(), 6);
            let back = open(out.to_str().unwrap());
            assert_eq!(read_all(&back).unwrap().values, [1.0, 0.5, 2.0, 4.0, 5.0, 6.0], "{descr}");
        }
    }
}

#[test]
fn csv_types_are_inferred_over_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut csv = String::from("\u{feff}late,text,\"quoted, name\",flag,gap,date\r\n");
    for i in 0..2000 {
        let late = if i == 1999 { "0.5".to_owned() } else { i.to_string() };
        let text = if i == 1998 { "x\ny \"z\"" } else { "12" };
        let text = format!("\"{}\"", text.replace('"', "\"\""));
        csv.push_str(&format!("{late},{text},{i},{},,{}\r\n", i % 2 == 0, ["2020-01-01", "2020-01-02"][i % 2]));
    }
    let path = put(&dir, "t.csv", csv.as_bytes());
    let options = TableOptions { exclude: names(&["gap"]), ..Default::default() };
    let table = Table::open(&path, &options).unwrap();
    let expected = ["late", "text=12", "text=x\ny \"z\"", "quoted, name", "flag", "date=2020-01-01", "date=2020-01-02"];
    assert_eq!(table.column_names(), expected);
    let whole = read_all(&table).unwrap();
    assert_eq!(whole.values[1998 * 7..1999 * 7], [1998.0, 0.0, 1.0, 1998.0, 1.0, 1.0, 0.0]);
    assert_eq!(whole.values[1999 * 7], 0.5);
    let out = dir.path().join("out.parquet");
    write_sample(&out, &table, &[1998], &[1.0], &[1.0], &whole.records[1998..1999]).unwrap();
    let back = read_parquet(&out);
    assert_eq!(back.schema().field(4).name(), "text");
    assert_eq!(back.column(4).as_string::<i32>().value(0), "x\ny \"z\"");
    assert!(back.column(7).is_null(0), "the excluded empty column is written back as it is");
}

#[test]
fn a_long_csv_is_read_in_chunks_and_gzip_in_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut csv = String::from("a,b,c\n");
    for i in 0..150_000 {
        csv.push_str(&format!("{i},\"level\n{}\",{}\n", i % 5, f64::from(i) * 0.25));
    }
    let plain = open(&put(&dir, "t.csv", csv.as_bytes()));
    let packed = open(&put(&dir, "t.csv.gz", &gzip(csv.as_bytes())));
    assert_eq!((plain.n_chunks(), packed.n_chunks()), (3, 1));
    let (plain, packed) = (read_all(&plain).unwrap(), read_all(&packed).unwrap());
    assert_eq!(plain, packed);
    assert_eq!(plain.values[7 * 100_003], 100_003.0);
    assert_eq!(plain.ids.len(), 150_000);
}

#[test]
fn missing_values_name_the_column_and_first_row_or_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let n = 20_000;
    let x: Vec<Option<f64>> =
        (0..n).map(|i| (i != 15_001).then_some(if i == 17_000 { f64::NAN } else { 1.0 })).collect();
    let text: Vec<Option<&str>> = (0..n).map(|i| (i != 12_345).then_some("a")).collect();
    let unused: Vec<Option<i32>> = (0..n).map(|_| None).collect();
    let ids: Vec<i32> = (0..n).collect();
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("x", Arc::new(Float64Array::from(x)) as ArrayRef, true),
        ("text", Arc::new(StringArray::from(text)), true),
        ("unused", Arc::new(Int32Array::from(unused)), true),
        ("id", Arc::new(Int32Array::from(ids)), true),
    ])
    .unwrap();
    let path = dir.path().join("t.parquet");
    write_parquet(&path, &batch, 5000);
    let path = path.to_str().unwrap();
    let choose = |list: &[&str]| TableOptions { columns: Some(names(list)), ..Default::default() };
    let line = |options: &TableOptions| failure(path, options).to_string();
    assert_eq!(line(&choose(&["x", "text"])), format!("{path}: missing value in column text, row 12345"));
    assert_eq!(line(&choose(&["x", "id"])), format!("{path}: missing value in column x, row 15001"));
    assert!(failure(path, &choose(&["x"])).hint().unwrap().contains("--missing drop"));

    let options = TableOptions { missing: Missing::Drop, ..choose(&["id", "x", "text"]) };
    let table = Table::open(path, &options).unwrap();
    assert_eq!(table.n_rows(), None);
    let whole = read_all(&table).unwrap();
    assert_eq!(table.dropped_rows(), 3);
    assert_eq!(whole.ids.len(), 19_997);
    for (id, row) in whole.ids.iter().zip(whole.values.chunks(3)) {
        assert_eq!((row[0], row[1]), (*id as f64, 1.0), "ids stay positions in the input");
    }
    // A record belongs to the row of its id also where rows before it were dropped.
    let at = whole.ids.iter().position(|id| *id == 19_999).unwrap();
    let out = dir.path().join("out.parquet");
    write_sample(&out, &table, &[19_999], &[1.0], &[1.0], &whole.records[at..=at]).unwrap();
    assert_eq!(read_parquet(&out).column(6).as_primitive::<arrow::datatypes::Int32Type>().value(0), 19_999);
    read_all(&table).unwrap();
    assert_eq!(table.dropped_rows(), 3, "a second pass counts anew");

    let npy = put(&dir, "t.npy", &npy_f64(3, 2, &[1.0, 2.0, 3.0, f64::INFINITY, 5.0, 6.0]));
    assert_eq!(
        failure(&npy, &TableOptions::default()).to_string(),
        format!("{npy}: infinite value in column c1, row 1")
    );
    let table = Table::open(&npy, &drop_missing()).unwrap();
    assert_eq!(read_all(&table).unwrap().values, [1.0, 2.0, 5.0, 6.0]);
    assert_eq!(table.dropped_rows(), 1);
}

#[test]
fn a_sample_is_written_back_with_the_input_columns_and_types() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let batch = mixed_batch(500, 7);
    write_parquet(&path, &batch, 90);
    let ids = [0_u64, 89, 90, 333, 499];
    let (probabilities, weights) = ([0.1, 0.2, 0.3, 0.4, 1.0], [10.0, 5.0, 3.3, 2.5, 1.0]);
    let options = TableOptions { columns: Some(names(&["city", "x"])), ..Default::default() };
    let table = Table::open(path.to_str().unwrap(), &options).unwrap();
    let whole = read_all(&table).unwrap();
    let records: Vec<Box<[u8]>> = ids.iter().map(|i| whole.records[*i as usize].clone()).collect();
    let out = dir.path().join("out.parquet");
    write_sample(&out, &table, &ids, &probabilities, &weights, &records).unwrap();
    let back = read_parquet(&out);
    let columns: Vec<String> = back.schema().fields().iter().map(|f| f.name().clone()).collect();
    let expected = ["row_id", "probability", "weight", "x", "small", "count", "flag", "city", "carrier", "time", "y"];
    assert_eq!(columns, expected);
    assert_eq!(back.column(0).as_primitive::<arrow::datatypes::UInt64Type>().values(), &ids);
    assert_eq!(back.column(2).as_primitive::<arrow::datatypes::Float64Type>().values(), &weights);
    let places = UInt64Array::from(ids.to_vec());
    let picked = arrow::compute::take_record_batch(&batch, &places).unwrap();
    for (j, field) in batch.schema().fields().iter().enumerate() {
        let column = if field.name() == "carrier" {
            arrow::compute::cast(picked.column(j), &arrow::datatypes::DataType::Utf8).unwrap()
        } else {
            picked.column(j).clone()
        };
        assert_eq!(&column, back.column(j + 3), "{}", field.name());
    }
    let bytes = std::fs::read(&out).unwrap();
    write_sample(&out, &table, &ids, &probabilities, &weights, &[]).unwrap();
    assert_eq!(std::fs::read(&out).unwrap(), bytes, "records and a second reading give the same bytes");
    // The sample's own columns give way to none: sampling a sample keeps both.
    let table = open(out.to_str().unwrap());
    let again = dir.path().join("again.parquet");
    write_sample(&again, &table, &[2], &[1.0], &[1.0], &[]).unwrap();
    let back = read_parquet(&again);
    assert_eq!(back.schema().field(3).name(), "row_id_");
    assert_eq!(back.column(3).as_primitive::<arrow::datatypes::UInt64Type>().values(), &[90]);
}

#[test]
fn choices_that_cannot_be_met_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    write_parquet(&path, &mixed_batch(10, 1), 10);
    let path = path.to_str().unwrap();
    let columns = |list: &[&str]| TableOptions { columns: Some(names(list)), ..Default::default() };
    let e = failure(path, &columns(&["x", "carier"]));
    assert_eq!(e.to_string(), format!("{path}: no column named carier"));
    assert_eq!(e.hint().unwrap(), "did you mean carrier?");
    let e = failure(path, &TableOptions { target: Some("city".into()), ..Default::default() });
    assert!(matches!(e, IoError::ColumnType { target: true, .. }), "{e}");
    let e = failure(path, &TableOptions { target: Some("x".into()), ..columns(&["x"]) });
    assert!(matches!(e, IoError::Selection { .. }), "{e}");
    let e = failure(path, &columns(&["x", "x"]));
    assert_eq!(e.to_string(), "--columns: column x appears twice");
    let e = failure(path, &TableOptions { exclude: names(&["x"]), ..columns(&["x"]) });
    assert_eq!(e.to_string(), format!("{path}: the table has no columns"));

    let text: Vec<String> = (0..1001).map(|i| format!("name {i}")).collect();
    let batch = RecordBatch::try_from_iter([
        ("name", Arc::new(StringArray::from(text)) as ArrayRef),
        ("x", Arc::new(Int8Array::from(vec![1; 1001]))),
    ])
    .unwrap();
    let wide = dir.path().join("wide.parquet");
    write_parquet(&wide, &batch, 100);
    let e = failure(wide.to_str().unwrap(), &TableOptions::default());
    assert_eq!(e.to_string(), format!("{}: text column name has more than 1000 levels", wide.display()));
    assert_eq!(e.hint().unwrap(), "--exclude name leaves the column out");
    let fits = dir.path().join("fits.parquet");
    write_parquet(&fits, &batch.slice(1, 1000), 100);
    assert_eq!(open(fits.to_str().unwrap()).n_cols(), 1001);
}
