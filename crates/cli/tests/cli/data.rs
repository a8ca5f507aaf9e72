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

#[test]
fn the_rows_of_a_sample_are_not_taken_for_rows_that_count_alike() {
    let place = Place::new().cities(6000);
    place.run("sample cities.parquet --rows 300 -o s.parquet").succeeds();
    for call in ["regress s.parquet --target y --full -o m.json", "sample s.parquet --rows 50 -o t.parquet"] {
        place
            .run(call)
            .fails()
            .naming(&["s.parquet", "weights", "hint: take the table", "--exclude row_id,probability,weight"])
            .leaving(&["cities.parquet", "s.parquet"]);
        place.run(&format!("{call} --exclude row_id,probability,weight")).succeeds();
        let output = call.rsplit(' ').next().unwrap();
        std::fs::remove_file(place.path(output)).unwrap();
    }
}

#[test]
fn one_cell_that_makes_a_column_text_is_named() {
    let mut rows: Vec<String> = (0..40).map(|i| format!("{i},{}", i * i)).collect();
    rows[17] = "n/x,5".into();
    let place = Place::new().file("t.csv", format!("a,b\n{}\n", rows.join("\n")));
    let ran = place.run("sample t.csv --rows 20 -o s.parquet").succeeds();
    assert!(
        ran.stderr().contains("column a is text because of \"n/x\", but 39 of its 40 levels are numbers"),
        "{}",
        ran.stderr()
    );
    let words = Place::new().file("t.csv", "a,b\nx,1\ny,2\nx,4\n2,5\n");
    let ran = words.run("sample t.csv --rows 2 -o s.parquet").succeeds();
    assert!(!ran.stderr().contains("is text because"), "{}", ran.stderr());
}

#[test]
fn sums_that_overflow_and_levels_without_rows_are_errors_not_results() {
    let huge: Vec<String> = (0..30).map(|i| format!("{}e300,{i}", 1 + i % 7)).collect();
    Place::new()
        .file("t.csv", format!("a,b\n{}\n", huge.join("\n")))
        .run("regress t.csv --target a --loss l2 --full -o m.json")
        .fails()
        .leaving(&["t.csv"]);
    let place = Place::new().cities(2000);
    for quantile in ["1e-6", "1e-9", "0.999999999"] {
        let ran = place
            .run(&format!("regress cities.parquet --target y --full --loss quantile --quantile={quantile} -o m.json"));
        assert!(!ran.stderr().contains("internal error"), "{}", ran.stderr());
    }
}
