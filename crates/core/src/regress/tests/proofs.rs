//! Certificates: they hold for every input, and are tight where the solver claims so.

use super::*;

/// The objective with the penalty that a fit leaves out.
fn penalised(loss: &Loss, fit: &Fit) -> f64 {
    fit.objective + penalty(loss, &fit.coefficients)
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
            for (best, found) in best.fits.iter().zip(&found.fits) {
                let truth = penalised(&loss, found) / penalised(&loss, best) - 1.0;
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
fn the_exact_mode_stands_a_condition_of_a_million() {
    let (n, d) = (20_000, 3);
    let mut values = data(Kind::Gaussian, n, d, 11);
    for row in values.chunks_exact_mut(d + 1) {
        row[1] = row[0] + 1e-6 * row[1];
    }
    let source = DenseRows::new(&values, d + 1).unwrap();
    for loss in [Loss::L1, Loss::L2, Loss::Lp { p: 1.5 }, Loss::Lp { p: 4.0 }, Loss::Huber { delta: 1.0 }] {
        let full = fit(&values, d + 1, &config(loss.clone(), Mode::Full));
        let exact = run_with(&source, &config(loss.clone(), Mode::Exact), 0, &Silent, &SMALL).unwrap();
        assert!(exact.fits[0].relative_gap.unwrap() <= 1e-8);
        assert!((exact.fits[0].objective / full.objective - 1.0).abs() < 1.1e-8, "{loss:?}");
    }
}

#[test]
fn columns_far_from_zero_are_fitted_and_proved_like_columns_near_zero() {
    let (n, d) = (4000, 3);
    let mut rng = Stream::new(11, "far").rng(0);
    let plain = data(Kind::Heavy, n, d, 2);
    for loss in losses() {
        let mut near = targets(&loss, plain.clone(), d + 1, 2);
        // Eighths, so that every place holds them exactly.
        near.chunks_exact_mut(d + 1).for_each(|row| row[0] = rng.below(80) as f64 / 8.0);
        let c = Config { intercept: true, certify: true, ..config(loss.clone(), Mode::Full) };
        let best = run(&DenseRows::new(&near, d + 1).unwrap(), &c, 0, &Silent).unwrap();
        for place in [1.7e9, -1.7e12, 1e14] {
            let mut far = near.clone();
            far.chunks_exact_mut(d + 1).for_each(|row| row[0] += place);
            let source = DenseRows::new(&far, d + 1).unwrap();
            for mode in [Mode::Full, Mode::Exact, Mode::Rows(500)] {
                let found = run(&source, &Config { mode, ..c.clone() }, 4, &Silent).unwrap();
                assert!(!found.warnings.iter().any(|w| w.contains("depend on each other")), "{:?}", found.warnings);
                for (best, found) in best.fits.iter().zip(&found.fits) {
                    let truth = penalised(&loss, found) / penalised(&loss, best) - 1.0;
                    let gap = found.relative_gap.unwrap_or(f64::INFINITY);
                    assert!(gap >= truth - 1e-9, "{loss:?} {mode:?} {place}: proved {gap}, true {truth}");
                    if mode != Mode::Rows(500) {
                        assert!(truth < 2e-8, "{loss:?} {mode:?} {place}: {truth}");
                        let moved = found.intercept + place * found.coefficients[0];
                        // What the constant term of double precision can hold.
                        let held = 1e-4 * (1.0 + best.intercept.abs()) + 4e-16 * (place * found.coefficients[0]).abs();
                        assert!((moved - best.intercept).abs() < held, "{loss:?} {place}: {moved} {}", best.intercept);
                    }
                }
            }
        }
    }
}
