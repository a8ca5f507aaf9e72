//! l_p sensitivities `σ(a) = sup |a·x|^p / ‖Ax‖_p^p`, each between two bounds that are certified, not estimated.
//!
//! One convex problem per row: `1/σ = min ‖Ax‖_p^p` subject to `a·x = 1`. Any `x` bounds `σ` from below, any `Y` with `AᵀY = λa`
//! from above (Hölder). The problem is posed against the whole table, or against a weighted coreset of it: weights multiply the
//! loss, so row `i` enters as `uᵢ^(1/p) aᵢ`. If the coreset's distortion is `ε`, `σ` against the table is at most `1 + ε` times
//! the upper bound against the coreset: that bound is conditional on `ε`.

mod blocks;
mod interior;
mod irls;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use subspan_linalg::{Mat, Whitener, apply};

use crate::draw::Stream;
use crate::error::{Error, Result};
use crate::observe::{Event, Observer, Silent};
use crate::rows::check_finite;
use crate::sample::certificate::WeightedTable;
use crate::sample::power::norm;
pub use blocks::DEFAULT_FAILURE;

/// Two bounds on a sensitivity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Attained by some `x`.
    pub lower: f64,
    /// No `x` exceeds it. Safe as a sampling score.
    pub upper: f64,
    /// Least-squares solves spent.
    pub iterations: usize,
}

/// `upper/lower − 1` at which a solve stops, unless told otherwise.
pub const DEFAULT_TOLERANCE: f64 = 1e-6;

/// A row whose distance from the span of the table is below this part of its length is taken to be in it.
const SPAN_TOLERANCE: f64 = 1e-10;

/// Mapping a row to the span and back loses about this many roundings per column, times the condition number.
const SPAN_ROUNDING: f64 = 16.0;

/// Bounds the sensitivities of rows against one table or weighted coreset.
///
/// ```
/// use subspan::sample::SensitivitySolver;
/// // Two copies of e₁ and one of e₂: each copy carries half of what e₁ sees.
/// let rows = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
/// let solver = SensitivitySolver::new(&rows, 2, None, 3.0).unwrap();
/// let bounds = solver.bounds(&[1.0, 0.0]).unwrap();
/// assert!(bounds.lower <= bounds.upper && (bounds.upper - 0.5).abs() < 1e-5);
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SensitivitySolver {
    p: f64,
    tolerance: f64,
    /// Powers of two that bring every column to size one.
    column_scale: Vec<f64>,
    whitener: Whitener,
    span: Option<Span>,
    /// The weighted, column-scaled, whitened non-zero rows: orthonormal columns.
    rows: Mat,
}

/// Tells whether a row lies in the row span of a rank-deficient table.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Span {
    /// `MᵀA`, `r x d`: maps a whitened row back.
    back: Mat,
    /// Column norms.
    norms: Vec<f64>,
    /// Relative residual above which a row is outside.
    tolerance: f64,
}

impl SensitivitySolver {
    /// A solver against `rows` (whole rows of `n_cols`) whose losses `|aᵢx|^p` are multiplied by `weights` (ones if `None`).
    ///
    /// Cost: one Gram matrix and one product of the rows with a `d x d` factor.
    ///
    /// # Errors
    /// `p` not in `[1, ∞)`, no rows or columns, a ragged array, a non-finite value, a weight that is negative or not finite,
    /// [`Error::AllZero`].
    pub fn new(rows: &[f64], n_cols: usize, weights: Option<&[f64]>, p: f64) -> Result<Self> {
        if !(p >= 1.0 && p.is_finite()) {
            return Err(Error::parameter("p", p, "a finite number, at least 1"));
        }
        let n = check_rows(rows, n_cols)?;
        if let Some(weights) = weights {
            check_weights(weights, n)?;
        }
        let mut largest = vec![0.0f64; n_cols];
        for row in rows.chunks_exact(n_cols) {
            largest.iter_mut().zip(row).for_each(|(m, a)| *m = m.max(a.abs()));
        }
        let column_scale: Vec<f64> = largest.iter().map(|m| power_of_two_over(*m)).collect();
        let mut scaled = Vec::with_capacity(rows.len());
        for (i, row) in rows.chunks_exact(n_cols).enumerate() {
            let u = weights.map_or(1.0, |w| w[i].powf(p.recip()));
            if u > 0.0 && row.iter().any(|a| *a != 0.0) {
                scaled.extend(row.iter().zip(&column_scale).map(|(a, s)| a * s * u));
            }
        }
        if scaled.is_empty() {
            return Err(Error::AllZero);
        }
        let m = scaled.len() / n_cols;
        let whitener = WeightedTable::new(&scaled, n_cols, None)?.whitened()?;
        let mut whitened = Mat::zeros(m, whitener.rank);
        apply::map_rows(&scaled, &whitener.factor, whitened.as_mut_slice());
        let span = (whitener.rank < n_cols).then(|| {
            let scaled = Mat::from_vec(m, n_cols, scaled);
            Span {
                norms: (0..n_cols).map(|j| norm(&scaled.col(j), 2.0)).collect(),
                back: whitened.transpose().mul(&scaled),
                tolerance: (SPAN_ROUNDING * n_cols as f64 * f64::EPSILON * whitener.condition).max(SPAN_TOLERANCE),
            }
        });
        Ok(Self { p, tolerance: DEFAULT_TOLERANCE, column_scale, whitener, span, rows: whitened })
    }

