#[cfg(test)]
mod tests {
    use crate::draw::Stream;
    use crate::observe::Silent;
    use crate::regress::interior_point::{Problem, solve};

    #[test]
    fn probe() {
        for heavy in [false, true] {
            for (n, d) in [(50_000usize, 20usize), (2000, 5)] {
                let mut rng = Stream::new(1, "x").rng(0);
                let mut m = Vec::new();
                for _ in 0..n {
                    let s = if heavy { (1.0 / rng.uniform()).powf(1.0 / 1.5) } else { 1.0 };
                    let row: Vec<f64> = (0..d).map(|_| s * rng.normal()).collect();
                    let b = row.iter().sum::<f64>() + rng.normal() / rng.uniform();
                    m.extend(row);
                    m.push(b);
                }
                for t in [0.5, 0.1, 0.99] {
                    let now = std::time::Instant::now();
                    let s = solve(&Problem { values: &m, n_cols: d + 1, weights: None, level: t, tolerance: 1e-11 }, None, &Silent)
                        .unwrap();
                    eprintln!("{heavy} n={n} t={t} it={} obj={} gap={:e} {:?}", s.iterations, s.objective,
                        (s.objective - s.lower) / s.objective, now.elapsed());
                }
            }
        }
    }
}
