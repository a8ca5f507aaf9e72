//! `subspan sample` on good data.

use crate::place::Place;

#[test]
fn the_output_has_ids_probabilities_weights_and_the_columns_of_the_input() {
    let place = Place::new().cities(6000);
    place.run("sample cities.parquet --rows 300 -p 1 -o s.parquet").succeeds().saying(&[
        "6,000",
        "s.parquet",
        "root-leverage",
        "time",
    ]);
    let names: Vec<String> = place.parquet("s.parquet").schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["row_id", "probability", "weight", "x", "z", "city", "y"]);
    let (ids, weights) = (place.row_ids("s.parquet"), place.numbers("s.parquet", "weight"));
    let probabilities = place.numbers("s.parquet", "probability");
    assert!(ids.is_sorted() && ids.contains(&4_321) && ids.contains(&4_400), "rare rows are kept");
    assert!(weights.iter().zip(&probabilities).all(|(w, q)| (w * q - 1.0).abs() < 1e-12));
    // The weights of a sample add up to about the number of rows.
    let sum: f64 = weights.iter().sum();
    assert!((sum / 6000.0 - 1.0).abs() < 0.25, "{sum}");
    let y = place.numbers("cities.parquet", "y");
    let kept = place.numbers("s.parquet", "y");
    assert!(ids.iter().zip(&kept).all(|(id, v)| y[*id as usize] == *v), "ids are positions in the input");
}

#[test]
fn one_thread_and_two_give_the_same_bytes() {
    let place = Place::new().cities(500);
    for rule in ["auto", "uniform", "root-leverage", "sensitivity+leverage"] {
        for threads in [1, 2] {
            let call = "sample cities.parquet --rows 300 -p 1.5 -q";
            place.run(&format!("{call} --rule {rule} --threads {threads} -o {threads}.parquet")).succeeds();
        }
        assert_eq!(place.read("1.parquet"), place.read("2.parquet"), "{rule}");
    }
}

#[test]
fn the_seed_decides_the_sample() {
    let place = Place::new().cities(6000);
    for draw in ["poisson", "systematic", "priority"] {
        for (seed, name) in [(0, "a"), (0, "b"), (1, "c")] {
            place
                .run(&format!("sample cities.parquet --rows 300 --draw {draw} --seed {seed} -q -o {name}.parquet"))
                .succeeds();
        }
        assert_eq!(place.read("a.parquet"), place.read("b.parquet"), "{draw}");
        assert_ne!(place.row_ids("a.parquet"), place.row_ids("c.parquet"), "{draw}");
    }
}

#[test]
fn other_row_groups_give_the_same_row_ids() {
    let (one, many) = (Place::new().cities(6000), Place::new().cities(517));
    for place in [&one, &many] {
        place.run("sample cities.parquet --rows 300 -p 1 -q -o s.parquet").succeeds();
    }
    assert_eq!(one.row_ids("s.parquet"), many.row_ids("s.parquet"));
    let (a, b) = (one.numbers("s.parquet", "weight"), many.numbers("s.parquet", "weight"));
    assert!(a.iter().zip(&b).all(|(a, b)| (a / b - 1.0).abs() < 1e-9));
}

#[test]
fn a_priority_draw_has_exactly_the_rows_asked_for() {
    let place = Place::new().cities(6000);
    place.run("sample cities.parquet --rows 123 --draw priority -q -o s.parquet").succeeds();
    assert_eq!(place.row_ids("s.parquet").len(), 123);
}

#[test]
fn more_rows_than_there_are_give_all_of_them_with_weight_one() {
    let place = Place::new().cities(6000);
    place.run("sample cities.parquet --rows 100000 -q -o s.parquet").succeeds();
    assert_eq!(place.row_ids("s.parquet").len(), 6000);
    assert!(place.numbers("s.parquet", "weight").iter().all(|w| *w == 1.0));
}

#[test]
fn a_distortion_can_be_asked_for_instead_of_rows() {
    let place = Place::new().cities(6000);
    let record = place.run("sample cities.parquet --epsilon 0.2 --json -o s.parquet").succeeds().record();
    let certificate = &record["results"]["certificate"];
    assert_eq!(certificate["kind"], "exact");
    assert!(
        certificate["lower"].as_f64().unwrap() > -0.2 && certificate["upper"].as_f64().unwrap() < 0.2,
        "{certificate}"
    );
}

#[test]
fn columns_are_chosen_and_left_out() {
    let place = Place::new().cities(6000);
    let columns = |flags: &str| {
        let call = format!("sample cities.parquet --rows 100 --json -o s.parquet {flags}");
        place.run(&call).succeeds().record()["config"]["columns"].clone()
    };
    assert_eq!(columns("--columns z,x"), serde_json::json!(["z", "x"]));
    assert_eq!(columns("--exclude y,x"), serde_json::json!(["z", "city=a", "city=b", "city=c", "city=rare"]));
}

#[test]
fn the_record_has_the_promised_fields() {
    let place = Place::new().cities(6000);
    let record =
        place.run("sample cities.parquet --rows 300 -p 1 --seed 7 --threads 2 --json -o s.parquet").succeeds().record();
    assert_eq!((&record["command"], &record["seed"], &record["threads"]), (&"sample".into(), &7.into(), &2.into()));
    assert_eq!(record["subspan"], env!("CARGO_PKG_VERSION"));
    let input = &record["inputs"][0];
    assert_eq!((&input["path"], &input["shape"][0]), (&"cities.parquet".into(), &6000.into()));
    assert!(input["dtype"].is_string() && input["fingerprint"].is_string());
    let results = &record["results"];
    for name in ["rule", "p", "score_sum", "rows_in", "rows_out", "certain_rows", "effective_rows"] {
        assert!(!results[name].is_null(), "{name}: {results}");
    }
    let certificate = &results["certificate"];
    assert!(certificate["lower"].as_f64().unwrap() <= 0.0 && certificate["upper"].as_f64().unwrap() >= 0.0);
    assert!(["exact", "bound", "searched"].contains(&certificate["kind"].as_str().unwrap()));
    for phase in ["read", "score", "draw", "certify", "write", "total"] {
        assert!(record["seconds"][phase].is_f64(), "{phase}: {}", record["seconds"]);
    }
    if cfg!(target_os = "linux") {
        assert!(record["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
    }
    assert_eq!(record["config"]["rule"], "auto");
}
