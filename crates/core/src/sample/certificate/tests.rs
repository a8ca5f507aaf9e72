use proptest::prelude::*;
use subspan_linalg::{Whitener, eigh, par_gram, whiten};

use super::*;
use crate::draw::Stream;
use crate::observe::{Observer, Silent};
use crate::rows::DenseRows;
use crate::sample::lift::{Lift, LiftedRows};
use crate::{Error, Event, Mat};

/// `n` Gaussian rows of `d` columns, the first ones longer, and a Poisson sample of them with its weights.
struct Case {
    d: usize,
    rows: Vec<f64>,
    sample: Vec<f64>,
    weights: Vec<f64>,
}

impl Case {
    fn new(n: usize, d: usize, m: f64, seed: u64) -> Self {
        let mut rng = Stream::new(seed, "certificate tests").rng(0);
        let rows: Vec<f64> = (0..n * d).map(|k| rng.normal() * (1.0 + 20.0 / (1.0 + (k / d) as f64))).collect();
        let q = m / n as f64;
        let stream = Stream::new(seed, "rows");
        let kept: Vec<usize> = (0..n).filter(|i| stream.uniform(*i as u64) < q).collect();
        let sample = kept.iter().flat_map(|i| rows[i * d..(i + 1) * d].iter().copied()).collect();
        Self { d, rows, sample, weights: vec![1.0 / q; kept.len()] }
    }

    fn table(&self) -> WeightedTable<'_> {
        WeightedTable::new(&self.rows, self.d, None).unwrap()
    }

    fn sampled(&self) -> WeightedTable<'_> {
        WeightedTable::new(&self.sample, self.d, Some(&self.weights)).unwrap()
    }

    fn n(&self) -> u64 {
        (self.rows.len() / self.d) as u64
    }

    fn whitener(&self) -> Whitener {
        whiten(&par_gram(&self.rows, self.d), self.n()).unwrap()
    }

    fn exact(&self) -> Certificate {
        exact_certificate(&self.whitener(), &self.sampled(), self.n()).unwrap()
    }

    fn lifted(&self, p: f64) -> Certificate {
        let lift = Lift::new(self.d, p).unwrap();
        let lifted = |rows: &[f64]| {
            let mut out = vec![0.0; rows.len() / self.d * lift.dim()];
            lift.lift_rows(rows, &mut out);
            out
        };
        let whitener = whiten(&par_gram(&lifted(&self.rows), lift.dim()), self.n()).unwrap();
        let sample = lifted(&self.sample);
        let sample = WeightedTable::new(&sample, lift.dim(), Some(&self.weights)).unwrap();
        lifted_certificate(&whitener, &sample, self.n()).unwrap()
    }

    fn searched(&self, p: f64, seed: u64) -> Searched {
        search(&self.table(), &self.sampled(), p, &Search::default(), "all rows", seed, &Silent).unwrap()
    }

    fn ratio(&self, x: &[f64], p: f64) -> f64 {
        let loss = |rows: &[f64], weight: &dyn Fn(usize) -> f64| -> f64 {
            rows.chunks(self.d)
                .enumerate()
                .map(|(i, a)| weight(i) * a.iter().zip(x).map(|(a, x)| a * x).sum::<f64>().abs().powf(p))
                .sum()
        };
        loss(&self.sample, &|i| self.weights[i]) / loss(&self.rows, &|_| 1.0)
    }
}

