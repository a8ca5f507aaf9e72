//! Exact quantile regression from few rows: rows whose residual keeps its sign are added up into two ("globbed").
//!
//! Given coefficients near the optimum, the rows are split into MID (small residuals for their leverage) and the rest, by
//! sign, LO and HI. The pinball loss is sub-additive, `ρ(Σ r) ≤ Σ ρ(r)`, so the problem on MID and the two sums has an optimum
//! **at most** that of all rows, for any split: its dual value is a rigorous lower bound. It equals the full optimum once all
//! signs of LO and HI are right (Portnoy and Koenker, Statistical Science 1997; the bound is derived in the method note,
//! section 3.6).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use subspan_linalg::{Mat, apply, apply::RowFactor, cholesky};

use super::condition::{Basis, Design};
use super::solve::{self, Solved};
use super::table::{StreamTable, TILE_ROWS, Table, Tile, TilePass};
use crate::error::Result;
use crate::observe::Observer;

/// How the rows of one quantile's problem are split: `a` is MID iff `(b − a·x)² ≤ threshold² · ‖factorᵀ a‖²`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Split {
    pub(super) level: f64,
    pub(super) coefficients: Vec<f64>,
    pub(super) threshold: f64,
}

/// The rows of a split.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Groups {
    /// Pinball loss of all rows at the split's coefficients.
    pub(super) objective: f64,
    /// MID rows `[a, b]`, and their global indices, increasing unless rows were moved in.
    pub(super) mid: Vec<f64>,
    pub(super) mid_ids: Vec<u64>,
    /// Sums of the rows with negative and with positive residual, and how many they are.
    pub(super) sums: [Vec<f64>; 2],
    pub(super) counts: [u64; 2],
}

/// Splits all rows, for several quantiles in one pass. Cost: `n (d² + 6 d)` flop; memory: the MID rows.
///
/// # Errors
/// What the source reports.
pub(super) fn split(table: &StreamTable<'_>, spread_of: &Spread, splits: &[Split]) -> Result<Vec<Groups>> {
    let fits = splits.iter().map(|s| residual_fit(&s.coefficients)).collect();
    table.pass(Splitting { spread: spread_of.0.clone(), splits: splits.to_vec(), fits })
}

/// The pass of [`split`].
#[derive(Serialize, Deserialize)]
pub(super) struct Splitting {
    spread: RowFactor,
    splits: Vec<Split>,
    /// Per split: what maps a row to its residual.
    fits: Vec<Vec<f64>>,
}

impl TilePass for Splitting {
    const NAME: &'static str = "split";
    type State = Vec<Groups>;

    fn start(&self, n_cols: usize) -> Vec<Groups> {
        let empty = Groups {
            objective: 0.0,
            mid: Vec::new(),
            mid_ids: Vec::new(),
            sums: [vec![0.0; n_cols], vec![0.0; n_cols]],
            counts: [0; 2],
        };
        vec![empty; self.splits.len()]
    }

    fn step(&self, groups: &mut Vec<Groups>, Tile { rows, weights, ids }: Tile<'_>) {
        let n = weights.len();
        let [mut r, mut spread, mut low, mut high] = [[0.0; TILE_ROWS]; 4];
        self.spread.norms_sq(rows, &mut spread[..n]);
        for ((split, fit), group) in self.splits.iter().zip(&self.fits).zip(groups) {
            apply::mul_vec(rows, fit, &mut r[..n]);
            let (t, n_cols) = (split.level, fit.len());
            let limit = split.threshold * split.threshold;
            for i in 0..n {
                group.objective += (t * r[i]).max((t - 1.0) * r[i]);
                let mid = r[i] * r[i] <= limit * spread[i];
                low[i] = f64::from(u8::from(!mid && r[i] < 0.0));
                high[i] = f64::from(u8::from(!mid && r[i] >= 0.0));
                if mid {
                    group.mid.extend_from_slice(&rows[i * n_cols..(i + 1) * n_cols]);
                    group.mid_ids.push(ids.at(i));
                }
            }
            for (side, members) in [&low, &high].into_iter().enumerate() {
                group.counts[side] += members[..n].iter().sum::<f64>() as u64;
                apply::add_tr_mul_vec(rows, &members[..n], &mut group.sums[side]);
            }
        }
    }

