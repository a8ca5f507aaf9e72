//! `subspan predict`: classes, probabilities and strangeness of new samples.

use std::path::PathBuf;

use serde_json::{Map, json};
use subspan::classify::DenseSamples;
use subspan_io::{Matrix, read_model, write_npy_f32, write_npy_labels};
use subspan_report::{count, percent};

use crate::failure::Failure;
use crate::session::{Done, Session};
use crate::summary::Summary;

/// As typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model of subspan classify
    #[arg(value_name = "MODEL.safetensors")]
    model: String,
    /// Samples: .npy, .npz:KEY, .safetensors:TENSOR, idx, idx.gz or .parquet
    #[arg(value_name = "MATRIX")]
    matrix: String,
    /// Where the classes go
    #[arg(short, long, value_name = "LABELS.npy")]
    output: PathBuf,
    /// Where the probabilities go, one column per class
    #[arg(long, value_name = "P.npy")]
    proba: Option<PathBuf>,
    /// Where the strangeness goes: 0 inside a class's subspace, 1 orthogonal to all
    #[arg(long, value_name = "SCORES.npy")]
    ood: Option<PathBuf>,
}

/// Resolved and checked.
pub(crate) struct Job(Args);

impl Job {
    pub(crate) fn resolve(args: Args) -> Result<Self, Failure> {
        let outputs: Vec<&PathBuf> =
            [Some(&args.output), args.proba.as_ref(), args.ood.as_ref()].into_iter().flatten().collect();
        for (i, path) in outputs.iter().enumerate() {
            if outputs[..i].contains(path) {
                let message = format!("{} is given for two outputs", path.display());
                return Err(Failure::usage(message, Some("give each output a name of its own")));
            }
        }
        Ok(Self(args))
    }
}

/// Predicts and writes.
pub(crate) fn run(Job(args): &Job, session: &Session) -> Result<Done, Failure> {
    let create = |path: &PathBuf| session.create_apart(path, &[&args.model, &args.matrix]);
    let output = create(&args.output)?;
    let proba = args.proba.as_ref().map(create).transpose()?;
    let ood = args.ood.as_ref().map(create).transpose()?;
    let watch = session.watch();
    watch.phase("read");
    let model = read_model(&args.model)?;
    if ood.is_some() && model.reconstruction.is_none() {
        return Err(Failure::Work {
            message: format!("{} has no reconstruction subspaces to measure strangeness against", args.model),
            hint: Some("the classifier's own subspaces are contrasts and cannot tell; train the model again".into()),
        });
    }
    let matrix = Matrix::open(&args.matrix)?;
    if matrix.n_cols() != model.n_cols {
        let (found, expected) = (matrix.n_cols(), model.n_cols);
        return Err(Failure::Work {
            message: format!("{} has {found} columns, the model {} has {expected}", args.matrix, args.model),
            hint: None,
        });
    }
    let values = matrix.to_f32()?;
    watch.phase("predict");
    let predicted = model.predict(&DenseSamples::new(&values, matrix.n_cols())?)?;
    watch.phase("write");
    let (n, n_classes) = (predicted.codes.len(), model.classes.len());
    if let Some(file) = proba {
        write_npy_f32(&predicted.probabilities, &[n, n_classes], file)?;
    }
    if let (Some(file), Some(strangeness)) = (ood, &predicted.strangeness) {
        write_npy_f32(strangeness, &[n], file)?;
    }
    write_npy_labels(&predicted.codes, &model.classes, output)?;

    let mut counts = vec![0u64; n_classes];
    predicted.codes.iter().for_each(|c| counts[*c as usize] += 1);
    let top = |row: &[f32]| f64::from(row.iter().copied().fold(0.0, f32::max));
    let confidence = predicted.probabilities.chunks_exact(n_classes).map(top).sum::<f64>() / n as f64;
    let mut record = session.record("predict");
    record.inputs.push(matrix.input_record()?);
    record.configure("model", &args.model);
    for (name, path) in [("output", Some(&args.output)), ("proba", args.proba.as_ref()), ("ood", args.ood.as_ref())] {
        record.configure(name, path.map(|p| p.display().to_string()));
    }
    record.result("rows", n);
    record.result("mean_confidence", confidence);
    let sizes = model.classes.iter().zip(&counts).map(|(class, n)| (class.clone(), json!(n)));
    record.result("sizes", sizes.collect::<Map<_, _>>());
    session.close(&mut record, &watch);

    let mut summary = Summary::new(format!("predictions for {}", args.matrix));
    summary.line("samples", format!("{}, {n_classes} classes", count(n as u64)));
    summary.line("confidence", format!("{} on average", percent(confidence)));
    summary.line("output", args.output.display().to_string());
    summary.time(&record.seconds);
    Ok(Done { title: format!("Predictions for {}", args.matrix), records: vec![record], summary })
}
