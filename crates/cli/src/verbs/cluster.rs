//! `subspan cluster`: which rows belong together, how many groups there are, and a subspace for each.

mod features;

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use serde_json::{Value, json};
use subspan::RunRecord;
use subspan::cluster::{
    self, AffinityKind, Agreement, Candidate, Clusters, Config, Features, Method, Outcome, ZeroRows,
};
use subspan::record::InputRecord;
use subspan_io::{
    AtomicFile, IoError, Labels, Matrix, OutputDirectory, write_bytes_atomically, write_clustering, write_json,
    write_membership, write_npy_f32, write_npy_i64, write_subspaces,
};
use subspan_nets::{Manifold, ManifoldLearner};
use subspan_report::{count, image_shape, percent, significant};

use crate::describe;
use crate::failure::Failure;
use crate::session::{Done, Session};
use crate::summary::{Summary, counted_as};
use features::Kind;

/// As typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Features or images, one sample per row: .npy, .npz:KEY, .safetensors:TENSOR, idx, idx.gz or .parquet
    #[arg(value_name = "MATRIX")]
    matrix: String,
    /// How many clusters, or auto: chosen on the data, with an interval
    #[arg(long, value_name = "K", default_value = "auto")]
    clusters: String,
    /// projection: doubly stochastic projection of the rows' affinities; mlc: a head trained by manifold linearizing and
    /// clustering beside it, kept if its clusters code rows in 1 % fewer bits and tell no less across edges (what it gave is also in
    /// trained-*), and a representation in which the clusters kept are subspaces
    #[arg(long, default_value = "projection", value_parser = clap::builder::PossibleValuesParser::new(Method::names()))]
    method: String,
    /// True classes, for scores only: .npy, .npz:KEY, idx, idx.gz, .csv:COLUMN or .parquet:COLUMN
    #[arg(long, value_name = "LABELS")]
    truth: Option<String>,
    /// raw: values as they are; for images (N x H x W, or N x H x W x 3), scattering: wavelet features that small shifts hardly move;
    /// scattering-turned: the same averaged over small turns, five times as slow;
    /// conv4, resnet18: features of a network trained on augmented views of the images, of four layers or (slow) eighteen
    #[arg(long, default_value = "raw", value_parser = clap::builder::PossibleValuesParser::new(features::NAMES))]
    features: String,
    /// Passes over the images in the training of conv4 or resnet18 [default: 10]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// How many rows each row stands for: one number per row, in any of the formats of a matrix, or none to count all alike
    /// [default: the column weight of a MATRIX that subspan sample wrote, else all alike]
    #[arg(long, value_name = "WEIGHTS")]
    weights: Option<String>,
    /// Rows that equal the mean (with omp: zero rows) have no direction. refuse: they are an error; drop: they are left out, counted and
    /// labelled like new rows, with an arbitrary label
    #[arg(long, default_value = "refuse", value_parser = ["refuse", "drop"])]
    zero_rows: String,
    /// What counts as near. cosine: the cosine of rows; abs: its absolute value; for subspaces that overlap, how rows represent each
    /// other, by least squares (lsr) or by a pursuit of few rows (omp) [default: cosine and, up to 20,000 rows, lsr are tried]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(AffinityKind::names()))]
    affinity: Option<String>,
    /// Some clusters are known to be ten or more times as large as others: peaks of density are tried besides k-means and taken wherever they
    /// fit better (needs --clusters K) [default: tried for a K of up to 32, taken only where they fit clearly better]
    #[arg(long)]
    unequal: bool,
    /// Neighbours per row of the graph [default: 7, 15 and 64 are tried, and 4 where clusters are small]
    #[arg(long, value_name = "N")]
    neighbours: Option<usize>,
    /// The most clusters that auto considers [default: an eighth of the rows, at most 200]
    #[arg(long, value_name = "K")]
    max_clusters: Option<usize>,
    /// Training rows that the model keeps to label new rows [default: at most 16384]
    #[arg(long, value_name = "N")]
    anchors: Option<usize>,
    /// Where labels, model and report go
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

/// Resolved and checked.
pub(crate) struct Job {
    matrix: String,
    truth: Option<String>,
    features: Kind,
    weights: Option<String>,
    config: Config,
    output: PathBuf,
}

