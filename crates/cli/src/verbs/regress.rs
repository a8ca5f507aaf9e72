//! `subspan regress`: a linear model on a sample, on all rows, or with a proof that none is better.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use subspan::RunRecord;
use subspan::regress::{self, Config, Fit, Loss, Mode, Outcome};
use subspan_io::{IoError, Table, TableOptions};
use subspan_report::{count, percent, significant};

use crate::args::TableArgs;
use crate::describe;
use crate::failure::Failure;
use crate::session::{Done, Session};
use crate::summary::{Summary, counted};

/// As typed.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("mode").required(true).args(["rows", "full", "exact"]))]
pub(crate) struct Args {
    #[command(flatten)]
    table: TableArgs,
    /// The column to explain
    #[arg(long, value_name = "COL")]
    target: String,
    /// What a residual costs
    #[arg(long, value_enum, default_value_t = LossArg::L1)]
    loss: LossArg,
    /// The exponent of --loss lp
    #[arg(short, value_name = "P")]
    p: Option<f64>,
    /// Levels of --loss quantile; several share one sample [default: 0.5]
    #[arg(long, value_name = "Q,..", value_delimiter = ',', allow_hyphen_values = true)]
    quantile: Option<Vec<f64>>,
    /// Where --loss huber turns from quadratic to linear, in units of the target
    #[arg(long, value_name = "D")]
    delta: Option<f64>,
    /// Ridge penalty of --loss logistic: L/2 times the sum of squared coefficients [default: 0]
    #[arg(long, value_name = "L")]
    l2: Option<f64>,
    /// Solve on a sample of about M rows
    #[arg(long, value_name = "M")]
    rows: Option<u64>,
    /// Solve on all rows, in memory
    #[arg(long)]
    full: bool,
    /// Find the optimum over all rows and prove it; for l1 and quantile, out of core
    #[arg(long)]
    exact: bool,
    /// Leave out the constant term
    #[arg(long)]
    no_intercept: bool,
    /// Where the model goes
    #[arg(short, long, value_name = "MODEL.json")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LossArg {
    /// |r|: the conditional median
    L1,
    /// r^2: the conditional mean
    L2,
    /// |r|^p
    Lp,
    /// The pinball loss: conditional quantiles
    Quantile,
    /// r^2/2 near zero, linear beyond delta
    Huber,
    /// Log-loss of a 0/1 or -1/+1 target
    Logistic,
}

impl LossArg {
    fn name(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::Lp => "lp",
            Self::Quantile => "quantile",
            Self::Huber => "huber",
            Self::Logistic => "logistic",
        }
    }
}

/// Resolved and checked.
pub(crate) struct Job {
    table: String,
    options: TableOptions,
    target: String,
    loss_name: &'static str,
    config: Config,
    output: PathBuf,
}

impl Job {
    pub(crate) fn resolve(args: Args) -> Result<Self, Failure> {
        let loss = loss(&args)?;
        if args.table.excludes(&args.target) {
            let message = format!("--exclude {0} leaves out the target, --target {0}", args.target);
            return Err(Failure::usage(message, Some("the target is never among the columns that explain it")));
        }
        let mode = match (args.rows, args.exact) {
            (Some(rows), _) => Mode::Rows(rows),
            (None, true) => Mode::Exact,
            (None, false) => Mode::Full,
        };
        let config = Config { loss, mode, intercept: !args.no_intercept, certify: true };
        config.check()?;
        Ok(Self {
            options: args.table.options(Some(&args.target), config.intercept),
            table: args.table.table,
            target: args.target,
            loss_name: args.loss.name(),
            config,
            output: args.output,
        })
    }

    /// What it reads, as typed.
    pub(crate) fn inputs(&self) -> Vec<&str> {
        vec![&self.table]
    }
}

