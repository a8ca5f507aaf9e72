//! Laws of specs, layouts and gathers.

use super::*;
use crate::draw::Stream;

/// A model of random tensors.
pub(super) fn random_model(shapes: &[(&str, &[usize])], dtype: DType, seed: u64) -> MemoryModel {
    let mut model = MemoryModel::new(format!("model {seed}"));
    for (name, shape) in shapes {
        let mut rng = Stream::new(seed, name).rng(0);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
        model.tensors.insert((*name).into(), Tensor::from_f32(shape, &values, dtype));
    }
    model
}

/// A spec of these perms and tensors.
pub(super) fn spec(perms: &[(&str, PermInfo)], tensors: &[(&str, Axes)]) -> Spec {
    Spec {
        perms: perms.iter().map(|(id, p)| ((*id).into(), p.clone())).collect(),
        tensors: tensors.iter().map(|(name, axes)| ((*name).into(), axes.clone())).collect(),
    }
}

fn whole(perm: &str) -> Vec<Piece> {
    vec![Piece::whole(perm)]
}

#[test]
fn a_gather_moves_every_axis() {
    let spec = spec(
        &[("h", PermInfo::new(3)), ("g", PermInfo::new(2))],
        &[("w", vec![whole("h"), vec![Piece::blocks("g", 2)], vec![]])],
    );
    let model = random_model(&[("w", &[3, 4, 2])], DType::F32, 1);
    let layout = Layout::new(spec.clone(), &model).unwrap();
    let mut p = Permutations::identity(&spec);
    p.set("h", vec![2, 0, 1]);
    p.set("g", vec![1, 0]);
    let moved = layout.apply(&model, &p);
    let (old, new) = (model.tensors["w"].view("w").to_f32(), moved.tensors["w"].view("w").to_f32());
    for (i, from) in [2, 0, 1].into_iter().enumerate() {
        for (x, x_from) in [2, 3, 0, 1].into_iter().enumerate() {
            for y in 0..2 {
                assert_eq!(new[(i * 4 + x) * 2 + y], old[(from * 4 + x_from) * 2 + y]);
            }
        }
    }
    assert_eq!(layout.restore(&moved, &p), model);
    assert_eq!(layout.apply(&moved, &layout.inverse(&p).unwrap()), model);
}

/// Pieces of every kind: ranges of a padding shortcut, tiles, fused blocks, groups with an inner perm.
fn every_kind() -> (Spec, Vec<(&'static str, &'static [usize])>) {
    let heads = PermInfo { groups: Some(2), ..PermInfo::new(6) };
    let vo = |k: usize| Piece { tile: 3, stride: Some(4), ..Piece::whole(format!("vo{k}")).at(12 * k) };
    let fused = |at: usize| Piece::blocks("heads.outer", 4).at(at);
    let padded =
        vec![Piece::whole("r1").at(2), Piece::whole("r2").at(0).units(0, 2), Piece::whole("r2").at(7).units(2, 2)];
    let spec = spec(
        &[
            ("r1", PermInfo::new(5)),
            ("r2", PermInfo::new(4)),
            ("heads", heads),
            ("vo0", PermInfo::new(4)),
            ("vo1", PermInfo::new(4)),
            ("c", PermInfo::new(3)),
        ],
        &[
            ("stream", vec![padded, vec![]]),
            ("q", vec![vec![Piece::blocks("heads", 4)], vec![]]),
            ("kv", vec![vec![fused(0), fused(8)], vec![]]),
            ("v", vec![vec![Piece::blocks("heads.outer", 4), Piece::whole("vo0").at(0), Piece::whole("vo1").at(4)]]),
            ("o", vec![vec![], vec![Piece::blocks("heads", 4), vo(0), vo(1)]]),
            ("nhwc", vec![vec![Piece { tile: 4, ..Piece::whole("c") }]]),
        ],
    );
    let shapes: Vec<(&str, &[usize])> = vec![
        ("stream", &[9, 3]),
        ("q", &[24, 3]),
        ("kv", &[16, 3]),
        ("v", &[8]),
        ("o", &[3, 24]),
        ("nhwc", &[12]),
        ("counter", &[]),
    ];
    (spec, shapes)
}

