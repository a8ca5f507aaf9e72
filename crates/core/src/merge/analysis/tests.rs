//! Laws of the analysis, on small random models.

use proptest::prelude::*;

use super::super::*;
use super::*;
use crate::Silent;
use crate::draw::Stream;

/// Two hidden layers of `w` and `v` units, a kernel with 2 x 2 taps between them.
fn layout_of(w: usize, v: usize) -> (Layout, MemoryModel) {
    let whole = |p: &str| vec![Piece::whole(p)];
    let tensors: Vec<(&str, Axes)> = vec![
        ("a.weight", vec![whole("h"), vec![]]),
        ("a.bias", vec![whole("h")]),
        ("b.weight", vec![whole("g"), whole("h"), vec![], vec![]]),
        ("b.bias", vec![whole("g")]),
        ("c.weight", vec![vec![], vec![Piece::blocks("g", 2)]]),
    ];
    let spec = Spec {
        perms: [("h", w), ("g", v)].into_iter().map(|(id, n)| (id.to_string(), PermInfo::new(n))).collect(),
        tensors: tensors.into_iter().map(|(n, a)| (n.to_string(), a)).collect(),
    };
    let model = random(w, v, 1);
    (Layout::new(spec, &model).unwrap(), model)
}

fn random(w: usize, v: usize, seed: u64) -> MemoryModel {
    let shapes: [(&str, Vec<usize>); 5] = [
        ("a.weight", vec![w, 5]),
        ("a.bias", vec![w]),
        ("b.weight", vec![v, w, 2, 2]),
        ("b.bias", vec![v]),
        ("c.weight", vec![3, 2 * v]),
    ];
    let mut model = MemoryModel::new(format!("model {seed}"));
    for (name, shape) in shapes {
        let mut rng = Stream::new(seed, name).rng(0);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
        model.tensors.insert(name.into(), Tensor::from_f32(&shape, &values, DType::F32));
    }
    model
}

fn scaled(model: &MemoryModel, by: f32) -> MemoryModel {
    let mut out = MemoryModel::new("scaled");
    for (name, t) in &model.tensors {
        let values: Vec<f32> = t.view(name).to_f32().iter().map(|v| by * v).collect();
        out.tensors.insert(name.clone(), Tensor::from_f32(&t.shape, &values, DType::F32));
    }
    out
}