    fn merge(&self, total: &mut Vec<Groups>, part: Vec<Groups>) {
        for (total, part) in total.iter_mut().zip(part) {
            total.objective += part.objective;
            total.mid.extend_from_slice(&part.mid);
            total.mid_ids.extend_from_slice(&part.mid_ids);
            for side in 0..2 {
                total.sums[side].iter_mut().zip(&part.sums[side]).for_each(|(t, p)| *t += p);
                total.counts[side] += part.counts[side];
            }
        }
    }
}

/// What all rows say about new coefficients of a split problem.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Verdict {
    /// Pinball loss of all rows.
    pub(super) objective: f64,
    /// Rows of LO and HI whose residual changed sign, with their side and global index.
    pub(super) wrong: Vec<f64>,
    pub(super) wrong_ids: Vec<(u64, usize)>,
}

/// Checks new coefficients of several splits in one pass of `4 n d` flop each.
///
/// # Errors
/// What the source reports.
pub(super) fn check(table: &StreamTable<'_>, pairs: &[(&Split, &Groups, &[f64])]) -> Result<Vec<Verdict>> {
    let candidates = pairs
        .iter()
        .map(|(split, groups, x)| Candidate {
            level: split.level,
            before: residual_fit(&split.coefficients),
            after: residual_fit(x),
            mid_ids: groups.mid_ids.clone(),
        })
        .collect();
    table.pass(Checking { candidates })
}

/// The pass of [`check`].
#[derive(Serialize, Deserialize)]
pub(super) struct Checking {
    candidates: Vec<Candidate>,
}

/// New coefficients of a split problem; both fits map a row to its residual.
#[derive(Serialize, Deserialize)]
struct Candidate {
    level: f64,
    before: Vec<f64>,
    after: Vec<f64>,
    mid_ids: Vec<u64>,
}

impl TilePass for Checking {
    const NAME: &'static str = "check";
    type State = Vec<Verdict>;

    fn start(&self, _: usize) -> Vec<Verdict> {
        vec![Verdict { objective: 0.0, wrong: Vec::new(), wrong_ids: Vec::new() }; self.candidates.len()]
    }

    fn step(&self, verdicts: &mut Vec<Verdict>, Tile { rows, weights, ids }: Tile<'_>) {
        let n = weights.len();
        let [mut before, mut after] = [[0.0; TILE_ROWS]; 2];
        for (candidate, verdict) in self.candidates.iter().zip(verdicts) {
            apply::mul_vec(rows, &candidate.before, &mut before[..n]);
            apply::mul_vec(rows, &candidate.after, &mut after[..n]);
            let (t, n_cols) = (candidate.level, candidate.after.len());
            for i in 0..n {
                let r = after[i];
                verdict.objective += (t * r).max((t - 1.0) * r);
                let side = usize::from(before[i] >= 0.0);
                let flipped = if side == 0 { r > 0.0 } else { r < 0.0 };
                if flipped && candidate.mid_ids.binary_search(&ids.at(i)).is_err() {
                    verdict.wrong.extend_from_slice(&rows[i * n_cols..(i + 1) * n_cols]);
                    verdict.wrong_ids.push((ids.at(i), side));
                }
            }
        }
    }

    fn merge(&self, total: &mut Vec<Verdict>, part: Vec<Verdict>) {
        for (total, part) in total.iter_mut().zip(part) {
            total.objective += part.objective;
            total.wrong.extend_from_slice(&part.wrong);
            total.wrong_ids.extend_from_slice(&part.wrong_ids);
        }
    }
}

