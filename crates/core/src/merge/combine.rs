//! Several models into one, a block of rows at a time.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use subspan_linalg::bf16::weighted_sum;

use super::apply::Gathered;
use super::error::{MergeError, Result};
use super::layout::Layout;
use super::model::{MemoryModel, Model};
use super::permutations::Permutations;
use super::tensor::{DType, Tensor, narrow_f32, narrow_f64, widen_f32, widen_f64};

/// How tensors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The weighted mean.
    Mean,
    /// Of two models, a point on the arc between their directions, tensor by tensor.
    Slerp,
    /// The weighted mean, each row scaled to the weighted mean of the models' own norms of that row. Averaging shrinks what is
    /// not aligned; this undoes it without data.
    RowNorm,
}

/// Below this sine of the angle between two tensors an arc is a straight line to rounding.
const STRAIGHT: f64 = 1e-6;
/// Bytes of output per block: several fit into the second-level cache together with their inputs.
const BLOCK_BYTES: usize = 1 << 17;
/// Blocks per batch handed to the sink: enough for every thread, 2 MiB of private memory, twice.
const BATCH: usize = 16;
/// Elements mixed at once in single precision: they and their sum stay in the first-level cache.
const TILE: usize = 2048;

/// Where merged bytes go, in order. It may run on another thread, one batch behind the computation.
pub type Sink<'a> = dyn FnMut(&[u8]) -> Result<()> + Send + 'a;

/// What a merge of one tensor met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixed {
    /// Whether an opaque tensor differed between models.
    pub differs: bool,
    /// Whether all merged numbers are finite.
    pub finite: bool,
}

