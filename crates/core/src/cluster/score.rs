//! How well labels agree with true ones; what names the clusters have does not matter.

use crate::assign::lap::minimize;

/// Agreement of two labellings of the same rows.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Agreement {
    /// Share of rows that agree under the best one-to-one naming.
    pub accuracy: f64,
    /// Mutual information over the mean entropy.
    pub nmi: f64,
    /// Rand index, adjusted for chance.
    pub ari: f64,
}

/// Compares labels with true ones.
///
/// # Panics
/// If there are not as many of the one as of the other, or none.
///
/// ```
/// let found = subspan::cluster::agreement(&[0, 0, 1, 1], &[5, 5, 2, 2]);
/// assert_eq!((found.accuracy, found.nmi, found.ari), (1.0, 1.0, 1.0));
/// ```
pub fn agreement(labels: &[u32], truth: &[u32]) -> Agreement {
    assert!(labels.len() == truth.len() && !labels.is_empty(), "as many labels as truths");
    let table = Table::of(labels, truth);
    Agreement { accuracy: table.accuracy(), nmi: table.nmi(), ari: table.ari() }
}

/// Mutual information of two labellings over their mean entropy.
pub(crate) fn nmi(a: &[u32], b: &[u32]) -> f64 {
    Table::of(a, b).nmi()
}

/// Their Rand index, adjusted for chance.
pub(crate) fn ari(a: &[u32], b: &[u32]) -> f64 {
    Table::of(a, b).ari()
}

/// Counts of every pair of labels.
struct Table {
    counts: Vec<f64>,
    n_rows: usize,
    n_cols: usize,
    total: f64,
}

impl Table {
    fn of(a: &[u32], b: &[u32]) -> Self {
        let size = |labels: &[u32]| labels.iter().max().map_or(0, |m| *m as usize + 1);
        let (n_rows, n_cols) = (size(a), size(b));
        let mut counts = vec![0.0; n_rows * n_cols];
        for (i, j) in a.iter().zip(b) {
            counts[*i as usize * n_cols + *j as usize] += 1.0;
        }
        Self { counts, n_rows, n_cols, total: a.len() as f64 }
    }

    fn row_sums(&self) -> Vec<f64> {
        self.counts.chunks_exact(self.n_cols).map(|r| r.iter().sum()).collect()
    }

    fn col_sums(&self) -> Vec<f64> {
        (0..self.n_cols).map(|j| (0..self.n_rows).map(|i| self.counts[i * self.n_cols + j]).sum()).collect()
    }

    /// `2 I / (H + H')`.
    fn nmi(&self) -> f64 {
        let (rows, cols) = (self.row_sums(), self.col_sums());
        let entropy = |sums: &[f64]| -> f64 {
            sums.iter().filter(|s| **s > 0.0).map(|s| -(s / self.total) * (s / self.total).ln()).sum()
        };
        let mut information = 0.0;
        for i in 0..self.n_rows {
            for j in 0..self.n_cols {
                let count = self.counts[i * self.n_cols + j];
                if count > 0.0 {
                    information += count / self.total * (count * self.total / (rows[i] * cols[j])).ln();
                }
            }
        }
        let both = entropy(&rows) + entropy(&cols);
        if both == 0.0 { 1.0 } else { (2.0 * information / both).clamp(0.0, 1.0) }
    }

    fn ari(&self) -> f64 {
        let pairs = |sums: &[f64]| sums.iter().map(|s| s * (s - 1.0) / 2.0).sum::<f64>();
        let (rows, cols, both) = (pairs(&self.row_sums()), pairs(&self.col_sums()), pairs(&self.counts));
        let all = self.total * (self.total - 1.0) / 2.0;
        let expected = if all > 0.0 { rows * cols / all } else { 0.0 };
        let most = 0.5 * (rows + cols);
        if most == expected { 1.0 } else { (both - expected) / (most - expected) }
    }

    fn accuracy(&self) -> f64 {
        let costs: Vec<f64> = self.counts.iter().map(|c| -c).collect();
        // Counts are finite, so there is a best naming.
        minimize(&costs, self.n_cols, None).map_or(0.0, |best| -best.certificate.value / self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_definitions() {
        // As computed by hand: table [[2, 1], [0, 3]].
        let a = agreement(&[0, 0, 0, 1, 1, 1], &[0, 0, 1, 1, 1, 1]);
        assert!((a.accuracy - 5.0 / 6.0).abs() < 1e-12);
        let h = |p: f64| -p * p.ln();
        let information = 2.0 / 6.0 * 2f64.ln() + 1.0 / 6.0 * 0.5f64.ln() + 0.5 * 1.5f64.ln();
        let entropies = 2.0 * h(0.5) + h(2.0 / 6.0) + h(4.0 / 6.0);
        assert!((a.nmi - 2.0 * information / entropies).abs() < 1e-12);
        // Pairs together in both: 1 + 3; rows 3 + 3, columns 1 + 6, all 15.
        assert!((a.ari - (4.0 - 42.0 / 15.0) / (6.5 - 42.0 / 15.0)).abs() < 1e-12);
        assert_eq!(agreement(&[0, 0], &[1, 1]).nmi, 1.0);
        assert_eq!(agreement(&[0, 1, 2, 3], &[0, 0, 1, 1]).accuracy, 0.5);
    }
}
