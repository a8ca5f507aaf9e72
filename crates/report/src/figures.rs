//! Figures as files of their own, for a README or a paper.

use subspan::RunRecord;

use crate::jobs;
use crate::page::{COLOURS, SVG_STYLE};

/// The figures of a record as complete SVG files: name without extension, and text.
pub fn figures(record: &RunRecord) -> Vec<(String, String)> {
    let svgs = jobs::figures(record);
    svgs.into_iter().map(|(name, svg)| (format!("{}-{name}", record.command), alone(&svg))).collect()
}

/// Room around a figure that stands alone, in SVG units.
const MARGIN: f64 = 16.0;

/// Gives an inline `<svg>` its own style, background and margin.
fn alone(svg: &str) -> String {
    let style = format!("<style>{COLOURS}{SVG_STYLE}</style>");
    let size: Vec<f64> = svg.split('"').nth(1).unwrap_or("").split(' ').filter_map(|v| v.parse().ok()).collect();
    let (width, height) = match size.as_slice() {
        [_, _, width, height] => (width + 2.0 * MARGIN, height + 2.0 * MARGIN),
        _ => (0.0, 0.0),
    };
    let frame = format!(r#"viewBox="{} {} {width} {height}" width="{width}" height="{height}""#, -MARGIN, -MARGIN);
    let paper =
        format!(r#"<rect x="{}" y="{}" width="{width}" height="{height}" fill="var(--paper)"/>"#, -MARGIN, -MARGIN);
    let inside = svg.find('>').map_or(0, |i| i + 1);
    let (head, body) = svg.split_at(inside);
    let rest = head.splitn(3, '"').nth(2).unwrap_or(">");
    format!("<svg {frame}{rest}{style}{paper}{body}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_alone_keeps_its_marks_and_gets_a_margin() {
        let svg = alone(r#"<svg viewBox="0 0 720 380" role="img" xmlns="x"><g/></svg>"#);
        assert!(
            svg.starts_with(r#"<svg viewBox="-16 -16 752 412" width="752" height="412" role="img" xmlns="x"><style>"#),
            "{svg}"
        );
        assert!(svg.trim_end().ends_with("<g/></svg>"));
    }
}
