//! The laws of the step, against the exponential map by singular value decomposition.

use proptest::prelude::*;
use subspan_linalg::{Mat, thin_svd};

use super::*;
use crate::classify::geometry::{orthonormality_defect, random, span};
use crate::draw::Stream;

const MOVE: StepOptions =
    StepOptions { momentum: MomentumMode::Ambient, reorthogonalize: false, max_angle: None, update: Update::Series };
const TRANSPORT: StepOptions = StepOptions { momentum: MomentumMode::Transported, ..MOVE };
const POLISH: StepOptions = StepOptions { reorthogonalize: true, ..MOVE };

fn noise(k: usize, d: usize, seed: u64) -> Vec<f64> {
    let mut rng = Stream::new(seed, "noise").rng(0);
    (0..k * d).map(|_| rng.normal()).collect()
}

fn frame(k: usize, d: usize, seed: u64) -> Vec<f64> {
    random(&Stream::new(seed, "frame"), 0, k, d).unwrap()
}

fn identity(k: usize) -> Vec<f64> {
    (0..k * k).map(|i| if i % (k + 1) == 0 { 1.0 } else { 0.0 }).collect()
}

/// `M − (M Pᵀ) P`.
fn tangent(p: &[f64], m: &[f64], d: usize) -> Vec<f64> {
    let k = p.len() / d;
    let mut w = vec![0.0; k * k];
    cross(m, p, d, &mut w);
    let mut g = m.to_vec();
    let minus: Vec<f64> = w.iter().map(|v| -v).collect();
    combine(&mut g, &identity(k), p, &minus, d);
    g
}

/// A tangent buffer whose largest singular value is `angle`, plus `rho` times as much in the span.
fn buffer(p: &[f64], d: usize, angle: f64, rho: f64, seed: u64) -> Vec<f64> {
    let k = p.len() / d;
    let mut g = tangent(p, &noise(k, d, seed), d);
    let largest = thin_svd(&Mat::from_vec(k, d, g.clone())).unwrap().s[0];
    g.iter_mut().for_each(|v| *v *= if largest > 1e-8 { angle / largest } else { 0.0 });
    let inside: Vec<f64> = noise(k, k, seed + 1).iter().map(|v| v * rho * angle / k as f64).collect();
    combine(&mut g, &identity(k), p, &inside, d);
    g
}

/// `cos` or `sin` of `a σ` between the left and one of the right factors: the textbook formulas for columns `Pᵀ`, `Gᵀ`.
fn exponential(p: &[f64], m: &[f64], d: usize, a: f64) -> (Vec<f64>, Vec<f64>) {
    let k = p.len() / d;
    let g = Mat::from_vec(k, d, tangent(p, m, d));
    // Gᵀ = U Σ Vᵀ with U d x k: in rows, G = V Σ Uᵀ.
    let svd = thin_svd(&g).unwrap();
    let (v, ut) = (svd.u, svd.v.transpose());
    let diag = |f: &dyn Fn(f64) -> f64| Mat::from_fn(k, k, |i, j| if i == j { f(svd.s[i]) } else { 0.0 });
    let vt_p = v.transpose().mul(&Mat::from_vec(k, d, p.to_vec()));
    let add = |x: Mat, y: Mat| -> Vec<f64> { x.as_slice().iter().zip(y.as_slice()).map(|(x, y)| x + y).collect() };
    let moved = add(v.mul(&diag(&|s| (a * s).cos())).mul(&vt_p), v.mul(&diag(&|s| (a * s).sin())).mul(&ut));
    // Transport of G itself: V Σ (−sin V ᵀP + cos Uᵀ).
    let carried = add(v.mul(&diag(&|s| -s * (a * s).sin())).mul(&vt_p), v.mul(&diag(&|s| s * (a * s).cos())).mul(&ut));
    (moved, carried)
}

fn max_diff(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |max, (a, b)| f64::max(max, (a - b).abs()))
}

const SHAPES: [(usize, usize); 10] =
    [(1, 1), (1, 40), (2, 2), (2, 33), (3, 7), (8, 8), (8, 257), (16, 64), (32, 48), (32, 2048)];

