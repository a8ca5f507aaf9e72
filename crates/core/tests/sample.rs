//! Laws of sampling: what is drawn, with which probability, and that nothing else decides.

mod common;

use common::{Chunked, SILENT, gaussian, heavy, on_threads, rare_columns};
use subspan::rows::{RowBlock, RowIds, RowSource};
use subspan::sample::{self, CertificateKind, Config, Draw, Rule, Size};
use subspan::{DenseRows, Error, Mat, Result, Sample};

fn config(p: f64, rows: u64, rule: Rule, draw: Draw) -> Config {
    Config { rule, draw, certify: false, ..Config::rows(p, rows) }
}

fn draw(values: &[f64], d: usize, config: &Config, seed: u64) -> Sample {
    sample::run(&DenseRows::new(values, d).expect("a table"), config, seed, SILENT).expect("a sample")
}

/// `Σ weight · f` must estimate `Σ f` without bias, whatever the draw.
#[test]
fn every_draw_is_unbiased() {
    let (n, d, seeds) = (400, 2, 2000);
    let values = heavy(n, d, 1);
    let f: Vec<f64> = values.chunks_exact(d).map(|r| r[0].abs() + 0.1).collect();
    let truth: f64 = f.iter().sum();
    for kind in [Draw::Poisson, Draw::Systematic, Draw::Priority] {
        for (p, rule) in [(2.0, Rule::Leverage), (1.0, Rule::RootLeverage), (1.0, Rule::Lewis), (1.0, Rule::Uniform)] {
            let config = config(p, 60, rule, kind);
            let estimates: Vec<f64> = (0..seeds)
                .map(|seed| {
                    let s = draw(&values, d, &config, seed);
                    s.row_ids.iter().zip(&s.weights).map(|(i, w)| w * f[*i as usize]).sum()
                })
                .collect();
            let mean = estimates.iter().sum::<f64>() / seeds as f64;
            let sd = (estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (seeds - 1) as f64).sqrt();
            let error = (mean - truth) / (sd / (seeds as f64).sqrt());
            assert!(error.abs() < 4.0, "{kind} {rule} p={p}: {error:.2} standard errors");
        }
    }
}

/// The same statistic must be able to see a bias: drawing without replacement and weighting by 1/(m p) has one.
#[test]
fn the_unbiasedness_test_sees_a_known_bias() {
    let (n, m, seeds) = (20_000usize, 2000usize, 300u64);
    let mut rng = common::rng(4);
    let scores: Vec<f64> = (0..n).map(|_| rng.uniform().powf(-1.0 / 1.5)).collect();
    let total: f64 = scores.iter().sum();
    let estimates: Vec<f64> = (0..seeds)
        .map(|seed| {
            // Successive draws without replacement: the m smallest exponentials divided by the scores.
            let mut rng = common::rng(1000 + seed);
            let mut keys: Vec<(f64, usize)> = scores.iter().map(|s| -rng.uniform().ln() / s).zip(0..n).collect();
            keys.select_nth_unstable_by(m, |a, b| a.0.total_cmp(&b.0));
            keys[..m].iter().map(|(_, i)| total / (m as f64 * scores[*i])).sum()
        })
        .collect();
    let mean = estimates.iter().sum::<f64>() / seeds as f64;
    let sd = (estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (seeds - 1) as f64).sqrt();
    let error = (mean - n as f64) / (sd / (seeds as f64).sqrt());
    assert!(error.abs() > 4.0, "{error:.2} standard errors");
}

#[test]
fn threads_do_not_change_a_bit() {
    let values = heavy(60_000, 5, 2);
    for p in [1.0, 1.5, 2.0, 3.0] {
        for kind in [Draw::Poisson, Draw::Systematic, Draw::Priority] {
            let run = |threads| on_threads(threads, || draw(&values, 5, &config(p, 700, Rule::Auto, kind), 9));
            let (one, two) = (run(1), run(2));
            assert!(one.row_ids == two.row_ids, "p={p} {kind}");
            assert!(one.weights.iter().zip(&two.weights).all(|(a, b)| a.to_bits() == b.to_bits()), "p={p} {kind}");
        }
    }
}

