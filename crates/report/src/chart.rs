//! A chart with two axes as SVG. Colours are CSS classes, so that the page decides about light and dark.

use std::fmt::Write;

use crate::axis::Axis;
use crate::text::escape;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 54.0;

/// Rough width of a character of the label font, in SVG units.
const CHARACTER: f64 = 7.2;

/// The colours of series, as CSS classes.
pub(crate) const SERIES: [&str; 5] = ["s0", "s1", "s2", "s3", "s4"];

/// A chart under construction: axes first, marks in the order they are added.
pub(crate) struct Chart {
    title: String,
    x: Axis,
    y: Axis,
    marks: String,
    legend: Vec<(&'static str, String)>,
}

impl Chart {
    /// An empty chart; `title` is what a screen reader says.
    pub(crate) fn new(title: &str, x: Axis, y: Axis) -> Self {
        Self { title: title.into(), x, y, marks: String::new(), legend: Vec::new() }
    }

    fn px(&self, v: f64) -> f64 {
        LEFT + self.x.at(v) * (WIDTH - LEFT - RIGHT)
    }

    fn py(&self, v: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.at(v) * (HEIGHT - TOP - BOTTOM)
    }

    /// Names a series in the legend.
    pub(crate) fn name(&mut self, series: &'static str, label: &str) {
        self.legend.push((series, label.into()));
    }

    /// The area between `low` and `high`: points (x, low, high).
    pub(crate) fn band(&mut self, series: &str, points: &[(f64, f64, f64)]) {
        let there = points.iter().map(|(x, low, _)| (*x, *low));
        let back = points.iter().rev().map(|(x, _, high)| (*x, *high));
        let outline: Vec<String> =
            there.chain(back).map(|(x, y)| format!("{:.1},{:.1}", self.px(x), self.py(y))).collect();
        let _ = write!(self.marks, r#"<polygon class="band {series}" points="{}"/>"#, outline.join(" "));
    }

    /// A line with a dot at every point.
    pub(crate) fn line(&mut self, series: &str, points: &[(f64, f64)]) {
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{:.1},{:.1}", self.px(*x), self.py(*y))).collect();
        let _ = write!(self.marks, r#"<polyline class="line {series}" points="{}"/>"#, path.join(" "));
        for (x, y) in points {
            let _ = write!(
                self.marks,
                r#"<circle class="dot {series}" cx="{:.1}" cy="{:.1}" r="3.5"/>"#,
                self.px(*x),
                self.py(*y)
            );
        }
    }

    /// A dashed line between two points, behind what follows.
    pub(crate) fn diagonal(&mut self, from: (f64, f64), to: (f64, f64)) {
        let _ = write!(
            self.marks,
            r#"<line class="even" x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}"/>"#,
            self.px(from.0),
            self.py(from.1),
            self.px(to.0),
            self.py(to.1)
        );
    }

    /// Bars from the bottom: (left, right, height).
    pub(crate) fn bars(&mut self, series: &str, bars: &[(f64, f64, f64)]) {
        let base = HEIGHT - BOTTOM;
        for (left, right, height) in bars.iter().filter(|b| b.2 > 0.0) {
            let (x, y) = (self.px(*left), self.py(*height));
            let _ = write!(
                self.marks,
                r#"<rect class="bar {series}" x="{:.1}" y="{y:.1}" width="{:.1}" height="{:.1}"/>"#,
                x + 0.5,
                (self.px(*right) - x - 1.0).max(0.5),
                base - y
            );
        }
    }

    /// The finished `<svg>` element.
    pub(crate) fn svg(&self) -> String {
        let mut out = format!(
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">"#,
            escape(&self.title)
        );
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (v, label) in self.y.ticks() {
            let y = self.py(v);
            let _ = write!(out, r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#);
            let _ = write!(
                out,
                r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                LEFT - 8.0,
                y + 4.0,
                escape(&label)
            );
        }
        let mut free_from = f64::NEG_INFINITY;
        for (v, label) in self.x.ticks() {
            let x = self.px(v);
            let half = label.chars().count() as f64 * CHARACTER / 2.0;
            let _ =
                write!(out, r#"<line class="axis" x1="{x:.1}" x2="{x:.1}" y1="{bottom}" y2="{:.1}"/>"#, bottom + 5.0);
            if x - half > free_from {
                let y = bottom + 20.0;
                let text = escape(&label);
                let _ = write!(out, r#"<text class="tick" x="{x:.1}" y="{y}" text-anchor="middle">{text}</text>"#);
                free_from = x + half + CHARACTER;
            }
        }
        let _ = write!(out, r#"<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>"#);
        out.push_str(&self.marks);
        let _ = write!(
            out,
            r#"<text class="label" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            (LEFT + right) / 2.0,
            HEIGHT - 10.0,
            escape(&self.x.label)
        );
        let _ = write!(out, r#"<text class="label" x="0" y="14">{}</text>"#, escape(&self.y.label));
        out.push_str(&legend(&self.legend, right, 14.0));
        out.push_str("</svg>");
        out
    }
}

/// Legend entries, right-aligned at `right`: one text, so that marks stay beside their names whatever the font.
pub(crate) fn legend(entries: &[(&'static str, String)], right: f64, y: f64) -> String {
    let mut out = format!(r#"<text class="label" x="{right:.1}" y="{y}" text-anchor="end">"#);
    for (at, (series, label)) in entries.iter().enumerate() {
        let gap = if at == 0 { 0 } else { 16 };
        let _ = write!(out, r#"<tspan class="{series}" dx="{gap}">●</tspan><tspan dx="5">{}</tspan>"#, escape(label));
    }
    out + "</text>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axis::plain;

    #[test]
    fn a_chart_draws_its_marks_inside_the_frame_and_escapes_its_texts() {
        let mut chart =
            Chart::new("<t>", Axis::log("x & y", [1.0, 100.0], plain), Axis::linear("v", [0.0, 1.0], plain));
        chart.name(SERIES[0], "a<b");
        chart.band(SERIES[0], &[(1.0, 0.1, 0.5), (100.0, 0.0, 2.0)]);
        chart.line(SERIES[0], &[(1.0, 0.2), (100.0, 0.4)]);
        chart.bars(SERIES[1], &[(1.0, 10.0, 0.5), (10.0, 100.0, 0.0)]);
        let svg = chart.svg();
        assert!(
            svg.contains("a&lt;b") && svg.contains("x &amp; y") && svg.contains("&lt;t&gt;") && !svg.contains("NaN")
        );
        assert_eq!(svg.matches("<rect").count(), 1);
        // The band's upper edge at 2.0 is cut at the frame.
        assert!(svg.contains("702.0,36.0"), "{svg}");
    }
}
