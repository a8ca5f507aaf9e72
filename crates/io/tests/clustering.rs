//! Clusterings survive the way through a file; damaged files are refused or harmless.

use std::fs;

use subspan::cluster::{self, AffinityKind, Backbone, Clusters, Config, Convolution, Features, Front, Model};
use subspan::{Silent, draw::Stream};
use subspan_io::{AnyModel, AtomicFile, read_any_model, write_clustering};
use tempfile::TempDir;

fn model(affinity: AffinityKind) -> Model {
    let mut rng = Stream::new(1, "rows").rng(0);
    let values: Vec<f32> = (0..24)
        .flat_map(|i| (0..5).map(|j| f64::from(u8::from(j == i % 3))).collect::<Vec<_>>())
        .map(|v| (v + 0.1 * rng.normal()) as f32)
        .collect();
    let config =
        Config { clusters: Clusters::Fixed(3), affinity: Some(affinity), neighbours: Some(4), ..Config::default() };
    let weights: Vec<f64> = (0..24).map(|i| 1.0 + 0.1 * f64::from(i)).collect();
    cluster::run(&Features::new(&values, 5).unwrap().weighted(&weights).unwrap(), &config, 0, &Silent).unwrap().model
}

/// The same behind a small residual network on images of 3 x 3 pixels.
fn with_backbone() -> Model {
    let layer = |from: usize, add: Option<usize>, inputs: usize, size: usize| Convolution {
        from,
        add,
        rectified: add.is_some(),
        size,
        stride: 1,
        kernels: (0..5 * size * size * inputs).map(|i| ((i * 7 % 5) as f32 - 2.0) / 4.0).collect(),
        bias: vec![0.1; 5],
    };
    let layers = vec![layer(0, None, 1, 3), layer(1, Some(1), 5, 1)];
    let backbone = Backbone::new([3, 3, 1], vec![0.5], vec![2.0], layers).unwrap();
    Model { front: Some(Front::Backbone(backbone)), ..model(AffinityKind::Cosine) }
}

fn written(model: &Model, place: &TempDir) -> String {
    let path = place.path().join("m.safetensors").display().to_string();
    write_clustering(model, AtomicFile::create(&path).unwrap()).unwrap();
    path
}

#[test]
fn a_clustering_survives_the_way_through_a_file() {
    let place = TempDir::new().unwrap();
    let kinds = [AffinityKind::Cosine, AffinityKind::Absolute, AffinityKind::LeastSquares];
    for model in kinds.map(model).into_iter().chain([with_backbone()]) {
        let path = written(&model, &place);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(read_any_model(&path).unwrap(), AnyModel::Clustering(Box::new(model.clone())));
        written(&model, &place);
        assert_eq!(fs::read(&path).unwrap(), bytes, "equal models make equal files");
    }
}

#[test]
fn damage_anywhere_is_refused_or_harmless() {
    damage(&model(AffinityKind::LeastSquares), &[0x40, 0x80]);
    damage(&with_backbone(), &[0x40]);
}

fn damage(model: &Model, flips: &[u8]) {
    let place = TempDir::new().unwrap();
    let path = written(model, &place);
    let whole = fs::read(&path).unwrap();
    for cut in [0, 4, 8, 60, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(read_any_model(&path).is_err(), "cut at {cut}");
    }
    for at in 0..whole.len() {
        for bits in flips {
            let mut damaged = whole.clone();
            damaged[at] ^= bits;
            fs::write(&path, damaged).unwrap();
            // Whatever is accepted predicts.
            if let Ok(AnyModel::Clustering(model)) = read_any_model(&path) {
                let row = vec![1.0; model.n_cols()];
                let p = model.predict(&Features::new(&row, model.n_cols()).unwrap(), true).unwrap();
                assert!((p.labels[0] as usize) < model.clusters, "byte {at}");
            }
        }
    }
}
