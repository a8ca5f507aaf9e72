//! The passes of the smooth losses: what a table says about one place, about several steps, about its largest residual.

use serde::{Deserialize, Serialize};
use subspan_linalg::{apply, gram};

use super::smooth::{DualSums, SmoothLoss};
use super::table::{TILE_ROWS, Table, Tile, TilePass};
use crate::error::Result;

/// What a pass finds at `x + step · dx`, and about the dual point of `(x, dx)`.
#[derive(Serialize, Deserialize)]
pub(super) struct Evaluation {
    pub(super) loss: f64,
    /// `Σ g a`, the target's column last.
    pub(super) slope: Vec<f64>,
    /// Upper triangle of `Σ h [a, b] [a, b]ᵀ`; empty if not asked for.
    pub(super) gram: Vec<f64>,
    pub(super) dual: DualSums,
    /// `Aᵀ y` of the dual point and `Σ |y a|`, which rounding in it is measured by; empty if not asked for.
    pub(super) balance: [Vec<f64>; 2],
    pub(super) smallest_margin: f64,
}

/// Which curvature of the loss a Gram matrix is made of.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum Curvature {
    None,
    Cautious(f64),
    /// [`SmoothLoss::trimmed`] for the direction `trim` of the pass.
    Trimmed,
}

/// Where a pass evaluates.
#[derive(Clone, Copy)]
pub(super) struct Along<'a> {
    pub(super) x: &'a [f64],
    pub(super) dx: &'a [f64],
    pub(super) step: f64,
    /// The curvature that `dx` was made of, for its dual point.
    pub(super) dual: Curvature,
    /// The curvature of the Gram matrix at `x + step · dx`.
    pub(super) gram: Curvature,
    /// Directions to trim for: the largest move of each predictor counts. The dual point was trimmed for all but the last.
    pub(super) trim: &'a [Vec<f64>],
    /// Whether to collect `balance`: a singular system does not guarantee `Aᵀ y = K (x + dx)`.
    pub(super) check: bool,
}

/// Newton's curvature, with just enough of the majorant that it is never singular where the majorant is not.
pub(super) const CONFIDENT: f64 = 1e-4;

/// The coefficients as a multiplier of rows that still carry the target.
fn fitted(x: &[f64]) -> Vec<f64> {
    x.iter().copied().chain([0.0]).collect()
}

impl<'a> Along<'a> {
    /// At `x` itself, without a dual point.
    pub(super) fn at(x: &'a [f64], zero: &'a [f64], gram: Curvature) -> Self {
        Self { x, dx: zero, step: 0.0, dual: Curvature::None, gram, trim: &[], check: false }
    }
}

pub(super) fn evaluate<L: SmoothLoss>(table: &impl Table, loss: &L, along: &Along<'_>) -> Result<Evaluation> {
    let Along { step, dual, gram, check, .. } = *along;
    let trim = along.trim.iter().map(|d| fitted(d)).collect();
    table.pass(Evaluate { loss: loss.clone(), x: fitted(along.x), dx: fitted(along.dx), step, dual, gram, trim, check })
}

/// The pass of [`evaluate`]: an [`Along`] of its own, the vectors with a zero for the target.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Evaluate<L: SmoothLoss> {
    loss: L,
    x: Vec<f64>,
    dx: Vec<f64>,
    step: f64,
    dual: Curvature,
    gram: Curvature,
    trim: Vec<Vec<f64>>,
    check: bool,
}

impl<L: SmoothLoss> Evaluate<L> {
    fn curvature(&self, kind: Curvature, eta: f64, trim: f64, b: f64, u: f64) -> [f64; 3] {
        match kind {
            Curvature::None => [0.0; 3],
            Curvature::Cautious(caution) => self.loss.at(eta, b, u, caution),
            Curvature::Trimmed => {
                let [l, g, _] = self.loss.at(eta, b, u, CONFIDENT);
                [l, g, self.loss.trimmed(eta, trim, b, u)]
            }
        }
    }
}

impl<L: SmoothLoss> TilePass for Evaluate<L> {
    const NAME: &'static str = L::PASSES[0];
    type State = Evaluation;

    fn start(&self, n_cols: usize) -> Evaluation {
        let vector = |wanted: bool| vec![0.0; if wanted { n_cols } else { 0 }];
        Evaluation {
            loss: 0.0,
            slope: vec![0.0; n_cols],
            gram: if self.gram == Curvature::None { Vec::new() } else { vec![0.0; n_cols * n_cols] },
            dual: DualSums { linear: 0.0, conjugate: 0.0, largest: 0.0, infeasible: false },
            balance: [vector(self.check), vector(self.check)],
            smallest_margin: f64::INFINITY,
        }
    }

