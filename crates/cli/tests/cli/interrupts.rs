//! Ctrl-C: exit code 130, of a polite kill 143, and nothing half-written.
#![cfg(unix)]

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::npy::npy;
use crate::place::Place;

/// Starts the program, waits until it has opened its output, and sends `signals` to it.
fn interrupted(place: &Place, call: &str, signals: &[&str]) -> Output {
    let child = place.command(call).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let opened = |directory: &str| place.files_in(directory).iter().any(|f| f.ends_with(".partial"));
    let anywhere = || opened("") || (place.path("out").exists() && opened("out"));
    while !anywhere() {
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
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let place = Place::new();
        long_table(&place, 400_000);
        let output =
            interrupted(&place, "sample t.npy --rows 5000 -p 1 --rule lewis -o s.parquet --report r.html", &[signal]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(text, "error: interrupted\n");
        assert!(output.stdout.is_empty());
        assert_eq!(place.files(), ["t.npy"]);
    }
}

#[test]
fn work_that_does_not_look_up_is_stopped_by_a_second_interrupt_or_after_a_while() {
    for (signals, code) in [(&["-INT", "-INT"][..], 130), (&["-INT"], 130), (&["-TERM"], 143)] {
        for call in ["sample t.npy --rows 5 -o s.parquet", "cluster t.npy -o out"] {
            let place = Place::new();
            // Reading a pipe that nobody fills waits for ever.
            assert!(Command::new("mkfifo").arg(place.path("t.npy")).status().unwrap().success());
            let output = interrupted(&place, call, signals);
            assert_eq!(output.status.code(), Some(code), "{call}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "error: interrupted\n", "{call}");
            assert_eq!(place.files(), ["t.npy"], "{call}");
        }
    }
}

/// A pair of checkpoints whose matching takes a while.
fn wide_models(place: &Place) {
    const WIDTH: usize = 400;
    let shapes = [
        ("l0.weight", [WIDTH, 300]),
        ("l1.weight", [WIDTH, WIDTH]),
        ("l2.weight", [WIDTH, WIDTH]),
        ("l3.weight", [9, WIDTH]),
    ];
    for (seed, name) in ["a", "b", "c"].into_iter().enumerate() {
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        for (tensor, [rows, columns]) in shapes {
            let start = data.len();
            let value = |k: usize| {
                (k as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15 + 2 * seed as u64).wrapping_mul(0xBF58_476D_1CE4_E5B9)
                    >> 40
            };
            data.extend((0..rows * columns).flat_map(|k| (value(k) as f32 / (1u64 << 23) as f32 - 1.0).to_le_bytes()));
            entries.push(format!(
                r#""{tensor}":{{"dtype":"F32","shape":[{rows},{columns}],"data_offsets":[{start},{}]}}"#,
                data.len()
            ));
        }
        let header = format!("{{{}}}", entries.join(","));
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        std::fs::write(place.path(&format!("{name}.safetensors")), bytes).unwrap();
    }
}

#[test]
fn an_interrupted_match_or_merge_leaves_nothing() {
    for call in [
        "match a.safetensors b.safetensors -o out --restarts 5000",
        "merge a.safetensors b.safetensors c.safetensors -o m.safetensors --restarts 5000",
    ] {
        let place = Place::new();
        wide_models(&place);
        let before = place.files();
        let output = interrupted(&place, call, &["-INT"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{text}");
        assert_eq!(place.files(), before);
        assert!(!place.path("out").exists());
    }
}

#[test]
fn a_killed_merge_leaves_no_output_under_its_name() {
    let place = Place::new();
    wide_models(&place);
    // Nothing can clean up after this signal, but what is there is not taken for an output.
    let output = interrupted(&place, "merge a.safetensors b.safetensors -o m.safetensors --restarts 5000", &["-KILL"]);
    assert!(!output.status.success() && !place.path("m.safetensors").exists());
    let left: Vec<String> = place.files().into_iter().filter(|f| !f.ends_with(".safetensors")).collect();
    assert!(left.iter().all(|f| f.ends_with(".partial")), "{left:?}");
}
