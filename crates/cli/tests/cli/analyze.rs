//! `subspan analyze`.

use std::fmt::Write;

use crate::npy::npy_u8;
use crate::place::Place;

/// Width of the hidden layers.
const WIDTH: usize = 24;

/// A safetensors file of single-precision tensors.
fn safetensors(tensors: &[(String, Vec<usize>, Vec<f32>)], metadata: &str) -> Vec<u8> {
    let mut header = format!("{{\"__metadata__\":{{{metadata}}}");
    let mut data = Vec::new();
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let end = data.len();
        write!(header, ",\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}")
            .unwrap();
    }
    header.push('}');
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

/// Numbers between -1 and 1 that look random.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    (0..n as u64)
        .map(|i| {
            ((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_mul(2 * seed + 1) >> 40) as f32 / (1 << 23) as f32
                - 1.0
        })
        .collect()
}

/// A 6-24-24-3 network; `order` re-orders the units of its first hidden layer.
fn network(seed: u64, order: impl Fn(usize) -> usize) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let shapes = [(WIDTH, 6), (WIDTH, WIDTH), (3, WIDTH)];
    let mut out = Vec::new();
    for (i, (rows, columns)) in shapes.into_iter().enumerate() {
        let (w, b) = (noise(rows * columns, seed + 10 * i as u64), noise(rows, seed + 10 * i as u64 + 5));
        let row = |r: usize| if i == 0 { order(r) } else { r };
        let column = |c: usize| if i == 1 { order(c) } else { c };
        let at = |k: usize| w[row(k / columns) * columns + column(k % columns)];
        out.push((format!("fc{i}.weight"), vec![rows, columns], (0..rows * columns).map(at).collect()));
        out.push((format!("fc{i}.bias"), vec![rows], (0..rows).map(|r| b[row(r)]).collect()));
    }
    out
}

const UNIT: &str = "\"input\":\"(pixel/255-0.5)/0.25\"";

