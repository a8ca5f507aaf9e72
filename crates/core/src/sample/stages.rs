//! Which scores a rule takes, in one stage or two.

use super::{Config, Rule};

/// Entries of a table (rows times columns) up to which Lewis weights of all rows are worth their extra passes in memory.
const LEWIS_IN_MEMORY: u64 = 20_000_000;
/// The first stage of a two-stage rule keeps this many times the final rows ...
const FIRST_STAGE_FACTOR: u64 = 20;
/// ... and at least this many rows.
const FIRST_STAGE_ROWS: u64 = 100_000;

/// One draw: its scores and how many rows it keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stage {
    pub(crate) rule: Rule,
    pub(crate) target: f64,
    /// Whether its rows are the sample.
    pub(crate) last: bool,
}

/// Rows of the first of two stages.
pub(crate) fn first_stage_rows(n_rows: u64, rows: u64) -> u64 {
    n_rows.min(FIRST_STAGE_ROWS.max(rows.saturating_mul(FIRST_STAGE_FACTOR)))
}

/// The stages of `config` on a table of `n_rows x n_cols`, in memory or not, for `rows` final rows.
pub(crate) fn plan(config: &Config, n_rows: u64, n_cols: usize, in_memory: bool, rows: u64) -> Vec<Stage> {
    let last = |rule| Stage { rule, target: rows as f64, last: true };
    if config.rule != Rule::Auto {
        return vec![last(config.rule)];
    }
    if config.p == 2.0 {
        return vec![last(Rule::Leverage)];
    }
    let small = in_memory && n_rows.saturating_mul(n_cols as u64) <= LEWIS_IN_MEMORY;
    if small || config.p > 2.0 {
        return vec![last(Rule::Lewis)];
    }
    let first = Stage { rule: Rule::RootLeverage, target: first_stage_rows(n_rows, rows) as f64, last: false };
    vec![first, last(Rule::Lewis)]
}
