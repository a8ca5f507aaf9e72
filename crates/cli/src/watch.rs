//! The observer of a run: its clock, its progress bar, its stop button.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use subspan::{Event, Observer};

use crate::failure::say;
use crate::interrupt;
use crate::session::Voice;

/// How long a run may take before a bar appears.
const PATIENCE: Duration = Duration::from_millis(400);

/// Times the phases of one job and shows where it is.
pub(crate) struct Watch {
    started: Instant,
    voice: Voice,
    state: Mutex<State>,
}

struct State {
    phase: Option<(String, Instant)>,
    seconds: BTreeMap<String, f64>,
    bar: ProgressBar,
}

impl Watch {
    pub(crate) fn new(voice: Voice) -> Self {
        let bar = ProgressBar::hidden();
        Self { started: Instant::now(), voice, state: Mutex::new(State { phase: None, seconds: BTreeMap::new(), bar }) }
    }

    /// Begins a phase of the program itself.
    pub(crate) fn phase(&self, name: &str) {
        self.event(Event::Phase { name, total: None });
    }

    /// Ends the last phase: seconds per phase, and in total.
    pub(crate) fn stop(&self) -> BTreeMap<String, f64> {
        let mut state = self.state();
        self.end_phase(&mut state);
        state.bar.finish_and_clear();
        let mut seconds = state.seconds.clone();
        seconds.insert("total".into(), self.started.elapsed().as_secs_f64());
        seconds
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_phase(&self, state: &mut State) {
        if let Some((name, since)) = state.phase.take() {
            let seconds = since.elapsed().as_secs_f64();
            if self.voice == Voice::Verbose {
                state.bar.suspend(|| say(&format!("{name}: {}", subspan_report::duration(seconds))));
            }
            *state.seconds.entry(name).or_default() += seconds;
        }
    }

    fn begin_phase(&self, state: &mut State, name: &str, total: Option<u64>) {
        self.end_phase(state);
        state.phase = Some((name.into(), Instant::now()));
        state.bar.finish_and_clear();
        state.bar = if self.voice == Voice::Quiet || self.started.elapsed() < PATIENCE && total.is_none() {
            ProgressBar::hidden()
        } else {
            bar(name, total)
        };
    }
}

/// A bar (or a spinner) on stderr; hidden where that is no terminal.
fn bar(name: &str, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    let template = match total {
        Some(_) => "{msg:10} [{bar:36}] {percent:>3} %  {eta} left",
        None => "{msg:10} {spinner} {elapsed}",
    };
    // The templates are fixed; were one wrong, the default style does.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(name.to_string());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

impl Observer for Watch {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state();
        match event {
            Event::Phase { name, total } => self.begin_phase(&mut state, name, total),
            Event::Advance { steps } => state.bar.inc(steps),
            Event::Metric { name, value } if self.voice == Voice::Verbose => {
                state.bar.suspend(|| say(&format!("{name} = {}", subspan_report::significant(value, 6))));
            }
            Event::Metric { .. } => {}
        }
    }

    fn cancelled(&self) -> bool {
        interrupt::asked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_of_one_name_add_up_and_the_total_covers_them() {
        let watch = Watch::new(Voice::Quiet);
        for name in ["score", "draw", "score"] {
            watch.phase(name);
            watch.event(Event::Advance { steps: 1 });
        }
        let seconds = watch.stop();
        assert_eq!(seconds.keys().collect::<Vec<_>>(), ["draw", "score", "total"]);
        assert!(seconds["draw"] + seconds["score"] <= seconds["total"]);
    }
}
