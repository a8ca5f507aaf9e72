//! What `match` and `merge` share: open models, find out which units may change places, match.

use serde_json::{Value, json};
use subspan::merge::{
    Comparison, Layout, MatchConfig, Model, Permutations, Scope, Spec, check_alike, compare, derive, derive_from_graph,
    match_weights, merge_many,
};
use subspan::record::InputRecord;
use subspan::{Event, Observer, RunRecord};
use subspan_io::{Checkpoint, Labels, Matrix, read_graph, read_spec};
use subspan_nets::analyze::{Ste, SteConfig, SteForm, match_activations, match_ste, params_of};
use subspan_nets::{Architecture, Labelled, Net, Normalize};
use subspan_report::{count, significant};

use crate::failure::Failure;
use crate::summary::{Summary, counted, counted_as, less};
use crate::verbs::analyze::data::{class_numbers, from_checkpoint, read_samples};

/// Flags of both verbs, as typed.
#[derive(Debug, clap::Args)]
pub(crate) struct MatchArgs {
    /// Which units may change places: SPEC.toml, MODEL.onnx (derived from its graph), or auto: derived from names and shapes
    #[arg(long, value_name = "SPEC", default_value = "auto")]
    spec: String,
    /// weights: units with alike weights; activations: units that fire together on --data; ste: the lowest loss half-way between
    #[arg(long, value_name = "METHOD", value_enum, default_value_t = Method::Weights)]
    method: Method,
    /// Samples for activations, ste and statistics of BatchNorm, training samples at best: images or features, as classify reads them
    #[arg(long, value_name = "MATRIX")]
    data: Option<String>,
    /// Their classes, the numbers of the network's outputs; ste needs them
    #[arg(long, value_name = "LABELS", requires = "data")]
    labels: Option<String>,
    /// What ste moves down the gradient: a model near the first, or logits of every permutation
    #[arg(long, value_name = "FORM", value_enum, default_value_t = SteArg::Projected)]
    ste: SteArg,
    /// Gradient steps of ste [default: ten passes over the samples; latent: 800]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// How samples become inputs: MEAN/STD (of integers scaled to 0..1), unit or none [default: as the first checkpoint says]
    #[arg(long, value_name = "HOW", requires = "data")]
    normalize: Option<String>,
    /// The network's layers, e.g. conv1,relu,maxpool2,fc1,relu,fc2 [default: from names and shapes]
    #[arg(long, value_name = "LAYERS", requires = "data")]
    arch: Option<String>,
    /// With more than two models: match each to the first, or all to each other's mean
    #[arg(long, value_name = "HOW", value_enum)]
    many: Option<Many>,
    /// Runs; each after the first matches most layers of the best one anew, and the better one is kept
    #[arg(long, value_name = "N", default_value_t = 1)]
    restarts: usize,
    /// Let a transformer's residual stream move too
    #[arg(long)]
    residual: bool,
}

/// What makes two units alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Method {
    Weights,
    Activations,
    Ste,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Activations => "activations",
            Self::Ste => "ste",
        }
    }
}

/// The two straight-through estimators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SteArg {
    Projected,
    Latent,
}

/// What several models are matched to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Many {
    /// Each to the first
    Anchor,
    /// Each to the mean of the others, in turn
    MergeMany,
}

impl Many {
    fn name(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::MergeMany => "merge-many",
        }
    }
}

/// The same, resolved and checked.
#[derive(Debug, Clone)]
pub(crate) struct Matching {
    spec: String,
    many: Many,
    config: MatchConfig,
    residual: bool,
    method: Method,
    ste: SteConfig,
    data: Option<DataFile>,
}

/// Samples as typed.
#[derive(Debug, Clone)]
struct DataFile {
    path: String,
    labels: Option<String>,
    normalize: Option<Normalize>,
    arch: Option<String>,
}