    fn step(&self, out: &mut Evaluation, Tile { rows, weights, .. }: Tile<'_>) {
        let (n, n_cols) = (weights.len(), self.x.len());
        let with_gram = self.gram != Curvature::None;
        let with_dual = self.dual != Curvature::None;
        let [mut eta, mut d_eta, mut trims, mut trims_before, mut slope, mut weight, mut y] = [[0.0; TILE_ROWS]; 7];
        apply::mul_vec(rows, &self.x, &mut eta[..n]);
        if with_dual || self.step != 0.0 {
            apply::mul_vec(rows, &self.dx, &mut d_eta[..n]);
        }
        for direction in &self.trim {
            trims_before = trims;
            apply::mul_vec(rows, direction, &mut y[..n]);
            trims.iter_mut().zip(&y[..n]).for_each(|(t, m)| *t = t.max(m.abs()));
        }
        for i in 0..n {
            let (b, u) = (rows[(i + 1) * n_cols - 1], weights[i]);
            if with_dual {
                let [_, g, h] = self.curvature(self.dual, eta[i], trims_before[i], b, u);
                y[i] = g - h * d_eta[i];
                self.loss.add_dual(&mut out.dual, eta[i] + d_eta[i], b, u, y[i]);
            }
            let next = eta[i] + self.step * d_eta[i];
            let kind = if with_gram { self.gram } else { Curvature::Cautious(1.0) };
            let [l, g, h] = self.curvature(kind, next, trims[i], b, u);
            out.loss += l;
            out.smallest_margin = out.smallest_margin.min(if b > 0.5 { next } else { -next });
            (slope[i], weight[i]) = (g, h);
        }
        apply::add_tr_mul_vec(rows, &slope[..n], &mut out.slope);
        if self.check {
            let [balance, size] = &mut out.balance;
            apply::add_tr_mul_vec(rows, &y[..n], balance);
            for (row, y) in rows.chunks_exact(n_cols).zip(&y) {
                size.iter_mut().zip(row).for_each(|(s, a)| *s += (a * y).abs());
            }
        }
        if with_gram {
            gram::add_weighted_gram(rows, n_cols, &weight[..n], &mut out.gram);
        }
    }

    fn merge(&self, total: &mut Evaluation, part: Evaluation) {
        let add = |total: &mut [f64], part: &[f64]| total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
        total.loss += part.loss;
        add(&mut total.slope, &part.slope);
        add(&mut total.gram, &part.gram);
        total.balance.iter_mut().zip(&part.balance).for_each(|(t, p)| add(t, p));
        total.dual.linear += part.dual.linear;
        total.dual.conjugate += part.dual.conjugate;
        total.dual.largest = total.dual.largest.max(part.dual.largest);
        total.dual.infeasible |= part.dual.infeasible;
        total.smallest_margin = total.smallest_margin.min(part.smallest_margin);
    }
}

/// The losses at `x + step · dx` for several steps, in one pass.
pub(super) fn losses<L: SmoothLoss>(
    table: &impl Table,
    loss: &L,
    x: &[f64],
    dx: &[f64],
    steps: &[f64],
) -> Result<Vec<f64>> {
    table.pass(Losses { loss: loss.clone(), x: fitted(x), dx: fitted(dx), steps: steps.to_vec() })
}

/// The pass of [`losses`].
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Losses<L: SmoothLoss> {
    loss: L,
    x: Vec<f64>,
    dx: Vec<f64>,
    steps: Vec<f64>,
}

impl<L: SmoothLoss> TilePass for Losses<L> {
    const NAME: &'static str = L::PASSES[1];
    type State = Vec<f64>;

    fn start(&self, _: usize) -> Vec<f64> {
        vec![0.0; self.steps.len()]
    }

    fn step(&self, out: &mut Vec<f64>, Tile { rows, weights, .. }: Tile<'_>) {
        let (n, n_cols) = (weights.len(), self.x.len());
        let [mut eta, mut d_eta] = [[0.0; TILE_ROWS]; 2];
        apply::mul_vec(rows, &self.x, &mut eta[..n]);
        apply::mul_vec(rows, &self.dx, &mut d_eta[..n]);
        for (out, step) in out.iter_mut().zip(&self.steps) {
            for i in 0..n {
                *out += self.loss.at(eta[i] + step * d_eta[i], rows[(i + 1) * n_cols - 1], weights[i], 1.0)[0];
            }
        }
    }

    fn merge(&self, total: &mut Vec<f64>, part: Vec<f64>) {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
}

/// The largest residual `|b − η|` at `x`.
pub(super) fn largest_residual(table: &impl Table, x: &[f64]) -> Result<f64> {
    table.pass(LargestResidual { x: fitted(x) })
}

/// The pass of [`largest_residual`].
#[derive(Serialize, Deserialize)]
pub(super) struct LargestResidual {
    x: Vec<f64>,
}

impl TilePass for LargestResidual {
    const NAME: &'static str = "largest-residual";
    type State = f64;

    fn start(&self, _: usize) -> f64 {
        0.0
    }

    fn step(&self, out: &mut f64, Tile { rows, weights, .. }: Tile<'_>) {
        let (n, n_cols) = (weights.len(), self.x.len());
        let mut eta = [0.0; TILE_ROWS];
        apply::mul_vec(rows, &self.x, &mut eta[..n]);
        for i in 0..n {
            *out = out.max((rows[(i + 1) * n_cols - 1] - eta[i]).abs());
        }
    }

    fn merge(&self, total: &mut f64, part: f64) {
        *total = total.max(part);
    }
}
