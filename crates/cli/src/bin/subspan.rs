//! The `subspan` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(subspan_cli::main(std::env::args_os()))
}