impl Job {
    pub(crate) fn resolve(args: Args) -> Result<Self, Failure> {
        let clusters = match args.clusters.as_str() {
            "auto" => Clusters::Auto,
            text => Clusters::Fixed(text.parse().map_err(|_| {
                let message = format!("--clusters must be a whole number of at least 1 or auto, not {text}");
                Failure::usage(message, None::<String>)
            })?),
        };
        let config = Config {
            clusters,
            method: args.method.parse()?,
            affinity: args.affinity.map(|a| a.parse()).transpose()?,
            neighbours: args.neighbours,
            max_clusters: args.max_clusters,
            anchors: args.anchors,
            zero_rows: if args.zero_rows == "drop" { ZeroRows::Drop } else { ZeroRows::Refuse },
            unequal: args.unequal,
            ..Config::default()
        };
        config.check()?;
        let features = Kind::resolve(&args.features, args.epochs)?;
        let Args { matrix, truth, weights, output, .. } = args;
        Ok(Self { matrix, truth, features, weights, config, output })
    }

    /// What it reads, as typed.
    pub(crate) fn inputs(&self) -> Vec<&str> {
        std::iter::once(self.matrix.as_str()).chain(self.truth.as_deref()).chain(weights_file(self)).collect()
    }
}

/// The files of a run, opened before the work.
struct Outputs {
    labels: AtomicFile,
    confidence: AtomicFile,
    representation: AtomicFile,
    membership: AtomicFile,
    model: AtomicFile,
    subspaces: AtomicFile,
    trained: Option<TrainedFiles>,
    /// Files that an earlier run may have left and this one does not write.
    stale: Vec<PathBuf>,
}

/// What training gave, whether it was kept or not.
struct TrainedFiles {
    labels: AtomicFile,
    representation: AtomicFile,
    model: AtomicFile,
}

/// The last two, written when everything else is there.
const RUN: &str = "run.json";
const REPORT: &str = "report.html";
/// What training gave: labels, representation and model.
const TRAINED: [&str; 3] = ["trained-labels.npy", "trained-representation.npy", "trained-model.safetensors"];

impl Outputs {
    fn create(directory: &OutputDirectory, method: Method, session: &Session) -> Result<Self, Failure> {
        let create = |name: &str| {
            let path = directory.path().join(name);
            session.apart(&path)?;
            Ok::<_, Failure>(AtomicFile::create(path)?)
        };
        for name in [RUN, REPORT] {
            drop(create(name)?);
        }
        let [labels, representation, model] = TRAINED;
        let stale = TRAINED.map(|name| directory.path().join(name)).into_iter();
        Ok(Self {
            labels: create("labels.npy")?,
            confidence: create("confidence.npy")?,
            representation: create("representation.npy")?,
            membership: create("membership.npz")?,
            model: create("model.safetensors")?,
            subspaces: create("subspaces.safetensors")?,
            trained: match method {
                Method::Projection => None,
                Method::Mlc => Some(TrainedFiles {
                    labels: create(labels)?,
                    representation: create(representation)?,
                    model: create(model)?,
                }),
            },
            // What this run reads, it leaves.
            stale: match method {
                Method::Projection => stale.filter(|path| session.apart(path).is_ok()).collect(),
                Method::Mlc => Vec::new(),
            },
        })
    }

    fn write(self, outcome: &Outcome) -> Result<(), Failure> {
        let n = outcome.labels.len();
        // First, so that old files never lie beside new ones.
        for path in self.stale {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(IoError::Write { path: path.display().to_string(), source }.into());
                }
                _ => {}
            }
        }
        if let (Some(files), Some((trained, _))) = (self.trained, sides(outcome)) {
            write_npy_i64(trained.labels.iter().map(|l| i64::from(*l)), files.labels)?;
            write_npy_f32(&trained.representation, &[n, trained.n_dims], files.representation)?;
            write_clustering(&trained.model, files.model)?;
        }
        write_npy_i64(outcome.labels.iter().map(|l| i64::from(*l)), self.labels)?;
        write_npy_f32(&outcome.confidence, &[n], self.confidence)?;
        write_npy_f32(&outcome.representation, &[n, outcome.n_dims], self.representation)?;
        write_membership(&outcome.membership, self.membership)?;
        write_clustering(&outcome.model, self.model)?;
        write_subspaces(&outcome.clusters, outcome.n_dims, self.subspaces)?;
        Ok(())
    }
}

