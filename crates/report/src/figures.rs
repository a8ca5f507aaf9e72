//! Figures as files of their own, for a README or a paper.

use subspan::RunRecord;

use crate::jobs;
use crate::page::{COLOURS, SVG_STYLE};

/// The figures of a record as complete SVG files: name without extension, and text.
pub fn figures(record: &RunRecord) -> Vec<(String, String)> {
    let svgs = jobs::figures(record);
    svgs.into_iter().map(|(name, svg)| (format!("{}-{name}", record.command), alone(&svg))).collect()
}

/// Gives an inline `<svg>` its own style and background.
fn alone(svg: &str) -> String {
    let open = svg.find('>').map_or(0, |i| i + 1);
    format!(
        "{}<style>{COLOURS}{SVG_STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>{}\n",
        &svg[..open],
        &svg[open..]
    )
}
