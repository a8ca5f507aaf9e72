//! `subspan cluster`, and `subspan predict` with its models.

use std::fmt::Write;

use crate::npy::{integers, npy};
use crate::place::Place;

/// `n` rows of 12 values near one of four planes through the origin of their own, on one side each; labels in `rows.csv`.
fn planes(n: usize) -> Place {
    let (mut csv, mut values) = (String::from("label\n"), Vec::new());
    let noise = |i: usize| (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    let noise = |i: usize| noise(i) as f32 / (1u64 << 24) as f32 - 0.5;
    for i in 0..n {
        let class = i % 4;
        let turn = noise(i);
        values.extend((0..12).map(|j| {
            let along = if j == 3 * class {
                turn.cos()
            } else if j == 3 * class + 1 {
                turn.sin()
            } else {
                0.0
            };
            along + 0.1 * noise(12 * i + j + 7)
        }));
        writeln!(csv, "{}", ["ant", "bee", "cat", "dog"][class]).unwrap();
    }
    Place::new().file("rows.csv", csv).file("rows.npy", npy(&values, 12))
}

/// The numbers in a file of labels.
pub(crate) fn labels_in(place: &Place, name: &str) -> Vec<i64> {
    integers(&place.read(name))
}

const FILES: [&str; 8] = [
    "confidence.npy",
    "labels.npy",
    "membership.npz",
    "model.safetensors",
    "report.html",
    "representation.npy",
    "run.json",
    "subspaces.safetensors",
];

#[test]
fn clusters_are_found_counted_and_used_for_new_rows() {
    let place = planes(240);
    let record = place.run("cluster rows.npy --truth rows.csv:label --json -o out").succeeds().record();
    let results = &record["results"];
    assert_eq!((&results["clusters"], &results["accuracy"]), (&4.into(), &1.0.into()), "{results}");
    assert_eq!(results["sizes"], serde_json::json!([60, 60, 60, 60]));
    assert!(results["interval"][0].as_u64() <= Some(4) && results["interval"][1].as_u64() >= Some(4));
    assert!(
        results["coding_length_curve"].as_array().unwrap().iter().any(|t| t["clusters"] == 4 && t["bits"].is_f64())
    );
    assert_eq!((&results["nmi"], &results["ari"]), (&1.0.into(), &1.0.into()));
    let mut files: Vec<String> =
        std::fs::read_dir(place.path("out")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, FILES);
    // The labels of the training rows are what the model says of them.
    let call = "predict out/model.safetensors rows.npy -o again.npy --proba p.npy --ood s.npy --representation r.npy";
    place.run(call).succeeds();
    assert_eq!(place.read("again.npy"), place.read("out/labels.npy"));
    assert_eq!(place.read("r.npy"), place.read("out/representation.npy"));
}

#[test]
fn one_thread_and_two_give_the_same_bytes() {
    let place = planes(200);
    for threads in [1, 2] {
        place.run(&format!("cluster rows.npy --clusters 4 --threads {threads} -q -o {threads}")).succeeds();
    }
    for file in FILES.iter().filter(|f| **f != "run.json" && **f != "report.html") {
        assert_eq!(place.read(&format!("1/{file}")), place.read(&format!("2/{file}")), "{file}");
    }
}

/// 400 rows on an arc and 30 around each of two directions apart from it, all with noise.
fn arc_and_two(noise: f32) -> Place {
    // Finalized by SplitMix64: numbers that are even, whatever the platform.
    let even = |i: usize| {
        let z = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24) - 0.5) as f32
    };
    let (mut values, mut csv) = (Vec::new(), String::from("label\n"));
    for i in 0..460 {
        let along = 2.0 * (even(8 * i) + even(8 * i + 1));
        let class = if i < 400 { 0 } else { 1 + i % 2 };
        let middle = [[along.cos(), along.sin(), 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]][class];
        values.extend((0..4).map(|c| middle[c] + noise * even(8 * i + 2 + c)));
        writeln!(csv, "{}", ["arc", "first", "second"][class]).unwrap();
    }
    // As a sample that took fewer rows of the large cluster would weigh them.
    let weights: Vec<f32> = (0..460).map(|i| if i < 400 { 3.0 } else { 1.0 }).collect();
    Place::new().file("rows.npy", npy(&values, 4)).file("truth.csv", csv).file("w.npy", npy(&weights, 1))
}