/// The trained head's outcome and the projection's, if a head was trained.
fn sides(outcome: &Outcome) -> Option<(&Outcome, &Outcome)> {
    let (learned, other) = (outcome.summary.learned.as_ref()?, outcome.other.as_deref()?);
    Some(if learned.kept { (outcome, other) } else { (other, outcome) })
}

/// Clusters and writes.
pub(crate) fn run(job: &Job, session: &Session) -> Result<Done, Failure> {
    let directory = OutputDirectory::create(&job.output)?;
    let outputs = Outputs::create(&directory, job.config.method, session)?;
    let watch = session.watch();
    watch.phase("read");
    let matrix = Matrix::open(&job.matrix)?;
    job.config.check_rows(matrix.n_rows())?;
    let truth = job.truth.as_ref().map(|truth| read_truth(truth, &matrix, &job.matrix)).transpose()?;
    let weights = read_weights(job, &matrix)?;
    let raw = matrix.to_features()?;
    let own_weights = weights.as_ref().map_or(&[][..], |w| &w.values);
    let front = job.features.front(&matrix, &job.matrix, &raw, own_weights, session.seed, &watch)?;
    let (values, n_cols) = match &front {
        Some(front) => (Cow::Owned(front.apply(&raw)), front.n_out()),
        None => (Cow::Borrowed(&raw), matrix.n_cols()),
    };
    let mut features = Features::new(&values, n_cols)?;
    if let Some(weights) = &weights {
        features = features.weighted(&weights.values)?;
    }
    let mut outcome = match job.config.method {
        Method::Projection => cluster::run(&features, &job.config, session.seed, &watch)?,
        Method::Mlc => {
            let learner = ManifoldLearner { settings: Manifold::default(), observer: &watch };
            cluster::run_learned(&features, &job.config, &learner, session.seed, &watch)?
        }
    };
    if let Some(other) = &mut outcome.other {
        other.model.front.clone_from(&front);
    }
    outcome.model.front = front;
    let score = |labels: &[u32]| truth.as_ref().map(|t| cluster::agreement(labels, &t.codes));
    let agreement = score(&outcome.labels);
    // Candidates know the rows that were clustered.
    let clustered = truth.as_ref().map(|t| {
        let rows = (0..).zip(&t.codes).filter(|(i, _)| outcome.left_out.binary_search(i).is_err());
        rows.map(|(_, code)| *code).collect::<Vec<u32>>()
    });
    let score_of = |c: &Candidate| clustered.as_ref().map(|truth| cluster::agreement(&c.labels, truth));
    let candidates: Vec<Value> = outcome.summary.candidates.iter().map(|c| scored(c, score_of(c))).collect();
    watch.phase("write");
    outputs.write(&outcome)?;

    let mut record = session.record("cluster");
    record.inputs.push(matrix.input_record()?);
    record.inputs.extend(truth.as_ref().map(|t| t.input.clone()));
    record.inputs.extend(weights.as_ref().and_then(|w| w.input.clone()));
    configure(&mut record, &job.config);
    record.configure("weights", weights.as_ref().map(|_| job.weights.as_deref().unwrap_or("sample")));
    record.configure("features", job.features.name());
    record.configure("epochs", job.features.epochs());
    record.configure("output", job.output.display().to_string());
    results(&mut record, &outcome, agreement);
    describe::clusters(&mut record, &outcome, &raw, matrix.n_cols(), image_shape(matrix.shape()));
    record.result("candidates", candidates);
    if let (Some(learned), Some((trained, projected))) = (&outcome.summary.learned, sides(&outcome)) {
        let mut value = json!(learned);
        for (name, side) in [("trained", trained), ("projection", projected)] {
            if let Some(a) = score(&side.labels) {
                value[name]["accuracy"] = json!(a.accuracy);
                value[name]["nmi"] = json!(a.nmi);
            }
        }
        record.result("learned", value);
    }
    session.close(&mut record, &watch);
    let title = format!("Clusters of {}", job.matrix);
    let report = subspan_report::html(&title, "", std::slice::from_ref(&record));
    write_bytes_atomically(directory.path().join(REPORT), report.as_bytes())?;
    write_json(directory.path().join(RUN), &record)?;
    directory.keep();
    let summary = summary(job, &matrix, &outcome, agreement, &record);
    Ok(Done { title, records: vec![record], summary })
}

/// What every row counts.
struct Weights {
    values: Vec<f64>,
    /// The file of their own that they were read from.
    input: Option<InputRecord>,
}

