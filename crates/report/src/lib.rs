//! Run records to self-contained HTML: one file, no script, no network, light and dark.
//!
//! A report is drawn from [`RunRecord`]s alone, so it can be drawn again from a `run.json`. Every job has a module under
//! `jobs` that turns its record into sections; what every job has (configuration, inputs, times) is in `details`.

mod axis;
mod bars;
mod chart;
mod details;
mod dots;
mod figures;
mod heat;
mod jobs;
mod page;
mod text;
mod tiles;

pub use figures::figures;
pub use text::{count, duration, percent, significant};
pub use tiles::{image_shape, images};

use subspan::RunRecord;

/// One titled part of a report.
struct Section {
    title: String,
    /// HTML; everything that came from a record is escaped.
    body: String,
}

/// The report of one or more runs, in order.
///
/// ```
/// let record = subspan::RunRecord::new("sample", 0, 1);
/// let html = subspan_report::html("A <small> sample", "", &[record]);
/// assert!(html.starts_with("<!doctype html>") && html.contains("A &lt;small&gt; sample"));
/// ```
pub fn html(title: &str, lead: &str, records: &[RunRecord]) -> String {
    let mut sections = Vec::new();
    for record in records {
        sections.extend(jobs::sections(record));
    }
    sections.push(details::section(records));
    page::render(title, lead, &sections)
}
