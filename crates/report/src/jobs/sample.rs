//! The report of `sample`: what was kept, how well it stands for the whole, and why these rows.
//!
//! Optional results it draws when they are there:
//! `error_by_rows` [{rule, points: [{rows, low, median, high}]}], relative excess of the objective over the optimum;
//! `effect_error_by_rows`, likewise, distance of rare categories' coefficients from the optimum's;
//! `probabilities` [{low, high, table, sample}], shares of rows per range of the probability of being kept;
//! `weights` {min, median, p90, max};
//! `rare_levels` [{column, rows, seeds, rule, uniform, rule_error, uniform_error}], in how many of the seeds' samples a rare
//! column has a row, and how far its coefficient is from the optimum's.

use serde_json::Value;
use subspan::RunRecord;

use crate::Section;
use crate::axis::{Axis, percent as percent_tick, plain};
use crate::chart::{Chart, SERIES};
use crate::page::{facts, figure, paragraphs, table};
use crate::text::{count, percent, significant};

/// The section of a `sample` record.
pub(crate) fn section(record: &RunRecord) -> Section {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let number = |name: &str| get(name).as_f64();
    let mut body = paragraphs(strings(get("story")), "");
    let mut strip = Vec::new();
    if let (Some(out), Some(all)) = (get("rows_out").as_u64(), get("rows_in").as_u64()) {
        strip.push((count(out), "rows kept"));
        strip.push((count(all), "rows in the table"));
    }
    if let Some(rule) = get("rule").as_str() {
        strip.push((rule.to_string(), "rule"));
    }
    for (name, what) in [("p", "p of the norm"), ("score_sum", "sum of scores"), ("effective_rows", "effective rows")] {
        if let Some(v) = number(name) {
            strip.push((significant(v, 4).trim_end_matches(".000").to_string(), what));
        }
    }
    if let Some(n) = get("certain_rows").as_u64() {
        strip.push((count(n), "rows kept for certain"));
    }
    body.push_str(&facts(&strip));
    body.push_str(&paragraphs([certificate(get("certificate")).as_str()], ""));
    body.push_str(&paragraphs(strings(get("warnings")), "warn"));
    for (name, svg) in figures(record) {
        body.push_str(&figure(&svg, caption(name)));
    }
    body.push_str(&rare_levels(get("rare_levels")));
    body.push_str(&weights(get("weights")));
    Section { title: "A sample that stands for the table".into(), body }
}

/// The figures of a `sample` record.
pub(crate) fn figures(record: &RunRecord) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    if let Some(curves) = record.results.get("error_by_rows").and_then(Value::as_array) {
        out.push(("error", by_rows("excess over the optimum", percent_tick, curves)));
    }
    if let Some(curves) = record.results.get("effect_error_by_rows").and_then(Value::as_array) {
        let unit = record.config.get("target").and_then(Value::as_str).unwrap_or("the target");
        out.push(("rare", by_rows(&format!("error of rare categories' effects on {unit}"), plain, curves)));
    }
    if let Some(bins) = record.results.get("probabilities").and_then(Value::as_array) {
        out.push(("probabilities", probabilities(bins)));
    }
    out
}

fn caption(name: &str) -> &'static str {
    match name {
        "error" => {
            "How much worse than the optimum over all rows the fit on a sample is, measured on all rows. Lines: median over \
             seeds; bands: all seeds. Both axes are logarithmic."
        }
        "rare" => {
            "How far the effects of rare categories in a sample's fit are from those of the optimum, on average over the \
             categories below. A category without a row in the sample has no effect in its fit."
        }
        _ => {
            "How likely rows were to be kept: share of the table's rows (estimated from the sample) and of the sample's rows. \
             The sample leans towards the rows that matter."
        }
    }
}

/// The certificate in words; a run without one says so.
fn certificate(value: &Value) -> String {
    let bounds = (value["lower"].as_f64(), value["upper"].as_f64());
    let (Some(lower), Some(upper)) = bounds else { return "No accuracy was measured.".into() };
    let meaning = match value["kind"].as_str() {
        Some("exact") => "These are the true extremes over all directions.",
        Some("bound") => "These are rigorous bounds over all directions.",
        _ => "These are the worst directions a search found; the true extremes may lie further out.",
    };
    let range = format!("{} to +{}", percent(lower), percent(upper));
    format!("Over all linear models, the sample's weighted sums of |a x|^p are off by {range}. {meaning}")
}

