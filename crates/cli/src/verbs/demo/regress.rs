//! Chapter one: the typical flight (l1), the average flight (l2) and the bad day (the 90 % quantile), over all flights.

use serde_json::{Value, json};
use subspan::RowSource;
use subspan::regress::{self, Config, Fit, Loss, Mode};
use subspan_report::significant;

use super::Chapter;
use super::flights::{Flights, TARGET};
use crate::describe;
use crate::failure::Failure;
use crate::session::Session;

/// Fits all flights three ways, and keeps the l1 optimum for the chapters to come.
pub(super) fn chapter(flights: &mut Flights, session: &Session) -> Result<Chapter, Failure> {
    let watch = session.watch();
    let table = flights.table()?;
    let fits = [
        ("l1 (median)", Loss::L1, Mode::Exact),
        ("l2 (mean)", Loss::L2, Mode::Full),
        ("quantile 0.9", Loss::Quantile { levels: vec![0.9] }, Mode::Exact),
    ];
    let mut found: Vec<Fit> = Vec::new();
    let mut entries: Vec<Value> = Vec::new();
    let mut warnings = Vec::new();
    for (label, loss, mode) in fits {
        let config = Config { loss, mode, intercept: true, certify: true };
        let outcome = regress::run(&table, &config, session.seed, &watch)?;
        for mut entry in describe::fits(&outcome, &flights.names, label) {
            entry["label"] = json!(label);
            entries.push(entry);
        }
        warnings.extend(outcome.warnings);
        found.extend(outcome.fits);
    }
    watch.phase("describe");
    let (scale, residuals) = describe::spread(&table, &found, &watch)?;
    for (entry, residuals) in entries.iter_mut().zip(residuals) {
        entry["residuals"] = json!(residuals);
    }
    let story = story(flights, &found, &scale, table.n_rows().unwrap_or(0));

    let mut record = session.record("regress");
    record.inputs.push(flights.input.clone());
    record.configure("target", TARGET);
    record.configure("intercept", true);
    record.configure("columns", &flights.names);
    let l1 = &found[0];
    record.result("objective", l1.objective);
    record.result("relative_gap", l1.relative_gap);
    record.result("rows_used", &entries[0]["rows_used"]);
    record.result("iterations", l1.iterations);
    record.result("fits", entries);
    record.result("column_scale", describe::by_name(&flights.names, &scale));
    record.result("warnings", warnings);
    record.result("story", story);
    session.close(&mut record, &watch);
    let mut x = l1.coefficients.clone();
    x.push(l1.intercept);
    flights.optimum = Some((x, l1.objective));
    Ok(Chapter { title: "robust fit", record })
}

fn story(flights: &Flights, fits: &[Fit], scale: &[f64], n: u64) -> Vec<String> {
    let [l1, l2, high, ..] = fits else { return Vec::new() };
    let gap = l1.relative_gap.map_or_else(String::new, |g| format!(", proved optimal to a relative gap of {g:.0e}"));
    let mut out = vec![format!(
        "The l1 fit over all flights is off by {} minutes per flight on average{gap}.",
        significant(l1.objective / n as f64, 3)
    )];
    let effect = |fit: &Fit, column: &str| {
        let i = flights.names.iter().position(|name| name == column)?;
        Some(fit.coefficients[i] * scale[i])
    };
    let signed = |v: f64| format!("{v:+.1}");
    if let (Some(a), Some(b), Some(c)) = (effect(l1, "hour"), effect(l2, "hour"), effect(high, "hour")) {
        out.push(format!(
            "Leaving later in the day (one standard deviation) adds {} minutes to the typical flight, {} to the average one \
             and {} to the worst in ten: delays pile up on bad days, and the mean follows them.",
            signed(a),
            signed(b),
            signed(c)
        ));
    }
    if let (Some(a), Some(b)) = (effect(l1, "precip"), effect(l2, "precip")) {
        out.push(format!(
            "Rain adds {} minutes per standard deviation in the least-squares fit, {} in the l1 fit.",
            signed(b),
            signed(a)
        ));
    }
    out
}
