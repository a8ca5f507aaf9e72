//! The `subspan` program: arguments in, one of the library's jobs, a summary or a run record out.
//!
//! A verb is a module under `verbs` with three parts: `Args` as typed, `Job` resolved and checked, `run`. To add a verb,
//! add its module and a line in each match of [`args`] and [`run`].

mod args;
mod describe;
mod failure;
mod interrupt;
mod memory;
mod session;
mod summary;
mod verbs;
mod watch;

use std::panic;
use std::process::ExitCode;

use args::{Cli, Verb};
use failure::Failure;
use session::Session;
use verbs::{classify, cluster, demo, predict, regress, sample};

fn main() -> ExitCode {
    failure::silence_panics();
    interrupt::install();
    let outcome = panic::catch_unwind(|| args::parse().and_then(run));
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.report(),
        // The hook has told the user.
        Err(_) => {
            subspan_io::remove_partial_files();
            ExitCode::from(failure::WORK)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let session = Session::resolve(cli.common)?;
    let done = match cli.verb {
        Verb::Demo(args) => demo::run(&demo::Job::resolve(args), &session)?,
        Verb::Sample(args) => sample::run(&sample::Job::resolve(args)?, &session)?,
        Verb::Regress(args) => regress::run(&regress::Job::resolve(args)?, &session)?,
        Verb::Cluster(args) => cluster::run(&cluster::Job::resolve(args)?, &session)?,
        Verb::Classify(args) => classify::run(&classify::Job::resolve(args)?, &session)?,
        Verb::Predict(args) => predict::run(&predict::Job::resolve(args)?, &session)?,
    };
    session.tell(done)
}