/// The file of the weights, if they are in one of their own.
fn weights_file(job: &Job) -> Option<&str> {
    job.weights.as_deref().filter(|w| *w != NO_WEIGHTS)
}

/// Makes all rows count alike.
const NO_WEIGHTS: &str = "none";

/// The rows' weights: those of a file of their own, or those of a sample.
fn read_weights(job: &Job, matrix: &Matrix) -> Result<Option<Weights>, Failure> {
    let Some(path) = weights_file(job) else {
        let own = if job.weights.is_some() { None } else { matrix.sample_weights()? };
        return Ok(own.map(|values| Weights { values, input: None }));
    };
    let column = Matrix::open(path)?;
    let values = column.to_f64()?;
    if values.len() != matrix.n_rows() {
        let (n, m) = (count(values.len() as u64), count(matrix.n_rows() as u64));
        let message = format!("{path} has {n} weights for the {m} samples of {}", job.matrix);
        return Err(Failure::Work { message, hint: None });
    }
    if let Some(row) = values.iter().position(|w| *w <= 0.0) {
        let message = format!("{path}, row {row}: a weight of {}, weights are positive", values[row]);
        return Err(Failure::Work { message, hint: Some("leave rows that stand for nothing out".into()) });
    }
    Ok(Some(Weights { values, input: Some(column.input_record()?) }))
}

fn read_truth(path: &str, matrix: &Matrix, matrix_path: &str) -> Result<Labels, Failure> {
    let labels = Labels::open(path)?;
    if labels.codes.len() != matrix.n_rows() {
        let (n, m) = (count(labels.codes.len() as u64), count(matrix.n_rows() as u64));
        let message = format!("{path} has {n} labels for the {m} samples of {matrix_path}");
        return Err(Failure::Work { message, hint: None });
    }
    Ok(labels)
}

/// A candidate with its scores, if there is a truth.
fn scored(candidate: &Candidate, agreement: Option<Agreement>) -> Value {
    let mut out = json!(candidate);
    if let Some(a) = agreement {
        out["accuracy"] = json!(a.accuracy);
        out["nmi"] = json!(a.nmi);
    }
    out
}

pub(crate) fn configure(record: &mut RunRecord, config: &Config) {
    record.configure("method", config.method.to_string());
    match config.clusters {
        Clusters::Fixed(k) => record.configure("clusters", k),
        Clusters::Auto => record.configure("clusters", "auto"),
    }
    record.configure("affinity", config.affinity.map(|a| a.to_string()));
    record.configure("unequal", config.unequal);
    record.configure("neighbours", config.neighbours);
    record.configure("max_clusters", config.max_clusters);
    record.configure("starts", config.starts);
    record.configure("anchors", config.anchors);
    record.configure("zero_rows", if config.zero_rows == ZeroRows::Drop { "drop" } else { "refuse" });
}

pub(crate) fn results(record: &mut RunRecord, outcome: &Outcome, agreement: Option<Agreement>) {
    let (summary, clusters) = (&outcome.summary, &outcome.clusters);
    record.result("clusters", clusters.len());
    record.result("sizes", clusters.iter().map(|c| c.size).collect::<Vec<_>>());
    record.result("shares", clusters.iter().map(|c| c.share).collect::<Vec<_>>());
    let curve = summary.count.as_ref().map_or(&[][..], |c| &c.curve);
    record.result("coding_length_curve", curve);
    record.result("ranks", clusters.iter().map(|c| c.subspace.dim()).collect::<Vec<_>>());
    if let Some(a) = agreement {
        record.result("accuracy", a.accuracy);
        record.result("nmi", a.nmi);
        record.result("ari", a.ari);
    }
    if let Some(c) = &summary.count {
        record.result("interval", c.interval);
        record.result("chosen_by", c.by);
    }
    if let Ok(Value::Object(mut figures)) = serde_json::to_value(summary) {
        figures.remove("count");
        record.results.extend(figures);
    }
    record.result("medoids", clusters.iter().map(|c| c.medoid).collect::<Vec<_>>());
    record.result("confidence", clusters.iter().map(|c| c.confidence).collect::<Vec<_>>());
    record.result("spectra", clusters.iter().map(|c| json!(c.spectrum)).collect::<Vec<_>>());
}

