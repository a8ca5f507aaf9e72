//! What every verb shares: seed, threads, voice, and where the outcome goes.

use std::io::{self, Write};
use std::path::Path;

use subspan::RunRecord;
use subspan_io::{AtomicFile, IoError};

use crate::args::Common;
use crate::failure::Failure;
use crate::memory;
use crate::summary::Summary;
use crate::watch::Watch;

/// How much the program says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    Quiet,
    Normal,
    Verbose,
}

/// The common flags, resolved.
pub(crate) struct Session {
    pub(crate) seed: u64,
    pub(crate) threads: usize,
    pub(crate) voice: Voice,
    json: bool,
    report: Option<AtomicFile>,
}

/// What a verb hands back.
pub(crate) struct Done {
    /// One record per job that ran.
    pub(crate) records: Vec<RunRecord>,
    pub(crate) title: String,
    pub(crate) summary: Summary,
}

impl Session {
    /// Sets up threads and opens the report.
    pub(crate) fn resolve(common: Common) -> Result<Self, Failure> {
        if let Some(threads) = common.threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
            pool.map_err(|e| Failure::Work { message: format!("cannot start {threads} threads: {e}"), hint: None })?;
        }
        let voice = match (common.quiet, common.verbose) {
            (true, _) => Voice::Quiet,
            (_, true) => Voice::Verbose,
            _ => Voice::Normal,
        };
        Ok(Self {
            seed: common.seed,
            threads: rayon::current_num_threads(),
            voice,
            json: common.json,
            report: common.report.map(AtomicFile::create).transpose()?,
        })
    }

    /// Opens an output before the long work. It must be neither the input nor the report.
    pub(crate) fn create(&self, output: &Path, input: &str) -> Result<AtomicFile, Failure> {
        self.create_apart(output, &[input])
    }

    /// [`Session::create`] with several inputs.
    pub(crate) fn create_apart(&self, output: &Path, inputs: &[&str]) -> Result<AtomicFile, Failure> {
        let inputs = inputs.iter().map(|input| (Path::new(*input), "input"));
        let report = self.report.as_ref().map(|report| (report.target(), "report"));
        for (other, what) in inputs.chain(report) {
            if same_place(output, other) {
                let message = format!("{} is the {what}, it cannot be the output too", output.display());
                return Err(Failure::usage(message, Some("give the output another name")));
            }
        }
        Ok(AtomicFile::create(output)?)
    }

    /// Whether a report was asked for.
    pub(crate) fn wants_report(&self) -> bool {
        self.report.is_some()
    }

    /// The observer of a job that begins now.
    pub(crate) fn watch(&self) -> Watch {
        Watch::new(self.voice)
    }

    /// An empty record of `command`.
    pub(crate) fn record(&self, command: &str) -> RunRecord {
        RunRecord::new(command, self.seed, self.threads)
    }

    /// Completes a record with the run's times and memory.
    pub(crate) fn close(&self, record: &mut RunRecord, watch: &Watch) {
        record.seconds = watch.stop();
        record.peak_rss_bytes = memory::peak_rss_bytes();
    }

    /// Writes the report and tells the user what came out.
    pub(crate) fn tell(self, done: Done) -> Result<(), Failure> {
        if let Some(mut file) = self.report {
            let html = subspan_report::html(&done.title, "", &done.records);
            let path = file.target().display().to_string();
            file.write_all(html.as_bytes()).map_err(|source| IoError::Write { path, source })?;
            file.commit()?;
        }
        if self.voice != Voice::Quiet {
            for warning in &done.summary.warnings {
                eprintln!("warning: {warning}");
            }
        }
        if self.json {
            // Several jobs make several records; one makes one.
            let text = match done.records.as_slice() {
                [record] => serde_json::to_string_pretty(record),
                records => serde_json::to_string_pretty(records),
            };
            print(&text.map_err(|e| Failure::Work { message: e.to_string(), hint: None })?)
        } else if self.voice != Voice::Quiet {
            print(&done.summary.to_string())
        } else {
            Ok(())
        }
    }
}

/// Whether two paths name one file, there already or not.
pub(crate) fn same_place(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    real(a) == real(b)
}

/// Prints to standard output. A reader that left early (`| head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.trim_end().as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(IoError::Write { path: "standard output".into(), source }.into())
        }
        _ => Ok(()),
    }
}
