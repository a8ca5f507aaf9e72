//! `subspan merge`: several models into one checkpoint, their units matched first.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;
use subspan::merge::{Gathered, MergeError, Model, Permutations, Rule, Tensor, merge_tensor};
use subspan::{Error, Observer};
use subspan_io::{Checkpoint, CheckpointWriter};
use subspan_nets::analyze::params_of;
use subspan_nets::{Params, repair, reset_norms};
use subspan_report::{count, significant};

use super::models::{Aligned, Bound, Many, MatchArgs, Matching, Samples, align, open};
use crate::failure::Failure;
use crate::session::{Done, Session, has_extension};
use crate::summary::{Summary, counted};

/// As typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Two or more checkpoints of one architecture: .safetensors, or a directory with an index of shards
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// Merge the units as they are
    #[arg(long, conflicts_with_all = ["spec", "method", "many", "restarts", "residual"])]
    no_match: bool,
    /// Share of each model [default: equal]; with --rule task, of its difference from the base, which need not add up to 1
    #[arg(long, value_name = "W,W,..", value_delimiter = ',', allow_hyphen_values = true)]
    weights: Option<Vec<f64>>,
    /// mean: weighted mean; slerp: of two models, a point on the arc between each pair of tensors; task: a base and weighted
    /// differences from it; row-norm (experimental): the mean, rows of matrices scaled to the mean of their norms
    #[arg(long, value_name = "RULE", value_enum, default_value_t = RuleArg::Mean)]
    rule: RuleArg,
    /// The model that all others are matched to and differ from, for --rule task
    #[arg(long, value_name = "MODEL")]
    base: Option<String>,
    /// Bring the units' means and deviations on --data to those of the merged models: REPAIR, or a reset of BatchNorm
    #[arg(long, requires = "data")]
    repair: bool,
    #[command(flatten)]
    matching: MatchArgs,
    /// Where the merged checkpoint goes: a file, or a directory if the first model is one
    #[arg(short, long, value_name = "MERGED.safetensors")]
    output: PathBuf,
    /// Do not wait until the disk has all of it, as cp does not: faster, but a power failure soon after may lose it
    #[arg(long)]
    no_sync: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RuleArg {
    Mean,
    Slerp,
    Task,
    RowNorm,
}

impl RuleArg {
    fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Slerp => "slerp",
            Self::Task => "task",
            Self::RowNorm => "row-norm",
        }
    }
}

/// Resolved and checked.
pub(crate) struct Job {
    models: Vec<String>,
    matching: Matching,
    matches: bool,
    weights: Vec<f64>,
    rescaled: bool,
    rule: RuleArg,
    repair: bool,
    output: PathBuf,
    no_sync: bool,
}

impl Job {
    pub(crate) fn resolve(args: Args) -> Result<Self, Failure> {
        let n = args.models.len();
        let is_task = args.rule == RuleArg::Task;
        match (&args.base, is_task) {
            (None, true) => return Err(Failure::usage("--rule task needs a base", Some("give --base MODEL"))),
            (Some(_), false) => return Err(Failure::usage("--base is for --rule task", None::<String>)),
            _ => {}
        }
        // The base is the model all others are matched to.
        let (all, many) = if is_task { (n + 1, Many::Anchor) } else { (n, Many::MergeMany) };
        let matching = Matching::resolve(args.matching, all, many)?;
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
        if !given.iter().all(|w| w.is_finite()) || !total.is_finite() || (!is_task && total.abs() < f64::EPSILON) {
            return Err(Failure::usage(
                "weights must be finite, and so their sum, which must not be zero",
                None::<String>,
            ));
        }
        let rescaled = !is_task && (total - 1.0).abs() > f64::EPSILON * n as f64;
        let weights = match args.base {
            // base + Σ w (θ − base).
            Some(_) => std::iter::once(1.0 - total).chain(given).collect(),
            None if rescaled => given.iter().map(|w| w / total).collect(),
            None => given,
        };
        Ok(Self {
            models: args.base.into_iter().chain(args.models).collect(),
            matching,
            matches: !args.no_match,
            weights,
            rescaled,
            rule: args.rule,
            repair: args.repair,
            output: args.output,
            no_sync: args.no_sync,
        })
    }

