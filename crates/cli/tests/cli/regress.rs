//! `subspan regress` on good data.

use serde_json::Value;

use crate::place::Place;

/// The planted coefficients, with the first level of the text column dropped.
const PLANTED: [(&str, f64); 5] = [("x", 2.0), ("z", -1.0), ("city=b", 1.0), ("city=c", -4.0), ("city=rare", 30.0)];

#[track_caller]
fn assert_planted(model: &Value, tolerance: f64) {
    let names: Vec<&String> = model["coefficients"].as_object().unwrap().keys().collect();
    assert_eq!(names, PLANTED.map(|(name, _)| name));
    for (name, value) in PLANTED {
        let found = model["coefficients"][name].as_f64().unwrap();
        assert!((found - value).abs() < tolerance, "{name}: {found} instead of {value}");
    }
    assert!((model["intercept"].as_f64().unwrap() - 3.0).abs() < tolerance);
}

#[test]
fn l1_finds_the_planted_model_through_gross_errors_in_every_mode() {
    let place = Place::new().cities(1000);
    for mode in ["--rows 800", "--full", "--exact"] {
        place
            .run(&format!("regress cities.parquet --target y {mode} -o m.json"))
            .succeeds()
            .saying(&["objective", "m.json"]);
        let model = place.json("m.json");
        assert_planted(&model, 1e-6);
        assert_eq!(model["loss"], "l1");
        assert!((model["objective"].as_f64().unwrap() - 500.0 * 300.0).abs() < 1e-3, "{mode}: {}", model["objective"]);
    }
    assert!(place.json("m.json")["relative_gap"].as_f64().unwrap() <= 1e-8, "--exact proves its fit");
}

#[test]
fn the_model_has_the_promised_fields_in_order() {
    let place = Place::new().cities(6000);
    place.run("regress cities.parquet --target y --full --loss huber --delta 1 -o m.json").succeeds();
    let model = place.json("m.json");
    let keys: Vec<&String> = model.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["loss", "delta", "target", "intercept", "coefficients", "objective", "rows_used", "relative_gap"]
    );
    assert_eq!(model["rows_used"], 6000);
}

#[test]
fn every_loss_fits() {
    let place = Place::new().cities(6000);
    for loss in ["l1", "l2", "lp -p 1.5", "quantile", "huber --delta 2"] {
        for mode in ["--rows 1000", "--full"] {
            place.run(&format!("regress cities.parquet --target y --loss {loss} {mode} -q -o m.json")).succeeds();
            assert!(place.json("m.json")["objective"].as_f64().unwrap() > 0.0, "{loss} {mode}");
        }
    }
}

#[test]
fn several_quantiles_come_in_one_model() {
    let place = Place::new().cities(6000);
    let call = "regress cities.parquet --target y --loss quantile --quantile 0.25,0.5,0.75 --exact --json -o m.json";
    let record = place.run(call).succeeds().record();
    let fits = place.json("m.json")["fits"].clone();
    let levels: Vec<f64> = fits.as_array().unwrap().iter().map(|f| f["quantile"].as_f64().unwrap()).collect();
    assert_eq!(levels, [0.25, 0.5, 0.75]);
    assert_planted(&fits[1], 1e-6);
    assert_eq!(record["results"]["objective"].as_array().unwrap().len(), 3);
}

#[test]
fn a_logistic_fit_tells_separable_classes() {
    let rows = |noisy: bool| {
        let one = |i: i32| {
            let flip = noisy && i % 7 == 0;
            format!("{},{}\n", f64::from(i) / 10.0, u8::from((i > 100) != flip))
        };
        "x,y\n".to_string() + &(0..200).map(one).collect::<String>()
    };
    let place = Place::new().file("clean.csv", rows(false)).file("noisy.csv", rows(true));
    place.run("regress noisy.csv --target y --loss logistic --full -o m.json").succeeds();
    assert!(place.json("m.json")["coefficients"]["x"].as_f64().unwrap() > 0.0);
    place
        .run("regress clean.csv --target y --loss logistic --full -o c.json")
        .fails()
        .naming(&["separate", "hint", "--l2"])
        .leaving(&["clean.csv", "m.json", "noisy.csv"]);
    place.run("regress clean.csv --target y --loss logistic --l2 1 --full -o c.json").succeeds();
}

#[test]
fn without_intercept_every_level_has_its_column() {
    let place = Place::new().cities(6000);
    place.run("regress cities.parquet --target y --full --no-intercept -q -o m.json").succeeds();
    let model = place.json("m.json");
    assert_eq!(model["intercept"], 0.0);
    assert!((model["coefficients"]["city=a"].as_f64().unwrap() - 3.0).abs() < 1e-6);
}

#[test]
fn one_thread_and_two_give_the_same_model_and_the_seed_reaches_the_pilot() {
    let place = Place::new().cities(500);
    for mode in ["--rows 600 --loss l2", "--exact", "--full --loss huber --delta 1"] {
        for threads in [1, 2] {
            let call = "regress cities.parquet --target y -q";
            place.run(&format!("{call} {mode} --threads {threads} -o {threads}.json")).succeeds();
        }
        assert_eq!(place.read("1.json"), place.read("2.json"), "{mode}");
    }
    place.run("regress cities.parquet --target y --rows 600 --loss l2 --seed 9 -q -o 9.json").succeeds();
    place.run("regress cities.parquet --target y --rows 600 --loss l2 --seed 8 -q -o 8.json").succeeds();
    assert_ne!(place.read("9.json"), place.read("8.json"));
}

#[test]
fn the_record_has_the_promised_fields() {
    let place = Place::new().cities(6000);
    let record = place.run("regress cities.parquet --target y --exact --json -o m.json").succeeds().record();
    for name in ["objective", "relative_gap", "rows_used", "iterations"] {
        assert!(record["results"][name].is_number(), "{name}: {}", record["results"]);
    }
    for phase in ["read", "solve", "write", "total"] {
        assert!(record["seconds"][phase].is_f64(), "{phase}: {}", record["seconds"]);
    }
    assert_eq!(record["config"]["target"], "y");
    assert_eq!(record["config"]["mode"], "exact");
}
