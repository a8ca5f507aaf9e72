use super::*;
use crate::simd::test::{for_each_width, noise};

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// Sides that use every height of tile, and lengths with every kind of rest.
const SHAPES: [(usize, usize); 9] =
    [(1, 1), (1, 50), (2, 16), (3, 130), (5, 1025), (8, 40), (13, 77), (16, 300), (32, 1100)];

#[test]
fn kernels_compute_their_definitions() {
    for (k, d) in SHAPES {
        let (a, b) = (noise(k * d, 1), noise(k * d, 2));
        let (mut w, mut g) = (vec![0.0; k * k], vec![0.0; k * k]);
        cross(&a, &b, d, &mut w);
        inner(&a, d, &mut g);
        for i in 0..k {
            for j in 0..k {
                let dot = |b: &[f64]| -> f64 { (0..d).map(|l| a[i * d + l] * b[j * d + l]).sum() };
                assert!((w[i * k + j] - dot(&b)).abs() < 1e-11 && (g[i * k + j] - dot(&a)).abs() < 1e-11);
            }
        }
        let (p, q) = (noise(k * k, 3), noise(k * k, 4));
        let old = (a.clone(), b.clone());
        let (mut rows, mut others) = old.clone();
        combine_both(&mut rows, &mut others, d, [&p, &q], [&q, &p]);
        let mut alone = a.clone();
        combine(&mut alone, &p, &b, &q, d);
        assert_eq!(alone, rows);
        let mut product = vec![0.0; k * k];
        small_mul(&p, &q, k, [2.0, 0.5], &mut product);
        for i in 0..k {
            for l in 0..d {
                let of = |x: &[f64], y: &[f64]| -> f64 {
                    (0..k).map(|j| x[i * k + j] * old.0[j * d + l] + y[i * k + j] * old.1[j * d + l]).sum()
                };
                assert!((rows[i * d + l] - of(&p, &q)).abs() < 1e-12);
                assert!((others[i * d + l] - of(&q, &p)).abs() < 1e-12);
            }
            for j in 0..k {
                let expected: f64 = (0..k).map(|l| p[i * k + l] * q[l * k + j]).sum();
                let diagonal = if i == j { 0.5 } else { 0.0 };
                assert!((product[i * k + j] - 2.0 * expected - diagonal).abs() < 1e-12);
            }
        }
        let mut sums = a.clone();
        accumulate(&mut sums, 0.5, &b, &a);
        assert!(sums.iter().zip(a.iter().zip(&b)).all(|(s, (a, b))| (s - (0.5 * a + b)).abs() < 1e-15));
    }
}

#[test]
fn every_width_gives_the_same_bits() {
    fn all<T: Real>(a: &[T], b: &[T], p: &[T], d: usize) {
        let k = a.len() / d;
        let mut first = None;
        for_each_width(|name, width| {
            let (mut w, mut g) = (vec![0.0; k * k], vec![0.0; k * k]);
            width.run(Dots { a, b, n_cols: d, symmetric: false, out: &mut w });
            width.run(Dots { a, b: a, n_cols: d, symmetric: true, out: &mut g });
            crate::gram::symmetrize(&mut g, k);
            let (mut rows, mut others, mut both) = (a.to_vec(), b.to_vec(), a.to_vec());
            width.run(Combine { rows: &mut rows, p, others: b, q: p, n_cols: d, k });
            width.run(CombineBoth { rows: &mut both, others: &mut others, n_cols: d, k, p, q: p, r: p, s: p });
            let mut sums = a.to_vec();
            width.run(Accumulate { sums: &mut sums, scale: p[0], values: b, ahead: b });
            let found = (w, g, rows, others, both, sums);
            assert!(first.get_or_insert_with(|| found.clone()) == &found, "{name}, {k} x {d}");
        });
    }
    for (k, d) in SHAPES {
        let (a, b, p) = (noise(k * d, 1), noise(k * d, 2), noise(k * k, 3));
        all(&a, &b, &p, d);
        all(&single(&a), &single(&b), &single(&p), d);
    }
}

#[test]
fn long_rows_of_single_precision_lose_little() {
    let d = 100_000;
    let a = single(&noise(d, 5));
    let mut found = [0.0];
    cross(&a, &a, d, &mut found);
    let exact: f64 = a.iter().map(|v| f64::from(*v).powi(2)).sum();
    assert!((found[0] / exact - 1.0).abs() < 3e-7, "{}", found[0] / exact - 1.0);
}
