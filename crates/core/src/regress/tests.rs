//! Laws of the regressions: closed forms, optimality by dual certificates, invariances, exactness, malformed parameters.
//! Long because every loss and every mode has its laws here.

use super::*;
use crate::draw::Stream;
use crate::observe::Silent;
use crate::rows::DenseRows;

/// Rows `[a, b]` with `b = Σ a + noise / u`, heavy-tailed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Gaussian,
    /// Row scales `|t_1.5|`.
    Heavy,
    /// The last four features live on eight rows only.
    Rare,
}

fn data(kind: Kind, n: usize, d: usize, seed: u64) -> Vec<f64> {
    let mut rng = Stream::new(seed, "regression data").rng(0);
    let mut values = Vec::with_capacity(n * (d + 1));
    for i in 0..n {
        let scale = if kind == Kind::Heavy { rng.uniform().powf(-1.0 / 1.5) } else { 1.0 };
        let rare = kind == Kind::Rare && i % (n / 8) != n / 16;
        let from = values.len();
        for j in 0..d {
            let a = scale * rng.normal();
            values.push(if rare && j + 4 >= d { 0.0 } else { a });
        }
        let fit: f64 = values[from..].iter().enumerate().map(|(j, a)| a * (1.0 + 0.1 * j as f64)).sum();
        values.push(fit + rng.normal() / (0.2 + rng.uniform()));
    }
    values
}

fn config(loss: Loss, mode: Mode) -> Config {
    Config { loss, mode, intercept: false, certify: false }
}

fn fit(values: &[f64], n_cols: usize, config: &Config) -> Fit {
    run(&DenseRows::new(values, n_cols).unwrap(), config, 0, &Silent).unwrap().fits.swap_remove(0)
}

const SMALL: exact::Plan = exact::Plan { pilot_rows: 2000, band: 0.02, full_bytes: 1 << 30 };

/// Every loss, with targets it can take.
fn losses() -> Vec<Loss> {
    vec![
        Loss::L1,
        Loss::Quantile { levels: vec![0.1, 0.9] },
        Loss::L2,
        Loss::Lp { p: 1.0 },
        Loss::Lp { p: 1.2 },
        Loss::Lp { p: 1.5 },
        Loss::Lp { p: 4.0 },
        Loss::Lp { p: 11.0 },
        Loss::Huber { delta: 0.7 },
        Loss::Logistic { l2: 0.0 },
        Loss::Logistic { l2: 3.0 },
    ]
}

/// The data with classes for targets, where the loss wants them.
fn targets(loss: &Loss, mut values: Vec<f64>, n_cols: usize, seed: u64) -> Vec<f64> {
    if let Loss::Logistic { .. } = loss {
        let noise = Stream::new(seed, "classes");
        for (i, row) in values.chunks_exact_mut(n_cols).enumerate() {
            let u = noise.uniform(i as u64);
            row[n_cols - 1] = if row[0] + (u / (1.0 - u)).ln() > 0.0 { 1.0 } else { 0.0 };
        }
    }
    values
}

fn objective(values: &[f64], n_cols: usize, loss: &Loss, fit: &Fit, coefficients: &[f64]) -> f64 {
    let penalty = match loss {
        Loss::Logistic { l2 } => l2 / 2.0 * coefficients.iter().map(|c| c * c).sum::<f64>(),
        _ => 0.0,
    };
    let level = fit.quantile.unwrap_or(0.5);
    let losses = values.chunks_exact(n_cols).map(|row| {
        let eta = row.iter().zip(coefficients).map(|(a, x)| a * x).sum::<f64>() + fit.intercept;
        evaluate::row_loss(loss, level, eta, row[n_cols - 1])
    });
    losses.sum::<f64>() + penalty
}

