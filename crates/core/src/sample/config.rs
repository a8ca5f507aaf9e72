//! What a sample is asked to be.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// How a row's importance is scored (note: the names in brackets are the literature's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The cheapest rule with a guarantee for this `p` and this table's size.
    Auto,
    /// Every row alike: the baseline, without a guarantee.
    Uniform,
    /// Leverage `τ`; for `p = 2`.
    Leverage,
    /// Root leverage `τ^(p/2)`; for `1 ≤ p < 2`.
    RootLeverage,
    /// l_p Lewis weights.
    Lewis,
    /// l_p sensitivities `σ` (certified upper bounds).
    Sensitivity,
    /// Sensitivity plus leverage, `σ + τ`.
    SensitivityLeverage,
    /// `min(1, 1/n + σ/α)`: the form of the paper, for reproduction.
    Paper,
}

/// How rows are drawn from their probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Draw {
    /// Every row on its own: the theorems' draw, and the default.
    #[default]
    Poisson,
    /// One random start on the running sum of probabilities: row count within one of the expectation.
    Systematic,
    /// The `rows` smallest `U/score`: exactly that many rows.
    Priority,
}

/// How large the sample is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// Expected number of rows (exact for [`Draw::Priority`]).
    Rows(u64),
    /// Target distortion; `1 ≤ p ≤ 2`.
    Epsilon(f64),
}

/// A sampling job.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The norm, `p ≥ 1`.
    pub p: f64,
    /// The sample's size.
    pub size: Size,
    /// How rows are scored.
    pub rule: Rule,
    /// How rows are drawn.
    pub draw: Draw,
    /// Whether to measure the sample's distortion.
    pub certify: bool,
    /// Adds leverage to the scores: for losses that are quadratic near zero (Huber) or not homogeneous (logistic).
    pub augment: bool,
    /// Raises every score to at least `1/n`: for losses that do not vanish with the row (logistic, hinge).
    pub loss_floor: bool,
}

impl Config {
    /// About `rows` rows for the norm `p`, everything else by default.
    pub fn rows(p: f64, rows: u64) -> Self {
        Self {
            p,
            size: Size::Rows(rows),
            rule: Rule::Auto,
            draw: Draw::Poisson,
            certify: true,
            augment: false,
            loss_floor: false,
        }
    }
}

impl Config {
    /// Checks every parameter by itself.
    ///
    /// # Errors
    /// [`Error::Parameter`] naming the first one out of range.
    pub fn check(&self) -> Result<()> {
        super::scores::check_p(self.p)?;
        match self.size {
            Size::Rows(0) => return Err(Error::parameter("rows", 0, "at least 1")),
            Size::Epsilon(e) if !(e > 0.0 && e < 1.0) => return Err(Error::parameter("epsilon", e, "between 0 and 1")),
            Size::Epsilon(_) if self.p > 2.0 => {
                return Err(Error::parameter("epsilon with p above 2", self.p, "replaced by a number of rows"));
            }
            _ => {}
        }
        let fits = match self.rule {
            Rule::Leverage => self.p == 2.0,
            Rule::RootLeverage => self.p <= 2.0,
            _ => true,
        };
        if fits {
            return Ok(());
        }
        let range = if self.rule == Rule::Leverage {
            "2 for the leverage rule"
        } else {
            "at most 2 for the root-leverage rule"
        };
        Err(Error::parameter("p", self.p, range))
    }
}

const RULES: [(Rule, &str); 8] = [
    (Rule::Auto, "auto"),
    (Rule::Uniform, "uniform"),
    (Rule::Leverage, "leverage"),
    (Rule::RootLeverage, "root-leverage"),
    (Rule::Lewis, "lewis"),
    (Rule::Sensitivity, "sensitivity"),
    (Rule::SensitivityLeverage, "sensitivity+leverage"),
    (Rule::Paper, "paper"),
];

const DRAWS: [(Draw, &str); 3] =
    [(Draw::Poisson, "poisson"), (Draw::Systematic, "systematic"), (Draw::Priority, "priority")];

/// Users' names of an enum's values, both ways.
macro_rules! named {
    ($type:ty, $names:ident, $what:literal) => {
        impl $type {
            /// The name users type.
            pub fn name(self) -> &'static str {
                $names.iter().find(|(v, _)| *v == self).map_or("", |(_, name)| name)
            }

            /// All names, in order.
            pub fn names() -> impl Iterator<Item = &'static str> {
                $names.iter().map(|(_, name)| *name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = Error;
            fn from_str(s: &str) -> Result<Self> {
                $names.iter().find(|(_, name)| *name == s).map(|(v, _)| *v).ok_or_else(|| {
                    Error::parameter($what, s, format!("one of {}", Self::names().collect::<Vec<_>>().join(", ")))
                })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
                s.serialize_str(self.name())
            }
        }
    };
}
named!(Rule, RULES, "rule");
named!(Draw, DRAWS, "draw");
