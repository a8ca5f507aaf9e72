//! The command line as typed. What the flags mean together is resolved by each verb.

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::{IntErrorKind, ParseFloatError, ParseIntError};
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser as NonEmpty;
use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use subspan_io::{Missing, TableOptions};

use crate::failure::Failure;
use crate::session::printed;
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
    #[arg(long, value_name = "N", global = true)]
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

/// Where the help lists them.
const TABLE: &str = "Table options";

/// Flags of every verb that reads a table.
#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// .parquet (a file, a directory or a pattern), .csv, .csv.gz, .arrow, .feather, .npy or .npz:KEY
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,
    /// Use only these columns, in this order
    #[arg(long, value_name = "A,B,..", value_delimiter = ',', value_parser = NonEmpty::new(), help_heading = TABLE)]
    columns: Option<Vec<String>>,
    /// Leave these columns out
    #[arg(long, value_name = "A,B,..", value_delimiter = ',', value_parser = NonEmpty::new(), help_heading = TABLE)]
    exclude: Vec<String>,
    /// What to do with rows that lack a value
    #[arg(long, value_name = "HOW", value_enum, default_value_t = MissingArg::Error, help_heading = TABLE)]
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
    /// Whether a column is left out by name.
    pub(crate) fn excludes(&self, column: &str) -> bool {
        self.exclude.iter().any(|name| name == column)
    }

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

/// Parses the program's arguments. `None` after `--help` and `--version`, which print here.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Option<Cli>, Failure> {
    let given = arguments.clone();
    let parsed = command().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map(Some).or_else(|e| match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            printed(e.print().and_then(|()| io::stdout().flush()))?;
            Ok(None)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Err(Failure::usage(
            "a command is needed",
            Some("subspan --help lists the commands; subspan demo shows them at work"),
        )),
        _ => Err(one_line(&e, &given)),
    })
}

/// The definition. A number below zero is a value of its flag, out of range or not, and not a flag.
fn command() -> Command {
    let numbers = |arg: clap::Arg| {
        let takes_values = arg.get_action().takes_values() && !arg.is_positional();
        if takes_values { arg.allow_negative_numbers(true) } else { arg }
    };
    Cli::command().mut_args(numbers).mut_subcommands(|verb| verb.mut_args(numbers))
}

/// The parser's error as one line, with its tip as the hint.
fn one_line(e: &clap::Error, given: &[OsString]) -> Failure {
    let verbs = Cli::command();
    let verb = verbs.get_subcommands().map(Command::get_name).find(|name| given.iter().skip(1).any(|a| a == name));
    let help = format!("subspan {}--help lists the options", verb.map_or(String::new(), |verb| format!("{verb} ")));
    let text = e.to_string();
    let tip = text.lines().find_map(|l| l.trim().strip_prefix("tip: ")).map(str::to_string);
    Failure::usage(message(e, &text, given), Some(tip.unwrap_or(help)))
}

fn message(e: &clap::Error, text: &str, given: &[OsString]) -> String {
    if e.kind() == ErrorKind::InvalidUtf8
        && let Some(argument) = given.iter().find(|argument| argument.to_str().is_none())
    {
        return format!("the argument {} is no valid UTF-8", argument.display());
    }
    let mut message = text.split("\n\n").next().unwrap_or("").split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(rest) = message.strip_prefix("error: ") {
        message = rest.to_string();
    }
    // The words that numbers fail with are for programmers.
    if e.kind() == ErrorKind::ValueValidation
        && let Some(source) = std::error::Error::source(e)
        && let Some(start) = message.strip_suffix(&source.to_string())
    {
        let plain = match source.downcast_ref::<ParseIntError>().map(ParseIntError::kind) {
            Some(IntErrorKind::PosOverflow) => "it is too large",
            Some(_) => "it is not a whole number of at least 0",
            None if source.is::<ParseFloatError>() => "it is not a number",
            None => return message,
        };
        return format!("{start}{plain}");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }
}
