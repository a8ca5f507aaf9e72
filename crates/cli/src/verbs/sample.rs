//! `subspan sample`: few weighted rows that stand for a table.

use std::path::PathBuf;

use serde_json::Value;
use subspan::rows::RowSource;
use subspan::sample::{self, Certificate, CertificateKind, Config, Draw, Rule, Sample, Size};
use subspan_io::{Table, TableOptions, write_sample_to};
use subspan_report::{count, percent, significant};

use crate::args::TableArgs;
use crate::describe;
use crate::failure::Failure;
use crate::session::{Done, Session};
use crate::shards::{self, Shard};
use crate::summary::{Summary, counted};

/// As typed.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("size").required(true).args(["rows", "epsilon"]))]
pub(crate) struct Args {
    #[command(flatten)]
    table: TableArgs,
    /// Keep about M rows (exactly M with --draw priority)
    #[arg(long, value_name = "M")]
    rows: Option<u64>,
    /// Keep as many rows as the distortion E needs; for p up to 2
    #[arg(long, value_name = "E")]
    epsilon: Option<f64>,
    /// The norm: the sample stands for the sums of |a x|^p, for every x at once
    #[arg(short, value_name = "P", default_value_t = 2.0)]
    p: f64,
    /// How rows are scored
    #[arg(long, default_value = "auto", value_parser = clap::builder::PossibleValuesParser::new(Rule::names()))]
    rule: String,
    /// How rows are drawn
    #[arg(long, default_value = "poisson", value_parser = clap::builder::PossibleValuesParser::new(Draw::names()))]
    draw: String,
    /// Fold one of N shares of the table, for the first pass that -o, a folder of states, lacks; run all shards once per pass
    #[arg(long, value_name = "I/N", conflicts_with = "combine")]
    shard: Option<Shard>,
    /// Draw the sample from the states of all shards, which are in this folder
    #[arg(long, value_name = "STATES")]
    combine: Option<PathBuf>,
    /// Where the sample goes: row_id, probability, weight, then the table's columns
    #[arg(short, long, value_name = "OUT.parquet")]
    output: PathBuf,
}

/// Resolved and checked.
pub(crate) struct Job {
    table: String,
    options: TableOptions,
    config: Config,
    shard: Option<Shard>,
    combine: Option<PathBuf>,
    output: PathBuf,
}

impl Job {
    pub(crate) fn resolve(args: Args) -> Result<Self, Failure> {
        let size = match (args.rows, args.epsilon) {
            (Some(rows), _) => Size::Rows(rows),
            (None, Some(epsilon)) => Size::Epsilon(epsilon),
            (None, None) => return Err(Failure::usage("--rows or --epsilon is needed", None::<String>)),
        };
        let config = Config { size, rule: args.rule.parse()?, draw: args.draw.parse()?, ..Config::rows(args.p, 0) };
        config.check()?;
        Ok(Self {
            options: args.table.options(None, false),
            table: args.table.table,
            config,
            shard: args.shard,
            combine: args.combine,
            output: args.output,
        })
    }

    /// What it reads, as typed.
    pub(crate) fn inputs(&self) -> Vec<&str> {
        vec![&self.table]
    }
}

/// Draws the sample and writes it, or does a shard's part of that.
pub(crate) fn run(job: &Job, session: &Session) -> Result<Done, Failure> {
    if let Some(shard) = job.shard {
        return run_shard(job, shard, session);
    }
    let output = session.create(&job.output, "parquet")?;
    let watch = session.watch();
    watch.phase("read");
    let table = Table::open(&job.table, &job.options)?;
    table.refuse_sample()?;
    let input = table.input_record()?;
    let sample = match &job.combine {
        Some(states) => shards::combine(&table, &job.config, session.seed, states, &watch)?,
        None => sample::run(&table, &job.config, session.seed, &watch)?,
    };
    if sample.row_ids.is_empty() {
        return Err(Failure::Work { message: "the draw kept no row".into(), hint: Some("ask for more --rows".into()) });
    }
    watch.phase("write");
    write_sample_to(output, &table, &sample.row_ids, &sample.probabilities, &sample.weights, &sample.records)?;

    let mut record = session.record("sample");
    record.inputs.push(input);
    configure(&mut record, &job.config);
    record.configure("columns", table.column_names());
    record.configure("missing", describe::missing(job.options.missing));
    record.configure("output", job.output.display().to_string());
    results(&mut record, &sample);
    record.result("dropped_rows", table.dropped_rows());
    session.close(&mut record, &watch);
    let mut summary = summary(job, &sample, table.dropped_rows(), &record);
    summary.warnings.extend_from_slice(table.warnings());
    Ok(Done { title: format!("A sample of {}", job.table), records: vec![record], summary })
}

