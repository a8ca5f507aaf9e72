//! Samples that stay in their file, and what a training may start from.

mod common;

use common::*;
use subspan::Silent;
use subspan::classify::{self, Config, Dim, Labelled, Samples};
use subspan_io::{Matrix, Start, read_start};

/// Values of three classes along axes of their own.
fn rows(n: usize, d: usize) -> Vec<f32> {
    let mut mixer = Mixer(7);
    (0..n * d).map(|i| if i % d == i / d % 3 { 1.0 + mixer.unit() as f32 } else { 0.3 * mixer.unit() as f32 }).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn a_model_trained_from_the_file_is_the_one_trained_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (n, d) = (150, 6);
    let path = put(&dir, "x.npy", &npy_bytes("<f4", false, "(150, 6)", &bytes(&rows(n, d))));
    let matrix = Matrix::open(&path).unwrap();
    let codes: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
    let classes = ["a", "b", "c"].map(String::from);
    let config = Config { dim: Dim::Fixed(2), epochs: Some(2), batch_size: 32, ..Config::default() };
    let train = |limit: usize| {
        let samples = matrix.samples(limit).unwrap();
        assert_eq!(samples.stays_in_file(), limit < n * d);
        classify::run(&Labelled::new(&samples, &codes, &classes).unwrap(), &config, 0, &Silent).unwrap()
    };
    assert_eq!(train(n * d), train(10));
}

#[test]
fn rows_are_read_in_any_order_from_every_type() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<u8> = (0..40).collect();
    let expected =
        |rows: &[usize]| -> Vec<f32> { rows.iter().flat_map(|r| (0..4).map(move |j| (4 * r + j) as f32)).collect() };
    let wide = bytes(&expected(&(0..10).collect::<Vec<_>>()));
    let idx = idx_bytes(8, &[10, 2, 2], &values);
    let columns: Vec<u8> = (0..40).map(|i| (i % 10) * 4 + i / 10).collect();
    for (name, content, streams) in [
        ("a.npy", npy_bytes("|u1", false, "(10, 4)", &values), true),
        ("b.npy", npy_bytes("<f4", false, "(10, 4)", &wide), true),
        ("c.npy", npy_bytes("|u1", true, "(10, 4)", &columns), false),
        ("d-idx3-ubyte", idx.clone(), true),
        ("e-idx3-ubyte.gz", gzip(&idx), false),
    ] {
        let samples = Matrix::open(&put(&dir, name, &content)).unwrap().samples(0).unwrap();
        assert_eq!(samples.stays_in_file(), streams, "{name}");
        for rows in [vec![3, 4, 5, 0], vec![9], vec![7, 7, 6], (0..10).collect()] {
            let mut out = vec![0.0; rows.len() * 4];
            samples.gather(&rows, &mut out).unwrap();
            assert_eq!(out, expected(&rows), "{name} {rows:?}");
        }
    }
}

#[test]
fn a_value_that_is_no_number_is_named_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut values = vec![1.0; 12];
    values[7] = f32::NAN;
    let path = put(&dir, "x.npy", &npy_bytes("<f4", false, "(4, 3)", &bytes(&values)));
    let samples = Matrix::open(&path).unwrap().samples(0).unwrap();
    let error = samples.gather(&[0, 2], &mut [0.0; 6]).err().unwrap();
    assert!(matches!(error, subspan::Error::NonFinite { row: 2, column: 1, .. }), "{error}");
}

#[test]
fn a_layer_is_found_by_its_usual_names_with_its_bias() {
    let dir = tempfile::tempdir().unwrap();
    let weight = rows(3, 4);
    let file = safetensors_bytes(&[
        ("body.0.weight", vec![2, 2], vec![0.0; 4]),
        ("fc.weight", vec![3, 4], weight.clone()),
        ("fc.bias", vec![3], vec![1.0, 2.0, 3.0]),
        ("neck", vec![1, 4], vec![0.0; 4]),
    ]);
    let path = put(&dir, "net.safetensors", &file);
    for name in [path.clone(), format!("{path}:fc.weight")] {
        let Start::Layer { rows, n_cols, bias } = read_start(&name).unwrap() else { panic!("a layer is there") };
        assert_eq!((rows, n_cols, bias), (weight.clone(), 4, Some(vec![1.0, 2.0, 3.0])));
    }
    let Start::Layer { bias: None, .. } = read_start(&format!("{path}:neck")).unwrap() else { panic!("no bias") };
    let other = put(&dir, "other.safetensors", &safetensors_bytes(&[("neck", vec![1, 4], vec![0.0; 4])]));
    let error = read_start(&other).err().unwrap();
    assert!(error.to_string().contains("head.fc.weight") && error.hint().unwrap().contains("neck"), "{error}");
}
