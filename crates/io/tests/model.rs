//! Models survive the way through a file; damaged or foreign files are refused with their place named.

use std::fs;

use subspan::classify::{self, Config, DenseSamples, Dim, Labelled, Method, Model};
use subspan::{Silent, draw::Stream};
use subspan_io::{AtomicFile, Labels, Matrix, read_model, write_model, write_npy_f32, write_npy_labels};
use tempfile::TempDir;

fn model(method: Method, center: bool) -> Model {
    let mut rng = Stream::new(1, "samples").rng(0);
    let codes: Vec<u32> = (0..60).map(|i| i % 3).collect();
    let values: Vec<f32> = codes
        .iter()
        .flat_map(|c| (0..5).map(|j| if j == *c { 3.0 } else { 0.3 }).collect::<Vec<f64>>())
        .map(|scale| (scale * rng.normal()) as f32)
        .collect();
    let classes = ["a", "b", "c"].map(String::from);
    let samples = DenseSamples::new(&values, 5).unwrap();
    let data = Labelled::new(&samples, &codes, &classes).unwrap();
    let config = Config { method, center, dim: Dim::Fixed(2), epochs: Some(2), rivals: false, ..Config::default() };
    classify::run(&data, &config, 0, &Silent).unwrap().model
}

fn written(model: &Model, place: &TempDir) -> String {
    let path = place.path().join("m.safetensors").display().to_string();
    write_model(model, AtomicFile::create(&path).unwrap()).unwrap();
    path
}

#[test]
fn a_model_survives_the_way_through_a_file() {
    let place = TempDir::new().unwrap();
    for method in [Method::Gcr, Method::Clafic, Method::Linear] {
        for center in [false, true] {
            let model = model(method, center);
            let path = written(&model, &place);
            let bytes = fs::read(&path).unwrap();
            assert_eq!(read_model(&path).unwrap(), model);
            written(&model, &place);
            assert_eq!(fs::read(&path).unwrap(), bytes, "equal models make equal files");
        }
    }
}

#[test]
fn a_file_of_an_earlier_version_measures_the_sine_alone() {
    let place = TempDir::new().unwrap();
    let mut model = model(Method::Clafic, false);
    let reconstruction = model.reconstruction.as_mut().unwrap();
    reconstruction.contrast = None;
    // Every class is the first axis.
    reconstruction.frames =
        classify::Frames { rows: [[1.0, 0.0, 0.0, 0.0, 0.0]; 3].concat(), offsets: vec![0, 1, 2, 3] };
    let read = read_model(&written(&model, &place)).unwrap();
    assert_eq!(read, model);
    let sample = DenseSamples::new(&[3.0, 4.0, 0.0, 0.0, 0.0], 5).unwrap();
    let found = read.predict(&sample).unwrap().strangeness.unwrap();
    assert!((found[0] - 0.8).abs() < 1e-6, "{found:?}");
}

#[test]
fn damage_anywhere_is_refused_or_harmless() {
    let place = TempDir::new().unwrap();
    let path = written(&model(Method::Gcr, true), &place);
    let whole = fs::read(&path).unwrap();
    for cut in [0, 4, 8, 60, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(read_model(&path).is_err(), "cut at {cut}");
    }
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(&path, damaged).unwrap();
        // Whatever is accepted predicts.
        if let Ok(model) = read_model(&path) {
            let row = vec![1.0; model.n_cols];
            let p = model.predict(&DenseSamples::new(&row, model.n_cols).unwrap()).unwrap();
            assert!(p.probabilities.iter().all(|p| p.is_finite()), "byte {at}");
            assert!(p.strangeness.iter().flatten().all(|s| (0.0..=1.0).contains(s)), "byte {at}");
        }
    }
}

#[test]
fn what_predictions_rely_on_is_checked_and_named() {
    let place = TempDir::new().unwrap();
    let refused = |change: &dyn Fn(&mut Model), word: &str| {
        let mut model = model(Method::Gcr, false);
        change(&mut model);
        let text = read_model(&written(&model, &place)).unwrap_err().to_string();
        assert!(text.contains(word) && text.contains("m.safetensors"), "{text}");
    };
    let frames = |model: &mut Model, change: &dyn Fn(&mut classify::Frames)| {
        if let classify::Scorer::Subspaces { frames, .. } = &mut model.scorer {
            change(frames);
        }
    };
    refused(&|m| frames(m, &|f| f.rows[0] += 0.5), "orthonormal");
    refused(&|m| frames(m, &|f| f.rows[3] = f32::NAN), "NaN");
    refused(&|m| frames(m, &|f| f.offsets[1] = 5), "offsets");
    refused(&|m| frames(m, &|f| f.offsets.truncate(3)), "offsets");
    let contrast = |model: &mut Model, change: &dyn Fn(&mut classify::Contrast)| {
        change(model.reconstruction.as_mut().unwrap().contrast.as_mut().unwrap());
    };
    refused(&|m| contrast(m, &|c| c.standards[1] = 0.0), "contrast_standards");
    refused(&|m| contrast(m, &|c| c.weight = 1.5), "contrast_weight");
    refused(&|m| contrast(m, &|c| c.form[2] = f32::INFINITY), "contrast_form");
    refused(&|m| m.temperature = -1.0, "temperature");
    refused(&|m| m.classes[1] = "a".into(), "class a twice");
    refused(&|m| m.classes.truncate(1), "at least 2");
}

#[test]
fn foreign_files_are_told_apart() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("x.safetensors").display().to_string();
    assert!(read_model(&path).unwrap_err().to_string().contains("cannot open"));
    fs::write(&path, b"no model at all").unwrap();
    assert!(read_model(&path).unwrap_err().to_string().contains("corrupt"));
    let empty = b"{}";
    fs::write(&path, [&(empty.len() as u64).to_le_bytes()[..], empty].concat()).unwrap();
    assert!(read_model(&path).unwrap_err().to_string().contains("not a model"));
}

#[test]
fn written_arrays_are_read_back() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("a.npy").display().to_string();
    let values: Vec<f32> = (0..6).map(|i| i as f32 / 4.0).collect();
    write_npy_f32(&values, &[3, 2], AtomicFile::create(&path).unwrap()).unwrap();
    let matrix = Matrix::open(&path).unwrap();
    assert_eq!((matrix.shape(), matrix.to_f32().unwrap()), (&[3, 2][..], values));
    for classes in [["-3", "7", "12"], ["ä", "long name", "7"]] {
        let classes = classes.map(String::from);
        write_npy_labels(&[2, 0, 1, 0], &classes, AtomicFile::create(&path).unwrap()).unwrap();
        let labels = Labels::open(&path).unwrap();
        let names: Vec<&String> = labels.codes.iter().map(|c| &labels.classes[*c as usize]).collect();
        assert_eq!(names, [&classes[2], &classes[0], &classes[1], &classes[0]]);
    }
}