#[test]
fn large_clusters_are_not_cut_where_hardly_an_edge_leaves_any() {
    let place = arc_and_two(0.7);
    let call = "cluster rows.npy --clusters 3 --truth truth.csv:label --json -o out";
    let results = place.run(call).succeeds().record()["results"].clone();
    assert_eq!(results["accuracy"].as_f64(), Some(1.0), "{results}");
}

#[test]
fn peaks_of_density_are_clusters_where_sizes_differ() {
    let place = arc_and_two(0.9);
    for threads in [1, 2] {
        let call = format!(
            "cluster rows.npy --clusters 3 --unequal --threads {threads} --truth truth.csv:label --json -o {threads}"
        );
        let results = place.run(&call).succeeds().record()["results"].clone();
        assert!(results["accuracy"].as_f64().unwrap() > 0.99, "{results}");
        let chosen = &results["candidates"][results["chosen"].as_u64().unwrap() as usize];
        let name = chosen["recipe"].as_str().unwrap();
        assert!(name.starts_with("density peaks") && chosen["contrast"].as_f64() >= Some(1.2), "{chosen}");
        assert!(chosen["kept"].as_f64() >= Some(0.5), "{chosen}");
    }
    assert_eq!(place.read("1/labels.npy"), place.read("2/labels.npy"));
    let plain = place.run("cluster rows.npy --clusters 3 --truth truth.csv:label --json -o plain").succeeds().record();
    assert!(plain["results"]["accuracy"].as_f64().unwrap() < 0.7, "{}", plain["results"]);
    place.run("predict 1/model.safetensors rows.npy -o again.npy").succeeds();
    assert_eq!(place.read("again.npy"), place.read("1/labels.npy"));
    let call = "cluster rows.npy --clusters 3 --unequal --weights w.npy --truth truth.csv:label --json -o w";
    let results = place.run(call).succeeds().record()["results"].clone();
    assert!(results["accuracy"].as_f64().unwrap() > 0.97, "{results}");
}

#[test]
fn every_affinity_works() {
    let place = planes(160);
    for flags in ["--affinity abs", "--affinity lsr --neighbours 10", "--affinity cosine --anchors 60"] {
        let call = format!("cluster rows.npy --clusters 4 {flags} --truth rows.csv:label --json -o out");
        let record = place.run(&call).succeeds().record();
        assert!(record["results"]["accuracy"].as_f64().unwrap() > 0.98, "{flags}: {}", record["results"]);
        place.run("predict out/model.safetensors rows.npy -o again.npy").succeeds();
        assert_eq!(place.read("again.npy"), place.read("out/labels.npy"), "{flags}");
    }
}

#[test]
fn rows_that_cannot_be_clustered_are_refused_and_nothing_is_left() {
    let place = planes(40)
        .file("two.npy", npy(&[1.0, 2.0, 3.0, 4.0], 2))
        .file("few.npy", npy(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.5, 0.1], 2))
        .file("same.npy", npy(&[1.0; 40], 2))
        .file("mean.npy", npy(&[1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0], 2))
        .file("nan.npy", npy(&[1.0, 2.0, 3.0, f32::NAN, 5.0, 6.0], 2));
    let files = place.files();
    let left: Vec<&str> = files.iter().map(String::as_str).collect();
    for (call, words) in [
        ("two.npy --clusters 2", &["2 rows", "at least 3"][..]),
        ("few.npy", &["4 rows", "at least 10", "--clusters K"]),
        ("same.npy --clusters 2", &["every row is the same"]),
        ("mean.npy --clusters 2", &["equal to the mean", "4"]),
        ("nan.npy --clusters 1", &["nan.npy", "row 1"]),
        ("rows.npy --truth two.npy", &["two.npy"]),
        ("no.npy", &["no.npy", "cannot open"]),
    ] {
        place.run(&format!("cluster {call} -o out")).fails().naming(words).leaving(&left);
    }
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let place = planes(40);
    for (flags, words) in [
        ("--clusters 0", &["clusters", "at least 1"][..]),
        ("--clusters 41", &["clusters", "at most", "40"]),
        ("--clusters many", &["--clusters", "auto", "many"]),
        ("--affinity near", &["near", "cosine"]),
        ("--max-clusters 1", &["max-clusters", "at least 2"]),
        ("--neighbours 0", &["neighbours", "at least 1"]),
        ("--unequal", &["clusters", "auto", "unequal"]),
        ("--unequal --clusters 4 --affinity omp", &["affinity", "omp", "unequal"]),
    ] {
        place.run(&format!("cluster rows.npy {flags} -o out")).misuses().naming(words);
    }
}

