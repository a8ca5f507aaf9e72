//! The report of `regress`: the fits side by side, with what is proved about each.
//!
//! Results it draws: `fits` [{label, objective, relative_gap, rows_used, iterations, intercept, coefficients {name: value},
//! residuals {median, p90, p99, max}}], `column_scale` {name: value}: what a coefficient is multiplied with to be comparable.

use serde_json::Value;
use subspan::RunRecord;

use super::sample::strings;
use crate::Section;
use crate::dots::dots;
use crate::page::{figure, paragraphs, table};
use crate::text::{count, percent, significant};

/// Most coefficients in the dot plot: the largest ones are shown.
const MAX_SHOWN: usize = 40;

/// The section of a `regress` record.
pub(crate) fn section(record: &RunRecord) -> Section {
    let results = |name: &str| record.results.get(name).unwrap_or(&Value::Null);
    let fits: Vec<&Value> = results("fits").as_array().into_iter().flatten().collect();
    let mut body = paragraphs(strings(results("story")), "");
    body.push_str(&paragraphs(strings(results("warnings")), "warn"));
    let head = ["fit", "objective over all rows", "proved gap to the optimum", "rows the solver saw", "iterations"];
    body.push_str(&table(&head, 1, &fits.iter().map(|f| overview(f)).collect::<Vec<_>>()));
    for (_, svg) in figures(record) {
        body.push_str(&figure(&svg, &caption(record)));
    }
    let residuals: Vec<Vec<String>> = fits.iter().filter_map(|f| residual(f)).collect();
    if !residuals.is_empty() {
        body.push_str("<h3>Absolute residuals over all rows</h3>\n");
        body.push_str(&table(&["fit", "median", "90 %", "99 %", "largest"], 1, &residuals));
    }
    Section { title: "Robust regression".into(), body }
}

fn overview(fit: &Value) -> Vec<String> {
    let whole = |name: &str| fit[name].as_u64().map_or("-".into(), count);
    vec![
        label(fit),
        fit["objective"].as_f64().map_or("-".into(), |v| significant(v, 8)),
        fit["relative_gap"].as_f64().map_or("not computed".into(), gap),
        whole("rows_used"),
        whole("iterations"),
    ]
}

/// A gap in words: proved optimal, or at most so much.
fn gap(g: f64) -> String {
    if g.abs() < 1e-4 { format!("{g:.1e}") } else { percent(g) }
}

fn residual(fit: &Value) -> Option<Vec<String>> {
    let of = |name: &str| fit["residuals"][name].as_f64().map(|v| significant(v, 3));
    Some(vec![label(fit), of("median")?, of("p90")?, of("p99")?, of("max")?])
}

fn label(fit: &Value) -> String {
    fit["label"].as_str().unwrap_or("fit").to_string()
}

/// The coefficients of all fits as a dot plot.
pub(crate) fn figures(record: &RunRecord) -> Vec<(&'static str, String)> {
    let Some(fits) = record.results.get("fits").and_then(Value::as_array) else { return Vec::new() };
    let names: Vec<&String> =
        fits.first().and_then(|f| f["coefficients"].as_object()).map_or(Vec::new(), |c| c.keys().collect());
    if names.is_empty() {
        return Vec::new();
    }
    let scale = record.results.get("column_scale").unwrap_or(&Value::Null);
    let effect = |fit: &Value, name: &str| {
        fit["coefficients"][name].as_f64().map_or(f64::NAN, |c| c * scale[name].as_f64().unwrap_or(1.0))
    };
    let mut rows: Vec<(String, Vec<f64>)> =
        names.iter().map(|name| ((*name).clone(), fits.iter().map(|f| effect(f, name)).collect())).collect();
    let size = |values: &[f64]| values.iter().copied().filter(|v| v.is_finite()).fold(0.0, |m: f64, v| m.max(v.abs()));
    rows.sort_by(|a, b| size(&b.1).total_cmp(&size(&a.1)));
    rows.truncate(MAX_SHOWN);
    let labels: Vec<String> = fits.iter().map(label).collect();
    let axis = match record.config.get("target").and_then(Value::as_str) {
        Some(target) => format!("effect on {target}"),
        None => "effect on the target".into(),
    };
    vec![("coefficients", dots("Coefficients of all fits", &axis, &labels, &rows))]
}

fn caption(record: &RunRecord) -> String {
    let scaled = record.results.contains_key("column_scale");
    let unit = if scaled {
        "Effect of one standard deviation of a numeric column, or of a category against the first one. "
    } else {
        "Coefficients, each in units of the target per unit of its column. "
    };
    format!("{unit}Largest effects first.")
}
