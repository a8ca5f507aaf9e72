//! What the report draws of clusters: how they are tied, and typical images.

use subspan::RunRecord;
use subspan::cluster::Outcome;
use subspan_report::images;

/// Most clusters of which ties are drawn.
const MAX_TIES: usize = 40;
/// Most clusters of which images are drawn, and images of each.
const PICTURED: [usize; 2] = [24, 12];

/// Adds `ties` and, where rows are images of `shape`, `exemplars` to a record; `values` are the rows as read.
pub(crate) fn clusters(
    record: &mut RunRecord,
    outcome: &Outcome,
    values: &[f32],
    n_cols: usize,
    shape: Option<[usize; 3]>,
) {
    let k = outcome.clusters.len();
    if k <= MAX_TIES {
        record.result("ties", ties(outcome));
    }
    if let Some(shape) = shape {
        let [clusters, columns] = PICTURED;
        let mut pixels = Vec::new();
        let typical =
            outcome.clusters.iter().enumerate().take(clusters).filter_map(|(c, cluster)| Some((c, cluster.medoid?)));
        for (c, medoid) in typical {
            let mut rows: Vec<usize> =
                (0..outcome.labels.len()).filter(|i| outcome.labels[*i] as usize == c && *i != medoid).collect();
            rows.sort_by(|a, b| outcome.confidence[*b].total_cmp(&outcome.confidence[*a]).then(a.cmp(b)));
            // The typical row, then evenly from the surest to the least sure.
            let step = rows.len().div_ceil(columns).max(1);
            let mut shown = vec![medoid];
            shown.extend(rows.into_iter().step_by(step));
            // A short row would shift those below it: it is filled up with the typical one.
            shown.resize(columns, medoid);
            pixels.extend(shown.iter().flat_map(|i| &values[i * n_cols..(i + 1) * n_cols]).copied());
        }
        record.result("exemplars", images(shape, &pixels));
        record.result("exemplar_columns", columns);
    }
}

/// Share of the membership of each cluster's rows on the rows of every cluster.
fn ties(outcome: &Outcome) -> Vec<Vec<f64>> {
    let k = outcome.clusters.len();
    let mut mass = vec![vec![0.0; k]; k];
    for (i, label) in outcome.labels.iter().enumerate() {
        let (columns, values) = outcome.membership.row(i);
        for (j, v) in columns.iter().zip(values) {
            mass[*label as usize][outcome.labels[*j as usize] as usize] += f64::from(*v);
        }
    }
    for row in &mut mass {
        let total: f64 = row.iter().sum();
        if total > 0.0 {
            row.iter_mut().for_each(|v| *v /= total);
        }
    }
    mass
}
