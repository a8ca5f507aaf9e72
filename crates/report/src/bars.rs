//! Labelled horizontal bars as SVG: few named values, each with a remark.

use std::fmt::Write;

use crate::axis::{Axis, plain};
use crate::text::escape;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 150.0;
/// Room for the remarks.
const RIGHT: f64 = 250.0;
const TOP: f64 = 12.0;
const ROW: f64 = 34.0;
const BOTTOM: f64 = 50.0;

/// One bar.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// A colour, as a CSS class.
    pub(crate) series: &'static str,
    /// Said beside the bar.
    pub(crate) remark: String,
}

/// Draws `bars` from zero on a common axis.
pub(crate) fn bars(title: &str, label: &str, bars: &[Bar]) -> String {
    let axis = Axis::linear(label, bars.iter().map(|b| b.value).chain([0.0]), plain);
    let height = TOP + ROW * bars.len() as f64 + BOTTOM;
    let bottom = height - BOTTOM;
    let px = |v: f64| LEFT + axis.at(v) * (WIDTH - LEFT - RIGHT);
    let mut out = format!(
        r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">"#,
        escape(title)
    );
    for (v, text) in axis.ticks() {
        let (x, y) = (px(v), bottom + 18.0);
        let _ = write!(out, r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}"/>"#);
        let _ = write!(out, r#"<text class="tick" x="{x:.1}" y="{y}" text-anchor="middle">{}</text>"#, escape(&text));
    }
    for (i, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * (i as f64 + 0.5);
        let (from, to) = (px(0.0), px(bar.value));
        let (x, width) = (from.min(to), (to - from).abs().max(2.0));
        let _ = write!(
            out,
            r#"<text class="label" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 10.0,
            y + 4.5,
            escape(&bar.name)
        );
        let _ = write!(
            out,
            r#"<rect class="bar {}" x="{x:.1}" y="{:.1}" width="{width:.1}" height="18"/>"#,
            bar.series,
            y - 9.0
        );
        let _ = write!(
            out,
            r#"<text class="tick" x="{:.1}" y="{:.1}">{}</text>"#,
            x + width + 8.0,
            y + 4.0,
            escape(&bar.remark)
        );
    }
    let _ = write!(
        out,
        r#"<text class="label" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text></svg>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        height - 8.0,
        escape(label)
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_gets_a_bar_and_its_remark() {
        let bar = |name: &str, value| Bar { name: name.into(), value, series: "s0", remark: "r & s".into() };
        let svg = bars("t", "nats", &[bar("a<", 0.0), bar("b", 2.0), bar("c", -1.0)]);
        assert_eq!((svg.matches("<rect").count(), svg.matches("r &amp; s").count()), (3, 3));
        assert!(svg.contains("a&lt;") && !svg.contains("NaN"));
    }
}
