//! The laws of a symmetric doubly stochastic projection.

use proptest::prelude::*;

use super::*;
use crate::draw::Stream;

/// Absolute cosines of random unit rows.
fn cosines(n: usize, d: usize, seed: u64) -> Vec<f64> {
    let stream = Stream::new(seed, "rows");
    let rows: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let mut rng = stream.rng(i as u64);
            let row: Vec<f64> = (0..d).map(|_| rng.normal()).collect();
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.iter().map(|v| v / length).collect()
        })
        .collect();
    let cosine = |i: usize, j: usize| rows[i].iter().zip(&rows[j]).map(|(a, b)| a * b).sum::<f64>().abs();
    (0..n * n).map(|at| cosine((at / n).min(at % n), (at / n).max(at % n))).collect()
}

fn exact() -> Options {
    Options { tolerance: 1e-11, ..Options::default() }
}

#[test]
fn three_rows_without_a_diagonal_share_equally() {
    let p = project(&cosines(3, 4, 1), 3, 0.1, Diagonal::Zero, &exact());
    for (at, g) in p.gamma.iter().enumerate() {
        assert!((g - if at % 4 == 0 { 0.0 } else { 0.5 }).abs() < 1e-9, "{:?}", p.gamma);
    }
}

#[test]
fn a_high_temperature_spreads_evenly_over_the_other_rows() {
    let n = 20;
    let p = project(&cosines(n, 5, 2), n, 1e6, Diagonal::Zero, &exact());
    assert!((0..n * n).all(|at| at / n == at % n || (p.gamma[at] - 1.0 / (n as f64 - 1.0)).abs() < 1e-6));
}

#[test]
fn newton_steps_need_a_third_of_the_products_where_sweeps_stall() {
    let (n, a) = (300, cosines(300, 8, 3));
    let sweeps = Options { sweeps: 100_000, max_products: 100_000, ..Options::default() };
    let plain = project(&a, n, 0.01, Diagonal::Zero, &sweeps).scaling;
    let newton = project(&a, n, 0.01, Diagonal::Zero, &Options { max_products: 100_000, ..Options::default() }).scaling;
    assert!(plain.converged && newton.converged);
    assert!(3 * newton.products <= plain.products, "{} against {}", newton.products, plain.products);
}

#[test]
fn a_row_without_neighbours_is_reported() {
    let kernel = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let scaling = scale(&Dense::new(&kernel, 3), &Options::default());
    assert!(!scaling.converged && scaling.error.is_infinite());
    // A hub: the three others have it as their only neighbour, so no scaling exists.
    let hub: Vec<f64> = (0..16).map(|at| f64::from((at / 4 == 0) != (at % 4 == 0))).collect();
    assert!(!scale(&Dense::new(&hub, 4), &Options::default()).converged);
}

#[test]
fn the_gradient_agrees_with_differences() {
    let n = 14;
    let a = cosines(n, 4, 5);
    let noise = Stream::new(9, "weights");
    let weights: Vec<f64> = (0..n * n).map(|i| noise.uniform(i as u64) - 0.5).collect();
    for diagonal in [Diagonal::Zero, Diagonal::Keep] {
        for eta in [0.3, 0.1] {
            let loss = |a: &[f64]| {
                let gamma = project(a, n, eta, diagonal, &exact()).gamma;
                gamma.iter().zip(&weights).map(|(g, w)| g * w + 0.5 * g * g).sum::<f64>()
            };
            let gamma = project(&a, n, eta, diagonal, &exact()).gamma;
            let upstream: Vec<f64> = gamma.iter().zip(&weights).map(|(g, w)| w + g).collect();
            let gradient = project_gradient(&gamma, n, &upstream, eta);
            let scale = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            for i in 0..n {
                // Offsets of rows and columns change nothing, so the gradient's rows sum to zero.
                assert!(gradient[i * n..(i + 1) * n].iter().sum::<f64>().abs() < 1e-6 * scale.max(1.0));
                for j in (0..=i).step_by(3) {
                    let h = 1e-5;
                    let moved = |by: f64| {
                        let mut b = a.clone();
                        b[i * n + j] += by;
                        if i != j {
                            b[j * n + i] += by;
                        }
                        loss(&b)
                    };
                    let difference = (moved(h) - moved(-h)) / (2.0 * h);
                    let own = gradient[i * n + j] * if i == j { 1.0 } else { 2.0 };
                    assert!((difference - own).abs() < 1e-5 * scale, "{difference} {own} at {i}, {j}, {diagonal:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn projections_are_symmetric_doubly_stochastic_and_blind_to_offsets(
        n in 3usize..40, seed in 0u64..1000, eta in 0.05f64..1.0, keep in any::<bool>(),
    ) {
        let diagonal = if keep { Diagonal::Keep } else { Diagonal::Zero };
        let a = cosines(n, 6, seed);
        let p = project(&a, n, eta, diagonal, &exact());
        prop_assert!(p.scaling.converged);
        for i in 0..n {
            let row = &p.gamma[i * n..(i + 1) * n];
            prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!((0..n).all(|j| row[j] >= 0.0 && row[j].to_bits() == p.gamma[j * n + i].to_bits()));
            prop_assert!(keep || row[i] == 0.0);
        }
        let values = subspan_linalg::eigh(&subspan_linalg::Mat::from_vec(n, n, p.gamma.clone())).unwrap().values;
        prop_assert!(values[0] > -1.0 - 1e-9 && (values[n - 1] - 1.0).abs() < 1e-8);
        let offsets = Stream::new(seed, "offsets");
        let t = |i: usize| offsets.uniform(i as u64);
        let moved: Vec<f64> = (0..n * n).map(|at| a[at] + t(at / n) + t(at % n)).collect();
        let q = project(&moved, n, eta, diagonal, &exact());
        prop_assert!(p.gamma.iter().zip(&q.gamma).all(|(a, b)| (a - b).abs() < 1e-8));
    }

    #[test]
    fn a_kept_diagonal_of_squared_cosines_is_positive_semidefinite(n in 3usize..30, seed in 0u64..1000) {
        let a: Vec<f64> = cosines(n, 6, seed).iter().map(|v| v * v).collect();
        let p = project(&a, n, 0.2, Diagonal::Keep, &exact());
        let values = subspan_linalg::eigh(&subspan_linalg::Mat::from_vec(n, n, p.gamma)).unwrap().values;
        prop_assert!(values[0] > -1e-9);
    }
}

#[test]
fn a_row_of_mass_two_is_two_rows_that_share_it() {
    let n = 12;
    let a: Vec<f64> = cosines(n, 4, 5).iter().map(|a| (a / 0.3).exp()).collect();
    // The last two rows are copies of the first two; the kernel is kept whole, so copies see each other as they see themselves.
    let of = |i: usize| if i < n { i } else { i - n };
    let double: Vec<f64> = (0..(n + 2) * (n + 2)).map(|at| a[of(at / (n + 2)) * n + of(at % (n + 2))]).collect();
    let mass: Vec<f64> = (0..n).map(|i| if i < 2 { 2.0 } else { 1.0 }).collect();
    let found = scale_to(&Dense::new(&a, n), &mass, &exact());
    let apart = scale(&Dense::new(&double, n + 2), &exact());
    assert!(found.converged && apart.converged);
    for i in 0..n {
        assert!((found.log_scale[i].exp() / mass[i] - apart.log_scale[i].exp()).abs() < 1e-9);
    }
}