#[test]
fn the_layout_of_the_table_does_not_change_the_rows() {
    let values = heavy(50_000, 4, 3);
    for p in [1.0, 2.0] {
        let of = |chunk_rows| {
            let table = Chunked { values: &values, n_cols: 4, chunk_rows };
            sample::run(&table, &config(p, 900, Rule::Auto, Draw::Poisson), 5, SILENT).expect("a sample")
        };
        let reference = of(50_000);
        for chunk_rows in [1, 777, 20_000] {
            let other = of(chunk_rows);
            assert!(reference.row_ids == other.row_ids, "p={p}, chunks of {chunk_rows}");
            for (a, b) in reference.weights.iter().zip(&other.weights) {
                assert!((a / b - 1.0).abs() < 1e-9);
            }
        }
    }
}

#[test]
fn the_seed_decides_and_nothing_else() {
    let values = gaussian(20_000, 3, 6);
    for kind in [Draw::Poisson, Draw::Systematic, Draw::Priority] {
        let c = config(1.0, 300, Rule::Auto, kind);
        assert!(draw(&values, 3, &c, 1).row_ids == draw(&values, 3, &c, 1).row_ids);
        assert!(draw(&values, 3, &c, 1).row_ids != draw(&values, 3, &c, 2).row_ids, "{kind}");
    }
}

#[test]
fn sizes_are_what_was_asked_for() {
    let values = heavy(30_000, 4, 7);
    let m = 800;
    let poisson = draw(&values, 4, &config(2.0, m, Rule::Auto, Draw::Poisson), 0);
    assert!((poisson.summary.rows_expected - m as f64).abs() < 0.5);
    assert!((poisson.row_ids.len() as f64 - m as f64).abs() < 5.0 * (m as f64).sqrt());
    let systematic = draw(&values, 4, &config(2.0, m, Rule::Auto, Draw::Systematic), 0);
    assert!((systematic.row_ids.len() as f64 - m as f64).abs() <= 1.5);
    let priority = draw(&values, 4, &config(2.0, m, Rule::Auto, Draw::Priority), 0);
    assert_eq!(priority.row_ids.len() as u64, m);
}

#[test]
fn a_size_beyond_the_table_returns_every_row_with_weight_one() {
    let mut values = gaussian(50, 3, 8);
    values[30..36].fill(0.0);
    for kind in [Draw::Poisson, Draw::Systematic, Draw::Priority] {
        let s = draw(&values, 3, &config(1.0, 50, Rule::Auto, kind), 0);
        assert_eq!(s.row_ids.len(), 48, "{kind}: zero rows carry nothing");
        assert!(s.weights.iter().all(|w| *w == 1.0));
        assert_eq!(s.summary.zero_rows, 2);
    }
}

/// 4 of 20 columns live on 8 rows: every sample must hold all of them, or those columns cannot be fitted.
#[test]
fn rare_columns_survive_in_every_seed() {
    let (n, d) = (60_000, 20);
    let values = rare_columns(n, d, 4, 8, 10);
    for p in [1.0, 1.5, 2.0] {
        for seed in 0..20 {
            let s = draw(&values, d, &config(p, 1500, Rule::Auto, Draw::Poisson), seed);
            let living = (0..s.rows.n_rows()).filter(|i| s.rows.row(*i)[d - 1] != 0.0).count();
            assert_eq!(living, 8, "p={p} seed={seed}");
        }
    }
}

#[test]
fn scores_add_up_to_the_rank() {
    let n = 5000;
    // A third column that is the sum of the first two, a fourth of zeros.
    let base = heavy(n, 2, 11);
    let values: Vec<f64> = base.chunks_exact(2).flat_map(|r| [r[0], r[1], r[0] + r[1], 0.0]).collect();
    let table = DenseRows::new(&values, 4).expect("a table");
    let leverage = sample::leverage_scores(&table, SILENT).expect("scores");
    assert!((leverage.iter().sum::<f64>() - 2.0).abs() < 1e-8);
    for p in [1.0, 1.2, 1.5, 3.0, 4.0, 6.0] {
        let w = sample::lewis_weights(&table, p, SILENT).expect("weights");
        assert!((w.iter().sum::<f64>() - 2.0).abs() < 1e-5, "p={p}: {}", w.iter().sum::<f64>());
    }
}

