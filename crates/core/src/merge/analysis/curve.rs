//! Loss and accuracy along the line between two models.

use serde::Serialize;

use crate::error::{Error, Result};

/// One point of the line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// 0 at the first model, 1 at the second.
    pub alpha: f64,
    /// Mean loss, nats per sample.
    pub loss: f64,
    /// Share of samples that are right.
    pub accuracy: f64,
}

/// How much worse the line is than the straight line between its ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Barrier {
    /// `max_α [ℓ(α) − (1 − α) ℓ(0) − α ℓ(1)]`; the ends are on the grid, so at least 0.
    pub loss: f64,
    /// Where it is reached.
    pub alpha: f64,
    /// The same difference at α = ½; negative where the merged model is better than the ends are on average.
    pub midpoint: f64,
    /// The largest drop of accuracy below the straight line.
    pub accuracy: f64,
}

/// `n` equidistant positions from 0 to 1.
///
/// # Errors
/// [`Error::Parameter`] unless `n` is odd (so that ½ is among them) and at least 3.
pub fn grid(n: usize) -> Result<Vec<f64>> {
    if n < 3 || n.is_multiple_of(2) {
        return Err(Error::parameter("points", n, "an odd number of at least 3"));
    }
    Ok((0..n).map(|i| i as f64 / (n - 1) as f64).collect())
}

impl Barrier {
    /// The barrier of a curve whose first and last points are the ends.
    ///
    /// # Panics
    /// If there are fewer than three points.
    ///
    /// ```
    /// use subspan::merge::analysis::{Barrier, Point};
    /// let point = |alpha, loss, accuracy| Point { alpha, loss, accuracy };
    /// let b = Barrier::of(&[point(0.0, 1.0, 0.9), point(0.5, 2.0, 0.6), point(1.0, 2.0, 0.9)]);
    /// assert!((b.loss, b.midpoint, b.alpha) == (0.5, 0.5, 0.5) && (b.accuracy - 0.3).abs() < 1e-12);
    /// ```
    pub fn of(curve: &[Point]) -> Self {
        assert!(curve.len() >= 3, "two ends and a point between");
        let (first, last) = (curve[0], curve[curve.len() - 1]);
        let line = |a: f64, b: f64, t: f64| (1.0 - t) * a + t * b;
        let gap = |p: &Point| p.loss - line(first.loss, last.loss, p.alpha);
        let drop = |p: &Point| line(first.accuracy, last.accuracy, p.alpha) - p.accuracy;
        let worst = curve.iter().fold(&first, |best, p| if gap(p) > gap(best) { p } else { best });
        let middle = curve.iter().min_by(|p, q| (p.alpha - 0.5).abs().total_cmp(&(q.alpha - 0.5).abs()));
        Self {
            loss: gap(worst).max(0.0),
            alpha: worst.alpha,
            midpoint: middle.map_or(0.0, gap),
            accuracy: curve.iter().map(drop).fold(0.0, f64::max),
        }
    }
}