#[test]
fn models_that_are_damaged_or_do_not_fit_are_refused() {
    let place = planes(60).file("wide.npy", npy(&[1.0; 10], 5));
    place.run("cluster rows.npy --clusters 4 -q -o out").succeeds();
    let model = "predict out/model.safetensors";
    place.run(&format!("{model} wide.npy -o l.npy")).fails().naming(&["wide.npy", "5", "12"]);
    let whole = place.read("out/model.safetensors");
    let place = place.file("cut.safetensors", &whole[..whole.len() - 4]);
    place.run("predict cut.safetensors rows.npy -o l.npy").fails().naming(&["cut.safetensors", "corrupt"]);
    let text = String::from_utf8_lossy(&whole[8..600]).into_owned();
    let at = 8 + text.find("\\\"neighbours\\\":").expect("the header names it") + 15;
    for (at, byte) in [(at, b'0'), (whole.len() - 1, 0x7f)] {
        let mut damaged = whole.clone();
        damaged[at] = byte;
        std::fs::write(place.path("bad.safetensors"), damaged).unwrap();
        let ran = place.run("predict bad.safetensors rows.npy -o l.npy");
        assert!(!ran.stderr().contains("internal error"), "{}", ran.stderr());
    }
}

/// `n` images of 16 x 16 pixels in `images.npy`: horizontal, vertical or slanted bars anywhere.
fn bars(n: usize) -> Place {
    let mut values = Vec::new();
    for i in 0..n {
        let shift = (i * 7919 % 97) as f32 / 4.0;
        for p in 0..256 {
            let (y, x) = ((p / 16) as f32, (p % 16) as f32);
            let along = [x, y, 0.7 * (x + y)][i % 3];
            values.push((1.5 * (along + shift)).sin() + 0.01 * ((p * 31 + i * 17) % 11) as f32);
        }
    }
    Place::new().file("images.npy", images(&values, [16, 16]))
}

/// `values` as an array of images.
fn images(values: &[f32], [height, width]: [usize; 2]) -> Vec<u8> {
    let (n, size) = (values.len() / (height * width), height * width);
    let flat = npy(values, size);
    let shape = format!("({n}, {height}, {width})");
    let header = String::from_utf8_lossy(&flat[10..128]).replace(&format!("({n}, {size})"), &shape);
    [&flat[..10], format!("{:<117}\n", header.trim_end()).as_bytes(), &flat[128..]].concat()
}

