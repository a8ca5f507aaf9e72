//! The human summary: a headline and aligned lines.

use std::collections::BTreeMap;
use std::fmt;

use subspan_report::duration;

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
    fn values_stand_in_one_column() {
        let mut summary = Summary::new("done");
        summary.line("rows", "5");
        summary.line("output", "x");
        assert_eq!(summary.to_string(), "done\n  rows    5\n  output  x\n");
    }
}