/// The loss with its parameter; a parameter of another loss is a mistake, not ignored.
fn loss(args: &Args) -> Result<Loss, Failure> {
    let given = [
        ("-p", args.p.is_some(), LossArg::Lp),
        ("--quantile", args.quantile.is_some(), LossArg::Quantile),
        ("--delta", args.delta.is_some(), LossArg::Huber),
        ("--l2", args.l2.is_some(), LossArg::Logistic),
    ];
    for (flag, is_given, owner) in given {
        if is_given && owner != args.loss {
            let message = format!("{flag} has no meaning for --loss {}", args.loss.name());
            return Err(Failure::usage(message, Some(format!("{flag} belongs to --loss {}", owner.name()))));
        }
    }
    let needed = |value: Option<f64>, flag: &str, hint: &str| {
        value.ok_or_else(|| Failure::usage(format!("--loss {} needs {flag}", args.loss.name()), Some(hint)))
    };
    Ok(match args.loss {
        LossArg::L1 => Loss::L1,
        LossArg::L2 => Loss::L2,
        LossArg::Lp => Loss::Lp { p: needed(args.p, "-p P", "-p 1.5 lies between the median and the mean")? },
        LossArg::Quantile => Loss::Quantile { levels: args.quantile.clone().unwrap_or_else(|| vec![0.5]) },
        LossArg::Huber => Loss::Huber {
            delta: needed(args.delta, "--delta D", "1.35 times the typical size of a residual is a common choice")?,
        },
        LossArg::Logistic => Loss::Logistic { l2: args.l2.unwrap_or(0.0) },
    })
}

/// Fits the model and writes it.
pub(crate) fn run(job: &Job, session: &Session) -> Result<Done, Failure> {
    let mut output = session.create(&job.output, "json")?;
    let watch = session.watch();
    watch.phase("read");
    let table = Table::open(&job.table, &job.options)?;
    table.refuse_sample()?;
    let input = table.input_record()?;
    let outcome = regress::run(&table, &job.config, session.seed, &watch)?;
    watch.phase("write");
    let mut text = serde_json::to_string_pretty(&model(job, table.column_names(), &outcome))
        .map_err(|e| Failure::Work { message: e.to_string(), hint: None })?;
    text.push('\n');
    let path = job.output.display().to_string();
    output.write_all(text.as_bytes()).map_err(|source| IoError::Write { path: path.clone(), source })?;
    output.commit()?;

    let mut record = session.record("regress");
    record.inputs.push(input);
    record.configure("target", &job.target);
    record.configure("loss", job.loss_name);
    configure(&mut record, &job.config);
    record.configure("columns", table.column_names());
    record.configure("missing", describe::missing(job.options.missing));
    record.configure("output", path);
    let mut fits = describe::fits(&outcome, table.column_names(), job.loss_name);
    if session.wants_report() {
        watch.phase("describe");
        let (scale, residuals) = describe::spread(&table, &outcome.fits, &watch)?;
        let logistic = matches!(job.config.loss, Loss::Logistic { .. });
        if !logistic {
            for (fit, residuals) in fits.iter_mut().zip(residuals) {
                fit["residuals"] = json!(residuals);
            }
        }
        record.result("column_scale", describe::by_name(table.column_names(), &scale));
    }
    results(&mut record, &outcome, fits);
    record.result("dropped_rows", table.dropped_rows());
    session.close(&mut record, &watch);
    let mut summary = summary(job, &outcome, table.column_names(), table.dropped_rows(), &record);
    summary.warnings.extend_from_slice(table.warnings());
    Ok(Done { title: format!("{} explained by {}", job.target, job.table), records: vec![record], summary })
}

/// MODEL.json: one fit flat, several under `fits`.
fn model(job: &Job, names: &[String], outcome: &Outcome) -> Value {
    let mut model = Map::new();
    model.insert("loss".into(), job.loss_name.into());
    match &job.config.loss {
        Loss::Lp { p } => model.insert("p".into(), json!(p)),
        Loss::Huber { delta } => model.insert("delta".into(), json!(delta)),
        Loss::Logistic { l2 } => model.insert("l2".into(), json!(l2)),
        Loss::L1 | Loss::L2 | Loss::Quantile { .. } => None,
    };
    model.insert("target".into(), job.target.clone().into());
    let one = |fit: &Fit| {
        let mut entry = Map::new();
        if let Some(quantile) = fit.quantile {
            entry.insert("quantile".into(), json!(quantile));
        }
        entry.insert("intercept".into(), json!(fit.intercept));
        entry.insert("coefficients".into(), describe::by_name(names, &fit.coefficients));
        entry.insert("objective".into(), json!(fit.objective));
        entry.insert("rows_used".into(), json!(outcome.rows_used));
        entry.insert("relative_gap".into(), json!(fit.relative_gap));
        entry
    };
    match outcome.fits.as_slice() {
        [fit] => model.extend(one(fit)),
        fits => {
            model.insert("fits".into(), fits.iter().map(|fit| Value::Object(one(fit))).collect());
        }
    }
    Value::Object(model)
}

