//! What every run has: configuration, inputs, times, memory.

use std::fmt::Write;

use serde_json::Value;
use subspan::RunRecord;

use crate::Section;
use crate::page::table;
use crate::text::{bytes, count, duration, escape};

/// The run details of all records, the last section of every report.
pub(crate) fn section(records: &[RunRecord]) -> Section {
    Section { title: "Run details".into(), body: records.iter().map(one).collect() }
}

fn one(record: &RunRecord) -> String {
    let mut out = format!("<h3>subspan {}</h3>\n", escape(&record.command));
    let mut rows = vec![
        vec!["version".into(), record.subspan.clone()],
        vec!["seed".into(), record.seed.to_string()],
        vec!["threads".into(), record.threads.to_string()],
    ];
    rows.extend(record.config.iter().map(|(k, v)| vec![k.clone(), plain(v)]));
    if let Some(peak) = record.peak_rss_bytes {
        rows.push(vec!["peak memory".into(), bytes(peak)]);
    }
    out.push_str(&table(&["setting", "value"], 2, &rows));
    if !record.inputs.is_empty() {
        let inputs: Vec<Vec<String>> = record
            .inputs
            .iter()
            .map(|i| {
                let shape: Vec<String> = i.shape.iter().map(|n| count(*n)).collect();
                vec![i.path.clone(), shape.join(" x "), i.dtype.clone(), i.fingerprint.clone()]
            })
            .collect();
        out.push_str(&table(&["input", "shape", "type", "fingerprint"], 4, &inputs));
    }
    out.push_str(&times(record));
    out
}

/// Phases, longest first, as bars against the total.
fn times(record: &RunRecord) -> String {
    let mut phases: Vec<(&str, f64)> =
        record.seconds.iter().filter(|(name, _)| *name != "total").map(|(n, s)| (n.as_str(), *s)).collect();
    phases.sort_by(|a, b| b.1.total_cmp(&a.1));
    let sum: f64 = phases.iter().map(|(_, s)| s).sum();
    let total = record.seconds.get("total").copied().unwrap_or(sum);
    if total <= 0.0 {
        return String::new();
    }
    let mut out = String::from("<div class=\"time\">");
    for (name, seconds) in phases.into_iter().chain([("total", total)]) {
        let _ = write!(
            out,
            "<span>{}</span><span>{}</span><i style=\"width:{:.1}%\"></i>",
            escape(name),
            duration(seconds),
            (100.0 * seconds / total).min(100.0)
        );
    }
    out.push_str("</div>\n");
    out
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Null => "none".into(),
        other => other.to_string(),
    }
}
