//! Outputs: checked before the work, whole or absent, quiet when asked, and no trouble when nobody listens.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::place::Place;

#[test]
fn an_output_that_cannot_be_written_is_told_before_the_work() {
    // The table does not exist either: the output is looked at first.
    let place = Place::new();
    place.run("sample t.parquet --rows 5 -o no/where/s.parquet").fails().naming(&["no/where/s.parquet"]);
    place.run("sample t.parquet --rows 5 -o .").fails().naming(&["directory"]);
    place.run("regress t.csv --target y --full -o no/m.json").fails().naming(&["no/m.json"]);
    place.run("sample t.parquet --rows 5 -o s.parquet --report no/r.html").fails().naming(&["no/r.html"]);
    place.run("demo -o no/where").fails().naming(&["no/where"]).leaving(&[]);
}

#[test]
fn an_existing_output_stays_when_the_work_fails() {
    let place = Place::new().file("s.parquet", "precious").file("t.csv", "a\nnan\n");
    place.run("sample t.csv --rows 5 -o s.parquet").fails().leaving(&["s.parquet", "t.csv"]);
    assert_eq!(place.read("s.parquet"), b"precious");
}

#[test]
fn an_output_never_replaces_the_input_or_the_report() {
    let place = Place::new().file("t.csv", "a,y\n1,2\n");
    place.run("sample t.csv --rows 5 -o ./t.csv").misuses().naming(&["t.csv", "input"]);
    place
        .run("regress t.csv --target y --full -o r --report r")
        .misuses()
        .naming(&["r ", "report"])
        .leaving(&["t.csv"]);
    assert_eq!(place.read("t.csv"), b"a,y\n1,2\n");
}

#[test]
fn quiet_means_quiet() {
    let place = Place::new().cities(6000);
    let ran = place.run("sample cities.parquet --rows 100 -q -o s.parquet").succeeds();
    assert_eq!((ran.stdout(), ran.stderr()), (String::new(), String::new()));
}

#[test]
fn verbose_tells_the_phases_on_stderr() {
    let place = Place::new().cities(6000);
    place.run("sample cities.parquet --rows 100 -v -o s.parquet").succeeds().naming(&["read:", "score:", "write:"]);
}

#[test]
fn a_report_is_one_self_contained_file() {
    let place = Place::new().cities(6000);
    place.run("sample cities.parquet --rows 100 -o s.parquet --report r.html").succeeds();
    place.run("regress cities.parquet --target y --exact -o m.json --report q.html").succeeds().leaving(&[
        "cities.parquet",
        "m.json",
        "q.html",
        "r.html",
        "s.parquet",
    ]);
    for (report, words) in [("r.html", ["cities.parquet", "rows kept"]), ("q.html", ["city=b", "Absolute residuals"])] {
        let html = String::from_utf8(place.read(report)).unwrap();
        assert!(html.starts_with("<!doctype html>") && html.contains("<svg"));
        assert!(words.iter().all(|w| html.contains(w)), "{report}");
        let outside = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http") && !outside.contains("<script") && !outside.contains("src="), "{report}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let place = Place::new().cities(6000);
    for flags in ["", "--json"] {
        let call = format!("sample cities.parquet --rows 100 -o s.parquet {flags}");
        let mut child = place.command(&call).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut help = place.command("--help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(help.stdout.take());
    assert!(help.wait_with_output().unwrap().stderr.is_empty());
}

/// A file system of 64 KiB, where the system lets us make one.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let made = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(at).output();
        made.is_ok_and(|o| o.status.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_in_one_line_and_leaves_nothing() {
    let place = Place::new().cities(6000);
    let at = place.path("disk");
    let Some(_disk) = SmallDisk::mount(&at) else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    place.run("sample cities.parquet --rows 5000 -o disk/s.parquet").fails().naming(&[
        "disk/s.parquet",
        "space",
        "hint",
    ]);
    place.run("demo -o disk/demo").fails().naming(&["space"]);
    assert!(std::fs::read_dir(&at).unwrap().next().is_none(), "nothing is left on the disk");
}
