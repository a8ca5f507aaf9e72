//! The human summary: a headline and aligned lines.

use std::collections::BTreeMap;
use std::fmt;

use subspan_report::{count, duration, percent};

/// So many of something: `1 row`, `2,000 rows`.
pub(crate) fn counted(n: usize, noun: &str) -> String {
    counted_as(n, noun, &format!("{noun}s"))
}

/// [`counted`] for a noun with another plural.
pub(crate) fn counted_as(n: usize, one: &str, many: &str) -> String {
    format!("{} {}", count(n as u64), if n == 1 { one } else { many })
}

/// By how much something went down, or up.
pub(crate) fn less(reduction: f64) -> String {
    if reduction < 0.0 { format!("{} more", percent(-reduction)) } else { format!("{} less", percent(reduction)) }
}

/// What a run says at its end.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    headline: String,
    lines: Vec<(String, String)>,
    pub(crate) warnings: Vec<String>,
}

impl Summary {
    pub(crate) fn new(headline: impl Into<String>) -> Self {
        Self { headline: headline.into(), ..Self::default() }
    }

    /// A line: what, and its value. An empty `what` continues the line above.
    pub(crate) fn line(&mut self, what: &str, value: impl Into<String>) {
        self.lines.push((what.into(), value.into()));
    }

    /// The line about time: the total, and the phases that took a visible part of it.
    pub(crate) fn time(&mut self, seconds: &BTreeMap<String, f64>) {
        let total = seconds.get("total").copied().unwrap_or(0.0);
        let mut phases: Vec<_> = seconds.iter().filter(|(n, s)| *n != "total" && **s >= 0.02 * total).collect();
        phases.sort_by(|a, b| b.1.total_cmp(a.1));
        let parts: Vec<String> = phases.iter().map(|(name, s)| format!("{name} {}", duration(**s))).collect();
        let parts = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
        self.line("time", format!("{}{parts}", duration(total)));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline)?;
        let width = self.lines.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        for (what, value) in &self.lines {
            writeln!(f, "  {what:width$}  {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_changes_read_as_words() {
        assert_eq!([1, 2000].map(|n| counted(n, "row")), ["1 row", "2,000 rows"]);
        assert_eq!([1, 0].map(|n| counted_as(n, "class", "classes")), ["1 class", "0 classes"]);
        assert_eq!([0.25, -0.046, 0.0].map(less), ["25 % less", "4.6 % more", "0 % less"]);
    }

    #[test]
    fn values_stand_in_one_column() {
        let mut summary = Summary::new("done");
        summary.line("rows", "5");
        summary.line("output", "x");
        assert_eq!(summary.to_string(), "done\n  rows    5\n  output  x\n");
    }
}
