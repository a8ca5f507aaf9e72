//! Networks from names and shapes.

use subspan::draw::Stream;
use subspan::merge::{DType, Layout, MemoryModel, Permutations, Tensor, derive};
use subspan_linalg::Real;
use subspan_nets::analyze::{match_activations, params_of};
use subspan_nets::{Architecture, Labelled, Net, NetError, Op, Params, cast};

fn shapes(list: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
    list.iter().map(|(n, s)| (n.to_string(), s.to_vec())).collect()
}

/// A convolution with its BatchNorm.
fn block(out: &mut Vec<(String, Vec<usize>)>, conv: &str, norm: &str, shape: [usize; 3]) {
    let [o, i, k] = shape;
    out.push((format!("{conv}.weight"), vec![o, i, k, k]));
    for part in ["weight", "bias", "running_mean", "running_var"] {
        out.push((format!("{norm}.{part}"), vec![o]));
    }
    out.push((format!("{norm}.num_batches_tracked"), vec![]));
}

fn resnet(projection: bool) -> Vec<(String, Vec<usize>)> {
    let mut out = Vec::new();
    block(&mut out, "conv1", "bn1", [16, 3, 3]);
    for stage in 1..4 {
        let width = 8 << stage;
        for b in 0..3 {
            let input = if b == 0 && stage > 1 { width / 2 } else { width };
            let at = format!("layer{stage}.{b}");
            block(&mut out, &format!("{at}.conv1"), &format!("{at}.bn1"), [width, input, 3]);
            block(&mut out, &format!("{at}.conv2"), &format!("{at}.bn2"), [width, width, 3]);
            if projection && input != width {
                block(&mut out, &format!("{at}.downsample.0"), &format!("{at}.downsample.1"), [width, input, 1]);
            }
        }
    }
    out.extend(shapes(&[("linear.weight", &[10, 64]), ("linear.bias", &[10])]));
    out
}

#[test]
fn residual_networks_are_built_with_either_shortcut() {
    for (projection, name) in
        [(false, "resnet-20 16-32-64, parameter-free shortcuts"), (true, "resnet-20 16-32-64, projection shortcuts")]
    {
        let arch = Architecture::infer(&resnet(projection)).unwrap();
        assert_eq!(arch.to_string(), name);
        assert_eq!(arch.image_channels(), Some(3));
        let net = arch.build([3, 32, 32]).unwrap();
        let count = |f: fn(&Op) -> bool| net.nodes().iter().filter(|n| f(&n.op)).count();
        assert_eq!(count(|o| matches!(o, Op::Conv { .. })), if projection { 21 } else { 19 });
        assert_eq!(count(|o| matches!(o, Op::Shortcut { .. })), if projection { 0 } else { 2 });
        assert_eq!(net.node(net.output()).dims, [10, 1, 1]);
        assert!(matches!(arch.build([1, 32, 32]), Err(NetError::Input { .. })));
    }
}

#[test]
fn a_vgg_pools_where_its_numbers_leave_room() {
    let mut list = Vec::new();
    for (i, o, k) in [(0, 8, 3), (3, 8, 8), (7, 16, 8)] {
        block(&mut list, &format!("features.{i}"), &format!("features.{}", i + 1), [o, k, 3]);
    }
    list.extend(shapes(&[("classifier.0.weight", &[32, 16 * 16]), ("classifier.3.weight", &[10, 32])]));
    let arch = Architecture::infer(&list).unwrap();
    assert_eq!(arch.to_string(), "conv net 8-8-16, dense 32-10");
    let net = arch.build([3, 16, 16]).unwrap();
    let pools = net.nodes().iter().filter(|n| matches!(n.op, Op::MaxPool { .. })).count();
    assert_eq!(pools, 2, "one in the gap before features.7, one at the end");
    // From larger images a mean over 4 x 4 cells leads to the same classifier.
    let net = arch.build([3, 64, 64]).unwrap();
    assert!(net.nodes().iter().any(|n| n.op == Op::AvgPool { to: [4, 4] }));
}

