//! The report of `analyze`: the line between two models before and after matching, and what matching changes.
//!
//! Results it draws when they are there: `curve` [{alpha, loss, accuracy, matched_loss, matched_accuracy}]; `barrier`,
//! `midpoint_gap`, `accuracy_drop` {before, after}; `distance_reduction`, `distances` [{name, before, after}]; `alignment` {gamma,
//! total, per_layer}, `alignment_curve` [{gamma, before, after}], `merged_alignment`; `singular_values` [{name, first, second, gap,
//! kept}]; `intervention` {gamma, arms}; `taylor` {before, after: {estimate, truth}}; `pairs`, `alone`, `mean` of more than two
//! models; `study` {variable, rows, medians}; `story`, `notes`, `warnings`.

use serde_json::Value;
use subspan::RunRecord;

use super::sample::strings;
use crate::Section;
use crate::axis::{Axis, percent as percent_tick, plain};
use crate::bars::{Bar, bars};
use crate::chart::{Chart, SERIES};
use crate::page::{facts, figure, paragraphs, table};
use crate::text::{percent, significant};

/// Layers whose spectra are drawn.
const MAX_DRAWN: usize = SERIES.len();
/// Points of a spectrum.
const SPECTRUM_POINTS: usize = 32;
/// Rows of the table of layers.
const MAX_LISTED: usize = 60;

/// The section of an `analyze` record.
pub(crate) fn section(record: &RunRecord) -> Section {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let mut body = paragraphs(strings(get("story")), "");
    body.push_str(&paragraphs(strings(get("warnings")), "warn"));
    let strip = headline(record);
    if !strip.is_empty() {
        body.push_str(&facts(&strip));
    }
    for (name, svg) in figures(record) {
        body.push_str(&figure(&svg, &caption(name, record)));
    }
    body.push_str(&layers(record));
    body.push_str(&taylor(get("taylor")));
    body.push_str(&pairs(record));
    body.push_str(&study(get("study")));
    let notes = strings(get("notes")).join("; ");
    if !notes.is_empty() {
        body.push_str(&paragraphs(
            [format!("Kernels are unfolded to outputs by inputs times positions. {notes}.").as_str()],
            "",
        ));
    }
    let title =
        if get("study").is_object() { "Networks trained for comparison" } else { "Two models and the line between" };
    Section { title: title.into(), body }
}

fn headline(record: &RunRecord) -> Vec<(String, &'static str)> {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let mut out = Vec::new();
    for (field, what) in [("before", "barrier before matching, nats"), ("after", "barrier after, nats")] {
        if let Some(v) = get("barrier")[field].as_f64() {
            out.push((significant(v, 3), what));
        }
    }
    if let Some(v) = get("accuracy_drop")["after"].as_f64() {
        out.push((format!("{:.2}", 100.0 * v), "points of accuracy lost after"));
    }
    if let Some(v) = get("distance_reduction").as_f64() {
        out.push((percent(v), "less distance"));
    }
    for (field, what) in [("before", "alignment before"), ("after", "alignment after")] {
        if let Some(v) = get("alignment")["total"][field].as_f64() {
            out.push((format!("{v:.3}"), what));
        }
    }
    out
}

/// The figures of an `analyze` record.
pub(crate) fn figures(record: &RunRecord) -> Vec<(&'static str, String)> {
    let list = |name: &str| record.results.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut out = Vec::new();
    let curve = list("curve");
    if !curve.is_empty() {
        out.push(("barrier", lines(curve, "loss, nats per sample", ["loss", "matched_loss"], plain)));
        out.push(("accuracy", lines(curve, "accuracy", ["accuracy", "matched_accuracy"], percent_tick)));
    }
    let arms = record.results.get("intervention").and_then(|i| i["arms"].as_array()).map_or(&[][..], Vec::as_slice);
    if arms.iter().any(|a| a["barrier"].is_object()) {
        out.push(("intervention", intervention(arms)));
    }
    let curve = list("alignment_curve");
    if !curve.is_empty() {
        out.push(("alignment", alignment(curve)));
    }
    let spectra = list("singular_values");
    if !spectra.is_empty() {
        out.push(("spectra", spectrum(spectra)));
    }
    if let Some(study) = record.results.get("study") {
        for (name, label, fields) in [
            ("study-barrier", "barrier, nats", ["barrier_before", "barrier_after"]),
            ("study-alignment", "alignment", ["alignment_before", "alignment_after"]),
        ] {
            out.push((name, study_chart(study, label, fields)));
        }
    }
    out
}