    /// What it reads, as typed.
    pub(crate) fn inputs(&self) -> Vec<&str> {
        self.models.iter().map(String::as_str).chain(self.matching.inputs()).collect()
    }

    /// How a tensor of this many axes is merged: a vector has no rows.
    fn rule(&self, n_axes: usize) -> Rule {
        match self.rule {
            RuleArg::Mean | RuleArg::Task => Rule::Mean,
            RuleArg::Slerp => Rule::Slerp,
            RuleArg::RowNorm if n_axes > 1 => Rule::RowNorm,
            RuleArg::RowNorm => Rule::Mean,
        }
    }
}

/// Matches, merges and writes.
pub(crate) fn run(job: &Job, session: &Session) -> Result<Done, Failure> {
    let watch = session.watch();
    watch.phase("read");
    session.apart(&job.output)?;
    let models = open(&job.models)?;
    let plan = models[0].plan();
    match plan.files.as_slice() {
        [_] if !plan.directory => has_extension(&job.output, "safetensors")?,
        files => files.iter().try_for_each(|(name, _, _)| session.apart(&job.output.join(name)))?,
    }
    let bound = job.matches.then(|| Bound::new(&models, &job.matching)).transpose()?;
    let writer = CheckpointWriter::create(&job.output, plan)?;
    let writer = if job.no_sync { writer.without_sync() } else { writer };
    let samples = Samples::read(&job.matching, &models[0])?;
    let has_norm = samples.as_ref().is_some_and(|s| s.net.has_norm());
    if job.matching.ignores_samples() && !job.repair && !has_norm {
        let message = "--data would change nothing: the network has no BatchNorm whose statistics could be measured";
        return Err(Failure::usage(message, Some("--repair scales and shifts hidden units; or leave --data out")));
    }
    let align = |bound: &Bound| align(&models, &bound.layout, &job.matching, samples.as_ref(), session.seed, &watch);
    let aligned: Option<Aligned> = bound.as_ref().map(align).transpose()?;

    watch.phase("merge");
    let mut merged =
        Merge { job, models: &models, bound: bound.as_ref(), aligned: aligned.as_ref(), measured: BTreeMap::new() };
    let resets = samples.as_ref().filter(|s| s.net.has_norm());
    let repairs = samples.as_ref().filter(|s| job.repair && !s.net.has_norm());
    if let Some(samples) = resets {
        merged.reset_norms(samples, &watch)?;
    }
    let still = repairs.map(|samples| merged.repair(samples, &watch)).transpose()?;
    let Written { differing, infinite } = merged.write(writer, &watch)?;

    let mut record = session.record("merge");
    for model in &models {
        record.inputs.push(model.input_record()?);
    }
    record.inputs.extend(samples.iter().map(|s| s.input.clone()));
    job.matching.configure(&mut record);
    record.configure("match", job.matches);
    record.configure("weights", &job.weights);
    record.configure("rule", job.rule.name());
    record.configure("repair", job.repair);
    record.configure("no-sync", job.no_sync);
    record.configure("output", job.output.display().to_string());
    let mut summary = Summary::new(format!("{} models merged", models.len()));
    summary.line("model", counted(models[0].n_parameters() as usize, "parameter"));
    if let (Some(aligned), Some(bound)) = (&aligned, &bound) {
        aligned.results(&models, bound, &mut record);
        aligned.summary(&models, bound, &mut summary);
    }
    record.result("differing", &differing);
    record.result("not_finite", &infinite);
    record.result("batchnorm_reset", resets.is_some());
    if let Some(still) = still {
        record.result("repair", json!({"still_units": still}));
        let left =
            if still > 0 { format!("; {} that do not vary are left", count(still as u64)) } else { String::new() };
        summary.line("repair", format!("means and deviations of hidden units are those of the merged models{left}"));
    }
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
    if !infinite.is_empty() {
        summary.warnings.push(format!("merged tensors hold values that are not finite: {}", infinite.join(", ")));
    }
    if resets.is_none() && models[0].names().iter().any(|n| n.ends_with("running_var")) {
        summary.warnings.push(
            "statistics of BatchNorm are averaged, but those of the merged network differ: --data TRAINING-SAMPLES measures them".into(),
        );
    }
    Ok(Done { title: format!("{} models merged", models.len()), records: vec![record], summary })
}

