//! The shortcut against the exact rates.

use super::*;
use crate::assign::sinkhorn::{Diagonal, Options, project, project_gradient};

/// Unit rows near `clusters` random planes, on one side each, with their membership.
fn planted(n: usize, d: usize, clusters: usize, eta: f64) -> (Vec<f64>, Vec<f64>, Vec<u32>) {
    let mut rng = Stream::new(3, "planted").rng(0);
    let bases: Vec<f64> = (0..clusters * 2 * d).map(|_| rng.normal()).collect();
    let mut rows = Vec::new();
    for i in 0..n {
        let basis = &bases[(i % clusters) * 2 * d..];
        let (a, b) = (1.0 + 0.2 * rng.normal(), 0.5 * rng.normal());
        let mut row: Vec<f64> = (0..d).map(|l| a * basis[l] + b * basis[d + l] + 0.2 * rng.normal()).collect();
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        row.iter_mut().for_each(|v| *v /= length);
        rows.extend(row);
    }
    let dot = |i: usize, j: usize| (0..d).map(|l| rows[i * d + l] * rows[j * d + l]).sum::<f64>().abs();
    let affinity: Vec<f64> = (0..n * n).map(|at| dot((at / n).min(at % n), (at / n).max(at % n))).collect();
    let gamma = project(&affinity, n, eta, Diagonal::Zero, &Options::default()).gamma;
    (rows, gamma, (0..n).map(|i| (i % clusters) as u32).collect())
}

#[test]
fn with_all_rows_corrected_it_is_exact() {
    let (n, d) = (30, 6);
    let (rows, gamma, groups) = planted(n, d, 3, 0.2);
    let exact = rate_gradient(&rows, d, &gamma, 0.1, Columns::Unit).unwrap();
    let fast = fast_rate_gradient(&rows, d, &gamma, 0.1, &groups, n).unwrap();
    assert!(
        (exact.rates.parts - fast.rates.parts).abs() < 1e-4 * exact.rates.parts,
        "{:?} {:?}",
        exact.rates,
        fast.rates
    );
    // Columns of a group that are all the mean, by contrast, are exact without corrections.
    let flat = vec![1.0 / n as f64; n * n];
    let exact = rate_gradient(&rows, d, &flat, 0.1, Columns::Unit).unwrap();
    let fast = fast_rate_gradient(&rows, d, &flat, 0.1, &groups, 0).unwrap();
    assert!((exact.rates.parts - fast.rates.parts).abs() < 1e-10);
    assert!(exact.rows.iter().zip(&fast.rows).all(|(a, b)| (a - b).abs() < 1e-10));
    assert!(exact.membership.iter().zip(&fast.membership).all(|(a, b)| (a - b).abs() < 1e-10));
}

#[test]
fn the_algebra_is_exact_for_the_approximate_column() {
    let (n, d, s) = (40, 7, 9);
    let (rows, gamma, groups) = planted(n, d, 4, 0.2);
    let mut columns = vec![0.0; n * n];
    transpose(&gamma, n, &mut columns);
    let task = Task { rows: &rows, doubles: &rows, columns: &columns, d, c: d as f64 / 0.1, corrections: s };
    // The approximate membership, entry by entry.
    let mut approximate = vec![0.0; n * n];
    for j in 0..n {
        let members: Vec<usize> = (0..n).filter(|l| groups[*l] == groups[j]).collect();
        let shared: Vec<f64> =
            (0..n).map(|i| members.iter().map(|l| gamma[i * n + l]).sum::<f64>() / members.len() as f64).collect();
        let column = task.column(j, &shared);
        assert!(column.corrections.len() <= s);
        (0..n).for_each(|i| approximate[i * n + j] = column.background * shared[i]);
        column.corrections.iter().for_each(|(i, by)| approximate[i * n + j] += by);
        let sum: f64 = (0..n).map(|i| approximate[i * n + j]).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }
    let expected = rate_gradient(&rows, d, &approximate, 0.1, Columns::Unit).unwrap();
    let found = fast_rate_gradient(&rows, d, &gamma, 0.1, &groups, s).unwrap();
    assert!((expected.rates.parts - found.rates.parts).abs() < 1e-10);
    assert!(expected.rows.iter().zip(&found.rows).all(|(a, b)| (a - b).abs() < 1e-10));
}

#[test]
fn the_gate_passes_good_groups_and_stops_bad_ones() {
    let judge = |eta: f64, bad: bool, s: usize| {
        let (n, d) = (240, 24);
        let (rows, gamma, mut groups) = planted(n, d, 8, eta);
        if bad {
            let mut rng = Stream::new(9, "bad").rng(0);
            groups.iter_mut().for_each(|g| *g = rng.below(8) as u32);
        }
        let exact = rate_gradient(&rows, d, &gamma, 0.1, Columns::Unit).unwrap();
        let through = |g: &[f64]| project_gradient(&gamma, n, g, eta);
        let fast = fast_rate_gradient(&rows, d, &gamma, 0.1, &groups, s).unwrap();
        verdict(s, [&exact, &fast], [&through(&exact.membership), &through(&fast.membership)])
    };
    let right = judge(0.1, false, 64);
    assert!(right.accepted, "{right:?}");
    let wrong = judge(0.175, true, 8);
    assert!(!wrong.accepted, "{wrong:?}");
}

#[test]
fn a_shortcut_hands_out_exact_rates_when_compared_or_given_up() {
    let (n, d, eta) = (240, 24, 0.175);
    let (rows, gamma, _) = planted(n, d, 8, eta);
    let exact = rate_gradient(&rows, d, &gamma, 0.1, Columns::Unit).unwrap();
    let mut shortcut = Shortcut::new(0);
    for _ in 0..3 {
        let step = shortcut.step(&rows, d, &gamma, 0.1, &|g| g.to_vec()).unwrap();
        // 240 rows are too few for 64 corrections to save anything, so it pauses at once.
        assert_eq!(step, exact);
    }
    assert!(shortcut.verdicts().is_empty());
}

#[test]
fn single_precision_agrees_with_double() {
    let (n, d) = (150, 16);
    let (rows, gamma, groups) = planted(n, d, 5, 0.1);
    let single = |v: &[f64]| -> Vec<f32> { v.iter().map(|v| *v as f32).collect() };
    let fine = fast_rate_gradient(&rows, d, &gamma, 0.1, &groups, 20).unwrap();
    let coarse = fast_rate_gradient(&single(&rows), d, &single(&gamma), 0.1, &groups, 20).unwrap();
    assert!((fine.rates.parts / coarse.rates.parts - 1.0).abs() < 1e-3);
    let doubles = |v: &[f32]| -> Vec<f64> { v.iter().map(|v| f64::from(*v)).collect() };
    assert!(cosine(&fine.rows, &doubles(&coarse.rows)) > 0.999_999);
    assert!(cosine(&fine.membership, &doubles(&coarse.membership)) > 0.999_999);
}
