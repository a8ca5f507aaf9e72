//! Damaged files of every format: an error or an answer, never a panic.

mod common;
mod mutate;

#[test]
fn damaged_files_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    for subject in mutate::subjects() {
        let outcome = mutate::run(&subject, dir.path(), 1, 2000);
        assert_eq!(outcome.panics, Vec::<u64>::new(), "{}: seeds that panicked", subject.name);
        assert!(outcome.refused > 0, "{}: no mutation was noticed", subject.name);
    }
}
