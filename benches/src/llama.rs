//! Matching a pair of checkpoints shaped like Llama-2-7B, as many of its layers as there is room for: seconds against those of the
//! matrix products alone, and private memory.
//!
//! The second model is the first with its units moved and noise added, or independent. Perms inside a layer depend on no other
//! layer while the residual stream is fixed, so that the whole model takes 32 times as long as one layer.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde_json::{Value, json};
use subspan::Silent;
use subspan::merge::{
    DType, Layout, MatchConfig, Model, Permutations, Tensor, derive, match_weights, narrow_f32, widen_f32,
};
use subspan_io::{Checkpoint, CheckpointPlan, CheckpointWriter};
use subspan_linalg::gemm;

use crate::measure;

type Failure = Box<dyn Error + Send + Sync>;

/// Sizes of Llama-2-7B.
const WIDTH: usize = 4096;
const HIDDEN: usize = 11_008;
const HEADS: usize = 32;
const LAYERS: usize = 32;
/// Contraction length at which the plain product is timed: long enough for its full speed.
const GEMM_COLUMNS: usize = 2048;

/// Generates `layers` layers in `dir`, matches, reports one JSON line, and deletes the files. `noise` is relative to the weights; none
/// for an independent second model.
pub(crate) fn run(layers: usize, dir: &str, noise: Option<f32>) -> Result<(), Failure> {
    let place = Path::new(dir).join("subspan-llama");
    std::fs::create_dir_all(&place)?;
    let found = measured(layers, &place, noise);
    std::fs::remove_dir_all(&place)?;
    println!("{}", found?);
    Ok(())
}

fn measured(layers: usize, place: &Path, noise: Option<f32>) -> Result<Value, Failure> {
    let paths = ["a", "b"].map(|n| place.join(n));
    let file = |layer: usize| {
        let tensors = shapes(layer).into_iter().map(|(name, shape)| (name, DType::BF16, shape)).collect();
        (format!("layer-{layer:02}.safetensors"), tensors, [].into())
    };
    let plan = CheckpointPlan { files: (0..layers).map(file).collect(), directory: true };
    let started = Instant::now();
    let mut writer = CheckpointWriter::create(&paths[0], plan.clone())?;
    for (seed, (name, shape)) in (0..layers).flat_map(shapes).enumerate() {
        writer.write(&random(&shape, seed as u64, fan_in(&name)))?;
    }
    writer.finish()?;
    let a = Checkpoint::open(&paths[0].display().to_string())?;
    let config = json!({"num_attention_heads": HEADS, "hidden_size": WIDTH});
    let layout = Layout::new(derive(&a, Some(&config), false)?.spec, &a)?;
    let planted = Permutations::random(layout.spec(), 1, false);
    let mut writer = CheckpointWriter::create(&paths[1], plan)?;
    for (seed, name) in a.names().into_iter().enumerate() {
        let view = a.require(name)?;
        let seed = 1_000_000 + seed as u64;
        let bytes = match noise {
            None => random(view.shape, seed, fan_in(name)),
            Some(noise) => noisy(&layout.gathered(view, &planted).to_tensor(), seed, noise * fan_in(name)),
        };
        writer.write(&bytes)?;
    }
    writer.finish()?;
    let b = Checkpoint::open(&paths[1].display().to_string())?;
    let generated = started.elapsed().as_secs_f64();

    let memory = Memory::watch();
    let started = Instant::now();
    let matched = match_weights(&layout, &a, &b, None, &MatchConfig::default(), 0, &Silent)?;
    let seconds = started.elapsed().as_secs_f64();
    let peak = memory.stop();
    let recovered = noise.map(|_| Ok::<_, Failure>(layout.inverse(&planted)? == matched.permutations)).transpose()?;

    // What the matrix products of the matching would take at the speed of a plain one of the same rows.
    let gram_flops = |n: f64, k: f64| 2.0 * n * n * k;
    let flops = layers as f64
        * (3.0 * gram_flops(HIDDEN as f64, WIDTH as f64)
            + 4.0 * gram_flops(HEADS as f64, (WIDTH / HEADS * WIDTH) as f64));
    let x: Vec<f32> = (0..HIDDEN * GEMM_COLUMNS).map(|k| (k % 97) as f32 - 48.0).collect();
    let mut out = vec![0f32; HIDDEN * HIDDEN];
    let started = Instant::now();
    gemm::mul_transposed(&x, &x, GEMM_COLUMNS, &mut out);
    let speed = gram_flops(HIDDEN as f64, GEMM_COLUMNS as f64) / started.elapsed().as_secs_f64();
    let pure = flops / speed;
    Ok(json!({
        "machine": measure::machine(), "layers": layers, "second_model": noise.map_or(json!("independent"), |n| json!({"noise": n})),
        "parameters": a.n_parameters(), "bytes_per_model": a.n_bytes(), "generate_seconds": generated,
        "match_seconds": seconds, "gemm_gflops": speed / 1e9, "gemm_seconds": pure, "ratio": seconds / pure,
        "peak_private_bytes": peak, "certified": matched.certified, "scope": matched.scope, "recovered": recovered,
        "distance_reduction": matched.distance_reduction(), "solves": matched.solves,
        "extrapolated_32_layers_seconds": seconds / layers as f64 * LAYERS as f64,
    }))
}

