//! Huber's loss: `r²/2` up to `delta`, then `delta (|r| − delta/2)`.
//!
//! The majorant's curvature is the reweighting `min(1, delta/|r|)`, Newton's is one inside and zero outside. The dual is
//! `max bᵀ y − Σ y²/(2u)` over `Aᵀ y = 0`, `|y| ≤ u delta`; a step's `y` is scaled into the box and along its own ray to the
//! best value.

use serde::{Deserialize, Serialize};

use super::smooth::{DualSums, SmoothLoss};

/// Huber's loss.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Huber {
    pub(super) delta: f64,
}

impl SmoothLoss for Huber {
    const PASSES: [&'static str; 2] = ["evaluate-huber", "losses-huber"];

    fn at(&self, eta: f64, b: f64, u: f64, caution: f64) -> [f64; 3] {
        let r = b - eta;
        let size = r.abs();
        if size <= self.delta {
            [u * r * r / 2.0, u * r, u]
        } else {
            let slope = u * self.delta;
            [slope * (size - self.delta / 2.0), slope.copysign(r), caution * slope / size]
        }
    }

    fn trimmed(&self, eta: f64, d_eta: f64, b: f64, u: f64) -> f64 {
        let room = (self.delta - (b - eta).abs()).max(0.0);
        if room == 0.0 { 0.0 } else { u * (KEPT * room / d_eta.abs()).min(1.0) }
    }

    fn add_dual(&self, sums: &mut DualSums, eta: f64, b: f64, u: f64, y: f64) {
        sums.linear += y * (b - eta);
        if u > 0.0 {
            sums.conjugate += y * y / (2.0 * u);
            sums.largest = sums.largest.max(y.abs() / (u * self.delta));
        }
    }

    fn bound(&self, sums: &DualSums, _: f64) -> f64 {
        if sums.conjugate <= 0.0 {
            return 0.0;
        }
        let along = (sums.linear / (2.0 * sums.conjugate)).min(sums.largest.recip());
        along * sums.linear - along * along * sums.conjugate
    }

    fn exact_fit(&self, at_zero: f64) -> f64 {
        at_zero * super::interior_point::EXACT_FIT * super::interior_point::EXACT_FIT
    }
}

/// The share of the way to the dual's bounds that a trimmed step may take; a direction after trimming is a little longer.
const KEPT: f64 = 0.7;
