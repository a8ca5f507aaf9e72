//! `subspan analyze --study`: small networks trained on the given data, over widths or weight decays.

use std::path::Path;

use serde_json::{Value, json};
use subspan::draw::Stream;
use subspan_io::{Labels, Matrix, write_bytes_atomically, write_json};
use subspan_nets::analyze::{Study, StudyRow, StudyVariable, study};
use subspan_nets::{Labelled, Samples, Training};
use subspan_report::significant;

use crate::failure::Failure;
use crate::session::{Done, Session};
use crate::summary::{Summary, less};

use super::data::class_numbers;
use super::{REPORT, RUN, record};

/// Share of the samples that are held out for testing when no test samples are given: one in so many.
const HELD_OUT: usize = 4;

/// Where the help lists them.
const STUDY: &str = "Study options";

/// Flags of a study.
#[derive(Debug, clap::Args)]
pub(crate) struct StudyArgs {
    /// Train pairs of small networks on --data and see what changes with their width or weight decay
    #[arg(long, value_name = "WHAT", value_enum, requires = "data", help_heading = STUDY)]
    study: Option<WhatArg>,
    /// Widths or weight decays [default: 32,64,128,256,512,1024; 0,0.0001,0.0003,0.001,0.003]
    #[arg(long, value_name = "V,V,..", value_delimiter = ',', allow_hyphen_values = true, requires = "study")]
    #[arg(help_heading = STUDY)]
    values: Option<Vec<f64>>,
    /// Pairs of networks per value
    #[arg(long, value_name = "N", default_value_t = 3, requires = "study", help_heading = STUDY)]
    pairs: usize,
    /// Hidden layers
    #[arg(long, value_name = "N", default_value_t = 3, requires = "study", help_heading = STUDY)]
    depth: usize,
    /// Units per hidden layer, in a study of weight decay
    #[arg(long, value_name = "N", default_value_t = 256, requires = "study", help_heading = STUDY)]
    width: usize,
    /// Passes over the training samples
    #[arg(long, value_name = "N", default_value_t = 40, requires = "study", help_heading = STUDY)]
    epochs: usize,
    /// Samples per step
    #[arg(long, value_name = "N", default_value_t = 64, requires = "study", help_heading = STUDY)]
    batch: usize,
    /// Test samples [default: every fourth sample is held out]
    #[arg(long, value_name = "MATRIX", requires = "test_labels", requires = "study", help_heading = STUDY)]
    test: Option<String>,
    /// Their classes
    #[arg(long, value_name = "LABELS", requires = "test", help_heading = STUDY)]
    test_labels: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum WhatArg {
    /// Units per hidden layer
    Width,
    /// Weight decay
    WeightDecay,
}

/// Resolved.
pub(super) struct Job {
    design: Study,
    test: Option<(String, String)>,
}

impl Job {
    /// The study, if one is asked for.
    pub(super) fn resolve(args: &StudyArgs, has_data: bool) -> Result<Option<Self>, Failure> {
        let Some(what) = args.study else { return Ok(None) };
        if !has_data {
            return Err(Failure::usage("--study needs samples", Some("give --data and --labels")));
        }
        let (variable, default) = match what {
            WhatArg::Width => (StudyVariable::Width, vec![32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]),
            WhatArg::WeightDecay => (StudyVariable::WeightDecay, vec![0.0, 1e-4, 3e-4, 1e-3, 3e-3]),
        };
        let values = args.values.clone().unwrap_or(default);
        let whole = |v: &f64| *v >= 1.0 && v.fract() == 0.0 && *v <= 65_536.0;
        let bad = match variable {
            StudyVariable::Width => values.iter().find(|v| !whole(v)),
            StudyVariable::WeightDecay => values.iter().find(|v| !(**v >= 0.0 && v.is_finite())),
        };
        if let Some(v) = bad {
            return Err(Failure::usage(format!("--values: {v} is no width or weight decay"), None::<String>));
        }
        for (name, value) in [
            ("--pairs", args.pairs),
            ("--depth", args.depth),
            ("--width", args.width),
            ("--epochs", args.epochs),
            ("--batch", args.batch),
        ] {
            if value == 0 {
                return Err(Failure::usage(format!("{name} must be at least 1, not 0"), None::<String>));
            }
        }
        let training = Training { epochs: args.epochs, batch: args.batch, ..Training::default() };
        let (depth, width, pairs) = (args.depth, args.width, args.pairs);
        let design = Study { variable, values, depth, width, training, pairs };
        Ok(Some(Self { design, test: args.test.clone().zip(args.test_labels.clone()) }))
    }

    /// The files of the test samples.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &str> {
        self.test.iter().flat_map(|(data, labels)| [data.as_str(), labels.as_str()])
    }
}

/// Samples with their classes.
struct Part {
    x: Vec<f32>,
    y: Vec<u32>,
    n_cols: usize,
}

impl Part {
    fn read(matrix: &Matrix, labels: &Labels) -> Result<Self, Failure> {
        if matrix.n_rows() != labels.codes.len() {
            let message = format!("{} labels for {} samples", labels.codes.len(), matrix.n_rows());
            return Err(Failure::Work { message, hint: None });
        }
        let shape: Vec<usize> = matrix.shape().iter().map(|n| *n as usize).collect();
        let x = Samples::arrange(&shape, matrix.to_f32()?, None)?.values;
        Ok(Self { x, y: class_numbers(labels)?, n_cols: matrix.n_cols() })
    }