fn caption(name: &str, record: &RunRecord) -> String {
    let gamma = record.config.get("gamma").and_then(Value::as_f64).unwrap_or(0.3);
    match name {
        "barrier" => "Loss of (1 − α) A + α B, with B as it is and with its units re-ordered to match A. Both orders compute the \
                      same function; only one of them lies in the same valley as A."
            .into(),
        "accuracy" => "Accuracy along the same two lines.".into(),
        "intervention" => format!(
            "Which directions must be matched? Matching sees only a part of every weight, its permutations are applied to the \
             whole models. Top: directions with a singular value of at least {gamma} of their layer's largest. Bottom: the \
             others. Control: the full matching, some units shifted until the models are as far apart as after matching on the \
             bottom. Where barriers differ at that equal distance, distance alone does not explain them."
        ),
        "alignment" => "Alignment R(γ) of singular directions whose singular value is at least γ of the largest: 1 if they agree, \
                        0 if they have nothing to do with each other. Matching aligns the large ones most."
            .into(),
        "spectra" => "Singular values over the largest of their layer, two lines per layer: one for each model.".into(),
        "study-barrier" => "Barrier between independently trained pairs. Lines: median over pairs; bands: all pairs.".into(),
        _ => format!("Alignment R({gamma}) of the same pairs."),
    }
}

/// Two lines over α.
fn lines(curve: &[Value], label: &str, fields: [&str; 2], tick: fn(f64) -> String) -> String {
    let points = |field: &str| -> Vec<(f64, f64)> {
        curve.iter().filter_map(|p| Some((p["alpha"].as_f64()?, p[field].as_f64()?))).collect()
    };
    let all = fields.iter().flat_map(|f| points(f)).map(|p| p.1);
    let y = Axis::linear(label, all, tick).padded(0.04);
    let mut chart = Chart::new(&format!("{label} between the models"), Axis::linear("α", [0.0, 1.0], plain), y);
    for (field, series, name) in [(fields[0], SERIES[1], "as they are"), (fields[1], SERIES[0], "matched")] {
        chart.line(series, &points(field));
        chart.name(series, name);
    }
    chart.svg()
}

fn alignment(curve: &[Value]) -> String {
    let points = |field: &str| -> Vec<(f64, f64)> {
        curve.iter().filter_map(|p| Some((p["gamma"].as_f64()?, p[field].as_f64()?))).collect()
    };
    let (before, after) = (points("before"), points("after"));
    let x = Axis::linear("γ", before.iter().map(|p| p.0), plain).padded(0.02);
    let y = Axis::linear("alignment R(γ)", before.iter().chain(&after).map(|p| p.1).chain([0.0]), plain).padded(0.04);
    let mut chart = Chart::new("Alignment of singular directions", x, y);
    for (series, name, line) in [(SERIES[1], "as they are", before), (SERIES[0], "matched", after)] {
        chart.line(series, &line);
        chart.name(series, name);
    }
    chart.svg()
}

fn spectrum(layers: &[Value]) -> String {
    let shares = |layer: &Value, field: &str| -> Vec<(f64, f64)> {
        let s: Vec<f64> = layer[field].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let (n, largest) = (s.len(), s.first().copied().unwrap_or(0.0).max(f64::MIN_POSITIVE));
        let at = |k: usize| k * n.saturating_sub(1) / (SPECTRUM_POINTS - 1);
        let mut places: Vec<usize> = (0..SPECTRUM_POINTS).map(at).collect();
        places.dedup();
        places
            .into_iter()
            .filter(|i| *i < n)
            .map(|i| (i as f64 / n.saturating_sub(1).max(1) as f64, s[i] / largest))
            .collect()
    };
    let y = Axis::linear("singular value over the largest", [0.0, 1.0], plain);
    let x = Axis::linear("share of the directions", [0.0, 1.0], percent_tick);
    let mut chart = Chart::new("Singular values of both models", x, y);
    for (layer, series) in layers.iter().zip(SERIES).take(MAX_DRAWN) {
        chart.line(series, &shares(layer, "first"));
        chart.line(series, &shares(layer, "second"));
        chart.name(series, layer["name"].as_str().unwrap_or("?").trim_end_matches(".weight"));
    }
    chart.svg()
}

fn intervention(arms: &[Value]) -> String {
    let bar = |arm: &Value| {
        let (name, series) = match arm["arm"].as_str()? {
            "none" => ("no matching", SERIES[1]),
            "all" => ("all directions", SERIES[0]),
            "top" => ("top only", SERIES[2]),
            "bottom" => ("bottom only", SERIES[3]),
            "bottom-with-biases" => ("bottom, biases", SERIES[3]),
            _ => ("control", SERIES[4]),
        };
        let value = arm["barrier"]["loss"].as_f64()?;
        let distance = percent(arm["distance_reduction"].as_f64()?);
        let r = arm["alignment"].as_f64()?;
        let remark = format!("{}; distance −{distance}, R {r:.2}", significant(value, 2));
        Some(Bar { name: name.into(), value, series, remark })
    };
    let drawn: Vec<Bar> = arms.iter().filter_map(bar).collect();
    bars("Barrier after matching on a part of the directions", "barrier, nats", &drawn)
}