#[test]
fn the_exact_certificate_is_the_generalized_eigenvalue_problem() {
    let case = Case::new(500, 4, 60.0, 1);
    let c = case.exact();
    assert_eq!(c.kind, CertificateKind::Exact);
    // Brute force: G^(-1/2) G_s G^(-1/2) by eigendecomposition.
    let g = eigh(&par_gram(&case.rows, 4)).unwrap();
    let root =
        Mat::from_fn(4, 4, |i, j| (0..4).map(|k| g.vectors[(i, k)] * g.vectors[(j, k)] / g.values[k].sqrt()).sum());
    let values = eigh(&root.mul(&case.sampled().gram()).mul(&root)).unwrap().values;
    assert!((c.lower - (values[0] - 1.0)).abs() < 1e-12 && (c.upper - (values[3] - 1.0)).abs() < 1e-12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_direction_leaves_a_rigorous_certificate(seed in 0u64..10_000) {
        let case = Case::new(200, 3, 60.0, seed);
        let mut rng = Stream::new(seed, "directions").rng(0);
        for p in [2.0, 4.0, 6.0] {
            let c = if p == 2.0 { case.exact() } else { case.lifted(p) };
            prop_assert!(c.lower <= 0.0 && c.upper >= 0.0);
            for _ in 0..50 {
                let x: Vec<f64> = (0..3).map(|_| rng.normal()).collect();
                let excess = case.ratio(&x, p) - 1.0;
                prop_assert!(excess <= c.upper + 1e-9 && excess >= c.lower - 1e-9, "p = {}: {} outside {:?}", p, excess, c);
            }
        }
    }
}

#[test]
fn a_search_at_p_2_finds_the_extremes() {
    for seed in 0..5 {
        let case = Case::new(3000, 8, 150.0, seed);
        let (exact, searched) = (case.exact(), case.searched(2.0, seed).certificate);
        assert_eq!(searched.kind, CertificateKind::Searched);
        assert!(
            searched.upper <= exact.upper + 1e-12 && searched.upper >= 0.999 * exact.upper,
            "{searched:?} {exact:?}"
        );
        assert!(
            searched.lower >= exact.lower - 1e-12 && searched.lower <= 0.999 * exact.lower,
            "{searched:?} {exact:?}"
        );
    }
}

#[test]
fn a_search_at_p_4_stays_within_the_lifted_bound_and_beats_random_directions() {
    let case = Case::new(2000, 4, 200.0, 7);
    let (bound, searched) = (case.lifted(4.0), case.searched(4.0, 0));
    assert_eq!(bound.kind, CertificateKind::Bound);
    let c = &searched.certificate;
    assert!(bound.lower <= c.lower && c.upper <= bound.upper, "{c:?} outside {bound:?}");
    let mut rng = Stream::new(0, "directions").rng(0);
    for _ in 0..2000 {
        let x: Vec<f64> = (0..4).map(|_| rng.normal()).collect();
        let excess = case.ratio(&x, 4.0) - 1.0;
        assert!(excess <= c.upper && excess >= c.lower, "{excess} outside {c:?}");
    }
}

#[test]
fn the_reported_directions_attain_the_reported_extremes() {
    let case = Case::new(2000, 5, 100.0, 3);
    for p in [1.0, 1.5, 2.5, 3.0] {
        let found = case.searched(p, 0);
        let ratios: Vec<f64> =
            (0..found.directions.n_cols()).map(|j| case.ratio(&found.directions.col(j), p)).collect();
        let again = certificate_of_ratios(&ratios, CertificateKind::Searched, "all rows");
        assert!((again.lower - found.certificate.lower).abs() < 1e-10);
        assert!((again.upper - found.certificate.upper).abs() < 1e-10);
        assert!(
            again.lower < -0.05 && again.upper > 0.05,
            "p = {p}: a tenth of the rows cannot be that good: {again:?}"
        );
    }
}

#[test]
fn a_sample_that_misses_a_direction_is_found_out() {
    // The last column lives on rows 0..4, the sample is every other row after them.
    let (n, d) = (600, 4);
    let mut rng = Stream::new(5, "rare").rng(0);
    let rows: Vec<f64> = (0..n * d).map(|k| if k % d == d - 1 && k / d >= 4 { 0.0 } else { rng.normal() }).collect();
    let sample: Vec<f64> = rows.chunks(d).skip(4).step_by(2).flatten().copied().collect();
    let weights = vec![2.0; sample.len() / d];
    let case = Case { d, rows, sample, weights };
    assert_eq!(case.exact().lower, -1.0);
    assert_eq!(case.lifted(4.0).lower, -1.0);
    for p in [1.0, 1.5, 3.0] {
        assert_eq!(case.searched(p, 0).certificate.lower, -1.0, "p = {p}");
    }
}

#[test]
fn the_whole_table_as_a_sample_is_perfect() {
    let mut case = Case::new(300, 3, 10.0, 6);
    case.sample = case.rows.clone();
    case.weights = vec![1.0; 300];
    for c in [case.exact(), case.lifted(4.0), case.searched(1.0, 0).certificate] {
        assert!(c.lower.abs() < 1e-12 && c.upper.abs() < 1e-12, "{c:?}");
    }
}

#[test]
fn an_empty_sample_misses_everything() {
    let mut case = Case::new(300, 3, 10.0, 6);
    case.sample.clear();
    case.weights.clear();
    for c in [case.exact(), case.searched(1.0, 0).certificate] {
        assert_eq!((c.lower, c.upper), (-1.0, 0.0));
    }
}

#[test]
fn a_rank_deficient_table_is_judged_within_its_span() {
    let mut case = Case::new(400, 3, 80.0, 8);
    for row in case.rows.chunks_mut(3).chain(case.sample.chunks_mut(3)) {
        row[2] = row[0] - row[1];
    }
    let (exact, searched) = (case.exact(), case.searched(2.0, 0).certificate);
    assert!(exact.lower > -1.0);
    assert!((exact.lower - searched.lower).abs() < 1e-6 && (exact.upper - searched.upper).abs() < 1e-6);
}

#[test]
fn a_nearly_collinear_table_is_judged_like_its_orthogonal_twin() {
    // The last column differs from the first by 1e-8 of another: the same column space as plain Gaussian columns.
    let plain = Case::new(2000, 3, 150.0, 14);
    let mut bent = Case::new(2000, 3, 150.0, 14);
    for row in bent.rows.chunks_mut(3).chain(bent.sample.chunks_mut(3)) {
        row[2] = row[0] + 1e-8 * row[2];
    }
    let table = bent.table().whitened().unwrap();
    let (expected, found) = (plain.exact(), exact_certificate(&table, &bent.sampled(), 2000).unwrap());
    assert!((expected.lower - found.lower).abs() < 1e-6 && (expected.upper - found.upper).abs() < 1e-6);
    let (expected, found) = (plain.searched(1.0, 0).certificate, bent.searched(1.0, 0).certificate);
    assert!((expected.lower - found.lower).abs() < 0.01 && (expected.upper - found.upper).abs() < 0.01);
}

#[test]
fn the_label_axis_is_a_start() {
    // With one iteration and only informed starts, the label's axis is judged as it is.
    let case = Case::new(1000, 6, 60.0, 9);
    let config = Search { starts: 1, iterations: 0, label: true };
    let found = search(&case.table(), &case.sampled(), 1.0, &config, "all rows", 0, &Silent).unwrap();
    let label_ratio = case.ratio(&[0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 1.0) - 1.0;
    assert!(found.certificate.lower <= label_ratio + 1e-9 && label_ratio <= found.certificate.upper + 1e-9);
}

#[test]
fn weights_of_the_reference_are_multiplicities() {
    let case = Case::new(400, 3, 80.0, 10);
    let doubled: Vec<f64> = case.rows.iter().chain(&case.rows).copied().collect();
    let weights = vec![2.0; 400];
    let run = |reference: WeightedTable<'_>| {
        search(&reference, &case.sampled(), 1.5, &Search::default(), "all rows", 0, &Silent).unwrap().certificate
    };
    let weighted = run(WeightedTable::new(&case.rows, 3, Some(&weights)).unwrap());
    let repeated = run(WeightedTable::new(&doubled, 3, None).unwrap());
    assert!((weighted.lower - repeated.lower).abs() < 1e-6 && (weighted.upper - repeated.upper).abs() < 1e-6);
}

#[test]
fn sums_over_a_slice_and_over_a_source_agree() {
    let case = Case::new(40_000, 3, 10.0, 11);
    let x = Mat::from_rows(&[[1.0, 0.5], [-2.0, 0.0], [0.25, 1.0]]);
    for p in [1.0, 1.7, 4.0] {
        let sums = abs_power_sums(&case.table(), &x, p);
        let source = DenseRows::new(&case.rows, 3).unwrap();
        let streamed = abs_power_sums_of(&source, &x, p, &Silent).unwrap();
        for j in 0..2 {
            let direct: f64 =
                case.rows.chunks(3).map(|a| (0..3).map(|i| a[i] * x[(i, j)]).sum::<f64>().abs().powf(p)).sum();
            assert!((sums[j] / direct - 1.0).abs() < 1e-12 && (streamed[j] / direct - 1.0).abs() < 1e-12);
        }
        assert!(abs_power_sums_of(&source, &Mat::identity(2), p, &Silent).is_err());
    }
    // A lifted source is a source like any other.
    let lift = Lift::new(3, 4.0).unwrap();
    let source = DenseRows::new(&case.rows, 3).unwrap();
    let lifted_source = LiftedRows::new(&source, &lift).unwrap();
    let mut lifted_x = Mat::zeros(2, 6);
    lift.lift_rows(x.transpose().as_slice(), lifted_x.as_mut_slice());
    let squares = abs_power_sums_of(&lifted_source, &lifted_x.transpose(), 2.0, &Silent).unwrap();
    for (a, b) in squares.iter().zip(abs_power_sums(&case.table(), &x, 4.0)) {
        assert!((a / b - 1.0).abs() < 1e-12);
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let case = Case::new(20_000, 4, 500.0, 12);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let config = Search { starts: 16, iterations: 10, label: true };
            let found = search(&case.table(), &case.sampled(), 1.0, &config, "all rows", 3, &Silent).unwrap();
            (found.certificate, found.directions)
        })
    };
    assert_eq!(on(1), on(2));
}

