//! `subspan predict`: classes, probabilities and strangeness of new samples.

use std::path::PathBuf;

use serde_json::{Map, json};
use subspan::classify::{self, Samples};
use subspan::cluster::{self, Features};
use subspan_io::{AnyModel, AtomicFile, Matrix, NpyRows, read_any_model, write_npy_f32, write_npy_labels};
use subspan_report::{count, percent};

use crate::failure::Failure;
use crate::session::{Done, Session, distinct};
use crate::summary::{Summary, counted_as};
use crate::verbs::classify::IN_MEMORY;

/// As typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model of subspan classify or subspan cluster
    #[arg(value_name = "MODEL.safetensors")]
    model: String,
    /// Samples: .npy, .npz:KEY, .safetensors:TENSOR, idx, idx.gz or .parquet
    #[arg(value_name = "MATRIX")]
    matrix: String,
    /// Where the classes go
    #[arg(short, long, value_name = "LABELS.npy")]
    output: PathBuf,
    /// Where the probabilities go, one column per class in ascending order
    #[arg(long, value_name = "P.npy")]
    proba: Option<PathBuf>,
    /// Where the strangeness goes, from 0 to 1: one half is usual for a sample of the classes; for clusters, 0 near a training row, without a usual value
    #[arg(long, value_name = "SCORES.npy")]
    ood: Option<PathBuf>,
    /// Where the unit rows go in which clusters are subspaces; models of subspan cluster only
    #[arg(long, value_name = "ROWS.npy")]
    representation: Option<PathBuf>,
}

impl Args {
    /// Outputs by the names of their flags.
    fn outputs(&self) -> [(&'static str, Option<&PathBuf>); 4] {
        [
            ("output", Some(&self.output)),
            ("proba", self.proba.as_ref()),
            ("ood", self.ood.as_ref()),
            ("representation", self.representation.as_ref()),
        ]
    }
}

/// Resolved and checked.
pub(crate) struct Job(Args);

impl Job {
    pub(crate) fn resolve(args: Args) -> Result<Self, Failure> {
        distinct(&args.outputs().into_iter().filter_map(|(_, path)| path).collect::<Vec<_>>())?;
        Ok(Self(args))
    }

    /// What it reads, as typed.
    pub(crate) fn inputs(&self) -> Vec<&str> {
        vec![&self.0.model, &self.0.matrix]
    }
}

/// Rows labelled by a clustering at a time.
const BLOCK_ROWS: usize = 1 << 16;

/// What any model says of samples.
struct Answer {
    names: Vec<String>,
    codes: Vec<u32>,
    /// Mean over the samples.
    confidence: f64,
    /// `n x names`; of a clustering only if asked for, as many rows need much memory.
    probabilities: Vec<f32>,
    strangeness: Vec<f32>,
}

impl Answer {
    fn of_classes(model: &classify::Model, samples: &dyn Samples) -> Result<Self, Failure> {
        let predicted = model.predict(samples)?;
        let top = |row: &[f32]| f64::from(row.iter().copied().fold(0.0, f32::max));
        let rows = predicted.probabilities.chunks_exact(model.classes.len());
        Ok(Self {
            confidence: rows.map(top).sum::<f64>() / predicted.codes.len() as f64,
            names: model.classes.clone(),
            codes: predicted.codes,
            probabilities: predicted.probabilities,
            strangeness: predicted.strangeness.unwrap_or_default(),
        })
    }

