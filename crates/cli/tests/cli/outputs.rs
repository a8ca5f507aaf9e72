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
    place.run("sample t.parquet --rows 5 -o s.parquet --report r/").fails().naming(&["r/", "names no file"]);
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
fn a_report_is_never_an_input() {
    let place = Place::new().file("t.csv", "a,y\n1,2\n").file("x.npy", "x").file("m.safetensors", "m");
    for (call, file) in [
        ("sample t.csv --rows 60 -o s.parquet", "t.csv"),
        ("regress t.csv --target y --full -o m.json", "./t.csv"),
        ("classify x.npy --labels t.csv:y -o c.safetensors", "t.csv"),
        ("classify x.npy --labels t.csv:y --start m.safetensors -o c.safetensors", "m.safetensors"),
        ("predict m.safetensors x.npy -o l.npy", "m.safetensors"),
        ("cluster x.npy --truth t.csv:y -o out", "t.csv"),
        ("merge m.safetensors a.safetensors -o c.safetensors", "m.safetensors"),
        ("match m.safetensors a.safetensors --spec t.csv -o out", "t.csv"),
        ("analyze m.safetensors a.safetensors --data x.npy --labels t.csv:y -o out", "x.npy"),
        ("analyze --study width --data x.npy --labels t.csv:y -o out", "x.npy"),
    ] {
        let call = format!("{call} --report {file}");
        let left = ["m.safetensors", "t.csv", "x.npy"];
        place.run(&call).misuses().naming(&[file.trim_start_matches("./"), "input", "report"]).leaving(&left);
    }
    place.run("sample t.csv --rows 5 -o r --report ./r").misuses().naming(&["report"]);
    assert_eq!(place.read("t.csv"), b"a,y\n1,2\n");
}

#[test]
fn an_output_never_replaces_any_file_that_is_read() {
    let place = Place::new().file("x.npy", "x").file("good.toml", "spec").file("run.json", "labels");
    for (call, file) in [
        ("merge a b --data x.npy --repair -o x.npy", "x.npy"),
        ("merge a b --spec good.toml -o ./good.toml", "good.toml"),
        ("merge a b --data x.npy --labels good.toml -o good.toml", "good.toml"),
        ("merge a b --rule task --base x.npy -o x.npy", "x.npy"),
        ("cluster x.npy --weights run.json -o .", "run.json"),
        ("analyze a b --data x.npy --labels run.json -o .", "run.json"),
    ] {
        let left = ["good.toml", "run.json", "x.npy"];
        place.run(call).misuses().naming(&[file, "input"]).leaving(&left);
    }
    // Another file in a directory that is read would be read the next time.
    std::fs::create_dir(place.path("dir")).unwrap();
    for table in ["dir", "dir/*.parquet"] {
        place.run(&format!("sample {table} --rows 5 -o dir/s.parquet")).misuses().naming(&["dir/s.parquet", "input"]);
    }
    assert!(place.files_in("dir").is_empty());
}

#[test]
fn names_that_promise_another_kind_of_file_are_refused() {
    let place = Place::new();
    for (call, extension) in [
        ("sample t.csv --rows 5 -o s.csv", ".parquet"),
        ("regress t.csv --target y --full -o m.toml", ".json"),
        ("classify x.npy --labels t.csv:y -o m.onnx", ".safetensors"),
        ("classify x.npy --labels t.csv:y -o m.safetensors --onnx m.pt", ".onnx"),
        ("predict m.safetensors x.npy -o l.csv", ".npy"),
        ("predict m.safetensors x.npy -o l.npy --ood s.parquet", ".npy"),
    ] {
        place.run(call).misuses().naming(&[extension, "hint: name it"]).leaving(&[]);
    }
    let place = place.file("d.npy", "a file");
    place.run("cluster x.npy -o d.npy").fails().naming(&["d.npy", "a directory is needed"]).leaving(&["d.npy"]);
}

/// A run whose standard output or error is a device that is always full; its exit code and what it could still say.
#[cfg(target_os = "linux")]
fn on_a_full_device(call: &str, out: bool) -> (Option<i32>, String) {
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let place = Place::new();
    let mut command = place.command(call);
    let (out, err) = if out { (full(), Stdio::piped()) } else { (Stdio::piped(), full()) };
    let output = command.stdout(out).stderr(err).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_standard_output_is_an_error_and_a_full_standard_error_is_none() {
    assert_eq!(on_a_full_device("sample nosuch.csv --rows 5 -o s.parquet", false).0, Some(1));
    for call in ["--help", "help", "sample --help", "--version"] {
        let (code, text) = on_a_full_device(call, true);
        assert!(code == Some(1) && text.starts_with("error: cannot write standard output"), "{call}: {code:?} {text}");
    }
}

/// Runs the program with a limit on the size of files, in blocks of 512 or 1,024 bytes.
#[test]
#[cfg(unix)]
fn a_limit_on_the_size_of_files_is_an_error_and_leaves_nothing() {
    let place = Place::new().cities(6000);
    let call =
        format!("ulimit -f 1; exec {} sample cities.parquet --rows 5000 -o s.parquet", env!("CARGO_BIN_EXE_subspan"));
    let output = Command::new("sh").args(["-c", &call]).current_dir(place.path("")).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.starts_with("error: cannot write s.parquet"), "{text}");
    assert_eq!(place.files(), ["cities.parquet"]);
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
