//! Linear mode connectivity, evaluated: the given MNIST pair, pairs trained here, interventions, studies, the ResNet-20 pair.
//!
//! `DIR` holds `checkpoints/`, `mnist/` and `fashion_mnist/` (idx.gz), and for the ResNets `--cifar FILE.npz` (see
//! `benches/prepare_cifar.py`). Nothing is asserted here: the record states what came out beside the bar it was to meet.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};
use subspan::Silent;
use subspan::merge::analysis::{Barrier, spectra};
use subspan::merge::{Layout, MatchConfig, Model, Permutations, compare, derive, match_weights};
use subspan_io::{Checkpoint, Labels, Matrix, write_json};
use subspan_nets::analyze::{
    AnalyzeConfig, Evaluation, Method, Study, StudyVariable, analyze_pair, match_activations, mlp_spec, params_of,
    study, train_model,
};
use subspan_nets::{Architecture, Labelled, Normalize, Samples, Training, evaluate, lerp, mlp, repair};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Seeds of the order of matching and of the control.
const SEEDS: u64 = 3;
/// Pairs trained per data set.
const PAIRS: u64 = 3;
/// MNIST's own normalisation, used for both data sets.
const MNIST: &str = "0.1307/0.3081";
/// Training images from which activations and REPAIR take their statistics.
const STATISTICS: usize = 10_000;

/// Samples with classes.
struct Set {
    x: Vec<f32>,
    y: Vec<u32>,
}

impl Set {
    fn idx(dir: &str, part: &str) -> Result<Self, Failure> {
        let matrix = Matrix::open(&format!("{dir}/{part}-images-idx3-ubyte.gz"))?;
        let labels = Labels::open(&format!("{dir}/{part}-labels-idx1-ubyte.gz"))?;
        let shape: Vec<usize> = matrix.shape().iter().map(|n| *n as usize).collect();
        let mut samples = Samples::arrange(&shape, matrix.to_f32()?, None)?;
        samples.normalize(&Normalize::parse(MNIST)?, true)?;
        Ok(Self { x: samples.values, y: numbers(&labels)? })
    }

    fn labelled(&self) -> Labelled<'_, f32> {
        Labelled { x: &self.x, y: &self.y }
    }
}

fn numbers(labels: &Labels) -> Result<Vec<u32>, Failure> {
    let classes: Vec<u32> = labels.classes.iter().map(|c| c.parse()).collect::<Result<_, _>>()?;
    Ok(labels.codes.iter().map(|c| classes[*c as usize]).collect())
}

/// Runs the parts named in `only` (all, if empty) and writes `OUT/run.json`.
pub(crate) fn run(data: &str, cifar: Option<&str>, only: &[&str], out: &str) -> Result<(), Failure> {
    std::fs::create_dir_all(out)?;
    let path = std::path::Path::new(out).join("run.json");
    let mut record: BTreeMap<String, Value> = match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(_) => BTreeMap::new(),
    };
    let wanted = |part: &str| only.is_empty() || only.contains(&part);
    let mut note = |part: &str, work: &dyn Fn() -> Result<Value, Failure>| -> Result<(), Failure> {
        if wanted(part) {
            let started = Instant::now();
            let results = work()?;
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("{part}: {seconds:.0} s");
            record.insert(part.into(), json!({"seconds": seconds, "results": results}));
            write_json(path.clone(), &record)?;
        }
        Ok(())
    };
    note("mnist_pair", &|| mnist_pair(data))?;
    note("fresh_mnist", &|| fresh(&format!("{data}/mnist")))?;
    note("fresh_fashion", &|| fresh(&format!("{data}/fashion_mnist")))?;
    note("digits", &|| digits_pairs())?;
    note("width", &|| digits_study(StudyVariable::Width, &[32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]))?;
    note("weight_decay", &|| digits_study(StudyVariable::WeightDecay, &[0.0, 1e-4, 3e-4, 1e-3, 3e-3]))?;
    if let Some(cifar) = cifar {
        note("resnet", &|| resnets(data, cifar))?;
    }
    Ok(())
}