const GAMMAS: [f64; 5] = [0.0, 0.1, 0.3, 0.5, 1.0];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn alignment_is_bounded_one_with_itself_and_blind_to_a_common_move(w in 2usize..9, v in 2usize..7, seed in 0u64..100) {
        let (layout, a) = layout_of(w, v);
        let b = random(w, v, seed + 2);
        let p = Permutations::random(layout.spec(), seed, false);
        let (sa, sb) = (spectra(&layout, &a, &Silent).unwrap(), spectra(&layout, &b, &Silent).unwrap());
        let moved = |m: &MemoryModel| spectra(&layout, &layout.apply(m, &p), &Silent).unwrap();
        let (pa, pb) = (moved(&a), moved(&b));
        let identity = Permutations::identity(layout.spec());
        let r = |x: &[LayerSpectrum], y: &[LayerSpectrum], q: &Permutations, g: f64| overlaps(&layout, x, y, q).alignment(g).total;
        for (own, after) in sa.iter().zip(&pa) {
            prop_assert!(own.gap(after) < 1e-12);
        }
        for g in GAMMAS {
            prop_assert!((r(&sa, &sa, &identity, g) - 1.0).abs() < 1e-10);
            let plain = r(&sa, &sb, &identity, g);
            prop_assert!(plain.abs() <= 1.0 + 1e-12);
            prop_assert!((r(&pa, &pb, &identity, g) - plain).abs() < 1e-10);
            // Moving the factors is decomposing the moved model.
            prop_assert!((r(&sa, &sb, &p, g) - r(&sa, &pb, &identity, g)).abs() < 1e-10);
            prop_assert!((r(&sa, &spectra(&layout, &scaled(&a, 3.0), &Silent).unwrap(), &identity, g) - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn the_double_sum_is_the_product_of_the_polar_factors() {
    let (layout, a) = layout_of(6, 5);
    let b = random(6, 5, 9);
    let p = Permutations::random(layout.spec(), 4, false);
    let (sa, sb) = (spectra(&layout, &a, &Silent).unwrap(), spectra(&layout, &layout.apply(&b, &p), &Silent).unwrap());
    let raw = spectra(&layout, &b, &Silent).unwrap();
    for gamma in GAMMAS {
        let found = overlaps(&layout, &sa, &raw, &p).alignment(gamma);
        for ((a, b), layer) in sa.iter().zip(&sb).zip(&found.per_layer) {
            let polar = |s: &LayerSpectrum| {
                let k = s.kept(gamma);
                crate::Mat::from_fn(s.shape[0], s.shape[1], |i, j| {
                    (0..k).map(|l| s.svd.u[(i, l)] * s.svd.v[(j, l)]).sum()
                })
            };
            let (x, y) = (polar(a), polar(b));
            let product: f64 = x.as_slice().iter().zip(y.as_slice()).map(|(x, y)| x * y).sum();
            let k = a.kept(gamma).min(b.kept(gamma)) as f64;
            assert!((layer.r * k - product).abs() < 1e-12 * k.max(1.0), "{gamma} {}", layer.name);
        }
    }
}

#[test]
fn matching_maximises_products_of_singular_values_and_overlaps() {
    // <A, P B Q'> = Σ s_i s_j (u_i · P u_j)(v_i · Q v_j), and ‖A − π(B)‖² + 2 <A, π(B)> = ‖A‖² + ‖B‖².
    let (layout, a) = layout_of(6, 5);
    let b = random(6, 5, 9);
    let p = Permutations::random(layout.spec(), 4, false);
    let (sa, sb) = (spectra(&layout, &a, &Silent).unwrap(), spectra(&layout, &b, &Silent).unwrap());
    let compared = compare(&layout, &a, &b, &p).unwrap();
    let pairs = overlaps(&layout, &sa, &sb, &p);
    for ((a, b), layer) in sa.iter().zip(&sb).zip(&pairs.layers) {
        let (_, sums) = compared.tensors.iter().find(|(n, _)| *n == a.name).unwrap();
        let mut value = 0.0;
        for (i, s) in a.svd.s.iter().enumerate() {
            for (j, t) in b.svd.s.iter().enumerate() {
                value += s * t * layer.left[(i, j)] * layer.right[(i, j)];
            }
        }
        assert!((value - sums.product).abs() < 1e-9, "{value} {}", sums.product);
    }
    let t = compared.total;
    assert!((t.distance + 2.0 * t.product - t.left - t.right).abs() < 1e-9 * (t.left + t.right));
}

#[test]
fn top_and_bottom_are_parts_of_the_whole() {
    let (layout, a) = layout_of(6, 5);
    let s = spectra(&layout, &a, &Silent).unwrap();
    let part = |arm| keep_directions(&layout, &a, &s, 0.4, arm).unwrap();
    let (top, bottom, both) = (part(Arm::Top), part(Arm::Bottom), part(Arm::BottomWithBiases));
    assert!((top.share + bottom.share - 1.0).abs() < 1e-12 && top.share > 0.0 && bottom.share > 0.0);
    for (name, t) in &a.tensors {
        let values = |m: &MemoryModel| m.tensors[name].view(name).to_f32();
        let (w, x, y) = (t.view(name).to_f32(), values(&top.model), values(&bottom.model));
        assert!(w.iter().zip(&x).zip(&y).all(|((w, x), y)| (w - x - y).abs() < 1e-5), "{name}");
        if name.ends_with("bias") {
            assert_eq!((x, values(&both.model)), (w.clone(), w));
        } else {
            assert_eq!(values(&both.model), y);
        }
    }
    let of_top = spectra(&layout, &top.model, &Silent).unwrap();
    for (whole, top) in s.iter().zip(&of_top) {
        let k = whole.kept(0.4);
        assert!(top.svd.s[..k].iter().zip(&whole.svd.s).all(|(a, b)| (a - b).abs() < 1e-5));
        assert!(top.svd.s[k..].iter().all(|v| *v < 1e-5));
    }
}

#[test]
fn a_control_moves_chosen_units_only_and_meets_the_distance() {
    let (layout, a) = layout_of(40, 30);
    // A model near a moved copy: the planted permutation is the best.
    let p = Permutations::random(layout.spec(), 4, false);
    let b = layout.restore(&a, &p);
    assert_eq!(compare(&layout, &a, &b, &p).unwrap().distance(), 0.0);
    let spoilt = spoil(&layout, &p, 12, 7);
    let differ = |x: &Permutations| {
        p.iter().map(|(id, q)| q.iter().zip(x.get(id).unwrap()).filter(|(a, b)| a != b).count()).sum::<usize>()
    };
    assert!((11..=12).contains(&differ(&spoilt)), "{}", differ(&spoilt));
    assert_eq!(spoil(&layout, &p, 12, 7), spoilt);
    assert_ne!(spoil(&layout, &p, 12, 8), spoilt);
    assert_eq!(spoil(&layout, &p, 0, 7), p);
    let worst = compare(&layout, &a, &b, &spoil(&layout, &p, 70, 7)).unwrap().distance();
    let (control, count) = match_distance(&layout, &a, &b, &p, 0.5 * worst, 7).unwrap();
    let reached = compare(&layout, &a, &b, &control).unwrap().distance();
    assert!((reached / worst - 0.5).abs() < 0.1 && count > 2 && count < 70, "{reached} {worst} {count}");
}

#[test]
fn curves_have_barriers_of_the_definition() {
    assert!(grid(4).is_err() && grid(1).is_err());
    let curve: Vec<Point> = grid(25)
        .unwrap()
        .into_iter()
        .map(|alpha| Point { alpha, loss: 1.0 + alpha - alpha * (1.0 - alpha), accuracy: 0.5 })
        .collect();
    let b = Barrier::of(&curve);
    assert!((b.loss, b.accuracy) == (0.0, 0.0) && (b.midpoint + 0.25).abs() < 1e-12, "{b:?}");
}

#[test]
fn threads_do_not_change_the_bits() {
    let (layout, a) = layout_of(70, 40);
    let b = random(70, 40, 2);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (x, y) = (spectra(&layout, &a, &Silent).unwrap(), spectra(&layout, &b, &Silent).unwrap());
            overlaps(&layout, &x, &y, &Permutations::identity(layout.spec())).alignment(0.1)
        })
    };
    assert_eq!(run(1), run(3));
}
