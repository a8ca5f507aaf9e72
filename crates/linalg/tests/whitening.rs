//! Leverage scores through whitening factors: their laws, and their accuracy on ill-conditioned and rank-deficient tables.

use proptest::prelude::*;
use subspan_linalg::{
    Mat, Whitener, apply, column_scales, par_gram, par_row_norms_sq, precondition, qr_factor, solve_psd, thin_svd,
    whiten,
};

/// About normal values.
fn noise(n_rows: usize, n_cols: usize, seed: u64) -> Mat {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    Mat::from_fn(n_rows, n_cols, |_, _| (0..4).map(|_| uniform()).sum())
}

fn gram(a: &Mat) -> Mat {
    par_gram(a.as_slice(), a.n_cols())
}

fn mapped(a: &Mat, w: &Whitener) -> Mat {
    let mut out = Mat::zeros(a.n_rows(), w.factor.n_cols());
    apply::map_rows(a.as_slice(), &w.factor, out.as_mut_slice());
    out
}

fn refined(a: &Mat) -> Whitener {
    let n = a.n_rows() as u64;
    let first = precondition(&gram(a), n).unwrap();
    first.refine(&gram(&mapped(a, &first)), n).unwrap()
}

fn scores(a: &Mat, w: &Whitener) -> Vec<f64> {
    par_row_norms_sq(a.as_slice(), &w.factor, w.upper)
}

fn row_norms(q: &Mat) -> Vec<f64> {
    (0..q.n_rows()).map(|i| q.row(i).iter().map(|v| v * v).sum()).collect()
}

fn worst(found: &[f64], expected: &[f64]) -> f64 {
    found.iter().zip(expected).map(|(f, e)| (f / e - 1.0).abs()).fold(0.0, f64::max)
}

/// A table of the given condition number, and its leverage scores by construction.
fn planted(n: usize, d: usize, condition: f64, seed: u64) -> (Mat, Vec<f64>) {
    let (u, _) = qr_factor(&noise(n, d, seed)).unwrap();
    let (v, _) = qr_factor(&noise(d, d, seed + 1)).unwrap();
    let us = Mat::from_fn(n, d, |i, j| u[(i, j)] * condition.powf(-(j as f64) / (d as f64 - 1.0)));
    (us.mul(&v.transpose()), row_norms(&u))
}

#[test]
fn one_pass_is_exact_where_it_says_so_and_two_passes_reach_condition_1e10() {
    for seed in 0..4 {
        for exponent in [2, 4, 5, 6, 7, 8, 9, 10] {
            let condition = 10f64.powi(exponent);
            // Rounding the table to f64 alone moves the scores by about this.
            let two = (f64::EPSILON * condition).max(1e-12);
            // The textbook error of one Gram matrix.
            let one = (f64::EPSILON * condition * condition).max(1e-12);
            let (a, expected) = planted(3000, 12, condition, seed);
            let w = whiten(&gram(&a), 3000).unwrap();
            assert_eq!(w.resolved, exponent <= 5, "1e{exponent}");
            if w.resolved {
                let error = worst(&scores(&a, &w), &expected);
                assert!(w.rank == 12 && error <= one, "one pass at 1e{exponent}: {error:e}");
            }
            let w = refined(&a);
            let error = worst(&scores(&a, &w), &expected);
            assert!(w.resolved && w.upper && w.rank == 12 && error <= two, "two passes at 1e{exponent}: {error:e}");
            assert!((w.condition / condition).ln().abs() < 1.0, "1e{exponent} estimated as {:e}", w.condition);
        }
    }
}

#[test]
fn scores_agree_with_householder_qr() {
    for condition in [1e2, 1e6, 1e8] {
        let (a, _) = planted(2000, 20, condition, 9);
        let (q, _) = qr_factor(&a).unwrap();
        // The reference itself moves by the rounding of the data times the condition number.
        assert!(worst(&scores(&a, &refined(&a)), &row_norms(&q)) <= 1e-12 + 20.0 * f64::EPSILON * condition);
    }
}

/// Zero, duplicate and collinear columns, next to columns that are almost so.
fn deficient(n: usize, kind: usize, seed: u64) -> (Mat, usize) {
    let base = noise(n, 4, seed);
    let a = Mat::from_fn(n, 6, |i, j| {
        let r = base.row(i);
        match (kind, j) {
            (_, 0..4) => r[j],
            (0, 4) => 0.0,
            (0, _) => r[1],
            (1, 4) => r[0] + r[1] - 2.0 * r[2],
            (1, _) => 0.3 * r[3],
            // Dependent only without the last digits: full rank.
            (2, 4) => r[0] + r[1] + 1e-9 * (i as f64).sin(),
            (2, _) => r[2] + 1e-7 * (i as f64).cos(),
            // An intercept and one-hot levels that add up to it.
            (_, 4) => 0.1,
            _ => [0.3, 0.0][i % 2] - 0.2,
        }
    });
    let a = if kind == 3 { Mat::from_fn(n, 7, |i, j| if j < 6 { a[(i, j)] } else { [-0.2, 0.1][i % 2] }) } else { a };
    (a, [4, 4, 6, 6][kind])
}

