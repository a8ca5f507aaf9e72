use super::super::compare;
use super::super::tests::{random_model, spec};
use super::super::{Axes, DType, Layout, MemoryModel, PermInfo, Piece, Tensor, derive};
use super::*;
use crate::assign::lap::CERTIFIED;
use crate::observe::Silent;

const MLP: &[(&str, &[usize])] = &[
    ("l0.weight", &[40, 30]),
    ("l0.bias", &[40]),
    ("l1.weight", &[32, 40]),
    ("l1.bias", &[32]),
    ("l2.weight", &[36, 32]),
    ("l3.weight", &[7, 36]),
];

fn mlp(seed: u64) -> (Layout, MemoryModel) {
    let model = random_model(MLP, DType::F32, seed);
    (Layout::new(derive(&model, None, false).unwrap().spec, &model).unwrap(), model)
}

fn run(layout: &Layout, a: &MemoryModel, b: &MemoryModel, config: &MatchConfig, seed: u64) -> Matched {
    match_weights(layout, a, b, None, config, seed, &Silent).unwrap()
}

/// `a` with noise of a size relative to its values, which are standard normal.
fn noisy(a: &MemoryModel, size: f32, seed: u64) -> MemoryModel {
    let mut out = a.clone();
    for (name, t) in &mut out.tensors {
        let mut rng = crate::draw::Stream::new(seed, name).rng(1);
        let values: Vec<f32> = t.view(name).to_f32().iter().map(|v| v + size * rng.normal() as f32).collect();
        *t = Tensor::from_f32(&t.shape, &values, t.dtype);
    }
    out
}

#[test]
fn planted_permutations_are_undone_bit_for_bit() {
    let (layout, a) = mlp(1);
    let planted = Permutations::random(layout.spec(), 2, false);
    let b = layout.apply(&a, &planted);
    let found = run(&layout, &a, &b, &MatchConfig::default(), 0);
    assert_eq!(layout.apply(&b, &found.permutations).tensors, a.tensors);
    assert_eq!((found.after.distance(), found.certified, found.scope), (0.0, true, Scope::Coordinate));
    assert_eq!(found.distance_reduction(), 1.0);
    assert!(found.after.objective() == found.after.total.left);
}

#[test]
fn noise_of_half_the_weights_size_does_not_hide_a_permutation() {
    // One hidden layer of 512 units: the solution is the global optimum.
    let shapes: &[(&str, &[usize])] = &[("l0.weight", &[512, 64]), ("l1.weight", &[10, 512])];
    let a = random_model(shapes, DType::F32, 1);
    let layout = Layout::new(derive(&a, None, false).unwrap().spec, &a).unwrap();
    let planted = Permutations::random(layout.spec(), 2, false);
    let b = layout.apply(&noisy(&a, 0.5, 3), &planted);
    let found = run(&layout, &a, &b, &MatchConfig::default(), 0);
    assert_eq!(found.permutations, layout.inverse(&planted).unwrap());
    assert_eq!((found.certified, found.scope), (true, Scope::Global));
}

#[test]
fn the_objective_never_falls_and_ends_at_what_the_tensors_say() {
    let ((layout, a), (_, b)) = (mlp(1), mlp(2));
    // From where the models are, nothing is placed: the gains lead from the one objective to the other.
    let identity = Permutations::identity(layout.spec());
    let found = match_weights(&layout, &a, &b, Some(&identity), &MatchConfig::default(), 0, &Silent).unwrap();
    assert!(found.history.windows(2).all(|w| w[1] > w[0]) && found.history.len() > 2);
    let last = found.history[found.history.len() - 1];
    assert_eq!(last, found.after.objective());
    assert!((found.history[0] - found.before.objective()).abs() < 1e-5 * last.abs());
    assert!(found.certified && found.converged && found.gaps.iter().all(|(_, g)| *g <= CERTIFIED), "{:?}", found.gaps);
    assert!(found.distance_reduction() > 0.0);
    // No single transposition helps.
    for (id, perm) in found.permutations.iter() {
        for i in 1..perm.len() {
            let mut other = found.permutations.clone();
            let mut swapped = perm.to_vec();
            swapped.swap(i - 1, i);
            other.set(id, swapped);
            assert!(
                compare(&layout, &a, &b, &other).unwrap().objective() <= found.after.objective() + 1e-6 * last.abs()
            );
        }
    }
}

#[test]
fn further_runs_only_help_and_end_certified() {
    let ((layout, a), (_, b)) = (mlp(1), mlp(2));
    let with = |restarts| run(&layout, &a, &b, &MatchConfig { restarts, ..MatchConfig::default() }, 0);
    let found = [1, 2, 5, 20].map(with);
    assert!(found.windows(2).all(|w| w[1].after.objective() >= w[0].after.objective() && w[1].solves > w[0].solves));
    assert!(found[3].after.objective() > found[0].after.objective());
    for f in &found {
        assert!(f.certified && f.converged && f.history.windows(2).all(|w| w[1] > w[0]));
    }
}

