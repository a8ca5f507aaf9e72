//! One module per job: its record becomes sections and figures. A new job adds its module and a line in each match.

mod analyze;
mod classify;
mod cluster;
mod regress;
mod sample;

use subspan::RunRecord;

use crate::Section;

/// The sections of a record; none for a job that has only details.
pub(crate) fn sections(record: &RunRecord) -> Vec<Section> {
    match record.command.as_str() {
        "analyze" => vec![analyze::section(record)],
        "classify" => vec![classify::section(record)],
        "cluster" => vec![cluster::section(record)],
        "sample" => vec![sample::section(record)],
        "regress" => vec![regress::section(record)],
        _ => Vec::new(),
    }
}

/// The figures of a record that are worth a file of their own: name and `<svg>`.
pub(crate) fn figures(record: &RunRecord) -> Vec<(&'static str, String)> {
    match record.command.as_str() {
        "analyze" => analyze::figures(record),
        "classify" => classify::figures(record),
        "cluster" => cluster::figures(record),
        "sample" => sample::figures(record),
        "regress" => regress::figures(record),
        _ => Vec::new(),
    }
}
