use super::*;
use crate::simd::test::{for_each_width, noise};

fn reference_rows(rows: &[f64], f: &Mat, upper: bool) -> Vec<f64> {
    let (d, r) = (f.n_rows(), f.n_cols());
    let mut out = vec![0.0; rows.len() / d * r];
    for (row, z) in rows.chunks_exact(d).zip(out.chunks_exact_mut(r)) {
        for j in 0..r {
            let end = if upper { j + 1 } else { d };
            z[j] = (0..end).fold(0.0, |s, k| f64::mul_add(row[k], f[(k, j)], s));
        }
    }
    out
}

/// The documented order: 8 lanes, the last column in the last lane.
fn reference_norms(rows: &[f64], f: &Mat, upper: bool) -> Vec<f64> {
    let r = f.n_cols();
    let norm = |z: &[f64]| {
        let mut lanes = [0.0; LANES];
        for j in 0..r {
            let lane = (j + LANES * r - r) % LANES;
            lanes[lane] = f64::mul_add(z[j], z[j], lanes[lane]);
        }
        join_lanes(&lanes)
    };
    reference_rows(rows, f, upper).chunks_exact(r).map(norm).collect()
}

#[test]
fn every_width_gives_the_bits_of_the_definition() {
    for (d, r) in [(1, 1), (2, 2), (3, 1), (7, 7), (8, 8), (9, 9), (20, 20), (23, 23), (24, 24), (25, 25), (25, 3)]
        .into_iter()
        .chain([(4, 30), (33, 17), (64, 64), (100, 100), (100, 60), (300, 300)])
    {
        for n in [0, 1, 2, 7, 8, 9, 63, 65, 131] {
            let rows = noise(n * d, (d * 1000 + n) as u64);
            // Holds values below the diagonal: `upper` must not read them.
            let f = Mat::from_vec(d, r, noise(d * r, 3));
            for upper in [false, true] {
                if upper && d != r {
                    continue;
                }
                let mapped = reference_rows(&rows, &f, upper);
                let norms = reference_norms(&rows, &f, upper);
                for_each_width(|name, width| {
                    let mut out = vec![f64::NAN; n];
                    let mut panels = Panels::default();
                    width.run(Prepare { factor: &f, upper, panels: &mut panels });
                    width.run(Apply { rows: &rows, panels: &panels, out: Out::Norms(&mut out) });
                    assert!(out == norms, "norms, {name}, {n} x {d} x {r}, upper: {upper}");
                    let mut out = vec![f64::NAN; n * r];
                    width.run(Apply { rows: &rows, panels: &panels, out: Out::Rows(&mut out) });
                    assert!(out == mapped, "rows, {name}, {n} x {d} x {r}, upper: {upper}");
                });
            }
        }
    }
}

#[test]
fn rows_that_are_mostly_zeros_give_the_same_bits() {
    for (n, d, r) in [(700, 129, 129), (300, 462, 462), (300, 300, 77), (1, 128, 128)] {
        let mut rows = noise(n * d, 8);
        for (t, row) in rows.chunks_exact_mut(d).enumerate() {
            // From row 400 on some rows are dense.
            if t < 400 || t % 50 != 0 {
                row.iter_mut().enumerate().filter(|(j, _)| (j + t) % 17 != 0).for_each(|(_, v)| *v = 0.0);
            }
        }
        let f = Mat::from_vec(d, r, noise(d * r, 3));
        for upper in [false, true] {
            if upper && d != r {
                continue;
            }
            let (mapped, norms) = (reference_rows(&rows, &f, upper), reference_norms(&rows, &f, upper));
            for_each_width(|name, width| {
                let (mut out, mut panels) = (vec![f64::NAN; n], Panels::default());
                width.run(Prepare { factor: &f, upper, panels: &mut panels });
                width.run(Apply { rows: &rows, panels: &panels, out: Out::Norms(&mut out) });
                assert!(out == norms, "norms, {name}, {n} x {d} x {r}, upper: {upper}");
                let mut out = vec![f64::NAN; n * r];
                width.run(Apply { rows: &rows, panels: &panels, out: Out::Rows(&mut out) });
                assert!(out == mapped, "rows, {name}, {n} x {d} x {r}, upper: {upper}");
            });
        }
    }
}

#[test]
fn a_row_does_not_know_its_neighbours() {
    let (n, d) = (200, 37);
    let rows = noise(n * d, 1);
    let f = Mat::from_vec(d, d, noise(d * d, 2));
    let mut whole = vec![0.0; n];
    row_norms_sq(&rows, &f, false, &mut whole);
    for (first, last) in [(0, 1), (3, 4), (5, 80), (199, 200), (17, 182)] {
        let mut part = vec![0.0; last - first];
        row_norms_sq(&rows[first * d..last * d], &f, false, &mut part);
        assert_eq!(part, whole[first..last]);
    }
}
