//! Weighted quantile regression by the Frisch-Newton interior point method (Portnoy and Koenker, "The Gaussian hare and the
//! Laplacian tortoise", Statistical Science 1997; predictor and corrector after Mehrotra, SIAM J. Optimization 1992).
//!
//! Primal: minimise `Σ u (t s + (1 − t) v)` over `b − A x = s − v`, `s, v ≥ 0`. Dual: maximise `bᵀ z` over
//! `Aᵀ z = (1 − t) Aᵀ u`, `0 ≤ z ≤ u`. With `w = u − z` the gap is `zᵀ v + wᵀ s`. A Newton step is a weighted least-squares
//! fit with `D = 1 / (v/z + s/w)`:
//!
//! ```text
//! dx = argmin Σ D (s − v − A dx)²     dz = D ∘ (s − v − A dx)     dv = −v − (v/z) dz     ds = −s + (s/w) dz
//! ```
//!
//! The corrector adds `c_v = (μ − dz dv)/z` and `c_s = (μ + dz ds)/w` to the right-hand sides and shares the factorization.
//! Its right-hand side is linear in `μ`, so the predictor's pass collects both parts and an iteration reads the rows three
//! times: update and Gram matrix, predictor, corrector.
//!
//! Cost: 10 to 20 iterations of `n (d+1)² + 12 n d` flop; eight doubles per row besides the rows themselves.

use rayon::prelude::*;
use subspan_linalg::{apply, gram};

use super::normal::{Damped, least_squares};
use super::table::{MemoryTable, TILE_ROWS, chunk_rows};
use crate::error::{Error, Result};
use crate::observe::Observer;

/// A quantile regression in memory.
pub(super) struct Problem<'a> {
    /// Row-major `n x n_cols`: features of full column rank, then the target.
    pub(super) values: &'a [f64],
    pub(super) n_cols: usize,
    /// Non-negative, one per row; `None` for ones.
    pub(super) weights: Option<&'a [f64]>,
    /// The quantile `t`.
    pub(super) level: f64,
    /// Relative gap to reach.
    pub(super) tolerance: f64,
}

/// The minimiser of `Σ u max(t r, (t − 1) r)` and its proof.
#[derive(Debug, Clone)]
pub(super) struct Solution {
    pub(super) coefficients: Vec<f64>,
    /// `Σ u max(t r, (t − 1) r)` at the coefficients.
    pub(super) objective: f64,
    /// The value of a feasible dual point: no coefficients do better.
    pub(super) lower: f64,
    /// The loss of coefficients zero, up to a factor between `min(t, 1 − t)` and `max(t, 1 − t)`.
    pub(super) at_zero: f64,
    pub(super) iterations: usize,
}

/// The share of the way to the boundary that a step goes (Portnoy and Koenker's value).
const TO_BOUNDARY: f64 = 0.99995;

/// Far more than any of the problems seen takes (10 to 25).
const MAX_ITERATIONS: usize = 100;

/// Residuals below this share of the targets are rounding: the fit is exact. The unit roundoff times a few thousand, for the
/// solve of badly conditioned interpolations.
pub(super) const EXACT_FIT: f64 = 1e-12;

/// Shortest step that still counts as progress.
const SHORTEST_STEP: f64 = 1e-8;

/// Some rows and their interior point.
struct Chunk<'a> {
    rows: &'a [f64],
    weights: Option<&'a [f64]>,
    /// The target less the starting fit.
    target: Vec<f64>,
    z: Vec<f64>,
    w: Vec<f64>,
    s: Vec<f64>,
    v: Vec<f64>,
    dz: Vec<f64>,
    /// The predictor leaves `dz dv / z` here for the corrector, which leaves the step.
    dv: Vec<f64>,
    /// Likewise `dz ds / w`.
    ds: Vec<f64>,
}

impl Chunk<'_> {
    fn weight(&self, i: usize) -> f64 {
        self.weights.map_or(1.0, |w| w[i])
    }
}