/// The fixed point itself: `w = (a Q⁺ a)^(p/2)`, recomputed here from scratch.
#[test]
fn lewis_weights_satisfy_their_equation() {
    let (n, d) = (600, 4);
    let values = heavy(n, d, 12);
    for p in [1.0, 1.3, 3.0, 4.0, 8.0] {
        let w = sample::lewis_weights(&DenseRows::new(&values, d).expect("a table"), p, SILENT).expect("weights");
        let scaled = Mat::from_fn(n, d, |i, j| values[i * d + j] * w[i].powf(0.5 - 1.0 / p));
        let q = scaled.transpose().mul(&scaled);
        let c = subspan_linalg::cholesky(&q).expect("positive definite");
        for i in 0..n {
            let a = &values[i * d..(i + 1) * d];
            let v = a.iter().zip(c.solve(a)).map(|(x, y)| x * y).sum::<f64>().powf(0.5 * p);
            assert!((v / w[i]).ln().abs() < 3e-6, "p={p} row {i}: {}", (v / w[i]).ln());
        }
    }
}

#[test]
fn splitting_a_row_divides_its_lewis_weight_but_not_its_root_leverage() {
    let (n, d, k, p) = (300, 3, 5, 1.0);
    let values = heavy(n, d, 13);
    let weights =
        |v: &[f64]| sample::lewis_weights(&DenseRows::new(v, d).expect("a table"), p, SILENT).expect("weights");
    let whole = weights(&values);
    let mut split = values[d..].to_vec();
    for _ in 0..k {
        split.extend(values[..d].iter().map(|v| v / f64::from(k)));
    }
    let parts = weights(&split);
    assert!((parts[n - 1] * f64::from(k) / whole[0] - 1.0).abs() < 1e-5);
    assert!((parts[0] / whole[1] - 1.0).abs() < 1e-5);
}

#[test]
fn scores_do_not_depend_on_the_basis() {
    let (n, d) = (2000, 4);
    let values = heavy(n, d, 14);
    let r = Mat::from_vec(d, d, gaussian(d, d, 15));
    let other = Mat::from_vec(n, d, values.clone()).mul(&r).into_vec();
    let scores = |v: &[f64]| {
        let table = DenseRows::new(v, d).expect("a table");
        (
            sample::leverage_scores(&table, SILENT).expect("scores"),
            sample::lewis_weights(&table, 1.0, SILENT).expect("weights"),
        )
    };
    let ((t, w), (t2, w2)) = (scores(&values), scores(&other));
    for i in 0..n {
        assert!((t[i] - t2[i]).abs() < 1e-8 && (w[i] / w2[i] - 1.0).abs() < 1e-5);
    }
}

#[test]
fn bad_parameters_are_named() {
    let values = gaussian(10, 2, 16);
    let table = DenseRows::new(&values, 2).expect("a table");
    let refuse = |c: Config| match sample::run(&table, &c, 0, SILENT) {
        Err(Error::Parameter { name, .. }) => name,
        other => panic!("accepted: {other:?}"),
    };
    assert_eq!(refuse(Config::rows(0.5, 5)), "p");
    assert_eq!(refuse(Config::rows(f64::NAN, 5)), "p");
    assert_eq!(refuse(Config::rows(2.0, 0)), "rows");
    assert_eq!(refuse(Config { size: Size::Epsilon(1.5), ..Config::rows(1.0, 1) }), "epsilon");
    assert_eq!(refuse(Config { rule: Rule::Leverage, ..Config::rows(1.0, 5) }), "p");
    assert!(matches!(
        sample::run(&DenseRows::new(&[0.0; 6], 2).expect("a table"), &Config::rows(2.0, 2), 0, SILENT),
        Err(Error::AllZero)
    ));
}

/// `Σ weight |a x|^p / ‖Ax‖_p^p − 1`, computed the plain way.
/// Two categories of 80 and 70 levels as indicators, and three numbers.
fn two_categories(n: usize) -> (Vec<f64>, usize) {
    let (d, numbers) = (153, gaussian(n, 3, 4));
    let mut values = vec![0.0; n * d];
    for (i, row) in values.chunks_exact_mut(d).enumerate() {
        row[..3].copy_from_slice(&numbers[3 * i..3 * i + 3]);
        row[3 + (7 * i + i / 50) % 80] = 1.0;
        row[83 + (3 * i + i / 97) % 70] = 1.0;
    }
    (values, d)
}

