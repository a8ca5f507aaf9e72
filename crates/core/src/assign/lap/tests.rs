use proptest::prelude::*;

use super::*;
use crate::draw::Stream;

/// The best value over all assignments of the smaller side.
fn brute_force(costs: &[f64], n_rows: usize, n_cols: usize) -> f64 {
    fn go(costs: &[f64], n_cols: usize, row: usize, n_rows: usize, used: &mut Vec<bool>) -> f64 {
        if row == n_rows {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for j in 0..n_cols {
            if !used[j] {
                used[j] = true;
                best = best.min(costs[row * n_cols + j] + go(costs, n_cols, row + 1, n_rows, used));
                used[j] = false;
            }
        }
        best
    }
    if n_rows <= n_cols {
        go(costs, n_cols, 0, n_rows, &mut vec![false; n_cols])
    } else {
        let t: Vec<f64> = (0..n_cols).flat_map(|j| (0..n_rows).map(move |i| costs[i * n_cols + j])).collect();
        go(&t, n_rows, 0, n_cols, &mut vec![false; n_rows])
    }
}

fn assert_permutation(columns: &[usize]) {
    let mut sorted = columns.to_vec();
    sorted.sort_unstable();
    assert!(sorted.iter().enumerate().all(|(i, j)| i == *j), "{columns:?}");
}

fn uniform(n: usize, seed: u64) -> Vec<f64> {
    let mut rng = Stream::new(seed, "costs").rng(0);
    (0..n * n).map(|_| rng.uniform()).collect()
}

fn single(costs: &[f64]) -> Vec<f32> {
    costs.iter().map(|c| *c as f32).collect()
}

proptest! {
    #[test]
    fn the_value_is_that_of_the_best_of_all(n in 1usize..6, m in 1usize..6, costs in prop::collection::vec(-3i32..4, 36), scale in 0.01f64..100.0) {
        let costs: Vec<f64> = costs[..n * m].iter().map(|c| f64::from(*c) * scale).collect();
        let best = brute_force(&costs, n, m);
        let found = minimize(&costs, m, None).unwrap();
        prop_assert!((found.certificate.value - best).abs() <= 1e-9 * (1.0 + best.abs()), "{} {best}", found.certificate.value);
        prop_assert!(found.certificate.holds(), "{:?}", found.certificate);
        prop_assert_eq!(found.columns.iter().filter(|j| **j != usize::MAX).count(), n.min(m));
        let found = minimize(&single(&costs), m, None).unwrap();
        prop_assert!((found.certificate.value - best).abs() <= 1e-5 * (scale + best.abs()));
    }

    #[test]
    fn any_start_leads_to_the_same_value(seed in 0u64..1000, noise in 0.0f64..2.0) {
        let n = 23;
        let costs = uniform(n, seed);
        let mut rng = Stream::new(seed, "start").rng(1);
        let duals: Vec<f64> = (0..n).map(|_| noise * rng.normal()).collect();
        let columns = rng.permutation(n);
        let cold = minimize(&costs, n, None).unwrap();
        let warm = minimize(&costs, n, Some(Warm { columns: &columns, duals: &duals })).unwrap();
        prop_assert!((cold.certificate.value - warm.certificate.value).abs() < 1e-12);
        assert_permutation(&warm.columns);
        prop_assert!(warm.certificate.relative < 1e-12 && cold.certificate.relative < 1e-12);
    }

    #[test]
    fn constants_of_rows_and_columns_change_nothing(seed in 0u64..1000) {
        let n = 17;
        let costs = uniform(n, seed);
        let mut rng = Stream::new(seed, "constants").rng(2);
        let (rows, columns): (Vec<f64>, Vec<f64>) = (0..n).map(|_| (10.0 * rng.normal(), 10.0 * rng.normal())).unzip();
        let shifted: Vec<f64> = (0..n * n).map(|k| costs[k] + rows[k / n] + columns[k % n]).collect();
        prop_assert_eq!(minimize(&costs, n, None).unwrap().columns, minimize(&shifted, n, None).unwrap().columns);
    }
}

#[test]
fn a_planted_permutation_is_found_and_kept() {
    let n = 300;
    let mut rng = Stream::new(4, "planted").rng(0);
    let planted = rng.permutation(n);
    let mut costs: Vec<f32> = (0..n * n).map(|_| rng.uniform() as f32).collect();
    planted.iter().enumerate().for_each(|(i, j)| costs[i * n + j] = -1.0);
    let cold = minimize(&costs, n, None).unwrap();
    assert_eq!(cold.columns, planted);
    assert_eq!((cold.certificate.value, cold.certificate.holds()), (-(n as f64), true));
    let warm = minimize(&costs, n, Some(Warm { columns: &cold.columns, duals: &cold.duals })).unwrap();
    assert_eq!((warm.columns, warm.searches), (planted, 0));
}

#[test]
fn costs_made_to_be_hard_are_solved() {
    let n = 120;
    let product: Vec<f64> = (0..n * n).map(|k| ((k / n + 1) * (k % n + 1)) as f64).collect();
    let geometric: Vec<f64> =
        (0..n * n).map(|k| 2f64.powi(-((k / n) as i32)) * 3f64.powi(-((k % n) as i32 % 30))).collect();
    let equal = vec![7.0; n * n];
    let ties: Vec<f64> = uniform(n, 1).iter().map(|c| (c * 3.0).floor()).collect();
    // A third of the rows and of the columns at no cost, and costs without a mean.
    let dead = |k: usize| (k / n).is_multiple_of(3) || (k % n).is_multiple_of(3);
    let dead: Vec<f64> = uniform(n, 2).iter().enumerate().map(|(k, c)| if dead(k) { 0.0 } else { c - 0.5 }).collect();
    let heavy: Vec<f64> = uniform(n, 3).iter().map(|c| (std::f64::consts::PI * (c - 0.5)).tan()).collect();
    for costs in [product, geometric, equal, ties, dead, heavy] {
        let double = minimize(&costs, n, None).unwrap();
        let float = minimize(&single(&costs), n, None).unwrap();
        for found in [&double, &float] {
            assert_permutation(&found.columns);
            assert!(found.certificate.holds(), "{:?}", found.certificate);
        }
        let (a, b) = (double.certificate.value, float.certificate.value);
        assert!((a - b).abs() <= 1e-5 * a.abs(), "{a} {b}");
    }
}

#[test]
fn sorting_is_an_assignment() {
    // With c_ij = −x_i y_j the best assignment gives the largest x the largest y.
    let n = 80;
    let mut rng = Stream::new(9, "sorting").rng(0);
    let (x, y): (Vec<f64>, Vec<f64>) = (0..n).map(|_| (rng.normal(), rng.normal())).unzip();
    let costs: Vec<f64> = (0..n * n).map(|k| -x[k / n] * y[k % n]).collect();
    let found = minimize(&costs, n, None).unwrap();
    let ranks = |v: &[f64]| {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| v[*a].total_cmp(&v[*b]));
        order
    };
    let (by_x, by_y) = (ranks(&x), ranks(&y));
    assert!(by_x.iter().zip(&by_y).all(|(i, j)| found.columns[*i] == *j));
}

