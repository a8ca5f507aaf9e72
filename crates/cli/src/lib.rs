//! The `subspan` program: arguments in, one of the library's jobs, a summary or a run record out.
//!
//! A library with one function, [`main`], so that the program of `cargo install` and the command of the Python wheel are one.
//!
//! A verb is a module under `verbs` with three parts: `Args` as typed, `Job` resolved and checked, `run`. To add a verb,
//! add its module and a line in each match of [`args`] and [`run`].

mod args;
mod describe;
mod failure;
mod interrupt;
mod memory;
mod session;
mod shards;
mod summary;
mod verbs;
mod watch;

use std::ffi::OsString;
use std::panic;

use args::{Cli, Verb};
use failure::Failure;
use session::Session;
use verbs::{analyze, classify, cluster, demo, matching, merge, predict, regress, sample};

/// Blocks of a table are allocated and freed in turn. The system's allocator gives large ones back each time where it is told to trim
/// early, as Dask tells its workers, and then most of a pass is page faults (3.7 instead of 1.4 s of processor for 10⁷ rows).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the program with its arguments, the first being its own name; returns the exit code. Takes over the process's panic
/// hook and its handling of interrupts.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    failure::silence_panics();
    interrupt::install();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match panic::catch_unwind(|| args::parse(arguments).and_then(|cli| cli.map_or(Ok(()), run))) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => failure.report(),
        // The hook has told the user.
        Err(_) => {
            subspan_io::remove_partial_files();
            failure::WORK
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let mut session = Session::resolve(cli.common)?;
    // Every verb but the demo: what was typed becomes a job, the session learns what the job reads, the job runs.
    macro_rules! job {
        ($verb:ident, $args:ident) => {
            $verb::run(&session.reading($verb::Job::resolve($args)?, $verb::Job::inputs)?, &session)?
        };
    }
    let done = match cli.verb {
        Verb::Demo(args) => demo::run(&demo::Job::resolve(args), &session)?,
        Verb::Sample(args) => job!(sample, args),
        Verb::Regress(args) => job!(regress, args),
        Verb::Cluster(args) => job!(cluster, args),
        Verb::Classify(args) => job!(classify, args),
        Verb::Analyze(args) => job!(analyze, args),
        Verb::Predict(args) => job!(predict, args),
        Verb::Match(args) => job!(matching, args),
        Verb::Merge(args) => job!(merge, args),
    };
    session.tell(done)
}
