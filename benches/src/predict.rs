//! Prediction of a subspace classifier against the matrix product inside it.

use std::hint::black_box;

use subspan::classify::{DenseSamples, Frames, Model, Scorer, orthonormalize};
use subspan::draw::Stream;
use subspan_linalg::gemm;

use crate::measure;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Samples, classes, columns, dimension.
const SHAPES: [[usize; 4]; 4] =
    [[4096, 1000, 2048, 8], [10_000, 10, 784, 16], [10_000, 150, 384, 1], [10_000, 77, 384, 8]];
const ROUNDS: usize = 9;

/// Prints for every shape, on one thread and on all, the seconds of the product alone and of codes and probabilities.
pub(crate) fn run() -> Result<(), Failure> {
    println!(
        "{:>24} {:>8} {:>12} {:>12} {:>14} {:>8}",
        "n, C, D, k", "threads", "product ms", "predict ms", "GFLOP/s", "share"
    );
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        for [n, classes, columns, k] in SHAPES {
            let mut rng = Stream::new(0, "bench predict").rng(0);
            let mut noise = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.normal() as f32).collect() };
            let values = noise(n * columns);
            let mut rows = noise(classes * k * columns);
            for frame in rows.chunks_exact_mut(k * columns) {
                orthonormalize(frame, columns)?;
            }
            let product_rows = rows.clone();
            let offsets = (0..=classes).map(|c| c * k).collect();
            let model = Model {
                classes: (0..classes).map(|c| c.to_string()).collect(),
                n_cols: columns,
                scorer: Scorer::Subspaces { frames: Frames { rows, offsets }, gamma: 25.0, center: None },
                temperature: 1.0,
                reconstruction: None,
            };
            let samples = DenseSamples::new(&values, columns)?;
            let mut product = vec![0f32; n * classes * k];
            let mut cases: Vec<Box<dyn FnMut() + '_>> = vec![
                Box::new(|| {
                    pool.install(|| gemm::mul_transposed(&values, &product_rows, columns, black_box(&mut product)))
                }),
                Box::new(|| drop(black_box(pool.install(|| model.predict(&samples).expect("samples of the model"))))),
            ];
            let raw = measure::interleaved(ROUNDS, &mut cases);
            drop(cases);
            let [product, predict] = [0, 1].map(|i: usize| measure::summary(&raw[i]).median);
            let flop = 2.0 * (n * classes * k * columns) as f64;
            println!(
                "{:>24} {threads:>8} {:>12.2} {:>12.2} {:>6.0} of {:>4.0} {:>6.0} %",
                format!("{n}, {classes}, {columns}, {k}"),
                1e3 * product,
                1e3 * predict,
                flop / predict / 1e9,
                flop / product / 1e9,
                100.0 * product / predict,
            );
        }
    }
    Ok(())
}
