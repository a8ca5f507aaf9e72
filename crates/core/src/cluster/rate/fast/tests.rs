//! The shortcut against the exact rates.

use super::*;
use crate::assign::sinkhorn::{Diagonal, Options, project, project_gradient};
use crate::draw::Stream;

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

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    let off = found.iter().zip(expected).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
    assert!(off <= tolerance, "{off}");
}

#[test]
fn groups_of_one_column_and_columns_that_are_the_mean_are_exact() {
    let (n, d) = (30, 6);
    let (rows, gamma, groups) = planted(n, d, 3, 0.2);
    let flat = vec![1.0 / n as f64; n * n];
    for (gamma, groups) in [(gamma, (0..n as u32).collect()), (flat, groups)] {
        let exact = rate_gradient(&rows, d, &gamma, 0.1, Columns::Unit).unwrap();
        let fast = fast_rate_gradient(&rows, d, &gamma, 0.1, &groups).unwrap();
        assert!((exact.rates.parts - fast.rates.parts).abs() < 1e-10);
        assert_close(&fast.rows, &exact.rows, 1e-10);
        assert_close(&fast.membership, &exact.membership, 1e-10);
    }
}

#[test]
fn a_column_that_deviates_along_one_row_is_exact_to_all_orders() {
    // Columns of a group that differ in one row's entry alone, by a lot: no pair of rows deviates together.
    let (n, d) = (24, 5);
    let (rows, gamma, _) = planted(n, d, 3, 0.2);
    let mut alike: Vec<f64> = (0..n * n).map(|at| gamma[at / n * n]).collect();
    (0..n).for_each(|j| alike[7 * n + j] = 0.05 * j as f64);
    let exact = rate_gradient(&rows, d, &alike, 0.1, Columns::Unit).unwrap();
    let fast = fast_rate_gradient(&rows, d, &alike, 0.1, &vec![0; n]).unwrap();
    assert!((exact.rates.parts - fast.rates.parts).abs() < 1e-9, "{:?} {:?}", exact.rates, fast.rates);
    assert_close(&fast.rows, &exact.rows, 1e-9);
}

#[test]
fn small_deviations_leave_an_error_of_third_order() {
    let (n, d) = (40, 7);
    let (rows, gamma, groups) = planted(n, d, 4, 0.2);
    let flat: Vec<f64> = (0..n * n)
        .map(|at| {
            let members: Vec<usize> = (0..n).filter(|l| groups[*l] == groups[at % n]).collect();
            members.iter().map(|l| gamma[at / n * n + l]).sum::<f64>() / members.len() as f64
        })
        .collect();
    let error = |share: f64| {
        let mixed: Vec<f64> = gamma.iter().zip(&flat).map(|(g, f)| f + share * (g - f)).collect();
        let exact = rate_gradient(&rows, d, &mixed, 0.1, Columns::Unit).unwrap();
        let fast = fast_rate_gradient(&rows, d, &mixed, 0.1, &groups).unwrap();
        (exact.rates.parts - fast.rates.parts).abs()
    };
    let (coarse, fine) = (error(0.02), error(0.01));
    assert!(coarse > 1e-10 && (7.0..9.0).contains(&(coarse / fine)), "{coarse} {fine}");
}

#[test]
fn the_gradients_are_those_of_the_approximate_rate() {
    let (n, d) = (24, 5);
    let (rows, gamma, groups) = planted(n, d, 3, 0.2);
    let at = |rows: &[f64], gamma: &[f64]| fast_rate_gradient(rows, d, gamma, 0.1, &groups).unwrap();
    let found = at(&rows, &gamma);
    let h = 1e-5;
    for i in [0, 17, 63, 119] {
        let moved = |sign: f64| {
            let mut rows = rows.clone();
            rows[i] += sign * h;
            at(&rows, &gamma).rates.reduction()
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * h);
        assert!((slope - found.rows[i]).abs() < 1e-6, "row value {i}: {slope} {}", found.rows[i]);
    }
    for i in [1, 30, 200, 575] {
        let moved = |sign: f64| {
            let mut gamma = gamma.clone();
            gamma[i] += sign * h;
            at(&rows, &gamma).rates.reduction()
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * h);
        assert!((slope - found.membership[i]).abs() < 1e-6, "entry {i}: {slope} {}", found.membership[i]);
    }
}

