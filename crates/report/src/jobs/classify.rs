//! The report of `classify`: how good the classifier is, where it errs, and what its subspaces look like.
//!
//! Results it draws when they are there: `classes` [name]; `test_accuracy`, `test_nll`, `test_ece`, `rival_scores` {name:
//! {accuracy, nll, ece}}, or else `held_out` and `rivals_held_out`, likewise; `epochs` [{held_out_nll, held_out_accuracy}];
//! `examined_on`, the samples of the next two; `confusion` [[n]], true class by predicted one; `reliability` and `uncalibrated`
//! [{count, confidence, accuracy}]; `class_angles` [[degrees]], the smallest principal angle of each pair; `portraits` [{k,
//! energies, others_energy, effective_dim, tiles}], one per class; `story`, `warnings`.

use serde_json::Value;
use subspan::RunRecord;

use super::sample::strings;
use crate::Section;
use crate::axis::{Axis, percent as percent_tick, plain};
use crate::chart::{Chart, SERIES};
use crate::heat::heat;
use crate::page::{facts, figure, paragraphs, table};
use crate::text::{count, escape, percent, significant};
use crate::tiles::sheet;

/// Pairs of classes in the table of confusions.
const MAX_PAIRS: usize = 8;
/// Classes in a heat map; of more, the most confused ones are shown.
const MAX_MAPPED: usize = 40;
/// Classes whose samples are shown.
const MAX_PICTURED: usize = 12;
/// Classes in the table of subspaces.
const MAX_LISTED: usize = 40;
/// Answers behind a point of the calibration curve: of fewer a share says nothing.
const FEWEST_ANSWERS: f64 = 20.0;

/// The section of a `classify` record.
pub(crate) fn section(record: &RunRecord) -> Section {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let mut body = paragraphs(strings(get("story")), "");
    body.push_str(&facts(&headline(record)));
    body.push_str(&paragraphs(strings(get("warnings")), "warn"));
    body.push_str(&rivals(record));
    for (name, svg) in figures(record) {
        body.push_str(&figure(&svg, &caption(name, record)));
        if name == "confusion" {
            body.push_str(&pairs(record));
        }
    }
    body.push_str(&subspaces(record));
    body.push_str(&pictures(record));
    Section { title: "A subspace for every class".into(), body }
}

fn headline(record: &RunRecord) -> Vec<(String, &'static str)> {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let tested = get("test_accuracy").is_f64();
    let own = own_scores(record);
    let mut out = Vec::new();
    if let Some(accuracy) = own[0] {
        out.push((points(accuracy), if tested { "test accuracy" } else { "held-out accuracy" }));
    }
    if let Some(nll) = own[1] {
        out.push((significant(nll, 3), "negative log-likelihood"));
    }
    if let Some(ece) = own[2] {
        out.push((significant(ece, 2), "calibration error"));
    }
    out.push((count(classes(record).len() as u64), "classes"));
    if let Some(k) = get("k").as_u64() {
        out.push((count(k), "dimension of each subspace"));
    }
    out
}

/// Accuracy, likelihood and calibration error on the test samples, or else on those held out.
fn own_scores(record: &RunRecord) -> [Option<f64>; 3] {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    if get("test_accuracy").is_f64() {
        return ["test_accuracy", "test_nll", "test_ece"].map(|name| get(name).as_f64());
    }
    ["accuracy", "nll", "ece"].map(|name| get("held_out")[name].as_f64())
}

