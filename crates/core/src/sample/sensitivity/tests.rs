use proptest::prelude::*;
use subspan_linalg::{par_gram, par_row_norms_sq, whiten};

use super::*;
use crate::draw::Rng;
use crate::sample::lift::Lift;

const POWERS: [f64; 8] = [1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0];

fn rng(seed: u64) -> Rng {
    Stream::new(seed, "sensitivity tests").rng(0)
}

fn gaussian(n: usize, d: usize, seed: u64) -> Vec<f64> {
    let mut rng = rng(seed);
    (0..n * d).map(|_| rng.normal()).collect()
}

/// Rows whose lengths have no mean.
fn heavy(n: usize, d: usize, seed: u64) -> Vec<f64> {
    let mut rng = rng(seed);
    (0..n)
        .flat_map(|_| {
            let length = rng.uniform().recip();
            (0..d).map(|_| length * rng.normal()).collect::<Vec<_>>()
        })
        .collect()
}

/// Powers of nodes in [-1, 1].
fn vandermonde(n: usize, d: usize) -> Vec<f64> {
    (0..n * d).map(|k| (2.0 * (k / d) as f64 / (n - 1) as f64 - 1.0).powi((k % d) as i32)).collect()
}

fn uppers(bounds: &[Bounds]) -> Vec<f64> {
    bounds.iter().map(|b| b.upper).collect()
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance * e.abs(), "{i}: {f} instead of {e}");
    }
}

/// Lewis weights by the damped fixed-point iteration.
fn lewis(rows: &[f64], d: usize, p: f64) -> Vec<f64> {
    let mut w = vec![d as f64 / (rows.len() / d) as f64; rows.len() / d];
    for _ in 0..60 {
        let scaled: Vec<f64> =
            rows.chunks(d).zip(&w).flat_map(|(a, w)| a.iter().map(|a| a * w.powf(0.5 - 1.0 / p))).collect();
        let f = whiten(&par_gram(&scaled, d), w.len() as u64).unwrap();
        let v = par_row_norms_sq(rows, &f.factor, f.upper);
        let theta = 4.0 / (p + 2.0);
        w.iter_mut().zip(v).for_each(|(w, v)| *w = w.powf(1.0 - theta) * v.powf(p / 2.0 * theta));
    }
    w
}

#[test]
fn closed_forms() {
    for p in POWERS {
        // A single non-zero row sees everything.
        let one = sensitivities(&[0.0, 0.0, 3.0, -1.0, 0.0, 0.0], 2, p).unwrap();
        assert_close(&uppers(&one), &[0.0, 1.0, 0.0], 1e-12);

        // Rank one: every x sees the same shares.
        let sizes = [1.0f64, -2.0, 0.5, 4.0];
        let rows: Vec<f64> = sizes.iter().flat_map(|s| [*s, -3.0 * s, 2.0 * s]).collect();
        let total: f64 = sizes.iter().map(|s| s.abs().powf(p)).sum();
        let shares: Vec<f64> = sizes.iter().map(|s| s.abs().powf(p) / total).collect();
        assert_close(&uppers(&sensitivities(&rows, 3, p).unwrap()), &shares, 2e-6);

        // e_j repeated k times.
        let k = 5;
        let repeated: Vec<f64> = (0..3 * k * 3).map(|i| if i / 3 / k == i % 3 { 1.0 } else { 0.0 }).collect();
        assert_close(&uppers(&sensitivities(&repeated, 3, p).unwrap()), &vec![1.0 / k as f64; 3 * k], 2e-6);
    }
}

#[test]
fn squares_give_leverage() {
    let rows = heavy(50, 4, 1);
    let f = whiten(&par_gram(&rows, 4), 50).unwrap();
    let leverage = par_row_norms_sq(&rows, &f.factor, f.upper);
    assert_close(&uppers(&sensitivities(&rows, 4, 2.0).unwrap()), &leverage, 1e-10);
}

