//! Logistic regression: `ln(1 + exp(−y η))` with classes `y = ±1`, plus a ridge penalty on the slopes.
//!
//! The dual is `Σ u H(α) − ½ xᵀ K x` over `Σ u α y a = K x`, `0 ≤ α ≤ 1`, with `H` the binary entropy in nats. A Newton
//! step's `α (1 − (1 − α) y dη)` satisfies the equation exactly; it lies in the box once the steps are short.

use serde::{Deserialize, Serialize};

use super::smooth::{DualSums, SmoothLoss};

/// The logistic loss; a target above one half is the positive class.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Logistic;

impl SmoothLoss for Logistic {
    const PASSES: [&'static str; 2] = ["evaluate-logistic", "losses-logistic"];

    fn at(&self, eta: f64, b: f64, u: f64, _: f64) -> [f64; 3] {
        let sign = if b > 0.5 { 1.0 } else { -1.0 };
        let margin = sign * eta;
        let e = (-margin.abs()).exp();
        let inverse = (1.0 + e).recip();
        let wrong = if margin >= 0.0 { e * inverse } else { inverse };
        [u * ((-margin).max(0.0) + e.ln_1p()), u * sign * wrong, u * e * inverse * inverse]
    }

    fn trimmed(&self, eta: f64, d_eta: f64, b: f64, u: f64) -> f64 {
        self.at(eta, b, u, 1.0)[2] * (KEPT / d_eta.abs()).min(1.0)
    }

    fn add_dual(&self, sums: &mut DualSums, _: f64, b: f64, u: f64, y: f64) {
        if u > 0.0 {
            let alpha = if b > 0.5 { y / u } else { -y / u };
            if (0.0..=1.0).contains(&alpha) {
                sums.linear += u * entropy(alpha);
            } else {
                sums.infeasible = true;
            }
        }
    }

    fn bound(&self, sums: &DualSums, penalty: f64) -> f64 {
        if sums.infeasible { 0.0 } else { (sums.linear - penalty).max(0.0) }
    }

    fn exact_fit(&self, _: f64) -> f64 {
        0.0
    }

    fn diverges(&self, smallest_margin: f64) -> bool {
        smallest_margin > 0.0
    }
}

/// `−α ln α − (1 − α) ln(1 − α)`.
fn entropy(alpha: f64) -> f64 {
    let part = |a: f64| if a > 0.0 { -a * a.ln() } else { 0.0 };
    part(alpha) - (1.0 - alpha) * (-alpha).ln_1p().max(f64::MIN)
}

/// The share of the way to the dual's bounds that a trimmed step may take; a direction after trimming is a little longer.
const KEPT: f64 = 0.7;
