//! Degenerate tables, extreme scales, threads, malformed parameters.

use super::*;

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

#[test]
fn a_full_solve_beyond_the_memory_allowed_is_an_error() {
    let values = data(Kind::Gaussian, 1000, 2, 1);
    let dense = DenseRows::new(&values, 3).unwrap();
    let shape = Shape::default();
    let streamed = Reshaped { source: &dense, shape: &shape };
    let plan = exact::Plan { full_bytes: 1000, ..SMALL };
    let c = config(Loss::L1, Mode::Exact);
    assert!(run_with(&dense, &c, 0, &Silent, &plan).is_ok());
    let error = run_with(&streamed, &c, 0, &Silent, &plan).unwrap_err();
    assert!(error.to_string().contains("too large to be solved in memory"), "{error}");
}

#[test]
fn low_quantiles_beside_a_heavy_tail_are_found() {
    for seed in 0..4 {
        let mut rng = Stream::new(seed, "heavy tail").rng(0);
        // Values over eight orders of magnitude, noise of one.
        let values: Vec<f64> = (0..20_000).flat_map(|_| [(3.0 * rng.normal()).exp(), 5.0 * rng.normal()]).collect();
        for level in [0.01, 0.5, 0.99] {
            let c = Config { intercept: true, ..config(Loss::Quantile { levels: vec![level] }, Mode::Full) };
            let found = fit(&values, 2, &c);
            assert!(found.relative_gap.unwrap() <= 1e-8, "{seed} {level}: {:?}", found.relative_gap);
        }
    }
}

#[test]
fn high_powers_beside_heavy_tails_are_found() {
    for seed in 0..4 {
        let mut rng = Stream::new(seed, "heavy tails").rng(0);
        let mut cauchy = || rng.normal() / rng.normal();
        let values: Vec<f64> = (0..4000).map(|_| cauchy()).collect();
        for p in [3.0, 4.0] {
            let c = Config { intercept: true, ..config(Loss::Lp { p }, Mode::Full) };
            let found = fit(&values, 2, &c);
            assert!(found.relative_gap.unwrap() <= 1e-8, "{seed} {p}: {:?}", found.relative_gap);
        }
    }
}
