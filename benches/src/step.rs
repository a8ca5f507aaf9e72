//! One step of the optimizer of class subspaces: momentum, projection on the tangent space and the move along the geodesic.

use subspan::classify::MomentumMode;
use subspan::classify::step::{StepOptions, descend, step};

use serde_json::{Value, json};

use crate::measure;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Classes, columns, dimension.
const SHAPES: [[usize; 3]; 8] = [
    [1000, 2048, 8],
    [1000, 2048, 1],
    [250, 2048, 16],
    [250, 2048, 32],
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

/// Frames, buffers and a gradient of one shape.
struct Case {
    shape: [usize; 3],
    frames: Vec<f32>,
    buffers: Vec<f32>,
    gradient: Vec<f32>,
}

impl Case {
    fn new(shape: [usize; 3]) -> Self {
        let [classes, columns, k] = shape;
        // A fixed mixture of frequencies: no two rows are alike, and frames are made orthonormal by the first steps.
        let wave = |scale: f32, phase: usize| -> Vec<f32> {
            (0..classes * columns * k)
                .map(|i| scale * (((i * 2_654_435_761 + phase) % 1000) as f32 / 500.0 - 1.0))
                .collect()
        };
        let mut frames = wave(1.0, 1);
        for frame in frames.chunks_exact_mut(columns * k) {
            // Orthonormal rows are restored by the step itself where they are far off.
            let mut still = vec![0f32; frame.len()];
            let options = StepOptions { reorthogonalize: true, ..StepOptions::default() };
            let _ = step(frame, &mut still, columns, 0.0, options);
        }
        let buffers = vec![0f32; frames.len()];
        let gradient = wave(1e-3, 77);
        Self { shape, frames, buffers, gradient }
    }

    fn step(&mut self, options: StepOptions) {
        let [_, columns, k] = self.shape;
        let len = columns * k;
        let frames = self.frames.chunks_exact_mut(len).zip(self.buffers.chunks_exact_mut(len));
        for ((frame, buffer), gradient) in frames.zip(self.gradient.chunks_exact(len)) {
            let _ = descend(frame, buffer, gradient, columns, [LR, MOMENTUM], options);
        }
    }
}

/// Times every shape with and without restoring orthonormal rows in the step; `shapes` as `C,D,K`, or the usual ones.
pub(crate) fn run(shapes: &[&str], json_file: Option<&str>) -> Result<(), Failure> {
    let mut wanted: Vec<[usize; 3]> = Vec::new();
    for text in shapes {
        let numbers = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        wanted.push(numbers.try_into().map_err(|_| format!("{text} is not C,D,K"))?);
    }
    let wanted = if wanted.is_empty() { SHAPES.to_vec() } else { wanted };
    println!("{:>18} {:>10} {:>12} {:>14} {:>10}", "C, D, k", "ms", "ms restoring", "ms transported", "GFLOP/s");
    let mut rows: Vec<Value> = Vec::new();
    for shape in wanted {
        let [classes, columns, k] = shape;
        let case = std::cell::RefCell::new(Case::new(shape));
        let repeats = (VALUES_PER_ROUND / (classes * columns * k)).max(1);
        let all = [
            StepOptions::default(),
            StepOptions { reorthogonalize: true, ..StepOptions::default() },
            StepOptions { momentum: MomentumMode::Transported, ..StepOptions::default() },
        ];
        let mut cases: Vec<Box<dyn FnMut() + '_>> = Vec::new();
        for options in all {
            let case = &case;
            cases.push(Box::new(move || (0..repeats).for_each(|_| case.borrow_mut().step(options))));
        }
        let raw = measure::interleaved(ROUNDS, &mut cases);
        drop(cases);
        let ms: Vec<f64> = raw.iter().map(|r| 1e3 * measure::summary(r).median / repeats as f64).collect();
        // W (2 k² D), the symmetric Gram matrix (k² D) and the combination (4 k² D) of every class.
        let flop = 7.0 * (classes * columns * k * k) as f64;
        let rate = flop / ms[0] / 1e6;
        let name = format!("{classes}, {columns}, {k}");
        println!("{name:>18} {:>10.3} {:>12.3} {:>14.3} {rate:>10.1}", ms[0], ms[1], ms[2]);
        rows.push(json!({
            "classes": classes, "columns": columns, "k": k, "ms": ms[0], "ms_restoring": ms[1], "ms_transported": ms[2],
            "gflops": rate, "seconds_per_round": raw, "steps_per_round": repeats,
        }));
    }
    if let Some(file) = json_file {
        let record = json!({ "machine": measure::machine(), "threads": 1, "shapes": rows });
        std::fs::write(file, serde_json::to_string_pretty(&record)? + "\n")?;
    }
    Ok(())
}
