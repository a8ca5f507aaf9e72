//! Ctrl-C: exit code 130, and nothing half-written.
#![cfg(unix)]

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::npy::npy;
use crate::place::Place;

/// Starts the program, waits until it has opened its output, and sends `signals` to it.
fn interrupted(place: &Place, call: &str, signals: &[&str]) -> Output {
    let child = place.command(call).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !place.files().iter().any(|f| f.ends_with(".partial")) {
        std::thread::sleep(Duration::from_millis(1));
    }
    for signal in signals {
        send(&child, signal);
        std::thread::sleep(Duration::from_millis(50));
    }
    child.wait_with_output().unwrap()
}

fn send(child: &Child, signal: &str) {
    // The program may be gone already at the second signal.
    let _ = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
}

/// A NumPy file of `rows` x 20 numbers, for work that takes a while.
fn long_table(place: &Place, rows: usize) {
    let values: Vec<f32> = (0..rows * 20).map(|i| (i * i % 1013) as f32 + (i % 7) as f32).collect();
    std::fs::write(place.path("t.npy"), npy(&values, 20)).unwrap();
}

#[test]
fn an_interrupt_stops_the_work_and_leaves_nothing() {
    for signal in ["-INT", "-TERM"] {
        let place = Place::new();
        long_table(&place, 400_000);
        let output =
            interrupted(&place, "sample t.npy --rows 5000 -p 1 --rule lewis -o s.parquet --report r.html", &[signal]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{text}");
        assert_eq!(text, "error: interrupted\n");
        assert!(output.stdout.is_empty());
        assert_eq!(place.files(), ["t.npy"]);
    }
}

#[test]
fn work_that_does_not_look_up_is_stopped_by_a_second_interrupt_or_after_a_while() {
    for signals in [&["-INT", "-INT"][..], &["-INT"]] {
        let place = Place::new();
        // Reading a pipe that nobody fills waits for ever.
        assert!(Command::new("mkfifo").arg(place.path("t.csv")).status().unwrap().success());
        let output = interrupted(&place, "sample t.csv --rows 5 -o s.parquet", signals);
        assert_eq!(output.status.code(), Some(130));
        assert_eq!(place.files(), ["t.csv"]);
    }
}
