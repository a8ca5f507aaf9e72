//! `subspan analyze`: what matching does to models, and why merging them works or fails.

pub(crate) mod data;
pub(crate) mod record;
mod study;

use std::path::PathBuf;

use serde_json::json;
use subspan::merge::{Layout, Model, Permutations, match_weights};
use subspan_io::{Checkpoint, OutputDirectory, write_bytes_atomically, write_json};
use subspan_nets::analyze::{AnalyzeConfig, Evaluation, Method, PairAnalysis, Several, analyze_pair, analyze_several};
use subspan_nets::{Architecture, Net};
use subspan_report::significant;

use crate::failure::Failure;
use crate::session::{Done, Session};
use crate::summary::{Summary, less};
use crate::verbs::models::{AUTO, open, resolve_spec};
use data::{Data, Files};

/// As typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Two or more checkpoints of one architecture: .safetensors, or a directory with an index of shards
    #[arg(value_name = "MODEL", required_unless_present = "study", conflicts_with = "study")]
    models: Vec<String>,
    /// Which units may change places: SPEC.toml, MODEL.onnx (derived from its graph), or auto: derived from names and shapes
    #[arg(long, value_name = "SPEC", default_value = "auto")]
    spec: String,
    /// How models are matched; activations needs --data
    #[arg(long, value_name = "METHOD", value_enum, default_value_t = MethodArg::Weights)]
    method: MethodArg,
    /// Directions count from this share of their layer's largest singular value on
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    gamma: f64,
    /// Points of the curves between models, both ends included
    #[arg(long, value_name = "N", default_value_t = 25)]
    points: usize,
    /// Do not match on parts of the singular directions
    #[arg(long)]
    no_intervention: bool,
    /// Barrier, in nats, up to which models count as linearly connected
    #[arg(long, value_name = "NATS", default_value_t = 0.02)]
    tolerance: f64,
    /// Samples for loss and accuracy: images or features, as classify reads them
    #[arg(long, value_name = "MATRIX", requires = "labels")]
    data: Option<String>,
    /// Their classes, the numbers of the network's outputs
    #[arg(long, value_name = "LABELS", requires = "data")]
    labels: Option<String>,
    /// Training samples: statistics of BatchNorm are measured on them, activations matched
    #[arg(long, value_name = "MATRIX", requires = "data")]
    train: Option<String>,
    /// How samples become inputs: MEAN/STD (of integers scaled to 0..1), unit or none [default: as the first checkpoint says]
    #[arg(long, value_name = "HOW", requires = "data")]
    normalize: Option<String>,
    /// The network's layers, e.g. conv1,relu,maxpool2,fc1,relu,fc2 [default: from names and shapes]
    #[arg(long, value_name = "LAYERS", requires = "data")]
    arch: Option<String>,
    #[command(flatten)]
    study: study::StudyArgs,
    /// Directory of the record and the report
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum MethodArg {
    /// Units with alike weights
    Weights,
    /// Units that fire together
    Activations,
}

/// The outputs.
const RUN: &str = "run.json";
const REPORT: &str = "report.html";

/// Resolved and checked.
pub(crate) struct Job {
    work: Work,
    config: AnalyzeConfig,
    files: Option<Files>,
    output: PathBuf,
}

enum Work {
    Models { paths: Vec<String>, spec: String, arch: Option<String> },
    Study(study::Job),
}

impl Job {
    pub(crate) fn resolve(args: Args) -> Result<Self, Failure> {
        let method = match args.method {
            MethodArg::Weights => Method::Weights,
            MethodArg::Activations => Method::Activations,
        };
        let config = AnalyzeConfig {
            method,
            gamma: args.gamma,
            points: args.points,
            intervention: !args.no_intervention,
            tolerance: args.tolerance,
            ..AnalyzeConfig::default()
        };
        config.check()?;
        let files = Files::resolve(args.data.zip(args.labels), args.train, args.normalize.as_deref())?;
        if method == Method::Activations && files.is_none() {
            return Err(Failure::usage("--method activations needs samples", Some("give --data and --labels")));
        }
        let work = match study::Job::resolve(&args.study, files.is_some())? {
            Some(study) => Work::Study(study),
            None if args.models.len() < 2 => {
                return Err(Failure::usage("two or more models are needed", None::<String>));
            }
            None => Work::Models { paths: args.models, spec: args.spec, arch: args.arch },
        };
        Ok(Self { work, config, files, output: args.output })
    }

