//! `cargo run --release -p subspan-benches -- COMMAND`: what Subspan costs, measured.

mod kernels;
mod measure;

use std::process::ExitCode;

const USAGE: &str = "usage: subspan-benches <command>

  kernels [--json FILE]      the inner loops of subspan-linalg against gemm and memory bandwidth; raw data to FILE";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["kernels"] => kernels::run(None),
        ["kernels", "--json", file] => kernels::run(Some(file)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
