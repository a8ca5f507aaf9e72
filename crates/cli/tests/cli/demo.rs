//! `subspan demo`: the first thing a newcomer runs.

use crate::place::Place;

#[test]
fn the_demo_tells_a_story_and_writes_a_report_and_a_record_per_job() {
    let place = Place::new();
    place
        .run("demo -o out")
        .succeeds()
        .saying(&["325,724", "robust fit", "sample", "classify", "out/report.html"])
        .leaving(&["out"]);
    let html = String::from_utf8(place.read("out/report.html")).unwrap();
    assert!(html.matches("<svg").count() >= 4, "plots are in the page");
    assert!(!html.replace("http://www.w3.org/2000/svg", "").contains("http"), "the page needs no network");

    let regress = place.json("out/regress/run.json");
    assert!(regress["results"]["relative_gap"].as_f64().unwrap() <= 1e-8, "the ground truth is proved");
    let sample = place.json("out/sample/run.json");
    assert_eq!(sample["results"]["rows_in"], 325_724);
    let errors = |curve: usize, name: &str| -> Vec<f64> {
        let points = sample["results"][name][curve]["points"].as_array().unwrap();
        points.iter().map(|p| p["median"].as_f64().unwrap()).collect()
    };
    let excess = errors(0, "error_by_rows");
    assert!(excess.iter().all(|e| *e >= 0.0) && excess.last() < excess.first(), "more rows, less error: {excess:?}");
    let (rule, uniform) = (errors(0, "effect_error_by_rows"), errors(1, "effect_error_by_rows"));
    assert!(rule.iter().zip(&uniform).all(|(r, u)| r < u), "rare categories: {rule:?} {uniform:?}");
    let rare = sample["results"]["rare_levels"].as_array().unwrap();
    assert!(rare.iter().all(|level| level["rule"] == level["seeds"]), "no sample by importance misses a rare category");

    let classify = place.json("out/classify/run.json");
    assert!(classify["results"]["test_accuracy"].as_f64().unwrap() > 0.97, "digits are told apart");
    let cluster = place.json("out/cluster/run.json");
    let clusters = cluster["results"]["clusters"].as_u64().unwrap();
    assert!((8..=14).contains(&clusters), "about as many clusters as digits: {clusters}");
    assert!(cluster["results"]["accuracy"].as_f64().unwrap() > 0.8, "clusters are digits");
    let pictures = html.matches("<img class=\"tiles\"").count();
    assert_eq!(pictures, 10 + 1, "a sheet of pictures for every digit, one for the clusters");

    let analyze = place.json("out/analyze/run.json");
    let barrier = |when: &str| analyze["results"]["barrier"][when].as_f64().unwrap();
    assert!(barrier("before") > 0.3 && barrier("after") < 0.05, "matching takes the barrier away");
}
