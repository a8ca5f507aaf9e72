//! `cargo run --release -p subspan-benches -- COMMAND`: what Subspan costs, measured.

mod cluster;
mod connect;
mod job;
mod kernels;
mod lap;
mod llama;
mod measure;
mod predict;
mod step;

use std::process::ExitCode;

const USAGE: &str = "usage: subspan-benches <command>

  kernels [--json FILE]      the inner loops of subspan-linalg against gemm and memory bandwidth; raw data to FILE
  step [C,D,K ..] [--threads T] [--json FILE]
                             one step of the optimizer of class subspaces (momentum, projection, move), f32, on T threads (1)
  predict                    probabilities of a subspace classifier against the matrix product inside
  cluster [PART ..] [--json FILE]
                             a training step of clustering (exact, shortcut), Sinkhorn, the graph of nearest rows, predictions
                             and a fit. Parts: step, sinkhorn, graph, predict, fit
  cluster-step exact|fast REPEATS
                             one of the two steps alone; one JSON line
  merge DIR OUT [--cifar FILE.npz] [--only PART,..]
                             linear mode connectivity on the checkpoints and data in DIR; OUT/run.json. Parts: mnist_pair,
                             fresh_mnist, fresh_fashion, digits, width, weight_decay, resnet
  job JOB FILE.npy [flags]   one library call on a table in memory, timed; one JSON line
  job serve FILE.npy         the same for every line `JOB [flags]` of the standard input
  llama LAYERS DIR [NOISE]   matching a pair of LAYERS layers of the shape of Llama-2-7B, made in DIR (0.8 GB each) and deleted;
                             the second model is the first moved, with NOISE (relative), or independent; one JSON line
  lap REPEATS FILE.npy..     square assignment problems, each cold and warm from the one before; one JSON line

jobs: leverage; l1, exact and full (least absolute deviations, the target is the last column)
flags: --rows M (2000)  --rule auto|uniform|leverage (auto)  --threads T (all cores)  --repeats R (1)  --seed S (0; grows by
       one per repeat)  --save FILE (the last scores, raw f64)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["kernels"] => kernels::run(None),
        ["kernels", "--json", file] => kernels::run(Some(file)),
        ["step", flags @ ..] => step(flags),
        ["predict"] => predict::run(),
        ["cluster", parts @ .., "--json", file] => cluster::run(parts, Some(file)),
        ["cluster", parts @ ..] => cluster::run(parts, None),
        ["cluster-step", kind @ ("exact" | "fast"), repeats] => match repeats.parse() {
            Ok(repeats) => cluster::step(kind, repeats),
            Err(_) => Err(format!("{repeats} is no number of repeats").into()),
        },
        ["merge", data, out, flags @ ..] => merge(data, out, flags),
        ["llama", layers, dir, noise @ ..] if noise.len() < 2 => {
            let noise = noise.first().map(|n| n.parse::<f32>()).transpose();
            match (layers.parse(), noise) {
                (Ok(layers), Ok(noise)) if layers > 1 => llama::run(layers, dir, noise),
                _ => Err("LAYERS is a number above 1, NOISE a number".into()),
            }
        }
        ["lap", repeats, files @ ..] if !files.is_empty() => match repeats.parse() {
            Ok(repeats) => lap::run(files, repeats),
            Err(_) => Err(format!("{repeats} is no number of repeats").into()),
        },
        ["job", "serve", file] => job::serve(file),
        ["job", job, file, flags @ ..] => job::once(job, file, flags),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn step(mut flags: &[&str]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (mut threads, mut file) = (1, None);
    while let [shapes @ .., flag @ ("--threads" | "--json"), value] = flags {
        if *flag == "--json" {
            file = Some(*value);
        } else {
            threads = value.parse()?;
        }
        flags = shapes;
    }
    step::run(flags, threads, file)
}

fn merge(data: &str, out: &str, flags: &[&str]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (mut cifar, mut only) = (None, Vec::new());
    for pair in flags.chunks(2) {
        match pair {
            ["--cifar", file] => cifar = Some(*file),
            ["--only", parts] => only = parts.split(',').collect(),
            _ => return Err(format!("{}\n\nunknown flag {}", USAGE, pair[0]).into()),
        }
    }
    connect::run(data, cifar, &only, out)
}