#[test]
fn one_constant_column_gives_the_median_the_quantiles_the_mean_and_the_midrange() {
    let b = [5.0, -1.0, 3.0, 8.0, 2.0];
    let values: Vec<f64> = b.iter().flat_map(|b| [1.0, *b]).collect();
    let solve = |loss| fit(&values, 2, &config(loss, Mode::Full));
    let median = solve(Loss::L1);
    assert!((median.coefficients[0] - 3.0).abs() < 1e-8 && (median.objective - 12.0).abs() < 1e-9);
    assert!((solve(Loss::L2).coefficients[0] - 3.4).abs() < 1e-12);
    // Four tenths of five rows: any point between the second and the third order statistic.
    let q = solve(Loss::Quantile { levels: vec![0.4] }).coefficients[0];
    assert!((2.0 - 1e-8..=3.0 + 1e-8).contains(&q));
    assert!((solve(Loss::Quantile { levels: vec![0.9] }).coefficients[0] - 8.0).abs() < 1e-7);
    assert!((solve(Loss::Lp { p: 300.0 }).coefficients[0] - 3.5).abs() < 0.05);
    // Huber: rows beyond ±2 of the centre c pull with force 2: -2 + 2 + 2 + (2 - c) + (3 - c) = 0 has c = 3.5 - 0.5.
    let huber = solve(Loss::Huber { delta: 2.0 }).coefficients[0];
    let force: f64 = b.iter().map(|b| (b - huber).clamp(-2.0, 2.0)).sum();
    assert!(force.abs() < 1e-9, "{force}");
}

#[test]
fn a_table_of_targets_alone_is_fitted_by_its_intercept() {
    let values = [4.0, 1.0, 9.0];
    let c = Config { intercept: true, ..config(Loss::L1, Mode::Full) };
    let found = fit(&values, 1, &c);
    assert!(found.coefficients.is_empty() && (found.intercept - 4.0).abs() < 1e-8);
    let alone = run(&DenseRows::new(&values, 1).unwrap(), &config(Loss::L1, Mode::Full), 0, &Silent);
    assert!(matches!(alone, Err(Error::Empty { .. })));
}

#[test]
fn logistic_regression_on_a_constant_gives_the_log_odds() {
    let values: Vec<f64> = (0..10).flat_map(|i| [1.0, f64::from(i < 3)]).collect();
    let found = fit(&values, 2, &config(Loss::Logistic { l2: 0.0 }, Mode::Full));
    assert!((found.coefficients[0] - (3.0f64 / 7.0).ln()).abs() < 1e-6);
    let signed: Vec<f64> = values.chunks_exact(2).flat_map(|r| [r[0], 2.0 * r[1] - 1.0]).collect();
    assert_eq!(found, fit(&signed, 2, &config(Loss::Logistic { l2: 0.0 }, Mode::Full)));
}