/// `n` images of 16 x 16 pixels in `images.npy`: a plus, a ring or a cross of eleven pixels moved by up to three, and noise; labels in
/// `truth.csv`.
fn glyphs(n: usize) -> Place {
    let (mut csv, mut values) = (String::from("label\n"), Vec::new());
    let noise = |i: usize| ((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize;
    for i in 0..n {
        let middle = [noise(3 * i) % 4 + 6, noise(3 * i + 1) % 4 + 6];
        for p in 0..256usize {
            let (y, x) = ((p / 16).abs_diff(middle[0]), (p % 16).abs_diff(middle[1]));
            let drawn = [y == 0 || x == 0, y == 5 || x == 5, y == x][i % 3] && y.max(x) <= 5;
            values.push(f32::from(u8::from(drawn)) + 0.001 * (noise(256 * i + p) % 100) as f32);
        }
        writeln!(csv, "{}", ["plus", "ring", "cross"][i % 3]).unwrap();
    }
    Place::new().file("images.npy", images(&values, [16, 16])).file("truth.csv", csv)
}

#[test]
fn scattering_finds_textures_that_shifts_hide_from_pixels() {
    let place = bars(90);
    let csv: String = (0..90).fold("label\n".into(), |s, i| s + ["a\n", "b\n", "c\n"][i % 3]);
    let place = place.file("truth.csv", csv);
    for features in ["scattering", "scattering-turned"] {
        let call =
            format!("cluster images.npy --features {features} --clusters 3 --truth truth.csv:label --json -o out");
        let record = place.run(&call).succeeds().record();
        assert!(record["results"]["accuracy"].as_f64().unwrap() > 0.95, "{features}: {}", record["results"]);
        assert!(record["results"]["exemplars"]["pixels"].is_string());
        place.run("predict out/model.safetensors images.npy -o again.npy").succeeds();
        assert_eq!(place.read("again.npy"), place.read("out/labels.npy"), "{features}");
    }
    planes(40)
        .run("cluster rows.npy --features scattering --clusters 2 -o out")
        .fails()
        .naming(&["rows.npy", "N x H x W"]);
}

#[test]
fn a_network_trained_on_views_finds_shapes_wherever_they_are() {
    let place = glyphs(200);
    let call = "cluster images.npy --clusters 3 --truth truth.csv:label --json";
    let raw = place.run(&format!("{call} -o raw")).succeeds().record();
    assert!(raw["results"]["accuracy"].as_f64().unwrap() < 0.7, "{}", raw["results"]["accuracy"]);
    for threads in [1, 2] {
        let trained = format!("{call} --features conv4 --epochs 20 --threads {threads} -o {threads}");
        let record = place.run(&trained).succeeds().record();
        assert!(record["results"]["accuracy"].as_f64().unwrap() > 0.95, "{}", record["results"]["accuracy"]);
        assert_eq!((&record["config"]["features"], &record["config"]["epochs"]), (&"conv4".into(), &20.into()));
    }
    for file in FILES.iter().filter(|f| **f != "run.json" && **f != "report.html") {
        assert_eq!(place.read(&format!("1/{file}")), place.read(&format!("2/{file}")), "{file}");
    }
    place.run("predict 1/model.safetensors images.npy -o again.npy").succeeds();
    assert_eq!(place.read("again.npy"), place.read("1/labels.npy"));
}

#[test]
fn images_that_no_network_can_be_trained_on_are_refused() {
    let holed: Vec<f32> = (0..20 * 64).map(|i| if i == 70 { f32::NAN } else { (i % 7) as f32 }).collect();
    let small: Vec<f32> = (0..20 * 42).map(|i| (i % 5) as f32).collect();
    let place = planes(40).file("small.npy", images(&small, [6, 7])).file("holed.npy", images(&holed, [8, 8]));
    for (call, words) in [
        ("rows.npy --features conv4", &["rows.npy", "conv4", "N x H x W"][..]),
        ("small.npy --features conv4", &["[1, 6, 7]", "8 to 96"]),
        ("holed.npy --features conv4", &["holed.npy", "row 1"]),
    ] {
        place.run(&format!("cluster {call} --clusters 2 -o out")).fails().naming(words);
        assert!(!place.path("out").exists());
    }
    place.run("cluster rows.npy --epochs 3 -o out").misuses().naming(&["--epochs", "raw"]);
    place.run("cluster small.npy --features conv4 --epochs 0 -o out").misuses().naming(&["--epochs", "at least 1"]);
}

#[test]
fn a_head_is_trained_and_the_better_one_is_kept() {
    let place = planes(300);
    let call = "cluster rows.npy --method mlc --clusters 4 --neighbours 10 --affinity cosine --truth rows.csv:label";
    let record = place.run(&format!("{call} --json -o out")).succeeds().record();
    let learned = &record["results"]["learned"];
    assert!(learned["snapshots"].as_array().unwrap().len() >= 2 && learned["kept"].is_boolean(), "{learned}");
    let bits = |name: &str| learned[name].as_f64().unwrap();
    let falls = |from: &str, to: &str| bits(from) - bits(to) > 0.01 * bits(from).abs();
    let shorter = falls("projection_held_out", "held_out") && falls("projection_coding_length", "coding_length");
    let kept = shorter && bits("information") >= bits("projection_information");
    assert_eq!(learned["kept"], kept);
    assert!(record["results"]["accuracy"].as_f64().unwrap() > 0.95, "{}", record["results"]);
    place.run("predict out/model.safetensors rows.npy -o again.npy --representation z.npy").succeeds();
    assert_eq!(place.read("again.npy"), place.read("out/labels.npy"));
    // Whichever was kept, its clusters are subspaces of the representation.
    assert_eq!(place.read("z.npy"), place.read("out/representation.npy"));
    let linear = |name: &str| learned["linear"][name].as_u64().unwrap();
    assert!(linear("dimensions") == 64 && 3 * linear("rank") < linear("rank_of_all"), "{learned}");
    let report = String::from_utf8(place.read("out/report.html")).unwrap();
    assert!(report.contains("What was tried") && report.contains("held-out bits"));
    let plain = place.run("cluster rows.npy --clusters 4 -o plain").succeeds();
    let said = plain.stdout() + &plain.stderr();
    assert!(said.contains("confidence") && !said.contains("trained"), "{said}");
    // What training gave is there whether it was kept or not, with a model that repeats it.
    for side in ["trained", "projection"] {
        assert!(learned[side]["accuracy"].as_f64().unwrap() > 0.95, "{learned}");
        assert!(learned[side]["rank"].as_u64() < learned[side]["rank_of_all"].as_u64(), "{learned}");
    }
    place.run("predict out/trained-model.safetensors rows.npy -o trained.npy --representation r.npy").succeeds();
    assert_eq!(place.read("trained.npy"), place.read("out/trained-labels.npy"));
    assert_eq!(place.read("r.npy"), place.read("out/trained-representation.npy"));
    if kept {
        assert_eq!(place.read("out/trained-representation.npy"), place.read("out/representation.npy"));
    }
    // The bits do not depend on the number of threads.
    place.run(&format!("{call} --threads 1 -q -o one")).succeeds();
    for file in [
        "labels.npy",
        "representation.npy",
        "model.safetensors",
        "trained-labels.npy",
        "trained-representation.npy",
        "trained-model.safetensors",
    ] {
        assert_eq!(place.read(&format!("out/{file}")), place.read(&format!("one/{file}")), "{file}");
    }
}

#[test]
fn a_sample_is_clustered_and_labels_the_whole_table() {
    let row = |i: usize| format!("{},{},{}\n", i % 3, (i * 7) % 3, (i * i) % 101);
    let place = Place::new().file("t.csv", (0..900).fold(String::from("a,b,c\n"), |s, i| s + &row(i)));
    place.run("sample t.csv --rows 300 -q -o s.parquet").succeeds();
    place.run("cluster s.parquet --clusters 3 --neighbours 15 --affinity cosine -q -o out").succeeds();
    // Neither row ids nor weights are features.
    let config = place.json("out/run.json");
    assert_eq!(config["inputs"][0]["shape"][1], 3, "{}", config["inputs"]);
}

#[test]
fn rows_of_a_sample_count_by_their_weights_and_the_model_labels_the_whole_table() {
    let place = planes(4000);
    place.run("sample rows.npy --rows 400 --rule leverage -o s.parquet").succeeds();
    let record = place.run("cluster s.parquet --clusters 4 --json -o out").succeeds().record();
    assert_eq!(record["config"]["weights"], "sample");
    let results = &record["results"];
    let effective = results["effective_rows"].as_f64().unwrap();
    assert!(effective > 1.0 && effective <= 500.0, "{effective}");
    // The four classes are as large as each other in the table: their shares of the weight say so.
    for share in results["shares"].as_array().unwrap() {
        assert!((share.as_f64().unwrap() - 0.25).abs() < 0.06, "{results}");
    }
    place.run("predict out/model.safetensors rows.npy -o all.npy").succeeds();
    let labels = labels_in(&place, "all.npy");
    assert_eq!(labels.len(), 4000);
    for (i, label) in labels.iter().enumerate() {
        assert_eq!(*label, labels[i % 4], "row {i}");
    }
    let record = place.run("cluster s.parquet --clusters 4 --weights none --json -o alike").succeeds().record();
    assert!(record["config"]["weights"].is_null());
}

#[test]
fn a_row_of_weight_three_counts_like_three_and_wrong_weights_are_refused() {
    let mut weights = vec![1.0; 120];
    (0..120).step_by(4).for_each(|i| weights[i] = 3.0);
    let place = planes(120)
        .file("w.npy", npy(&weights, 1))
        .file("few.npy", npy(&[1.0, 2.0], 1))
        .file("bad.npy", npy(&[vec![1.0; 119], vec![0.0]].concat(), 1));
    let record = place.run("cluster rows.npy --clusters 4 --weights w.npy --json -o out").succeeds().record();
    let shares: Vec<f64> =
        record["results"]["shares"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!((shares[0] - 0.5).abs() < 1e-9 && (shares[3] - 1.0 / 6.0).abs() < 1e-9, "{shares:?}");
    assert_eq!(record["results"]["sizes"], serde_json::json!([30, 30, 30, 30]));
    assert_eq!(record["inputs"].as_array().unwrap().len(), 2);
    let files = place.files();
    let left: Vec<&str> = files.iter().map(String::as_str).collect();
    for (weights, words) in [
        ("few.npy", &["2 weights", "120"][..]),
        ("bad.npy", &["bad.npy", "row 119", "positive"]),
        ("no.npy", &["no.npy"]),
    ] {
        let call = format!("cluster rows.npy --clusters 4 --weights {weights} -o other");
        place.run(&call).fails().naming(words).leaving(&left);
    }
}

#[test]
fn a_pursuit_tells_subspaces_apart_that_fill_the_space() {
    // Three subspaces of three dimensions in five, on both sides of the origin: any two of them share a line.
    let noise = |i: usize| {
        let mixed = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let (mut csv, mut values) = (String::from("label\n"), Vec::new());
    for i in 0..360 {
        let class = i % 3;
        for column in 0..5 {
            let basis = |k: usize| noise(1_000_000 + 15 * class + 5 * k + column);
            values.push((0..3).map(|k| noise(3 * i + k) * basis(k)).sum::<f32>());
        }
        writeln!(csv, "{class}").unwrap();
    }
    let place = Place::new().file("rows.csv", csv).file("rows.npy", npy(&values, 5));
    let record = place
        .run("cluster rows.npy --clusters 3 --affinity omp --truth rows.csv:label --json -o out")
        .succeeds()
        .record();
    assert!(record["results"]["accuracy"].as_f64().unwrap() > 0.9, "{}", record["results"]);
    place.run("predict out/model.safetensors rows.npy -o again.npy").succeeds();
    assert_eq!(place.read("again.npy"), place.read("out/labels.npy"));
    // A row that points nowhere is refused or left out, also where rows are not centred.
    values[..5].fill(0.0);
    let weights: Vec<f32> = (0..360).map(|i| (1 + i % 5) as f32).collect();
    let place = place.file("rows.npy", npy(&values, 5)).file("weights.npy", npy(&weights, 1));
    let call = "cluster rows.npy --clusters 3 --affinity omp --weights weights.npy";
    place.run(&format!("{call} -o refused")).fails().naming(&["1 row", "--zero-rows drop"]);
    place.run(&format!("{call} --zero-rows drop -o weighted")).succeeds();
    place.run("predict weighted/model.safetensors rows.npy -o again.npy").succeeds();
    assert_eq!(place.read("again.npy"), place.read("weighted/labels.npy"));
}