/// Curves with bands over the sample size, both axes logarithmic.
fn by_rows(label: &str, tick: fn(f64) -> String, curves: &[Value]) -> String {
    let points = |curve: &Value, field: &str| -> Vec<f64> {
        curve["points"].as_array().into_iter().flatten().filter_map(|p| p[field].as_f64()).collect()
    };
    let all = |field: &str| -> Vec<f64> { curves.iter().flat_map(|c| points(c, field)).collect() };
    let errors = all("low").into_iter().chain(all("high"));
    let x = Axis::log("rows in the sample", all("rows"), plain).padded(0.03);
    let y = Axis::log(label, errors, tick).padded(0.04);
    let mut chart = Chart::new(&format!("Sample size against {label}"), x, y);
    for (series, curve) in SERIES.iter().zip(curves) {
        let rows = points(curve, "rows");
        let (low, high) = (points(curve, "low"), points(curve, "high"));
        let band: Vec<_> = rows.iter().zip(low).zip(high).map(|((r, l), h)| (*r, l, h)).collect();
        chart.band(series, &band);
    }
    for (series, curve) in SERIES.iter().zip(curves) {
        let line: Vec<_> = points(curve, "rows").into_iter().zip(points(curve, "median")).collect();
        chart.line(series, &line);
        chart.name(series, curve["rule"].as_str().unwrap_or("?"));
    }
    chart.svg()
}

fn probabilities(bins: &[Value]) -> String {
    let bar = |field: &str| -> Vec<(f64, f64, f64)> {
        let triple = |b: &Value| Some((b["low"].as_f64()?, b["high"].as_f64()?, b[field].as_f64()?));
        bins.iter().filter_map(triple).collect()
    };
    let (whole, kept) = (bar("table"), bar("sample"));
    let x = Axis::log("probability of being kept", whole.iter().flat_map(|b| [b.0, b.1]), plain);
    let heights = whole.iter().chain(&kept).map(|b| b.2).chain([0.0]);
    let y = Axis::linear("share of rows", heights, percent_tick);
    let mut chart = Chart::new("Distribution of the probability of being kept", x, y);
    chart.bars(SERIES[1], &whole);
    chart.bars(SERIES[0], &kept);
    chart.name(SERIES[1], "table");
    chart.name(SERIES[0], "sample");
    chart.svg()
}

fn rare_levels(value: &Value) -> String {
    let rows: Vec<Vec<String>> = value.as_array().into_iter().flatten().map(rare_level).collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = [
        "category",
        "rows in the table",
        "in samples by importance",
        "in uniform ones",
        "effect off by",
        "uniform: off by",
    ];
    format!("<h3>What happens to rare categories</h3>\n{}", table(&head, 1, &rows))
}

fn rare_level(level: &Value) -> Vec<String> {
    let seeds = level["seeds"].as_u64().unwrap_or(0);
    let of = |name: &str| format!("{} of {seeds}", level[name].as_u64().unwrap_or(0));
    let off = |name: &str| level[name].as_f64().map_or("-".into(), |v| significant(v, 2));
    let name = level["column"].as_str().unwrap_or("?").to_string();
    let rows = count(level["rows"].as_u64().unwrap_or(0));
    vec![name, rows, of("rule"), of("uniform"), off("rule_error"), off("uniform_error")]
}

fn weights(value: &Value) -> String {
    let names = ["min", "median", "p90", "max"];
    let figures: Vec<String> =
        names.iter().filter_map(|name| value[name].as_f64()).map(|v| significant(v, 4)).collect();
    if figures.len() < names.len() {
        return String::new();
    }
    format!("<h3>Weights</h3>\n{}", table(&["smallest", "median", "90 %", "largest"], 0, &[figures]))
}

/// The strings of an array, or a single one.
pub(crate) fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(s) => vec![s],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