/// A table that knows, or does not, that one indicator of the second category is redundant; counts its passes.
struct Categories<'a> {
    values: &'a [f64],
    n_cols: usize,
    redundant: Vec<usize>,
    passes: std::sync::atomic::AtomicUsize,
}

impl RowSource for Categories<'_> {
    fn n_cols(&self) -> usize {
        self.n_cols
    }

    fn n_rows(&self) -> Option<u64> {
        Some((self.values.len() / self.n_cols) as u64)
    }

    fn redundant(&self) -> Vec<usize> {
        self.redundant.clone()
    }

    fn n_chunks(&self) -> usize {
        1
    }

    fn scan(&self, _: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        self.passes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        visit(&RowBlock { n_cols: self.n_cols, values: self.values, ids: RowIds::From(0), records: None })
    }
}

#[test]
fn a_redundant_column_that_is_known_spares_a_pass_and_changes_no_score() {
    let (values, d) = two_categories(3000);
    let scored = |redundant: Vec<usize>| {
        let table = Categories { values: &values, n_cols: d, redundant, passes: Default::default() };
        let scores = sample::leverage_scores(&table, SILENT).expect("scores");
        (scores, table.passes.into_inner())
    };
    let ((known, passes), (found, more)) = (scored(vec![83]), scored(Vec::new()));
    assert_eq!((passes, more), (2, 3));
    assert!((known.iter().sum::<f64>() - (d - 1) as f64).abs() < 1e-8);
    for (a, b) in known.iter().zip(&found) {
        assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
    }
    let table = Categories { values: &values, n_cols: d, redundant: vec![83], passes: Default::default() };
    for (p, rule) in [(2.0, Rule::Auto), (1.0, Rule::Auto), (1.0, Rule::Lewis)] {
        let config = Config { certify: true, ..config(p, 900, rule, Draw::Poisson) };
        let s = sample::run(&table, &config, 3, SILENT).expect("a sample");
        assert_eq!(s.summary.rank, d - 1);
        assert!(s.certificate.as_ref().is_some_and(|c| c.upper < 0.9 && c.lower > -0.9), "{rule} {:?}", s.certificate);
    }
}

fn distortion(values: &[f64], d: usize, s: &Sample, x: &[f64], p: f64) -> f64 {
    let power = |row: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>().abs().powf(p);
    let all: f64 = values.chunks_exact(d).map(power).sum();
    let sampled: f64 = s.weights.iter().enumerate().map(|(i, w)| w * power(s.rows.row(i))).sum();
    sampled / all - 1.0
}

#[test]
fn exact_and_lifted_certificates_hold_in_every_direction() {
    let (n, d) = (20_000, 5);
    let values = heavy(n, d, 20);
    let table = DenseRows::new(&values, d).expect("a table");
    for (p, kind) in [(2.0, CertificateKind::Exact), (4.0, CertificateKind::Bound)] {
        for draw in [Draw::Poisson, Draw::Priority] {
            let s = sample::run(&table, &Config { draw, ..Config::rows(p, 1500) }, 3, SILENT).expect("a sample");
            let c = s.certificate.as_ref().expect("a certificate");
            assert_eq!(c.kind, kind);
            assert!(c.lower <= 0.0 && c.upper >= 0.0 && c.upper < 1.0, "{c:?}");
            let mut rng = common::rng(21);
            for _ in 0..200 {
                let x: Vec<f64> = (0..d).map(|_| rng.normal()).collect();
                let e = distortion(&values, d, &s, &x, p);
                assert!(c.lower - 1e-9 <= e && e <= c.upper + 1e-9, "p={p}: {e} outside {c:?}");
            }
        }
    }
}

#[test]
fn a_sample_smaller_than_the_lift_gets_a_search_instead_of_an_empty_bound() {
    let values = gaussian(5000, 6, 27);
    let table = DenseRows::new(&values, 6).expect("a table");
    // The lift of 6 columns for p = 4 has 21.
    let kind = |rows| {
        let s = sample::run(&table, &Config::rows(4.0, rows), 0, SILENT).expect("a sample");
        s.certificate.expect("a certificate").kind
    };
    assert_eq!((kind(15), kind(400)), (CertificateKind::Searched, CertificateKind::Bound));
}