    /// Block by block, so that the rows of a large file are never in memory together, nor what represents them.
    fn of_clusters(
        model: &cluster::Model,
        samples: &dyn Samples,
        shares: bool,
        representation: Option<AtomicFile>,
    ) -> Result<Self, Failure> {
        let n = samples.n_rows();
        let mut representation = representation.map(|f| NpyRows::begin(f, n, model.n_represented())).transpose()?;
        let mut out = Self {
            names: (0..model.clusters).map(|c| c.to_string()).collect(),
            codes: Vec::with_capacity(n),
            confidence: 0.0,
            probabilities: Vec::new(),
            strangeness: Vec::with_capacity(n),
        };
        let mut values = Vec::new();
        for first in (0..n).step_by(BLOCK_ROWS) {
            let rows: Vec<usize> = (first..n.min(first + BLOCK_ROWS)).collect();
            values.resize(rows.len() * samples.n_cols(), 0.0);
            samples.gather(&rows, &mut values)?;
            let features = Features::new(&values, model.n_cols())?;
            let predicted = model.predict(&features, shares)?;
            if let Some(file) = &mut representation {
                file.add(&model.represent(&features)?)?;
            }
            out.confidence += predicted.confidence.iter().map(|c| f64::from(*c)).sum::<f64>() / n as f64;
            out.codes.extend(predicted.labels);
            out.probabilities.extend(predicted.shares);
            out.strangeness.extend(predicted.strangeness);
        }
        representation.map_or(Ok(()), NpyRows::finish)?;
        Ok(out)
    }
}

/// Predicts and writes.
pub(crate) fn run(Job(args): &Job, session: &Session) -> Result<Done, Failure> {
    let create = |path: &PathBuf| session.create(path, "npy");
    let output = create(&args.output)?;
    let proba = args.proba.as_ref().map(create).transpose()?;
    let ood = args.ood.as_ref().map(create).transpose()?;
    let representation = args.representation.as_ref().map(create).transpose()?;
    let watch = session.watch();
    watch.phase("read");
    let model = read_any_model(&args.model)?;
    if let AnyModel::Classifier(model) = &model
        && model.reconstruction.is_none()
        && ood.is_some()
    {
        return Err(Failure::Work {
            message: format!("{} has no reconstruction subspaces to measure strangeness against", args.model),
            hint: Some("the classifier's own subspaces are contrasts and cannot tell; train the model again".into()),
        });
    }
    if matches!(model, AnyModel::Classifier(_)) && representation.is_some() {
        return Err(Failure::Work {
            message: format!("{} is a classifier and represents nothing", args.model),
            hint: Some("--representation is for models of subspan cluster".into()),
        });
    }
    let expected = match &model {
        AnyModel::Classifier(model) => model.n_cols,
        AnyModel::Clustering(model) => model.n_cols(),
    };
    let matrix = Matrix::open(&args.matrix)?;
    if matrix.n_cols() != expected {
        let found = matrix.n_cols();
        return Err(Failure::Work {
            message: format!("{} has {found} columns, the model {} has {expected}", args.matrix, args.model),
            hint: None,
        });
    }
    watch.phase("predict");
    let predicted = match &model {
        AnyModel::Classifier(model) => Answer::of_classes(model, &matrix.samples(IN_MEMORY)?)?,
        AnyModel::Clustering(model) => {
            Answer::of_clusters(model, &matrix.samples(IN_MEMORY)?, proba.is_some(), representation)?
        }
    };
    watch.phase("write");
    let (n, n_classes) = (predicted.codes.len(), predicted.names.len());
    if let Some(file) = proba {
        write_npy_f32(&predicted.probabilities, &[n, n_classes], file)?;
    }
    if let Some(file) = ood {
        write_npy_f32(&predicted.strangeness, &[n], file)?;
    }
    write_npy_labels(&predicted.codes, &predicted.names, output)?;

    let mut counts = vec![0u64; n_classes];
    predicted.codes.iter().for_each(|c| counts[*c as usize] += 1);
    let confidence = predicted.confidence;
    let mut record = session.record("predict");
    record.inputs.push(matrix.input_record()?);
    record.configure("model", &args.model);
    for (name, path) in args.outputs() {
        record.configure(name, path.map(|p| p.display().to_string()));
    }
    record.result("rows", n);
    record.result("mean_confidence", confidence);
    let sizes = predicted.names.iter().zip(&counts).map(|(class, n)| (class.clone(), json!(n)));
    record.result("sizes", sizes.collect::<Map<_, _>>());
    session.close(&mut record, &watch);

    let mut summary = Summary::new(format!("predictions for {}", args.matrix));
    let [one, many] = match model {
        AnyModel::Classifier(_) => ["class", "classes"],
        AnyModel::Clustering(_) => ["cluster", "clusters"],
    };
    summary.line("samples", format!("{}, {}", count(n as u64), counted_as(n_classes, one, many)));
    summary.line("confidence", format!("{} on average", percent(confidence)));
    for (name, path) in args.outputs() {
        if let Some(path) = path {
            summary.line(name, path.display().to_string());
        }
    }
    summary.time(&record.seconds);
    Ok(Done { title: format!("Predictions for {}", args.matrix), records: vec![record], summary })
}