#[test]
fn the_step_is_the_exponential_map_and_the_transport_the_textbooks() {
    for (i, (k, d)) in SHAPES.into_iter().enumerate() {
        for theta in [1e-6, 1e-3, 0.1, 1.0, 3.0, 10.0] {
            let p = frame(k, d, i as u64);
            let m = buffer(&p, d, theta, 0.0, 50 + i as u64);
            let (mut ours, mut carried) = (p.clone(), m.clone());
            let report = step(&mut ours, &mut carried, d, -1.0, TRANSPORT).unwrap();
            let (expected, transported) = exponential(&p, &m, d, -1.0);
            assert!(max_diff(&ours, &expected) <= 1e-12, "{k} x {d}, {theta}: {:e}", max_diff(&ours, &expected));
            let scale = theta.max(1.0);
            assert!(max_diff(&carried, &transported) <= 1e-12 * scale, "{k} x {d}, {theta}: transport");
            assert!(k == d || report.angle >= theta * 0.999_999, "{k} x {d}: angle {} of {theta}", report.angle);
        }
    }
}

#[test]
fn in_span_parts_of_the_buffer_do_not_move_the_subspace() {
    for (k, d) in [(1, 40), (3, 7), (8, 257)] {
        let p = frame(k, d, 1);
        let m = buffer(&p, d, 0.3, 10.0, 2);
        let mut ours = p.clone();
        step(&mut ours, &mut m.clone(), d, -1.0, MOVE).unwrap();
        assert!(max_diff(&ours, &exponential(&p, &m, d, -1.0).0) <= 1e-12);
    }
}

#[test]
fn single_precision_stays_within_its_error_bound() {
    for (k, d) in [(1, 64), (8, 512), (32, 64)] {
        for theta in [1e-3, 0.1, 1.0, 10.0] {
            for rho in [0.0, 10.0] {
                let p = frame(k, d, 3);
                let m = buffer(&p, d, theta, rho, 4);
                let single = |v: &[f64]| -> Vec<f32> { v.iter().map(|v| *v as f32).collect() };
                let (mut p32, mut m32) = (single(&p), single(&m));
                let double = |v: &[f32]| -> Vec<f64> { v.iter().map(|v| f64::from(*v)).collect() };
                // The reference starts from the rounded frame and buffer: rounding the inputs is no error of the step.
                let (expected, _) = exponential(&double(&p32), &double(&m32), d, -1.0);
                step(&mut p32, &mut m32, d, -1.0, MOVE).unwrap();
                let angle = span(&expected, d).unwrap().principal_angles(&span(&p32, d).unwrap()).unwrap();
                let worst = angle.iter().copied().fold(0.0, f64::max);
                assert!(worst <= 1e-6 * theta.max(1.0) * (1.0 + rho), "{k} x {d}, {theta}, {rho}: {worst:e}");
            }
        }
    }
}

#[test]
fn principal_angles_moved_are_the_rate_times_the_singular_values() {
    let (k, d) = (4, 30);
    let p = frame(k, d, 5);
    let m = buffer(&p, d, 1.2, 0.5, 6);
    let mut s: Vec<f64> = thin_svd(&Mat::from_vec(k, d, tangent(&p, &m, d))).unwrap().s;
    let mut moved = p.clone();
    step(&mut moved, &mut m.clone(), d, -1.0, MOVE).unwrap();
    let mut angles = span(&p, d).unwrap().principal_angles(&span(&moved, d).unwrap()).unwrap();
    angles.sort_by(f64::total_cmp);
    s.sort_by(f64::total_cmp);
    assert!(max_diff(&angles, &s) < 1e-12, "{angles:?} {s:?}");
}

#[test]
fn a_zero_buffer_leaves_the_frame_bit_for_bit() {
    let p = frame(3, 20, 7);
    for options in [MOVE, TRANSPORT] {
        let mut same = p.clone();
        let report = step(&mut same, &mut vec![0.0; 60], 20, -0.1, options).unwrap();
        assert_eq!((same, report.angle), (p.clone(), 0.0));
    }
}