#[test]
fn a_small_conv_net_pools_in_the_only_way_that_fits() {
    let lenet = shapes(&[
        ("conv1.weight", &[6, 1, 5, 5]),
        ("conv1.bias", &[6]),
        ("conv2.weight", &[16, 6, 5, 5]),
        ("conv2.bias", &[16]),
        ("fc1.weight", &[120, 256]),
        ("fc1.bias", &[120]),
        ("fc2.weight", &[10, 120]),
    ]);
    let net = Architecture::infer(&lenet).unwrap().build([1, 28, 28]).unwrap();
    let dims: Vec<_> = net.nodes().iter().map(|n| n.dims).collect();
    assert!(dims.contains(&[16, 4, 4]) && dims.contains(&[6, 12, 12]), "{dims:?}");
    let error = Architecture::infer(&lenet).unwrap().build([1, 29, 40]).unwrap_err();
    assert!(error.to_string().contains("fc1.weight") && error.hint().unwrap().contains("--arch"));
}

#[test]
fn dense_layers_are_ordered_by_number_and_size() {
    let mut list: Vec<_> = (0..12).map(|i| (format!("net.{i}.weight"), vec![6, 6])).collect();
    list.push(("out.weight".into(), vec![3, 6]));
    list.push(("embed.weight".into(), vec![6, 9]));
    list.reverse();
    let arch = Architecture::infer(&list).unwrap();
    let net = arch.build([9, 1, 1]).unwrap();
    let names: Vec<&str> = net.nodes().iter().filter_map(|n| n.op.weight()).collect();
    assert_eq!(
        (names[0], names[3], names[11], names[13]),
        ("embed.weight", "net.2.weight", "net.10.weight", "out.weight")
    );
}