#[test]
fn a_searched_certificate_is_worse_than_random_directions_and_says_so() {
    let (n, d) = (80_000, 6);
    let values = heavy(n, d, 22);
    for p in [1.0, 1.5, 3.0] {
        let table = DenseRows::new(&values, d).expect("a table");
        let s = sample::run(&table, &Config::rows(p, 800), 4, SILENT).expect("a sample");
        let c = s.certificate.as_ref().expect("a certificate");
        assert_eq!(c.kind, CertificateKind::Searched);
        assert_eq!(c.reference, "all 80000 rows");
        let mut rng = common::rng(23);
        let (mut low, mut high) = (0.0f64, 0.0f64);
        for _ in 0..40 {
            let x: Vec<f64> = (0..d).map(|_| rng.normal()).collect();
            let e = distortion(&values, d, &s, &x, p);
            low = low.min(e);
            high = high.max(e);
        }
        assert!(c.lower < low && c.upper > high, "p={p}: {c:?} against {low}..{high}");
        assert!(c.lower > -1.0 && c.upper < 2.0, "p={p}: {c:?}");
    }
}

#[test]
fn sensitivity_rules_score_through_the_lift_or_by_solving() {
    let (n, d) = (3000, 3);
    let values = heavy(n, d, 24);
    for (p, rule) in [
        (4.0, Rule::Sensitivity),
        (4.0, Rule::SensitivityLeverage),
        (1.5, Rule::SensitivityLeverage),
        (3.0, Rule::Sensitivity),
        (1.0, Rule::Sensitivity),
        (4.0, Rule::Paper),
    ] {
        let s = draw(&values, d, &config(p, 300, rule, Draw::Poisson), 1);
        assert_eq!(s.summary.rule, rule);
        assert!((s.row_ids.len() as f64 - 300.0).abs() < 90.0, "{rule} p={p}: {} rows", s.row_ids.len());
        // Σσ lies between the extremes of the theory: d^(p/2) and d, in either order; the bounds may exceed it a little.
        let d = d as f64;
        let augmented = if rule == Rule::SensitivityLeverage { d } else { 0.0 };
        let (low, high) = (d.powf(p / 2.0).min(d), d.powf(p / 2.0).max(d));
        let total = s.summary.score_sum - augmented;
        assert!(total > 0.95 * low && total < 1.4 * high, "{rule} p={p}: {total}");
    }
}

#[test]
fn structure_is_found_for_even_p() {
    // One-hot rows: the lift has rank d, sensitivities add up to d, and sampling by them beats Lewis weights.
    let (n, d) = (4000, 10);
    let mut rng = common::rng(25);
    let mut values = vec![0.0; n * d];
    for row in values.chunks_exact_mut(d) {
        row[rng.below(d as u64) as usize] = rng.normal();
    }
    let s = draw(&values, d, &config(4.0, 200, Rule::Auto, Draw::Poisson), 0);
    assert!((s.summary.total_sensitivity.expect("p > 2") - d as f64).abs() < 1e-9);
    assert_ne!(s.summary.rule, Rule::Lewis);
    let gaussian = draw(&gaussian(n, d, 26), d, &config(4.0, 200, Rule::Auto, Draw::Poisson), 0);
    assert_eq!(gaussian.summary.rule, Rule::Lewis);
}