#[test]
fn a_long_run_of_single_precision_steps_stays_orthonormal() {
    let (k, d) = (8, 32);
    let mut p: Vec<f32> = random(&Stream::new(8, "frame"), 0, k, d).unwrap();
    let mut rng = Stream::new(8, "walk").rng(0);
    let mut m = vec![0f32; k * d];
    for t in 1..=10_000 {
        m.iter_mut().for_each(|m| *m = 0.9 * *m + 0.01 * rng.normal() as f32);
        step(&mut p, &mut m, d, -0.1, StepOptions { reorthogonalize: t % 50 == 0, ..MOVE }).unwrap();
    }
    let defect = orthonormality_defect(&p, d);
    assert!(defect <= 5e-6, "{defect:e}");
}

#[test]
fn large_parts_of_the_buffer_in_the_span_do_not_break_orthonormality() {
    for (k, d) in [(8, 8), (8, 9), (6, 8)] {
        let mut p: Vec<f32> = random(&Stream::new(20, "frame"), 0, k, d).unwrap();
        for t in 0..100 {
            let mut m: Vec<f32> = noise(k, d, 21 + t).iter().map(|v| *v as f32).collect();
            step(&mut p, &mut m, d, -3.0, MOVE).unwrap();
        }
        assert!(orthonormality_defect(&p, d) < 2e-5, "{k} x {d}: {:e}", orthonormality_defect(&p, d));
    }
}

#[test]
fn newton_schulz_shrinks_the_defect_by_its_law() {
    for e in [1e-1f64, 1e-2, 1e-3] {
        let mut p = frame(3, 12, 9);
        p[..12].iter_mut().for_each(|v| *v *= (1.0 + e).sqrt());
        step(&mut p, &mut vec![0.0; 36], 12, -1.0, POLISH).unwrap();
        let law = 0.75 * e * e - e.powi(3) / 4.0;
        let found = orthonormality_defect(&p, 12);
        assert!((found / law - 1.0).abs() < 1e-7, "{e}: {found:e} {law:e}");
    }
}

#[test]
fn restoring_in_the_step_equals_restoring_before_it() {
    for (k, d) in [(1, 9), (4, 50), (16, 64)] {
        for momentum in [MomentumMode::Ambient, MomentumMode::Transported] {
            let mut p = frame(k, d, 10);
            p.iter_mut().zip(noise(k, d, 11)).for_each(|(p, n)| *p += 1e-3 * n);
            let m = buffer(&frame(k, d, 10), d, 0.4, 0.05, 12);
            let (mut fused, mut fused_m) = (p.clone(), m.clone());
            step(&mut fused, &mut fused_m, d, -1.0, StepOptions { momentum, ..POLISH }).unwrap();
            let (mut apart, mut apart_m) = (p, m);
            step(&mut apart, &mut vec![0.0; k * d], d, -1.0, POLISH).unwrap();
            step(&mut apart, &mut apart_m, d, -1.0, StepOptions { momentum, ..MOVE }).unwrap();
            assert!(max_diff(&fused, &apart) < 1e-13 && max_diff(&fused_m, &apart_m) < 1e-13, "{k} x {d}");
        }
    }
}

#[test]
fn the_published_update_is_the_same_move() {
    for (k, d) in [(1, 9), (3, 7), (8, 64)] {
        let p = frame(k, d, 30);
        let m = buffer(&p, d, 0.7, 0.5, 31);
        let (mut series, mut literal) = (p.clone(), p.clone());
        let ours = step(&mut series, &mut m.clone(), d, -0.5, MOVE).unwrap();
        let published = StepOptions { update: Update::Literal, reorthogonalize: true, ..MOVE };
        let theirs = step(&mut literal, &mut m.clone(), d, -0.5, published).unwrap();
        assert!(max_diff(&series, &literal) < 1e-12, "{k} x {d}: {:e}", max_diff(&series, &literal));
        // Ours is a bound of the angle.
        assert!(theirs.angle <= ours.angle * (1.0 + 1e-12) && ours.angle < theirs.angle * (k as f64).sqrt() * 1.01);
    }
}