#[test]
fn models_that_are_close_stay_so() {
    // One unit each of two layers has changed places; a tenth of every weight is noise.
    let (layout, a) = mlp(1);
    let b = noisy(&a, 0.1, 5);
    let found = run(&layout, &a, &b, &MatchConfig::default(), 0);
    assert!(found.permutations.is_identity() && found.certified && found.converged);
    let mut moved = Permutations::identity(layout.spec());
    for id in ["l0", "l2"] {
        let mut perm = moved.get(id).unwrap().to_vec();
        perm.swap(3, 11);
        moved.set(id, perm);
    }
    let found = run(&layout, &a, &layout.apply(&b, &moved), &MatchConfig::default(), 0);
    assert_eq!(found.permutations, layout.inverse(&moved).unwrap());
}

#[test]
fn certificates_hold_on_gram_matrices_computed_afresh() {
    let ((layout, a), (_, b)) = (mlp(1), mlp(2));
    for seed in 0..4 {
        let config = MatchConfig { restarts: 1 + seed as usize * 2, ..MatchConfig::default() };
        let found = run(&layout, &a, &b, &config, seed);
        assert!(found.certified);
        for (id, gram) in cross_grams(&layout, &a, &b, &found.permutations).unwrap() {
            let perm = found.permutations.get(&id).unwrap();
            let costs: Vec<f32> = gram.iter().map(|g| -g).collect();
            let best = crate::assign::lap::minimize(&costs, perm.len(), None).unwrap().certificate.value;
            let value = |i: usize, j: usize| f64::from(costs[i * perm.len() + j]);
            let (own, size) = perm
                .iter()
                .enumerate()
                .fold((0.0, 0.0), |(own, size), (i, j)| (own + value(i, *j), size + value(i, *j).abs()));
            assert!(own - best <= 2.0 * CERTIFIED * size, "{id}: {own} {best}");
        }
    }
}

#[test]
fn what_is_kept_between_solves_changes_nothing() {
    let ((layout, a), (_, b)) = (mlp(1), mlp(2));
    let kept = run(&layout, &a, &b, &MatchConfig::default(), 4);
    let fresh = run(&layout, &a, &b, &MatchConfig { cache: false, ..MatchConfig::default() }, 4);
    let (x, y) = (kept.after.objective(), fresh.after.objective());
    assert!((x - y).abs() < 1e-6 * x.abs(), "{x} {y}");
    // A start near the end needs few changes, so that Gram matrices are updated, not computed again.
    let mut near = kept.permutations.clone();
    let mut swapped = near.get("l1").unwrap().to_vec();
    swapped.swap(0, 1);
    near.set("l1", swapped);
    for cache in [true, false] {
        let config = MatchConfig { cache, ..MatchConfig::default() };
        let found = match_weights(&layout, &a, &b, Some(&near), &config, 1, &Silent).unwrap();
        assert!(found.after.objective() >= x - 1e-6 * x.abs() && found.certified);
    }
}

#[test]
fn swapped_models_give_inverse_permutations() {
    let ((layout, a), (_, b)) = (mlp(1), mlp(2));
    let forth = run(&layout, &a, &b, &MatchConfig::default(), 3);
    let back = run(&layout, &b, &a, &MatchConfig::default(), 3);
    assert_eq!(layout.inverse(&forth.permutations).unwrap(), back.permutations);
}

#[test]
fn the_order_of_the_inputs_units_does_not_matter() {
    let of = |model: &dyn Fn(u64) -> MemoryModel| {
        let (a, b) = (model(1), model(2));
        let layout = Layout::new(derive(&a, None, false).unwrap().spec, &a).unwrap();
        for restarts in [1, 4] {
            let config = MatchConfig { restarts, ..MatchConfig::default() };
            let aligned = layout.apply(&b, &run(&layout, &a, &b, &config, 0).permutations);
            for seed in 0..3 {
                let moved = layout.apply(&b, &Permutations::random(layout.spec(), seed, false));
                let again = run(&layout, &a, &moved, &config, 0);
                assert_eq!(layout.apply(&moved, &again.permutations).tensors, aligned.tensors);
            }
        }
    };
    of(&|seed| mlp(seed).1);
    of(&resnet20);
}

#[test]
fn threads_do_not_change_the_permutations() {
    let ((layout, a), (_, b)) = (mlp(1), mlp(2));
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let found = pool.install(|| run(&layout, &a, &b, &MatchConfig::default(), 0));
        (found.permutations, found.after, found.gaps, found.history)
    };
    assert_eq!(with(1), with(3));
}

