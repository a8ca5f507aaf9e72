//! A dot plot: one line per name, one dot per series, on a common linear axis through zero.

use std::fmt::Write;

use crate::axis::{Axis, plain};
use crate::chart::{SERIES, legend};
use crate::text::{escape, significant};

const WIDTH: f64 = 720.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 34.0;
const ROW: f64 = 22.0;
const BOTTOM: f64 = 50.0;

/// Longest name shown in full.
const NAME_CHARACTERS: usize = 22;

/// Draws `rows` (a name and one value per series) as `<svg>`.
pub(crate) fn dots(title: &str, label: &str, series: &[String], rows: &[(String, Vec<f64>)]) -> String {
    let all = rows.iter().flat_map(|(_, values)| values.iter().copied());
    let axis = Axis::linear(label, all.chain([0.0]), plain).padded(0.03);
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let px = |v: f64| LEFT + axis.at(v) * (WIDTH - LEFT - RIGHT);
    let bottom = height - BOTTOM;
    let mut out = format!(
        r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">"#,
        escape(title)
    );
    for (v, text) in axis.ticks() {
        let x = px(v);
        let class = if v == 0.0 { "axis" } else { "grid" };
        let _ = write!(out, r#"<line class="{class}" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}"/>"#);
        let (y, text) = (bottom + 18.0, escape(&text));
        let _ = write!(out, r#"<text class="tick" x="{x:.1}" y="{y}" text-anchor="middle">{text}</text>"#);
    }
    for (i, (name, values)) in rows.iter().enumerate() {
        let y = TOP + ROW * (i as f64 + 0.5);
        let shown = shorten(name);
        let _ = write!(
            out,
            r#"<text class="tick" x="{}" y="{:.1}" text-anchor="end"><title>{}</title>{}</text>"#,
            LEFT - 10.0,
            y + 4.0,
            escape(name),
            escape(&shown)
        );
        let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        let low = finite.iter().copied().fold(f64::INFINITY, f64::min);
        let high = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low < high {
            let (a, b) = (px(low), px(high));
            let _ = write!(out, r#"<line class="span" x1="{a:.1}" x2="{b:.1}" y1="{y:.1}" y2="{y:.1}"/>"#);
        }
        for (k, v) in values.iter().enumerate().filter(|(_, v)| v.is_finite()) {
            let _ = write!(
                out,
                r#"<circle class="dot {}" cx="{:.1}" cy="{y:.1}" r="4.5"><title>{} {}: {}</title></circle>"#,
                SERIES[k % SERIES.len()],
                px(*v),
                escape(series.get(k).map_or("", String::as_str)),
                escape(name),
                significant(*v, 4)
            );
        }
    }
    let _ = write!(
        out,
        r#"<text class="label" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        height - 8.0,
        escape(label)
    );
    let entries: Vec<_> = series.iter().enumerate().map(|(k, s)| (SERIES[k % SERIES.len()], s.clone())).collect();
    out.push_str(&legend(&entries, WIDTH - RIGHT, 16.0));
    out.push_str("</svg>");
    out
}

fn shorten(name: &str) -> String {
    if name.chars().count() <= NAME_CHARACTERS {
        return name.into();
    }
    name.chars().take(NAME_CHARACTERS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_value_gets_a_dot() {
        let rows = [("a<".to_string(), vec![1.0, -2.0]), ("b".to_string(), vec![0.5, f64::NAN])];
        let svg = dots("t", "effect", &["l1".into(), "l2".into()], &rows);
        assert_eq!(
            (svg.matches(r#"<circle class="dot"#).count(), svg.matches('●').count()),
            (3, 2),
            "values and series"
        );
        assert!(svg.contains("a&lt;") && !svg.contains("NaN"));
    }
}
