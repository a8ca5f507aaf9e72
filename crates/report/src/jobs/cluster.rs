//! The report of `cluster`: how many clusters, what they look like, how sure they are, and what else was tried.
//!
//! Results it draws when they are there: `clusters`, `sizes`, `ranks`, `confidence`, `medoids`, `spectra` [[share]], one entry per
//! cluster; `coding_length_curve` [{clusters, bits, coarse_bits, stability, closed, information,
//! entropy, gain}] with `interval` and `chosen_by`; `ties` [[share]], the
//! mass of the rows of one cluster on those of another; `exemplars`, image tiles, `exemplar_columns` of them per cluster;
//! `candidates` [{preparation, affinity, neighbours, recipe, information, accuracy, nmi}] with `chosen`; `learned`; `accuracy`, `nmi`, `ari`; `story`,
//! `warnings`.

use serde_json::Value;
use subspan::RunRecord;

use super::sample::strings;
use crate::Section;
use crate::axis::{Axis, percent as percent_tick, plain};
use crate::chart::{Chart, SERIES};
use crate::heat::heat;
use crate::page::{facts, figure, paragraphs, table};
use crate::text::{count, percent, significant};
use crate::tiles::sheet;

/// Clusters in the table, in the map and with a spectrum drawn.
const MAX_LISTED: usize = 40;
/// Candidates in the table, best first.
const MAX_CANDIDATES: usize = 12;

/// The section of a `cluster` record.
pub(crate) fn section(record: &RunRecord) -> Section {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let mut body = paragraphs(strings(get("story")), "");
    body.push_str(&facts(&headline(record)));
    body.push_str(&paragraphs(strings(get("warnings")), "warn"));
    for (name, svg) in figures(record) {
        body.push_str(&figure(&svg, &caption(name, record)));
    }
    let columns = get("exemplar_columns").as_u64().unwrap_or(8) as usize;
    if let Some(tiles) = sheet(get("exemplars"), columns, "rows of every cluster") {
        body.push_str("<h3>Rows of every cluster, the most typical first</h3>\n");
        body.push_str(&tiles);
    }
    body.push_str(&clusters(record));
    body.push_str(&learned(get("learned")));
    body.push_str(&candidates(record));
    Section { title: "Clusters".into(), body }
}

fn headline(record: &RunRecord) -> Vec<(String, &'static str)> {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let mut out = Vec::new();
    if let Some(k) = get("clusters").as_u64() {
        out.push((count(k), "clusters"));
    }
    if let (Some(low), Some(high)) = (get("interval")[0].as_u64(), get("interval")[1].as_u64()) {
        out.push((format!("{low} to {high}"), "not told apart"));
    }
    for (name, label) in [("accuracy", "agreement with the truth"), ("nmi", "mutual information with it (NMI)")] {
        if let Some(v) = get(name).as_f64() {
            out.push((if name == "nmi" { significant(v, 3) } else { percent(v) }, label));
        }
    }
    out
}