/// Everything that is stated about a pair, for several seeds of order and control.
fn describe(
    layout: &Layout,
    a: &dyn Model,
    b: &dyn Model,
    evaluation: &Evaluation<'_>,
    statistics: &Labelled<'_, f32>,
) -> Result<Value, Failure> {
    let mut seeds = Vec::new();
    for seed in 0..SEEDS {
        let config = AnalyzeConfig::default();
        let found = analyze_pair(layout, a, b, Some(evaluation), &config, seed, &Silent)?;
        let [raw, matched] = found.barriers().ok_or("curves come with data")?;
        let curve: Vec<Value> = found.alignment.iter().map(|[b, a]| json!([b.gamma, b.total, a.total])).collect();
        let gaps: Vec<Value> = found.spectra.iter().map(|s| json!([s.name, s.gap])).collect();
        seeds.push(json!({
            "seed": seed, "raw": raw, "matched": matched, "distance_reduction": found.distance_reduction(),
            "sweeps": found.sweeps, "certified": found.certified, "alignment_curve": curve,
            "merged_alignment": found.merged_alignment.total, "spectrum_gaps": gaps, "taylor": found.taylor,
            "intervention": found.intervention,
        }));
    }
    let config = AnalyzeConfig { method: Method::Activations, intervention: false, ..AnalyzeConfig::default() };
    let with = Evaluation { train: Some(*statistics), ..*evaluation };
    let by_activations = analyze_pair(layout, a, b, Some(&with), &config, 0, &Silent)?;
    let [_, matched] = by_activations.barriers().ok_or("curves come with data")?;
    let reduction = by_activations.distance_reduction();
    Ok(json!({"seeds": seeds, "activations": {"matched": matched, "distance_reduction": reduction}}))
}

/// The pair of the checkpoints directory, on MNIST's test images.
fn mnist_pair(data: &str) -> Result<Value, Failure> {
    let open = |k: usize| Checkpoint::open(&format!("{data}/checkpoints/mnist_mlp512x3_seed{k}.safetensors"));
    let (a, b) = (open(1)?, open(2)?);
    let layout = Layout::new(derive(&a, None, false)?.spec, &a)?;
    let net = Architecture::infer(&shapes(&a))?.build([784, 1, 1])?;
    let dir = format!("{data}/mnist");
    let (train, test) = (Set::idx(&dir, "train")?, Set::idx(&dir, "t10k")?);
    let evaluation = Evaluation { net: &net, data: test.labelled(), train: None };
    let statistics = train.labelled().first(STATISTICS);
    let mut out = describe(&layout, &a, &b, &evaluation, &statistics)?;
    out["repair"] = repaired(&layout, &a, &b, &evaluation, &statistics)?;
    // Re-ordering keeps the spectra.
    let moved = layout.apply(&b, &Permutations::random(layout.spec(), 0, false));
    let (own, after) = (spectra(&layout, &b, &Silent)?, spectra(&layout, &moved, &Silent)?);
    let gap = own.iter().zip(&after).map(|(x, y)| x.gap(y)).fold(0.0, f64::max);
    out["spectrum_gap_of_reordered"] = json!(gap);
    Ok(out)
}

/// The middle of the line as it is, matched, and each repaired with REPAIR.
fn repaired(
    layout: &Layout,
    a: &dyn Model,
    b: &dyn Model,
    e: &Evaluation<'_>,
    statistics: &Labelled<'_, f32>,
) -> Result<Value, Failure> {
    let matching = match_weights(layout, a, b, None, &MatchConfig::default(), 0, &Silent)?;
    let (pa, pb) = (params_of(e.net, a)?, params_of(e.net, b)?);
    let aligned = params_of(e.net, &layout.apply(b, &matching.permutations))?;
    let mut out = BTreeMap::new();
    for (name, end) in [("raw", &pb), ("matched", &aligned)] {
        let mut middle = lerp(&pa, end, 0.5);
        let plain = evaluate(e.net, &middle, &e.data)?;
        repair(e.net, &mut middle, &[&pa, end], &[0.5, 0.5], statistics, &Silent)?;
        let better = evaluate(e.net, &middle, &e.data)?;
        out.insert(name, json!({"loss": plain.loss, "accuracy": plain.accuracy, "repaired_loss": better.loss, "repaired_accuracy": better.accuracy}));
    }
    Ok(json!(out))
}

