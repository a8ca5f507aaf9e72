//! `cargo xtask test | parity | tidy | bench`: everything the continuous integration does, in Rust.

mod parity;
mod tidy;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

const USAGE: &str = "usage: cargo xtask <command>

  test     formatting, clippy, tidy, every test of the workspace, then the wheel and parity with NumPy and its kin;
           `test --all` also installs PyTorch and Ray (5.5 GB, most of it the CUDA libraries of PyPI's PyTorch)
  parity   the last step of `test` alone: builds the wheel and runs tests/python; takes --all too
  tidy     the rules of the house; `tidy --list` says what they are and why
  bench    the benchmarks, in release mode; further arguments are theirs";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let passed = match words.as_slice() {
        ["test"] => test(false),
        ["test", "--all"] => test(true),
        ["parity"] => parity::run(root(), false),
        ["parity", "--all"] => parity::run(root(), true),
        ["tidy"] => tidy::run(root()),
        ["tidy", "--list"] => {
            tidy::list();
            true
        }
        ["bench", rest @ ..] => {
            let mut command = vec!["run", "--release", "--package", "subspan-benches", "--"];
            command.extend(rest);
            cargo(&command)
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Stops at the first step that fails: cheap steps come first.
fn test(all: bool) -> bool {
    let start = Instant::now();
    let passed = step("format", || cargo(&["fmt", "--all", "--", "--check"]))
        && step("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
        && step("tidy", || tidy::run(root()))
        && step("test", || cargo(&["test", "--workspace"]))
        && step("parity", || parity::run(root(), all));
    if passed {
        eprintln!("xtask: everything passed in {:.0} s", start.elapsed().as_secs_f64());
    }
    passed
}

fn step(name: &str, run: impl FnOnce() -> bool) -> bool {
    eprintln!("xtask: {name}");
    let passed = run();
    if !passed {
        eprintln!("xtask: {name} failed");
    }
    passed
}

fn cargo(args: &[&str]) -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    match Command::new(cargo).args(args).current_dir(root()).status() {
        Ok(status) => status.success(),
        Err(e) => {
            eprintln!("xtask: cannot start cargo: {e}");
            false
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
