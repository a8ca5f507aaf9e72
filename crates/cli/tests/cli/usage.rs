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
        ("--rows 10 --threads -1", ["--threads", "not a whole number of at least 0"]),
        ("--rows 10 --threads 100000", ["--threads", "1024"]),
        ("--rows 10 --seed -1", ["--seed", "not a whole number of at least 0"]),
        ("--rows 10 --seed=", ["--seed", "not a whole number of at least 0"]),
        ("--rows 1.5", ["--rows", "not a whole number of at least 0"]),
        ("--rows 10 -p=", ["-p", "not a number"]),
        ("--rows 10 --columns=", ["--columns", "value"]),
        ("--rows 10 --missing ignore", ["--missing", "ignore"]),
        ("--rows 10 -q -v", ["--quiet", "--verbose"]),
    ] {
        let ran = place.run(&format!("sample t.csv -o s.parquet {flags}")).misuses().naming(&words).leaving(&[]);
        assert!(!ran.stderr().contains("subspan --help") && !ran.stderr().contains("-- -"), "{}", ran.stderr());
    }
}

#[test]
fn flags_without_a_meaning_are_refused_not_ignored() {
    let place = Place::new();
    for (call, words) in [
        ("classify x.npy --labels y.npy --method linear -k 3 -o m.safetensors", ["-k", "linear"]),
        ("classify x.npy --labels y.npy --method linear --gamma 3 -o m.safetensors", ["--gamma", "linear"]),
        ("classify x.npy --labels y.npy --method clafic --lr 1 -o m.safetensors", ["--lr", "clafic"]),
        ("classify x.npy --labels y.npy --method clafic --epochs 1 -o m.safetensors", ["--epochs", "clafic"]),
        ("classify x.npy --labels y.npy --method linear --start m.npy -o m.safetensors", ["--start", "linear"]),
        ("analyze a b --epochs 3 -o out", ["--study", "required"]),
        ("match a b --data x.npy -o out", ["--data", "weights"]),
        ("match a b --many anchor -o out", ["--many", "two models"]),
        ("regress t.csv --target y --exclude y --full -o m.json", ["--exclude y", "target"]),
    ] {
        let ran = place.run(call).misuses().naming(&words).leaving(&[]);
        assert!(!ran.stderr().contains("--center"), "{}", ran.stderr());
    }
    // Shares below zero are legal, so the models are looked for.
    place.run("merge a b --weights -1,2 -o m.safetensors").fails().naming(&["cannot open a"]);
}

#[test]
fn help_lists_each_flag_under_its_heading() {
    let place = Place::new();
    for (verb, heading, flags) in [
        ("sample", "Table options:", ["--columns", "--exclude", "--missing"]),
        ("analyze", "Study options:", ["--study", "--values", "--depth"]),
    ] {
        let help = place.run(&format!("{verb} --help")).succeeds().stdout();
        let (_, rest) = help.split_once(heading).unwrap();
        let section = rest.split_once("\n\nCommon options:").map_or(rest, |(section, _)| section);
        let section = section.split("\nOptions:").next().unwrap();
        assert!(flags.iter().all(|flag| section.contains(flag)), "{section}");
        assert!(!section.contains("--output"), "{section}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn an_argument_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let mut command = place.command("sample --rows 5 -o s.parquet");
    let output = command.arg(std::ffi::OsStr::from_bytes(b"t\xff.csv")).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && text.contains("t\u{fffd}.csv") && text.contains("UTF-8"), "{text}");
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
