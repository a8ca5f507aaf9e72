//! What `subspan cluster` makes of values, rows and settings at the edge of what makes sense.

use std::fmt::Write;

use crate::cluster::labels_in;
use crate::npy::{floats, npy, npy_f64};
use crate::place::Place;

/// Three bundles of directions, in turn.
fn bundles(n: usize) -> Vec<f64> {
    let wave = |i: usize, j: usize| (((i * i * 7 + i * j * 13 + j * 29) % 997) as f64 - 498.0) / 4000.0;
    (0..n).flat_map(|i| (0..4).map(move |j| f64::from(u8::from(j == i % 3)) + wave(i, j))).collect()
}

#[test]
fn results_do_not_depend_on_the_scale_of_the_values() {
    let labels = |scale: f32| {
        let values: Vec<f32> = bundles(90).iter().map(|v| *v as f32 * scale).collect();
        let place = Place::new().file("x.npy", npy(&values, 4));
        place.run("cluster x.npy --clusters 3 -o out").succeeds();
        place.run("predict out/model.safetensors x.npy -o again.npy --representation rows.npy").succeeds();
        assert_eq!(place.read("again.npy"), place.read("out/labels.npy"), "{scale}");
        labels_in(&place, "out/labels.npy")
    };
    let plain = labels(1.0);
    assert!((3..90).all(|i| plain[i] == plain[i % 3]) && plain[0] != plain[1] && plain[1] != plain[2]);
    // Powers of two change no digit.
    for power in [-110, -60, 60, 120] {
        assert_eq!(labels(2f32.powi(power)), plain, "{power}");
    }
}

#[test]
fn a_column_that_single_precision_does_not_tell_is_refused() {
    let column = |f: &dyn Fn(f64) -> f64| {
        let rows: Vec<f64> = bundles(90).chunks(4).flat_map(|r| [r[0], r[1], f(r[2]), r[3]]).collect();
        Place::new().file("x.npy", npy_f64(&rows, 4))
    };
    for (change, words) in [(&(|v| v + 1e9) as &dyn Fn(f64) -> f64, "column 2"), (&|v| v * 1e-300, "column 2")] {
        column(change).run("cluster x.npy --clusters 3 -o out").fails().naming(&["x.npy", words, "subtract an offset"]);
    }
    // A column that is constant but for rounding in double precision is constant.
    column(&|v| 0.1 + v * 1e-17).run("cluster x.npy --clusters 3 -o out").succeeds();
}

#[test]
fn a_row_without_direction_is_anyones() {
    let values: Vec<f32> = bundles(90).iter().map(|v| *v as f32).collect();
    let mean: Vec<f32> =
        (0..4).map(|j| (values.iter().skip(j).step_by(4).map(|v| f64::from(*v)).sum::<f64>() / 90.0) as f32).collect();
    let place = Place::new().file("x.npy", npy(&values, 4)).file("mean.npy", npy(&mean, 4));
    place.run("cluster x.npy --clusters 3 --affinity cosine -o out").succeeds();
    place.run("predict out/model.safetensors mean.npy -o l.npy --proba p.npy --ood o.npy").succeeds();
    let values = floats(&place.read("p.npy"));
    assert!(values.iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-6), "{values:?}");
    assert_eq!(floats(&place.read("o.npy")), [1.0]);
}

#[test]
fn neighbours_are_at_most_the_other_rows() {
    let values: Vec<f32> = bundles(90).iter().map(|v| *v as f32).collect();
    let place = Place::new().file("x.npy", npy(&values, 4));
    let record = place.run("cluster x.npy --clusters 3 --neighbours 4000 --json -o out").succeeds().record();
    assert_eq!(record["results"]["candidates"][0]["neighbours"], 89);
    place.run("predict out/model.safetensors x.npy -o again.npy").succeeds();
    let flags = "--clusters 3 --neighbours 18446744073709551615";
    place.run(&format!("cluster x.npy {flags} -o more")).misuses().naming(&["neighbours", "at most 4096"]);
    place.run("cluster x.npy --clusters 3 --max-clusters 5 -o more").misuses().naming(&["max-clusters"]);
    // One neighbour does not hold a cluster together.
    let ran = place.run("cluster x.npy --clusters 3 --neighbours 1 -o one").succeeds();
    assert!(ran.stderr().contains("lies on no edge"), "{}", ran.stderr());
}

