//! The long run of the mutation test: `cargo run --release -p subspan-io --example mutate -- 100000` damages that many files in
//! total, over all formats, and fails if any reader panics.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/mutate/mod.rs"]
mod mutate;

fn main() {
    let total: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let first_seed: u64 = std::env::args().nth(2).and_then(|n| n.parse().ok()).unwrap_or(1);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let subjects = mutate::subjects();
    let each = total.div_ceil(subjects.len() as u64);
    let mut failed = false;
    for subject in &subjects {
        let outcome = mutate::run(subject, dir.path(), first_seed, each);
        println!(
            "{:22} {:6} read, {:6} refused ({} after a caught panic of a decoder), panics at seeds {:?}",
            subject.name, outcome.accepted, outcome.refused, outcome.caught, outcome.panics
        );
        failed |= !outcome.panics.is_empty();
    }
    std::process::exit(i32::from(failed));
}