/// What the Gram pass finds.
struct Normals {
    gram: Vec<f64>,
    /// `Aᵀ D (s − v)`.
    right: Vec<f64>,
    gap: f64,
    loss: f64,
}

/// What a direction pass finds.
#[derive(Clone)]
struct Direction {
    /// `1 / longest step` that keeps `z` and `w` non-negative.
    dual_block: f64,
    /// Likewise for `s` and `v`.
    primal_block: f64,
    /// `Σ dz v − dz s`, `Σ z dv + w ds`, `Σ dz dv − dz ds`: the gap along the step.
    bilinear: [f64; 3],
    /// `Aᵀ` of the parts of the corrector's right-hand side that are linear in `μ` and constant, and `Aᵀ z`.
    right: [Vec<f64>; 3],
}

struct Tilewise {
    a: [f64; TILE_ROWS],
    b: [f64; TILE_ROWS],
    c: [f64; TILE_ROWS],
}

impl Tilewise {
    fn new() -> Self {
        Self { a: [0.0; TILE_ROWS], b: [0.0; TILE_ROWS], c: [0.0; TILE_ROWS] }
    }
}

/// Solves the problem. `start` is any good first fit, by default the weighted least-squares one.
///
/// # Errors
/// [`Error::NotConverged`] when the gap stays above the tolerance, [`Error::Cancelled`].
pub(super) fn solve(problem: &Problem<'_>, start: Option<&[f64]>, observer: &dyn Observer) -> Result<Solution> {
    let start = match start {
        Some(x) => x.to_vec(),
        None => {
            let Problem { values, n_cols, weights, .. } = *problem;
            least_squares(&MemoryTable { values, n_cols, weights, observer })?
        }
    };
    let (k, t) = (problem.n_cols - 1, problem.level);
    let mut chunks = split(problem, &start);
    let scale = mean_scale(&chunks);
    let offset = START_OFFSET * scale.residual / scale.weight.max(f64::MIN_POSITIVE);
    chunks.par_iter_mut().for_each(|c| interior_start(c, t, offset));
    // Aᵀ z starts at (1 − t) Aᵀ u and has to stay there.
    let balance = columns_of_z(&chunks, problem.n_cols);
    let stopped = |iterations: usize, reached: f64| Error::NotConverged {
        what: "the interior point method",
        iterations,
        reached,
        tolerance: problem.tolerance,
    };
    let finish = |chunks: &[Chunk<'_>], x: &[f64], iterations: usize| {
        let (objective, lower) = certify(chunks, x, t, &balance);
        if !objective.is_finite() {
            return Err(stopped(iterations, objective));
        }
        let coefficients = start.iter().zip(x).map(|(s, x)| s + x).collect();
        Ok(Solution {
            coefficients,
            objective,
            lower: lower.max(0.0).min(objective),
            at_zero: scale.target,
            iterations,
        })
    };

    let mut x = vec![0.0; k];
    if scale.residual <= EXACT_FIT * scale.target || scale.weight == 0.0 {
        return finish(&chunks, &x, 0);
    }

    let (mut step, mut reached) = ([0.0; 2], f64::INFINITY);
    let mut best: Option<(f64, Solution)> = None;
    for iteration in 0..MAX_ITERATIONS {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let normals = gram_pass(&mut chunks, problem.n_cols, t, step);
        reached = normals.gap / normals.loss.max(EXACT_FIT * scale.target);
        // Late iterations and short steps mean that rounding has the last word: then a little less is enough.
        let late = iteration >= LATE || (iteration > 0 && step[0].max(step[1]) < SHORTEST_STEP);
        if reached <= problem.tolerance || late {
            let found = finish(&chunks, &x, iteration)?;
            let proved = (found.objective - found.lower) / found.objective.max(EXACT_FIT * scale.target);
            if proved <= if late { STALLED_TOLERANCE } else { AS_GOOD * problem.tolerance }.max(problem.tolerance) {
                return Ok(found);
            }
            if proved < best.as_ref().map_or(ROUGH, |best| best.0) {
                best = Some((proved, found));
            }
        }
        let system = Damped::new(&normals.gram, problem.n_cols, k)?;
        let predicted = system.solve(&normals.right[..k]);
        let affine = predictor_pass(&mut chunks, problem.n_cols, &predicted);
        let (dual, primal) = (affine.dual_block.max(1.0).recip(), affine.primal_block.max(1.0).recip());
        let [dz, dsv, both] = affine.bilinear;
        let after = (normals.gap + dual * dz + primal * dsv + dual * primal * both).max(0.0);
        // Mehrotra's centring: (after/now)³ of the mean gap per complementary pair.
        let mu = (after / normals.gap).powi(2) * after / (2 * problem.values.len() / problem.n_cols) as f64;
        // The correction is that of a whole step; where hardly any of it can be taken it leads further into the corner.
        let whole = if dual.min(primal) < SHORT_PREDICTION { 0.0 } else { 1.0 };
        let right: Vec<f64> = (0..k)
            .map(|j| {
                let infeasible = balance[j] - affine.right[2][j];
                normals.right[j] + mu * affine.right[0][j] + whole * affine.right[1][j] - infeasible
            })
            .collect();
        let corrected = system.solve(&right);
        let taken = corrector_pass(&mut chunks, problem.n_cols, &corrected, mu, whole);
        step = [taken.dual_block, taken.primal_block].map(|block| (TO_BOUNDARY / block).min(1.0));
        x.iter_mut().zip(&corrected).for_each(|(x, dx)| *x += step[1] * dx);
    }
    // What was proved stays proved, and the gap tells; an error would throw it away.
    best.map(|best| best.1).ok_or_else(|| stopped(MAX_ITERATIONS, reached))
}

