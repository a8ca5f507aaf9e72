//! Fits by name, the spread of their residuals, and the scale of the columns.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use subspan::regress::{Fit, Outcome};
use subspan::{Observer, Result, RowSource, rows};

/// Values by column name, in order.
pub(crate) fn by_name(names: &[String], values: &[f64]) -> Value {
    let entries: Map<String, Value> = names.iter().cloned().zip(values.iter().map(|v| json!(v))).collect();
    Value::Object(entries)
}

/// The fits as the report draws them.
pub(crate) fn fits(outcome: &Outcome, names: &[String], loss: &str) -> Vec<Value> {
    let one = |fit: &Fit| {
        json!({
            "label": fit.quantile.map_or_else(|| loss.to_string(), |q| format!("quantile {q}")),
            "quantile": fit.quantile,
            "intercept": fit.intercept,
            "coefficients": by_name(names, &fit.coefficients),
            "objective": fit.objective,
            "relative_gap": fit.relative_gap,
            "rows_used": outcome.rows_used,
            "iterations": fit.iterations,
        })
    };
    outcome.fits.iter().map(one).collect()
}

/// Order statistics of absolute residuals over all rows; all but the largest to within a 64th.
#[derive(Debug, Serialize)]
pub(crate) struct Residuals {
    median: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

/// One more pass over a table whose last column is the target: what one coefficient of each column is multiplied with to be
/// comparable (the standard deviation; 1 for a column of zeros and ones), and each fit's residuals.
pub(crate) fn spread(
    source: &dyn RowSource,
    fits: &[Fit],
    observer: &dyn Observer,
) -> Result<(Vec<f64>, Vec<Residuals>)> {
    let d = source.n_cols() - 1;
    let init = || (vec![Moments::default(); d], vec![Histogram::default(); fits.len()]);
    let (columns, residuals) = rows::fold(
        source,
        observer,
        init,
        |(columns, residuals), block| {
            for i in 0..block.n_rows() {
                let row = block.row(i);
                columns.iter_mut().zip(row).for_each(|(c, v)| c.add(*v));
                for (histogram, fit) in residuals.iter_mut().zip(fits) {
                    let fitted: f64 = fit.coefficients.iter().zip(row).map(|(c, v)| c * v).sum();
                    histogram.add((row[d] - fit.intercept - fitted).abs());
                }
            }
            Ok(())
        },
        |(columns, residuals), (other_columns, other_residuals)| {
            columns.iter_mut().zip(other_columns).for_each(|(c, o)| c.merge(&o));
            residuals.iter_mut().zip(other_residuals).for_each(|(h, o)| h.merge(o));
        },
    )?;
    Ok((columns.iter().map(Moments::scale).collect(), residuals.iter().map(Histogram::summary).collect()))
}

/// Mean and sum of squared deviations, mergeable (Chan, Golub, LeVeque 1979).
#[derive(Debug, Clone, Default)]
struct Moments {
    n: f64,
    mean: f64,
    squares: f64,
    /// Whether a value other than 0 and 1 was seen.
    numeric: bool,
}

impl Moments {
    fn add(&mut self, v: f64) {
        self.n += 1.0;
        let before = v - self.mean;
        self.mean += before / self.n;
        self.squares += before * (v - self.mean);
        self.numeric |= v != 0.0 && v != 1.0;
    }

    fn merge(&mut self, other: &Self) {
        let n = self.n + other.n;
        if n > 0.0 {
            let step = other.mean - self.mean;
            self.squares += other.squares + step * step * self.n * other.n / n;
            self.mean += step * other.n / n;
            self.n = n;
        }
        self.numeric |= other.numeric;
    }

    fn scale(&self) -> f64 {
        if self.numeric { (self.squares / self.n).sqrt() } else { 1.0 }
    }
}

/// Bins per factor of two.
const BINS_PER_OCTAVE: f64 = 32.0;

/// Counts of positive numbers by the logarithm.
#[derive(Debug, Clone, Default)]
struct Histogram {
    zeros: u64,
    bins: BTreeMap<i32, u64>,
    max: f64,
}

impl Histogram {
    fn add(&mut self, v: f64) {
        self.max = self.max.max(v);
        if v > 0.0 {
            *self.bins.entry((v.log2() * BINS_PER_OCTAVE).floor() as i32).or_default() += 1;
        } else {
            self.zeros += 1;
        }
    }

    fn merge(&mut self, other: Self) {
        self.zeros += other.zeros;
        self.max = self.max.max(other.max);
        for (bin, n) in other.bins {
            *self.bins.entry(bin).or_default() += n;
        }
    }

    fn quantile(&self, share: f64) -> f64 {
        let all = self.zeros + self.bins.values().sum::<u64>();
        let wanted = (all as f64 * share).ceil() as u64;
        let mut below = self.zeros;
        if below >= wanted {
            return 0.0;
        }
        for (bin, n) in &self.bins {
            below += n;
            if below >= wanted {
                return ((f64::from(*bin) + 0.5) / BINS_PER_OCTAVE).exp2().min(self.max);
            }
        }
        self.max
    }

    fn summary(&self) -> Residuals {
        Residuals { median: self.quantile(0.5), p90: self.quantile(0.9), p99: self.quantile(0.99), max: self.max }
    }
}

#[cfg(test)]
mod tests {
    use subspan::{DenseRows, Silent};

    use super::*;

    #[test]
    fn spread_of_a_known_table() {
        // Columns: 0/1, 0..3, target = 2 * second + {1, 0}: residuals of the fit "2 * second" are 1 and 0.
        let values: Vec<f64> = (0..4000)
            .flat_map(|i| {
                let x = f64::from(i % 4);
                [f64::from(i % 2), x, 2.0 * x + f64::from(u8::from(i >= 1000))]
            })
            .collect();
        let table = DenseRows::new(&values, 3).unwrap();
        let fit = Fit {
            quantile: None,
            intercept: 0.0,
            coefficients: vec![0.0, 2.0],
            objective: 0.0,
            relative_gap: None,
            iterations: 0,
        };
        let (scale, residuals) = spread(&table, &[fit], &Silent).unwrap();
        assert_eq!(scale[0], 1.0);
        assert!((scale[1] - 1.25f64.sqrt()).abs() < 1e-12);
        let r = &residuals[0];
        assert!((r.median - 1.0).abs() < 1.0 / 64.0 && r.max == 1.0);
    }

    #[test]
    fn a_histogram_knows_its_quantiles() {
        let mut left = Histogram::default();
        let mut right = Histogram::default();
        (0..1000).for_each(|i| if i % 2 == 0 { left.add(f64::from(i)) } else { right.add(f64::from(i)) });
        left.merge(right);
        for share in [0.1, 0.5, 0.9] {
            assert!((left.quantile(share) / (1000.0 * share) - 1.0).abs() < 1.0 / 64.0 + 1e-3);
        }
        assert_eq!((left.quantile(0.0), left.max), (0.0, 999.0));
    }
}