/// Pairs trained here: 3 x 512, Adam 1e-3, batch 500, 5 passes.
fn fresh(dir: &str) -> Result<Value, Failure> {
    let (train, test) = (Set::idx(dir, "train")?, Set::idx(dir, "t10k")?);
    let net = mlp(784, &[512, 512, 512], 10);
    let mut pairs = Vec::new();
    for pair in 0..PAIRS {
        let started = Instant::now();
        let one = |k: u64| train_model(&net, &train.labelled(), &Training::default(), 2 * pair + k, &Silent);
        let (a, b) = (one(0)?, one(1)?);
        let seconds = started.elapsed().as_secs_f64();
        let layout = Layout::new(mlp_spec(&net), &a)?;
        let evaluation = Evaluation { net: &net, data: test.labelled(), train: None };
        let scores = |m: &dyn Model| -> Result<Value, Failure> {
            let s = evaluation.scores(&params_of(&net, m)?)?;
            Ok(json!({"loss": s.loss, "accuracy": s.accuracy}))
        };
        let alone = [scores(&a)?, scores(&b)?];
        let found = describe(&layout, &a, &b, &evaluation, &train.labelled().first(STATISTICS))?;
        pairs.push(json!({"pair": pair, "training_seconds": seconds, "alone": alone, "found": found}));
    }
    Ok(json!(pairs))
}

/// The digits of the fixture: every fourth image for testing, pixels standardised together.
fn digits() -> Result<(Set, Set), Failure> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/digits.npz");
    let (matrix, labels) = (Matrix::open(&format!("{file}:images"))?, Labels::open(&format!("{file}:labels"))?);
    let (values, y) = (matrix.to_f32()?, numbers(&labels)?);
    let part = |test: bool| {
        let rows: Vec<usize> = (0..y.len()).filter(|i| (i % 4 == 0) == test).collect();
        let image = |i: &usize| values[i * 64..(i + 1) * 64].iter();
        Set { x: rows.iter().flat_map(image).copied().collect(), y: rows.iter().map(|i| y[*i]).collect() }
    };
    let (mut train, mut test) = (part(false), part(true));
    let n = train.x.len() as f32;
    let mean = train.x.iter().sum::<f32>() / n;
    let std = (train.x.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt();
    for set in [&mut train, &mut test] {
        set.x.iter_mut().for_each(|v| *v = (*v - mean) / std);
    }
    Ok((train, test))
}

/// Training of the digits networks.
fn small_training() -> Training {
    Training { epochs: 40, batch: 64, ..Training::default() }
}

/// Interventions on digits networks of two widths.
fn digits_pairs() -> Result<Value, Failure> {
    let (train, test) = digits()?;
    let mut out = Vec::new();
    for width in [128, 256] {
        let net = mlp(64, &[width; 3], 10);
        for pair in 0..PAIRS {
            let one = |k: u64| train_model(&net, &train.labelled(), &small_training(), 2 * pair + k, &Silent);
            let (a, b) = (one(0)?, one(1)?);
            let layout = Layout::new(mlp_spec(&net), &a)?;
            let evaluation = Evaluation { net: &net, data: test.labelled(), train: None };
            let found = describe(&layout, &a, &b, &evaluation, &train.labelled())?;
            out.push(json!({"width": width, "pair": pair, "found": found}));
        }
    }
    Ok(json!(out))
}