/// Merges one tensor of several models, moved already, into `sink` as the first one's dtype. Sums are in double precision, for
/// half precision in single; each element is rounded once. Tensors that are no floating numbers are the first model's. The bits
/// do not depend on the number of threads.
///
/// # Errors
/// What the sink says; tensors that one rule cannot merge.
///
/// # Panics
/// If the numbers of models and weights differ, or shapes do.
pub fn merge_tensor(sources: &[Gathered<'_>], weights: &[f64], rule: Rule, sink: &mut Sink<'_>) -> Result<Mixed> {
    assert!(!sources.is_empty() && sources.len() == weights.len(), "a weight per model");
    let first = &sources[0];
    let view = first.view();
    assert!(sources.iter().all(|s| s.view().shape == view.shape), "models that are alike");
    if !view.dtype.is_float() {
        let differs = sources.iter().any(|s| s.to_tensor().data != first.to_tensor().data);
        return copy_tensor(first, sink).map(|()| Mixed { differs, finite: true });
    }
    let weights = match rule {
        Rule::Mean | Rule::RowNorm => weights.to_vec(),
        Rule::Slerp => arc(sources, weights)?,
    };
    // A model of weight zero has no say, so that weights 1, 0 give the first model bit for bit.
    let parts: Vec<(&Gathered<'_>, f64)> = sources.iter().zip(weights).filter(|(_, w)| *w != 0.0).collect();
    let row = first.row_bytes();
    let rows = (BLOCK_BYTES / row.max(1)).max(1);
    let finite = AtomicBool::new(true);
    let mix = |batch: Range<usize>, buffer: &mut Vec<u8>| {
        buffer.resize(batch.len() * row, 0);
        buffer.par_chunks_mut((rows * row).max(1)).enumerate().for_each_init(Scratch::default, |scratch, (k, out)| {
            let start = batch.start + k * rows;
            let rows = start..start + out.len() / row;
            match (rule, view.dtype) {
                (Rule::RowNorm, dtype) => mix_rows(&parts, rows, dtype, out, scratch),
                (_, DType::F16 | DType::BF16) => mix_f32(&parts, rows, view.dtype, out, scratch),
                _ => mix_f64(&parts, rows, view.dtype, out, scratch),
            }
            if !are_finite(view.dtype, out) {
                finite.store(false, Ordering::Relaxed);
            }
        });
    };
    // One batch is written while the next one is computed.
    let (mut ready, mut next) = (Vec::new(), Vec::new());
    for batch in batches(first.n_rows(), rows * BATCH) {
        let write = || if ready.is_empty() { Ok(()) } else { sink(&ready) };
        let (written, ()) = rayon::join(write, || mix(batch, &mut next));
        written?;
        std::mem::swap(&mut ready, &mut next);
    }
    if !ready.is_empty() {
        sink(&ready)?;
    }
    Ok(Mixed { differs: false, finite: finite.into_inner() })
}

/// Whether all exponents of stored numbers are below the largest, which stands for infinity and NaN.
fn are_finite(dtype: DType, bytes: &[u8]) -> bool {
    // Every element is looked at, without an early exit, so that the loops vectorize.
    match dtype {
        DType::F64 => bytes.as_chunks().0.iter().fold(true, |all, b| all & f64::from_le_bytes(*b).is_finite()),
        DType::F32 => bytes.as_chunks().0.iter().fold(true, |all, b| all & f32::from_le_bytes(*b).is_finite()),
        DType::F16 => bytes.as_chunks().0.iter().fold(true, |all, b| all & (u16::from_le_bytes(*b) & 0x7c00 != 0x7c00)),
        DType::BF16 => {
            bytes.as_chunks().0.iter().fold(true, |all, b| all & (u16::from_le_bytes(*b) & 0x7f80 != 0x7f80))
        }
        DType::Opaque { .. } => true,
    }
}

/// A gathered tensor's bytes into `sink`.
///
/// # Errors
/// What the sink says.
pub fn copy_tensor(source: &Gathered<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let rows = (BATCH * BLOCK_BYTES / source.row_bytes().max(1)).max(1);
    let mut buffer = Vec::new();
    for batch in batches(source.n_rows(), rows) {
        match source.borrowed(batch.clone()) {
            Some(bytes) => sink(bytes)?,
            None => {
                buffer.resize(batch.len() * source.row_bytes(), 0);
                let step = (BLOCK_BYTES / source.row_bytes().max(1)).max(1);
                buffer.par_chunks_mut((step * source.row_bytes()).max(1)).enumerate().for_each(|(k, out)| {
                    let start = batch.start + k * step;
                    source.read(start..start + out.len() / source.row_bytes(), out);
                });
                sink(&buffer)?;
            }
        }
    }
    Ok(())
}

fn batches(n_rows: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n_rows).step_by(size).map(move |start| start..(start + size).min(n_rows))
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    gathered: Vec<Vec<u8>>,
    wide: Vec<f32>,
    wider: Vec<f64>,
    sum: Vec<f32>,
    sums: Vec<f64>,
}

fn mix_f32(parts: &[(&Gathered<'_>, f64)], rows: Range<usize>, dtype: DType, out: &mut [u8], s: &mut Scratch) {
    let n = out.len() / dtype.size();
    s.gathered.resize(parts.len(), Vec::new());
    let each = parts.iter().zip(&mut s.gathered);
    let sources: Vec<(DType, &[u8], f32)> = each
        .map(|((source, w), buffer)| (source.view().dtype, source.bytes(rows.clone(), buffer), *w as f32))
        .collect();
    if dtype == DType::BF16 && sources.iter().all(|(dtype, ..)| *dtype == DType::BF16) {
        let parts: Vec<(&[u8], f32)> = sources.iter().map(|(_, bytes, w)| (*bytes, *w)).collect();
        return weighted_sum(&parts, out);
    }
    s.wide.resize(TILE, 0.0);
    s.sum.resize(TILE, 0.0);
    for (start, out) in (0..n).step_by(TILE).zip(out.chunks_mut(TILE * dtype.size())) {
        let len = out.len() / dtype.size();
        let (wide, sum) = (&mut s.wide[..len], &mut s.sum[..len]);
        // Minus zero is the sum of nothing that keeps the sign of whatever is added.
        sum.fill(if sources.is_empty() { 0.0 } else { -0.0 });
        for (dtype, bytes, w) in &sources {
            widen_f32(*dtype, &bytes[start * dtype.size()..(start + len) * dtype.size()], wide);
            sum.iter_mut().zip(&*wide).for_each(|(sum, v)| *sum += w * v);
        }
        narrow_f32(dtype, sum, out);
    }
}

fn mix_f64(parts: &[(&Gathered<'_>, f64)], rows: Range<usize>, dtype: DType, out: &mut [u8], s: &mut Scratch) {
    let n = out.len() / dtype.size();
    s.wider.resize(n, 0.0);
    s.sums.resize(n, 0.0);
    for (k, (source, w)) in parts.iter().enumerate() {
        let bytes = source.bytes(rows.clone(), &mut s.bytes);
        widen_f64(source.view().dtype, bytes, &mut s.wider);
        if k == 0 {
            s.sums.iter_mut().zip(&s.wider).for_each(|(sum, v)| *sum = w * v);
        } else {
            s.sums.iter_mut().zip(&s.wider).for_each(|(sum, v)| *sum += w * v);
        }
    }
    if parts.is_empty() {
        s.sums.fill(0.0);
    }
    narrow_f64(dtype, &s.sums, out);
}

/// [`mix_f64`] with every row brought to the weighted mean of its norms.
fn mix_rows(parts: &[(&Gathered<'_>, f64)], rows: Range<usize>, dtype: DType, out: &mut [u8], s: &mut Scratch) {
    let n_rows = rows.len();
    let length = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>().sqrt();
    let width = (out.len() / dtype.size() / n_rows.max(1)).max(1);
    let mut wanted = vec![0.0; n_rows];
    s.sums.clear();
    s.sums.resize(n_rows * width, 0.0);
    s.wider.resize(n_rows * width, 0.0);
    for (source, w) in parts {
        let bytes = source.bytes(rows.clone(), &mut s.bytes);
        widen_f64(source.view().dtype, bytes, &mut s.wider);
        s.sums.iter_mut().zip(&s.wider).for_each(|(sum, v)| *sum += w * v);
        wanted.iter_mut().zip(s.wider.chunks(width)).for_each(|(norm, row)| *norm += w * length(row));
    }
    for (row, wanted) in s.sums.chunks_mut(width).zip(&wanted) {
        let found = length(row);
        // One model alone keeps its bits.
        if found > 0.0 && parts.len() > 1 {
            row.iter_mut().for_each(|v| *v *= wanted / found);
        }
    }
    narrow_f64(dtype, &s.sums, out);
}

/// The weights of a point on the arc between two tensors: `sin((1−t)Ω)/sin Ω`, `sin(tΩ)/sin Ω`.
fn arc(sources: &[Gathered<'_>], weights: &[f64]) -> Result<Vec<f64>> {
    let [a, b] = sources else {
        return Err(MergeError::Unsupported {
            what: format!("an arc between {} models", sources.len()),
            hint: Some("--rule slerp is for two models".into()),
        });
    };
    let total: f64 = weights.iter().sum();
    let t = weights[1] / total;
    let rows = (BLOCK_BYTES / a.row_bytes().max(1)).max(1);
    let parts: Vec<Range<usize>> = batches(a.n_rows(), rows).collect();
    let sums: Vec<[f64; 3]> = parts
        .into_par_iter()
        .map_init(Scratch::default, |s, rows| {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            for (source, out) in [(a, &mut x), (b, &mut y)] {
                let bytes = source.bytes(rows.clone(), &mut s.bytes);
                let dtype = source.view().dtype;
                out.resize(bytes.len() / dtype.size(), 0.0);
                widen_f64(dtype, bytes, out);
            }
            x.iter().zip(&y).fold([0.0; 3], |[p, q, r], (x, y)| [p + x * y, q + x * x, r + y * y])
        })
        .collect();
    let [product, left, right] = sums.into_iter().fold([0.0; 3], |[p, q, r], [x, y, z]| [p + x, q + y, r + z]);
    let cos = (product / (left * right).sqrt()).clamp(-1.0, 1.0);
    let angle = cos.acos();
    let sin = angle.sin();
    // A zero tensor has no direction: its sine is NaN.
    if sin.is_nan() || sin < STRAIGHT || t == 0.0 || t == 1.0 {
        return Ok(vec![1.0 - t, t]);
    }
    Ok(vec![((1.0 - t) * angle).sin() / sin, (t * angle).sin() / sin])
}

/// The mean of models, moved, in single precision; tensors of the cost only.
///
/// # Errors
/// A tensor that one lacks.
pub fn mean_model(layout: &Layout, models: &[(&dyn Model, &Permutations)]) -> Result<MemoryModel> {
    let mut out = MemoryModel::new("the mean of the other models");
    for tensor in layout.tensors.iter().filter(|t| t.in_cost) {
        let mut sums = vec![0.0; tensor.shape.iter().product()];
        for (model, permutations) in models {
            let moved = layout.gathered(model.require(&tensor.name)?, permutations).to_tensor();
            let values = moved.view(&tensor.name).to_f64();
            sums.iter_mut().zip(values).for_each(|(s, v)| *s += v);
        }
        let mean: Vec<f32> = sums.iter().map(|s| (s / models.len() as f64) as f32).collect();
        out.tensors.insert(tensor.name.clone(), Tensor::from_f32(&tensor.shape, &mean, DType::F32));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{random_model, spec};
    use super::super::{PermInfo, Piece};
    use super::*;

    fn merged(models: &[&MemoryModel], weights: &[f64], rule: Rule) -> Tensor {
        let sources: Vec<Gathered<'_>> = models.iter().map(|m| Gathered::new(m.tensors["w"].view("w"), &[])).collect();
        let mut data = Vec::new();
        merge_tensor(&sources, weights, rule, &mut |bytes| {
            data.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
        Tensor { data, ..models[0].tensors["w"].clone() }
    }

    #[test]
    fn a_mean_is_rounded_once() {
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            let shape: &[(&str, &[usize])] = &[("w", &[700, 300])];
            let (a, b) = (random_model(shape, dtype, 1), random_model(shape, dtype, 2));
            let values = |m: &MemoryModel| m.tensors["w"].view("w").to_f64();
            let exact: Vec<f64> = values(&a).iter().zip(values(&b)).map(|(x, y)| 0.25 * x + 0.75 * y).collect();
            let mut expected = a.tensors["w"].clone();
            narrow_f64(dtype, &exact, &mut expected.data);
            assert_eq!(merged(&[&a, &b], &[0.25, 0.75], Rule::Mean), expected, "{dtype:?}");
            for rule in [Rule::Mean, Rule::Slerp, Rule::RowNorm] {
                assert_eq!(merged(&[&a, &b], &[1.0, 0.0], rule), a.tensors["w"]);
                let same = merged(&[&a, &a], &[0.5, 0.5], rule);
                assert!(rule == Rule::RowNorm || same == a.tensors["w"]);
            }
        }
    }

    #[test]
    fn rows_keep_their_norms() {
        let shape: &[(&str, &[usize])] = &[("w", &[500, 40])];
        let (a, b) = (random_model(shape, DType::F64, 1), random_model(shape, DType::F32, 2));
        let norms = |t: &Tensor| -> Vec<f64> {
            t.view("w").to_f64().chunks(40).map(|r| r.iter().map(|v| v * v).sum::<f64>().sqrt()).collect()
        };
        let (x, y) = (norms(&a.tensors["w"]), norms(&b.tensors["w"]));
        let found = merged(&[&a, &b], &[0.25, 0.75], Rule::RowNorm);
        let mean = merged(&[&a, &b], &[0.25, 0.75], Rule::Mean);
        for (i, norm) in norms(&found).into_iter().enumerate() {
            assert!((norm - (0.25 * x[i] + 0.75 * y[i])).abs() < 1e-12);
        }
        // Directions are those of the mean.
        let (f, m) = (found.view("w").to_f64(), mean.view("w").to_f64());
        assert!((0..40).all(|k| (f[k] / f[0] - m[k] / m[0]).abs() < 1e-9));
    }

    #[test]
    fn an_arc_keeps_the_norm() {
        let shape: &[(&str, &[usize])] = &[("w", &[50, 40])];
        let (a, b) = (random_model(shape, DType::F64, 1), random_model(shape, DType::F64, 2));
        let norm = |t: &Tensor| t.view("w").to_f64().iter().map(|v| v * v).sum::<f64>().sqrt();
        let unit = |m: &MemoryModel| {
            let n = norm(&m.tensors["w"]);
            let mut t = m.clone();
            let values: Vec<f64> = m.tensors["w"].view("w").to_f64().iter().map(|v| v / n).collect();
            narrow_f64(DType::F64, &values, &mut t.tensors.get_mut("w").unwrap().data);
            t
        };
        let (a, b) = (unit(&a), unit(&b));
        for t in [0.2, 0.5, 0.9] {
            assert!((norm(&merged(&[&a, &b], &[1.0 - t, t], Rule::Slerp)) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn streams_are_what_memory_says_for_any_threads() {
        let shapes: &[(&str, &[usize])] = &[("w", &[3000, 70])];
        let spec = spec(
            &[("h", PermInfo::new(3000)), ("g", PermInfo::new(70))],
            &[("w", vec![vec![Piece::whole("h")], vec![Piece::whole("g")]])],
        );
        let (a, b) = (random_model(shapes, DType::BF16, 1), random_model(shapes, DType::F32, 2));
        let layout = Layout::new(spec.clone(), &a).unwrap();
        let p = Permutations::random(&spec, 1, false);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let sources = [Gathered::new(a.tensors["w"].view("w"), &[]), layout.gathered(b.tensors["w"].view("w"), &p)];
            let mut data = Vec::new();
            pool.install(|| {
                let mut sink = |bytes: &[u8]| -> Result<()> {
                    data.extend_from_slice(bytes);
                    Ok(())
                };
                merge_tensor(&sources, &[0.5, 0.5], Rule::Mean, &mut sink).unwrap();
            });
            data
        };
        let moved = layout.apply(&b, &p);
        assert_eq!(run(1), run(3));
        assert_eq!(run(2), merged(&[&a, &moved], &[0.5, 0.5], Rule::Mean).data);
    }
}