/// Folds the chunks of a shard.
fn run_shard(job: &Job, shard: Shard, session: &Session) -> Result<Done, Failure> {
    let watch = session.watch();
    watch.phase("read");
    let table = Table::open(&job.table, &job.options)?;
    table.refuse_sample()?;
    let input = table.input_record()?;
    let folded = shards::fold(&table, &job.config, session.seed, shard, &job.output, &watch)?;
    let mut record = session.record("sample");
    record.inputs.push(input);
    configure(&mut record, &job.config);
    record.configure("output", job.output.display().to_string());
    record.result("pass", folded.pass);
    record.result("chunks", folded.chunks);
    record.result("chunks_found", folded.found);
    session.close(&mut record, &watch);
    let mut out = Summary::new(format!("a shard of {}", job.table));
    let pass =
        folded.pass.map_or_else(|| "every pass is complete: --combine draws the sample".into(), |p| p.to_string());
    out.line("pass", pass);
    let found = if folded.found > 0 { format!(", {} of them there already", folded.found) } else { String::new() };
    out.line("chunks", format!("{} of {}{found}", folded.chunks, table.n_chunks()));
    out.line("states", job.output.display().to_string());
    out.time(&record.seconds);
    Ok(Done { title: format!("A shard of {}", job.table), records: vec![record], summary: out })
}

/// The configuration's entries of the record.
pub(crate) fn configure(record: &mut subspan::RunRecord, config: &Config) {
    record.configure("p", config.p);
    match config.size {
        Size::Rows(rows) => record.configure("rows", rows),
        Size::Epsilon(epsilon) => record.configure("epsilon", epsilon),
    }
    record.configure("rule", config.rule);
    record.configure("draw", config.draw);
}

/// The sample's entries of the record.
pub(crate) fn results(record: &mut subspan::RunRecord, sample: &Sample) {
    if let Ok(Value::Object(figures)) = serde_json::to_value(&sample.summary) {
        record.results.extend(figures);
    }
    record.result("certificate", &sample.certificate);
    record.result("probabilities", describe::probabilities(&sample.probabilities));
    record.result("weights", describe::weights(&sample.weights));
}

fn summary(job: &Job, sample: &Sample, dropped: u64, record: &subspan::RunRecord) -> Summary {
    let figures = &sample.summary;
    let mut out = Summary::new(format!("a sample of {}", job.table));
    let mut rows = format!("{} of {}", count(figures.rows_out), count(figures.rows_in));
    if figures.certain_rows > 0 {
        rows.push_str(&format!(", {} of them for certain", count(figures.certain_rows)));
    }
    out.line("rows", rows);
    if dropped > 0 {
        out.line("dropped", format!("{} with a missing value", counted(dropped as usize, "row")));
    }
    let rule = match figures.stages.as_slice() {
        [] | [_] => figures.rule.to_string(),
        stages => stages.join(", then "),
    };
    out.line("rule", format!("{rule} for p = {}, {} draw", figures.p, figures.draw));
    out.line("score sum", format!("{} (rank {})", significant(figures.score_sum, 4), figures.rank));
    out.line("accuracy", accuracy(sample.certificate.as_ref()));
    out.line("output", job.output.display().to_string());
    out.time(&record.seconds);
    out.warnings.clone_from(&figures.warnings);
    out
}

/// The certificate in words.
pub(crate) fn accuracy(certificate: Option<&Certificate>) -> String {
    let Some(c) = certificate else { return "no accuracy was measured".into() };
    let range = format!("sums off by {} to +{}", percent(c.lower), percent(c.upper));
    match c.kind {
        CertificateKind::Exact => format!("{range} over all x (exact)"),
        CertificateKind::Bound => format!("{range} at most, over all x (proved bound)"),
        CertificateKind::Searched => format!("{range} at the worst x found by a search (not a bound)"),
    }
}