    /// What it reads, as typed.
    pub(crate) fn inputs(&self) -> Vec<&str> {
        let files = self.files.iter().flat_map(Files::inputs);
        match &self.work {
            Work::Models { paths, spec, .. } => {
                let spec = (spec != AUTO).then_some(spec.as_str());
                paths.iter().map(String::as_str).chain(spec).chain(files).collect()
            }
            Work::Study(study) => study.inputs().chain(files).collect(),
        }
    }

    /// Makes sure of the directory; what will be in it is no input.
    fn directory(&self, session: &Session) -> Result<OutputDirectory, Failure> {
        for name in [RUN, REPORT] {
            session.apart(&self.output.join(name))?;
        }
        Ok(OutputDirectory::create(&self.output)?)
    }
}

/// Analyses models, or trains and analyses some.
pub(crate) fn run(job: &Job, session: &Session) -> Result<Done, Failure> {
    match &job.work {
        Work::Models { paths, spec, arch } => models(job, paths, spec, arch.as_deref(), session),
        Work::Study(study) => study::run(study, job, session),
    }
}

fn models(job: &Job, paths: &[String], spec: &str, arch: Option<&str>, session: &Session) -> Result<Done, Failure> {
    let directory = job.directory(session)?;
    let watch = session.watch();
    watch.phase("read");
    let checkpoints = open(paths)?;
    let first = &checkpoints[0];
    let mut notes = Vec::new();
    let (spec, source, more) = resolve_spec(spec, first, false)?;
    notes.push(format!("spec {source}"));
    notes.extend(more);
    let layout = Layout::new(spec, first)?;
    let data = match &job.files {
        Some(files) => Some(load(files, first, arch, &mut notes)?),
        None => None,
    };
    let evaluation = data.as_ref().map(|(net, data)| data.evaluation(net));

    let pair = analyze_pair(&layout, first, &checkpoints[1], evaluation.as_ref(), &job.config, session.seed, &watch)?;
    let several = match checkpoints.len() {
        2 => None,
        _ => Some(all_pairs(&layout, &checkpoints, &pair, evaluation.as_ref(), job, session, &watch)?),
    };
    watch.phase("write");
    let mut record = session.record("analyze");
    for checkpoint in &checkpoints {
        record.inputs.push(checkpoint.input_record()?);
    }
    if let Some((net, data)) = &data {
        record.inputs.extend(data.inputs.iter().cloned());
        record.configure("network", format!("{} operations", net.nodes().len() - 1));
        record.configure("normalize", data.normalize.to_string());
    }
    record::configure(&mut record, &job.config);
    record.configure("output", job.output.display().to_string());
    record.configure("perms", json!(layout.perms.iter().map(|(id, p)| (id, p.size)).collect::<Vec<_>>()));
    let names: Vec<String> = checkpoints.iter().map(Checkpoint::base_name).collect();
    record::pair(&mut record, &pair, &job.config);
    if let Some(several) = &several {
        record::several(&mut record, several, &names);
    }
    let warnings = warnings(&pair, evaluation.as_ref(), &layout, first);
    record.result("notes", &notes);
    record.result("warnings", &warnings);
    record.result("story", record::story(&pair, &job.config));
    session.close(&mut record, &watch);
    let title = format!("{} and what matching does to them", names.join(", "));
    write_json(directory.path().join(RUN), &record)?;
    let html = subspan_report::html(&title, "", std::slice::from_ref(&record));
    write_bytes_atomically(directory.path().join(REPORT), html.as_bytes())?;
    directory.keep();

    let mut out = summary(&title, &pair, several.as_ref(), &job.config);
    for (i, note) in notes.iter().enumerate() {
        out.line(if i == 0 { "notes" } else { "" }, note);
    }
    out.line("report", job.output.join(REPORT).display().to_string());
    out.time(&record.seconds);
    out.warnings = warnings;
    Ok(Done { title, records: vec![record], summary: out })
}

