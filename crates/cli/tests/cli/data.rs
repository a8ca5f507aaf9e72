//! Data that cannot be used: exit code 1, the place named, and nothing half-written.

use crate::place::Place;

const WITH_NAN: &str = "a,b\n1,2\n3,4\n5,nan\n7,8\n9,1\n";

#[test]
fn a_missing_or_infinite_value_is_named_by_column_and_row_and_the_way_out_is_hinted() {
    Place::new()
        .file("t.csv", WITH_NAN)
        .run("sample t.csv --rows 2 -o s.parquet")
        .fails()
        .naming(&["t.csv", "missing value", "column b", "row 2", "hint: --missing drop"])
        .leaving(&["t.csv"]);
    Place::new()
        .file("t.csv", "a,b\n1,2\n3,-inf\n")
        .run("sample t.csv --rows 2 -o s.parquet")
        .fails()
        .naming(&["infinite", "column b", "row 1"]);
}

#[test]
fn rows_that_lack_a_value_can_be_dropped_and_are_counted() {
    let place = Place::new().file("t.csv", WITH_NAN);
    let record = place.run("sample t.csv --rows 10 --missing drop --json -o s.parquet").succeeds().record();
    assert_eq!(record["results"]["dropped_rows"], 1);
    assert_eq!(record["results"]["rows_in"], 4);
    assert_eq!(place.row_ids("s.parquet"), [0, 1, 3, 4], "ids are positions in the input");
}

#[test]
fn a_column_that_is_not_there_is_named() {
    let place = Place::new().cities(6000);
    place.run("sample cities.parquet --rows 9 --columns x,zz -o s.parquet").fails().naming(&["cities.parquet", "zz"]);
    place.run("sample cities.parquet --rows 9 --exclude nope -o s.parquet").fails().naming(&["nope"]);
    place
        .run("regress cities.parquet --target yy --full -o m.json")
        .fails()
        .naming(&["yy"])
        .leaving(&["cities.parquet"]);
}

#[test]
fn a_text_target_is_refused() {
    let place = Place::new().cities(6000);
    place.run("regress cities.parquet --target city --full -o m.json").fails().naming(&["city", "target"]);
}

#[test]
fn absent_empty_and_unknown_files_are_told_apart() {
    let place = Place::new().file("empty.csv", "").file("t.xlsx", "x").file("header.csv", "a,b\n");
    for (table, word) in [
        ("no.parquet", "no.parquet"),
        ("empty.csv", "empty"),
        ("t.xlsx", "unknown file format"),
        ("header.csv", "no rows"),
    ] {
        place.run(&format!("sample {table} --rows 5 -o s.parquet")).fails().naming(&[table, word]);
    }
    place.run("sample no.csv --rows 5 -o s.parquet").fails().leaving(&["empty.csv", "header.csv", "t.xlsx"]);
}

#[test]
fn a_truncated_file_is_refused() {
    let whole = Place::new().cities(2000).read("cities.parquet");
    for share in [0.1, 0.5, 0.9, 0.999] {
        let cut = &whole[..(whole.len() as f64 * share) as usize];
        Place::new()
            .file("t.parquet", cut)
            .run("sample t.parquet --rows 5 -o s.parquet")
            .fails()
            .naming(&["t.parquet", "corrupt"])
            .leaving(&["t.parquet"]);
    }
}

#[test]
fn a_damaged_file_is_refused_or_read_but_never_a_crash() {
    let whole = Place::new().cities(2000).read("cities.parquet");
    for at in (0..whole.len()).step_by(whole.len() / 12) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        let place = Place::new().file("t.parquet", damaged);
        let ran = place.run("sample t.parquet --rows 50 -q -o s.parquet");
        assert!(!ran.stderr().contains("internal error"), "byte {at}: {}", ran.stderr());
        assert!(place.files().iter().all(|f| !f.ends_with(".partial")));
    }
}

#[test]
fn a_table_of_zeros_has_nothing_to_sample() {
    let place = Place::new().file("t.csv", "a,b\n0,0\n0,0\n0,0\n");
    place.run("sample t.csv --rows 2 -o s.parquet").fails().naming(&["zero"]).leaving(&["t.csv"]);
}