/// Tensors of one layer.
fn shapes(layer: usize) -> Vec<(String, Vec<usize>)> {
    let l = format!("model.layers.{layer}");
    let mut out = vec![(format!("{l}.input_layernorm.weight"), vec![WIDTH])];
    out.extend(["q", "k", "v", "o"].map(|n| (format!("{l}.self_attn.{n}_proj.weight"), vec![WIDTH, WIDTH])));
    out.push((format!("{l}.post_attention_layernorm.weight"), vec![WIDTH]));
    out.extend(["gate", "up"].map(|n| (format!("{l}.mlp.{n}_proj.weight"), vec![HIDDEN, WIDTH])));
    out.push((format!("{l}.mlp.down_proj.weight"), vec![WIDTH, HIDDEN]));
    out
}

/// The deviation of a tensor's values.
fn fan_in(name: &str) -> f32 {
    let n = if name.contains("down_proj") { HIDDEN } else { WIDTH };
    1.0 / (n as f32).sqrt()
}

/// The `k`-th number between −√3 and √3: mean 0, deviation 1.
fn number(seed: u64, k: u64) -> f32 {
    // The finalizer of SplitMix64.
    let mut h = (k + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    h ^= h >> 31;
    ((h >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 3f32.sqrt()
}

const CHUNK: usize = 1 << 16;

fn random(shape: &[usize], seed: u64, size: f32) -> Vec<u8> {
    let n: usize = shape.iter().product();
    let mut bytes = vec![0; 2 * n];
    bytes.par_chunks_mut(2 * CHUNK).enumerate().for_each(|(c, out)| {
        let values: Vec<f32> = (0..out.len() / 2).map(|k| size * number(seed, (c * CHUNK + k) as u64)).collect();
        narrow_f32(DType::BF16, &values, out);
    });
    bytes
}

fn noisy(tensor: &Tensor, seed: u64, size: f32) -> Vec<u8> {
    let mut bytes = tensor.data.clone();
    bytes.par_chunks_mut(2 * CHUNK).enumerate().for_each(|(c, out)| {
        let mut values = vec![0.0; out.len() / 2];
        widen_f32(DType::BF16, out, &mut values);
        for (k, v) in values.iter_mut().enumerate() {
            *v += size * number(seed, (c * CHUNK + k) as u64);
        }
        narrow_f32(DType::BF16, &values, out);
    });
    bytes
}

/// Watches this process's private memory.
struct Memory {
    stop: std::sync::Arc<(AtomicBool, AtomicU64)>,
    thread: std::thread::JoinHandle<()>,
}

impl Memory {
    fn watch() -> Self {
        let stop = std::sync::Arc::new((AtomicBool::new(false), AtomicU64::new(0)));
        let shared = stop.clone();
        let thread = std::thread::spawn(move || {
            while !shared.0.load(Ordering::Relaxed) {
                let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
                let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
                let kib: u64 = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0);
                shared.1.fetch_max(kib * 1024, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.0.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        self.stop.1.load(Ordering::Relaxed)
    }
}