/// The network of a checkpoint and the samples as it wants them.
fn load(
    files: &Files,
    model: &Checkpoint,
    arch: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<(Net, Data), Failure> {
    let shapes: Vec<(String, Vec<usize>)> =
        model.names().into_iter().filter_map(|n| Some((n.to_string(), model.tensor(n)?.shape.to_vec()))).collect();
    let arch = match arch {
        Some(list) => Architecture::from_list(list, &shapes)?,
        None => Architecture::infer(&shapes)?,
    };
    notes.push(format!("run as {arch}"));
    let data = Data::read(files, arch.image_channels(), model)?;
    let net = arch.build(data.dims)?;
    data.check_labels(net.len_at(net.output()))?;
    Ok((net, data))
}

fn all_pairs(
    layout: &Layout,
    checkpoints: &[Checkpoint],
    pair: &PairAnalysis,
    evaluation: Option<&Evaluation<'_>>,
    job: &Job,
    session: &Session,
    watch: &crate::watch::Watch,
) -> Result<Several, Failure> {
    let mut permutations = vec![Permutations::identity(layout.spec()), pair.permutations.clone()];
    for other in &checkpoints[2..] {
        let found = match (job.config.method, evaluation) {
            (Method::Activations, Some(e)) => {
                use subspan_nets::analyze::{match_activations, params_of};
                let ends = [params_of(e.net, &checkpoints[0])?, params_of(e.net, other)?];
                match_activations(e.net, layout, [&ends[0], &ends[1]], &e.train.unwrap_or(e.data))?
            }
            _ => {
                let config = &job.config.matching;
                match_weights(layout, &checkpoints[0], other, None, config, session.seed, watch)?.permutations
            }
        };
        permutations.push(found);
    }
    let models: Vec<&dyn Model> = checkpoints.iter().map(|c| c as &dyn Model).collect();
    Ok(analyze_several(layout, &models, &permutations, evaluation, watch)?)
}

fn warnings(
    pair: &PairAnalysis,
    evaluation: Option<&Evaluation<'_>>,
    layout: &Layout,
    model: &dyn Model,
) -> Vec<String> {
    let mut out = Vec::new();
    if evaluation.is_some_and(|e| e.net.has_norm() && e.train.is_none()) {
        out.push("BatchNorm statistics of merged models are averages; --train MATRIX measures them".into());
    }
    if pair.sweeps.is_some() && !pair.certified {
        out.push("the matching is not proved to be the best, perm by perm".into());
    }
    let untouched = layout.untouched(model).into_iter().filter(|n| model.tensor(n).is_some_and(|t| t.shape.len() >= 2));
    let names: Vec<&str> = untouched.collect();
    if !names.is_empty() {
        out.push(format!("no perm touches {}; it takes no part in distances", names.join(", ")));
    }
    out
}

fn summary(title: &str, pair: &PairAnalysis, several: Option<&Several>, config: &AnalyzeConfig) -> Summary {
    let mut out = Summary::new(title);
    let (before, after) = (pair.before.distance(), pair.after.distance());
    let change = less(pair.distance_reduction());
    out.line("distance", format!("{} to {} ({change})", significant(before, 4), significant(after, 4)));
    if let Some([raw, matched]) = pair.alignment_at(config.gamma) {
        out.line("alignment", format!("R({}) {:.3} to {:.3}", config.gamma, raw.total, matched.total));
    }
    let barrier = |b: &subspan::merge::analysis::Barrier| {
        format!("{} nats, accuracy drop {:.2} points", significant(b.loss, 3), 100.0 * b.accuracy)
    };
    if let Some([raw, matched]) = pair.barriers() {
        out.line("barrier", format!("before {}", barrier(&raw)));
        out.line("", format!("after  {}", barrier(&matched)));
        out.line("", record::verdict(matched.loss, config.tolerance));
    }
    for arm in pair.intervention.iter().flat_map(|i| &i.arms).skip(2) {
        let loss = arm.barrier.map_or(String::new(), |b| format!(", barrier {}", significant(b.loss, 3)));
        let distance = less(arm.distance_reduction);
        out.line(arm.arm, format!("distance {distance}, R {:.3}{loss}", arm.alignment));
    }
    for side in several.iter().flat_map(|s| &s.pairs) {
        let loss = side.barrier.map_or(String::new(), |[raw, matched]| {
            format!(", barrier {} to {}", significant(raw.loss, 3), significant(matched.loss, 3))
        });
        let [before, after] = side.distance.map(|d| significant(d, 4));
        out.line(&format!("{} and {}", side.models[0] + 1, side.models[1] + 1), format!("{before} to {after}{loss}"));
    }
    out
}