/// Names of tensors that something is to be said of.
#[derive(Default)]
struct Written {
    /// Not merged because they are no floating numbers, and they differ.
    differing: Vec<String>,
    /// With infinities or NaN.
    infinite: Vec<String>,
}

struct Merge<'a> {
    job: &'a Job,
    models: &'a [Checkpoint],
    bound: Option<&'a Bound>,
    aligned: Option<&'a Aligned>,
    /// Tensors that depend on what the merged network does with samples.
    measured: BTreeMap<String, Tensor>,
}

impl Merge<'_> {
    /// Measures the statistics of BatchNorm on the merged network, which is held in memory for that.
    fn reset_norms(&mut self, samples: &Samples, observer: &dyn Observer) -> Result<(), Failure> {
        let mut params = self.merged_params(samples)?;
        reset_norms(&samples.net, &mut params, &samples.labelled(), observer)?;
        params.retain(|name, _| name.ends_with("running_mean") || name.ends_with("running_var"));
        self.keep(params)
    }

    /// Scales and shifts hidden units (REPAIR), all models held in memory; the number of units left as they are.
    fn repair(&mut self, samples: &Samples, observer: &dyn Observer) -> Result<usize, Failure> {
        let mut params = self.merged_params(samples)?;
        let ends =
            (0..self.models.len()).map(|k| self.moved_params(samples, k)).collect::<Result<Vec<_>, Failure>>()?;
        let ends: Vec<&Params<f32>> = ends.iter().collect();
        let still = repair(&samples.net, &mut params, &ends, &self.job.weights, &samples.labelled(), observer)?;
        self.keep(params)?;
        Ok(still)
    }

    fn keep(&mut self, params: Params<f32>) -> Result<(), Failure> {
        for (name, tensor) in params {
            let dtype = self.models[0].require(&name)?.dtype;
            self.measured.insert(name, Tensor::from_f32(&tensor.shape, &tensor.values, dtype));
        }
        Ok(())
    }

    /// The merged network's parameters.
    fn merged_params(&self, samples: &Samples) -> Result<Params<f32>, Failure> {
        let mut params = params_of(&samples.net, &self.models[0])?;
        for (name, tensor) in &mut params {
            let mut bytes = Vec::new();
            let sources = (0..self.models.len()).map(|k| self.source(name, k)).collect::<Result<Vec<_>, Failure>>()?;
            merge_tensor(&sources, &self.job.weights, self.job.rule(tensor.shape.len()), &mut |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })?;
            let view = self.models[0].require(name)?;
            tensor.values = Tensor { dtype: view.dtype, shape: view.shape.to_vec(), data: bytes }.view(name).to_f32();
        }
        Ok(params)
    }

    /// The parameters of model `k`, its units moved.
    fn moved_params(&self, samples: &Samples, k: usize) -> Result<Params<f32>, Failure> {
        let mut params = params_of(&samples.net, &self.models[k])?;
        for (name, tensor) in &mut params {
            tensor.values = self.source(name, k)?.to_tensor().view(name).to_f32();
        }
        Ok(params)
    }

    /// Streams the merged tensors.
    fn write(&self, mut writer: CheckpointWriter, observer: &dyn Observer) -> Result<Written, Failure> {
        let mut written = Written::default();
        let plan = self.models[0].plan();
        for name in plan.names() {
            if let Some(measured) = self.measured.get(name) {
                writer.write(&measured.data)?;
                continue;
            }
            let sources = (0..self.models.len()).map(|k| self.source(name, k)).collect::<Result<Vec<_>, Failure>>()?;
            let rule = self.job.rule(sources[0].view().shape.len());
            let mixed = merge_tensor(&sources, &self.job.weights, rule, &mut |bytes| {
                if observer.cancelled() {
                    return Err(MergeError::from(Error::Cancelled));
                }
                Ok(writer.write(bytes).map_err(Error::from)?)
            })?;
            if mixed.differs {
                written.differing.push(name.to_string());
            }
            if !mixed.finite {
                written.infinite.push(name.to_string());
            }
        }
        writer.finish()?;
        Ok(written)
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
