//! An axis: values to positions, and ticks that people would choose.

use crate::text::significant;

/// One axis of a chart.
pub(crate) struct Axis {
    pub(crate) label: String,
    log: bool,
    min: f64,
    max: f64,
    format: fn(f64) -> String,
}

impl Axis {
    /// A linear axis that covers `values`.
    pub(crate) fn linear(label: &str, values: impl IntoIterator<Item = f64>, format: fn(f64) -> String) -> Self {
        let (min, max) = range(values.into_iter());
        let (min, max) = if min < max { (min, max) } else { (min - 0.5, max + 0.5) };
        Self { label: label.into(), log: false, min, max, format }
    }

    /// A logarithmic axis that covers the positive ones of `values`.
    pub(crate) fn log(label: &str, values: impl IntoIterator<Item = f64>, format: fn(f64) -> String) -> Self {
        let (min, max) = range(values.into_iter().filter(|v| *v > 0.0));
        let (min, max) = if min <= 0.0 { (1.0, 10.0) } else { (min, max) };
        let (min, max) = if min < max { (min, max) } else { (min / 2.0, max * 2.0) };
        Self { label: label.into(), log: true, min, max, format }
    }

    /// The same axis, widened to both sides by `share` of its length.
    pub(crate) fn padded(mut self, share: f64) -> Self {
        if self.log {
            let factor = (self.max / self.min).powf(share);
            self.min /= factor;
            self.max *= factor;
        } else {
            let pad = (self.max - self.min) * share;
            self.min -= pad;
            self.max += pad;
        }
        self
    }

    /// Position of `v`: 0 at the start, 1 at the end; values beyond an end are put there.
    pub(crate) fn at(&self, v: f64) -> f64 {
        let share = if self.log {
            if v <= 0.0 { 0.0 } else { (v / self.min).ln() / (self.max / self.min).ln() }
        } else {
            (v - self.min) / (self.max - self.min)
        };
        share.clamp(0.0, 1.0)
    }

    /// Ticks with their labels, in order.
    pub(crate) fn ticks(&self) -> Vec<(f64, String)> {
        let values = if self.log { self.log_ticks() } else { self.linear_ticks() };
        values.into_iter().map(|v| (v, (self.format)(v))).collect()
    }

    fn linear_ticks(&self) -> Vec<f64> {
        const ABOUT: f64 = 6.0;
        let raw = (self.max - self.min) / ABOUT;
        let decade = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * decade).into_iter().find(|s| *s >= raw).unwrap_or(10.0 * decade);
        let first = (self.min / step - 1e-9).ceil() as i64;
        let last = (self.max / step + 1e-9).floor() as i64;
        (first..=last).map(|k| k as f64 * step).collect()
    }

    fn log_ticks(&self) -> Vec<f64> {
        let decades = (self.max / self.min).log10();
        let steps: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every = if decades > 8.0 { (decades / 6.0).ceil() as i32 } else { 1 };
        let first = self.min.log10().floor() as i32;
        let last = self.max.log10().ceil() as i32;
        (first..=last)
            .filter(|e| e.rem_euclid(every) == 0)
            .flat_map(|e| steps.iter().map(move |s| s * 10f64.powi(e)))
            .filter(|v| *v >= self.min * (1.0 - 1e-9) && *v <= self.max * (1.0 + 1e-9))
            .collect()
    }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|v| v.is_finite());
    let (min, max) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if min <= max { (min, max) } else { (0.0, 0.0) }
}

/// A plain tick label.
pub(crate) fn plain(v: f64) -> String {
    let text = significant(v, 3);
    match text.contains('.') && !text.contains('e') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// A tick label of a share.
pub(crate) fn percent(v: f64) -> String {
    format!("{} %", plain(100.0 * v))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_numbers_inside() {
        assert_eq!(labels(&Axis::linear("", [0.0, 10.0], plain)), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(
            labels(&Axis::log("", [0.001, 0.1], percent)),
            ["0.1 %", "0.2 %", "0.5 %", "1 %", "2 %", "5 %", "10 %"]
        );
        assert_eq!(labels(&Axis::log("", [1.0, 1e4], plain)), ["1", "10", "100", "1,000", "10,000"]);
    }

    #[test]
    fn degenerate_ranges_still_give_an_axis() {
        for axis in [Axis::linear("", [3.0], plain), Axis::log("", [], plain), Axis::linear("", [f64::NAN], plain)] {
            assert!(!axis.ticks().is_empty());
            assert!((0.0..=1.0).contains(&axis.at(3.0)));
        }
    }
}