/// Orthonormal-like columns mixed so that the condition number is known: leverage must not notice.
#[test]
fn leverage_survives_ill_conditioning_and_extreme_scales() {
    let (n, d) = (4000, 4);
    let base = gaussian(n, d, 30);
    let truth = sample::leverage_scores(&DenseRows::new(&base, d).expect("a table"), SILENT).expect("scores");
    let worst = |values: &[f64]| {
        let found = sample::leverage_scores(&DenseRows::new(values, d).expect("a table"), SILENT).expect("scores");
        // Relative to the mean leverage: the smallest ones are differences of numbers of that size.
        let mean = d as f64 / n as f64;
        truth.iter().zip(found).map(|(t, f)| (f - t).abs() / (t + mean)).fold(0.0, f64::max)
    };
    // One pass is trusted up to condition 2e5, where it is good to 1e-6; beyond, a second pass is.
    for condition in [1e4, 1e6, 1e8, 1e10] {
        // Rounding the table to doubles already moves its scores by the condition number times 2⁻⁵³.
        let tolerance = 1e-6 + 4.0 * condition * f64::EPSILON;
        // Columns b, b + c/κ, ...: nearly parallel.
        let mixed: Vec<f64> =
            base.chunks_exact(d).flat_map(|r| [r[0], r[0] + r[1] / condition, r[2], r[3] + r[0]]).collect();
        assert!(worst(&mixed) < tolerance, "condition {condition}: {}", worst(&mixed));
    }
    // The same through Lewis weights, in memory and in a stream, which take different ways to the same numbers.
    let weights = |values: &[f64], p| {
        let dense = sample::lewis_weights(&DenseRows::new(values, d).expect("a table"), p, SILENT).expect("weights");
        let table = Chunked { values, n_cols: d, chunk_rows: subspan::rows::MEMORY_CHUNK_ROWS };
        assert!(dense == sample::lewis_weights(&table, p, SILENT).expect("weights"), "p={p}");
        dense
    };
    let parallel: Vec<f64> = base.chunks_exact(d).flat_map(|r| [r[0], r[0] + r[1] / 1e8, r[2], r[3]]).collect();
    for p in [1.0, 3.0] {
        let (plain, mixed) = (weights(&base, p), weights(&parallel, p));
        let worst = plain.iter().zip(&mixed).map(|(a, b)| (a - b).abs() * n as f64 / d as f64).fold(0.0, f64::max);
        assert!(worst < 1e-4, "p={p}: {worst}");
    }
    for scale in [1e-200, 1e-150, 1e150, 1e200] {
        let scaled: Vec<f64> = base.chunks_exact(d).flat_map(|r| [r[0] * scale, r[1], r[2] / scale, r[3]]).collect();
        assert!(worst(&scaled) < 1e-12, "scale {scale}: {}", worst(&scaled));
        for p in [1.0, 1.5] {
            let table = DenseRows::new(&scaled, d).expect("a table");
            let s = sample::run(&table, &config(p, 300, Rule::Auto, Draw::Poisson), 0, SILENT).expect("a sample");
            assert_eq!(s.summary.rank, d);
            let i = s.row_ids[7] as usize;
            assert_eq!(s.rows.row(7), &scaled[i * d..(i + 1) * d], "rows come back as they were");
        }
    }
}

#[test]
fn a_distortion_asked_for_is_kept_in_49_of_50_draws() {
    let (n, d, epsilon) = (20_000, 5, 0.3);
    let values = gaussian(n, d, 31);
    let table = DenseRows::new(&values, d).expect("a table");
    let c = Config { size: Size::Epsilon(epsilon), ..Config::rows(2.0, 1) };
    let misses = (0..50)
        .filter(|seed| {
            let s = sample::run(&table, &c, *seed, SILENT).expect("a sample");
            let e = s.certificate.expect("a certificate");
            e.upper > epsilon || e.lower < -epsilon
        })
        .count();
    assert!(misses <= 1, "{misses} of 50");
}

/// Sampling theory says `ε ~ √(d/m)`: the constant may not grow with the dimension.
#[test]
fn distortion_scales_with_the_dimension_as_theory_says() {
    let n = 20_000;
    for (p, dims, seeds) in [(2.0, vec![8, 16, 32, 64], 7), (1.0, vec![8, 16, 32], 5)] {
        let constants: Vec<f64> = dims
            .iter()
            .map(|d| {
                let values = gaussian(n, *d, 32);
                let table = DenseRows::new(&values, *d).expect("a table");
                let m = 40 * *d as u64;
                let mut e: Vec<f64> = (0..seeds)
                    .map(|seed| {
                        let c = sample::run(&table, &Config::rows(p, m), seed, SILENT).expect("a sample").certificate;
                        c.map_or(f64::NAN, |c| c.upper.max(-c.lower)) * (m as f64 / *d as f64).sqrt()
                    })
                    .collect();
                e.sort_by(f64::total_cmp);
                e[e.len() / 2]
            })
            .collect();
        let mean = constants.iter().sum::<f64>() / constants.len() as f64;
        assert!(constants.iter().all(|c| (c / mean - 1.0).abs() < 0.3), "p={p}: {constants:?}");
    }
}