#[test]
fn every_dtype_is_restored_bit_for_bit() {
    let (spec, shapes) = every_kind();
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let mut model = random_model(&shapes, dtype, 3);
        let odd = DType::Opaque { name: "I8", size: 1 };
        model.tensors.insert("nhwc".into(), Tensor { dtype: odd, shape: vec![12], data: (0..12).collect() });
        let layout = Layout::new(spec.clone(), &model).unwrap();
        assert_eq!(layout.untouched(&model), ["counter"]);
        let p = Permutations::random(&spec, 5, false);
        let moved = layout.apply(&model, &p);
        assert_ne!(moved, model);
        assert_eq!(layout.restore(&moved, &p), model);
    }
}

#[test]
fn permutations_compose_and_are_undone_with_pieces_inside_pieces_too() {
    let (spec, shapes) = every_kind();
    let model = random_model(&shapes, DType::F32, 3);
    let layout = Layout::new(spec.clone(), &model).unwrap();
    for seed in 0..5 {
        let (p, q) = (Permutations::random(&spec, seed, false), Permutations::random(&spec, 50 + seed, false));
        let twice = layout.apply(&layout.apply(&model, &p), &q);
        assert_eq!(layout.apply(&model, &layout.then(&p, &q).unwrap()), twice);
        let back = layout.inverse(&p).unwrap();
        assert_eq!(layout.apply(&layout.apply(&model, &p), &back), model);
        assert!(layout.then(&p, &back).unwrap().is_identity() && layout.then(&back, &p).unwrap().is_identity());
    }
    // An inner perm in one of two groups only: after the groups change places it is that of no group.
    let mut lopsided = spec;
    lopsided.perms.remove("vo1");
    for name in ["v", "o"] {
        lopsided.tensors.get_mut(name).unwrap().iter_mut().for_each(|axis| axis.retain(|p| p.perm != "vo1"));
    }
    let layout = Layout::new(lopsided.clone(), &model).unwrap();
    let error = layout.inverse(&Permutations::random(&lopsided, 1, false)).unwrap_err();
    assert!(error.to_string().contains("perm vo0 lies inside units of another perm"), "{error}");
}

#[test]
fn inner_units_move_in_the_first_models_positions() {
    // Heads of value dimension 4: what head h of the moved model holds is head `heads[h]`, its dimensions in the order of vo.
    let (spec, shapes) = every_kind();
    let model = random_model(&shapes, DType::F32, 3);
    let layout = Layout::new(spec.clone(), &model).unwrap();
    let mut p = Permutations::identity(&spec);
    p.set("heads", vec![4, 3, 5, 0, 1, 2]);
    p.set("vo0", vec![3, 2, 1, 0]);
    let sources = layout.sources("o", &p);
    let source = sources[1].as_ref().unwrap();
    assert_eq!(source[..4], [19, 18, 17, 16]);
    assert_eq!(source[12..16], [0, 1, 2, 3]);
    assert_eq!(layout.sources("v", &p)[0].as_ref().unwrap()[..], [7, 6, 5, 4, 0, 1, 2, 3]);
}

#[test]
fn norms_and_inner_products_fit_together() {
    let (spec, shapes) = every_kind();
    let (a, b) = (random_model(&shapes, DType::F32, 1), random_model(&shapes, DType::BF16, 2));
    let layout = Layout::new(spec.clone(), &a).unwrap();
    let p = Permutations::random(&spec, 2, false);
    let found = compare(&layout, &a, &b, &p).unwrap();
    let Sums { product, left, right, distance } = found.total;
    assert!((distance + 2.0 * product - left - right).abs() < 1e-12 * (left + right));
    let moved = layout.apply(&b, &p);
    let still = compare(&layout, &a, &moved, &Permutations::identity(&spec)).unwrap();
    assert_eq!(still, found);
    assert_eq!(compare(&layout, &a, &a, &Permutations::identity(&spec)).unwrap().distance(), 0.0);
}

