//! A heat map as SVG: a matrix of shares, each a cell whose depth of colour is the value.

use std::fmt::Write;

use crate::text::escape;

const WIDTH: f64 = 720.0;
/// Rough width of a character of the tick font, in SVG units.
const CHARACTER: f64 = 6.8;
/// Widest row label, in characters.
const MAX_LABEL: usize = 16;
/// Cells narrower than this hold no number.
const LEAST_FOR_TEXT: f64 = 26.0;
/// Cells darker than this have light numbers.
const DARK: f64 = 0.55;

/// A map of `labels.len()` rows and columns. `cell` gives the depth (0 to 1) and the number of a cell, or nothing.
pub(crate) fn heat(
    title: &str,
    [rows, columns]: [&str; 2],
    labels: &[String],
    cell: impl Fn(usize, usize) -> Option<(f64, String)>,
) -> String {
    let n = labels.len().max(1);
    let short: Vec<String> = labels.iter().map(|l| shorten(l)).collect();
    let widest = short.iter().map(|l| l.chars().count()).max().unwrap_or(0) as f64 * CHARACTER;
    let left = widest + 34.0;
    let side = ((WIDTH - left) / n as f64).min(56.0);
    // Labels above the columns lie down where they fit and stand otherwise.
    let flat = widest < side - 4.0;
    let top = 26.0 + if flat { 18.0 } else { widest };
    let (width, height) = (left + side * n as f64, top + side * n as f64 + 4.0);
    let mut out = format!(
        r#"<svg viewBox="0 0 {WIDTH} {height:.1}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">"#,
        escape(title)
    );
    let _ = write!(
        out,
        r#"<text class="label" x="{:.1}" y="14" text-anchor="middle">{}</text>"#,
        (left + width) / 2.0,
        escape(columns)
    );
    let middle = top + side * n as f64 / 2.0;
    let _ = write!(
        out,
        r#"<text class="label" x="12" y="{middle:.1}" text-anchor="middle" transform="rotate(-90 12 {middle:.1})">{}</text>"#,
        escape(rows)
    );
    // So many labels that they would overlap are thinned out.
    let every = (14.0 / side).ceil().max(1.0) as usize;
    for (i, label) in short.iter().enumerate().step_by(every) {
        let (center, text) = (side * (i as f64 + 0.5), escape(label));
        let (x, y) = (left - 6.0, top + center + 4.0);
        let _ = write!(out, r#"<text class="tick" x="{x:.1}" y="{y:.1}" text-anchor="end">{text}</text>"#);
        let (x, y) = (left + center, top - 6.0);
        if flat {
            let _ = write!(out, r#"<text class="tick" x="{x:.1}" y="{y:.1}" text-anchor="middle">{text}</text>"#);
        } else {
            let x = x + 4.0;
            let turn = format!("rotate(-90 {x:.1} {y:.1})");
            let _ = write!(out, r#"<text class="tick" x="{x:.1}" y="{y:.1}" transform="{turn}">{text}</text>"#);
        }
    }
    let gap = if side > 8.0 { 1.0 } else { 0.0 };
    for i in 0..labels.len() {
        for j in 0..labels.len() {
            let Some((depth, number)) = cell(i, j) else { continue };
            let (x, y) = (left + side * j as f64, top + side * i as f64);
            let depth = depth.clamp(0.0, 1.0);
            let _ = write!(
                out,
                r#"<rect class="heat" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" fill-opacity="{:.2}"/>"#,
                x,
                y,
                side - gap,
                side - gap,
                0.04 + 0.96 * depth
            );
            if side >= LEAST_FOR_TEXT && !number.is_empty() {
                let class = if depth > DARK { "cell over" } else { "cell" };
                let _ = write!(
                    out,
                    r#"<text class="{class}" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                    x + side / 2.0,
                    y + side / 2.0 + 4.0,
                    escape(&number)
                );
            }
        }
    }
    out.push_str("</svg>");
    out
}

fn shorten(label: &str) -> String {
    if label.chars().count() <= MAX_LABEL {
        return label.into();
    }
    label.chars().take(MAX_LABEL - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_its_cells_and_escapes_its_labels() {
        let labels: Vec<String> = ["a<b", "a name that is far too long for a row"].map(String::from).to_vec();
        let svg = heat("t", ["true", "taken for"], &labels, |i, j| (i != j).then(|| (0.9, "7".into())));
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("a&lt;b") && svg.contains("a name that is …") && svg.contains("cell over"), "{svg}");
    }

    #[test]
    fn many_labels_are_thinned_out() {
        let labels: Vec<String> = (0..150).map(|i| format!("class {i}")).collect();
        let svg = heat("t", ["", ""], &labels, |_, _| None);
        assert!(svg.matches("class ").count() < 2 * 150 && svg.contains("class 149").eq(&false));
    }
}
