//! Timing: cases are run in turn, several rounds, so that a slow moment of the machine hits all of them alike.

use std::time::Instant;

use serde_json::{Value, json};

/// What is reported of the seconds of one case.
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Runs every case once to warm up, then `rounds` times in turn; the seconds of each case, raw.
pub(crate) fn interleaved(rounds: usize, cases: &mut [Box<dyn FnMut() + '_>]) -> Vec<Vec<f64>> {
    let mut seconds = vec![Vec::with_capacity(rounds); cases.len()];
    for round in 0..=rounds {
        for (case, seconds) in cases.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            case();
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    seconds
}

/// Median and range of raw seconds.
pub(crate) fn summary(raw: &[f64]) -> Summary {
    let mut sorted = raw.to_vec();
    sorted.sort_by(f64::total_cmp);
    Summary { median: sorted[sorted.len() / 2], min: sorted[0], max: sorted[sorted.len() - 1] }
}

/// The machine and version, for the head of a JSON file.
pub(crate) fn machine() -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split(':').nth(1)?.trim().to_owned())
    });
    json!({
        "subspan": env!("CARGO_PKG_VERSION"),
        "cpu": cpu,
        "threads": std::thread::available_parallelism().map_or(1, usize::from),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
    })
}