/// A predicted step of this length or less is not corrected for its curvature.
const SHORT_PREDICTION: f64 = 0.1;

/// A proved gap that is good enough when rounding stops the iteration earlier than asked: the gap that the exact mode promises.
const STALLED_TOLERANCE: f64 = 1e-8;

/// A proved gap that is worth having when nothing better comes.
const ROUGH: f64 = 1e-4;

/// Iterations after which [`STALLED_TOLERANCE`] counts.
const LATE: usize = 30;

/// The proof is computed anew from the coefficients: a gap this many times the interior point's own is its rounding.
const AS_GOOD: f64 = 2.0;

/// Distance of the first `s` and `v` from their bounds, in mean absolute residuals.
const START_OFFSET: f64 = 0.1;

fn split<'a>(problem: &Problem<'a>, start: &[f64]) -> Vec<Chunk<'a>> {
    let n_cols = problem.n_cols;
    let rows = chunk_rows(problem.values.len() / n_cols);
    let fit: Vec<f64> = start.iter().map(|x| -x).chain([1.0]).collect();
    problem
        .values
        .par_chunks(rows * n_cols)
        .enumerate()
        .map(|(c, values)| {
            let n = values.len() / n_cols;
            let mut target = vec![0.0; n];
            apply::mul_vec(values, &fit, &mut target);
            let weights = problem.weights.map(|w| &w[c * rows..c * rows + n]);
            let zeros = || vec![0.0; n];
            Chunk {
                rows: values,
                weights,
                target,
                z: zeros(),
                w: zeros(),
                s: zeros(),
                v: zeros(),
                dz: zeros(),
                dv: zeros(),
                ds: zeros(),
            }
        })
        .collect()
}

