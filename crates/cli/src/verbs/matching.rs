//! `subspan match`: the units of models in the order that brings them closest to the first, files in, files out.

use std::path::{Path, PathBuf};

use subspan::merge::{MergeError, Permutations, copy_tensor};
use subspan::{Error, Observer};
use subspan_io::{AtomicFile, Checkpoint, CheckpointWriter, IoError, OutputDirectory, spec_text, write_permutations};

use super::models::{Bound, Many, MatchArgs, Matching, Samples, align, open};
use crate::failure::Failure;
use crate::session::{Done, Session};
use crate::summary::{Summary, counted};

/// As typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Two or more checkpoints of one architecture: .safetensors, or a directory with an index of shards
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
    #[command(flatten)]
    matching: MatchArgs,
    /// Directory of the aligned checkpoints, permutations.safetensors, spec.toml and run.json
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

/// Resolved and checked.
pub(crate) struct Job {
    models: Vec<String>,
    matching: Matching,
    output: PathBuf,
}

impl Job {
    pub(crate) fn resolve(args: Args) -> Result<Self, Failure> {
        let matching = Matching::resolve(args.matching, args.models.len(), Many::Anchor)?;
        if matching.ignores_samples() {
            let hint = "--method activations and --method ste match on samples";
            return Err(Failure::usage("--data has no meaning for --method weights", Some(hint)));
        }
        Ok(Self { models: args.models, matching, output: args.output })
    }

    /// What it reads, as typed.
    pub(crate) fn inputs(&self) -> Vec<&str> {
        self.models.iter().map(String::as_str).chain(self.matching.inputs()).collect()
    }
}

/// Names of the other outputs.
const PERMUTATIONS: &str = "permutations.safetensors";
const SPEC: &str = "spec.toml";
const RECORD: &str = "run.json";

/// The outputs, opened before the long work.
struct Outputs {
    writers: Vec<CheckpointWriter>,
    permutations: AtomicFile,
    spec: AtomicFile,
    record: AtomicFile,
    /// Last, so that it is empty when it goes.
    directory: OutputDirectory,
}

impl Outputs {
    fn create(output: &Path, models: &[Checkpoint], session: &Session) -> Result<Self, Failure> {
        let names: Vec<String> = models[1..].iter().map(Checkpoint::base_name).collect();
        for (k, name) in names.iter().enumerate() {
            let twice = names[..k].contains(name);
            if twice || [PERMUTATIONS, SPEC, RECORD].contains(&name.as_str()) {
                let message = format!("two outputs would be named {name}");
                return Err(Failure::usage(
                    message,
                    Some("aligned checkpoints keep the names of their inputs: rename one"),
                ));
            }
        }
        for name in names.iter().map(String::as_str).chain([PERMUTATIONS, SPEC, RECORD]) {
            session.apart(&output.join(name))?;
        }
        let directory = OutputDirectory::create(output)?;
        let writer = |(name, model): (&String, &Checkpoint)| CheckpointWriter::create(&output.join(name), model.plan());
        let writers = names.iter().zip(&models[1..]).map(writer).collect::<Result<_, _>>()?;
        let permutations = directory.file(PERMUTATIONS)?;
        let (spec, record) = (directory.file(SPEC)?, directory.file(RECORD)?);
        Ok(Self { writers, permutations, spec, record, directory })
    }
}

/// Matches and writes.
pub(crate) fn run(job: &Job, session: &Session) -> Result<Done, Failure> {
    let watch = session.watch();
    watch.phase("read");
    let models = open(&job.models)?;
    let bound = Bound::new(&models, &job.matching)?;
    let outputs = Outputs::create(&job.output, &models, session)?;
    let samples = Samples::read(&job.matching, &models[0])?;
    let aligned = align(&models, &bound.layout, &job.matching, samples.as_ref(), session.seed, &watch)?;

    watch.phase("write");
    for ((model, permutations), writer) in models[1..].iter().zip(&aligned.permutations).zip(outputs.writers) {
        write_aligned(model, &bound, permutations, writer, &watch)?;
    }
    let names: Vec<String> = models[1..].iter().map(|m| format!("{}/", m.base_name())).collect();
    let scopes: Vec<(&str, &Permutations)> = match names.as_slice() {
        [_] => vec![("", &aligned.permutations[0])],
        names => names.iter().map(String::as_str).zip(&aligned.permutations).collect(),
    };
    write_permutations(&scopes, outputs.permutations)?;
    fill(outputs.spec, spec_text(bound.layout.spec()).as_bytes())?;

    let mut record = session.record("match");
    for model in &models {
        record.inputs.push(model.input_record()?);
    }
    record.inputs.extend(samples.iter().map(|s| s.input.clone()));
    job.matching.configure(&mut record);
    record.configure("output", job.output.display().to_string());
    aligned.results(&models, &bound, &mut record);
    session.close(&mut record, &watch);
    let text = serde_json::to_vec_pretty(&record).map_err(|e| Failure::Work { message: e.to_string(), hint: None })?;
    fill(outputs.record, &text)?;
    outputs.directory.keep();

    let mut summary = Summary::new(format!("{} matched to {}", others(&models), job.models[0]));
    summary.line("model", counted(models[0].n_parameters() as usize, "parameter"));
    aligned.summary(&models, &bound, &mut summary);
    summary.line("output", job.output.display().to_string());
    summary.time(&record.seconds);
    let title = format!("{} matched to {}", others(&models), job.models[0]);
    Ok(Done { title, records: vec![record], summary })
}

fn others(models: &[Checkpoint]) -> String {
    match models {
        [_, one] => one.path().into(),
        many => format!("{} models", many.len() - 1),
    }
}

/// Streams a model with its units moved: bytes are copied, whatever they stand for.
fn write_aligned(
    model: &Checkpoint,
    bound: &Bound,
    permutations: &Permutations,
    mut writer: CheckpointWriter,
    observer: &dyn Observer,
) -> Result<(), Failure> {
    use subspan::merge::Model;
    let plan = model.plan();
    for name in plan.names() {
        let gathered = bound.layout.gathered(model.require(name)?, permutations);
        copy_tensor(&gathered, &mut |bytes| {
            if observer.cancelled() {
                return Err(MergeError::from(Error::Cancelled));
            }
            Ok(writer.write(bytes).map_err(Error::from)?)
        })?;
    }
    Ok(writer.finish()?)
}

/// Writes a whole file that is open.
fn fill(mut file: AtomicFile, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    let path = file.target().display().to_string();
    let written = file.write_all(bytes).and_then(|()| file.write_all(b"\n"));
    written.map_err(|source| IoError::Write { path, source })?;
    Ok(file.commit()?)
}