/// Distances, alignment and spectra of every layer.
fn layers(record: &RunRecord) -> String {
    let list = |name: &str| record.results.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let aligned =
        record.results.get("alignment").and_then(|a| a["per_layer"].as_array()).map_or(&[][..], Vec::as_slice);
    let find =
        |list: &'_ [Value], name: &Value| list.iter().find(|v| v["name"] == *name).cloned().unwrap_or(Value::Null);
    let rows: Vec<Vec<String>> = list("distances")
        .iter()
        .filter(|d| aligned.iter().any(|a| a["name"] == d["name"]))
        .take(MAX_LISTED)
        .map(|d| {
            let (a, s) = (find(aligned, &d["name"]), find(list("singular_values"), &d["name"]));
            let number = |v: &Value, digits: usize| v.as_f64().map_or("-".into(), |v| significant(v, digits));
            let three = |v: &Value| v.as_f64().map_or("-".into(), |v| format!("{v:.3}"));
            let kept = a["kept"][0]
                .as_u64()
                .zip(s["first"].as_array())
                .map_or("-".into(), |(k, s)| format!("{k} of {}", s.len()));
            vec![
                d["name"].as_str().unwrap_or("?").to_string(),
                number(&d["before"], 4),
                number(&d["after"], 4),
                three(&a["before"]),
                three(&a["after"]),
                three(&a["left"]["after"]),
                three(&a["right"]["after"]),
                kept,
                three(&s["gap"]),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["layer", "distance", "after", "R", "after", "left after", "right after", "directions", "spectrum gap"];
    format!("<h3>Layer by layer</h3>\n{}", table(&head, 1, &rows))
}

fn taylor(value: &Value) -> String {
    let row = |name: &str, what: &str| -> Option<Vec<String>> {
        let of = |field: &str| value[name][field].as_f64().map(|v| significant(v, 3));
        Some(vec![what.into(), of("estimate")?, of("truth")?])
    };
    let rows: Vec<Vec<String>> =
        [row("before", "as they are"), row("after", "matched")].into_iter().flatten().collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["models", "foretold by slope and curvature at the ends", "true rise in the middle"];
    format!("<h3>Does the neighbourhood of the ends foretell the middle?</h3>\n{}", table(&head, 1, &rows))
}

/// All pairs of more than two models, and their mean.
fn pairs(record: &RunRecord) -> String {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let number = |v: &Value, digits: usize| v.as_f64().map_or("-".into(), |v| significant(v, digits));
    let rows: Vec<Vec<String>> = get("pairs")
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| {
            vec![
                strings(&p["models"]).join(" and "),
                number(&p["distance_before"], 4),
                number(&p["distance_after"], 4),
                number(&p["barrier"]["before"], 3),
                number(&p["barrier"]["after"], 3),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["models", "distance", "after", "barrier", "after"];
    let mut out = format!("<h3>Every pair, all matched to the first model</h3>\n{}", table(&head, 1, &rows));
    let scores = |what: String, v: &Value| {
        let accuracy = v["accuracy"].as_f64().map_or("-".into(), |a| format!("{:.2} %", 100.0 * a));
        vec![what, number(&v["loss"], 4), accuracy]
    };
    let mut rows: Vec<Vec<String>> = get("alone")
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(i, v)| scores(format!("model {} alone", i + 1), v))
        .collect();
    if get("mean").is_object() {
        rows.push(scores("mean, as they are".into(), &get("mean")["before"]));
        rows.push(scores("mean, matched".into(), &get("mean")["after"]));
        out.push_str(&table(&["model", "loss", "accuracy"], 1, &rows));
    }
    out
}

fn study_chart(study: &Value, label: &str, fields: [&str; 2]) -> String {
    let rows: Vec<&Value> = study["rows"].as_array().into_iter().flatten().collect();
    let values: Vec<f64> =
        study["medians"].as_array().into_iter().flatten().filter_map(|m| m["value"].as_f64()).collect();
    let what = if study["variable"] == "width" { "units per hidden layer" } else { "weight decay" };
    let of = |value: f64, field: &str| -> Vec<f64> {
        rows.iter().filter(|r| r["value"].as_f64() == Some(value)).filter_map(|r| r[field].as_f64()).collect()
    };
    let x = match values.iter().all(|v| *v > 0.0) {
        true => Axis::log(what, values.iter().copied(), plain).padded(0.03),
        false => Axis::linear(what, values.iter().copied(), plain).padded(0.02),
    };
    let all: Vec<f64> = fields.iter().flat_map(|f| values.iter().flat_map(|v| of(*v, f)).collect::<Vec<_>>()).collect();
    let y = Axis::linear(label, all.into_iter().chain([0.0]), plain).padded(0.04);
    let mut chart = Chart::new(&format!("{label} against {what}"), x, y);
    for (field, series, name) in [(fields[0], SERIES[1], "as they are"), (fields[1], SERIES[0], "matched")] {
        let (mut band, mut line) = (Vec::new(), Vec::new());
        for value in &values {
            let found = of(*value, field);
            let low = found.iter().copied().fold(f64::INFINITY, f64::min);
            let high = found.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let median =
                study["medians"].as_array().into_iter().flatten().find(|m| m["value"].as_f64() == Some(*value));
            if let Some(median) = median.and_then(|m| m[field].as_f64()) {
                band.push((*value, low, high));
                line.push((*value, median));
            }
        }
        chart.band(series, &band);
        chart.line(series, &line);
        chart.name(series, name);
    }
    chart.svg()
}

fn study(value: &Value) -> String {
    let medians: Vec<&Value> = value["medians"].as_array().into_iter().flatten().collect();
    let rows: Vec<Vec<String>> = medians
        .iter()
        .map(|m| {
            let number = |field: &str| m[field].as_f64().map_or("-".into(), |v| significant(v, 3));
            let share = |field: &str| m[field].as_f64().map_or("-".into(), |v| format!("{:.1} %", 100.0 * v));
            vec![
                m["value"].as_f64().map_or("?".into(), plain),
                share("accuracy"),
                number("barrier_before"),
                number("barrier_after"),
                share("accuracy_drop"),
                share("distance_reduction"),
                number("alignment_before"),
                number("alignment_after"),
                share("directions"),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let variable = if value["variable"] == "width" { "width" } else { "weight decay" };
    let head = [
        variable,
        "accuracy",
        "barrier",
        "after",
        "accuracy lost after",
        "distance less",
        "R",
        "after",
        "large directions",
    ];
    format!("<h3>Medians over pairs</h3>\n{}", table(&head, 1, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_in_a_record_is_drawn_and_names_are_escaped() {
        let mut record = RunRecord::new("analyze", 0, 1);
        record.configure("gamma", 0.3);
        let point = |alpha: f64| json!({"alpha": alpha, "loss": 1.0 + alpha, "accuracy": 0.9, "matched_loss": 1.0, "matched_accuracy": 0.9});
        record.result("curve", json!([point(0.0), point(0.5), point(1.0)]));
        record.result("barrier", json!({"before": 0.5, "after": 0.0}));
        record.result("alignment", json!({"gamma": 0.3, "total": {"before": 0.0, "after": 0.2},
            "per_layer": [{"name": "<w>", "before": 0.0, "after": 0.2, "kept": [2, 2], "left": {"after": 0.3}, "right": {"after": 0.4}}]}));
        record.result(
            "alignment_curve",
            json!([{"gamma": 0.0, "before": 0.0, "after": 0.1}, {"gamma": 0.3, "before": 0.0, "after": 0.2}]),
        );
        record.result("distances", json!([{"name": "<w>", "before": 2.0, "after": 1.0}]));
        record.result(
            "singular_values",
            json!([{"name": "<w>", "first": [2.0, 1.0], "second": [2.0, 0.5], "gap": 0.25}]),
        );
        let arm = |name: &str| json!({"arm": name, "directions": 0.1, "distance_reduction": 0.1, "alignment": 0.2, "barrier": {"loss": 0.3}});
        let arms = ["none", "all", "top", "bottom", "control"].map(arm);
        record.result("intervention", json!({"gamma": 0.3, "arms": arms}));
        record.result(
            "taylor",
            json!({"before": {"estimate": 0.1, "truth": 1.0}, "after": {"estimate": 0.1, "truth": 0.1}}),
        );
        let html = section(&record).body;
        assert_eq!(html.matches("<svg").count(), 5);
        assert!(html.contains("&lt;w&gt;") && !html.contains("<w>") && !html.contains("NaN"), "{html}");
        assert!(html.contains("Layer by layer") && html.contains("foretell") && html.contains("no matching"));
    }

    #[test]
    fn a_study_is_a_table_and_two_charts() {
        let mut record = RunRecord::new("analyze", 0, 1);
        let row = |value: f64| json!({"value": value, "barrier_before": 0.5, "barrier_after": 0.1, "alignment_before": 0.0, "alignment_after": 0.2});
        record.result(
            "study",
            json!({"variable": "weight-decay", "rows": [row(0.0), row(0.001)], "medians": [row(0.0), row(0.001)]}),
        );
        let html = section(&record).body;
        assert_eq!((html.matches("<svg").count(), html.matches("<polygon").count()), (2, 4));
        assert!(html.contains("Medians over pairs") && !html.contains("NaN") && !html.contains("inf"));
    }
}