#[test]
fn the_gate_passes_good_groups_and_stops_bad_ones() {
    let judge = |eta: f64, bad: bool| {
        let (n, d) = (240, 24);
        let (rows, gamma, _) = planted(n, d, 8, eta);
        let mut groups = groups(&gamma, &rows, d, 16, 0);
        if bad {
            let mut rng = Stream::new(9, "bad").rng(0);
            groups.iter_mut().for_each(|g| *g = rng.below(8) as u32);
        }
        let exact = rate_gradient(&rows, d, &gamma, 0.1, Columns::Unit).unwrap();
        let through = |g: &[f64]| project_gradient(&gamma, n, g, eta);
        let fast = fast_rate_gradient(&rows, d, &gamma, 0.1, &groups).unwrap();
        verdict(16, [&exact, &fast], [&through(&exact.membership), &through(&fast.membership)])
    };
    let right = judge(0.175, false);
    assert!(right.accepted, "{right:?}");
    let wrong = judge(0.175, true);
    assert!(!wrong.accepted, "{wrong:?}");
}

#[test]
fn a_shortcut_is_taken_once_it_is_as_good_as_the_exact_rates() {
    let (n, d, eta) = (GROUPS * GROUP_COLUMNS, 12, 0.175);
    let (rows, gamma, _) = planted(n, d, 6, eta);
    let exact = rate_gradient(&rows, d, &gamma, 0.1, Columns::Unit).unwrap();
    let through = |g: &[f64]| project_gradient(&gamma, n, g, eta);
    let mut shortcut = Shortcut::new(0);
    let [compared, taken] = [(); 2].map(|()| shortcut.step(&rows, d, &gamma, 0.1, &through).unwrap());
    assert_eq!(compared, exact);
    let [verdict] = shortcut.verdicts() else { panic!("{:?}", shortcut.verdicts()) };
    assert!(verdict.accepted && verdict.groups == GROUPS, "{verdict:?}");
    assert!(taken != exact && cosine(&taken.rows, &exact.rows) >= GATE[0]);
    // Compared again after so many steps.
    (2..=EVERY).for_each(|_| drop(shortcut.step(&rows, d, &gamma, 0.1, &through).unwrap()));
    assert_eq!(shortcut.verdicts().len(), 2);
}

#[test]
fn a_shortcut_that_saves_nothing_is_not_tried() {
    let (n, d, eta) = (240, 24, 0.175);
    let (rows, gamma, _) = planted(n, d, 8, eta);
    let exact = rate_gradient(&rows, d, &gamma, 0.1, Columns::Unit).unwrap();
    let mut shortcut = Shortcut::new(0);
    for _ in 0..3 {
        let step = shortcut.step(&rows, d, &gamma, 0.1, &|g| g.to_vec()).unwrap();
        // 240 columns are too few for 16 groups to save anything, so it pauses at once.
        assert_eq!(step, exact);
    }
    assert!(shortcut.verdicts().is_empty());
}

#[test]
fn single_precision_agrees_with_double() {
    let (n, d) = (150, 16);
    let (rows, gamma, groups) = planted(n, d, 5, 0.1);
    let single = |v: &[f64]| -> Vec<f32> { v.iter().map(|v| *v as f32).collect() };
    let fine = fast_rate_gradient(&rows, d, &gamma, 0.1, &groups).unwrap();
    let coarse = fast_rate_gradient(&single(&rows), d, &single(&gamma), 0.1, &groups).unwrap();
    assert!((fine.rates.parts / coarse.rates.parts - 1.0).abs() < 1e-3);
    let doubles = |v: &[f32]| -> Vec<f64> { v.iter().map(|v| f64::from(*v)).collect() };
    assert!(cosine(&fine.rows, &doubles(&coarse.rows)) > 0.999_999);
    assert!(cosine(&fine.membership, &doubles(&coarse.membership)) > 0.999_999);
}
