//! Laws of the one-pass sample.

mod common;

use common::{Chunked, SILENT, gaussian, heavy, on_threads, rare_columns};
use subspan::rows::{Records, RowBlock, RowIds};
use subspan::sample::{self, Config, Draw, MergeReduce, Rule, Size};
use subspan::{DenseRows, Error, Result, Sample};

fn config(p: f64, rows: u64, rule: Rule) -> Config {
    Config { rule, ..Config::rows(p, rows) }
}

fn one_pass(values: &[f64], d: usize, config: &Config, seed: u64) -> Sample {
    sample::run_one_pass(&DenseRows::new(values, d).expect("a table"), config, seed, SILENT).expect("a sample")
}

fn worst(s: &Sample) -> f64 {
    let c = s.certificate.as_ref().expect("a certificate");
    c.upper.max(-c.lower)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn weights_are_unbiased_through_many_reductions() {
    // Leaves hold 60 rows: seven of them, merged on three levels, then thinned to 15 rows.
    let (n, d, seeds) = (420, 2, 2000);
    let values = heavy(n, d, 1);
    let f: Vec<f64> = values.chunks_exact(d).enumerate().map(|(i, r)| r[0].abs() + (i % 3) as f64 + 0.1).collect();
    let truth: f64 = f.iter().sum();
    for (p, rule) in [(2.0, Rule::Leverage), (1.0, Rule::RootLeverage), (1.0, Rule::Lewis), (3.0, Rule::Lewis)] {
        let config = config(p, 15, rule);
        let estimates: Vec<f64> = (0..seeds)
            .map(|seed| {
                let s = one_pass(&values, d, &config, seed);
                s.row_ids.iter().zip(&s.weights).map(|(i, w)| w * f[*i as usize]).sum()
            })
            .collect();
        let mean = estimates.iter().sum::<f64>() / seeds as f64;
        let sd = (estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (seeds - 1) as f64).sqrt();
        let error = (mean - truth) / (sd / (seeds as f64).sqrt());
        assert!(error.abs() < 4.0, "{rule} p={p}: {error:.2} standard errors");
    }
}

#[test]
fn one_pass_costs_at_most_twice_the_distortion_of_two() {
    let (n, d, m) = (40_000, 8, 400);
    for values in [gaussian(n, d, 2), heavy(n, d, 3)] {
        let table = DenseRows::new(&values, d).expect("a table");
        let config = config(2.0, m, Rule::Auto);
        let two: Vec<f64> =
            (0..15).map(|seed| worst(&sample::run(&table, &config, seed, SILENT).expect("a sample"))).collect();
        let one: Vec<f64> = (0..15).map(|seed| worst(&one_pass(&values, d, &config, seed))).collect();
        let (one, two) = (median(one), median(two));
        assert!(one < 2.0 * two, "{one} in one pass, {two} in two");
    }
}

#[test]
fn blocks_and_threads_do_not_change_a_bit_but_the_order_of_rows_does() {
    let (n, d) = (10_000, 3);
    let values = heavy(n, d, 4);
    let config = config(1.0, 100, Rule::Auto);
    let whole = on_threads(1, || one_pass(&values, d, &config, 0));
    assert!(whole.row_ids.is_sorted());
    for chunk_rows in [1, 37, 5000] {
        let source = Chunked { values: &values, n_cols: d, chunk_rows };
        let cut = on_threads(2, || sample::run_one_pass(&source, &config, 0, SILENT)).expect("a sample");
        assert_eq!((&cut.row_ids, &cut.weights, &cut.summary), (&whole.row_ids, &whole.weights, &whole.summary));
    }
    let mut reversed = MergeReduce::new(d, &config, 0).expect("a stream");
    for (i, row) in values.chunks(d).enumerate().rev() {
        let ids = RowIds::From(i as u64);
        reversed.push(&RowBlock { n_cols: d, values: row, ids, records: None }).expect("a row");
    }
    // Keyed uniforms keep mostly the same rows in any order, but their weights differ.
    let reversed = reversed.finish().expect("a sample");
    assert!(reversed.weights.iter().rev().ne(&whole.weights));
    assert!(whole.summary.order_dependent);
    assert_ne!(one_pass(&values, d, &config, 1).row_ids, whole.row_ids);
}

#[test]
fn the_size_and_the_counts_are_right() {
    let (n, d, m) = (20_000, 4, 300);
    let mut values = gaussian(n, d, 5);
    values[..100 * d].fill(0.0);
    for p in [1.0, 2.0, 4.0] {
        let s = one_pass(&values, d, &config(p, m, Rule::Auto), 0);
        assert_eq!((s.summary.rows_in, s.summary.zero_rows, s.summary.rank), (n as u64, 100, d));
        assert!((s.summary.rows_expected / m as f64 - 1.0).abs() < 1e-6);
        assert!((s.row_ids.len() as f64 - m as f64).abs() < 5.0 * (m as f64).sqrt(), "{} rows", s.row_ids.len());
        assert_eq!(s.certificate.is_some(), p == 2.0);
        for (k, id) in s.row_ids.iter().enumerate() {
            let i = *id as usize;
            assert_eq!(s.rows.row(k), &values[i * d..(i + 1) * d]);
            assert!(s.weights[k] >= 1.0);
        }
    }
}

#[test]
fn a_short_stream_is_returned_whole() {
    let values = heavy(50, 3, 6);
    let s = one_pass(&values, 3, &config(2.0, 60, Rule::Auto), 0);
    assert_eq!(s.row_ids, (0..50).collect::<Vec<_>>());
    assert!(s.weights.iter().all(|w| *w == 1.0) && worst(&s) < 1e-12);
}

#[test]
fn rare_columns_survive_in_every_seed() {
    let (n, d) = (20_000, 6);
    let values = rare_columns(n, d, 2, 8, 7);
    for p in [1.0, 2.0] {
        for seed in 0..20 {
            let s = one_pass(&values, d, &config(p, 200, Rule::Auto), seed);
            for column in d - 2..d {
                assert!(s.rows.col(column).iter().any(|v| *v != 0.0), "p = {p}, seed {seed}: column {column} is lost");
            }
        }
    }
}

#[test]
fn records_follow_their_rows() {
    struct Names(u64);
    impl Records for Names {
        fn encode(&self, rows: &[usize]) -> Result<Vec<Box<[u8]>>> {
            Ok(rows.iter().map(|i| (self.0 + *i as u64).to_le_bytes().into()).collect())
        }
    }
    let (n, d) = (3000, 2);
    let mut values = heavy(n, d, 8);
    values[2 * d..5 * d].fill(0.0);
    let mut stream = MergeReduce::new(d, &config(2.0, 40, Rule::Auto), 0).expect("a stream");
    for (k, block) in values.chunks(70 * d).enumerate() {
        let first = 70 * k as u64;
        let names = Names(first);
        let block = RowBlock { n_cols: d, values: block, ids: RowIds::From(first), records: Some(&names) };
        stream.push(&block).expect("a block");
    }
    let s = stream.finish().expect("a sample");
    assert_eq!(s.records.len(), s.row_ids.len());
    assert!(s.records.iter().zip(&s.row_ids).all(|(r, id)| r[..] == id.to_le_bytes()));
}

#[test]
fn what_one_pass_cannot_do_is_an_error() {
    let new = |config: &Config| MergeReduce::new(2, config, 0);
    for rule in [Rule::Uniform, Rule::Sensitivity, Rule::SensitivityLeverage, Rule::Paper] {
        assert!(matches!(new(&config(1.0, 10, rule)), Err(Error::Parameter { name: "rule", .. })));
    }
    let other_draw = Config { draw: Draw::Priority, ..config(2.0, 10, Rule::Auto) };
    assert!(matches!(new(&other_draw), Err(Error::Parameter { name: "draw", .. })));
    let floor = Config { loss_floor: true, ..config(1.0, 10, Rule::Auto) };
    assert!(matches!(new(&floor), Err(Error::Parameter { name: "loss_floor", .. })));
    assert!(matches!(new(&config(0.5, 10, Rule::Auto)), Err(Error::Parameter { name: "p", .. })));
    assert!(matches!(new(&config(2.0, 0, Rule::Auto)), Err(Error::Parameter { name: "rows", .. })));
    assert!(new(&Config { size: Size::Epsilon(0.2), ..config(1.0, 1, Rule::Auto) }).is_ok());
    assert!(MergeReduce::new(0, &config(2.0, 10, Rule::Auto), 0).is_err());

    let mut stream = new(&config(2.0, 10, Rule::Auto)).expect("a stream");
    let wide = RowBlock { n_cols: 3, values: &[1.0; 3], ids: RowIds::From(0), records: None };
    assert!(matches!(stream.push(&wide), Err(Error::Shape { .. })));
    assert!(matches!(stream.finish(), Err(Error::Empty { what: "rows" })));
    let mut stream = new(&config(2.0, 10, Rule::Auto)).expect("a stream");
    let zero = RowBlock { n_cols: 2, values: &[0.0; 4], ids: RowIds::From(0), records: None };
    stream.push(&zero).expect("zero rows");
    assert!(matches!(stream.finish(), Err(Error::AllZero)));
}

#[test]
fn collinear_columns_are_sampled_but_not_certified() {
    let plane = heavy(5000, 2, 9);
    let values: Vec<f64> = plane.chunks(2).flat_map(|a| [a[0], a[1], a[0] - a[1]]).collect();
    let s = one_pass(&values, 3, &config(2.0, 100, Rule::Auto), 0);
    assert!(s.certificate.is_none() && s.summary.warnings.iter().any(|w| w.contains("collinear")));
    assert!((s.row_ids.len() as f64 - 100.0).abs() < 50.0);
}
