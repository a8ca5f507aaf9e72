//! Training, statistics and repair.

use subspan::Silent;
use subspan::draw::Stream;
use subspan_nets::{
    Activation, Keep, Labelled, Mode, Net, Params, Site, Training, Units, evaluate, initialize, lerp,
    loss_and_gradient, mlp, pair_moments, repair, reset_norms, train,
};

/// Three noisy classes of 6 values.
fn samples(n: usize) -> (Vec<f32>, Vec<u32>) {
    let mut rng = Stream::new(1, "samples").rng(0);
    let y: Vec<u32> = (0..n).map(|i| (i % 3) as u32).collect();
    let x = y.iter().flat_map(|y| {
        (0..6).map(|j| f32::from(u8::from(j % 3 == *y as usize)) + 0.3 * rng.normal() as f32).collect::<Vec<_>>()
    });
    (x.collect(), y)
}

fn trained(net: &Net, seed: u64, epochs: usize) -> Params<f32> {
    let (x, y) = samples(600);
    let mut params = initialize(net, |_| 3, seed);
    let how = Training { epochs, batch: 50, ..Training::default() };
    train(net, &mut params, &Labelled { x: &x, y: &y }, &how, seed, &Silent).unwrap();
    params
}

#[test]
fn a_network_learns_and_neither_the_seed_nor_the_threads_are_forgotten() {
    let net = mlp(6, &[32, 32], 3);
    let run = |threads: usize, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| trained(&net, seed, 15))
    };
    let one = run(1, 5);
    assert_eq!(one, run(2, 5));
    assert_ne!(one, run(2, 6));
    let (x, y) = samples(900);
    let scores = evaluate(&net, &one, &Labelled { x: &x[3600..], y: &y[600..] }).unwrap();
    assert!(scores.accuracy > 0.95 && scores.loss < 0.2, "{scores:?}");
}

#[test]
fn the_gradient_over_batches_is_that_of_the_mean_loss() {
    let net = mlp(6, &[8], 3);
    let params = subspan_nets::cast::<f32, f64>(&initialize(&net, |_| 0, 0));
    let (x, y) = samples(700);
    let x: Vec<f64> = x.into_iter().map(f64::from).collect();
    let data = Labelled { x: &x, y: &y };
    let (loss, gradient) = loss_and_gradient(&net, &params, &data).unwrap();
    assert!((loss - evaluate(&net, &params, &data).unwrap().loss).abs() < 1e-12);
    let moved = |t: f64| {
        let mut p = params.clone();
        p.get_mut("layer0.weight").unwrap().values[7] += t;
        evaluate(&net, &p, &data).unwrap().loss
    };
    let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
    assert!((gradient["layer0.weight"].values[7] - slope).abs() < 1e-8);
}

#[test]
fn a_reset_gives_the_statistics_of_the_data() {
    let mut net = Net::new([6, 1, 1]);
    let a = net.linear(Net::INPUT, "a", 5, true);
    let a = net.norm(a, "n", true);
    let a = net.act(a, Activation::Relu);
    net.linear(a, "b", 3, true);
    let mut params = initialize(&net, |_| 0, 2);
    let (x, y) = samples(300);
    let data = Labelled { x: &x, y: &y };
    reset_norms(&net, &mut params, &data, &Silent).unwrap();
    // One batch: evaluation with the new statistics is what training mode computes, but for n / (n - 1).
    let eval = net.forward(&params, &x);
    let batch = net.trace(&params, &x, Mode::Batch, Keep::Nodes(&[4])).take(4);
    assert!(eval.iter().zip(&batch).all(|(a, b)| (a - b).abs() < 1e-2));
    let norm = net.trace(&params, &x, Mode::Eval, Keep::Nodes(&[2])).take(2);
    let mean: f64 = norm.iter().step_by(5).map(|v| f64::from(*v)).sum::<f64>() / 300.0;
    assert!(mean.abs() < 1e-6, "{mean}");
}