#[test]
fn a_trajectory_of_single_precision_follows_the_published_one() {
    let (k, d) = (4, 40);
    let p = frame(k, d, 32);
    let (mut exact, mut exact_m) = (p.clone(), vec![0.0; k * d]);
    let (mut single, mut single_m): (Vec<f32>, _) = (p.iter().map(|v| *v as f32).collect(), vec![0f32; k * d]);
    let targets: Vec<Vec<f64>> = (0..5).map(|i| noise(k, d, 33 + i)).collect();
    for t in 0..50 {
        // A gradient that depends on where the frame is: errors feed back.
        let pull = |p: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let target = &targets[t % 5];
            (0..k * d).map(|i| 0.05 * (p(i) - target[i])).collect()
        };
        let rate = 0.05 * (1.0 + (std::f64::consts::PI * t as f64 / 50.0).cos());
        let restore = (t + 1) % 5 == 0;
        let literal = StepOptions { update: Update::Literal, reorthogonalize: restore, ..MOVE };
        let e = pull(&|i| exact[i]);
        descend(&mut exact, &mut exact_m, &e, d, [rate, 0.9], literal).unwrap();
        let e: Vec<f32> = pull(&|i| f64::from(single[i])).iter().map(|v| *v as f32).collect();
        let ours = StepOptions { reorthogonalize: restore, ..MOVE };
        descend(&mut single, &mut single_m, &e, d, [rate, 0.9], ours).unwrap();
    }
    let single: Vec<f64> = single.iter().map(|v| f64::from(*v)).collect();
    let angle = span(&exact, d).unwrap().principal_angles(&span(&single, d).unwrap()).unwrap();
    let moved = span(&exact, d).unwrap().principal_angles(&span(&p, d).unwrap()).unwrap();
    let most = |angles: &[f64]| angles.iter().copied().fold(0.0, f64::max);
    assert!(most(&angle) <= 1e-5 && most(&moved) > 0.2, "{:e} of {}", most(&angle), most(&moved));
}

#[test]
fn idle_steps_are_paid_back_in_one() {
    let (k, d) = (3, 20);
    let p = frame(k, d, 40);
    let m = tangent(&p, &buffer(&p, d, 0.8, 0.0, 41), d);
    let (mut eager, mut eager_m) = (p.clone(), m.clone());
    let (mut postponed, mut decay) = (0.0, 1.0);
    for rate in [0.3, 0.25, 0.2, 0.1] {
        descend(&mut eager, &mut eager_m, &vec![0.0; k * d], d, [rate, 0.9], TRANSPORT).unwrap();
        decay *= 0.9;
        postponed += rate * decay;
    }
    let (mut lazy, mut lazy_m) = (p, m);
    catch_up(&mut lazy, &mut lazy_m, d, [postponed, decay]).unwrap();
    assert!(max_diff(&eager, &lazy) < 1e-12 && max_diff(&eager_m, &lazy_m) < 1e-12);
}

/// Law 12: restoring by Newton-Schulz never flips a row, which would turn the buffer against the gradient; a QR decomposition without
/// rule of signs does.
#[test]
fn restoring_flips_no_row_where_a_plain_decomposition_does() {
    let (k, d) = (8, 512);
    let mut p = frame(k, d, 50);
    let mut m = vec![0.0; k * d];
    let (mut ours, mut plain) = (0, 0);
    for t in 1..=100u64 {
        let e: Vec<f64> = noise(k, d, 51 + t).iter().map(|v| 1e-2 * v).collect();
        let before = p.clone();
        let restore = t.is_multiple_of(5);
        descend(&mut p, &mut m, &e, d, [0.1, 0.9], StepOptions { reorthogonalize: restore, ..MOVE }).unwrap();
        if restore {
            let (_, r) = subspan_linalg::qr_factor(&Mat::from_fn(d, k, |i, j| p[j * d + i])).unwrap();
            plain += (0..k).filter(|i| r[(*i, *i)] < 0.0).count();
            let along = |i: usize| p[i * d..(i + 1) * d].iter().zip(&before[i * d..]).map(|(a, b)| a * b).sum::<f64>();
            ours += (0..k).filter(|i| along(*i) < 0.0).count();
        }
    }
    assert!(ours == 0 && plain > 0, "{ours} {plain}");
}

#[test]
fn a_corrupt_frame_is_rebuilt_and_its_buffer_emptied() {
    let mut p = frame(3, 10, 13);
    p[..10].iter_mut().for_each(|v| *v *= 3.0);
    let mut m = noise(3, 10, 14);
    assert!(step(&mut p, &mut m, 10, -1.0, POLISH).unwrap().rebuilt);
    assert!(orthonormality_defect(&p, 10) < 1e-14 && m.iter().all(|v| *v == 0.0));
}

