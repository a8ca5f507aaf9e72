use super::*;
use crate::simd::test::{for_each_width, noise};

/// The definition, entry by entry.
fn reference(rows: &[f64], d: usize, weights: Option<&[f64]>, gram: &mut [f64]) {
    for (t, row) in rows.chunks_exact(d).enumerate() {
        let s = weights.map_or(1.0, |w| w[t].sqrt());
        for j in 0..d {
            for k in j..d {
                gram[j * d + k] = f64::mul_add(row[j] * s, row[k] * s, gram[j * d + k]);
            }
        }
    }
}

/// One-hot rows beside a few numbers, and now and then a dense row.
fn mostly_zeros(n: usize, d: usize, dense_every: usize) -> Vec<f64> {
    let mut rows = noise(n * d, (d * 1000 + n) as u64);
    for (t, row) in rows.chunks_exact_mut(d).enumerate() {
        let ones = [(7 * t) % (d / 2), d / 2 + (11 * t) % (d / 2)];
        for (j, v) in row.iter_mut().enumerate().filter(|_| t % dense_every != dense_every - 1) {
            *v = if ones.contains(&j) {
                1.0
            } else if j % 41 == 3 {
                *v
            } else {
                0.0
            };
        }
    }
    rows
}

#[test]
fn rows_that_are_mostly_zeros_give_the_same_bits() {
    for (n, d, dense_every) in [(700, 129, 1000), (500, 200, 1000), (900, 462, 300), (3, 128, 1000)] {
        let rows = mostly_zeros(n, d, dense_every);
        let weights: Vec<f64> = noise(n, 5).iter().map(|v| v.max(0.0)).collect();
        let start = noise(d * d, 9);
        for weights in [None, Some(&weights[..])] {
            let mut expected = start.clone();
            reference(&rows, d, weights, &mut expected);
            for_each_width(|name, width| {
                let mut gram = start.clone();
                for columns in [d / 2..d, 0..d / 3, d / 3..d / 2] {
                    let gram = gram.as_mut_ptr();
                    width.run(AddGram { rows: &rows, n_cols: d, weights, gram, columns });
                }
                assert!(gram == expected, "{name}, d = {d}, n = {n}, weighted: {}", weights.is_some());
            });
        }
    }
}

#[test]
fn every_width_gives_the_bits_of_the_definition() {
    for d in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 20, 23, 24, 25, 31, 33, 64, 100, 128, 129, 150, 200] {
        for n in [0, 1, 2, 3, 7, 191, 193, 1000] {
            let rows = noise(n * d, (d * 1000 + n) as u64);
            let weights: Vec<f64> = noise(n, 5).iter().map(|v| v.max(0.0)).collect();
            // The lower triangle holds marks that must survive.
            let start = noise(d * d, 9);
            for weights in [None, Some(&weights[..])] {
                let mut expected = start.clone();
                reference(&rows, d, weights, &mut expected);
                for_each_width(|name, width| {
                    let mut gram = start.clone();
                    for columns in [d / 2..d, 0..d / 3, d / 3..d / 2] {
                        let gram = gram.as_mut_ptr();
                        width.run(AddGram { rows: &rows, n_cols: d, weights, gram, columns });
                    }
                    assert!(gram == expected, "{name}, d = {d}, n = {n}, weighted: {}", weights.is_some());
                });
            }
        }
    }
}