#[test]
fn what_is_ambiguous_or_unknown_is_refused_by_name() {
    for (list, word) in [
        (shapes(&[("a.weight", &[4, 4]), ("b.weight", &[4, 4])]), "several orders of a, b"),
        (shapes(&[("fc1.weight", &[4, 5]), ("fc2.weight", &[3, 6])]), "fc2.weight"),
        (shapes(&[("fc1.weight", &[4, 5]), ("ln.weight", &[4]), ("ln.bias", &[4])]), "ln.weight"),
        (shapes(&[("fc1.weight", &[4, 5]), ("fc1.scale", &[4])]), "fc1.scale"),
        (shapes(&[("conv1.weight", &[4, 1, 3, 3])]), "no dense layer"),
    ] {
        let error = Architecture::infer(&list).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_list_of_layers_says_what_names_cannot() {
    let list = shapes(&[("a.weight", &[4, 1, 3, 3]), ("b.weight", &[4, 4, 1, 1]), ("out.weight", &[2, 16])]);
    let arch = Architecture::from_list("a:s2p0, tanh, b, avgpool2, out", &list).unwrap();
    let net = arch.build([1, 9, 9]).unwrap();
    assert_eq!(net.node(1).dims, [4, 4, 4]);
    for (text, word) in [("a,c", "\"c\""), ("a:x1", "a:x1"), ("a,maxpool,out", "maxpool"), ("a,relu,out", "out")] {
        let error = Architecture::from_list(text, &list).and_then(|a| a.build([1, 9, 9])).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    // A layer left out is no network of this checkpoint.
    assert!(
        Architecture::from_list("a:s2p0,avgpool2,out", &list)
            .unwrap()
            .build([1, 9, 9])
            .unwrap_err()
            .to_string()
            .contains('b')
    );
}

/// A model of random tensors with these shapes; variances are positive.
fn random(shapes: &[(String, Vec<usize>)], seed: u64) -> MemoryModel {
    let mut out = MemoryModel::new("a model");
    for (name, shape) in shapes {
        let mut rng = Stream::new(seed, name).rng(0);
        let fan_in = shape[1.min(shape.len())..].iter().product::<usize>().max(1) as f64;
        // Small shifts, so that no unit is dead.
        let value = |z: f64| match name.rsplit('.').next() {
            Some("running_var") => 0.5 + z.abs(),
            Some("running_mean" | "bias") => 0.1 * z,
            _ => z / fan_in.sqrt(),
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| value(rng.normal()) as f32).collect();
        out.tensors.insert(name.clone(), Tensor::from_f32(shape, &values, DType::F32));
    }
    out
}

/// Tensors of a network, and what images it takes.
type Network = (Vec<(String, Vec<usize>)>, [usize; 3]);

/// Multilayer perceptron, VGG with a flatten of 2 x 2 positions, residual networks with either shortcut; and their images.
fn every_architecture() -> Vec<Network> {
    let mlp = shapes(&[
        ("fc1.weight", &[20, 12]),
        ("fc1.bias", &[20]),
        ("fc2.weight", &[16, 20]),
        ("fc2.bias", &[16]),
        ("fc3.weight", &[5, 16]),
    ]);
    let mut vgg = Vec::new();
    for (i, o, k) in [(0, 8, 3), (4, 12, 8)] {
        block(&mut vgg, &format!("features.{i}"), &format!("features.{}", i + 1), [o, k, 3]);
    }
    vgg.extend(shapes(&[("classifier.0.weight", &[10, 48]), ("classifier.3.weight", &[5, 10])]));
    vec![(mlp, [12, 1, 1]), (vgg, [3, 8, 8]), (resnet(false), [3, 16, 16]), (resnet(true), [3, 16, 16])]
}

fn largest_difference<T: Real>(net: &Net, a: &Params<T>, b: &Params<T>, x: &[T]) -> f64 {
    let (y, z) = (net.forward(a, x), net.forward(b, x));
    let size = y.iter().map(|v| v.to_f64().abs()).fold(0.0, f64::max);
    y.iter().zip(&z).map(|(y, z)| (y.to_f64() - z.to_f64()).abs()).fold(0.0, f64::max) / size
}

#[test]
fn moving_units_changes_no_output() {
    for (list, dims) in every_architecture() {
        let arch = Architecture::infer(&list).unwrap();
        let net = arch.build(dims).unwrap();
        let model = random(&list, 1);
        let layout = Layout::new(derive(&model, None, false).unwrap().spec, &model).unwrap();
        let mut rng = Stream::new(3, "images").rng(0);
        let x: Vec<f32> = (0..4 * dims.iter().product::<usize>()).map(|_| rng.normal() as f32).collect();
        let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        for seed in 0..3 {
            let moved = layout.apply(&model, &Permutations::random(layout.spec(), seed, false));
            assert_ne!(moved, model);
            let (p, q) = (params_of(&net, &model).unwrap(), params_of(&net, &moved).unwrap());
            let single = largest_difference(&net, &p, &q, &x);
            let double = largest_difference::<f64>(&net, &cast(&p), &cast(&q), &wide);
            assert!(single < 1e-5 && double < 1e-12, "{arch}: {single:e} {double:e}");
        }
    }
}

#[test]
fn activations_match_whatever_order_the_inputs_units_are_in() {
    // The smallest network: others have units that never fire on so few samples, which are ties.
    for (list, dims) in every_architecture().into_iter().take(1) {
        let net = Architecture::infer(&list).unwrap().build(dims).unwrap();
        let (a, b) = (random(&list, 1), random(&list, 2));
        let layout = Layout::new(derive(&a, None, false).unwrap().spec, &a).unwrap();
        let mut rng = Stream::new(3, "images").rng(0);
        let x: Vec<f32> = (0..64 * dims.iter().product::<usize>()).map(|_| rng.normal() as f32).collect();
        let data = Labelled { x: &x, y: &[0; 64] };
        let aligned = |b: &MemoryModel| {
            let ends = [params_of(&net, &a).unwrap(), params_of(&net, b).unwrap()];
            layout.apply(b, &match_activations(&net, &layout, [&ends[0], &ends[1]], &data).unwrap())
        };
        let moved = layout.apply(&b, &Permutations::random(layout.spec(), 5, false));
        assert!(aligned(&moved).tensors == aligned(&b).tensors);
    }
}
