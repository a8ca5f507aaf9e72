//! Gradients against differences, in double precision.

use subspan::draw::Stream;
use subspan_nets::{Activation, Keep, Mode, Net, Params, cast, initialize};

fn noise(n: usize, name: &str) -> Vec<f64> {
    let mut rng = Stream::new(3, name).rng(0);
    (0..n).map(|_| rng.normal()).collect()
}

/// Every kind of node in one network, with two outputs that carry a gradient.
fn all_nodes() -> (Net, Vec<usize>) {
    let mut net = Net::new([2, 8, 8]);
    let a = net.conv(Net::INPUT, "c1", 4, 3, [1, 1], true).unwrap();
    let a = net.norm(a, "n1", true);
    let a = net.act(a, Activation::Gelu);
    let b = net.conv(a, "c2", 6, 3, [2, 1], false).unwrap();
    let b = net.norm(b, "n2", true);
    let side = net.shortcut(a, 6, 2).unwrap();
    let c = net.add(b, side).unwrap();
    let c = net.act(c, Activation::Tanh);
    let d = net.max_pool(c, 3, 1, 1).unwrap();
    let d = net.avg_pool(d, [3, 3]);
    let head = net.linear(d, "f1", 5, true);
    let e = net.act(head, Activation::Sigmoid);
    let e = net.norm(e, "n3", true);
    let out = net.linear(e, "f2", 3, false);
    (net, vec![head, out])
}

fn parameters(net: &Net) -> Params<f64> {
    let mut params: Params<f64> = cast(&initialize(net, |_| 3, 1));
    for (name, tensor) in &mut params {
        if name.starts_with('n') {
            let positive = name.ends_with("running_var");
            let draws = noise(tensor.values.len(), name);
            tensor
                .values
                .iter_mut()
                .zip(draws)
                .for_each(|(v, z)| *v = if positive { 1.0 + z.abs() } else { *v + 0.3 * z });
        }
    }
    params
}

#[test]
fn every_gradient_is_the_limit_of_differences() {
    let (net, heads) = all_nodes();
    let params = parameters(&net);
    net.check(&params).unwrap();
    let n = 5;
    let x = noise(n * 2 * 64, "x");
    let weights: Vec<Vec<f64>> = heads.iter().map(|h| noise(n * net.len_at(*h), &format!("seed {h}"))).collect();
    for mode in [Mode::Eval, Mode::Batch] {
        let value = |p: &Params<f64>| -> f64 {
            let trace = net.trace(p, &x, mode, Keep::Nodes(&heads));
            let dot = |(h, w): (&usize, &Vec<f64>)| trace.values(*h).iter().zip(w).map(|(a, b)| a * b).sum::<f64>();
            heads.iter().zip(&weights).map(dot).sum()
        };
        let trace = net.trace(&params, &x, mode, Keep::All);
        let gradient = net.backward(&params, &trace, heads.iter().copied().zip(weights.clone()).collect());
        let trained = params.keys().filter(|k| !k.contains("running"));
        assert_eq!(gradient.keys().collect::<Vec<_>>(), trained.collect::<Vec<_>>());
        for (name, g) in &gradient {
            let direction = noise(g.values.len(), &format!("direction {name}"));
            let moved = |t: f64| {
                let mut p = params.clone();
                let values = &mut p.get_mut(name).unwrap().values;
                values.iter_mut().zip(&direction).for_each(|(v, d)| *v += t * d);
                value(&p)
            };
            let slope: f64 = g.values.iter().zip(&direction).map(|(a, b)| a * b).sum();
            // Central differences are off by a multiple of the squared step.
            let h = 1e-5;
            let difference = (moved(h) - moved(-h)) / (2.0 * h);
            let scale = slope.abs().max(g.values.iter().map(|v| v * v).sum::<f64>().sqrt());
            assert!((slope - difference).abs() < 1e-6 * scale.max(1e-3), "{mode:?} {name}: {slope} {difference}");
        }
    }
}

#[test]
fn single_precision_follows_double() {
    let (net, heads) = all_nodes();
    let params = parameters(&net);
    let x = noise(3 * 128, "x");
    let wide = net.forward(&params, &x);
    let single: Params<f32> = cast(&params);
    let narrow = net.forward(&single, &x.iter().map(|v| *v as f32).collect::<Vec<_>>());
    assert_eq!(wide.len(), 3 * net.len_at(heads[1]));
    assert!(wide.iter().zip(&narrow).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-5), "{wide:?} {narrow:?}");
}
