//! The laws of rate reduction.

use proptest::prelude::*;

use super::*;
use crate::assign::sinkhorn::{Diagonal, Options, project};
use crate::draw::Stream;

fn unit_rows(n: usize, d: usize, seed: u64) -> Vec<f64> {
    let mut rng = Stream::new(seed, "rows").rng(0);
    let mut rows: Vec<f64> = (0..n * d).map(|_| rng.normal()).collect();
    for row in rows.chunks_exact_mut(d) {
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter_mut().for_each(|v| *v /= length);
    }
    rows
}

fn membership(rows: &[f64], d: usize, eta: f64) -> Vec<f64> {
    let n = rows.len() / d;
    let dot = |i: usize, j: usize| (0..d).map(|c| rows[i * d + c] * rows[j * d + c]).sum::<f64>().abs();
    let a: Vec<f64> = (0..n * n).map(|at| dot((at / n).min(at % n), (at / n).max(at % n))).collect();
    project(&a, n, eta, Diagonal::Zero, &Options { tolerance: 1e-11, ..Options::default() }).gamma
}

/// Rates by the definition, without packing.
fn plain(rows: &[f64], d: usize, g: &[f64], eps2: f64, columns: Columns) -> Rates {
    let n = rows.len() / d;
    let c = d as f64 / eps2;
    let log_det = |weight: &dyn Fn(usize) -> f64, c: f64| {
        let h = Mat::from_fn(d, d, |a, b| {
            let sum: f64 = (0..n).map(|i| weight(i) * rows[i * d + a] * rows[i * d + b]).sum();
            f64::from(u8::from(a == b)) + c * sum
        });
        cholesky(&h).unwrap().log_det()
    };
    let t = |j: usize| match columns {
        Columns::Unit => 1.0,
        Columns::Sums => (0..n).map(|i| g[i * n + j]).sum::<f64>() + COLUMN_FLOOR,
    };
    let parts = (0..n).map(|j| t(j) * log_det(&|i| g[i * n + j], c / t(j))).sum::<f64>() / n as f64;
    Rates { whole: log_det(&|_| 1.0 / n as f64, c), parts }
}

#[test]
fn packed_rates_are_those_of_the_definition() {
    let (n, d) = (17, 6);
    let rows = unit_rows(n, d, 1);
    for columns in [Columns::Unit, Columns::Sums] {
        let mut g = membership(&rows, d, 0.2);
        g.iter_mut().enumerate().for_each(|(at, v)| *v *= 1.0 + 0.1 * (at % 7) as f64);
        let (found, expected) =
            (rate_gradient(&rows, d, &g, 0.1, columns).unwrap().rates, plain(&rows, d, &g, 0.1, columns));
        assert!((found.whole - expected.whole).abs() < 1e-12 && (found.parts - expected.parts).abs() < 1e-12);
    }
}

#[test]
fn gradients_agree_with_differences() {
    let (n, d, h) = (11, 5, 1e-6);
    let rows = unit_rows(n, d, 2);
    let g = membership(&rows, d, 0.3);
    for columns in [Columns::Unit, Columns::Sums] {
        let gradient = rate_gradient(&rows, d, &g, 0.1, columns).unwrap();
        let check = |found: f64, up: Rates, down: Rates| {
            let difference = (up.reduction() - down.reduction()) / (2.0 * h);
            assert!((found - difference).abs() < 1e-6 * (1.0 + difference.abs()), "{found} {difference}");
        };
        for at in 0..n * d {
            let moved = |by: f64| {
                let mut rows = rows.clone();
                rows[at] += by;
                plain(&rows, d, &g, 0.1, columns)
            };
            check(gradient.rows[at], moved(h), moved(-h));
        }
        for at in (0..n * n).step_by(3) {
            let moved = |by: f64| {
                let mut g = g.clone();
                g[at] += by;
                plain(&rows, d, &g, 0.1, columns)
            };
            check(gradient.membership[at], moved(h), moved(-h));
        }
    }
}

#[test]
fn single_precision_follows_double_precision() {
    let (n, d) = (60, 16);
    let rows = unit_rows(n, d, 3);
    let g = membership(&rows, d, 0.2);
    let double = rate_gradient(&rows, d, &g, 0.1, Columns::Unit).unwrap();
    let narrow = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let single = rate_gradient(&narrow(&rows), d, &narrow(&g), 0.1, Columns::Unit).unwrap();
    assert!((single.rates.parts - double.rates.parts).abs() < 1e-4);
    let largest = double.rows.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(single.rows.iter().zip(&double.rows).all(|(s, d)| (f64::from(*s) - d).abs() < 1e-3 * largest));
}

#[test]
fn the_extreme_memberships_have_the_known_rates() {
    for (d, expected) in [(6, 4.110_874), (32, 5.7714), (128, 7.1554)] {
        let n = 8;
        let rows = unit_rows(n, d, 4);
        let alone: Vec<f64> = (0..n * n).map(|at| f64::from(at / n == at % n)).collect();
        let g = rate_gradient(&rows, d, &alone, EPS2, Columns::Unit).unwrap();
        assert!((g.rates.parts - expected).abs() < 1e-4);
        let even = vec![1.0 / n as f64; n * n];
        let g = rate_gradient(&rows, d, &even, EPS2, Columns::Unit).unwrap();
        assert!((g.rates.parts - g.rates.whole).abs() < 1e-10);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn rates_are_ordered_bounded_and_blind_to_rotation_signs_and_order(n in 4usize..24, d in 2usize..8, seed in 0u64..500) {
        let rows = unit_rows(n, d, seed);
        let g = membership(&rows, d, 0.2);
        let rates = rate_gradient(&rows, d, &g, EPS2, Columns::Unit).unwrap().rates;
        let c = d as f64 / EPS2;
        prop_assert!(rates.parts >= (1.0 + c).ln() - 1e-9 && rates.parts <= rates.whole + 1e-9);
        prop_assert!(rates.whole <= d as f64 * (1.0 + 1.0 / EPS2).ln() + 1e-9);
        // A reflection, a sign flip of every other row and a reversal.
        let axis = unit_rows(1, d, seed + 1);
        let mut moved = rows.clone();
        for (i, row) in moved.chunks_exact_mut(d).enumerate() {
            let along: f64 = row.iter().zip(&axis).map(|(a, b)| a * b).sum();
            let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
            row.iter_mut().zip(&axis).for_each(|(v, a)| *v = sign * (*v - 2.0 * along * a));
        }
        let moved: Vec<f64> = moved.chunks_exact(d).rev().flatten().copied().collect();
        let reversed: Vec<f64> = (0..n * n).map(|at| g[(n - 1 - at / n) * n + n - 1 - at % n]).collect();
        let same = rate_gradient(&moved, d, &reversed, EPS2, Columns::Unit).unwrap().rates;
        prop_assert!((same.whole - rates.whole).abs() < 1e-9 && (same.parts - rates.parts).abs() < 1e-9);
        // Concave in the membership.
        let even = vec![1.0 / n as f64; n * n];
        let mixed: Vec<f64> = g.iter().zip(&even).map(|(a, b)| 0.5 * (a + b)).collect();
        let middle = rate_gradient(&rows, d, &mixed, EPS2, Columns::Unit).unwrap().rates.parts;
        prop_assert!(middle >= 0.5 * (rates.parts + rates.whole) - 1e-9);
    }
}
