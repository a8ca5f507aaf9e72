//! `subspan classify`: a subspace per class, with probabilities, beside the classifiers one would otherwise use.

mod start;

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use subspan::RunRecord;
use subspan::classify::{self, Config, Dim, Init, Labelled, Method, Outcome, Samples, Scores};
use subspan_io::{Labels, Matrix, MatrixSamples, write_model, write_onnx};
use subspan_report::{count, image_shape, significant};

use crate::describe;
use crate::failure::Failure;
use crate::session::{Done, Session, distinct};
use crate::summary::{Summary, counted, counted_as};

/// Values of a matrix that are taken into memory (1 GiB as `f32`); rows of larger ones are read when they are needed.
pub(crate) const IN_MEMORY: usize = 1 << 28;
/// Dimension of the subspaces unless it is given.
const DIM: usize = 8;

/// As typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Features or images, one sample per row: .npy, .npz:KEY, .safetensors:TENSOR, idx, idx.gz or .parquet
    #[arg(value_name = "MATRIX")]
    matrix: String,
    /// One class per sample, integers or text: .npy, .npz:KEY, idx, idx.gz, .csv:COLUMN or .parquet:COLUMN
    #[arg(long, value_name = "LABELS")]
    labels: String,
    /// Dimension of each class's subspace, or auto: chosen on held-out samples [default: 8 but at most half of the columns, or that of --start]
    #[arg(short, value_name = "DIM")]
    k: Option<String>,
    /// gcr: trained subspaces; clafic: closed-form subspaces; linear: softmax regression, the baseline
    #[arg(long, default_value = "gcr", value_parser = clap::builder::PossibleValuesParser::new(Method::names()))]
    method: String,
    /// Samples to test on
    #[arg(long, value_name = "MATRIX", requires = "test_labels")]
    test: Option<String>,
    /// Their classes
    #[arg(long, value_name = "LABELS", requires = "test")]
    test_labels: Option<String>,
    /// Weigh classes equally, however many samples each has
    #[arg(long)]
    balanced: bool,
    /// Subtract the mean of the samples first
    #[arg(long)]
    center: bool,
    /// Train on from a model, or from the last layer of a network: .safetensors, .safetensors:TENSOR, .npy or .npz:KEY
    #[arg(long, value_name = "FILE")]
    start: Option<String>,
    /// Passes over the samples [default: as many as make about 4000 steps, 10 to 30]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// First learning rate; it falls to zero [default: 0.1]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Scale of the logits in training [default: 25]
    #[arg(long, value_name = "SCALE")]
    gamma: Option<f64>,
    /// Write the classifier as an ONNX graph as well
    #[arg(long, value_name = "MODEL.onnx")]
    onnx: Option<PathBuf>,
    /// Do not fit the classifiers to compare with
    #[arg(long)]
    no_rivals: bool,
    /// Where the model goes
    #[arg(short, long, value_name = "MODEL.safetensors")]
    output: PathBuf,
}

impl Args {
    /// A flag that the method has no use for is a mistake, not ignored.
    fn check_flags(&self, method: Method, dim: Dim) -> Result<(), Failure> {
        let trained = [
            ("--epochs", self.epochs.is_some()),
            ("--lr", self.lr.is_some()),
            ("--gamma", self.gamma.is_some()),
            ("--start", self.start.is_some()),
        ];
        let idle = [("-k", self.k.is_some() && method == Method::Linear)];
        let untrained = trained.into_iter().filter(|_| method != Method::Gcr);
        if let Some((flag, _)) = idle.into_iter().chain(untrained).find(|(_, is_given)| *is_given) {
            let owners = if flag == "-k" { "--method gcr or clafic" } else { "--method gcr" };
            let message = format!("{flag} has no meaning for --method {method}");
            return Err(Failure::usage(message, Some(format!("{flag} belongs to {owners}"))));
        }
        let against = [("--center", self.center), ("-k auto", dim == Dim::Auto)];
        match against.into_iter().find(|(_, is_given)| self.start.is_some() && *is_given) {
            Some((flag, _)) => {
                let message = format!("--start goes with subspaces of a fixed dimension, not with {flag}");
                Err(Failure::usage(message, Some(format!("leave out {flag}"))))
            }
            None => Ok(()),
        }
    }
}