    /// Stops each solve at `upper/lower ≤ 1 + tolerance` instead of the default.
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Bounds the sensitivity of `row`, a row of the table that the solver's rows are or stand for.
    ///
    /// Such a sensitivity is at most one, so the bounds are cut there. A row outside the span of the solver's rows has both
    /// bounds one: some `x` sees only that row. A zero row has sensitivity zero.
    ///
    /// Cost: `iterations` times a weighted Gram of the solver's rows (`m d²`); one product with a `d x d` factor for `p = 2`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NonFinite`].
    pub fn bounds(&self, row: &[f64]) -> Result<Bounds> {
        if row.len() != self.column_scale.len() {
            return Err(Error::Shape { what: "the row", found: row.len(), expected: self.column_scale.len() });
        }
        check_finite(row, row.len(), 0)?;
        let scaled: Vec<f64> = row.iter().zip(&self.column_scale).map(|(a, s)| a * s).collect();
        if scaled.iter().all(|a| *a == 0.0) {
            return Ok(Bounds { lower: 0.0, upper: 0.0, iterations: 0 });
        }
        let outside = Bounds { lower: 1.0, upper: 1.0, iterations: 0 };
        let mut a = vec![0.0; self.whitener.rank];
        apply::map_rows(&scaled, &self.whitener.factor, &mut a);
        let size = norm(&a, 2.0);
        if !size.is_finite() || self.span.as_ref().is_some_and(|span| !span.contains(&scaled, &a)) {
            return Ok(outside);
        }
        if size == 0.0 {
            return Ok(Bounds { lower: 0.0, upper: 0.0, iterations: 0 });
        }
        if self.p == 2.0 {
            let leverage = (size * size).min(1.0);
            return Ok(Bounds { lower: leverage, upper: leverage, iterations: 0 });
        }
        a.iter_mut().for_each(|v| *v /= size);
        let ratio = if self.p == 1.0 {
            interior::solve(&self.rows, &a, self.tolerance)
        } else {
            irls::solve(&self.rows, &a, self.p, self.tolerance)
        };
        let lower = (size * ratio.lower).powf(self.p).min(1.0);
        let upper = (size * ratio.upper).powf(self.p).min(1.0);
        // Rounding may cross two bounds that have met.
        Ok(Bounds { lower: lower.min(upper), upper, iterations: ratio.iterations })
    }

    /// [`bounds`](Self::bounds) of every row of `rows`, in parallel; the result does not depend on the number of threads.
    ///
    /// # Errors
    /// As [`bounds`](Self::bounds), for the first bad row; [`Error::Cancelled`].
    pub fn par_bounds(&self, rows: &[f64], observer: &dyn Observer) -> Result<Vec<Bounds>> {
        let d = self.column_scale.len();
        check_rows(rows, d)?;
        rows.par_chunks_exact(d)
            .map(|row| {
                if observer.cancelled() {
                    return Err(Error::Cancelled);
                }
                let bounds = self.bounds(row);
                observer.event(Event::Advance { steps: 1 });
                bounds
            })
            .collect()
    }

