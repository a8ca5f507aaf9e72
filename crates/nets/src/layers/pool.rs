//! Pooling and the parameter-free shortcut.

use rayon::prelude::*;
use subspan_linalg::Real;

use crate::graph::Dims;

/// The largest value of each window.
pub(crate) fn max<T: Real>(x: &[T], from: Dims, to: Dims, [size, stride, pad]: [usize; 3]) -> Vec<T> {
    planes(x, from, to, |plane, out| {
        for (p, o) in out.iter_mut().enumerate() {
            *o = plane[winner(plane, from, [p / to[2], p % to[2]], [size, stride, pad])];
        }
    })
}

/// Each window's gradient goes to its (first) largest value.
pub(crate) fn max_back<T: Real>(x: &[T], dy: &[T], from: Dims, to: Dims, shape: [usize; 3]) -> Vec<T> {
    let mut dx = vec![T::default(); x.len()];
    let (area, cells) = (from[1] * from[2], to[1] * to[2]);
    dx.par_chunks_mut(area).zip(x.par_chunks(area)).zip(dy.par_chunks(cells)).for_each(|((dx, x), dy)| {
        for (p, d) in dy.iter().enumerate() {
            dx[winner(x, from, [p / to[2], p % to[2]], shape)] += *d;
        }
    });
    dx
}

/// Position of the largest value under window `[row, column]`.
fn winner<T: Real>(plane: &[T], [_, h, w]: Dims, at: [usize; 2], [size, stride, pad]: [usize; 3]) -> usize {
    let range = |start: usize, n: usize| {
        let first = start * stride;
        first.saturating_sub(pad)..(first + size).saturating_sub(pad).min(n)
    };
    let (rows, columns) = (range(at[0], h), range(at[1], w));
    let mut best = rows.start * w + columns.start;
    for row in rows {
        for at in row * w + columns.start..row * w + columns.end {
            if plane[at] > plane[best] {
                best = at;
            }
        }
    }
    best
}

/// The cell of an adaptive mean: `⌊i n / m⌋ .. ⌈(i + 1) n / m⌉`.
fn cell(i: usize, n: usize, m: usize) -> std::ops::Range<usize> {
    i * n / m..((i + 1) * n).div_ceil(m)
}

/// The mean of each cell.
pub(crate) fn mean<T: Real>(x: &[T], from: Dims, to: Dims) -> Vec<T> {
    planes(x, from, to, |plane, out| {
        for (p, o) in out.iter_mut().enumerate() {
            let (rows, columns) = (cell(p / to[2], from[1], to[1]), cell(p % to[2], from[2], to[2]));
            let count = (rows.len() * columns.len()) as f64;
            let sum: f64 = rows.flat_map(|r| &plane[r * from[2]..][columns.clone()]).map(|v| v.to_f64()).sum();
            *o = T::from_f64(sum / count);
        }
    })
}

/// Each cell's gradient is shared by its values.
pub(crate) fn mean_back<T: Real>(dy: &[T], from: Dims, to: Dims) -> Vec<T> {
    planes(dy, to, from, |dy, dx| {
        for (p, d) in dy.iter().enumerate() {
            let (rows, columns) = (cell(p / to[2], from[1], to[1]), cell(p % to[2], from[2], to[2]));
            let share = T::from_f64(d.to_f64() / (rows.len() * columns.len()) as f64);
            for row in rows {
                dx[row * from[2]..][columns.clone()].iter_mut().for_each(|v| *v += share);
            }
        }
    })
}

/// Every `stride`-th position; `before` zero channels come first.
pub(crate) fn shortcut<T: Real>(x: &[T], from: Dims, to: Dims, stride: usize, before: usize) -> Vec<T> {
    moved(x, from, to, |at| shortcut_source(at, from, to, stride, before))
}

/// The gradient of [`shortcut`]'s input.
pub(crate) fn shortcut_back<T: Real>(dy: &[T], from: Dims, to: Dims, stride: usize, before: usize) -> Vec<T> {
    let (n_in, n_out) = (from.iter().product::<usize>(), to.iter().product::<usize>());
    let mut dx = vec![T::default(); dy.len() / n_out * n_in];
    for (dx, dy) in dx.chunks_exact_mut(n_in).zip(dy.chunks_exact(n_out)) {
        for (at, d) in dy.iter().enumerate() {
            if let Some(source) = shortcut_source(at, from, to, stride, before) {
                dx[source] += *d;
            }
        }
    }
    dx
}

fn shortcut_source(at: usize, from: Dims, to: Dims, stride: usize, before: usize) -> Option<usize> {
    let (c, y, x) = (at / (to[1] * to[2]), at / to[2] % to[1], at % to[2]);
    let c = c.checked_sub(before).filter(|c| *c < from[0])?;
    Some((c * from[1] + y * stride) * from[2] + x * stride)
}

/// Fills every plane of the result from its plane of `x`.
fn planes<T: Real>(x: &[T], from: Dims, to: Dims, fill: impl Fn(&[T], &mut [T]) + Sync) -> Vec<T> {
    let (area, cells) = (from[1] * from[2], to[1] * to[2]);
    let mut out = vec![T::default(); x.len() / area * cells];
    out.par_chunks_mut(cells).zip(x.par_chunks(area)).for_each(|(out, x)| fill(x, out));
    out
}

/// Every value of the result from its place in the same sample, or zero.
fn moved<T: Real>(x: &[T], from: Dims, to: Dims, source: impl Fn(usize) -> Option<usize> + Sync) -> Vec<T> {
    let (n_in, n_out) = (from.iter().product::<usize>(), to.iter().product::<usize>());
    let mut out = vec![T::default(); x.len() / n_in * n_out];
    out.par_chunks_mut(n_out).zip(x.par_chunks(n_in)).for_each(|(out, x)| {
        for (at, o) in out.iter_mut().enumerate() {
            *o = source(at).map_or(T::default(), |s| x[s]);
        }
    });
    out
}