fn summary(job: &Job, matrix: &Matrix, outcome: &Outcome, agreement: Option<Agreement>, record: &RunRecord) -> Summary {
    let figures = &outcome.summary;
    let mut out = Summary::new(format!("clusters of {}", job.matrix));
    out.line("samples", format!("{} of {} values", count(matrix.n_rows() as u64), count(matrix.n_cols() as u64)));
    let clusters = outcome.clusters.len();
    out.line(
        "clusters",
        match &figures.count {
            Some(c) if c.interval[0] < c.interval[1] => {
                format!("{clusters} ({} to {} fit nearly as well), chosen by {}", c.interval[0], c.interval[1], c.by)
            }
            Some(c) => format!("{clusters}, chosen by {}", c.by),
            None => clusters.to_string(),
        },
    );
    let sizes: Vec<usize> = outcome.clusters.iter().map(|c| c.size).collect();
    let [smallest, largest] = [sizes.iter().min(), sizes.iter().max()].map(|s| count(s.map_or(0, |s| *s as u64)));
    out.line("sizes", if smallest == largest { largest } else { format!("{smallest} to {largest}") });
    if record.config.get("weights").is_some_and(|w| !w.is_null()) {
        let shares = [outcome.clusters[clusters - 1].share, outcome.clusters[0].share];
        let effective = count(figures.effective_rows.round() as u64);
        out.line(
            "weights",
            format!(
                "clusters have {} to {} of the weight; worth {effective} equal rows",
                percent(shares[0]),
                percent(shares[1])
            ),
        );
    }
    let mut ranks: Vec<usize> = outcome.clusters.iter().map(|c| c.subspace.dim()).collect();
    ranks.sort_unstable();
    let [least, middle, most] = [ranks[0], ranks[clusters / 2], ranks[clusters - 1]];
    out.line("subspaces", format!("of {least} to {most} dimensions, {middle} in the middle"));
    let chosen = &figures.candidates[figures.chosen];
    out.line(
        "rows",
        format!(
            "{}, {} affinity, {}, {}",
            chosen.preparation,
            chosen.affinity,
            counted_as(chosen.neighbours, "neighbour", "neighbours"),
            chosen.recipe
        ),
    );
    if let (Some(_), Some(kept), Some(agreement)) = (chosen.contrast, chosen.kept, chosen.agreement) {
        let (kept, agreement) = (percent(kept), significant(agreement, 3));
        out.line(
            "peaks",
            format!("labels tell {kept} of their entropy across edges, NMI {agreement} with peaks in other graphs"),
        );
    }
    if let Some(learned) = record.results.get("learned").filter(|learned| learned.is_object()) {
        for (name, bits) in [
            ("trained", ["held_out", "coding_length"]),
            ("projection", ["projection_held_out", "projection_coding_length"]),
        ] {
            let (side, whole) = (&learned[name], |v: &Value| count(v.as_u64().unwrap_or(0)));
            let [held_out, all] = bits.map(|b| significant(learned[b].as_f64().unwrap_or(f64::NAN), 4));
            let mut text = format!(
                "{held_out} bits held out, {all} in all; middle rank {} of {}",
                whole(&side["rank"]),
                whole(&side["rank_of_all"])
            );
            if let (Some(accuracy), Some(nmi)) = (side["accuracy"].as_f64(), side["nmi"].as_f64()) {
                text += &format!(", accuracy {}, NMI {}", percent(accuracy), significant(nmi, 3));
            }
            out.line(name, text);
        }
        let side = if learned["kept"] == true { "trained head" } else { "projection" };
        out.line("kept", format!("{side}: {}", learned["because"].as_str().unwrap_or_default()));
        let [rank, all, values] =
            ["rank", "rank_of_all", "dimensions"].map(|k| learned["linear"][k].as_u64().unwrap_or(0));
        out.line("linear", format!("rows of {values} values: middle rank {rank} of {all}"));
    }
    let mean = outcome.confidence.iter().map(|c| f64::from(*c)).sum::<f64>() / outcome.confidence.len() as f64;
    out.line("confidence", format!("{} of the neighbours' votes on average", percent(mean)));
    if let Some(a) = agreement {
        let Agreement { accuracy, nmi, ari } = a;
        out.line(
            "truth",
            format!("accuracy {}, NMI {}, ARI {}", percent(accuracy), significant(nmi, 3), significant(ari, 3)),
        );
    }
    out.line("output", job.output.display().to_string());
    out.time(&record.seconds);
    out.warnings.clone_from(&figures.warnings);
    out
}