/// A recurrent layer: its state's perm is on both axes of one tensor.
#[test]
fn a_perm_on_two_axes_of_a_tensor() {
    let whole = |p: &str| vec![Piece::whole(p)];
    let tensors: [(&str, Axes); 3] =
        [("in", vec![whole("h"), vec![]]), ("state", vec![whole("h"), whole("h")]), ("out", vec![vec![], whole("h")])];
    let spec = spec(&[("h", PermInfo::new(12))], &tensors);
    let shapes: &[(&str, &[usize])] = &[("in", &[12, 9]), ("state", &[12, 12]), ("out", &[3, 12])];
    let (a, b) = (random_model(shapes, DType::F32, 1), random_model(shapes, DType::F32, 2));
    let layout = Layout::new(spec.clone(), &a).unwrap();
    let planted = Permutations::random(&spec, 7, false);
    let found = run(&layout, &a, &layout.apply(&a, &planted), &MatchConfig::default(), 0);
    assert_eq!(found.after.distance(), 0.0);
    // Where its linear part cannot be improved the whole may well be.
    assert!(found.converged && !found.certified);
    let found = run(&layout, &a, &b, &MatchConfig::default(), 0);
    assert!(found.after.objective() > found.before.objective() && found.converged);
    let last = found.history[found.history.len() - 1];
    assert!((last - found.after.objective()).abs() < 1e-9 * last.abs());
}

#[test]
fn grouped_heads_and_their_values_are_recovered() {
    let config =
        serde_json::json!({"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 24, "head_dim": 4});
    let l = "model.layers.0";
    let names: Vec<(String, Vec<usize>)> = vec![
        ("model.embed_tokens.weight".into(), vec![50, 24]),
        (format!("{l}.self_attn.q_proj.weight"), vec![24, 24]),
        (format!("{l}.self_attn.k_proj.weight"), vec![12, 24]),
        (format!("{l}.self_attn.v_proj.weight"), vec![12, 24]),
        (format!("{l}.self_attn.o_proj.weight"), vec![24, 24]),
        (format!("{l}.mlp.gate_proj.weight"), vec![64, 24]),
        (format!("{l}.mlp.up_proj.weight"), vec![64, 24]),
        (format!("{l}.mlp.down_proj.weight"), vec![24, 64]),
    ];
    let shapes: Vec<(&str, &[usize])> = names.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    for (dtype, residual) in [(DType::BF16, false), (DType::F16, true)] {
        let a = random_model(&shapes, dtype, 1);
        let layout = Layout::new(derive(&a, Some(&config), residual).unwrap().spec, &a).unwrap();
        let b = layout.apply(&a, &Permutations::random(layout.spec(), 2, false));
        let found = run(&layout, &a, &b, &MatchConfig::default(), 0);
        assert_eq!(layout.apply(&b, &found.permutations).tensors, a.tensors);
        let scope = if residual { Scope::Coordinate } else { Scope::Global };
        assert_eq!((found.certified, found.scope), (true, scope));
    }
}

/// The tensors of a CIFAR ResNet-20: three stages of three blocks, shortcuts that pad channels with zeros.
fn resnet20(seed: u64) -> MemoryModel {
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut layer = |conv: String, norm: String, shape: [usize; 4]| {
        shapes.push((format!("{conv}.weight"), shape.to_vec()));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            shapes.push((format!("{norm}.{part}"), vec![shape[0]]));
        }
    };
    layer("conv1".into(), "bn1".into(), [16, 3, 3, 3]);
    let mut width = 16;
    for (stage, out) in [(1, 16), (2, 32), (3, 64)] {
        for block in 0..3 {
            let name = format!("layer{stage}.{block}");
            layer(format!("{name}.conv1"), format!("{name}.bn1"), [out, width, 3, 3]);
            layer(format!("{name}.conv2"), format!("{name}.bn2"), [out, out, 3, 3]);
            width = out;
        }
    }
    shapes.push(("linear.weight".into(), vec![10, 64]));
    shapes.push(("linear.bias".into(), vec![10]));
    let shapes: Vec<(&str, &[usize])> = shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    random_model(&shapes, DType::F32, seed)
}

#[test]
fn a_planted_order_of_a_residual_network_is_undone_bit_for_bit() {
    let a = resnet20(1);
    let layout = Layout::new(derive(&a, None, false).unwrap().spec, &a).unwrap();
    let b = layout.apply(&a, &Permutations::random(layout.spec(), 2, false));
    let found = run(&layout, &a, &b, &MatchConfig::default(), 0);
    assert_eq!(layout.apply(&b, &found.permutations).tensors, a.tensors);
    assert_eq!((found.after.distance(), found.certified), (0.0, true));
}

#[test]
fn placing_sees_through_noise_that_a_descent_from_where_the_models_are_does_not() {
    let a = resnet20(1);
    let layout = Layout::new(derive(&a, None, false).unwrap().spec, &a).unwrap();
    let identity = Permutations::identity(layout.spec());
    let mut lost = 0;
    for seed in 0..3 {
        let planted = Permutations::random(layout.spec(), seed, false);
        // Noise of four times the weights' size.
        let b = layout.apply(&noisy(&a, 4.0, seed), &planted);
        let found = run(&layout, &a, &b, &MatchConfig::default(), seed);
        assert_eq!(found.permutations, layout.inverse(&planted).unwrap());
        let plain = match_weights(&layout, &a, &b, Some(&identity), &MatchConfig::default(), seed, &Silent).unwrap();
        assert!(plain.after.objective() <= found.after.objective());
        lost += usize::from(plain.permutations != found.permutations);
    }
    assert!(lost > 0);
}

#[test]
fn what_related_models_have_in_common_as_they_stand_is_not_lost() {
    let (layout, a) = mlp(1);
    let identity = Permutations::identity(layout.spec());
    for (seed, size) in [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 6.0)] {
        let b = noisy(&a, size, seed);
        let found = run(&layout, &a, &b, &MatchConfig::default(), 0);
        let stayed = match_weights(&layout, &a, &b, Some(&identity), &MatchConfig::default(), 0, &Silent).unwrap();
        assert!(found.after.objective() >= stayed.after.objective() && found.certified, "{size}");
    }
}

