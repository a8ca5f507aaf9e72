//! What every verb shares: seed, threads, voice, and where the outcome goes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use subspan::RunRecord;
use subspan_io::{AtomicFile, IoError, is_part_of, same_place};

use crate::args::Common;
use crate::failure::{Failure, say};
use crate::memory;
use crate::summary::Summary;
use crate::watch::Watch;

/// More threads than any machine has cores; each costs memory, and beyond some tens of thousands none can be started.
const MAX_THREADS: usize = 1024;

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
    /// What the job reads, as typed.
    inputs: Vec<String>,
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
            if !(1..=MAX_THREADS).contains(&threads) {
                let message = format!("--threads must be from 1 to {MAX_THREADS}, not {threads}");
                return Err(Failure::usage(message, None::<String>));
            }
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
            inputs: Vec::new(),
        })
    }

    /// Takes note of what a job reads; the report must be none of it. Hands the job back.
    pub(crate) fn reading<J>(&mut self, job: J, inputs: fn(&J) -> Vec<&str>) -> Result<J, Failure> {
        self.inputs = inputs(&job).into_iter().map(str::to_string).collect();
        if let Some(report) = &self.report {
            self.no_input(report.target(), "report")?;
        }
        Ok(job)
    }

    /// Opens an output before the long work.
    ///
    /// # Errors
    /// As [`Session::apart`], or if the name's extension is another than `extension`, which says what is written.
    pub(crate) fn create(&self, output: &Path, extension: &str) -> Result<AtomicFile, Failure> {
        self.apart(output)?;
        has_extension(output, extension)?;
        Ok(AtomicFile::create(output)?)
    }

    /// Checks that an output is neither an input nor the report.
    pub(crate) fn apart(&self, output: &Path) -> Result<(), Failure> {
        self.no_input(output, "output")?;
        if self.report.as_ref().is_some_and(|report| same_place(output, report.target())) {
            let message = format!("{} is the report, it cannot be the output too", output.display());
            return Err(Failure::usage(message, Some("give the output another name")));
        }
        Ok(())
    }

    fn no_input(&self, path: &Path, what: &str) -> Result<(), Failure> {
        let Some(input) = self.inputs.iter().find(|input| is_part_of(path, input)) else { return Ok(()) };
        let shown = path.display();
        let message = if same_place(path, Path::new(input)) {
            format!("{shown} is the input, it cannot be the {what} too")
        } else {
            format!("{shown} is part of the input {input}, it cannot be the {what} too")
        };
        Err(Failure::usage(message, Some(format!("give the {what} another name"))))
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
                say(&format!("warning: {warning}"));
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

/// Checks that a name does not promise another kind of file than `extension`, which is written.
pub(crate) fn has_extension(output: &Path, extension: &str) -> Result<(), Failure> {
    match output.extension() {
        Some(found) if !found.eq_ignore_ascii_case(extension) => {
            let message = format!("{}: what is written is a .{extension} file", output.display());
            let name = output.with_extension(extension);
            Err(Failure::usage(message, Some(format!("name it {}", name.display()))))
        }
        _ => Ok(()),
    }
}

/// Checks that no two outputs have one name.
pub(crate) fn distinct(outputs: &[&PathBuf]) -> Result<(), Failure> {
    match outputs.iter().enumerate().find(|(i, path)| outputs[..*i].iter().any(|other| same_place(path, other))) {
        Some((_, path)) => {
            let message = format!("{} is given for two outputs", path.display());
            Err(Failure::usage(message, Some("give each output a name of its own")))
        }
        None => Ok(()),
    }
}

/// Prints to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    printed(out.write_all(text.trim_end().as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()))
}

/// The outcome of printing to standard output. A reader that left early (`| head`) is no error.
pub(crate) fn printed(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(IoError::Write { path: "standard output".into(), source }.into())
        }
        _ => Ok(()),
    }
}