/// Resolved and checked.
pub(crate) struct Job {
    matrix: String,
    labels: String,
    test: Option<(String, String)>,
    config: Config,
    k_given: bool,
    start: Option<String>,
    output: PathBuf,
    onnx: Option<PathBuf>,
}

impl Job {
    pub(crate) fn resolve(args: Args) -> Result<Self, Failure> {
        let dim = match args.k.as_deref() {
            None => Dim::Fixed(DIM),
            Some("auto") => Dim::Auto,
            Some(text) => Dim::Fixed(text.parse().map_err(|_| {
                Failure::usage(format!("-k must be a whole number of at least 1 or auto, not {text}"), None::<String>)
            })?),
        };
        let method: Method = args.method.parse()?;
        args.check_flags(method, dim)?;
        distinct(&std::iter::once(&args.output).chain(&args.onnx).collect::<Vec<_>>())?;
        let config = Config {
            dim,
            method,
            balanced: args.balanced,
            center: args.center,
            rivals: !args.no_rivals,
            epochs: args.epochs,
            ..Config::default()
        };
        let config = Config { lr: args.lr.unwrap_or(config.lr), gamma: args.gamma.unwrap_or(config.gamma), ..config };
        config.check()?;
        Ok(Self {
            matrix: args.matrix,
            labels: args.labels,
            test: args.test.zip(args.test_labels),
            config,
            k_given: args.k.is_some(),
            start: args.start,
            output: args.output,
            onnx: args.onnx,
        })
    }

    /// What it reads, as typed.
    pub(crate) fn inputs(&self) -> Vec<&str> {
        let test = self.test.iter().flat_map(|(m, l)| [m.as_str(), l.as_str()]);
        [self.matrix.as_str(), self.labels.as_str()].into_iter().chain(test).chain(self.start.as_deref()).collect()
    }
}

/// Samples and their classes, as read.
struct Part {
    samples: MatrixSamples,
    matrix: Matrix,
    labels: Labels,
}

impl Part {
    fn read(matrix: &str, labels: &str) -> Result<Self, Failure> {
        let (matrix_path, labels_path) = (matrix, labels);
        let (matrix, labels) = (Matrix::open(matrix)?, Labels::open(labels)?);
        if labels.codes.len() != matrix.n_rows() {
            let (n, m) = (count(labels.codes.len() as u64), count(matrix.n_rows() as u64));
            return Err(Failure::Work {
                message: format!("{labels_path} has {n} labels for the {m} samples of {matrix_path}"),
                hint: None,
            });
        }
        Ok(Self { samples: matrix.samples(IN_MEMORY)?, matrix, labels })
    }

    fn record(&self, record: &mut RunRecord) -> Result<(), Failure> {
        record.inputs.push(self.matrix.input_record()?);
        record.inputs.push(self.labels.input.clone());
        Ok(())
    }
}

/// The test samples with codes of the training classes.
struct Test {
    part: Part,
    codes: Vec<u32>,
}

impl Test {
    fn read((matrix, labels): &(String, String), train: &Part, train_matrix: &str) -> Result<Self, Failure> {
        let part = Part::read(matrix, labels)?;
        let (found, expected) = (part.matrix.n_cols(), train.matrix.n_cols());
        if found != expected {
            return Err(Failure::Work {
                message: format!("{matrix} has {found} columns, {train_matrix} has {expected}"),
                hint: None,
            });
        }
        let known: HashMap<&str, u32> = train.labels.classes.iter().map(String::as_str).zip(0..).collect();
        let code = |class: &String| {
            known.get(class.as_str()).copied().ok_or_else(|| Failure::Work {
                message: format!("{labels} has class {class}, which no training sample has"),
                hint: Some("test on samples of the training classes; predict --ood tells strangers".into()),
            })
        };
        let codes: Vec<u32> = part.labels.classes.iter().map(code).collect::<Result<_, _>>()?;
        let codes = part.labels.codes.iter().map(|c| codes[*c as usize]).collect();
        Ok(Self { part, codes })
    }
}

