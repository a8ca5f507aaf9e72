//! `subspan sample --shard` and `--combine`: many processes, one folder of states, the bytes of one run.

use std::fs;

use crate::place::Place;

const CALL: &str = "sample cities.parquet --rows 300 -q";

/// Runs all shards of every pass of `flags`.
fn run_shards(place: &Place, flags: &str, count: usize, passes: usize) {
    for _ in 0..passes {
        for i in 1..=count {
            place.run(&format!("{CALL} {flags} --shard {i}/{count} -o states")).succeeds();
        }
    }
}

#[test]
fn shards_combined_are_the_bytes_of_one_run() {
    // p = 1: Gram matrix, draw, and for the certificate a reference and a pass that measures directions.
    for (flags, passes) in [("-p 2", 2), ("-p 1 --seed 5", 4), ("-p 2 --draw priority --threads 1", 2)] {
        let place = Place::new().cities(500);
        run_shards(&place, flags, 5, passes);
        place.run(&format!("{CALL} {flags} --combine states -o s.parquet")).succeeds();
        place.run(&format!("{CALL} {flags} -o whole.parquet")).succeeds();
        assert_eq!(place.read("s.parquet"), place.read("whole.parquet"), "{flags}");
    }
}

#[test]
fn what_is_missing_is_said_and_nothing_is_written() {
    let place = Place::new().cities(500);
    let combine = format!("{CALL} --combine states -o s.parquet");
    place.run(&combine).fails().naming(&["states: no such folder", "hint: --combine takes"]);
    fs::create_dir(place.path("states")).unwrap();
    place
        .run(&combine)
        .fails()
        .naming(&["pass 1 lacks the states of chunks 0, 1, 2, 3, 4 and 7 more", "hint: run every"]);
    run_shards(&place, "", 3, 1);
    place.run(&combine).fails().naming(&["pass 2 lacks"]);
    run_shards(&place, "", 3, 1);
    fs::remove_file(place.path("states/pass-2.chunk-7.state")).unwrap();
    place.run(&combine).fails().naming(&["pass 2 lacks the states of chunks 7"]).leaving(&["cities.parquet", "states"]);
}

#[test]
fn a_damaged_or_foreign_state_is_refused_and_its_shard_mends_it() {
    let place = Place::new().cities(500);
    run_shards(&place, "", 3, 2);
    let (file, other) = (place.path("states/pass-1.chunk-4.state"), place.path("states/pass-1.chunk-5.state"));
    let good = fs::read(&file).unwrap();
    let combine = format!("{CALL} --combine states -o s.parquet");
    let mut bad = good.clone();
    bad[20] ^= 1;
    for (content, words) in [(bad, "damaged"), (fs::read(other).unwrap(), "the state of chunk 5"), (vec![], "damaged")]
    {
        fs::write(&file, content).unwrap();
        place.run(&combine).fails().naming(&["pass-1.chunk-4.state", words]);
        // Chunk 4 is of shard 2 of 3.
        place.run(&format!("{CALL} --shard 2/3 -o states")).succeeds();
        assert_eq!(fs::read(&file).unwrap(), good);
    }
    place.run(&combine).succeeds();
    place.run(&format!("{CALL} --seed 1 --combine states -o t.parquet")).fails().naming(&["another run or pass"]);
}

#[test]
fn a_shard_run_again_finds_its_states() {
    let place = Place::new().cities(500);
    let call = "sample cities.parquet --rows 300 --shard 1/2 -o states --json";
    let first = place.run(call).succeeds().record();
    assert_eq!((&first["results"]["pass"], &first["results"]["chunks"]), (&1.into(), &6.into()));
    assert_eq!(place.run(call).succeeds().record()["results"]["chunks_found"], 6);
}

#[test]
fn a_shard_that_makes_no_sense_is_a_usage_error() {
    let place = Place::new().cities(500);
    for shard in ["0/3", "4/3", "3", "a/b", "1/0"] {
        place.run(&format!("{CALL} --shard {shard} -o states")).misuses().naming(&["i/n"]);
    }
    place.run(&format!("{CALL} --shard 1/3 --combine states -o s.parquet")).misuses().naming(&["--combine"]);
}

#[test]
fn states_of_another_table_are_refused() {
    let place = Place::new().file("t.csv", "a,b\n1,2\n3,5\n4,4\n").file("other.csv", "a,b\n1,2\n3,5\n9,4\n");
    place.run("sample t.csv --rows 2 --shard 1/1 -o states").succeeds();
    for call in ["--shard 1/1 -o states", "--combine states -o s.parquet"] {
        place.run(&format!("sample other.csv --rows 2 {call}")).fails().naming(&[
            "states",
            "another table than other.csv",
            "hint: start again",
        ]);
    }
    place.run("sample t.csv --rows 2 --shard 1/1 -o states").succeeds();
}