/// The configuration's entries of the record.
pub(crate) fn configure(record: &mut RunRecord, config: &Config) {
    match &config.loss {
        Loss::Lp { p } => record.configure("p", p),
        Loss::Quantile { levels } => record.configure("quantile", levels),
        Loss::Huber { delta } => record.configure("delta", delta),
        Loss::Logistic { l2 } => record.configure("l2", l2),
        Loss::L1 | Loss::L2 => {}
    }
    match config.mode {
        Mode::Rows(rows) => {
            record.configure("mode", "rows");
            record.configure("rows", rows);
        }
        Mode::Full => record.configure("mode", "full"),
        Mode::Exact => record.configure("mode", "exact"),
    }
    record.configure("intercept", config.intercept);
}

/// The outcome's entries of the record: scalars for one fit, lists in the order of the quantiles for several.
fn results(record: &mut RunRecord, outcome: &Outcome, fits: Vec<Value>) {
    let each = |f: fn(&Fit) -> Value| match outcome.fits.as_slice() {
        [fit] => f(fit),
        fits => fits.iter().map(f).collect(),
    };
    record.result("objective", each(|f| json!(f.objective)));
    record.result("relative_gap", each(|f| json!(f.relative_gap)));
    record.result("rows_used", outcome.rows_used);
    record.result("rows_in", outcome.rows_in);
    record.result("iterations", each(|f| json!(f.iterations)));
    record.result("fits", fits);
    record.result("warnings", &outcome.warnings);
}

/// Coefficients shown in the summary.
const SHOWN: usize = 12;

fn summary(job: &Job, outcome: &Outcome, names: &[String], dropped: u64, record: &RunRecord) -> Summary {
    let mut out =
        Summary::new(format!("{} explained by {} of {}", job.target, counted(names.len(), "column"), job.table));
    out.line("rows", format!("{} used of {}", count(outcome.rows_used), count(outcome.rows_in)));
    if dropped > 0 {
        out.line("dropped", format!("{} with a missing value", counted(dropped as usize, "row")));
    }
    for fit in &outcome.fits {
        let label = fit.quantile.map_or_else(|| job.loss_name.to_string(), |q| format!("quantile {q}"));
        out.line(&label, format!("objective {} over all rows", significant(fit.objective, 7)));
        out.line("", accuracy(fit.relative_gap));
    }
    if let [fit] = outcome.fits.as_slice() {
        if job.config.intercept {
            out.line("intercept", significant(fit.intercept, 5));
        }
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by(|a, b| fit.coefficients[*b].abs().total_cmp(&fit.coefficients[*a].abs()));
        for i in order.iter().take(SHOWN) {
            out.line(&names[*i], significant(fit.coefficients[*i], 5));
        }
        if names.len() > SHOWN {
            out.line("...", format!("{} smaller ones in the model", names.len() - SHOWN));
        }
    }
    out.line("output", job.output.display().to_string());
    out.time(&record.seconds);
    out.warnings.clone_from(&outcome.warnings);
    out
}

/// The certified gap in words.
fn accuracy(gap: Option<f64>) -> String {
    match gap {
        Some(0.0) => "proved optimal (relative gap 0)".into(),
        Some(gap) if gap <= 2e-8 => format!("proved optimal (relative gap {gap:.0e})"),
        Some(gap) => format!("proved to be at most {} above the optimum", percent(gap)),
        None => "no accuracy was measured".into(),
    }
}