impl Matching {
    pub(crate) fn resolve(args: MatchArgs, n_models: usize, default: Many) -> Result<Self, Failure> {
        if n_models < 2 {
            return Err(Failure::usage("two or more models are needed", None::<String>));
        }
        let config = MatchConfig { restarts: args.restarts, ..MatchConfig::default() };
        config.check()?;
        if args.residual && args.spec != AUTO && !is_graph(&args.spec) {
            let hint = "say in the spec which perms are fixed";
            return Err(Failure::usage("--residual is for derived specs", Some(hint)));
        }
        let by_weights = args.method == Method::Weights;
        let method = args.method.name();
        if !by_weights && args.data.is_none() {
            return Err(Failure::usage(format!("--method {method} needs samples"), Some("give --data")));
        }
        if args.method == Method::Ste && args.labels.is_none() {
            return Err(Failure::usage("--method ste needs the samples' classes", Some("give --labels")));
        }
        if args.method != Method::Ste && (args.steps.is_some() || args.ste != SteArg::Projected) {
            return Err(Failure::usage("--ste and --steps are for --method ste", None::<String>));
        }
        if args.steps == Some(0) {
            return Err(Failure::usage("--steps must be at least 1, not 0", None::<String>));
        }
        if args.many.is_some() && n_models == 2 {
            return Err(Failure::usage("--many is for more than two models", None::<String>));
        }
        let default = if n_models == 2 || !by_weights { Many::Anchor } else { default };
        let many = args.many.unwrap_or(default);
        if !by_weights && many == Many::MergeMany {
            let hint = "--many anchor matches every model to the first";
            return Err(Failure::usage(format!("--many merge-many matches by weights, not by {method}"), Some(hint)));
        }
        let normalize = args.normalize.as_deref().map(Normalize::parse).transpose();
        let normalize = normalize.map_err(|e| Failure::usage(e.to_string(), e.hint()))?;
        let data = args.data.map(|path| DataFile { path, labels: args.labels, normalize, arch: args.arch });
        let form = if args.ste == SteArg::Latent { SteForm::Latent } else { SteForm::Projected };
        let ste = SteConfig { form, steps: args.steps, matching: config.clone(), ..SteConfig::default() };
        Ok(Self { spec: args.spec, many, config, residual: args.residual, method: args.method, ste, data })
    }

    /// Whether samples are given that matching does not look at.
    pub(crate) fn ignores_samples(&self) -> bool {
        self.data.is_some() && self.method == Method::Weights
    }

    /// Files read beside the models.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &str> {
        let data = self.data.iter().flat_map(|d| [Some(d.path.as_str()), d.labels.as_deref()]).flatten();
        data.chain((self.spec != AUTO).then_some(self.spec.as_str()))
    }

    pub(crate) fn configure(&self, record: &mut RunRecord) {
        record.configure("spec", &self.spec);
        record.configure("method", self.method.name());
        if self.method == Method::Ste {
            record.configure("ste", self.ste.form);
        }
        record.configure("data", self.data.as_ref().map(|d| &d.path));
        record.configure("many", self.many.name());
        record.configure("restarts", self.config.restarts);
        record.configure("residual", self.residual);
    }
}

/// The word for a derived spec.
pub(crate) const AUTO: &str = "auto";

/// Whether a spec is derived from a graph.
fn is_graph(spec: &str) -> bool {
    spec.to_ascii_lowercase().ends_with(".onnx")
}

/// The spec of a file, of a graph, or the one that names and shapes give; where it is from, and notes for the user.
pub(crate) fn resolve_spec(
    spec: &str,
    model: &Checkpoint,
    residual: bool,
) -> Result<(Spec, String, Vec<String>), Failure> {
    if spec != AUTO && !is_graph(spec) {
        return Ok((read_spec(spec)?, spec.into(), Vec::new()));
    }
    let derived = if spec == AUTO {
        derive(model, model.config()?.as_ref(), residual)?
    } else {
        derive_from_graph(&read_graph(spec)?, model, residual)?
    };
    Ok((derived.spec, format!("derived for {}", derived.family), derived.notes))
}

/// Opens the models and checks that they are alike.
pub(crate) fn open(paths: &[String]) -> Result<Vec<Checkpoint>, Failure> {
    let models: Vec<Checkpoint> = paths.iter().map(|p| Checkpoint::open(p)).collect::<Result<_, _>>()?;
    for other in &models[1..] {
        check_alike(&models[0], other)?;
    }
    Ok(models)
}

/// A spec that fits the models, and where it is from.
pub(crate) struct Bound {
    pub(crate) layout: Layout,
    source: String,
    notes: Vec<String>,
}

impl Bound {
    pub(crate) fn new(models: &[Checkpoint], matching: &Matching) -> Result<Self, Failure> {
        let (spec, source, notes) = resolve_spec(&matching.spec, &models[0], matching.residual)?;
        Ok(Self { layout: Layout::new(spec, &models[0])?, source, notes })
    }
}

/// Samples in memory, and the network that reads them.
pub(crate) struct Samples {
    pub(crate) net: Net,
    x: Vec<f32>,
    y: Vec<u32>,
    pub(crate) input: InputRecord,
}