fn points(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn rivals(record: &RunRecord) -> String {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let tested = get("test_accuracy").is_f64();
    let others = get(if tested { "rival_scores" } else { "rivals_held_out" });
    let Some(others) = others.as_object().filter(|o| !o.is_empty()) else { return String::new() };
    let row = |name: &str, scores: [Option<f64>; 3]| {
        let [accuracy, nll, ece] = scores;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        vec![
            name.to_string(),
            or_dash(accuracy.map(|v| format!("{:.2} %", 100.0 * v))),
            or_dash(nll.map(|v| significant(v, 3))),
            or_dash(ece.map(|v| format!("{v:.3}"))),
        ]
    };
    let method = record.config.get("method").and_then(Value::as_str).unwrap_or("this one");
    let mut rows = vec![row(&format!("{method} (this model)"), own_scores(record))];
    rows.extend(others.iter().map(|(name, s)| row(name, ["accuracy", "nll", "ece"].map(|f| s[f].as_f64()))));
    let on = if tested { "the test samples" } else { "samples held out" };
    let head = ["classifier", "accuracy", "negative log-likelihood", "calibration error"];
    format!("<h3>Beside other classifiers, on {on}</h3>\n{}", table(&head, 1, &rows))
}

/// The figures of a `classify` record.
pub(crate) fn figures(record: &RunRecord) -> Vec<(&'static str, String)> {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let mut out = Vec::new();
    let names = classes(record);
    let confusion = matrix(get("confusion"));
    let shown = mapped(&names, &confusion);
    let labels: Vec<String> = shown.iter().map(|c| names[*c].clone()).collect();
    if confusion.len() == names.len() && !names.is_empty() {
        out.push(("confusion", confusion_map(&labels, &shown, &confusion)));
    }
    if let Some(bins) = get("reliability").as_array() {
        out.push(("reliability", reliability(bins, get("uncalibrated").as_array().map_or(&[], Vec::as_slice))));
    }
    let angles = matrix(get("class_angles"));
    if angles.len() == names.len() && !names.is_empty() {
        out.push(("angles", angle_map(&labels, &shown, &angles)));
    }
    if let Some(epochs) = get("epochs").as_array().filter(|e| e.len() > 1) {
        out.push(("training", training(epochs)));
    }
    out
}

fn caption(name: &str, record: &RunRecord) -> String {
    let on = record.results.get("examined_on").and_then(Value::as_str).unwrap_or("test samples");
    match name {
        "confusion" => format!(
            "Which classes are taken for which, on {on}: the share of each row's class, in per cent. Colour is drawn by the \
             square root, so that few mistakes show."
        ),
        "reliability" => format!(
            "Do probabilities mean what they say? The share of right answers against the confidence they were given with, on \
             {on}, at least {FEWEST_ANSWERS} answers to a point. On the diagonal nine of ten answers given with 90 % are right."
        ),
        "angles" => {
            "The smallest angle between the subspaces of two classes, in degrees; dark is close. Training turns \
                     subspaces into what tells classes apart, so classes that look alike need not be close here."
                .into()
        }
        _ => "Negative log-likelihood of the samples held out, pass by pass: the lowest point is kept.".into(),
    }
}

fn classes(record: &RunRecord) -> Vec<String> {
    let names = record.results.get("classes").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(|n| n.as_str().map(str::to_string)).collect()
}

/// A square matrix of numbers; empty if the value is none.
fn matrix(value: &Value) -> Vec<Vec<f64>> {
    let rows = value.as_array().map_or(&[][..], Vec::as_slice);
    let row = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    let rows: Vec<Vec<f64>> = rows.iter().map(row).collect();
    if rows.iter().all(|r| r.len() == rows.len()) { rows } else { Vec::new() }
}

/// The classes that a heat map shows: all, or the most confused ones.
fn mapped(names: &[String], confusion: &[Vec<f64>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..names.len()).collect();
    if names.len() > MAX_MAPPED {
        let errors = |c: usize| -> f64 {
            confusion.get(c).map_or(0.0, |row| {
                row.iter().enumerate().filter(|(j, _)| *j != c).map(|(j, n)| n + confusion[j][c]).sum()
            })
        };
        order.sort_by(|a, b| errors(*b).total_cmp(&errors(*a)).then(a.cmp(b)));
        order.truncate(MAX_MAPPED);
        order.sort_unstable();
    }
    order
}

fn confusion_map(labels: &[String], shown: &[usize], confusion: &[Vec<f64>]) -> String {
    heat("Confusion of classes", ["true class", "predicted class"], labels, |i, j| {
        let row = &confusion[shown[i]];
        let total: f64 = row.iter().sum();
        let share = row[shown[j]] / total;
        let number = if share >= 0.005 { format!("{:.0}", 100.0 * share) } else { String::new() };
        (share > 0.0).then(|| (share.sqrt(), number))
    })
}

fn angle_map(labels: &[String], shown: &[usize], angles: &[Vec<f64>]) -> String {
    let others = |i: usize| (0..shown.len()).filter(move |j| *j != i).map(move |j| angles[shown[i]][shown[j]]);
    let all = (0..shown.len()).flat_map(others);
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    heat("Angles between classes", ["class", "class"], labels, |i, j| {
        let angle = angles[shown[i]][shown[j]];
        let depth = if high > low { (high - angle) / (high - low) } else { 0.5 };
        (i != j).then(|| (0.1 + 0.8 * depth, format!("{angle:.0}")))
    })
}

fn reliability(bins: &[Value], uncalibrated: &[Value]) -> String {
    let x = Axis::linear("confidence", [0.0, 1.0], percent_tick);
    let y = Axis::linear("share of right answers", [0.0, 1.0], percent_tick);
    let mut chart = Chart::new("Reliability of probabilities", x, y);
    chart.diagonal((0.0, 0.0), (1.0, 1.0));
    if !uncalibrated.is_empty() {
        chart.line(SERIES[1], &shares(uncalibrated));
        chart.name(SERIES[1], "before calibration");
    }
    chart.line(SERIES[0], &shares(bins));
    chart.name(SERIES[0], "calibrated");
    chart.svg()
}

/// Mean confidence and share of right answers of bins; neighbours with few answers are taken together.
fn shares(bins: &[Value]) -> Vec<(f64, f64)> {
    let mut groups: Vec<[f64; 3]> = Vec::new();
    for bin in bins {
        let [count, confidence, right] = ["count", "confidence", "accuracy"].map(|key| bin[key].as_f64());
        let (Some(count), Some(confidence), Some(right)) = (count, confidence, right) else { continue };
        let new = [count, count * confidence, count * right];
        match groups.last_mut() {
            Some(open) if open[0] < FEWEST_ANSWERS => (0..3).for_each(|i| open[i] += new[i]),
            _ => groups.push(new),
        }
    }
    if let [.., full, rest] = groups.as_mut_slice()
        && rest[0] < FEWEST_ANSWERS
    {
        (0..3).for_each(|i| full[i] += rest[i]);
        groups.pop();
    }
    groups
        .into_iter()
        .filter(|g| g[0] > 0.0)
        .map(|[count, confidence, right]| (confidence / count, right / count))
        .collect()
}

fn training(epochs: &[Value]) -> String {
    let line: Vec<(f64, f64)> =
        epochs.iter().enumerate().filter_map(|(i, e)| Some(((i + 1) as f64, e["held_out_nll"].as_f64()?))).collect();
    let x = Axis::linear("pass", line.iter().map(|p| p.0), plain);
    let y = Axis::linear("held-out negative log-likelihood", line.iter().map(|p| p.1), plain).padded(0.05);
    let mut chart = Chart::new("Training", x, y);
    chart.line(SERIES[0], &line);
    chart.svg()
}

/// The pairs of classes most often taken for each other.
fn pairs(record: &RunRecord) -> String {
    let (names, confusion) = (classes(record), matrix(record.results.get("confusion").unwrap_or(&Value::Null)));
    let mut found: Vec<(f64, usize, usize)> = Vec::new();
    for (a, row) in confusion.iter().enumerate() {
        for (b, n) in row.iter().enumerate().skip(a + 1) {
            found.push((n + confusion[b][a], a, b));
        }
    }
    found.retain(|(n, ..)| *n > 0.0);
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    found.truncate(MAX_PAIRS);
    if found.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = found
        .into_iter()
        .map(|(n, a, b)| {
            let there = |from: usize, to: usize| {
                let (n, total) = (confusion[from][to], confusion[from].iter().sum::<f64>());
                format!("{} ({})", count(n as u64), if total > 0.0 { percent(n / total) } else { "-".into() })
            };
            vec![names[a].clone(), names[b].clone(), there(a, b), there(b, a), count(n as u64)]
        })
        .collect();
    let head = ["class A", "class B", "A taken for B", "B taken for A", "together"];
    format!("<h3>Pairs most often confused</h3>\n{}", table(&head, 2, &rows))
}

fn portraits(record: &RunRecord) -> Vec<(String, &Value)> {
    let list = record.results.get("portraits").and_then(Value::as_array);
    classes(record).into_iter().zip(list.into_iter().flatten()).collect()
}

/// What each subspace holds.
fn subspaces(record: &RunRecord) -> String {
    let rows: Vec<Vec<String>> = portraits(record)
        .into_iter()
        .take(MAX_LISTED)
        .map(|(name, p)| {
            let energies: Vec<f64> = p["energies"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
            let leading: Vec<String> = energies.iter().take(4).map(|e| percent(*e)).collect();
            vec![
                name,
                leading.join(", "),
                percent(energies.iter().sum()),
                p["others_energy"].as_f64().map_or("-".into(), percent),
                p["effective_dim"].as_f64().map_or("-".into(), |v| format!("{v:.1} of {}", energies.len())),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["class", "energy of the leading directions", "all", "other classes' samples", "directions in use"];
    format!(
        "<h3>What each subspace holds</h3>\n<p>Mean squared length of a class's unit samples on its own subspace, direction by \
         direction, and of all other samples on it.</p>\n{}",
        table(&head, 2, &rows)
    )
}

/// The samples nearest to each direction.
fn pictures(record: &RunRecord) -> String {
    let mut out = String::new();
    for (name, portrait) in portraits(record).into_iter().take(MAX_PICTURED) {
        let columns = portrait["nearest"][0].as_array().map_or(8, Vec::len);
        if let Some(tiles) = sheet(&portrait["tiles"], columns, &format!("samples of class {name}")) {
            out.push_str(&format!("<div><span>{}</span>{tiles}</div>\n", escape(&name)));
        }
    }
    if out.is_empty() {
        return out;
    }
    format!(
        "<h3>Samples nearest to each direction</h3>\n<p>One row per direction of a class's subspace, the one of most energy \
         first. What a row has in common is what the direction stands for.</p>\n<div class=\"sheets\">\n{out}</div>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_share_is_of_enough_answers() {
        let bin = |count: usize, confidence: f64, accuracy: f64| json!({"count": count, "confidence": confidence, "accuracy": accuracy});
        let bins = [bin(0, 0.0, 0.0), bin(1, 0.3, 1.0), bin(19, 0.5, 0.0), bin(100, 0.7, 0.75), bin(4, 0.95, 1.0)];
        let found = shares(&bins);
        let expected = [(0.49, 0.05), ((70.0 + 3.8) / 104.0, 79.0 / 104.0)];
        assert_eq!(found.len(), 2, "{found:?}");
        for (f, e) in found.iter().zip(&expected) {
            assert!((f.0 - e.0).abs() < 1e-12 && (f.1 - e.1).abs() < 1e-12, "{found:?}");
        }
        assert_eq!(shares(&bins[1..2]), [(0.3, 1.0)]);
        assert!(shares(&bins[..1]).is_empty());
    }
}
