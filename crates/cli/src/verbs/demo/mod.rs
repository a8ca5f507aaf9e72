//! `subspan demo`: the jobs on real data that comes with the program.
//!
//! Every job is a chapter: a function from the data to a run record and a few sentences. A new job adds its chapter to
//! [`CHAPTERS`]; its section in the report comes from its record.

mod analyze;
mod classify;
mod cluster;
mod digits;
mod flights;
mod regress;
mod sample;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use subspan::RunRecord;
use subspan_io::{IoError, write_bytes_atomically, write_json};
use subspan_report::duration;

use crate::failure::Failure;
use crate::session::{Done, Session};
use crate::summary::Summary;
use digits::Digits;
use flights::Flights;

/// As typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the report, the run records and the data go
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

/// What a chapter has to tell.
struct Chapter {
    title: &'static str,
    record: RunRecord,
}

/// What the chapters tell about, and what they find out for each other.
struct Material {
    flights: Flights,
    digits: Digits,
}

type Tell = fn(&mut Material, &Session) -> Result<Chapter, Failure>;

/// The chapters in order; each may use what the ones before found out.
const CHAPTERS: &[Tell] = &[
    |m, session| regress::chapter(&mut m.flights, session),
    |m, session| sample::chapter(&mut m.flights, session),
    |m, session| classify::chapter(&m.digits, session),
    |m, session| cluster::chapter(&m.digits, session),
    |m, session| analyze::chapter(&m.digits, session),
];

const TITLE: &str = "325,724 flights and 1,797 digits";
const LEAD: &str = "All flights that left New York City in 2013, with the weather at departure: how late do they arrive, and why? \
                    A robust fit over all of them, proved to be the best, and how few well-chosen rows give the same answer. \
                    Then hand-written digits: a subspace for each, what they make of digits never seen, \
                    what is found without any names, and two networks that become one.";

/// Runs all chapters and writes the report.
pub(crate) fn run(job: &Job, session: &Session) -> Result<Done, Failure> {
    let started = std::time::Instant::now();
    let directory = Directory::create(&job.output)?;
    let mut material =
        Material { flights: Flights::unpack(&directory.path)?, digits: Digits::unpack(&directory.path)? };
    let mut summary = Summary::new(TITLE);
    let mut records = Vec::new();
    for chapter in CHAPTERS {
        let Chapter { title, record } = chapter(&mut material, session)?;
        let story = record.results.get("story").and_then(|s| s.as_array()).cloned().unwrap_or_default();
        for (i, sentence) in story.iter().filter_map(|s| s.as_str()).enumerate() {
            summary.line(if i == 0 { title } else { "" }, sentence);
        }
        write_json(directory.inside(&record.command)?.join("run.json"), &record)?;
        for (name, svg) in subspan_report::figures(&record) {
            write_bytes_atomically(directory.path.join(&record.command).join(format!("{name}.svg")), svg.as_bytes())?;
        }
        records.push(record);
    }
    let report = directory.path.join("report.html");
    write_bytes_atomically(&report, subspan_report::html(TITLE, LEAD, &records).as_bytes())?;
    for (i, file) in [flights::FILE, digits::FILE].into_iter().enumerate() {
        summary.line(if i == 0 { "data" } else { "" }, directory.path.join(file).display().to_string());
    }
    summary.line("report", report.display().to_string());
    summary.line("time", duration(started.elapsed().as_secs_f64()));
    directory.keep();
    Ok(Done { records, title: TITLE.into(), summary })
}

/// The demo's directory; directories that it made go again if the demo does not finish and they are empty.
struct Directory {
    path: PathBuf,
    made: std::cell::RefCell<Vec<PathBuf>>,
}

impl Directory {
    fn create(path: &Path) -> Result<Self, Failure> {
        let directory = Self { path: path.into(), made: Vec::new().into() };
        directory.make(path)?;
        Ok(directory)
    }

    /// A directory of that name inside.
    fn inside(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        self.make(&path)?;
        Ok(path)
    }

    fn make(&self, path: &Path) -> Result<(), Failure> {
        match fs::create_dir(path) {
            Ok(()) => self.made.borrow_mut().push(path.into()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(source) => return Err(IoError::Write { path: path.display().to_string(), source }.into()),
        }
        Ok(())
    }

    fn keep(&self) {
        self.made.borrow_mut().clear();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for path in self.made.borrow().iter().rev() {
            // Only an empty directory goes; what was written whole may stay.
            let _ = fs::remove_dir(path);
        }
    }
}
