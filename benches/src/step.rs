//! One step of the optimizer of class subspaces: momentum, projection on the tangent space and the move along the geodesic.

use std::cell::RefCell;

use serde_json::{Value, json};
use subspan::classify::step::{StackedFrames, StepOptions, descend_all};
use subspan::classify::{MomentumMode, orthonormalize};
use subspan::draw::Stream;

use crate::measure;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Classes, columns, dimension.
const SHAPES: [[usize; 3]; 8] = [
    [1000, 2048, 8],
    [1000, 2048, 1],
    [1000, 2048, 16],
    [1000, 2048, 32],
    [1000, 768, 8],
    [1000, 384, 8],
    [100, 512, 8],
    [10, 128, 4],
];
const ROUNDS: usize = 9;
/// Small shapes are stepped so often in a round that it moves about this many values.
const VALUES_PER_ROUND: usize = 20_000_000;
const LR: f64 = 0.1;
const MOMENTUM: f64 = 0.9;
/// Largest entry of the gradient: steps of some hundredths of a radian, as in training.
const GRADIENT: f64 = 1e-3;

/// Frames, buffers and a gradient of one shape.
struct Case {
    columns: usize,
    offsets: Vec<usize>,
    frames: Vec<f32>,
    buffers: Vec<f32>,
    gradient: Vec<f32>,
}

impl Case {
    fn new([classes, columns, k]: [usize; 3]) -> Result<Self, Failure> {
        let stream = Stream::new(0, "bench step");
        let (mut frames, mut gradient) = (Vec::new(), Vec::new());
        for c in 0..classes {
            let mut rng = stream.rng(c as u64);
            let mut frame: Vec<f32> = (0..k * columns).map(|_| rng.normal() as f32).collect();
            orthonormalize(&mut frame, columns)?;
            frames.extend(frame);
            gradient.extend((0..k * columns).map(|_| (GRADIENT * (2.0 * rng.uniform() - 1.0)) as f32));
        }
        let offsets = (0..=classes).map(|c| c * k).collect();
        Ok(Self { columns, offsets, buffers: vec![0.0; frames.len()], frames, gradient })
    }

    fn step(&mut self, options: StepOptions) {
        let Self { columns: n_cols, offsets, frames, buffers, gradient } = self;
        let stacked = StackedFrames { frames, buffers, offsets, n_cols: *n_cols };
        descend_all(stacked, gradient, [LR, MOMENTUM], options).expect("finite frames");
    }
}

/// Times every shape plain, restoring orthonormal rows in the step, and carrying the buffer along; `shapes` as `C,D,K`, or the
/// usual ones.
pub(crate) fn run(shapes: &[&str], threads: usize, json_file: Option<&str>) -> Result<(), Failure> {
    let mut wanted: Vec<[usize; 3]> = Vec::new();
    for text in shapes {
        let numbers = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        wanted.push(numbers.try_into().map_err(|_| format!("{text} is not C,D,K"))?);
    }
    let wanted = if wanted.is_empty() { SHAPES.to_vec() } else { wanted };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let machine = Limits::measure(&pool);
    println!("products {:.0} GFLOP/s, sum {:.1} GB/s on {threads} thread(s)", machine.flops / 1e9, machine.bytes / 1e9);
    println!(
        "{:>18} {:>10} {:>14} {:>16} {:>10} {:>10}",
        "C, D, k", "ms", "ms restoring", "ms transported", "GFLOP/s", "of floor"
    );
    let mut rows: Vec<Value> = Vec::new();
    for shape in wanted {
        let [classes, columns, k] = shape;
        let values = classes * columns * k;
        let case = RefCell::new(Case::new(shape)?);
        let repeats = (VALUES_PER_ROUND / values).max(1);
        let all = [
            StepOptions::default(),
            StepOptions { reorthogonalize: true, ..StepOptions::default() },
            StepOptions { momentum: MomentumMode::Transported, ..StepOptions::default() },
        ];
        let mut cases: Vec<Box<dyn FnMut() + '_>> = Vec::new();
        for options in all {
            let (case, pool) = (&case, &pool);
            cases.push(Box::new(move || {
                let case = &mut *case.borrow_mut();
                pool.install(|| (0..repeats).for_each(|_| case.step(options)));
            }));
        }
        let raw = measure::interleaved(ROUNDS, &mut cases);
        drop(cases);
        let ms: Vec<f64> = raw.iter().map(|r| 1e3 * measure::summary(r).median / repeats as f64).collect();
        // W (2 k² D), the symmetric Gram matrix (k² D) and the combination (4 k² D) of every class.
        let flop = 7.0 * (values * k) as f64;
        // Frames, buffers and gradient in, frames and buffers out.
        let bytes = 5.0 * (values * size_of::<f32>()) as f64;
        let rate = flop / ms[0] / 1e6;
        let share = 1e3 * (flop / machine.flops).max(bytes / machine.bytes) / ms[0];
        let name = format!("{classes}, {columns}, {k}");
        println!("{name:>18} {:>10.3} {:>14.3} {:>16.3} {rate:>10.1} {:>8.0} %", ms[0], ms[1], ms[2], 100.0 * share);
        rows.push(json!({
            "classes": classes, "columns": columns, "k": k, "ms": ms[0], "ms_restoring": ms[1], "ms_transported": ms[2],
            "gflops": rate, "of_floor": share, "seconds_per_round": raw, "steps_per_round": repeats,
        }));
    }
    if let Some(file) = json_file {
        let record = json!({
            "machine": measure::machine(), "threads": threads, "gemm_flops": machine.flops, "sum_bytes": machine.bytes, "shapes": rows,
        });
        std::fs::write(file, serde_json::to_string_pretty(&record)? + "\n")?;
    }
    Ok(())
}

/// What the machine can do: single-precision products and reading memory, per second.
struct Limits {
    flops: f64,
    bytes: f64,
}

impl Limits {
    fn measure(pool: &rayon::ThreadPool) -> Self {
        const SIDE: usize = 1024;
        let threads = pool.current_num_threads();
        let square: Vec<f32> = (0..SIDE * SIDE).map(|i| (i * 7919 % 1009) as f32 / 512.0 - 1.0).collect();
        let table = vec![1f32; 1 << 26];
        let mut cases: Vec<Box<dyn FnMut() + '_>> = vec![
            Box::new(|| {
                // One product per thread.
                pool.broadcast(|_| {
                    let mut out = vec![0f32; SIDE * SIDE];
                    subspan_linalg::gemm::mul_transposed(&square, &square, SIDE, &mut out);
                    std::hint::black_box(&out);
                });
            }),
            Box::new(|| {
                let chunk = table.len() / threads;
                let sums = pool.broadcast(|at| sum(&table[at.index() * chunk..(at.index() + 1) * chunk]));
                std::hint::black_box(sums);
            }),
        ];
        let raw = measure::interleaved(ROUNDS, &mut cases);
        drop(cases);
        let median = |i: usize| measure::summary(&raw[i]).median;
        Self {
            flops: 2.0 * (threads * SIDE.pow(3)) as f64 / median(0),
            bytes: (table.len() * size_of::<f32>()) as f64 / median(1),
        }
    }
}

fn sum(values: &[f32]) -> f32 {
    let mut sums = [0f32; 64];
    for chunk in values.chunks_exact(64) {
        sums.iter_mut().zip(chunk).for_each(|(s, v)| *s += v);
    }
    sums.iter().sum()
}
