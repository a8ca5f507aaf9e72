//! Fits whose answer is known.

use super::*;

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