    /// Splits off every [`HELD_OUT`]th sample of a seeded order.
    fn split(self, seed: u64) -> (Self, Self) {
        let order = Stream::new(seed, "held out").rng(0).permutation(self.y.len());
        let part = |test: bool| {
            let rows = order.iter().enumerate().filter(|(i, _)| (i % HELD_OUT == 0) == test).map(|(_, row)| *row);
            let mut out = Self { x: Vec::new(), y: Vec::new(), n_cols: self.n_cols };
            for row in rows {
                out.x.extend_from_slice(&self.x[row * self.n_cols..(row + 1) * self.n_cols]);
                out.y.push(self.y[row]);
            }
            out
        };
        (part(false), part(true))
    }

    fn labelled(&self) -> Labelled<'_, f32> {
        Labelled { x: &self.x, y: &self.y }
    }
}

/// Brings the training samples to mean 0 and deviation 1, all values together, and the test samples along.
fn standardize(train: &mut Part, test: &mut Part) {
    let n = train.x.len() as f64;
    let mean = train.x.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let var = train.x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    let inverse = if var > 0.0 { 1.0 / var.sqrt() } else { 1.0 };
    for part in [train, test] {
        part.x.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * inverse) as f32);
    }
}

/// Trains, matches and compares.
pub(super) fn run(job: &Job, outer: &super::Job, session: &Session) -> Result<Done, Failure> {
    let directory = outer.directory(session)?;
    let watch = session.watch();
    watch.phase("read");
    let Some(files) = &outer.files else { return Err(Failure::usage("--study needs samples", None::<String>)) };
    let (matrix, labels) = (Matrix::open(&files.data)?, Labels::open(&files.labels)?);
    let mut record = session.record("analyze");
    record.inputs.extend([matrix.input_record()?, labels.input.clone()]);
    let all = Part::read(&matrix, &labels)?;
    let (mut train, mut test) = match &job.test {
        None => all.split(session.seed),
        Some((data, labels)) => {
            let (matrix, labels) = (Matrix::open(data)?, Labels::open(labels)?);
            record.inputs.extend([matrix.input_record()?, labels.input.clone()]);
            (all, Part::read(&matrix, &labels)?)
        }
    };
    standardize(&mut train, &mut test);
    let n_classes = train.y.iter().chain(&test.y).max().map_or(0, |y| *y as usize + 1);
    let shape = [train.n_cols, n_classes];
    let rows = study(&job.design, &train.labelled(), &test.labelled(), shape, &outer.config, session.seed, &watch)?;

    record::configure(&mut record, &outer.config);
    let design = &job.design;
    record.configure("study", design.variable);
    record.configure("values", &design.values);
    record.configure("pairs", design.pairs);
    record.configure("depth", design.depth);
    if design.variable == StudyVariable::WeightDecay {
        record.configure("width", design.width);
    }
    record.configure("epochs", design.training.epochs);
    record.configure("batch", design.training.batch);
    record.configure("lr", design.training.lr);
    let table = medians(design, &rows);
    record.result("study", json!({"variable": design.variable, "rows": rows, "medians": table}));
    session.close(&mut record, &watch);
    let what = if design.variable == StudyVariable::Width { "width" } else { "weight decay" };
    let title = format!("What {what} changes, on networks trained on {}", files.data);
    write_json(directory.path().join(RUN), &record)?;
    let html = subspan_report::html(&title, "", std::slice::from_ref(&record));
    write_bytes_atomically(directory.path().join(REPORT), html.as_bytes())?;
    directory.keep();
    let summary = summary(&title, &table, &record, &outer.output);
    Ok(Done { title, records: vec![record], summary })
}

/// The median over pairs of every figure, per value.
fn medians(design: &Study, rows: &[StudyRow]) -> Vec<Value> {
    let median = |value: f64, figure: fn(&StudyRow) -> f64| {
        let mut found: Vec<f64> = rows.iter().filter(|r| r.value == value).map(figure).collect();
        found.sort_by(f64::total_cmp);
        let n = found.len();
        if n == 0 { f64::NAN } else { (found[(n - 1) / 2] + found[n / 2]) / 2.0 }
    };
    let one = |value: &f64| {
        json!({
            "value": value,
            "accuracy": median(*value, |r| r.accuracy),
            "barrier_before": median(*value, |r| r.barrier_before),
            "barrier_after": median(*value, |r| r.barrier_after),
            "accuracy_drop": median(*value, |r| r.accuracy_drop),
            "distance_reduction": median(*value, |r| r.distance_reduction),
            "alignment_before": median(*value, |r| r.alignment_before),
            "alignment_after": median(*value, |r| r.alignment_after),
            "directions": median(*value, |r| r.directions),
        })
    };
    design.values.iter().map(one).collect()
}

fn summary(title: &str, medians: &[Value], record: &subspan::RunRecord, output: &Path) -> Summary {
    let mut out = Summary::new(title);
    for row in medians {
        let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        out.line(
            &number("value").to_string(),
            format!(
                "barrier {} to {}, distance {}, R {:.3}, accuracy {:.1} %",
                significant(number("barrier_before"), 3),
                significant(number("barrier_after"), 3),
                less(number("distance_reduction")),
                number("alignment_after"),
                100.0 * number("accuracy")
            ),
        );
    }
    out.line("report", output.join(REPORT).display().to_string());
    out.time(&record.seconds);
    out
}
