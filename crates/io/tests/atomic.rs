//! Outputs are whole or absent, and a place that cannot be written to is known at once.

mod common;

use std::io::Write;
use std::path::Path;

use common::*;
use subspan_io::{AtomicFile, IoError, remove_partial_files, write_bytes_atomically, write_json, write_sample};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn nothing_shows_before_the_commit_and_nothing_is_left_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.bin");
    std::fs::write(&path, "old").unwrap();
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(names(dir.path()).len(), 2);
    drop(file);
    assert_eq!(names(dir.path()), ["out.bin"]);
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(b"new").unwrap();
    file.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert_eq!(names(dir.path()), ["out.bin"]);
}

#[test]
fn a_file_that_is_flushed_while_it_is_written_is_whole_or_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.bin");
    // Two flushes begin on the way.
    let part: Vec<u8> = (0..1 << 23).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = AtomicFile::create(&path).unwrap();
    file.reserve(17 * part.len() as u64).unwrap();
    (0..17).for_each(|_| file.write_all(&part).unwrap());
    assert!(!path.exists());
    file.commit().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() == 17 * part.len() && bytes.chunks(part.len()).all(|chunk| chunk == part));
    let mut file = AtomicFile::create(&path).unwrap();
    file.reserve(17 * part.len() as u64).unwrap();
    (0..9).for_each(|_| file.write_all(&part).unwrap());
    drop(file);
    assert_eq!(names(dir.path()), ["out.bin"]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes.len() as u64);
}

#[test]
fn an_unwritable_place_is_an_error_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().display();
    let line = |path: String| AtomicFile::create(&path).unwrap_err().to_string();
    assert_eq!(line(format!("{root}")), format!("cannot write {root}: it is a directory"));
    assert_eq!(
        line(format!("{root}/none/out.json")),
        format!("cannot write {root}/none/out.json: no such file or directory")
    );
    // A path through a file: refused for every user, root too.
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(line(format!("{root}/file/out.json")), format!("cannot write {root}/file/out.json: not a directory"));
    assert_eq!(names(dir.path()), ["file"]);
    assert_eq!(line("/dev/null".into()), "cannot write /dev/null: it is no regular file");
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_and_the_new_file_has_the_usual_mode() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    write_bytes_atomically(&link, b"new").unwrap();
    assert!(link.is_symlink());
    assert_eq!(std::fs::read(&real).unwrap(), b"new");
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&real), mode(&plain));
}

#[test]
fn bytes_and_json_are_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.json");
    write_json(&path, &serde_json::json!({"b": 1, "a": [2.5]})).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\n  \"b\": 1,\n  \"a\": [\n    2.5\n  ]\n}\n");
    write_bytes_atomically(&path, b"text").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"text");
}

/// The device whose every write fails with "no space left".
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_with_a_hint() {
    let e = std::fs::File::options().write(true).open("/dev/full").unwrap().write_all(b"x").unwrap_err();
    let e = IoError::Write { path: "out.parquet".into(), source: e };
    assert_eq!(e.to_string(), "cannot write out.parquet: no space left on device");
    assert_eq!(e.hint().unwrap(), "free some space or write elsewhere");
}

/// Runs where a file system can be mounted (as root); elsewhere there is no full disk to be had.
#[cfg(target_os = "linux")]
#[test]
fn a_sample_on_a_full_disk_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
        .arg(&small)
        .stderr(std::process::Stdio::null())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        return;
    }
    let mut mixer = Mixer(1);
    let values: Vec<f64> = (0..20_000).map(|_| mixer.unit()).collect();
    let table = open(&put(&dir, "t.npy", &npy_f64(20_000, 1, &values)));
    let ids: Vec<u64> = (0..20_000).collect();
    let outcome = write_sample(small.join("out.parquet"), &table, &ids, &values, &values, &[]);
    let left = names(&small);
    std::process::Command::new("umount").arg(&small).status().unwrap();
    let e = cause(outcome.unwrap_err());
    assert!(e.to_string().ends_with("out.parquet: no space left on device"), "{e}");
    assert!(e.hint().is_some());
    assert_eq!(left, Vec::<String>::new());
}

/// The registry is the whole process's: this test runs as a process of its own.
#[test]
fn an_interrupt_removes_what_is_half_written() {
    const CHILD: &str = "SUBSPAN_TEST_INTERRUPT_DIR";
    if let Some(dir) = std::env::var_os(CHILD) {
        let mut file = AtomicFile::create(Path::new(&dir).join("out.bin")).unwrap();
        file.write_all(b"half").unwrap();
        remove_partial_files();
        std::process::exit(0);
    }
    let dir = tempfile::tempdir().unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_interrupt_removes_what_is_half_written"])
        .env(CHILD, dir.path())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(names(dir.path()), Vec::<String>::new());
}
