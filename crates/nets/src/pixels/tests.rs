use subspan::Silent;

use super::*;
use crate::tensor::cast;

fn noise(n: usize, name: &str) -> Vec<f64> {
    let mut rng = Stream::new(3, name).rng(0);
    (0..n).map(|_| rng.normal()).collect()
}

fn small(trunk: Trunk) -> Pixels {
    Pixels { trunk, epochs: 2, batch_size: 16, hidden: 12, n_dims: 6, similarity: 5.0, ..Pixels::usual(1) }
}

/// The loss from the network's outputs.
fn loss(network: &Network, params: &Params<f64>, batch: &[f64], settings: &Pixels) -> f64 {
    let trace = network.net.trace(params, batch, Mode::Batch, Keep::All);
    let unit = |row: &[f64]| -> Vec<f64> {
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter().map(|v| v / length).collect()
    };
    let d = settings.n_dims;
    let z: Vec<Vec<f64>> = trace.values(network.projected).chunks_exact(d).map(unit).collect();
    let pairs = z[..z.len() / 2].iter().zip(&z[z.len() / 2..]);
    let mean: Vec<f64> =
        pairs.clone().flat_map(|(a, b)| unit(&a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>())).collect();
    let alike = pairs.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>()).sum::<f64>();
    let (whole, _) = subspan::cluster::rate::whole_rate(&mean, d, settings.eps2).unwrap();
    -0.5 * whole - settings.similarity * alike / (z.len() / 2) as f64
}

/// Compares slopes along random directions of the parameters that `moves` names, one after the other, with differences of step `h`.
fn compare(trunk: Trunk, side: usize, images: usize, h: f64, moves: &[&str]) {
    let settings = small(trunk);
    let network = Network::new([1, side, side], &settings).unwrap();
    let params: Params<f64> = cast(&network.start(1));
    let batch = noise(2 * images * side * side, "batch");
    let (_, gradient) = network.gradient(&params, &batch, &settings).unwrap();
    assert_eq!(gradient.len(), params.keys().filter(|k| !k.contains("running")).count());
    for name in moves {
        let moved = |h: f64| {
            let mut params = params.clone();
            let mut slope = 0.0;
            for (key, g) in gradient.iter().filter(|(key, _)| key.starts_with(name)) {
                let direction = noise(g.values.len(), key);
                slope += g.values.iter().zip(&direction).map(|(a, b)| a * b).sum::<f64>();
                let values = &mut params.get_mut(key).unwrap().values;
                values.iter_mut().zip(&direction).for_each(|(v, d)| *v += h * d);
            }
            (loss(&network, &params, &batch, &settings), slope)
        };
        let ((up, slope), (down, _)) = (moved(h), moved(-h));
        let difference = (up - down) / (2.0 * h);
        assert!((difference - slope).abs() < 1e-4 * slope.abs().max(1.0), "{trunk:?} {name}: {slope} {difference}");
    }
}

#[test]
fn the_gradient_of_the_whole_network_is_the_limit_of_differences() {
    let names = ["conv0", "bn0", "conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "head.0", "head.1", "head.2"];
    compare(Trunk::Conv4, 12, 9, 1e-6, &names);
}

#[test]
fn one_step_of_resnet_18_follows_differences() {
    // Eighteen layers of rectifiers are straight over short distances only.
    compare(Trunk::ResNet18, 8, 4, 1e-8, &["conv1", "layer1.1", "layer2.0.downsample", "layer4", "head"]);
}

#[test]
fn the_folded_backbone_is_the_network_at_rest() {
    for trunk in [Trunk::Conv4, Trunk::ResNet18] {
        let (h, w, channels, n) = (9, 11, 3, 5);
        let network = Network::new([channels, h, w], &small(trunk)).unwrap();
        let mut params = network.start(2);
        for (name, tensor) in params.iter_mut().filter(|(name, _)| name.contains("bn") || name.contains("downsample.1"))
        {
            let draws = noise(tensor.values.len(), name);
            let spread = if name.ends_with("running_var") { 0.3 } else { 0.1 };
            tensor.values.iter_mut().zip(draws).for_each(|(v, z)| *v = (*v + (spread * z) as f32).max(-1.0).abs());
        }
        let images: Vec<f32> = noise(n * h * w * channels, "images").iter().map(|v| *v as f32).collect();
        let backbone = Backbone::new([h, w, channels], vec![0.0; 3], vec![1.0; 3], network.folded(&params)).unwrap();
        let features = backbone.apply(&images);
        let mean = network.last + 1;
        let trace =
            network.net.trace(&params, &interleaved(&images, channels, h * w), Mode::Eval, Keep::Nodes(&[mean]));
        let expected = trace.values(mean);
        assert_eq!(features.len(), expected.len());
        let scale = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(scale > 0.0 && scale.is_finite());
        assert!(features.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4 * scale), "{trunk:?}");
    }
}

#[test]
fn training_is_a_function_of_the_seed_whatever_the_threads() {
    let images: Vec<f32> = noise(40 * 100, "images").iter().map(|v| *v as f32).collect();
    let trained = |seed: u64, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train_backbone(&images, [10, 10, 1], &[], &small(Trunk::Conv4), seed, &Silent).unwrap())
    };
    let one = trained(0, 1);
    assert_eq!(one, trained(0, 3));
    assert_ne!(one, trained(1, 1));
}

#[test]
fn images_that_cannot_be_learned_from_are_refused() {
    let train = |images: &[f32], shape: [usize; 3]| {
        train_backbone(images, shape, &[], &small(Trunk::Conv4), 0, &Silent).unwrap_err().to_string()
    };
    let some = vec![0.5f32; 20 * 100];
    assert!(train(&some, [10, 10, 1]).contains("the same"));
    assert!(train(&some, [4, 25, 1]).contains("[1, 4, 25]"));
    assert!(train(&some, [10, 10, 2]).contains("1 or 3 channels"));
    assert!(train(&some[..1000], [10, 10, 1]).contains("at least 16"));
    assert!(train(&some[..1999], [10, 10, 1]).contains("size"));
    let mut bad = some;
    bad[1234] = f32::NAN;
    assert!(train(&bad, [10, 10, 1]).contains("row 12, column 34"));
}