/// Trains, tests and writes the model.
pub(crate) fn run(job: &Job, session: &Session) -> Result<Done, Failure> {
    let output = session.create(&job.output, "safetensors")?;
    let onnx = job.onnx.as_ref().map(|path| session.create(path, "onnx")).transpose()?;
    let watch = session.watch();
    watch.phase("read");
    let train = Part::read(&job.matrix, &job.labels)?;
    let mut config = job.config.clone();
    if let (Dim::Fixed(k), false) = (&mut config.dim, job.k_given) {
        // Subspaces of more than half of the columns tell nothing apart.
        *k = DIM.min(train.matrix.n_cols() / 2).max(1);
    }
    config.check_columns(train.matrix.n_cols())?;
    let test = job.test.as_ref().map(|test| Test::read(test, &train, &job.matrix)).transpose()?;
    let samples = &train.samples;
    let data = Labelled::new(samples, &train.labels.codes, &train.labels.classes)?;
    let mut warning = None;
    if let Some(path) = &job.start {
        let k = if let Dim::Fixed(k) = config.dim { k } else { DIM };
        let (frames, doubt) = start::frames(path, &data, k)?;
        if let Some(found) = frames.offsets.windows(2).map(|o| o[1] - o[0]).find(|found| job.k_given && *found != k) {
            let message = format!("{path} has subspaces of dimension {found}, not -k {k}");
            return Err(Failure::Work { message, hint: Some("leave -k out to go on with them".into()) });
        }
        (config.init, warning) = (Init::Frames(frames), doubt);
    }
    let mut outcome = classify::run(&data, &config, session.seed, &watch)?;
    outcome.summary.warnings.extend(warning);

    watch.phase("test");
    let train_scores = outcome.model.evaluate(samples, &train.labels.codes)?;
    let tested = match &test {
        Some(test) => Some(Tested::of(&outcome, &test.part.samples, &test.codes)?),
        None => None,
    };
    watch.phase("write");
    write_model(&outcome.model, output)?;
    if let Some(file) = onnx {
        write_onnx(&outcome.model, file)?;
    }

    let mut record = session.record("classify");
    train.record(&mut record)?;
    if let Some(test) = &test {
        test.part.record(&mut record)?;
    }
    configure(&mut record, &job.config);
    record.configure("start", &job.start);
    record.configure("output", job.output.display().to_string());
    record.configure("onnx", job.onnx.as_ref().map(|path| path.display().to_string()));
    results(&mut record, &outcome, train_scores, tested.as_ref(), &train.labels.classes);
    if session.wants_report() {
        watch.phase("describe");
        match &test {
            Some(test) => {
                describe::mistakes(&mut record, &outcome.model, &test.part.samples, &test.codes, "the test samples")?;
            }
            None => {
                let codes = &train.labels.codes;
                describe::mistakes(&mut record, &outcome.model, samples, codes, "the training samples")?;
            }
        }
        describe::subspaces(&mut record, &outcome.model, &data, samples, image_shape(train.matrix.shape()))?;
    }
    session.close(&mut record, &watch);
    let summary = summary(job, &train, &outcome, tested.as_ref(), &record);
    Ok(Done { title: format!("Classes of {}", job.matrix), records: vec![record], summary })
}