fn digits_study(variable: StudyVariable, values: &[f64]) -> Result<Value, Failure> {
    let (train, test) = digits()?;
    let pairs = PAIRS as usize;
    let design = Study { variable, values: values.to_vec(), depth: 3, width: 256, training: small_training(), pairs };
    let config = AnalyzeConfig { intervention: false, points: 11, ..AnalyzeConfig::default() };
    Ok(json!(study(&design, &train.labelled(), &test.labelled(), [64, 10], &config, 0, &Silent)?))
}

fn shapes(model: &dyn Model) -> Vec<(String, Vec<usize>)> {
    let shape = |n: &str| Some((n.to_string(), model.tensor(n)?.shape.to_vec()));
    model.names().into_iter().filter_map(shape).collect()
}

/// The ResNet-20 pair: matching by weights (several orders) and by activations, with and without a reset of BatchNorm.
fn resnets(data: &str, cifar: &str) -> Result<Value, Failure> {
    const ORDERS: u64 = 5;
    let open = |k: &str| Checkpoint::open(&format!("{data}/checkpoints/resnet20_cifar10_{k}.safetensors"));
    let (a, b) = (open("A")?, open("B")?);
    let layout = Layout::new(derive(&a, None, false)?.spec, &a)?;
    let arch = Architecture::infer(&shapes(&a))?;
    let normalize = Normalize::from_metadata(a.metadata("arch").map(|v| ("arch", v))).ok_or("no normalisation")?;
    let images = |key: &str| -> Result<Samples, Failure> {
        let matrix = Matrix::open(&format!("{cifar}:{key}"))?;
        let shape: Vec<usize> = matrix.shape().iter().map(|n| *n as usize).collect();
        let mut samples = Samples::arrange(&shape, matrix.to_f32()?, arch.image_channels())?;
        samples.normalize(&normalize, true)?;
        Ok(samples)
    };
    let (train, test) = (images("train")?, images("test")?);
    let y = numbers(&Labels::open(&format!("{cifar}:test_y"))?)?;
    let net = arch.build(test.dims)?;
    let zeros = vec![0; train.values.len() / net.len_at(0)];
    let train = Labelled { x: &train.values, y: &zeros };
    let with = Evaluation { net: &net, data: Labelled { x: &test.values, y: &y }, train: Some(train) };
    let without = Evaluation { train: None, ..with };
    let (pa, pb) = (params_of(&net, &a)?, params_of(&net, &b)?);
    let score = |s: subspan_nets::Scores| json!({"loss": s.loss, "accuracy": s.accuracy});
    let identity = Permutations::identity(layout.spec());
    let before = compare(&layout, &a, &b, &identity)?;
    let mut ways = vec![("raw".to_string(), identity, Value::Null)];
    for seed in 0..ORDERS {
        let m = match_weights(&layout, &a, &b, None, &MatchConfig::default(), seed, &Silent)?;
        let proof = json!({"sweeps": m.sweeps, "certified": m.certified});
        ways.push((format!("weights, order {seed}"), m.permutations, proof));
    }
    let by_activations = match_activations(&net, &layout, [&pa, &pb], &train)?;
    ways.push(("activations".into(), by_activations, Value::Null));
    let mut rows = Vec::new();
    for (name, permutations, proof) in ways {
        let after = compare(&layout, &a, &b, &permutations)?;
        let end = params_of(&net, &layout.apply(&b, &permutations))?;
        let middle = lerp(&pa, &end, 0.5);
        let reset = with.merged_scores(&middle, &Silent)?;
        let barrier = match name.as_str() {
            "raw" | "weights, order 0" | "activations" => Some(Barrier::of(&with.curve(&pa, &end, 11, None, &Silent)?)),
            _ => None,
        };
        rows.push(json!({
            "way": name, "objective": after.objective(), "distance_reduction": 1.0 - after.distance() / before.distance(),
            "middle_without_reset": score(without.merged_scores(&middle, &Silent)?), "middle": score(reset), "barrier": barrier,
            "proof": proof,
        }));
    }
    Ok(json!({"alone": [score(with.scores(&pa)?), score(with.scores(&pb)?)], "ways": rows}))
}