#[test]
fn the_bounds_meet() {
    for rows in [gaussian(80, 5, 2), heavy(80, 5, 3), vandermonde(80, 5)] {
        for p in POWERS {
            for (i, b) in sensitivities(&rows, 5, p).unwrap().iter().enumerate() {
                assert!(b.lower <= b.upper && b.upper <= 1.0, "p = {p}, row {i}: {b:?}");
                assert!(b.upper / b.lower - 1.0 <= 1e-6, "p = {p}, row {i}: {b:?}");
            }
        }
    }
    // Close to one the iteration slows down; the bounds stay certified.
    for p in [1.001, 1.02] {
        let bounds = sensitivities(&heavy(60, 5, 4), 5, p).unwrap();
        assert!(bounds.iter().all(|b| b.lower <= b.upper && b.upper / b.lower - 1.0 <= 1e-2), "p = {p}");
    }
}

#[test]
fn in_two_dimensions_a_sweep_over_all_directions_finds_the_same() {
    let rows = heavy(30, 2, 5);
    for p in POWERS {
        let bounds = sensitivities(&rows, 2, p).unwrap();
        let mut best = [0.0f64; 30];
        for step in 0..200_000 {
            let (sin, cos) = (std::f64::consts::PI * step as f64 / 200_000.0).sin_cos();
            let shares: Vec<f64> = rows.chunks(2).map(|a| (a[0] * cos + a[1] * sin).abs().powf(p)).collect();
            let total: f64 = shares.iter().sum();
            best.iter_mut().zip(&shares).for_each(|(b, s)| *b = b.max(s / total));
        }
        for (i, (b, best)) in bounds.iter().zip(best).enumerate() {
            assert!(best <= b.upper * (1.0 + 1e-12), "p = {p}, row {i}: {best} above {b:?}");
            assert!(best >= b.lower * (1.0 - 1e-3), "p = {p}, row {i}: {best} far below {b:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_direction_exceeds_the_upper_bound(seed in 0u64..10_000, p in 1.0..9.0f64, tolerance in 1e-6..1.0f64) {
        let (n, d) = (25, 3);
        let rows = heavy(n, d, seed);
        let weights: Vec<f64> = gaussian(n, 1, seed ^ 1).iter().map(|z| z.exp()).collect();
        let solver = SensitivitySolver::new(&rows, d, Some(&weights), p).unwrap().with_tolerance(tolerance);
        let x = gaussian(40, d, seed ^ 2);
        for row in rows.chunks(d) {
            let bounds = solver.bounds(row).unwrap();
            prop_assert!(bounds.lower <= bounds.upper);
            for x in x.chunks(d) {
                let total: f64 = rows.chunks(d).zip(&weights).map(|(a, u)| u * dot(a, x).abs().powf(p)).sum();
                let ratio = dot(row, x).abs().powf(p) / total;
                prop_assert!(ratio.min(1.0) <= bounds.upper * (1.0 + 1e-10), "{} above {:?}", ratio, bounds);
            }
        }
    }

    #[test]
    fn a_change_of_basis_changes_nothing(seed in 0u64..10_000, p in 1.0..6.0f64) {
        let (n, d) = (30, 3);
        let rows = gaussian(n, d, seed);
        let basis = Mat::from_vec(d, d, gaussian(d, d, seed ^ 7));
        let scales = Mat::from_fn(d, d, |i, j| if i == j { 1000f64.powi(i as i32) } else { 0.0 });
        let moved = Mat::from_vec(n, d, rows.clone()).mul(&basis.mul(&scales));
        let solve = |rows: &[f64]| {
            let solver = SensitivitySolver::new(rows, d, None, p).unwrap().with_tolerance(1e-6);
            solver.par_bounds(rows, &Silent).unwrap()
        };
        for (a, b) in solve(&rows).iter().zip(&solve(moved.as_slice())) {
            prop_assert!(a.lower <= b.upper * (1.0 + 1e-8) && b.lower <= a.upper * (1.0 + 1e-8));
        }
    }
}

#[test]
fn splitting_a_row_divides_its_sensitivity_and_weights_are_multiplicities() {
    let (n, d, k) = (20, 3, 5);
    let rows = heavy(n, d, 8);
    for p in POWERS {
        let whole = sensitivities(&rows, d, p).unwrap();
        let part: Vec<f64> = rows[..d].iter().map(|a| a * (k as f64).powf(-1.0 / p)).collect();
        let mut split = rows.clone();
        split.splice(..d, part.repeat(k));
        let parts = sensitivities(&split, d, p).unwrap();
        let expected: Vec<f64> = (0..k).map(|_| whole[0].upper / k as f64).chain(uppers(&whole[1..])).collect();
        assert_close(&uppers(&parts), &expected, 3e-6);

        // The same table as distinct rows with a weight.
        let mut distinct = rows.clone();
        distinct.splice(..d, part);
        let weights: Vec<f64> = (0..n).map(|i| if i == 0 { k as f64 } else { 1.0 }).collect();
        let solver = SensitivitySolver::new(&distinct, d, Some(&weights), p).unwrap();
        assert_close(&uppers(&solver.par_bounds(&distinct, &Silent).unwrap()), &expected[k - 1..], 3e-6);
    }
}

#[test]
fn rank_deficient_tables_are_solved_in_their_span() {
    let (n, d) = (40, 3);
    let plane = gaussian(n, 2, 9);
    let rows: Vec<f64> = plane.chunks(2).flat_map(|a| [a[0], a[1], a[0] - 2.0 * a[1]]).collect();
    for p in POWERS {
        let full = sensitivities(&plane, 2, p).unwrap();
        let deficient = sensitivities(&rows, d, p).unwrap();
        assert_close(&uppers(&deficient), &uppers(&full), 3e-6);
        let solver = SensitivitySolver::new(&rows, d, None, p).unwrap();
        let outside = solver.bounds(&[0.0, 0.0, 1.0]).unwrap();
        assert_eq!((outside.lower, outside.upper), (1.0, 1.0));
        let zero = solver.bounds(&[0.0; 3]).unwrap();
        assert_eq!((zero.lower, zero.upper), (0.0, 0.0));
    }
    // Off the plane by 1e-8 of its length is off the plane.
    let solver = SensitivitySolver::new(&rows, d, None, 1.5).unwrap();
    assert_eq!(solver.bounds(&[1.0, 1.0, -1.0 + 1e-8]).unwrap().lower, 1.0);
    assert!(solver.bounds(&[1.0, 1.0, -1.0]).unwrap().upper < 1.0);
    // A column of zeros in the coreset, but not in the row.
    let solver = SensitivitySolver::new(&[1.0, 0.0, 2.0, 0.0], 2, None, 1.0).unwrap();
    assert_eq!(solver.bounds(&[0.0, 1e-30]).unwrap().upper, 1.0);
    assert_close(&[solver.bounds(&[1.0, 0.0]).unwrap().upper], &[1.0 / 3.0], 2e-6);
}

#[test]
fn extreme_scales_do_not_matter() {
    let rows = gaussian(30, 3, 10);
    let scales = [1e-290, 1.0, 1e290];
    let scaled: Vec<f64> =
        rows.chunks(3).flat_map(|a| [a[0] * scales[0], a[1] * scales[1], a[2] * scales[2]]).collect();
    for p in POWERS {
        let (plain, extreme) = (sensitivities(&rows, 3, p).unwrap(), sensitivities(&scaled, 3, p).unwrap());
        assert_close(&uppers(&extreme), &uppers(&plain), 3e-6);
    }
}

#[test]
fn nearly_collinear_columns_are_whitened_twice() {
    let (n, d) = (60, 3);
    let rows = gaussian(n, d, 11);
    let mixed: Vec<f64> = rows.chunks(d).flat_map(|a| [a[0], a[0] + 1e-8 * a[1], a[2]]).collect();
    for p in [1.0, 1.5, 4.0] {
        assert_close(
            &uppers(&sensitivities(&mixed, d, p).unwrap()),
            &uppers(&sensitivities(&rows, d, p).unwrap()),
            1e-5,
        );
    }
}

#[test]
fn lewis_weights_and_sensitivities_bound_each_other() {
    let d = 4;
    for rows in [gaussian(60, d, 12), heavy(60, d, 13), vandermonde(60, d)] {
        for p in [1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0] {
            let w = lewis(&rows, d, p);
            let factor = (d as f64).powf((1.0 - p / 2.0f64).abs());
            let mut total = 0.0;
            for (i, (b, w)) in sensitivities(&rows, d, p).unwrap().iter().zip(&w).enumerate() {
                let (low, high) = if p <= 2.0 { (w / factor, *w) } else { (*w, w * factor) };
                assert!(b.upper >= low * (1.0 - 1e-4), "p = {p}, row {i}: {b:?} below {low}");
                assert!(b.lower <= high * (1.0 + 1e-4), "p = {p}, row {i}: {b:?} above {high}");
                total += b.upper;
            }
            let (a, b) = (d as f64, (d as f64).powf(p / 2.0));
            assert!(total >= a.min(b) * (1.0 - 1e-4) && total <= a.max(b) * (1.0 + 1e-4), "p = {p}: S = {total}");
        }
    }
}

#[test]
fn leverage_of_the_lift_bounds_the_sensitivity() {
    // Chebyshev polynomials of degree below 6 at the Chebyshev nodes: S ≤ (d − 1)p/2 + 1 = 11.
    let (n, d, p) = (400, 6, 4.0);
    let rows: Vec<f64> =
        (0..n * d).map(|k| ((k % d) as f64 * std::f64::consts::PI * ((k / d) as f64 + 0.5) / n as f64).cos()).collect();
    for (rows, rank, looseness) in [(rows, 11, 2.2), (heavy(n, d, 16), 126, f64::INFINITY)] {
        let lift = Lift::new(d, p).unwrap();
        let mut lifted = vec![0.0; n * lift.dim()];
        lift.lift_rows(&rows, &mut lifted);
        let f = whiten(&par_gram(&lifted, lift.dim()), n as u64).unwrap();
        let leverage = par_row_norms_sq(&lifted, &f.factor, f.upper);
        let bounds = sensitivities(&rows, d, p).unwrap();
        for (b, l) in bounds.iter().zip(&leverage) {
            assert!(b.lower <= l * (1.0 + 1e-6) && *l < looseness * b.upper, "{b:?} against {l}");
        }
        let total: f64 = bounds.iter().map(|b| b.upper).sum();
        assert!(f.rank <= rank && total <= f.rank as f64, "S = {total}, lifted rank {}", f.rank);
    }
}

#[test]
fn the_total_is_estimated_within_its_standard_error() {
    let (n, d) = (300, 4);
    let rows = heavy(n, d, 14);
    for p in [1.0, 1.5, 4.0] {
        let solver = SensitivitySolver::new(&rows, d, None, p).unwrap().with_tolerance(1e-3);
        let exact: f64 = solver.par_bounds(&rows, &Silent).unwrap().iter().map(|b| b.upper).sum();
        let w = lewis(&rows, d, p);
        let estimates: Vec<TotalSensitivity> = (0..20)
            .map(|seed| solver.estimate_total(&rows, None, &w, DEFAULT_TOTAL_DRAWS, seed, &Silent).unwrap())
            .collect();
        let mean = estimates.iter().map(|e| e.total).sum::<f64>() / 20.0;
        let spread = (estimates.iter().map(|e| e.standard_error.powi(2)).sum::<f64>() / 20.0).sqrt();
        assert!((mean - exact).abs() < 4.0 * spread / 20f64.sqrt(), "p = {p}: {mean} ± {spread} instead of {exact}");
        assert!(spread < 0.1 * exact);

        let all = solver.estimate_total(&rows, None, &w, n, 0, &Silent).unwrap();
        assert_close(&[all.total], &[exact], 1e-12);
        assert_eq!((all.standard_error, all.rows), (0.0, n));
        // A row that stands for two counts twice.
        let doubled = solver.estimate_total(&rows, Some(&vec![2.0; n]), &w, n, 0, &Silent).unwrap();
        assert_close(&[doubled.total], &[2.0 * exact], 1e-12);
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let rows = heavy(100, 4, 15);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| [1.0, 1.5, 3.0].map(|p| sensitivities(&rows, 4, p).unwrap()))
    };
    assert_eq!(on(1), on(2));
}

#[test]
fn bad_input_is_an_error() {
    let rows = [1.0, 2.0, 3.0, 4.0];
    for p in [0.5, f64::NAN, f64::INFINITY, -1.0] {
        assert!(matches!(SensitivitySolver::new(&rows, 2, None, p), Err(Error::Parameter { name: "p", .. })));
    }
    assert!(matches!(SensitivitySolver::new(&[], 2, None, 1.0), Err(Error::Empty { what: "rows" })));
    assert!(matches!(SensitivitySolver::new(&rows, 0, None, 1.0), Err(Error::Empty { what: "columns" })));
    assert!(matches!(SensitivitySolver::new(&rows, 3, None, 1.0), Err(Error::Shape { .. })));
    assert!(matches!(SensitivitySolver::new(&[0.0; 4], 2, None, 1.0), Err(Error::AllZero)));
    assert!(matches!(SensitivitySolver::new(&rows, 2, Some(&[0.0; 2]), 1.0), Err(Error::AllZero)));
    assert!(matches!(SensitivitySolver::new(&rows, 2, Some(&[1.0]), 1.0), Err(Error::Shape { .. })));
    assert!(matches!(SensitivitySolver::new(&rows, 2, Some(&[1.0, -1.0]), 1.0), Err(Error::Parameter { .. })));
    let solver = SensitivitySolver::new(&rows, 2, None, 1.0).unwrap();
    assert!(matches!(solver.bounds(&[1.0]), Err(Error::Shape { .. })));
    assert!(matches!(solver.bounds(&[1.0, f64::NAN]), Err(Error::NonFinite { column: 1, .. })));
    assert!(solver.estimate_total(&rows, None, &[0.0, 0.0], 64, 0, &Silent).is_err());
    assert!(solver.estimate_total(&rows, None, &[1.0, 1.0], 1, 0, &Silent).is_err());
}

#[test]
fn bounds_shared_by_a_block_hold_and_cost_no_more_than_the_block() {
    let (n, d, block) = (600, 4, 12);
    for (rows, seed) in [(heavy(n, d, 7), 1), (gaussian(n, d, 8), 2)] {
        let solver = SensitivitySolver::new(&rows, d, None, 1.0).unwrap();
        let exact = solver.par_bounds(&rows, &Silent).unwrap();
        let shared = solver.block_bounds(&rows, block, 1e-6, seed, &Silent).unwrap();
        assert!(exact.iter().zip(&shared).all(|(e, s)| *s >= e.lower));
        // Rows with one bound are a block.
        let mut blocks: std::collections::BTreeMap<u64, (f64, usize)> = std::collections::BTreeMap::new();
        for (e, s) in exact.iter().zip(&shared) {
            let entry = blocks.entry(s.to_bits()).or_default();
            *entry = (entry.0 + e.upper, entry.1 + 1);
        }
        for (bits, (total, rows)) in blocks {
            assert!(f64::from_bits(bits) <= total * (1.0 + 1e-6), "{rows} rows");
        }
        // Far fewer solves, and together not far above: 600 log2(600 / 1e-6) / 12 solves of sums of twelve rows.
        assert!(shared.iter().sum::<f64>() < 12.0 * exact.iter().map(|e| e.upper).sum::<f64>());
        assert_eq!(shared, solver.block_bounds(&rows, block, 1e-6, seed, &Silent).unwrap());
    }
}

#[test]
fn blocks_of_one_row_are_the_rows_themselves() {
    let rows = heavy(50, 3, 2);
    let solver = SensitivitySolver::new(&rows, 3, None, 1.5).unwrap();
    let shared = solver.block_bounds(&rows, 1, 0.5, 0, &Silent).unwrap();
    assert_close(&shared, &uppers(&solver.par_bounds(&rows, &Silent).unwrap()), 1e-9);
    assert!(solver.block_bounds(&rows, 0, 0.5, 0, &Silent).is_err());
    assert!(solver.block_bounds(&rows, 5, 1.0, 0, &Silent).is_err());
}