impl Samples {
    /// Reads and normalises the samples of `matching`, if it has any.
    pub(crate) fn read(matching: &Matching, model: &Checkpoint) -> Result<Option<Self>, Failure> {
        let Some(file) = &matching.data else { return Ok(None) };
        let shapes: Vec<(String, Vec<usize>)> =
            model.names().into_iter().filter_map(|n| Some((n.to_string(), model.tensor(n)?.shape.to_vec()))).collect();
        let arch = match &file.arch {
            Some(list) => Architecture::from_list(list, &shapes)?,
            None => Architecture::infer(&shapes)?,
        };
        let matrix = Matrix::open(&file.path)?;
        let normalize = match &file.normalize {
            Some(how) => how.clone(),
            None => from_checkpoint(model, &matrix)?,
        };
        let samples = read_samples(&matrix, arch.image_channels(), &normalize)?;
        let net = arch.build(samples.dims)?;
        let n = samples.values.len() / samples.dims.iter().product::<usize>().max(1);
        let y = match &file.labels {
            // Nothing here depends on classes then.
            None => vec![0; n],
            Some(path) => read_labels(path, &file.path, n)?,
        };
        Ok(Some(Self { net, x: samples.values, y, input: matrix.input_record()? }))
    }

    pub(crate) fn labelled(&self) -> Labelled<'_, f32> {
        Labelled { x: &self.x, y: &self.y }
    }
}

/// The classes of `n` samples as numbers of outputs.
fn read_labels(path: &str, data: &str, n: usize) -> Result<Vec<u32>, Failure> {
    let labels = Labels::open(path)?;
    let found = labels.codes.len();
    if found != n {
        let (found, n) = (count(found as u64), count(n as u64));
        let message = format!("{path} has {found} labels for the {n} samples of {data}");
        return Err(Failure::Work { message, hint: None });
    }
    class_numbers(&labels)
}

/// Permutations for every model after the first, and what they change.
pub(crate) struct Aligned {
    pub(crate) permutations: Vec<Permutations>,
    /// Against the first model, before and after.
    pairs: Vec<(Comparison, Comparison)>,
    sweeps: usize,
    converged: bool,
    certified: bool,
    scope: Scope,
    /// Perm id and last relative gap, per model, where known.
    gaps: Vec<Vec<(String, f64)>>,
    /// What a straight-through estimator gained, per model.
    estimates: Vec<Ste>,
}