/// One row per cluster.
fn clusters(record: &RunRecord) -> String {
    let list = |name: &str| record.results.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let (sizes, ranks, confidence, medoids) = (list("sizes"), list("ranks"), list("confidence"), list("medoids"));
    let whole = |v: Option<&Value>| v.and_then(Value::as_u64).map_or("-".into(), count);
    let rows: Vec<Vec<String>> = (0..sizes.len().min(MAX_LISTED))
        .map(|c| {
            let sure = confidence.get(c).and_then(Value::as_f64).map_or("-".into(), percent);
            vec![c.to_string(), whole(sizes.get(c)), whole(ranks.get(c)), sure, whole(medoids.get(c))]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    table(&["cluster", "rows", "rank (95 %)", "mean confidence", "typical row"], 1, &rows)
}

fn learned(value: &Value) -> String {
    let (Some(trained), Some(projected)) = (value["held_out"].as_f64(), value["projection_held_out"].as_f64()) else {
        return String::new();
    };
    let kept =
        if value["kept"].as_bool() == Some(true) { "The trained head was kept" } else { "The projection was kept" };
    let text = format!("{kept}: {}.", value["because"].as_str().unwrap_or_default());
    let scored = value["trained"]["accuracy"].is_f64();
    let whole = |v: &Value| v.as_u64().map_or("-".into(), count);
    let length = |name: &str| value[name].as_f64().map_or("-".into(), |v| significant(v, 4));
    let sides = [
        ("trained head", "trained", trained, length("coding_length")),
        ("projection", "projection", projected, length("projection_coding_length")),
    ];
    let rows: Vec<Vec<String>> = sides
        .into_iter()
        .map(|(title, name, bits, all)| {
            let side = &value[name];
            let mut row = vec![title.to_string(), significant(bits, 4), all];
            row.extend(["dimensions", "rank", "rank_of_all"].map(|k| whole(&side[k])));
            if scored {
                row.push(side["accuracy"].as_f64().map_or("-".into(), percent));
                row.push(side["nmi"].as_f64().map_or("-".into(), |v| significant(v, 3)));
            }
            row
        })
        .collect();
    let mut head = vec!["", "held-out bits", "bits of all rows", "values", "middle rank (95 %)", "rank of all rows"];
    if scored {
        head.extend(["accuracy", "NMI"]);
    }
    paragraphs([text.as_str()], "") + &table(&head, 1, &rows)
}

/// What was tried: what was chosen, then the rest by information.
fn candidates(record: &RunRecord) -> String {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let mut tried: Vec<&Value> = get("candidates").as_array().into_iter().flatten().collect();
    let chosen = get("chosen").as_u64().filter(|c| *c < tried.len() as u64).map(|c| tried.remove(c as usize));
    tried.sort_by(|a, b| b["information"].as_f64().unwrap_or(0.0).total_cmp(&a["information"].as_f64().unwrap_or(0.0)));
    tried.splice(0..0, chosen);
    // Where peaks of density were tried, what they and others were judged by.
    let judged = tried.iter().any(|c| c["kept"].is_f64());
    let scored = tried.iter().any(|c| c["accuracy"].is_f64());
    let text = |v: &Value| v.as_str().unwrap_or("-").to_string();
    let rows: Vec<Vec<String>> = tried
        .iter()
        .take(MAX_CANDIDATES)
        .map(|c| {
            let mut row = vec![text(&c["preparation"]), text(&c["affinity"]), text(&c["recipe"])];
            row.push(c["neighbours"].as_u64().map_or("-".into(), count));
            row.push(c["information"].as_f64().map_or("-".into(), |v| significant(v, 4)));
            if judged {
                row.push(c["kept"].as_f64().map_or("-".into(), percent));
                row.push(c["agreement"].as_f64().map_or("-".into(), |v| significant(v, 3)));
            }
            if scored {
                row.push(c["accuracy"].as_f64().map_or("-".into(), percent));
                row.push(c["nmi"].as_f64().map_or("-".into(), |v| significant(v, 3)));
            }
            row
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut head = vec!["rows", "affinity", "recipe", "neighbours", "information across edges, nats"];
    if judged {
        head.extend(["kept by edges", "NMI with others of its kind"]);
    }
    if scored {
        head.extend(["accuracy", "NMI"]);
    }
    format!("<h3>What was tried</h3>\n{}", table(&head, 3, &rows))
}

/// The K curve, the map of ties and the spectra.
pub(crate) fn figures(record: &RunRecord) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    out.extend(curve(record).map(|svg| ("count", svg)));
    out.extend(ties(record).map(|svg| ("ties", svg)));
    out.extend(spectra(record).map(|svg| ("spectra", svg)));
    out
}

fn curve(record: &RunRecord) -> Option<String> {
    let tried = record.results.get("coding_length_curve")?.as_array().filter(|t| t.len() > 1)?;
    let points = |name: &str| -> Vec<(f64, f64)> {
        tried.iter().filter_map(|t| Some((t["clusters"].as_f64()?, t[name].as_f64()?))).collect()
    };
    let by = record.results.get("chosen_by").and_then(Value::as_str).unwrap_or_default();
    let across = by.starts_with("information across edges");
    let (title, unit) = match across {
        true => ("Information across edges, less its price, by number of clusters", "nats"),
        false => ("Coding length by number of clusters", "bits per row"),
    };
    let fewer = by == "coding length of fewer components";
    let series = match across {
        true => vec![("information less its price", points("gain"), false)],
        false => vec![("all components", points("bits"), !fewer), ("half of them", points("coarse_bits"), fewer)],
    };
    let all = || series.iter().flat_map(|s| &s.1);
    let x = Axis::log("clusters", all().map(|p| p.0), plain);
    let mut chart = Chart::new(title, x, Axis::linear(unit, all().map(|p| p.1), plain).padded(0.08));
    for (colour, (name, points, decides)) in SERIES.iter().zip(&series) {
        if !points.is_empty() {
            chart.name(colour, &if *decides { format!("{name} (decides)") } else { name.to_string() });
            chart.line(colour, points);
        }
    }
    Some(chart.svg())
}

fn ties(record: &RunRecord) -> Option<String> {
    let rows = record.results.get("ties")?.as_array().filter(|r| (2..=MAX_LISTED).contains(&r.len()))?;
    let labels: Vec<String> = (0..rows.len()).map(|c| c.to_string()).collect();
    Some(heat("Membership between clusters", ["rows of cluster", "tied to rows of cluster"], &labels, |i, j| {
        let share = rows[i][j].as_f64().filter(|v| *v > 0.0005)?;
        Some((share, format!("{:.0}", 100.0 * share)))
    }))
}

fn spectra(record: &RunRecord) -> Option<String> {
    let spectra = record.results.get("spectra")?.as_array()?;
    let lines: Vec<Vec<(f64, f64)>> = spectra
        .iter()
        .take(SERIES.len())
        .map(|s| {
            s.as_array()
                .into_iter()
                .flatten()
                .enumerate()
                .filter_map(|(i, v)| Some((i as f64 + 1.0, v.as_f64()?)))
                .collect()
        })
        .filter(|line: &Vec<_>| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return None;
    }
    let all = || lines.iter().flatten();
    let x = Axis::linear("direction", all().map(|p| p.0), plain);
    let y = Axis::linear("share of the squares", all().map(|p| p.1).chain([0.0]), percent_tick);
    let mut chart = Chart::new("Spectra of the largest clusters", x, y);
    for (c, (line, series)) in lines.iter().zip(SERIES).enumerate() {
        chart.name(series, &format!("cluster {c}"));
        chart.line(series, line);
    }
    Some(chart.svg())
}

fn caption(name: &str, record: &RunRecord) -> String {
    let get = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    match name {
        "count" => {
            let text = match get("chosen_by").as_str() {
                Some(by) if by.starts_with("information across edges") => {
                    "What the cluster at one end of an edge of the graph says of the other, less a price for each nat of the clusters' entropy; more is better."
                }
                _ => {
                    "Bits per row that the clusters need, with the code of the labels, on features that clustering did not shape; less is better."
                }
            };
            match (get("interval")[0].as_u64(), get("interval")[1].as_u64()) {
                (Some(low), Some(high)) => format!("{text} Numbers from {low} to {high} are not told apart by it."),
                _ => text.into(),
            }
        }
        "ties" => "Percentage of the membership of a cluster's rows (down) that lies on rows of a cluster (across).".into(),
        _ => "Share of the squares of a cluster's unit rows along its leading directions: how few of them a cluster needs.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_becomes_figures_and_tables_and_one_without_results_none() {
        let mut record = RunRecord::new("cluster", 0, 1);
        assert!(figures(&record).is_empty());
        record.result("clusters", 2);
        record.result("sizes", [5, 3]);
        record.result("ranks", [1, 2]);
        record.result("interval", [2, 3]);
        record.result("ties", json!([[0.9, 0.1], [0.2, 0.8]]));
        record.result("spectra", json!([[0.9, 0.1], [0.6, 0.4]]));
        record.result(
            "coding_length_curve",
            json!([{"clusters": 2, "bits": 3.0, "coarse_bits": 2.0}, {"clusters": 3, "bits": 3.5, "coarse_bits": 2.5}]),
        );
        record.result("candidates", json!([{"preparation": "<b>", "affinity": "cosine", "recipe": "spectral", "neighbours": 15, "information": 1.5}]));
        let names: Vec<&str> = figures(&record).iter().map(|f| f.0).collect();
        assert_eq!(names, ["count", "ties", "spectra"]);
        let curve = figures(&record)[0].1.clone();
        assert!(curve.contains("Coding length") && curve.contains("all components (decides)"));
        record.result("chosen_by", "information across edges");
        record.result("coding_length_curve", json!([{"clusters": 2, "gain": 0.1}, {"clusters": 3, "gain": 0.2}]));
        assert!(figures(&record)[0].1.contains("Information across edges"));
        let body = section(&record).body;
        assert!(body.contains("2 to 3") && body.contains("&lt;b&gt;") && !body.contains("NaN"));
    }
}