#[test]
fn rows_at_the_mean_may_be_left_out_and_copies_are_pointed_out() {
    // Two classes that mirror each other, twice each row, and three rows of nothing.
    let mut values = Vec::new();
    for i in 0..40 {
        let row = [1.0, 0.02 * (i / 2) as f32, 0.1];
        values.extend(row);
        values.extend(row.map(|v| -v));
    }
    values.extend([0.0; 9]);
    let place = Place::new().file("rows.npy", npy(&values, 3));
    let mut classes = String::from("class\n");
    (0..83).for_each(|i| writeln!(classes, "{}", i % 2).unwrap());
    let place = place.file("classes.csv", classes);
    place.run("cluster rows.npy --clusters 2 -o out").fails().naming(&[
        "3 rows have no direction",
        "80",
        "--zero-rows drop",
    ]);
    let call = "cluster rows.npy --clusters 2 --zero-rows drop --truth classes.csv:class --json -o out";
    let record = place.run(call).succeeds().record();
    assert_eq!(record["results"]["candidates"][0]["accuracy"], 1.0);
    let results = &record["results"];
    assert_eq!(results["left_out"], 3);
    let warnings = results["warnings"].to_string();
    assert!(warnings.contains("3 rows have no direction") && warnings.contains("copies"), "{warnings}");
    let labels = labels_in(&place, "out/labels.npy");
    assert_eq!(labels.len(), 83);
    assert!((0..80).all(|i| labels[i] == labels[i % 2]) && labels[0] != labels[1]);
    let sizes: u64 = results["sizes"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).sum();
    assert_eq!(sizes, 83);
    // All rows, left out or not, have the labels that the model gives them.
    place.run("predict out/model.safetensors rows.npy -o again.npy").succeeds();
    assert_eq!(place.read("again.npy"), place.read("out/labels.npy"));
    // So have those of a trained head, kept or not.
    place.run("cluster rows.npy --clusters 2 --zero-rows drop --method mlc -q -o mlc").succeeds();
    assert_eq!(labels_in(&place, "mlc/trained-labels.npy").len(), 83);
    place.run("predict mlc/trained-model.safetensors rows.npy -o again.npy").succeeds();
    assert_eq!(place.read("again.npy"), place.read("mlc/trained-labels.npy"));
    // A run without a head leaves nothing of an earlier one with a head, but what it reads, and what is not the program's.
    std::fs::write(place.path("mlc/trained-notes.txt"), "mine").unwrap();
    let trained = || place.files_in("mlc").into_iter().filter(|name| name.starts_with("trained-")).collect::<Vec<_>>();
    place.run("cluster mlc/trained-representation.npy --clusters 2 --zero-rows drop -q -o mlc").succeeds();
    assert_eq!(trained(), ["trained-notes.txt", "trained-representation.npy"]);
    place.run("cluster rows.npy --clusters 2 --zero-rows drop -q -o mlc").succeeds();
    assert_eq!(trained(), ["trained-notes.txt"]);
}

#[test]
fn clusters_without_rows_and_values_beyond_single_precision_are_said() {
    let values: Vec<f32> = (0..120).map(|i| ((i * i * 37 + i * 11) % 101) as f32).collect();
    let place = Place::new().file("x.npy", npy(&values, 3));
    let ran = place.run("cluster x.npy --clusters 40 -o out").succeeds();
    assert!(ran.stderr().contains("of 40 clusters "), "{}", ran.stderr());
    // Chosen numbers leave none empty.
    let record = place.run("cluster x.npy --json -o auto").succeeds().record();
    assert!(
        record["results"]["sizes"].as_array().unwrap().iter().all(|s| s.as_u64() > Some(0)),
        "{}",
        record["results"]
    );
    let table: String = (0..20).map(|i| format!("{i}.5,{}e300\n", 1 + i % 3)).collect();
    let place = Place::new().file("t.csv", format!("a,b\n{table}"));
    place.run("sample t.csv --rows 20 -o s.parquet").succeeds();
    place.run("cluster s.parquet --clusters 2 -o out").fails().naming(&[
        "s.parquet",
        "too large value in column 1, row 0",
        "hint: scale the values",
    ]);
}

#[test]
fn training_rows_are_no_strangers_whatever_counts_as_near() {
    let values: Vec<f32> = bundles(600).iter().map(|v| *v as f32).collect();
    let place = Place::new().file("x.npy", npy(&values, 4));
    for affinity in ["cosine", "lsr"] {
        place.run(&format!("cluster x.npy --clusters 3 --affinity {affinity} -q -o out")).succeeds();
        place.run("predict out/model.safetensors x.npy -o l.npy --ood o.npy").succeeds();
        let mut strangeness = floats(&place.read("o.npy"));
        strangeness.sort_by(f32::total_cmp);
        assert!(strangeness[300] < 0.2, "{affinity}: {}", strangeness[300]);
    }
}

#[test]
fn rows_that_differ_in_length_only_are_clustered_around_their_mean() {
    let lengths: Vec<f32> = (0..40).map(|i| if i % 2 == 0 { 1.0 } else { 9.0 } + 0.01 * i as f32).collect();
    let along: Vec<f32> = lengths.iter().flat_map(|v| [*v, 2.0 * v]).collect();
    for (values, n_cols) in [(&lengths, 1), (&along, 2)] {
        let place = Place::new().file("x.npy", npy(values, n_cols));
        place.run("cluster x.npy --clusters 2 -q -o out").succeeds();
        let labels = labels_in(&place, "out/labels.npy");
        assert!((0..40).all(|i| labels[i] == labels[i % 2]) && labels[0] != labels[1], "{labels:?}");
    }
}