#[test]
fn every_full_fit_proves_its_optimality_and_no_neighbour_is_better() {
    for kind in [Kind::Gaussian, Kind::Heavy] {
        for loss in losses() {
            for intercept in [false, true] {
                let d = 4;
                let values = targets(&loss, data(kind, 400, d, 3), d + 1, 3);
                let c = Config { intercept, ..config(loss.clone(), Mode::Full) };
                let outcome = run(&DenseRows::new(&values, d + 1).unwrap(), &c, 0, &Silent).unwrap();
                for found in &outcome.fits {
                    let gap = found.relative_gap.unwrap();
                    assert!((0.0..1e-9).contains(&gap), "{kind:?} {loss:?} {gap}");
                    let at = objective(&values, d + 1, &loss, found, &found.coefficients);
                    let mut rng = Stream::new(9, "neighbours").rng(0);
                    for size in [1e-1, 1e-3, 1e-6] {
                        let near: Vec<f64> = found.coefficients.iter().map(|x| x + size * rng.normal()).collect();
                        assert!(objective(&values, d + 1, &loss, found, &near) >= at * (1.0 - 1e-9), "{loss:?} {size}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_sampled_fit_is_near_the_optimum_and_its_gap_covers_the_truth() {
    let (n, d) = (6000, 6);
    for kind in [Kind::Gaussian, Kind::Heavy, Kind::Rare] {
        for loss in losses() {
            if kind == Kind::Rare && matches!(loss, Loss::Logistic { l2: 0.0 }) {
                continue;
            }
            let values = targets(&loss, data(kind, n, d, 5), d + 1, 5);
            let source = DenseRows::new(&values, d + 1).unwrap();
            let c = Config { intercept: true, certify: true, ..config(loss.clone(), Mode::Full) };
            let best = run(&source, &c, 0, &Silent).unwrap();
            let found = run(&source, &Config { mode: Mode::Rows(1200), ..c.clone() }, 4, &Silent).unwrap();
            assert!(found.rows_used < 1500 && found.rows_in == n as u64);
            let penalty = |f: &Fit| match loss {
                Loss::Logistic { l2 } => l2 / 2.0 * f.coefficients.iter().map(|c| c * c).sum::<f64>(),
                _ => 0.0,
            };
            for (best, found) in best.fits.iter().zip(&found.fits) {
                let truth = (found.objective + penalty(found)) / (best.objective + penalty(best)) - 1.0;
                assert!(truth > -1e-9);
                if matches!(loss, Loss::Lp { p } if p > 2.0) {
                    assert!(truth < 1.0, "{kind:?} {loss:?} {truth}");
                } else {
                    assert!(truth < 0.03, "{kind:?} {loss:?} {truth}");
                }
                if let Some(gap) = found.relative_gap {
                    assert!(gap >= truth - 1e-9, "{kind:?} {loss:?}: proved {gap}, true {truth}");
                }
            }
        }
    }
}

#[test]
fn the_exact_mode_equals_the_full_solve_with_a_proof() {
    let (n, d) = (20_000, 8);
    for kind in [Kind::Gaussian, Kind::Heavy, Kind::Rare] {
        for loss in losses() {
            if kind == Kind::Rare && matches!(loss, Loss::Logistic { l2: 0.0 }) {
                continue;
            }
            let values = targets(&loss, data(kind, n, d, 7), d + 1, 7);
            let source = DenseRows::new(&values, d + 1).unwrap();
            let intercept = kind != Kind::Heavy;
            let c = Config { intercept, ..config(loss.clone(), Mode::Full) };
            let full = run(&source, &c, 0, &Silent).unwrap_or_else(|e| panic!("{kind:?} {loss:?}: {e}"));
            let c = Config { intercept, ..config(loss.clone(), Mode::Exact) };
            let exact = run_with(&source, &c, 2, &Silent, &SMALL).unwrap();
            for (full, exact) in full.fits.iter().zip(&exact.fits) {
                assert!(exact.relative_gap.unwrap() <= 1e-8);
                let off = (exact.objective / full.objective - 1.0).abs();
                let piecewise = solve::pinball_levels(&loss).is_some();
                if piecewise {
                    assert!(off < 1e-10, "{kind:?} {loss:?} {off}");
                } else if !matches!(loss, Loss::Logistic { l2 } if l2 > 0.0) {
                    assert!(off < 1.1e-8, "{kind:?} {loss:?} {off}");
                }
            }
            if solve::pinball_levels(&loss).is_some() {
                assert!(exact.rows_used < n as u64 / 2, "{kind:?}: the rounds gave up");
            }
        }
    }
}

#[test]
fn four_columns_on_eight_rows_never_stop_the_exact_mode() {
    let (n, d) = (20_000, 20);
    for seed in 0..20 {
        let values = data(Kind::Rare, n, d, 100 + seed);
        let source = DenseRows::new(&values, d + 1).unwrap();
        let outcome = run_with(&source, &config(Loss::L1, Mode::Exact), seed, &Silent, &SMALL).unwrap();
        assert!(outcome.fits[0].relative_gap.unwrap() <= 1e-8);
        assert!(outcome.rows_used < n as u64 / 2);
    }
}

#[test]
fn any_split_bounds_the_optimum_from_below() {
    let (n, d) = (500, 3);
    for seed in 0..40 {
        let values = data(if seed % 2 == 0 { Kind::Gaussian } else { Kind::Heavy }, n, d, seed);
        let source = DenseRows::new(&values, d + 1).unwrap();
        let level = 0.1 + 0.02 * seed as f64;
        let best = fit(&values, d + 1, &config(Loss::Quantile { levels: vec![level] }, Mode::Full)).objective;
        let mut rng = Stream::new(seed, "split").rng(0);
        let shape = Shape::default();
        let table = StreamTable { source: &source, shape: &shape, observer: &Silent };
        let coefficients: Vec<f64> = (0..d).map(|_| 1.0 + rng.normal()).collect();
        let split = glob::Split { level, coefficients: coefficients.clone(), threshold: 2.0 * rng.uniform() };
        let spread = glob::Spread::new(&subspan_linalg::Mat::identity(d));
        let mut groups = glob::split(&table, &spread, &[split]).unwrap().swap_remove(0);
        // Also groups that no rule would make: some rows swap sides at random.
        for row in values.chunks_exact(d + 1).take(rng.below(50) as usize) {
            let r = row[d] - row[..d].iter().zip(&coefficients).map(|(a, x)| a * x).sum::<f64>();
            let in_mid = groups.mid.chunks_exact(d + 1).any(|m| m == row);
            if !in_mid {
                let side = usize::from(r >= 0.0);
                for (k, v) in row.iter().enumerate() {
                    groups.sums[side][k] -= v;
                    groups.sums[1 - side][k] += v;
                }
                groups.counts[side] -= 1;
                groups.counts[1 - side] += 1;
            }
        }
        let lower = groups.solve(level, 1e-10, &Silent).unwrap().lower;
        assert!(lower <= best * (1.0 + 1e-9) && groups.objective >= best * (1.0 - 1e-9));
    }
}

#[test]
fn smooth_bounds_hold_at_any_coefficients() {
    let (n, d) = (300, 3);
    for loss in losses().into_iter().filter(|l| solve::pinball_levels(l).is_none()) {
        for seed in 0..10 {
            let values = targets(&loss, data(Kind::Heavy, n, d, seed), d + 1, seed);
            let source = DenseRows::new(&values, d + 1).unwrap();
            let best = fit(&values, d + 1, &config(loss.clone(), Mode::Full));
            let optimum = objective(&values, d + 1, &loss, &best, &best.coefficients);
            let shape = Shape::default();
            let table = StreamTable { source: &source, shape: &shape, observer: &Silent };
            let mut rng = Stream::new(seed, "coefficients").rng(0);
            for size in [0.0, 1e-3, 0.1, 1.0, 10.0] {
                let x: Vec<f64> = best.coefficients.iter().map(|c| c + size * rng.normal()).collect();
                let found = evaluate::smooth_bound(&table, &loss, false, &x).unwrap();
                assert!(found.lower <= optimum * (1.0 + 1e-9), "{loss:?} {size}: {} > {optimum}", found.lower);
                assert!(found.objective >= optimum * (1.0 - 1e-9));
                if size <= 1e-3 {
                    assert!(found.relative_gap() < 0.01, "{loss:?} {size} {}", found.relative_gap());
                }
            }
        }
    }
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let (n, d) = (20_000, 5);
    for loss in losses() {
        let values = targets(&loss, data(Kind::Gaussian, n, d, 1), d + 1, 1);
        for mode in [Mode::Full, Mode::Rows(1000), Mode::Exact] {
            let c = Config { intercept: true, certify: true, ..config(loss.clone(), mode) };
            let with = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| run_with(&DenseRows::new(&values, d + 1).unwrap(), &c, 3, &Silent, &SMALL).unwrap())
            };
            assert_eq!(with(1), with(2), "{loss:?} {mode:?}");
        }
    }
}

#[test]
fn a_weight_is_a_number_of_copies() {
    let (n, d) = (200, 3);
    for loss in losses() {
        let values = targets(&loss, data(Kind::Gaussian, n, d, 2), d + 1, 2);
        let copies = |i: usize| 1 + i % 3;
        let repeated: Vec<f64> =
            values.chunks_exact(d + 1).enumerate().flat_map(|(i, row)| row.repeat(copies(i))).collect();
        let weights: Vec<f64> = (0..n).map(|i| copies(i) as f64).collect();
        let solve = |values: &[f64], weights: Option<&[f64]>| {
            let weights = weights.map(Cow::Borrowed);
            let design = Design::new(Cow::Borrowed(values), d + 1, weights, solve::basis(&loss), &Silent).unwrap();
            let when = Separation::Measure;
            solve::solve(&design, &loss, false, 1e-11, when, &mut Vec::new(), &Silent).unwrap().swap_remove(0)
        };
        let (a, b) = (solve(&values, Some(&weights)), solve(&repeated, None));
        assert!((a.objective / b.objective - 1.0).abs() < 1e-9, "{loss:?}");
        for (x, y) in a.coefficients.iter().zip(&b.coefficients) {
            assert!((x - y).abs() < 1e-4, "{loss:?} {x} {y}");
        }
    }
}

#[test]
fn column_scales_up_to_the_ends_of_the_range_only_scale_the_coefficients() {
    let (n, d) = (600, 3);
    let scales = [1e-150, 1e150, 1.0];
    for loss in losses().into_iter().filter(|l| !matches!(l, Loss::Logistic { l2 } if *l2 > 0.0)) {
        let values = targets(&loss, data(Kind::Gaussian, n, d, 4), d + 1, 4);
        let mut scaled = values.clone();
        for row in scaled.chunks_exact_mut(d + 1) {
            row.iter_mut().zip(scales).for_each(|(v, s)| *v *= s);
        }
        for mode in [Mode::Full, Mode::Exact] {
            let (a, b) =
                (fit(&values, d + 1, &config(loss.clone(), mode)), fit(&scaled, d + 1, &config(loss.clone(), mode)));
            assert!((a.objective / b.objective - 1.0).abs() < 1e-8, "{loss:?}");
            for ((x, y), s) in a.coefficients.iter().zip(&b.coefficients).zip(scales) {
                assert!((x - y * s).abs() < 1e-3, "{loss:?} {x} {}", y * s);
            }
        }
    }
}

#[test]
fn quantiles_of_one_column_rise_with_the_level() {
    let mut rng = Stream::new(8, "one column").rng(0);
    let values: Vec<f64> = (0..300).map(|_| rng.normal()).collect();
    let levels: Vec<f64> = (1..20).map(|k| k as f64 / 20.0).collect();
    let c = Config { intercept: true, ..config(Loss::Quantile { levels: levels.clone() }, Mode::Full) };
    let outcome = run(&DenseRows::new(&values, 1).unwrap(), &c, 0, &Silent).unwrap();
    assert_eq!(outcome.fits.iter().filter_map(|f| f.quantile).collect::<Vec<_>>(), levels);
    assert!(outcome.fits.windows(2).all(|w| w[0].intercept <= w[1].intercept + 1e-7));
    for f in &outcome.fits {
        let below = values.iter().filter(|b| **b < f.intercept - 1e-6).count() as f64 / 300.0;
        let up_to = values.iter().filter(|b| **b <= f.intercept + 1e-6).count() as f64 / 300.0;
        let level = f.quantile.unwrap();
        assert!(below <= level && level <= up_to, "{below} {level} {up_to}");
    }
}

#[test]
fn degenerate_tables_are_fitted() {
    let check = |values: &[f64], n_cols: usize, optimum: f64| {
        for loss in [Loss::L1, Loss::L2, Loss::Lp { p: 1.5 }, Loss::Lp { p: 12.0 }, Loss::Huber { delta: 1.0 }] {
            for mode in [Mode::Full, Mode::Exact, Mode::Rows(2)] {
                for intercept in [false, true] {
                    let c = Config { intercept, certify: true, ..config(loss.clone(), mode) };
                    let found = match run(&DenseRows::new(values, n_cols).unwrap(), &c, 0, &Silent) {
                        Ok(outcome) => outcome,
                        Err(e) => panic!("{loss:?} {mode:?} {intercept} {values:?}: {e}"),
                    };
                    let found = &found.fits[0];
                    assert!(found.objective.is_finite() && found.coefficients.iter().all(|x| x.is_finite()));
                    if optimum == 0.0 && mode != Mode::Rows(2) {
                        assert!(found.objective < 1e-9, "{loss:?} {mode:?} {values:?}: {}", found.objective);
                        assert_eq!(found.relative_gap, Some(0.0), "{loss:?} {mode:?} {values:?}");
                    }
                }
            }
        }
    };
    // One row; fewer rows than columns; a constant and a zero target; an exact fit.
    check(&[2.0, 3.0], 2, 0.0);
    check(&[1.0, 2.0, 3.0, 4.0, 0.5, -1.0, 2.0, 1.0], 4, 0.0);
    check(&[1.0, 7.0, 1.0, 7.0, 1.0, 7.0, 1.0, 7.0], 2, 0.0);
    check(&[1.0, 0.0, 2.0, 0.0, 3.0, 0.0], 2, 0.0);
    check(&[1.0, 3.0, 2.0, 6.0, 3.0, 9.0, 5.0, 15.0], 2, 0.0);
    // Equal columns; a column of zeros; nothing but zeros and targets.
    check(&[1.0, 1.0, 2.0, 3.0, 3.0, 1.0, 4.0, 4.0, 9.0, 7.0, 7.0, 0.0], 3, 1.0);
    check(&[1.0, 0.0, 2.0, 3.0, 0.0, 1.0, 4.0, 0.0, 9.0, 7.0, 0.0, 0.0], 3, 1.0);
    check(&[0.0, 2.0, 0.0, 1.0, 0.0, 9.0, 0.0, 0.0], 2, 1.0);
    check(&[0.0, 0.0, 0.0, 0.0], 2, 0.0);
}

#[test]
fn equal_columns_share_their_coefficient_and_are_reported() {
    let values: Vec<f64> = data(Kind::Gaussian, 100, 2, 1).chunks_exact(3).flat_map(|r| [r[0], r[0], r[2]]).collect();
    let c = config(Loss::L1, Mode::Full);
    let outcome = run(&DenseRows::new(&values, 3).unwrap(), &c, 0, &Silent).unwrap();
    assert!(outcome.warnings.iter().any(|w| w.contains("depend on each other")));
    let x = &outcome.fits[0].coefficients;
    assert!((x[0] - x[1]).abs() < 1e-6);
}

#[test]
fn least_squares_stand_a_condition_of_a_million() {
    let mut rng = Stream::new(6, "conditioned").rng(0);
    let (n, x) = (2000, [3.0, -2.0, 0.5]);
    let mut values = Vec::new();
    for _ in 0..n {
        let (u, v, w) = (rng.normal(), rng.normal(), rng.normal());
        let row = [u, u + 1e-6 * v, w];
        values.extend(row);
        values.push(row.iter().zip(x).map(|(a, x)| a * x).sum::<f64>());
    }
    let found = fit(&values, 4, &config(Loss::L2, Mode::Full));
    // Backward stable: an exact fit is found to rounding, its coefficients to the condition times that.
    let worst = values
        .chunks_exact(4)
        .map(|r| (r[3] - r[..3].iter().zip(&found.coefficients).map(|(a, x)| a * x).sum::<f64>()).abs())
        .fold(0.0, f64::max);
    assert!(worst < 1e-12, "{worst}");
    assert!(found.coefficients.iter().zip(x).all(|(a, b)| (a - b).abs() < 1e-8), "{:?}", found.coefficients);
}

#[test]
fn separable_classes_are_an_error_without_a_ridge() {
    // Quasi-separable: only the second column separates, and only where it is not zero.
    let mut values = targets(&Loss::Logistic { l2: 0.0 }, data(Kind::Gaussian, 9000, 2, 1), 3, 1);
    for (i, row) in values.chunks_exact_mut(3).enumerate() {
        row[1] = if i % 50 == 0 { 2.0 * row[2] - 1.0 } else { 0.0 };
    }
    let source = DenseRows::new(&values, 3).unwrap();
    for mode in [Mode::Full, Mode::Rows(900), Mode::Exact] {
        let found = run_with(&source, &config(Loss::Logistic { l2: 0.0 }, mode), 0, &Silent, &SMALL);
        assert!(matches!(found, Err(Error::Separable)), "{mode:?} {found:?}");
        let ridge = run_with(&source, &config(Loss::Logistic { l2: 1.0 }, mode), 0, &Silent, &SMALL).unwrap();
        assert!(ridge.fits[0].coefficients[1].is_finite());
    }
    let apart: Vec<f64> = (0..20).flat_map(|i| [f64::from(i) - 9.5, f64::from(i > 9)]).collect();
    let found = run(&DenseRows::new(&apart, 2).unwrap(), &config(Loss::Logistic { l2: 0.0 }, Mode::Full), 0, &Silent);
    assert!(matches!(found, Err(Error::Separable)));
}

#[test]
fn the_complexity_of_one_column_is_the_ratio_of_its_sides() {
    struct Listen(std::sync::Mutex<f64>);
    impl Observer for Listen {
        fn event(&self, event: crate::Event<'_>) {
            if let crate::Event::Metric { name: "mu", value } = event {
                *self.0.lock().unwrap() = value;
            }
        }
    }
    // y a = 6, 1, 2 on one side and −3 on the other: mu = 9/3.
    let values = [6.0, 1.0, -1.0, -1.0, 2.0, 1.0, -3.0, 1.0];
    let design = Design::new(Cow::Borrowed(&values[..]), 2, None, condition::Basis::Whitened, &Silent).unwrap();
    let heard = Listen(std::sync::Mutex::new(0.0));
    separable::check(&design, &mut Vec::new(), &heard).unwrap();
    assert!((*heard.0.lock().unwrap() - 3.0).abs() < 1e-6, "{}", heard.0.lock().unwrap());
}

#[test]
fn bad_parameters_and_targets_are_named() {
    let values = [1.0, 0.0, 1.0, 1.0, 1.0, 0.5];
    let message = |loss, mode| {
        run(&DenseRows::new(&values, 2).unwrap(), &config(loss, mode), 0, &Silent).unwrap_err().to_string()
    };
    let full = Mode::Full;
    assert_eq!(message(Loss::Lp { p: 0.5 }, full), "p must be a finite number of at least 1, not 0.5");
    assert!(message(Loss::Lp { p: f64::NAN }, full).starts_with("p must be"));
    assert!(message(Loss::Quantile { levels: vec![0.5, 1.0] }, full).starts_with("quantile must be"));
    assert!(message(Loss::Quantile { levels: vec![] }, full).starts_with("quantile must be"));
    assert!(message(Loss::Huber { delta: 0.0 }, full).starts_with("delta must be"));
    assert!(message(Loss::Logistic { l2: -1.0 }, full).starts_with("l2 must be"));
    assert!(message(Loss::L1, Mode::Rows(0)).starts_with("rows must be"));
    let target = message(Loss::Logistic { l2: 0.0 }, full);
    assert_eq!(target, "the target must be 0 or 1, or -1 or +1, not 0.5 in row 2");
}

mod random {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Small integers: ties, dependent columns, interpolation and non-unique optima all happen.
        #[test]
        fn small_integer_tables_are_solved_with_a_proof(
            d in 1usize..5,
            entries in prop::collection::vec(-3i32..4, 5..150),
            level in 0.05f64..0.95,
            p in 1.05f64..2.0,
            large in 2.0f64..40.0,
        ) {
            let n = entries.len() / (d + 1);
            prop_assume!(n > 0);
            let values: Vec<f64> = entries[..n * (d + 1)].iter().map(|v| f64::from(*v)).collect();
            for loss in [
                Loss::Quantile { levels: vec![level] },
                Loss::L2,
                Loss::Lp { p },
                Loss::Lp { p: large },
                Loss::Huber { delta: 1.0 },
                Loss::Huber { delta: level },
            ] {
                let outcome = run(&DenseRows::new(&values, d + 1).unwrap(), &config(loss.clone(), Mode::Full), 0, &Silent);
                let gap = outcome.map(|o| o.fits[0].relative_gap);
                prop_assert!(matches!(gap, Ok(Some(g)) if g <= 1e-8), "{:?} {:?}", loss, gap);
            }
        }

        /// Samples and pilots far too small for their tables: whatever they miss, what is proved holds.
        #[test]
        fn tiny_samples_and_pilots_never_prove_too_much(
            d in 1usize..5,
            entries in prop::collection::vec(-3i32..4, 60..400),
            level in 0.05f64..0.95,
            rows in 1u64..20,
            intercept in any::<bool>(),
        ) {
            let n = entries.len() / (d + 1);
            let values: Vec<f64> = entries[..n * (d + 1)].iter().map(|v| f64::from(*v)).collect();
            let source = DenseRows::new(&values, d + 1).unwrap();
            for loss in [
                Loss::Quantile { levels: vec![level, 0.5] },
                Loss::L2,
                Loss::Lp { p: 1.3 },
                Loss::Lp { p: 5.0 },
                Loss::Huber { delta: 1.0 },
            ] {
                let solve = |mode| {
                    let c = Config { intercept, certify: true, ..config(loss.clone(), mode) };
                    let plan = exact::Plan { pilot_rows: rows, ..SMALL };
                    run_with(&source, &c, 1, &Silent, &plan).map(|o| o.fits)
                };
                let (full, exact, sampled) = (solve(Mode::Full), solve(Mode::Exact), solve(Mode::Rows(rows)));
                let Ok(full) = full else { return Err(TestCaseError::fail(format!("{loss:?} full {full:?}"))) };
                let Ok(exact) = exact else { return Err(TestCaseError::fail(format!("{loss:?} exact {exact:?}"))) };
                let Ok(sampled) = sampled else { return Err(TestCaseError::fail(format!("{loss:?} rows {sampled:?}"))) };
                for ((full, exact), sampled) in full.iter().zip(&exact).zip(&sampled) {
                    prop_assert!(exact.relative_gap.is_some_and(|g| g <= 1e-8), "{:?} {:?}", loss, exact);
                    prop_assert!(exact.objective <= full.objective * (1.0 + 2e-8) + 1e-9, "{:?} {:?} {:?}", loss, exact, full);
                    prop_assert!(sampled.objective >= full.objective * (1.0 - 1e-8) - 1e-9);
                    if let Some(gap) = sampled.relative_gap {
                        prop_assert!(sampled.objective <= (1.0 + gap) * full.objective * (1.0 + 1e-7) + 1e-9,
                            "{:?} {:?} {:?}", loss, sampled, full);
                    }
                }
            }
        }
    }
}
