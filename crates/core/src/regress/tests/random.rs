//! Properties on small random tables.

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
