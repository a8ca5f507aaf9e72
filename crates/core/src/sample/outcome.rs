//! What a sample is.

use serde::Serialize;
use subspan_linalg::Mat;

use super::{Draw, Rule};

/// A weighted set of rows that stands for a table: `Σ weight |a x|^p ≈ ‖Ax‖_p^p` for every `x` at once.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Positions of the rows in the input, increasing.
    pub row_ids: Vec<u64>,
    /// Probability with which each row was kept, in (0, 1].
    pub probabilities: Vec<f64>,
    /// What multiplies each row's loss `|a x|^p`; exactly 1 for certain rows.
    pub weights: Vec<f64>,
    /// The kept rows, `rows_out x d`, unscaled.
    pub rows: Mat,
    /// The kept rows' original records, as the source encoded them; empty when the source has none.
    pub records: Vec<Box<[u8]>>,
    /// How the sample came about.
    pub summary: Summary,
    /// Its measured distortion; `None` if not asked for.
    pub certificate: Option<Certificate>,
}

/// The figures of a sampling run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The rule used (never `auto`).
    pub rule: Rule,
    /// The norm.
    pub p: f64,
    /// The draw used.
    pub draw: Draw,
    /// Sum of the scores over all rows (the rank, for leverage and Lewis weights).
    pub score_sum: f64,
    /// Rows of the table.
    pub rows_in: u64,
    /// Rows drawn.
    pub rows_out: u64,
    /// Rows asked for.
    pub rows_requested: u64,
    /// Sum of the probabilities.
    pub rows_expected: f64,
    /// Rows kept with probability one.
    pub certain_rows: u64,
    /// Rows that are all zero: they carry no l_p mass and are never drawn.
    pub zero_rows: u64,
    /// `(Σ weight)² / Σ weight²`.
    pub effective_rows: f64,
    /// Numerical rank of the table.
    pub rank: usize,
    /// Estimated condition number of the table, columns scaled to unit norm.
    pub condition: f64,
    /// Full passes over the table.
    pub passes: usize,
    /// Scale of the scores: a row's probability is `min(1, scale · score)` before guard and floor.
    pub scale: f64,
    /// Stages of the rule, e.g. `["root-leverage", "lewis"]`.
    pub stages: Vec<String>,
    /// Log-error of the Lewis weights at stopping, if they were used.
    pub lewis_delta: Option<f64>,
    /// Total sensitivity, or the lift's bound of it, if the rule depended on it (`p > 2`).
    pub total_sensitivity: Option<f64>,
    /// Predicted rows (up to log factors) for unit distortion of each rule that was considered, for `p > 2`.
    pub predicted_rows: Vec<(Rule, f64)>,
    /// Whether the size is below the scale at which the rule's theorem starts.
    pub below_theory: bool,
    /// Whether the sample depends on the order of the rows (it was drawn in one pass).
    pub order_dependent: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A measured distortion: `lower ≤ Σ weight |a x|^p / ‖Ax‖_p^p − 1 ≤ upper` over all `x`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Certificate {
    /// Smallest ratio minus one, at most zero.
    pub lower: f64,
    /// Largest ratio minus one, at least zero.
    pub upper: f64,
    /// What the two numbers are.
    pub kind: CertificateKind,
    /// What the sample was compared with.
    pub reference: String,
}

/// How a [`Certificate`] was obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateKind {
    /// The true extremes (`p = 2`).
    Exact,
    /// Rigorous outer bounds (even `p`, through the lift).
    Bound,
    /// The worst `x` that a search found: the true extremes may lie further out.
    Searched,
}
