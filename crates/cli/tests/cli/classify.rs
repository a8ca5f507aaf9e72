//! `subspan classify` and `subspan predict`.

use std::fmt::Write;

use crate::npy::{floats, npy};
use crate::place::Place;

/// Three classes of 4 values near a line of their own (scaled by `sign`), with labels from `names`.
fn lines(place: Place, name: &str, n: usize, names: [&str; 3], shift: usize) -> Place {
    let (mut csv, mut values) = (String::from("label\n"), Vec::new());
    let noise = |i: usize| ((i * 7919 + shift * 104_729) % 1000) as f32 / 1000.0 - 0.5;
    for i in 0..n {
        let class = i % 3;
        let length = if i % 2 == 0 { 1.0 } else { -1.0 } * (1.0 + noise(i).abs());
        values.extend((0..4).map(|j| if j == class { length } else { 0.1 * noise(4 * i + j) }));
        writeln!(csv, "{}", names[class]).unwrap();
    }
    place.file(&format!("{name}.csv"), csv).file(&format!("{name}.npy"), npy(&values, 4))
}

const NAMES: [&str; 3] = ["10", "20", "30"];
const TRAIN: &str = "classify train.npy --labels train.csv:label -k 1";

fn place() -> Place {
    lines(lines(Place::new(), "train", 240, NAMES, 0), "test", 90, NAMES, 1)
}

#[test]
fn a_classifier_is_trained_tested_and_used() {
    let place = place();
    let call = format!("{TRAIN} --test test.npy --test-labels test.csv:label --json -o m.safetensors");
    let record = place.run(&call).succeeds().record();
    let results = &record["results"];
    assert!(results["test_accuracy"].as_f64().unwrap() > 0.98 && results["train_accuracy"].as_f64().unwrap() > 0.98);
    assert!(results["test_ece"].as_f64().unwrap() < 0.1 && results["test_nll"].as_f64().unwrap() < 0.2, "{results}");
    assert!(results["temperature"].as_f64().unwrap() > 0.0);
    // Classes on both sides of zero have one mean: no half-space tells them apart.
    assert!(results["rivals"]["linear"].as_f64().unwrap() < 0.8, "{results}");
    assert!(results["rivals"]["clafic"].as_f64().unwrap() > 0.98 && results["rivals"]["lda"].is_f64());

    let predict = "predict m.safetensors test.npy -o l.npy --proba p.npy --ood s.npy --json";
    let record = place.run(predict).succeeds().record();
    assert_eq!(record["results"]["rows"], 90);
    let call = "predict m.safetensors test.npy -o none.npy --representation r.npy";
    place.run(call).fails().naming(&["m.safetensors", "classifier"]);
    assert!(!place.path("none.npy").exists());
    let labels = place.read("l.npy");
    let first: Vec<i64> = labels[labels.len() - 720..]
        .chunks_exact(8)
        .take(3)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(first, [10, 20, 30]);
    let (proba, strangeness) = (floats(&place.read("p.npy")), floats(&place.read("s.npy")));
    assert!(proba.chunks_exact(3).all(|p| (p.iter().sum::<f32>() - 1.0).abs() < 1e-5) && proba.len() == 270);
    assert!(strangeness.len() == 90 && strangeness.iter().all(|s| (0.0..=1.0).contains(s)));
}

#[test]
fn every_method_and_an_automatic_dimension_work_on_text_labels() {
    for flags in ["--method clafic", "--method linear", "-k auto --no-rivals", "--balanced --center --no-rivals"] {
        let place = lines(Place::new(), "train", 120, ["ant", "bee", "cat"], 0);
        let k = if flags.contains("-k") || flags.contains("linear") { "" } else { "-k 1" };
        place
            .run(&format!("classify train.npy --labels train.csv:label {k} {flags} -o m.safetensors"))
            .succeeds()
            .saying(&["3 classes", "held out", "m.safetensors"]);
        place.run("predict m.safetensors train.npy -o l.npy").succeeds().saying(&["l.npy"]);
        let text = String::from_utf8_lossy(&place.read("l.npy")).replace('\0', "");
        assert!(text.contains("<U3") && text.contains("ant"), "{flags}");
    }
}

#[test]
fn one_thread_and_two_give_the_same_bytes() {
    let place = place();
    for threads in [1, 2] {
        place.run(&format!("{TRAIN} --threads {threads} -q -o {threads}.safetensors")).succeeds();
    }
    assert_eq!(place.read("1.safetensors"), place.read("2.safetensors"));
}

#[test]
fn labels_that_do_not_fit_are_named_and_nothing_is_left() {
    let place = place()
        .file("one.csv", format!("label\n{}", "7\n".repeat(240)))
        .file("other.csv", format!("label\n{}", "10\n99\n".repeat(45)))
        .file("wide.npy", npy(&[1.0; 450], 5))
        .file("nan.npy", npy(&[1.0, 2.0, 3.0, f32::NAN], 2))
        .file("two.csv", "label\na\nb\n");
    let files = place.files();
    let left: Vec<&str> = files.iter().map(String::as_str).collect();
    for (call, words) in [
        ("classify train.npy --labels test.csv:label", &["test.csv:label", "90", "240"][..]),
        ("classify train.npy --labels one.csv:label", &["at least 2 classes", "label 7"]),
        ("classify nan.npy --labels two.csv:label", &["nan.npy", "row 1", "column 1"]),
        ("classify train.npy --labels train.csv:nope", &["nope"]),
        (
            "classify train.npy --labels train.csv:label --test test.npy --test-labels other.csv:label",
            &["99", "training"],
        ),
        (
            "classify train.npy --labels train.csv:label --test wide.npy --test-labels test.csv:label",
            &["5", "4", "columns"],
        ),
    ] {
        place.run(&format!("{call} -k 1 -o m.safetensors")).fails().naming(words).leaving(&left);
    }
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let place = place();
    for (flags, words) in [
        ("-k 0", &["k", "at least 1"][..]),
        ("-k 5", &["k", "at most 4"]),
        ("-k many", &["-k", "auto", "many"]),
        ("--method svm", &["svm", "gcr"]),
        ("--gamma 2e6", &["gamma", "1e6"]),
        ("--test test.npy", &["--test-labels"]),
    ] {
        let call = format!("classify train.npy --labels train.csv:label {flags} -o m.safetensors");
        place.run(&call).misuses().naming(words);
    }
    place.run("classify train.npy --labels train.csv:label -o train.npy").misuses().naming(&["train.npy", "input"]);
    place.run("predict m.safetensors train.npy -o p.npy --proba p.npy").misuses().naming(&["p.npy"]);
}