#[test]
fn bad_input_is_an_error() {
    let case = Case::new(100, 3, 50.0, 13);
    let run = |p: f64, observer: &dyn Observer| {
        search(&case.table(), &case.sampled(), p, &Search::default(), "all rows", 0, observer)
    };
    assert!(matches!(run(0.5, &Silent), Err(Error::Parameter { name: "p", .. })));
    struct Stop;
    impl Observer for Stop {
        fn event(&self, _: Event<'_>) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    assert!(matches!(run(1.0, &Stop), Err(Error::Cancelled)));
    let narrow = WeightedTable::new(&[1.0, 2.0], 2, None).unwrap();
    assert!(matches!(
        search(&case.table(), &narrow, 1.0, &Search::default(), "all rows", 0, &Silent),
        Err(Error::Shape { .. })
    ));
    let zero = WeightedTable::new(&[0.0; 6], 3, None).unwrap();
    assert!(matches!(
        search(&zero, &case.sampled(), 1.0, &Search::default(), "all rows", 0, &Silent),
        Err(Error::AllZero)
    ));
    assert!(exact_certificate(&case.whitener(), &narrow, 100).is_err());
    assert!(WeightedTable::new(&[1.0, 2.0], 2, Some(&[-1.0])).is_err());
    assert!(WeightedTable::new(&[1.0, 2.0], 2, Some(&[])).is_err());
    assert!(WeightedTable::new(&[1.0, f64::NAN], 2, None).is_err());
    assert!(WeightedTable::new(&[], 0, None).is_err());
}