#[test]
fn axes_without_elements_move_along() {
    let shapes: &[(&str, &[usize])] = &[("w", &[4, 0]), ("v", &[4, 3])];
    let (a, b) = (random_model(shapes, DType::F32, 1), random_model(shapes, DType::F32, 2));
    let whole = || vec![vec![Piece::whole("h")], vec![]];
    let layout = Layout::new(spec(&[("h", PermInfo::new(4))], &[("w", whole()), ("v", whole())]), &a).unwrap();
    let found = run(&layout, &a, &b, &MatchConfig::default(), 0);
    assert!(found.certified);
    for name in ["w", "v"] {
        let mut bytes = Vec::new();
        let moved = layout.gathered(b.tensor(name).unwrap(), &found.permutations);
        super::super::copy_tensor(&moved, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .unwrap();
        assert_eq!(bytes, layout.apply(&b, &found.permutations).tensors[name].data);
    }
}

#[test]
fn dead_units_are_ties_not_errors() {
    let (layout, mut a) = mlp(1);
    let zero = |t: &mut Tensor| t.data.fill(0);
    a.tensors.values_mut().for_each(zero);
    let (_, b) = mlp(2);
    let found = run(&layout, &a, &b, &MatchConfig::default(), 0);
    assert!(found.permutations.is_identity() && found.certified);
    let found = run(&layout, &a, &a, &MatchConfig::default(), 0);
    assert!(found.permutations.is_identity() && found.certified && found.distance_reduction() == 0.0);
}

#[test]
fn what_is_not_finite_is_refused() {
    let ((layout, a), (_, mut b)) = (mlp(1), mlp(2));
    let refusal = |a: &MemoryModel, b: &MemoryModel| {
        match_weights(&layout, a, b, None, &MatchConfig::default(), 0, &Silent).unwrap_err().to_string()
    };
    b.tensors.get_mut("l1.bias").unwrap().data[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert_eq!(refusal(&a, &b), "model 2: tensor l1.bias is not finite at element 0");
    let nan = |mut model: MemoryModel| {
        model.tensors.get_mut("l2.weight").unwrap().data[4 * 1000..4 * 1001].copy_from_slice(&f32::NAN.to_le_bytes());
        model
    };
    assert_eq!(refusal(&nan(a.clone()), &b), "model 1: tensor l2.weight is not finite at element 1000");
    // Finite, though their squares are not.
    let large = |seed| {
        let mut model = random_model(&[("w", &[6, 4])], DType::F64, seed);
        model.tensors.get_mut("w").unwrap().data[..8].copy_from_slice(&1e200f64.to_le_bytes());
        model
    };
    let whole = spec(&[("h", PermInfo::new(6))], &[("w", vec![vec![Piece::whole("h")], vec![]])]);
    let layout = Layout::new(whole, &large(1)).unwrap();
    assert!(
        super::super::distance::compare_finite(&layout, &large(1), &large(2), &Permutations::identity(layout.spec()))
            .is_ok()
    );
}