/// Scores on the test samples.
pub(crate) struct Tested {
    pub(crate) own: Scores,
    pub(crate) rivals: Vec<(&'static str, Scores)>,
}

impl Tested {
    pub(crate) fn of(outcome: &Outcome, samples: &dyn Samples, codes: &[u32]) -> Result<Self, Failure> {
        let own = outcome.model.evaluate(samples, codes)?;
        let rival = |r: &classify::Rival| Ok((r.name, r.model.evaluate(samples, codes)?));
        Ok(Self { own, rivals: outcome.rivals.iter().map(rival).collect::<Result<_, Failure>>()? })
    }
}

pub(crate) fn configure(record: &mut RunRecord, config: &Config) {
    record.configure("method", config.method.to_string());
    match config.dim {
        Dim::Fixed(k) => record.configure("k", k),
        Dim::Auto => record.configure("k", "auto"),
    }
    record.configure("gamma", config.gamma);
    record.configure("lr", config.lr);
    record.configure("epochs", config.epochs);
    record.configure("momentum", config.momentum);
    record.configure("batch_size", config.batch_size);
    record.configure("held_out", config.held_out);
    record.configure("balanced", config.balanced);
    record.configure("center", config.center);
}

pub(crate) fn results(
    record: &mut RunRecord,
    outcome: &Outcome,
    train: Scores,
    tested: Option<&Tested>,
    classes: &[String],
) {
    if let Ok(Value::Object(figures)) = serde_json::to_value(&outcome.summary) {
        record.results.extend(figures);
    }
    record.result("classes", classes);
    record.result("train_accuracy", train.accuracy);
    record.result("test_accuracy", tested.map(|t| t.own.accuracy));
    record.result("test_nll", tested.map(|t| t.own.nll));
    record.result("test_ece", tested.map(|t| t.own.ece));
    let each = |value: &dyn Fn(&Scores) -> Value| -> Map<String, Value> {
        tested.iter().flat_map(|t| &t.rivals).map(|(name, s)| ((*name).to_string(), value(s))).collect()
    };
    record.result("rivals", each(&|s| json!(s.accuracy)));
    record.result("rival_scores", each(&|s| json!(s)));
    let held_out = outcome.rivals.iter().map(|r| (r.name.to_string(), json!(r.held_out)));
    record.result("rivals_held_out", held_out.collect::<Map<_, _>>());
}

fn summary(job: &Job, train: &Part, outcome: &Outcome, tested: Option<&Tested>, record: &RunRecord) -> Summary {
    let mut out = Summary::new(format!("classes of {}", job.matrix));
    let (n, d) = (train.matrix.n_rows(), train.matrix.n_cols());
    let classes = train.labels.classes.len();
    out.line(
        "samples",
        format!("{} of {}, {}", count(n as u64), counted(d, "value"), counted_as(classes, "class", "classes")),
    );
    let method = match outcome.summary.k {
        Some(k) => format!("{}, one subspace of dimension {k} per class", job.config.method),
        None => job.config.method.to_string(),
    };
    out.line("method", method);
    let rows: Vec<(&str, Option<Scores>)> = match tested {
        Some(t) => t.rivals.iter().map(|(name, s)| (*name, Some(*s))).collect(),
        None => outcome.rivals.iter().map(|r| (r.name, r.held_out)).collect(),
    };
    let own = tested.map(|t| t.own).or(outcome.summary.held_out);
    let what = if tested.is_some() { "test" } else { "held out" };
    if let Some(s) = own {
        out.line(what, scores(&s));
    }
    for (i, (name, s)) in rows.iter().enumerate() {
        let rival = s.as_ref().map_or_else(|| "nothing was held out".to_string(), scores);
        out.line(if i == 0 { "beside" } else { "" }, format!("{name:7} {rival}"));
    }
    out.line("output", job.output.display().to_string());
    out.time(&record.seconds);
    out.warnings.clone_from(&outcome.summary.warnings);
    out
}

fn scores(s: &Scores) -> String {
    let Scores { accuracy, nll, ece } = s;
    format!("accuracy {:.2} %, nll {}, calibration error {:.3}", 100.0 * accuracy, significant(*nll, 3), ece)
}