/// Matches the models after the first.
pub(crate) fn align(
    models: &[Checkpoint],
    layout: &Layout,
    matching: &Matching,
    samples: Option<&Samples>,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Aligned, Failure> {
    if matching.many == Many::MergeMany && models.len() > 2 {
        let all: Vec<&dyn Model> = models.iter().map(|m| m as &dyn Model).collect();
        let found = merge_many(layout, &all, &matching.config, seed, observer)?;
        return Ok(Aligned {
            permutations: found.permutations,
            pairs: found.pairs,
            sweeps: found.sweeps,
            converged: found.converged,
            certified: found.certified,
            scope: Scope::Coordinate,
            gaps: Vec::new(),
            estimates: Vec::new(),
        });
    }
    let mut all = Aligned {
        permutations: Vec::new(),
        pairs: Vec::new(),
        sweeps: 0,
        converged: true,
        certified: true,
        scope: Scope::Global,
        gaps: Vec::new(),
        estimates: Vec::new(),
    };
    for model in &models[1..] {
        if let (Method::Activations, Some(samples)) = (matching.method, samples) {
            observer.event(Event::Phase { name: "solve", total: None });
            let ends = [params_of(&samples.net, &models[0])?, params_of(&samples.net, model)?];
            let found = match_activations(&samples.net, layout, [&ends[0], &ends[1]], &samples.labelled())?;
            let before = compare(layout, &models[0], model, &Permutations::identity(layout.spec()))?;
            all.pairs.push((before, compare(layout, &models[0], model, &found)?));
            all.permutations.push(found);
            // What activations prefer proves nothing about weights.
            all.certified = false;
            all.scope = Scope::Coordinate;
            continue;
        }
        if let (Method::Ste, Some(samples)) = (matching.method, samples) {
            let pair: [&dyn Model; 2] = [&models[0], model];
            let found = match_ste(&samples.net, layout, pair, &samples.labelled(), &matching.ste, seed, observer)?;
            all.pairs.push((found.weights.before.clone(), compare(layout, &models[0], model, &found.permutations)?));
            all.permutations.push(found.permutations.clone());
            // The certificate of the weights holds only where the estimator found nothing better.
            let own = found.found_at == 0;
            all.sweeps = all.sweeps.max(found.weights.sweeps);
            all.certified &= own && found.weights.certified;
            all.scope = if own && found.weights.scope == Scope::Global { all.scope } else { Scope::Coordinate };
            all.estimates.push(found);
            continue;
        }
        let found = match_weights(layout, &models[0], model, None, &matching.config, seed, observer)?;
        all.sweeps = all.sweeps.max(found.sweeps);
        all.converged &= found.converged;
        all.certified &= found.certified;
        all.scope = if found.scope == Scope::Global { all.scope } else { Scope::Coordinate };
        all.gaps.push(found.gaps);
        all.pairs.push((found.before, found.after));
        all.permutations.push(found.permutations);
    }
    Ok(all)
}

/// `1 − after / before`; 0 for models that were equal.
fn reduction(before: f64, after: f64) -> f64 {
    if before == 0.0 { 0.0 } else { 1.0 - after / before }
}

impl Aligned {
    /// Distances from the first model over all others together, before and after.
    fn distances(&self) -> (f64, f64) {
        let sum = |of: fn(&(Comparison, Comparison)) -> f64| self.pairs.iter().map(of).sum::<f64>().sqrt();
        (sum(|p| p.0.total.distance), sum(|p| p.1.total.distance))
    }

    pub(crate) fn results(&self, models: &[Checkpoint], bound: &Bound, record: &mut RunRecord) {
        let (before, after) = self.distances();
        let objective = |of: fn(&(Comparison, Comparison)) -> &Comparison| -> f64 {
            self.pairs.iter().map(|p| of(p).objective()).sum()
        };
        record.result("objective_before", objective(|p| &p.0));
        record.result("objective_after", objective(|p| &p.1));
        record.result("distance_before", before);
        record.result("distance_after", after);
        record.result("distance_reduction", reduction(before, after));
        record.result("sweeps", self.sweeps);
        record.result("converged", self.converged);
        record.result("certified", self.certified);
        record.result("certificate_scope", self.scope);
        record.result("spec_source", &bound.source);
        record.result("units", self.units(bound));
        record.result("moved", self.permutations.iter().map(Permutations::n_moved).collect::<Vec<_>>());
        let estimate = |e: &Ste| json!({"loss_by_weights": e.loss[0], "loss": e.loss[1], "found_at": e.found_at, "steps": e.steps});
        if !self.estimates.is_empty() {
            record.result("ste", self.estimates.iter().map(estimate).collect::<Vec<_>>());
        }
        let tensors = |(before, after): &(Comparison, Comparison)| -> Vec<Value> {
            let both = before.tensors.iter().zip(&after.tensors);
            both.map(
                |((name, b), (_, a))| json!({"name": name, "before": b.distance.sqrt(), "after": a.distance.sqrt()}),
            )
            .collect()
        };
        let pair = |(k, pair): (usize, &(Comparison, Comparison))| {
            let (before, after) = (pair.0.distance(), pair.1.distance());
            json!({
                "model": models[k + 1].path(),
                "objective_before": pair.0.objective(),
                "objective_after": pair.1.objective(),
                "distance_before": before,
                "distance_after": after,
                "distance_reduction": reduction(before, after),
                "gaps": self.gaps.get(k).map(|g| g.iter().map(|(id, gap)| json!({"perm": id, "gap": gap})).collect::<Vec<_>>()),
                "tensors": tensors(pair),
            })
        };
        record.result("pairs", self.pairs.iter().enumerate().map(pair).collect::<Vec<_>>());
    }

    fn units(&self, bound: &Bound) -> usize {
        bound.layout.perms.iter().map(|(_, p)| p.size).sum()
    }

    pub(crate) fn summary(&self, models: &[Checkpoint], bound: &Bound, out: &mut Summary) {
        let (n_perms, units) = (bound.layout.perms.len(), self.units(bound));
        out.line("spec", format!("{}: {} of {}", bound.source, counted(n_perms, "perm"), counted(units, "unit")));
        let fixed = bound.layout.untouched(&models[0]).len();
        if fixed > 0 {
            out.line("", format!("{} no axis that moves", counted_as(fixed, "tensor has", "tensors have")));
        }
        for (k, ((before, after), p)) in self.pairs.iter().zip(&self.permutations).enumerate() {
            let (before, after) = (before.distance(), after.distance());
            let name = if self.pairs.len() == 1 { String::new() } else { format!("{}: ", models[k + 1].base_name()) };
            let text = format!(
                "{name}{} before, {} after ({}); {} moved",
                significant(before, 4),
                significant(after, 4),
                less(reduction(before, after)),
                counted(p.n_moved(), "unit")
            );
            out.line(if k == 0 { "distance" } else { "" }, text);
        }
        for e in &self.estimates {
            let [weights, best] = e.loss.map(|l| significant(l, 4));
            out.line(
                "loss half-way",
                format!("{weights} by weights, {best} by the estimator ({})", counted(e.steps, "step")),
            );
        }
        let proof = match (self.certified, self.scope) {
            (true, Scope::Global) => "proven to be the best permutations there are",
            (true, Scope::Coordinate) => "no single layer can be improved, which is proven",
            (false, _) => "none",
        };
        out.line("certificate", format!("{proof} ({})", counted(self.sweeps, "sweep")));
        out.warnings.extend(bound.notes.iter().cloned());
        if !self.converged {
            out.warnings.push("matching stopped before it settled".into());
        }
    }
}