#[test]
fn repair_hits_its_target_moments() {
    let net = mlp(6, &[16, 16], 3);
    let (a, b) = (trained(&net, 1, 5), trained(&net, 2, 5));
    let mut merged = lerp(&a, &b, 0.5);
    let (x, y) = samples(600);
    let dead = repair(&net, &mut merged, &[&a, &b], &[0.5, 0.5], &Labelled { x: &x, y: &y }, &Silent).unwrap();
    assert_eq!(dead, 0);
    let moments = |p: &Params<f32>, node: usize, unit: usize| {
        let values = net.trace(p, &x, Mode::Eval, Keep::All);
        let v: Vec<f64> = values.values(node).iter().skip(unit).step_by(16).map(|v| f64::from(*v)).collect();
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        (mean, (v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / v.len() as f64).sqrt())
    };
    for (node, unit) in [(1, 0), (1, 7), (3, 3), (3, 15)] {
        let (a, b, m) = (moments(&a, node, unit), moments(&b, node, unit), moments(&merged, node, unit));
        assert!((m.0 - (a.0 + b.0) / 2.0).abs() < 1e-4 && (m.1 - (a.1 + b.1) / 2.0).abs() < 1e-4, "{a:?} {b:?} {m:?}");
    }
    // Repairing an end point changes nothing but rounding.
    let mut same = a.clone();
    repair(&net, &mut same, &[&a, &b], &[1.0, 0.0], &Labelled { x: &x, y: &y }, &Silent).unwrap();
    assert!(same["layer1.weight"].values.iter().zip(&a["layer1.weight"].values).all(|(s, o)| (s - o).abs() < 1e-4));
}

#[test]
fn moments_of_units_are_those_of_their_definition() {
    let mut net = Net::new([1, 4, 4]);
    let c = net.conv(Net::INPUT, "c", 3, 3, [1, 1], true).unwrap();
    let c = net.act(c, Activation::Relu);
    let d = net.conv(c, "d", 2, 3, [1, 1], true).unwrap();
    let d = net.act(d, Activation::Relu);
    net.linear(d, "f", 3, true);
    let (a, b) = (initialize(&net, |_| 3, 1), initialize(&net, |_| 3, 2));
    let mut rng = Stream::new(0, "images").rng(0);
    let x: Vec<f32> = (0..20 * 16).map(|_| rng.normal() as f32).collect();
    let data = Labelled { x: &x, y: &[0; 20] };
    let units = [
        Units { size: 3, sites: vec![Site { weight: "d.weight".into(), places: vec![2, 0, 1] }] },
        Units { size: 2, sites: vec![Site { weight: "f.weight".into(), places: (0..32).collect() }] },
    ];
    let found = pair_moments(&net, [&a, &b], &data, &units).unwrap();
    let values = |p: &Params<f32>, node: usize| net.trace(p, &x, Mode::Eval, Keep::All).take(node);
    let (za, zb) = (values(&a, c), values(&b, c));
    let unit = |z: &[f32], channel: usize| -> Vec<f64> {
        z.chunks(48).flat_map(|s| s[channel * 16..(channel + 1) * 16].to_vec()).map(f64::from).collect()
    };
    let (u, v) = (unit(&za, 0), unit(&zb, 2));
    let expected: f64 = u.iter().zip(&v).map(|(u, v)| u * v).sum();
    assert_eq!(found[0].count, 320);
    // Unit 1 stands at place 0, unit 0 at place 2.
    assert!((found[0].cross[(1, 0)] - expected).abs() < 1e-4 * expected.abs());
    assert!((found[0].sums[0][1] - u.iter().sum::<f64>()).abs() < 1e-3);
    assert_eq!(found[1].count, 320, "sixteen positions of a flattened image are samples");
    let same = pair_moments(&net, [&a, &a], &data, &units[..1]).unwrap().remove(0).correlation();
    assert!((0..3).all(|i| (same[(i, i)] - 1.0).abs() < 1e-5 || same[(i, i)] == 0.0), "{same:?}");
}