impl Groups {
    /// Moves rows that `check` found on the wrong side into MID.
    pub(super) fn admit(&mut self, verdict: &Verdict) {
        let n_cols = self.sums[0].len();
        for (row, (id, side)) in verdict.wrong.chunks_exact(n_cols).zip(&verdict.wrong_ids) {
            self.counts[*side] -= 1;
            self.sums[*side].iter_mut().zip(row).for_each(|(s, v)| *s -= v);
            let at = self.mid_ids.partition_point(|other| other < id);
            // Rows are few and MID is large: ids are inserted in order, rows are appended (their order does not matter).
            self.mid_ids.insert(at, *id);
            self.mid.extend_from_slice(row);
        }
    }

    pub(super) fn globbed(&self) -> u64 {
        self.counts[0] + self.counts[1]
    }

    /// Solves the reduced problem: its `lower` bounds the optimum over all rows from below. MID may be a large part of the table:
    /// it is not copied, the two sums stand at its end meanwhile.
    ///
    /// # Errors
    /// As [`solve::pinball`].
    pub(super) fn solve(&mut self, level: f64, tolerance: f64, observer: &dyn Observer) -> Result<Solved> {
        let (n_cols, len) = (self.sums[0].len(), self.mid.len());
        let mut weights = vec![1.0; len / n_cols];
        for (sum, count) in self.sums.iter().zip(self.counts) {
            if count > 0 {
                // The mean row with the weight of all: pinball losses are positively homogeneous.
                self.mid.extend(sum.iter().map(|s| s / count as f64));
                weights.push(count as f64);
            }
        }
        let values = Cow::Borrowed(&self.mid[..]);
        let solved = Design::new(values, n_cols, Some(Cow::Owned(weights)), Basis::Whitened, observer)
            .and_then(|design| solve::pinball(&design, level, 1.0, tolerance, None, observer));
        self.mid.truncate(len);
        solved
    }
}

/// `[−x, 1]`: maps `[a, b]` to `b − a·x`.
fn residual_fit(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| -x).chain([1.0]).collect()
}

/// How uncertain a row's residual is: `‖factorᵀ a‖`, the root of the row's leverage in the pilot.
pub(super) struct Spread(RowFactor);

impl Spread {
    /// From a factor `F` (`d x r`) that whitens the pilot's rows.
    pub(super) fn new(f: &Mat) -> Self {
        let d = f.n_rows();
        // The triangular factor with the same F Fᵀ halves the work: Cholesky in reversed order of the columns.
        let inverse = f.mul(&f.transpose());
        let flipped = Mat::from_fn(d, d, |i, j| inverse[(d - 1 - i, d - 1 - j)]);
        if d > 0
            && f.n_cols() == d
            && let Ok(c) = cholesky(&flipped)
        {
            let l = c.l();
            let factor =
                Mat::from_fn(d + 1, d + 1, |i, j| if i <= j && j < d { l[(d - 1 - i, d - 1 - j)] } else { 0.0 });
            return Self(RowFactor::new(&factor, true));
        }
        Self(RowFactor::new(&Mat::from_fn(d + 1, f.n_cols(), |i, j| if i < d { f[(i, j)] } else { 0.0 }), false))
    }

    /// The threshold that makes the given share of the (weighted) rows MID.
    pub(super) fn threshold(&self, rows: &[f64], weights: &[f64], x: &[f64], share: f64) -> f64 {
        let n = weights.len();
        let (mut r, mut spread) = (vec![0.0; n], vec![0.0; n]);
        apply::mul_vec(rows, &residual_fit(x), &mut r);
        self.0.norms_sq(rows, &mut spread);
        let mut order: Vec<(f64, f64)> = (0..n)
            .map(|i| (if spread[i] > 0.0 { r[i].abs() / spread[i].sqrt() } else { f64::INFINITY }, weights[i]))
            .collect();
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let wanted = share * weights.iter().sum::<f64>();
        let mut mass = 0.0;
        for (ratio, weight) in &order {
            mass += weight;
            if mass >= wanted && ratio.is_finite() {
                return *ratio;
            }
        }
        f64::MAX.sqrt()
    }
}