#[test]
fn a_limit_cuts_long_steps_only() {
    let p = frame(3, 10, 15);
    let m = buffer(&p, 10, 2.0, 0.0, 16);
    let limited = StepOptions { max_angle: Some(0.1), ..MOVE };
    let mut moved = p.clone();
    assert_eq!(step(&mut moved, &mut m.clone(), 10, -1.0, limited).unwrap().angle, 0.1);
    assert!(span(&p, 10).unwrap().distance(&span(&moved, 10).unwrap()).unwrap() <= 0.1 * 3f64.sqrt());
}

#[test]
fn the_degree_table_keeps_its_promise() {
    let factorial = |n: usize| (1..=n).map(|i| i as f64).product::<f64>();
    for exponent in -80..=0 {
        let norm = 10f64.powf(f64::from(exponent) / 10.0);
        for (epsilon, bound) in [(f64::from(f32::EPSILON), 4e-9), (f64::EPSILON, 1e-15)] {
            let m = degree(norm, epsilon);
            assert!(norm.powi(m as i32 + 1) / factorial(2 * m + 2) < bound, "{norm:e}: {m}");
        }
    }
}

#[test]
fn one_dimension_by_series_is_the_closed_form() {
    for t in [0.0, 1e-20, 1e-9, 1e-3, 0.5, 3.0, 40.0, 100.0] {
        let (mut cos, mut sinc) = ([0.0], [0.0]);
        cos_sinc(&mut [t], 1, f64::EPSILON, [&mut cos, &mut sinc, &mut [0.0]]);
        let (cos1, sinc1) = cos_sinc_scalar(t);
        assert!((cos[0] - cos1).abs() < 1e-13 && (sinc[0] - sinc1).abs() < 1e-13, "{t}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn geodesics_can_be_walked_back_and_in_two_halves(k in 1usize..6, extra in 1usize..20, angle in 0.01f64..1.5, seed in 0u64..1000) {
        let d = k + extra;
        let p = frame(k, d, seed);
        let m = tangent(&p, &buffer(&p, d, angle, 0.0, seed + 1), d);
        let (mut there, mut direction) = (p.clone(), m.clone());
        step(&mut there, &mut direction, d, -1.0, TRANSPORT).unwrap();
        // The direction stays tangent and keeps its length.
        let mut w = vec![0.0; k * k];
        cross(&direction, &there, d, &mut w);
        let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        prop_assert!(w.iter().all(|v| v.abs() < 1e-13) && (norm(&direction) - norm(&m)).abs() < 1e-12);
        let (mut back, mut returned) = (there.clone(), direction.clone());
        step(&mut back, &mut returned, d, 1.0, TRANSPORT).unwrap();
        prop_assert!(max_diff(&back, &p) < 1e-12 && max_diff(&returned, &m) < 1e-12);
        let (mut halves, mut carried) = (p.clone(), m.clone());
        for _ in 0..2 {
            step(&mut halves, &mut carried, d, -0.5, TRANSPORT).unwrap();
        }
        prop_assert!(max_diff(&halves, &there) < 1e-12);
    }

    #[test]
    fn turning_the_basis_turns_the_result(k in 1usize..6, extra in 1usize..20, angle in 0.01f64..3.0, seed in 0u64..1000) {
        let d = k + extra;
        let p = frame(k, d, seed);
        let m = buffer(&p, d, angle, 1.0, seed + 1);
        let r = frame(k, k, seed + 2);
        let turned = |v: &[f64]| {
            let mut out = v.to_vec();
            combine(&mut out, &r, v, &vec![0.0; k * k], d);
            out
        };
        let (mut plain, mut turned_p) = (p.clone(), turned(&p));
        step(&mut plain, &mut m.clone(), d, -1.0, MOVE).unwrap();
        step(&mut turned_p, &mut turned(&m), d, -1.0, MOVE).unwrap();
        prop_assert!(max_diff(&turned(&plain), &turned_p) < 1e-12);
    }
}
