//! A turn is a geodesic step; streams are learned, saved and resumed.

use super::*;
use crate::Silent;
use crate::classify::step::{StepOptions, step};
use crate::classify::{DenseSamples, geometry::random};
use crate::draw::Stream;

const D: usize = 12;

fn unit(seed: u64) -> Vec<f64> {
    random(&Stream::new(seed, "unit"), 0, 1, D).unwrap()
}

fn projection(frame: &[f64], x: &[f64]) -> Vec<f64> {
    frame.chunks_exact(D).map(|row| row.iter().zip(x).map(|(p, x)| p * x).sum()).collect()
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn a_turn_is_the_geodesic_step_of_its_gradient() {
    for seed in 0..20 {
        let frame: Vec<f64> = random(&Stream::new(seed, "frame"), 0, 3, D).unwrap();
        let x = unit(100 + seed);
        let z = projection(&frame, &x);
        let (kappa, lr) = (if seed % 2 == 0 { -0.4 } else { 0.3 }, 0.5);
        // The gradient κ u xᵀ, and its step by minus the rate.
        let mut gradient: Vec<f64> = z.iter().flat_map(|z| x.iter().map(move |x| kappa * z * x)).collect();
        gradient.iter_mut().for_each(|g| *g /= norm(&z));
        let mut stepped = frame.clone();
        step(&mut stepped, &mut gradient, D, -lr, StepOptions::default()).unwrap();
        let mut turned = frame.clone();
        let distance = (1.0 - norm(&z).powi(2)).sqrt();
        let angle = turn(&mut turned, D, &x, &z, -lr * kappa * distance);
        assert!(stepped.iter().zip(&turned).all(|(a, b)| (a - b).abs() < 1e-12));
        let phi = norm(&z).acos();
        assert!((norm(&projection(&turned, &x)) - (phi - angle).cos().abs()).abs() < 1e-12);
    }
}

#[test]
fn a_turn_overshoots_neither_the_sample_nor_its_complement() {
    let frame: Vec<f64> = random(&Stream::new(1, "frame"), 0, 2, D).unwrap();
    let x = unit(5);
    let z = projection(&frame, &x);
    for (angle, expected) in [(9.0, 1.0), (-9.0, 0.0)] {
        let mut turned = frame.clone();
        turn(&mut turned, D, &x, &z, angle);
        assert!((norm(&projection(&turned, &x)) - expected).abs() < 1e-12);
    }
}

/// Three classes near planes of their own.
fn stream(n: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
    let basis = Stream::new(2, "planes");
    let planes: Vec<Vec<f64>> = (0..3).map(|c| random(&basis, c, 2, D).unwrap()).collect();
    let mut rng = Stream::new(seed, "stream").rng(0);
    let mut values = Vec::new();
    for i in 0..n {
        let (a, b) = (rng.normal(), rng.normal());
        let plane = &planes[i % 3];
        values.extend((0..D).map(|j| (a * plane[j] + b * plane[D + j] + 0.25 * rng.normal()) as f32));
    }
    (values, (0..n).map(|i| i as u32 % 3).collect())
}

fn names() -> Vec<String> {
    ["a", "b", "c"].map(String::from).to_vec()
}

fn accuracy(model: &Model) -> f64 {
    let (values, codes) = stream(900, 9);
    model.evaluate(&DenseSamples::new(&values, D).unwrap(), &codes).unwrap().accuracy
}

#[test]
fn a_stream_is_learned_in_one_pass_and_probabilities_are_calibrated() {
    for turning in [Turning::Softmax, Turning::Mistakes] {
        let config = OnlineConfig { dim: 2, turning, rate: 1e-3, ..OnlineConfig::default() };
        let mut online = Online::new(&names(), D, config).unwrap();
        let (values, codes) = stream(3000, 3);
        online.learn(&DenseSamples::new(&values[..60 * D], D).unwrap(), &codes[..60], &Silent).unwrap();
        let early = accuracy(&online.model());
        online.learn(&DenseSamples::new(&values[60 * D..], D).unwrap(), &codes[60..], &Silent).unwrap();
        let model = online.model();
        let (test, truth) = stream(900, 9);
        let s = model.evaluate(&DenseSamples::new(&test, D).unwrap(), &truth).unwrap();
        assert!(s.accuracy > 0.88 && s.accuracy >= early - 0.01 && s.ece < 0.05, "{turning:?}: {s:?}, early {early}");
        let Scorer::Subspaces { frames, .. } = &model.scorer else { panic!("subspaces") };
        assert_eq!(frames.offsets, [0, 2, 4, 6]);
        assert!(geometry::orthonormality_defect(&frames.rows[..2 * D], D) < 1e-4);
    }
}

#[test]
fn classes_may_come_late_and_grow() {
    let mut online = Online::new(&names(), D, OnlineConfig { dim: 2, ..OnlineConfig::default() }).unwrap();
    let (values, codes) = stream(3, 4);
    let learn = |online: &mut Online, rows: &[usize]| {
        let part: Vec<f32> = rows.iter().flat_map(|r| values[r * D..(r + 1) * D].to_vec()).collect();
        let part_codes: Vec<u32> = rows.iter().map(|r| codes[*r]).collect();
        online.learn(&DenseSamples::new(&part, D).unwrap(), &part_codes, &Silent).unwrap();
    };
    learn(&mut online, &[0, 1]);
    let predicted = online.model().predict(&DenseSamples::new(&values, D).unwrap()).unwrap();
    assert!(predicted.codes[..2] == [0, 1] && predicted.codes[2] != 2, "{:?}", predicted.codes);
    learn(&mut online, &[2]);
    assert_eq!(online.model().predict(&DenseSamples::new(&values, D).unwrap()).unwrap().codes, [0, 1, 2]);
    assert_eq!(online.offsets, [0, 1, 2, 3]);
}

#[test]
fn a_saved_state_goes_on_with_the_same_bits() {
    let (values, codes) = stream(600, 6);
    let part = |from: usize, to: usize| (&values[from * D..to * D], &codes[from..to]);
    let learn = |online: &mut Online, (values, codes): (&[f32], &[u32])| {
        online.learn(&DenseSamples::new(values, D).unwrap(), codes, &Silent).unwrap();
    };
    let mut online = Online::new(&names(), D, OnlineConfig { dim: 3, ..OnlineConfig::default() }).unwrap();
    learn(&mut online, part(0, 300));
    let mut resumed = Online::from_bytes(&online.to_bytes().unwrap()).unwrap();
    assert!(Online::from_bytes(&online.to_bytes().unwrap()[..40]).is_err());
    learn(&mut online, part(300, 600));
    learn(&mut resumed, part(300, 600));
    assert_eq!(online, resumed);
    assert_eq!(online.seen(), 600);
}

#[test]
fn bad_calls_are_refused() {
    let config = OnlineConfig { dim: 2, ..OnlineConfig::default() };
    assert!(matches!(Online::new(&names()[..1], D, config), Err(Error::Classes { found: 1, .. })));
    assert!(matches!(Online::new(&names(), 1, config), Err(Error::Parameter { .. })));
    let mut online = Online::new(&names(), D, config).unwrap();
    let (values, codes) = stream(3, 4);
    let samples = DenseSamples::new(&values, D).unwrap();
    assert!(matches!(online.learn(&samples, &codes[1..], &Silent), Err(Error::Shape { found: 2, expected: 3, .. })));
    assert!(matches!(online.learn(&samples, &[0, 1, 7], &Silent), Err(Error::Shape { found: 7, .. })));
    assert!(matches!(
        online.learn(&DenseSamples::new(&values, 4).unwrap(), &[0; 9], &Silent),
        Err(Error::Shape { .. })
    ));
}