/// Problems large enough for searches among candidates.
#[test]
fn candidates_do_not_change_the_optimum() {
    let n = 800;
    let mut rng = Stream::new(5, "candidates").rng(0);
    let points: Vec<[f64; 2]> = (0..2 * n).map(|_| [rng.normal(), rng.normal()]).collect();
    let distance = |i: usize, j: usize| (points[i][0] - points[n + j][0]).hypot(points[i][1] - points[n + j][1]);
    let of = |cost: &dyn Fn(usize, usize) -> f64| -> Vec<f64> { (0..n * n).map(|k| cost(k / n, k % n)).collect() };
    let noise = uniform(n, 6);
    let plane = of(&distance);
    // Three quarters of the rows want the same half of the columns.
    let crowded = of(&|i, j| noise[i * n + j] - if i < 600 && j < 400 { 2.0 } else { 0.0 });
    let ties = of(&|i, j| (noise[i * n + j] * 50.0).floor());
    let low_rank = of(&|i, j| -points[i][0] * points[n + j][0] - points[i][1] * points[n + j][1]);
    // The whole matrix alone, as for smaller problems: a rectangular problem is never searched among candidates, and here one
    // column more is of no use to anyone.
    let wider =
        |costs: &[f64]| -> Vec<f64> { costs.chunks(n).flat_map(|row| row.iter().copied().chain([1e3])).collect() };
    for costs in [plane, crowded, ties, low_rank] {
        let expected = minimize(&wider(&costs), n + 1, None).unwrap().certificate.value;
        let double = minimize(&costs, n, None).unwrap();
        let float = minimize(&single(&costs), n, None).unwrap();
        for found in [&double, &float] {
            assert_permutation(&found.columns);
            assert!(found.certificate.holds(), "{:?}", found.certificate);
            let value: f64 = found.columns.iter().enumerate().map(|(i, j)| costs[i * n + j]).sum();
            assert!((value - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{value} {expected}");
        }
        assert!(double.certificate.relative < 1e-11, "{:?}", double.certificate);
        let start = Warm { columns: &double.columns, duals: &double.duals };
        assert_eq!(minimize(&costs, n, Some(start)).unwrap().columns, double.columns, "nothing is left to do");
    }
}

#[test]
fn small_and_bad_inputs() {
    assert!(minimize::<f64>(&[], 0, None).unwrap().columns.is_empty());
    assert_eq!(minimize(&[5.0f32], 1, None).unwrap().columns, [0]);
    assert_eq!(minimize(&[5.0, 1.0, 3.0], 3, None).unwrap().columns, [1]);
    let none = usize::MAX;
    assert_eq!(minimize(&[5.0, 1.0, 3.0], 1, None).unwrap().columns, [none, 0, none]);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = minimize(&[0.0, 0.0, 0.0, bad], 2, None).unwrap_err();
        assert_eq!(error, LapError::NonFinite { row: 1, column: 1 });
    }
}

#[test]
fn costs_near_the_largest_number_are_solved() {
    let n = 40;
    for big in [1e30, 3e38] {
        let costs: Vec<f32> = uniform(n, 3).iter().map(|c| (big * (2.0 * c - 1.0)) as f32).collect();
        let found = minimize(&costs, n, None).unwrap();
        assert_permutation(&found.columns);
        assert!(found.certificate.holds(), "{big}: {:?}", found.certificate);
    }
    let costs: Vec<f64> = uniform(n, 3).iter().map(|c| 1.7e308 * (2.0 * c - 1.0)).collect();
    assert_permutation(&minimize(&costs, n, None).unwrap().columns);
}

#[test]
fn single_precision_is_finished_in_double() {
    // Costs whose differences vanish beside a constant of single precision's size.
    let n = 60;
    let costs: Vec<f32> = uniform(n, 3).iter().map(|c| (1000.0 + c) as f32).collect();
    let exact: Vec<f64> = costs.iter().map(|c| f64::from(*c)).collect();
    let (float, double) = (minimize(&costs, n, None).unwrap(), minimize(&exact, n, None).unwrap());
    assert!(float.certificate.holds() && double.certificate.relative < 1e-12);
    assert!((float.certificate.value / double.certificate.value - 1.0).abs() < 1e-6);
}

#[test]
fn threads_do_not_change_the_assignment() {
    let n = 700;
    let costs = single(&uniform(n, 8));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let cold = minimize(&costs, n, None).unwrap();
            let moved: Vec<f32> = costs.iter().zip(uniform(n, 9)).map(|(c, e)| c + 0.01 * e as f32).collect();
            let warm = minimize(&moved, n, Some(Warm { columns: &cold.columns, duals: &cold.duals })).unwrap();
            (cold, warm)
        })
    };
    assert_eq!(run(1), run(3));
}
