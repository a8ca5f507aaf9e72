//! The command line as typed. What the flags mean together is resolved by each verb.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use subspan_io::{Missing, TableOptions};

use crate::failure::Failure;
use crate::verbs::{analyze, classify, cluster, demo, matching, merge, predict, regress, sample};

/// Finds, samples, learns and aligns linear structure: the subspaces hidden in tables, in features and in weights.
#[derive(Debug, Parser)]
#[command(name = "subspan", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show every job on small real data that comes with the program
    Demo(demo::Args),
    /// Draw few weighted rows that stand for all rows of a table
    Sample(sample::Args),
    /// Fit a linear model that outliers do not sway, on a sample, on all rows, or with proof
    Regress(regress::Args),
    /// Find clusters without labels: how many, which rows, one subspace for each
    Cluster(cluster::Args),
    /// Learn one subspace per class, with calibrated probabilities, beside other classifiers
    Classify(classify::Args),
    /// Classes, probabilities and strangeness of new samples
    Predict(predict::Args),
    /// Say why merging models works or fails: barriers, distances, singular directions
    Analyze(analyze::Args),
    /// Order the units of models so that they lie closest to the first, without changing what they compute
    Match(matching::Args),
    /// Several models into one, their units matched first
    Merge(merge::Args),
}

/// Flags of every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Seed of every random choice
    #[arg(long, value_name = "N", default_value_t = 0, global = true)]
    pub(crate) seed: u64,
    /// Threads; the result does not depend on them [default: all cores]
    #[arg(long, value_name = "N", global = true, value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
    /// Print nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Tell each phase and figure as it comes
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Print the run record as JSON instead of the summary
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write a report of the run
    #[arg(long, value_name = "FILE.html", global = true)]
    pub(crate) report: Option<PathBuf>,
}

/// Flags of every verb that reads a table.
#[derive(Debug, Args)]
#[command(next_help_heading = "Table options")]
pub(crate) struct TableArgs {
    /// .parquet (a file, a directory or a pattern), .csv, .csv.gz, .arrow, .feather, .npy or .npz:KEY
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,
    /// Use only these columns, in this order
    #[arg(long, value_name = "A,B,..", value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// Leave these columns out
    #[arg(long, value_name = "A,B,..", value_delimiter = ',')]
    exclude: Vec<String>,
    /// What to do with rows that lack a value
    #[arg(long, value_name = "HOW", value_enum, default_value_t = MissingArg::Error)]
    missing: MissingArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MissingArg {
    /// Stop at the first one
    Error,
    /// Leave such rows out and count them
    Drop,
}

impl TableArgs {
    /// The table's options; with an `intercept` the first level of each text column goes.
    pub(crate) fn options(&self, target: Option<&str>, intercept: bool) -> TableOptions {
        TableOptions {
            columns: self.columns.clone(),
            exclude: self.exclude.clone(),
            target: target.map(str::to_string),
            drop_first_level: intercept,
            missing: match self.missing {
                MissingArg::Error => Missing::Error,
                MissingArg::Drop => Missing::Drop,
            },
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a whole number of at least 1 is needed".into())
}

/// Parses the program's arguments. `None` after `--help` and `--version`, which print here.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Option<Cli>, Failure> {
    Cli::try_parse_from(arguments).map(Some).or_else(|e| match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that left early is no error.
            let _ = e.print();
            Ok(None)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Err(Failure::usage(
            "a command is needed",
            Some("subspan --help lists the commands; subspan demo shows them at work"),
        )),
        _ => Err(one_line(&e.to_string())),
    })
}

/// The parser's error as one line, with its tip as the hint.
fn one_line(text: &str) -> Failure {
    let paragraph = |lines: &str| lines.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.split("\n\n");
    let message = paragraph(paragraphs.next().unwrap_or("").trim_start_matches("error: "));
    let tip = text.lines().find_map(|l| l.trim().strip_prefix("tip: ")).map(str::to_string);
    let verb = text.lines().find_map(|l| l.strip_prefix("Usage: subspan ")?.split_whitespace().next());
    let verb = verb.filter(|v| v.starts_with(char::is_alphabetic)).map_or(String::new(), |v| format!("{v} "));
    Failure::usage(message, tip.or_else(|| Some(format!("subspan {verb}--help lists the options"))))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
