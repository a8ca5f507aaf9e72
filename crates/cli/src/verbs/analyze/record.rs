//! What an analysis leaves in its record.

use serde_json::{Value, json};
use subspan::RunRecord;
use subspan::merge::analysis::Alignment;
use subspan_nets::analyze::{AnalyzeConfig, PairAnalysis, Several};
use subspan_report::{percent, significant};

/// The configuration.
pub(crate) fn configure(record: &mut RunRecord, config: &AnalyzeConfig) {
    record.configure("method", config.method);
    record.configure("gamma", config.gamma);
    record.configure("points", config.points);
    record.configure("tolerance", config.tolerance);
    record.configure("max_sweeps", config.matching.max_sweeps);
    record.configure("restarts", config.matching.restarts);
}

/// The results of the first two models.
pub(crate) fn pair(record: &mut RunRecord, found: &PairAnalysis, config: &AnalyzeConfig) {
    record.result("objective_before", found.before.objective());
    record.result("objective_after", found.after.objective());
    record.result("distance_before", found.before.distance());
    record.result("distance_after", found.after.distance());
    record.result("distance_reduction", found.distance_reduction());
    record.result("sweeps", found.sweeps);
    record.result("certified", found.certified);
    record.result("certificate_scope", found.certificate_scope);
    record.result("distances", found.distances());
    record.result("singular_values", &found.spectra);
    let at = found.alignment_at(config.gamma);
    record.result("alignment", at.map(alignment));
    record.result("alignment_curve", found.alignment.iter().map(curve_point).collect::<Vec<_>>());
    record.result("merged_alignment", json!({"gamma": config.gamma, "total": found.merged_alignment.total}));
    record.result("intervention", &found.intervention);
    let curve = found.curves.as_ref().map(|c| {
        let points = c.raw.iter().zip(&c.matched);
        points
            .map(|(r, m)| {
                json!({"alpha": r.alpha, "loss": r.loss, "accuracy": r.accuracy,
                       "matched_loss": m.loss, "matched_accuracy": m.accuracy})
            })
            .collect::<Vec<_>>()
    });
    record.result("curve", curve);
    let barriers = found.barriers();
    record.result("barrier", barriers.map(|[b, a]| json!({"before": b.loss, "after": a.loss})));
    record.result("midpoint_gap", barriers.map(|[b, a]| json!({"before": b.midpoint, "after": a.midpoint})));
    record.result("accuracy_drop", barriers.map(|[b, a]| json!({"before": b.accuracy, "after": a.accuracy})));
    record.result(
        "taylor",
        found.taylor.map(|pairs| {
            let [before, after] = pairs.map(|(estimate, truth)| json!({"estimate": estimate, "truth": truth}));
            json!({"before": before, "after": after})
        }),
    );
}

fn alignment([before, after]: &[Alignment; 2]) -> Value {
    let layers = before.per_layer.iter().zip(&after.per_layer);
    let per_layer: Vec<Value> = layers
        .map(|(b, a)| {
            json!({"name": b.name, "before": b.r, "after": a.r, "kept": b.kept,
                   "left": {"before": b.left, "after": a.left}, "right": {"before": b.right, "after": a.right}})
        })
        .collect();
    json!({"gamma": before.gamma, "total": {"before": before.total, "after": after.total}, "per_layer": per_layer})
}

fn curve_point([before, after]: &[Alignment; 2]) -> Value {
    json!({"gamma": before.gamma, "before": before.total, "after": after.total})
}

/// All pairs of more than two models.
pub(crate) fn several(record: &mut RunRecord, found: &Several, names: &[String]) {
    let pairs: Vec<Value> = found
        .pairs
        .iter()
        .map(|side| {
            let [a, b] = side.models;
            json!({"models": [names[a], names[b]], "distance_before": side.distance[0], "distance_after": side.distance[1],
                   "barrier": side.barrier.map(|[b, a]| json!({"before": b.loss, "after": a.loss}))})
        })
        .collect();
    record.result("pairs", pairs);
    let scores = |s: &subspan_nets::Scores| json!({"loss": s.loss, "accuracy": s.accuracy});
    record.result("alone", found.alone.iter().map(scores).collect::<Vec<_>>());
    record.result("mean", found.mean.as_ref().map(|[b, a]| json!({"before": scores(b), "after": scores(a)})));
}

/// Whether two models are connected, with the tolerance beside the word.
pub(super) fn verdict(barrier: f64, tolerance: f64) -> String {
    let word = if barrier <= tolerance { "linearly connected" } else { "not linearly connected" };
    format!("{word} at a tolerance of {tolerance} nats")
}

/// The outcome in sentences.
pub(crate) fn story(found: &PairAnalysis, config: &AnalyzeConfig) -> Vec<String> {
    let mut out = Vec::new();
    if let Some([raw, matched]) = found.barriers() {
        out.push(format!(
            "On the straight line between the models the loss rises {} nats above the line between their losses; after \
             matching, {}: {}.",
            significant(raw.loss, 3),
            significant(matched.loss, 3),
            verdict(matched.loss, config.tolerance)
        ));
    }
    let aligned = found.alignment_at(config.gamma).map_or(String::new(), |[b, a]| {
        format!(
            " What changes is which directions agree: R({}) goes from {:.3} to {:.3}.",
            config.gamma, b.total, a.total
        )
    });
    out.push(format!(
        "Matching brings the second model only {} closer to the first.{aligned}",
        percent(found.distance_reduction())
    ));
    if let Some(arms) = found.intervention.as_ref().map(|i| &i.arms) {
        let barrier = |name: &str| arms.iter().find(|a| a.arm == name).and_then(|a| Some((a, a.barrier?.loss)));
        if let (Some((top, t)), Some((_, b)), Some((_, c))) = (barrier("top"), barrier("bottom"), barrier("control")) {
            out.push(format!(
                "Matching on the {} of directions with the largest singular values alone gives a barrier of {}, on the \
                 others {}; the full matching, spoilt to the same distance as the latter, {}.",
                percent(top.directions),
                significant(t, 3),
                significant(b, 3),
                significant(c, 3)
            ));
        }
    }
    out
}