    /// Estimates the total sensitivity `S` from the upper bounds of a few rows.
    ///
    /// `rows` with `weights` (ones if `None`) stand for the table: row `j` counts `weights[j]` times. Rows are drawn with
    /// probability proportional to `proposal` (Lewis weights times `weights`, say; positive wherever the sensitivity is), with
    /// replacement. When no more rows than `draws` have a positive proposal, all of them are solved and the total is exact.
    ///
    /// # Errors
    /// As [`bounds`](Self::bounds); [`Error::Shape`]; [`Error::Parameter`] if `draws` is below 2 or the proposal has no positive
    /// finite sum.
    pub fn estimate_total(
        &self,
        rows: &[f64],
        weights: Option<&[f64]>,
        proposal: &[f64],
        draws: usize,
        seed: u64,
        observer: &dyn Observer,
    ) -> Result<TotalSensitivity> {
        let d = self.column_scale.len();
        let n = check_rows(rows, d)?;
        check_weights(proposal, n)?;
        if let Some(weights) = weights {
            check_weights(weights, n)?;
        }
        if draws < 2 {
            return Err(Error::parameter("draws", draws, "at least 2"));
        }
        let weight = |i: usize| weights.map_or(1.0, |w| w[i]);
        let mut running = 0.0;
        let cumulative: Vec<f64> = proposal
            .iter()
            .map(|g| {
                running += g;
                running
            })
            .collect();
        if !(running > 0.0 && running.is_finite()) {
            return Err(Error::parameter("the proposal's sum", running, "positive and finite"));
        }
        let positive: Vec<usize> = (0..n).filter(|i| proposal[*i] > 0.0).collect();
        let exhaustive = positive.len() <= draws;
        let chosen: Vec<usize> = if exhaustive {
            positive
        } else {
            let stream = Stream::new(seed, "total sensitivity");
            (0..draws as u64)
                .map(|k| cumulative.partition_point(|c| *c <= stream.uniform(k) * running).min(n - 1))
                .collect()
        };
        let picked: Vec<f64> = chosen.iter().flat_map(|i| rows[i * d..(i + 1) * d].iter().copied()).collect();
        let bounds = self.par_bounds(&picked, observer)?;
        let terms = chosen.iter().zip(&bounds).map(|(i, b)| b.upper * weight(*i));
        if exhaustive {
            return Ok(TotalSensitivity { total: terms.sum(), standard_error: 0.0, rows: chosen.len() });
        }
        let terms: Vec<f64> = terms.zip(&chosen).map(|(t, i)| t * running / proposal[*i]).collect();
        let k = draws as f64;
        let total = terms.iter().sum::<f64>() / k;
        let variance = terms.iter().map(|t| (t - total).powi(2)).sum::<f64>() / (k - 1.0);
        Ok(TotalSensitivity { total, standard_error: (variance / k).sqrt(), rows: draws })
    }
}

/// Rows that [`SensitivitySolver::estimate_total`] solves, unless there is a reason for another number.
pub const DEFAULT_TOTAL_DRAWS: usize = 64;

/// The sum of all sensitivities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TotalSensitivity {
    /// The sum, or its unbiased estimate.
    pub total: f64,
    /// The estimate's standard error; zero when every row was solved.
    pub standard_error: f64,
    /// Rows solved.
    pub rows: usize,
}

/// The sensitivities of all rows of a table in memory, against the table itself. `n` solves of `n d²` flop an iteration.
///
/// # Errors
/// As [`SensitivitySolver::new`].
///
/// ```
/// // A row alone in its direction is seen in full.
/// let s = subspan::sample::sensitivities(&[1.0, 0.0, 1.0, 0.0, 0.0, 3.0], 2, 1.0).unwrap();
/// assert!((s[0].upper - 0.5).abs() < 1e-5 && (s[2].upper - 1.0).abs() < 1e-5);
/// ```
pub fn sensitivities(rows: &[f64], n_cols: usize, p: f64) -> Result<Vec<Bounds>> {
    SensitivitySolver::new(rows, n_cols, None, p)?.par_bounds(rows, &Silent)
}

impl Span {
    /// `scaled`: the row with its columns scaled; `whitened`: its image under the factor.
    fn contains(&self, scaled: &[f64], whitened: &[f64]) -> bool {
        let mut back = vec![0.0; scaled.len()];
        apply::add_tr_mul_vec(self.back.as_slice(), whitened, &mut back);
        let (mut residual, mut size) = (0.0, 0.0);
        for ((a, b), norm) in scaled.iter().zip(&back).zip(&self.norms) {
            if *norm == 0.0 {
                if *a != 0.0 {
                    return false;
                }
                continue;
            }
            residual += ((a - b) / norm).powi(2);
            size += (a / norm).powi(2);
        }
        residual.sqrt() <= self.tolerance * size.sqrt()
    }
}

/// The power of two that brings `size` to `[1, 2)`, within the exponents that cannot overflow; one for zero.
fn power_of_two_over(size: f64) -> f64 {
    if size == 0.0 { 1.0 } else { 2f64.powi(-(size.log2().floor().clamp(-1020.0, 1020.0) as i32)) }
}

fn check_rows(rows: &[f64], n_cols: usize) -> Result<usize> {
    crate::rows::DenseRows::new(rows, n_cols)?;
    Ok(rows.len() / n_cols)
}

fn check_weights(weights: &[f64], n: usize) -> Result<()> {
    if weights.len() != n {
        return Err(Error::Shape { what: "the weights", found: weights.len(), expected: n });
    }
    match weights.iter().find(|w| !(**w >= 0.0 && w.is_finite())) {
        Some(w) => Err(Error::parameter("a weight", w, "finite and not negative")),
        None => Ok(()),
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;