#[test]
fn statistics_move_but_do_not_count() {
    let tensors: Vec<(&str, Axes)> =
        ["bn.weight", "bn.running_mean", "bn.running_var"].into_iter().map(|n| (n, vec![whole("h")])).collect();
    let spec = spec(&[("h", PermInfo::new(4))], &tensors);
    let shapes: Vec<(&str, &[usize])> = tensors.iter().map(|(n, _)| (*n, &[4usize][..])).collect();
    let model = random_model(&shapes, DType::F32, 1);
    let layout = Layout::new(spec.clone(), &model).unwrap();
    let counted: Vec<&str> = layout.tensors.iter().filter(|t| t.in_cost).map(|t| t.name.as_str()).collect();
    assert_eq!(counted, ["bn.weight"]);
    let mut p = Permutations::identity(&spec);
    p.set("h", vec![3, 2, 1, 0]);
    assert_ne!(layout.apply(&model, &p).tensors["bn.running_var"], model.tensors["bn.running_var"]);
}

#[test]
fn what_does_not_fit_is_named() {
    let model = random_model(&[("w", &[6, 4])], DType::F32, 1);
    let try_axes = |perms: &[(&str, PermInfo)], axes: Axes| {
        Layout::new(spec(perms, &[("w", axes)]), &model).unwrap_err().to_string()
    };
    let h = |n| [("h", PermInfo::new(n)), ("g", PermInfo::new(2))];
    for (error, expected) in [
        (try_axes(&h(5), vec![whole("h"), vec![]]), "perm h covers 5 positions of axis 0 of tensor w, which has 6"),
        (try_axes(&h(7), vec![whole("h"), vec![]]), "perm h covers 7 positions"),
        (try_axes(&h(6), vec![whole("h")]), "1 axes, its shape is [6, 4]"),
        (try_axes(&h(6), vec![vec![Piece::whole("h").units(0, 3)], vec![]]), "unit 3 of perm h owns 0 positions"),
        (
            try_axes(&h(4), vec![vec![Piece::whole("h").at(0), Piece::whole("g").at(3)], vec![]]),
            "perms g and h overlap at position 3",
        ),
        (
            try_axes(&h(3), vec![vec![Piece::whole("h").at(0), Piece::whole("h").at(2)], vec![]]),
            "perms h and h overlap at position 2",
        ),
    ] {
        assert!(error.contains(expected) || error.contains("perms h and g overlap at position 3"), "{error}");
    }
    let missing = Layout::new(spec(&h(6), &[("v", vec![whole("h")])]), &model).unwrap_err();
    assert_eq!(missing.to_string(), "the spec names tensor v, which model 1 lacks");
}

#[test]
fn models_that_are_not_alike_are_refused() {
    let a = random_model(&[("w", &[6, 4]), ("b", &[6])], DType::F32, 1);
    let shorter = random_model(&[("w", &[6, 4])], DType::F32, 2);
    let wider = random_model(&[("w", &[8, 4]), ("b", &[6])], DType::BF16, 3);
    assert_eq!(check_alike(&a, &shorter).unwrap_err().to_string(), "model 2: no tensor b, which model 1 has");
    assert_eq!(check_alike(&shorter, &a).unwrap_err().to_string(), "model 2: no tensor b, which model 1 has");
    let error = check_alike(&a, &wider).unwrap_err().to_string();
    assert_eq!(error, "tensor w has shape [6, 4] in model 1 and [8, 4] in model 3");
    check_alike(&a, &random_model(&[("w", &[6, 4]), ("b", &[6])], DType::F16, 4)).unwrap();
}
