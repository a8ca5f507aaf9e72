//! `subspan merge`: several models into one checkpoint, their units matched first.

use std::path::{Path, PathBuf};

use subspan::merge::{Gathered, MergeError, Model, Permutations, Rule, merge_tensor};
use subspan::{Error, Observer};
use subspan_io::{Checkpoint, CheckpointWriter};
use subspan_report::{count, significant};

use super::models::{Aligned, Bound, Many, MatchArgs, Matching, align, open};
use crate::failure::Failure;
use crate::session::{Done, Session, same_place};
use crate::summary::Summary;

/// As typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Two or more checkpoints of one architecture: .safetensors, or a directory with an index of shards
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// Merge the units as they are
    #[arg(long, conflicts_with_all = ["spec", "many", "restarts", "residual"])]
    no_match: bool,
    /// Share of each model [default: equal]
    #[arg(long, value_name = "W,W,..", value_delimiter = ',', allow_negative_numbers = true)]
    weights: Option<Vec<f64>>,
    /// mean: weighted mean; slerp: of two models, a point on the arc between each pair of tensors
    #[arg(long, value_name = "RULE", value_enum, default_value_t = RuleArg::Mean)]
    rule: RuleArg,
    #[command(flatten)]
    matching: MatchArgs,
    /// Where the merged checkpoint goes: a file, or a directory if the first model is one
    #[arg(short, long, value_name = "MERGED.safetensors")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RuleArg {
    Mean,
    Slerp,
}

/// Resolved and checked.
pub(crate) struct Job {
    models: Vec<String>,
    matching: Option<Matching>,
    weights: Vec<f64>,
    rescaled: bool,
    rule: RuleArg,
    output: PathBuf,
}

impl Job {
    pub(crate) fn resolve(args: Args) -> Result<Self, Failure> {
        let n = args.models.len();
        let matching = Matching::resolve(args.matching, n, Many::MergeMany)?;
        if args.rule == RuleArg::Slerp && n != 2 {
            return Err(Failure::usage(
                format!("--rule slerp is for two models, not {n}"),
                Some("--rule mean takes any number"),
            ));
        }
        let given = args.weights.unwrap_or_else(|| vec![1.0 / n as f64; n]);
        let total: f64 = given.iter().sum();
        if given.len() != n {
            return Err(Failure::usage(format!("{} weights are given for {n} models", given.len()), None::<String>));
        }
        if !given.iter().all(|w| w.is_finite()) || total.abs() < f64::EPSILON {
            return Err(Failure::usage("weights must be finite and must not add up to zero", None::<String>));
        }
        let rescaled = (total - 1.0).abs() > f64::EPSILON * n as f64;
        let weights = if rescaled { given.iter().map(|w| w / total).collect() } else { given };
        let matching = (!args.no_match).then_some(matching);
        Ok(Self { models: args.models, matching, weights, rescaled, rule: args.rule, output: args.output })
    }

    fn rule(&self) -> Rule {
        match self.rule {
            RuleArg::Mean => Rule::Mean,
            RuleArg::Slerp => Rule::Slerp,
        }
    }
}

/// Matches, merges and writes.
pub(crate) fn run(job: &Job, session: &Session) -> Result<Done, Failure> {
    let watch = session.watch();
    watch.phase("read");
    for path in &job.models {
        if same_place(&job.output, Path::new(path)) {
            let message = format!("{path} is the input, it cannot be the output too");
            return Err(Failure::usage(message, Some("give the output another name")));
        }
    }
    let models = open(&job.models)?;
    let bound = job.matching.as_ref().map(|m| Bound::new(&models, m)).transpose()?;
    let writer = CheckpointWriter::create(&job.output, models[0].plan())?;
    let aligned: Option<Aligned> = match (&bound, &job.matching) {
        (Some(bound), Some(matching)) => Some(align(&models, &bound.layout, matching, session.seed, &watch)?),
        _ => None,
    };

    watch.phase("merge");
    let merged = Merge { job, models: &models, bound: bound.as_ref(), aligned: aligned.as_ref() };
    let differing = merged.write(writer, &watch)?;

    let mut record = session.record("merge");
    for model in &models {
        record.inputs.push(model.input_record()?);
    }
    if let Some(matching) = &job.matching {
        matching.configure(&mut record);
    }
    record.configure("match", job.matching.is_some());
    record.configure("weights", &job.weights);
    record.configure("rule", if job.rule == RuleArg::Mean { "mean" } else { "slerp" });
    record.configure("output", job.output.display().to_string());
    let mut summary = Summary::new(format!("{} models merged", models.len()));
    summary.line("model", format!("{} parameters", count(models[0].n_parameters())));
    if let (Some(aligned), Some(bound)) = (&aligned, &bound) {
        aligned.results(&models, bound, &mut record);
        aligned.summary(&models, bound, &mut summary);
    }
    record.result("differing", &differing);
    session.close(&mut record, &watch);
    let weights: Vec<String> = job.weights.iter().map(|w| significant(*w, 3)).collect();
    summary.line("weights", weights.join(", "));
    summary.line("output", job.output.display().to_string());
    summary.time(&record.seconds);
    if job.rescaled {
        summary.warnings.push(format!("weights are rescaled to add up to 1: {}", weights.join(", ")));
    }
    if !differing.is_empty() {
        let what = format!(
            "tensors that are no floating numbers differ, the first model's are kept: {}",
            differing.join(", ")
        );
        summary.warnings.push(what);
    }
    if models[0].names().iter().any(|n| n.ends_with("running_var")) {
        summary.warnings.push(
            "statistics of BatchNorm are averaged, but those of the merged network differ: measure them again on training data".into(),
        );
    }
    Ok(Done { title: format!("{} models merged", models.len()), records: vec![record], summary })
}

struct Merge<'a> {
    job: &'a Job,
    models: &'a [Checkpoint],
    bound: Option<&'a Bound>,
    aligned: Option<&'a Aligned>,
}

impl Merge<'_> {
    /// Streams the merged tensors; the names of tensors that could not be merged because they are no floating numbers and differ.
    fn write(&self, mut writer: CheckpointWriter, observer: &dyn Observer) -> Result<Vec<String>, Failure> {
        let mut differing = Vec::new();
        let plan = self.models[0].plan();
        for name in plan.names() {
            let sources = (0..self.models.len()).map(|k| self.source(name, k)).collect::<Result<Vec<_>, Failure>>()?;
            let differs = merge_tensor(&sources, &self.job.weights, self.job.rule(), &mut |bytes| {
                if observer.cancelled() {
                    return Err(MergeError::from(Error::Cancelled));
                }
                Ok(writer.write(bytes).map_err(Error::from)?)
            })?;
            if differs {
                differing.push(name.to_string());
            }
        }
        writer.finish()?;
        Ok(differing)
    }

    /// A tensor of model `k`, its units moved.
    fn source(&self, name: &str, k: usize) -> Result<Gathered<'_>, Failure> {
        let view = self.models[k].require(name)?;
        let permutations: Option<&Permutations> =
            k.checked_sub(1).and_then(|k| self.aligned.map(|a| &a.permutations[k]));
        Ok(match (self.bound, permutations) {
            (Some(bound), Some(permutations)) => bound.layout.gathered(view, permutations),
            _ => Gathered::new(view, &[]),
        })
    }
}