#[test]
fn two_passes_settle_the_rank() {
    for seed in 0..5 {
        for kind in 0..4 {
            let (a, rank) = deficient(2500, kind, seed);
            let w = refined(&a);
            assert_eq!((w.rank, w.factor.n_cols()), (rank, rank), "kind {kind}");
            let sum: f64 = scores(&a, &w).iter().sum();
            assert!((sum - rank as f64).abs() < 1e-8, "kind {kind}: {sum}");
            assert!(!whiten(&gram(&a), 2500).unwrap().resolved || rank == a.n_cols());
        }
    }
}

#[test]
fn zero_columns_alone_need_no_second_pass() {
    let a = Mat::from_fn(300, 3, |i, j| if j == 1 { 0.0 } else { ((i * (j + 3)) as f64).sin() });
    let w = whiten(&gram(&a), 300).unwrap();
    assert!(w.resolved && w.rank == 2);
    assert!((scores(&a, &w).iter().sum::<f64>() - 2.0).abs() < 1e-12);
    let none = whiten(&Mat::zeros(3, 3), 10).unwrap();
    assert!(none.rank == 0 && none.resolved && none.condition == 1.0);
}

#[test]
fn fewer_rows_than_columns_have_leverage_one() {
    let a = noise(5, 9, 3);
    let w = refined(&a);
    assert_eq!(w.rank, 5);
    assert!(scores(&a, &w).iter().all(|t| (t - 1.0).abs() < 1e-9));
}

#[test]
fn columns_of_any_scale() {
    let plain = noise(500, 3, 5);
    for sizes in [[1e150, 1.0, 1e-150], [1e200, 1e-200, 1.0], [1e-300, 1e-290, 1e300]] {
        let a = Mat::from_fn(500, 3, |i, j| plain[(i, j)] * sizes[j]);
        let mut max_abs = [0.0; 3];
        apply::max_abs_columns(a.as_slice(), &mut max_abs);
        let scales = column_scales(&max_abs).expect("these need scaling");
        let mut scaled = vec![0.0; 1500];
        apply::scale_columns(a.as_slice(), &scales, &mut scaled);
        let scaled = Mat::from_vec(500, 3, scaled);
        let w = whiten(&gram(&scaled), 500).unwrap();
        let expected = scores(&plain, &whiten(&gram(&plain), 500).unwrap());
        assert!(worst(&scores(&scaled, &w), &expected) < 1e-12);
    }
}

#[test]
fn non_finite_grams_are_refused() {
    let bad = Mat::from_rows(&[[1.0, f64::NAN], [f64::NAN, 1.0]]);
    assert!(whiten(&bad, 2).is_err() && precondition(&bad, 2).is_err() && solve_psd(&bad, &[1.0, 1.0]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn scores_add_up_to_the_rank_and_ignore_a_change_of_basis(
        n in 30usize..300, d in prop::sample::select(vec![1usize, 2, 7, 8, 9, 23, 24, 25]), seed in 0u64..1000
    ) {
        let a = noise(n.max(d + 5), d, seed);
        let w = whiten(&gram(&a), a.n_rows() as u64).unwrap();
        let s = scores(&a, &w);
        prop_assert!((s.iter().sum::<f64>() - d as f64).abs() < 1e-8);
        prop_assert!(s.iter().all(|t| (0.0..=1.0 + 1e-9).contains(t)));
        let mix = noise(d, d, seed + 7);
        let sizes = thin_svd(&mix).unwrap().s;
        prop_assume!(sizes[0] / sizes[d - 1] < 1e3);
        let b = a.mul(&mix);
        prop_assert!(worst(&scores(&b, &refined(&b)), &s) < 1e-8);
    }

    #[test]
    fn a_singular_system_is_solved_in_its_range(
        d in 1usize..30, rank in 1usize..30, seed in 0u64..1000, stretch in 0i32..12
    ) {
        let rank = rank.min(d);
        let mut root = noise(rank, d, seed);
        // Variables of very different size, as Newton systems have near the end.
        for i in 0..rank {
            for j in 0..d {
                root[(i, j)] *= 10f64.powi(stretch * (j as i32 % 3 - 1));
            }
        }
        let g = gram(&root);
        let x = noise(d, 1, seed + 3).into_vec();
        let b = g.mul_vec(&x);
        let (y, found) = solve_psd(&g, &b).unwrap();
        prop_assert!(found <= d && found >= 1);
        // Compare in the scale of each equation.
        for (i, (b, found)) in b.iter().zip(g.mul_vec(&y)).enumerate() {
            let size: f64 = (0..d).map(|j| (g[(i, j)] * x[j]).abs() + (g[(i, j)] * y[j]).abs()).sum();
            prop_assert!((b - found).abs() <= 1e-6 * size, "{b} {found} of {size}");
        }
    }
}
