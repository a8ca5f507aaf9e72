//! Command lines that make no sense: exit code 2, one line, and nothing left behind.

use crate::place::Place;

#[test]
fn help_and_version_are_answers_not_errors() {
    let place = Place::new();
    place.run("--help").succeeds().saying(&["sample", "regress", "demo", "--seed"]);
    place.run("sample --help").succeeds().saying(&["--epsilon", "sensitivity+leverage", "--json"]);
    place.run("--version").succeeds().saying(&[env!("CARGO_PKG_VERSION")]);
    place.run("").misuses().naming(&["command", "--help"]);
    place.run("paint").misuses().naming(&["paint"]);
}

#[test]
fn an_unknown_flag_is_named_and_the_nearest_one_hinted() {
    let place = Place::new().cities(6000);
    place.run("sample cities.parquet --rouws 5 -o s.parquet").misuses().naming(&["--rouws", "hint", "--rows"]);
}

#[test]
fn a_sample_has_exactly_one_size() {
    let place = Place::new().cities(6000);
    place.run("sample cities.parquet -o s.parquet").misuses().naming(&["--rows", "--epsilon"]);
    place
        .run("sample cities.parquet --rows 5 --epsilon 0.1 -o s.parquet")
        .misuses()
        .naming(&["--rows", "--epsilon"])
        .leaving(&["cities.parquet"]);
}

#[test]
fn numbers_out_of_range_are_refused_before_any_work() {
    // The table does not exist: the flags are looked at first.
    let place = Place::new();
    for (flags, words) in [
        ("--rows 0", ["rows", "0"]),
        ("--rows -3", ["--rows", "-3"]),
        ("--rows many", ["--rows", "many"]),
        ("--rows 10 -p 0.5", ["p ", "0.5"]),
        ("--rows 10 -p -1", ["p ", "-1"]),
        ("--rows 10 -p NaN", ["p ", "NaN"]),
        ("--rows 10 -p inf", ["p ", "inf"]),
        ("--epsilon 0", ["epsilon", "0"]),
        ("--epsilon 1.5", ["epsilon", "1.5"]),
        ("--epsilon 0.1 -p 3", ["epsilon", "3"]),
        ("--rows 10 --rule best", ["--rule", "best"]),
        ("--rows 10 --rule leverage -p 1", ["p ", "leverage"]),
        ("--rows 10 --draw all", ["--draw", "all"]),
        ("--rows 10 --threads 0", ["--threads", "0"]),
        ("--rows 10 --missing ignore", ["--missing", "ignore"]),
        ("--rows 10 -q -v", ["--quiet", "--verbose"]),
    ] {
        place.run(&format!("sample t.csv -o s.parquet {flags}")).misuses().naming(&words).leaving(&[]);
    }
}

#[test]
fn a_regression_is_asked_for_in_full() {
    let place = Place::new();
    for (flags, words) in [
        ("", ["--rows", "--exact"]),
        ("--full --exact", ["--full", "--exact"]),
        ("--rows 0", ["rows", "0"]),
        ("--full --loss lp", ["-p", "lp"]),
        ("--full --loss lp -p 0.9", ["p ", "0.9"]),
        ("--full --loss huber", ["--delta", "huber"]),
        ("--full --loss huber --delta 0", ["delta", "0"]),
        ("--full --loss quantile --quantile 0.5,1", ["quantile", "1"]),
        ("--full --loss logistic --l2 -1", ["l2", "-1"]),
        ("--full --loss l1 --delta 2", ["--delta", "l1"]),
        ("--full -p 3", ["-p", "l1"]),
    ] {
        let call = format!("regress t.csv --target y -o m.json {flags}");
        place.run(&call).misuses().naming(&words).leaving(&[]);
    }
    place.run("regress t.csv --full -o m.json").misuses().naming(&["--target"]);
    place.run("regress t.csv --full --target y").misuses().naming(&["--output"]);
}
