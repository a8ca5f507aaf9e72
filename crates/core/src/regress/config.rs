//! What a regression is asked to be.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The loss of one residual `r = y − a·x` (or margin, for logistic).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Loss {
    /// `|r|`.
    L1,
    /// `r²`.
    L2,
    /// `|r|^p`, `p ≥ 1`.
    Lp {
        /// The exponent.
        p: f64,
    },
    /// `max(t r, (t − 1) r)` for each level `t` in (0, 1).
    Quantile {
        /// One fit per level.
        levels: Vec<f64>,
    },
    /// `r²/2` up to `delta`, then linear.
    Huber {
        /// In units of the target.
        delta: f64,
    },
    /// `ln(1 + exp(−y a·x))`, targets 0/1 or −1/+1.
    Logistic {
        /// Ridge penalty `l2/2 ‖x‖²` (not on the intercept); zero for none.
        l2: f64,
    },
}

/// Which rows the solver sees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// A sample of about so many rows.
    Rows(u64),
    /// All rows, in memory.
    Full,
    /// The optimum over all rows with a proved relative gap of at most `1e-8`, through a pilot sample; out of core.
    Exact,
}

/// A regression job.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The loss.
    pub loss: Loss,
    /// Which rows the solver sees.
    pub mode: Mode,
    /// Whether to add a constant term.
    pub intercept: bool,
    /// Whether a sampled fit also gets a certified gap (one more pass; l1 and quantile).
    pub certify: bool,
}

impl Config {
    /// Checks every parameter.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the first one out of range.
    pub fn check(&self) -> Result<()> {
        match &self.loss {
            Loss::L1 | Loss::L2 => {}
            Loss::Lp { p } if !(p.is_finite() && *p >= 1.0) => {
                return Err(Error::parameter("p", p, "a finite number of at least 1"));
            }
            Loss::Quantile { levels } => {
                if levels.is_empty() {
                    return Err(Error::parameter("quantile", "nothing", "at least one number between 0 and 1"));
                }
                if let Some(level) = levels.iter().find(|t| !(**t > 0.0 && **t < 1.0)) {
                    return Err(Error::parameter("quantile", level, "a number between 0 and 1, both excluded"));
                }
            }
            Loss::Huber { delta } if !(delta.is_finite() && *delta > 0.0) => {
                return Err(Error::parameter("delta", delta, "a positive finite number"));
            }
            Loss::Logistic { l2 } if !(l2.is_finite() && *l2 >= 0.0) => {
                return Err(Error::parameter("l2", l2, "a non-negative finite number"));
            }
            Loss::Lp { .. } | Loss::Huber { .. } | Loss::Logistic { .. } => {}
        }
        match self.mode {
            Mode::Rows(0) => Err(Error::parameter("rows", 0, "at least 1")),
            _ => Ok(()),
        }
    }
}