/// Folds the chunks in order.
fn reduce<T: Send>(
    chunks: &mut [Chunk<'_>],
    visit: impl Fn(&mut Chunk<'_>) -> T + Sync + Send,
    merge: impl Fn(&mut T, T),
) -> Option<T> {
    let parts: Vec<T> = chunks.par_iter_mut().map(visit).collect();
    let mut parts = parts.into_iter();
    let mut total = parts.next()?;
    parts.for_each(|p| merge(&mut total, p));
    Some(total)
}

fn add(total: &mut [f64], part: &[f64]) {
    total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
}

/// Sums over the rows: weights, weighted absolute residuals of the start, weighted absolute targets.
struct Scale {
    weight: f64,
    residual: f64,
    target: f64,
}

fn mean_scale(chunks: &[Chunk<'_>]) -> Scale {
    let parts: Vec<Scale> = chunks
        .par_iter()
        .map(|c| {
            let n_cols = c.rows.len() / c.target.len();
            let mut sum = Scale { weight: 0.0, residual: 0.0, target: 0.0 };
            for i in 0..c.target.len() {
                let u = c.weight(i);
                sum.weight += u;
                sum.residual += u * c.target[i].abs();
                sum.target += u * c.rows[(i + 1) * n_cols - 1].abs();
            }
            sum
        })
        .collect();
    parts.into_iter().fold(Scale { weight: 0.0, residual: 0.0, target: 0.0 }, |a, b| Scale {
        weight: a.weight + b.weight,
        residual: a.residual + b.residual,
        target: a.target + b.target,
    })
}

fn interior_start(c: &mut Chunk<'_>, t: f64, offset: f64) {
    for i in 0..c.target.len() {
        let (u, r) = (c.weight(i), c.target[i]);
        (c.z[i], c.w[i]) = ((1.0 - t) * u, t * u);
        (c.s[i], c.v[i]) = (r.max(0.0) + offset, (-r).max(0.0) + offset);
    }
}

/// `Aᵀ z`.
fn columns_of_z(chunks: &[Chunk<'_>], n_cols: usize) -> Vec<f64> {
    let parts: Vec<Vec<f64>> = chunks
        .par_iter()
        .map(|c| {
            let mut out = vec![0.0; n_cols];
            apply::add_tr_mul_vec(c.rows, &c.z, &mut out);
            out
        })
        .collect();
    parts.into_iter().fold(vec![0.0; n_cols], |mut total, part| {
        add(&mut total, &part);
        total
    })
}

/// Takes the step, then weighs the rows anew.
fn gram_pass(chunks: &mut [Chunk<'_>], n_cols: usize, t: f64, [dual, primal]: [f64; 2]) -> Normals {
    let visit = |c: &mut Chunk<'_>| {
        let mut out = Normals { gram: vec![0.0; n_cols * n_cols], right: vec![0.0; n_cols], gap: 0.0, loss: 0.0 };
        let mut buffer = Tilewise::new();
        for (tile, rows) in c.rows.chunks(TILE_ROWS * n_cols).enumerate() {
            let from = tile * TILE_ROWS;
            let n = rows.len() / n_cols;
            let range = from..from + n;
            let (z, w) = (&mut c.z[range.clone()], &mut c.w[range.clone()]);
            let (s, v) = (&mut c.s[range.clone()], &mut c.v[range.clone()]);
            let (dz, dv, ds) = (&c.dz[range.clone()], &c.dv[range.clone()], &c.ds[range]);
            let (d, db) = (&mut buffer.a[..n], &mut buffer.b[..n]);
            for i in 0..n {
                z[i] += dual * dz[i];
                w[i] -= dual * dz[i];
                s[i] += primal * ds[i];
                v[i] += primal * dv[i];
                out.gap += z[i] * v[i] + w[i] * s[i];
                out.loss += (z[i] + w[i]) * (t * s[i] + (1.0 - t) * v[i]);
                let below = v[i] * w[i] + s[i] * z[i];
                // A row of weight zero has z = w = 0 and takes no part.
                d[i] = if below > 0.0 { z[i] * w[i] / below } else { 0.0 };
                db[i] = d[i] * (s[i] - v[i]);
            }
            gram::add_weighted_gram(rows, n_cols, d, &mut out.gram);
            apply::add_tr_mul_vec(rows, db, &mut out.right);
        }
        out
    };
    reduce(chunks, visit, |total, part| {
        add(&mut total.gram, &part.gram);
        add(&mut total.right, &part.right);
        total.gap += part.gap;
        total.loss += part.loss;
    })
    .unwrap_or(Normals { gram: vec![0.0; n_cols * n_cols], right: vec![0.0; n_cols], gap: 0.0, loss: 0.0 })
}

/// The coefficients `x` as a multiplier of rows that still carry the target.
fn fitted(x: &[f64]) -> Vec<f64> {
    x.iter().copied().chain([0.0]).collect()
}

fn predictor_pass(chunks: &mut [Chunk<'_>], n_cols: usize, x: &[f64]) -> Direction {
    let x = fitted(x);
    let visit = |c: &mut Chunk<'_>| {
        let mut out = Direction::new(n_cols);
        let mut buffer = Tilewise::new();
        for (tile, rows) in c.rows.chunks(TILE_ROWS * n_cols).enumerate() {
            let from = tile * TILE_ROWS;
            let n = rows.len() / n_cols;
            let range = from..from + n;
            let (z, w, s, v) = (&c.z[range.clone()], &c.w[range.clone()], &c.s[range.clone()], &c.v[range.clone()]);
            let (ev, es) = (&mut c.dv[range.clone()], &mut c.ds[range]);
            let (fit, linear, constant) = (&mut buffer.a[..n], &mut buffer.b[..n], &mut buffer.c[..n]);
            apply::mul_vec(rows, &x, fit);
            for i in 0..n {
                let below = v[i] * w[i] + s[i] * z[i];
                let inverse = if below > 0.0 { below.recip() } else { 0.0 };
                let dz = z[i] * w[i] * inverse * (s[i] - v[i] - fit[i]);
                let (to_z, to_w) = if below > 0.0 { (dz / z[i], dz / w[i]) } else { (0.0, 0.0) };
                let (dv, ds) = (-v[i] - v[i] * to_z, -s[i] + s[i] * to_w);
                out.dual_block = out.dual_block.max(to_w.max(-to_z));
                out.primal_block = out.primal_block.max((1.0 + to_z).max(1.0 - to_w));
                out.bilinear[0] += dz * (v[i] - s[i]);
                out.bilinear[1] += z[i] * dv + w[i] * ds;
                out.bilinear[2] += dz * (dv - ds);
                linear[i] = (w[i] - z[i]) * inverse;
                constant[i] = -dz * (dv * w[i] + ds * z[i]) * inverse;
                (ev[i], es[i]) = (to_z * dv, to_w * ds);
            }
            apply::add_tr_mul_vec(rows, linear, &mut out.right[0]);
            apply::add_tr_mul_vec(rows, constant, &mut out.right[1]);
            apply::add_tr_mul_vec(rows, z, &mut out.right[2]);
        }
        out
    };
    reduce(chunks, visit, Direction::merge).unwrap_or_else(|| Direction::new(n_cols))
}

fn corrector_pass(chunks: &mut [Chunk<'_>], n_cols: usize, x: &[f64], mu: f64, whole: f64) -> Direction {
    let x = fitted(x);
    let visit = |c: &mut Chunk<'_>| {
        let mut out = Direction::new(0);
        let mut buffer = Tilewise::new();
        for (tile, rows) in c.rows.chunks(TILE_ROWS * n_cols).enumerate() {
            let from = tile * TILE_ROWS;
            let n = rows.len() / n_cols;
            let range = from..from + n;
            let (z, w, s, v) = (&c.z[range.clone()], &c.w[range.clone()], &c.s[range.clone()], &c.v[range.clone()]);
            let (dz, dv, ds) = (&mut c.dz[range.clone()], &mut c.dv[range.clone()], &mut c.ds[range]);
            let fit = &mut buffer.a[..n];
            apply::mul_vec(rows, &x, fit);
            for i in 0..n {
                let below = v[i] * w[i] + s[i] * z[i];
                if below > 0.0 {
                    let (over_z, over_w) = (z[i].recip(), w[i].recip());
                    let (cv, cs) = (mu * over_z - whole * dv[i], mu * over_w + whole * ds[i]);
                    dz[i] = z[i] * w[i] / below * (s[i] - v[i] - fit[i] - cs + cv);
                    dv[i] = -v[i] - v[i] * over_z * dz[i] + cv;
                    ds[i] = -s[i] + s[i] * over_w * dz[i] + cs;
                    out.dual_block = out.dual_block.max((dz[i] * over_w).max(-dz[i] * over_z));
                    out.primal_block = out.primal_block.max((-dv[i] / v[i]).max(-ds[i] / s[i]));
                } else {
                    (dz[i], dv[i], ds[i]) = (0.0, 0.0, 0.0);
                }
            }
        }
        out
    };
    reduce(chunks, visit, Direction::merge).unwrap_or_else(|| Direction::new(0))
}

impl Direction {
    fn new(n_cols: usize) -> Self {
        Self {
            dual_block: 0.0,
            primal_block: 0.0,
            bilinear: [0.0; 3],
            right: std::array::from_fn(|_| vec![0.0; n_cols]),
        }
    }

    fn merge(&mut self, part: Self) {
        self.dual_block = self.dual_block.max(part.dual_block);
        self.primal_block = self.primal_block.max(part.primal_block);
        add(&mut self.bilinear, &part.bilinear);
        self.right.iter_mut().zip(&part.right).for_each(|(t, p)| add(t, p));
    }
}

/// The objective at `x` and the dual value `yᵀ (b − A x)`, `y = z − (1 − t) u` (equal to `bᵀ y`, as `Aᵀ y = 0`); zero if
/// `Aᵀ z` has drifted from `balance`.
fn certify(chunks: &[Chunk<'_>], x: &[f64], t: f64, balance: &[f64]) -> (f64, f64) {
    let (x, n_cols) = (fitted(x), x.len() + 1);
    struct Sums {
        objective: f64,
        dual: f64,
        columns: Vec<f64>,
        sizes: Vec<f64>,
    }
    let parts: Vec<Sums> = chunks
        .par_iter()
        .map(|c| {
            let mut fit = vec![0.0; c.target.len()];
            apply::mul_vec(c.rows, &x, &mut fit);
            let mut sums = Sums { objective: 0.0, dual: 0.0, columns: vec![0.0; n_cols], sizes: vec![0.0; n_cols] };
            apply::add_tr_mul_vec(c.rows, &c.z, &mut sums.columns);
            for (i, row) in c.rows.chunks_exact(n_cols).enumerate() {
                let (r, u) = (c.target[i] - fit[i], c.weight(i));
                sums.objective += u * (t * r).max((t - 1.0) * r);
                sums.dual += (c.z[i] - (1.0 - t) * u) * r;
                sums.sizes.iter_mut().zip(row).for_each(|(s, a)| *s += u * a.abs());
            }
            sums
        })
        .collect();
    let mut total = Sums { objective: 0.0, dual: 0.0, columns: vec![0.0; n_cols], sizes: vec![0.0; n_cols] };
    for part in &parts {
        total.objective += part.objective;
        total.dual += part.dual;
        add(&mut total.columns, &part.columns);
        add(&mut total.sizes, &part.sizes);
    }
    let drifted = (0..n_cols - 1).any(|j| (total.columns[j] - balance[j]).abs() > BALANCED * total.sizes[j]);
    (total.objective, if drifted { 0.0 } else { total.dual })
}

/// Share of `Σ u |a|` up to which `Aᵀ z` counts as balanced.
const BALANCED: f64 = 1e-10;