#[test]
fn models_that_are_none_or_do_not_fit_are_refused() {
    let place = place().file("bad.safetensors", "no model").file("wide.npy", npy(&[1.0; 10], 5));
    place.run("predict bad.safetensors train.npy -o l.npy").fails().naming(&["bad.safetensors", "corrupt"]);
    place.run("predict no.safetensors train.npy -o l.npy").fails().naming(&["no.safetensors", "cannot open"]);
    place.run(&format!("{TRAIN} --no-rivals -q -o m.safetensors")).succeeds();
    place.run("predict m.safetensors wide.npy -o l.npy").fails().naming(&["wide.npy", "5", "4"]);
    let whole = place.read("m.safetensors");
    let place = place.file("cut.safetensors", &whole[..whole.len() - 4]);
    place.run("predict cut.safetensors train.npy -o l.npy").fails().naming(&["cut.safetensors", "corrupt"]);
    assert!(!place.files().contains(&"l.npy".to_string()));
}

#[test]
fn training_starts_from_a_model_a_linear_head_or_a_layer_of_subspaces() {
    let place = place();
    place.run(&format!("{TRAIN} --no-rivals -o first.safetensors")).succeeds();
    let record =
        place.run(&format!("{TRAIN} --no-rivals --start first.safetensors --json -o m.safetensors")).succeeds();
    assert_eq!(record.record()["results"]["k"], 1);
    let other = "classify train.npy --labels train.csv:label -k 2 --no-rivals --start first.safetensors";
    place.run(&format!("{other} -o m2.safetensors")).fails().naming(&["first.safetensors", "dimension 1", "-k 2"]);
    // Too short for single precision to tell where it points.
    let place = place.file("short.npy", npy(&[1e-20; 960], 4));
    let short = "classify short.npy --labels train.csv:label --no-rivals";
    place.run(&format!("{short} -o m2.safetensors")).fails().naming(&["no sample has a direction", "scale"]);
    // A layer: three unit rows, one per class, as the published checkpoints group them.
    let axes: Vec<f32> = (0..12).map(|i| f32::from(u8::from(i % 5 == 0))).collect();
    let place =
        place.file("axes.npy", npy(&axes, 4)).file("narrow.npy", npy(&axes, 3)).file("odd.npy", npy(&axes[..8], 4));
    let call = format!(
        "{TRAIN} --no-rivals --start axes.npy --test test.npy --test-labels test.csv:label --json -o m.safetensors"
    );
    assert!(place.run(&call).succeeds().record()["results"]["test_accuracy"].as_f64().unwrap() > 0.98);
    place.run(&format!("{TRAIN} --start odd.npy -o m2.safetensors")).fails().naming(&["odd.npy", "2 rows"]);
    assert!(!place.files().contains(&"m2.safetensors".to_string()));
    place
        .run(&format!("{TRAIN} --start narrow.npy -o m2.safetensors"))
        .fails()
        .naming(&["narrow.npy", "rows of 3 values"]);
    place
        .run(&format!("{TRAIN} --start axes.npy --center -o m2.safetensors"))
        .misuses()
        .naming(&["--start", "--center"]);
    let other = lines(place, "other", 60, ["1", "2", "3"], 0);
    let call = "classify other.npy --labels other.csv:label --start first.safetensors -o m2.safetensors";
    other.run("cluster other.npy --clusters 2 -q -o out").succeeds();
    let cluster = call.replace("first.safetensors", "out/model.safetensors");
    other.run(&cluster).fails().naming(&["out/model.safetensors", "subspan cluster"]);
    other.run(call).fails().naming(&["first.safetensors", "no class 1"]);
}

#[test]
fn a_classifier_is_exported_as_a_graph() {
    let place = place();
    place.run(&format!("{TRAIN} --no-rivals -o m.safetensors --onnx m.onnx")).succeeds();
    let graph = place.read("m.onnx");
    assert!(graph.windows(7).any(|w| w == b"Softmax") && graph.windows(11).any(|w| w == b"strangeness"));
    place.run(&format!("{TRAIN} -o m.safetensors --onnx m.safetensors")).misuses().naming(&["two outputs"]);
}

#[test]
fn a_rival_that_cannot_be_fitted_is_said_and_costs_nothing() {
    let labels: String = (0..40).map(|i| format!("{}\n", i % 2)).collect();
    let place = Place::new().file("x.npy", npy(&[3.0; 160], 4)).file("y.csv", format!("label\n{labels}"));
    let ran = place.run("classify x.npy --labels y.csv:label -k 1 -o m.safetensors").succeeds();
    assert!(ran.stderr().contains("warning: no lda beside it"), "{}", ran.stderr());
    place.run("predict m.safetensors x.npy -o labels.npy").succeeds();
}