/// Two unlike networks, a third that is the first in another order, 60 samples of bytes, their classes.
fn place() -> Place {
    let x: Vec<u8> = (0..360u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    let y: String = (0..60).fold(String::from("y\n"), |text, i| text + &format!("{}\n", i % 3));
    Place::new()
        .file("a.safetensors", safetensors(&network(1, |i| i), UNIT))
        .file("b.safetensors", safetensors(&network(2, |i| i), UNIT))
        .file("moved.safetensors", safetensors(&network(1, |i| (5 * i + 3) % WIDTH), UNIT))
        .file("x.npy", npy_u8(&x, 6))
        .file("y.csv", y)
}

const DATA: &str = "--data x.npy --labels y.csv:y";

#[test]
fn a_network_and_itself_in_another_order_are_found_to_be_one() {
    let place = place();
    let call = format!("analyze a.safetensors moved.safetensors {DATA} --points 5 --json -o out");
    let record = place.run(&call).succeeds().record();
    let r = &record["results"];
    assert_eq!((r["distance_after"].as_f64(), r["distance_reduction"].as_f64()), (Some(0.0), Some(1.0)));
    assert!(r["distance_before"].as_f64().unwrap() > 1.0 && r["certified"] == true && r["sweeps"].is_u64());
    assert!((r["alignment"]["total"]["after"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    assert!(r["alignment"]["per_layer"].as_array().unwrap().len() == 3);
    assert!(r["barrier"]["after"].as_f64().unwrap() <= 1e-12 && r["barrier"]["before"].as_f64().unwrap() >= 0.0);
    assert!(r["objective_after"].as_f64() > r["objective_before"].as_f64());
    let curve = r["curve"].as_array().unwrap();
    assert_eq!(curve.len(), 5);
    let point = &curve[2];
    assert!(
        point["alpha"] == 0.5
            && ["loss", "accuracy", "matched_loss", "matched_accuracy"].iter().all(|f| point[f].is_f64())
    );
    let arms: Vec<&str> =
        r["intervention"]["arms"].as_array().unwrap().iter().filter_map(|a| a["arm"].as_str()).collect();
    assert_eq!(arms, ["none", "all", "top", "bottom", "bottom-with-biases", "control"]);
    for layer in r["singular_values"].as_array().unwrap() {
        assert!(layer["gap"].as_f64().unwrap() < 1e-5, "re-ordering keeps singular values");
    }
    let html = String::from_utf8(place.read("out/report.html")).unwrap();
    assert!(html.matches("<svg").count() == 5 && !html.contains("NaN"));
    assert_eq!(place.json("out/run.json")["command"], "analyze");
}

#[test]
fn without_data_there_are_no_curves_and_one_thread_gives_what_two_give() {
    let place = place();
    let run = |threads: usize| {
        let call =
            format!("analyze a.safetensors b.safetensors --threads {threads} --gamma 0.25 --json -o out{threads}");
        place.run(&call).succeeds().record()["results"].clone()
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert!(one["curve"].is_null() && one["barrier"].is_null());
    assert_eq!(one["alignment"]["gamma"], 0.25);
    assert!(one["alignment_curve"].as_array().unwrap().len() == 6);
}

#[test]
fn three_models_are_compared_pair_by_pair() {
    let place = place();
    let call = format!(
        "analyze a.safetensors b.safetensors moved.safetensors {DATA} --points 3 --no-intervention --json -o out"
    );
    let results = place.run(&call).succeeds().record()["results"].clone();
    let pairs = results["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 3);
    assert!(
        pairs[1]["distance_after"].as_f64().unwrap() == 0.0 && pairs[1]["barrier"]["after"].as_f64().unwrap() <= 1e-12
    );
    assert!(results["mean"]["after"]["loss"].is_f64() && results["alone"].as_array().unwrap().len() == 3);
    assert!(results["intervention"].is_null());
}

#[test]
fn units_that_fire_together_are_matched_by_activations() {
    let place = place();
    let call = format!(
        "analyze a.safetensors moved.safetensors {DATA} --method activations --no-intervention --points 3 --json -o out"
    );
    let results = place.run(&call).succeeds().record()["results"].clone();
    // Units that never fire on the samples cannot be told apart, so a few may stay wrong.
    assert!(
        results["distance_reduction"].as_f64().unwrap() > 0.5 && results["barrier"]["after"].as_f64().unwrap() < 1e-9,
        "{results}"
    );
    assert!(results["certified"] == false && results["sweeps"].is_null());
}

#[test]
fn a_study_trains_pairs_and_tabulates_them() {
    let place = place();
    let call = format!(
        "analyze --study width --values 4,16 --pairs 2 --depth 1 --epochs 3 {DATA} --points 3 --no-intervention --json -o out"
    );
    let study = place.run(&call).succeeds().record()["results"]["study"].clone();
    assert_eq!((study["variable"].as_str(), study["rows"].as_array().unwrap().len()), (Some("width"), 4));
    assert_eq!(study["medians"].as_array().unwrap().len(), 2);
    let html = String::from_utf8(place.read("out/report.html")).unwrap();
    assert!(html.contains("Medians over pairs"));
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_left() {
    let wide = safetensors(&network(3, |i| i)[2..], UNIT);
    let mut other = network(3, |i| i);
    other[0].1 = vec![12, 12];
    let mut silent = network(1, |i| i);
    silent[0].2[0] = f32::NAN;
    let place = place()
        .file("wide.safetensors", wide)
        .file("other.safetensors", safetensors(&other, UNIT))
        .file("nan.safetensors", safetensors(&silent, UNIT))
        .file("mute.safetensors", safetensors(&network(1, |i| i), "\"k\":\"v\""))
        .file("z.npy", npy_u8(&[1; 300], 5))
        .file("z.csv", "y\n9\n".to_string() + &"0\n".repeat(59));
    let files = place.files();
    let left: Vec<&str> = files.iter().map(String::as_str).collect();
    for (call, words) in [
        ("a.safetensors wide.safetensors", &["fc0", "wide.safetensors"][..]),
        ("a.safetensors other.safetensors", &["fc0.weight", "other.safetensors"]),
        ("a.safetensors nan.safetensors", &["fc0.weight", "nan.safetensors"]),
        (
            "mute.safetensors b.safetensors --data x.npy --labels y.csv:y",
            &["mute.safetensors", "normalised", "--normalize"],
        ),
        ("a.safetensors b.safetensors --data z.npy --labels y.csv:y", &["[5, 1, 1]", "6 values"]),
        ("a.safetensors b.safetensors --data x.npy --labels z.csv:y", &["label 9", "3 outputs"]),
        ("a.safetensors b.safetensors --data x.npy --labels no.csv:y", &["no.csv"]),
        ("a.safetensors gone.safetensors", &["gone.safetensors"]),
    ] {
        place.run(&format!("analyze {call} -o out")).fails().naming(words).leaving(&left);
    }
    for (call, words) in [
        ("a.safetensors", &["two or more"][..]),
        ("a.safetensors b.safetensors --points 4", &["points", "odd"]),
        ("a.safetensors b.safetensors --gamma 2", &["gamma"]),
        ("a.safetensors b.safetensors --data x.npy", &["--labels"]),
        ("a.safetensors b.safetensors --method activations", &["--data"]),
        ("a.safetensors b.safetensors --data x.npy --labels y.csv:y --arch fc0,relu,nope", &["nope"]),
        ("a.safetensors b.safetensors --data x.npy --labels y.csv:y --normalize x", &["x", "MEAN/STD"]),
        ("--study width --data x.npy --labels y.csv:y --values 1.5", &["1.5"]),
    ] {
        place.run(&format!("analyze {call} -o out")).misuses().naming(words).leaving(&left);
    }
}
