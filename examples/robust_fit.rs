//! Fits a line through data with gross outliers: least squares is pulled away, the l1 fit is not, and proves its optimum.
//!
//! `cargo run --release -p subspan --example robust_fit`

use subspan::regress::{self, Config, Loss, Mode};
use subspan::{DenseRows, Silent, draw::Stream};

fn main() -> subspan::Result<()> {
    // Columns x, y with y = 3 + 2 x + noise; every twentieth y is off by a thousand.
    let mut rng = Stream::new(0, "example").rng(0);
    let mut values = Vec::new();
    for i in 0..200_000 {
        let x = 10.0 * rng.uniform();
        let outlier = if i % 20 == 0 { 1000.0 } else { 0.0 };
        values.extend([x, 3.0 + 2.0 * x + rng.normal() + outlier]);
    }
    let table = DenseRows::new(&values, 2)?;
    for loss in [Loss::L2, Loss::L1] {
        let config = Config { loss, mode: Mode::Exact, intercept: true, certify: true };
        let outcome = regress::run(&table, &config, 0, &Silent)?;
        let fit = &outcome.fits[0];
        println!(
            "{:?}: y = {:.3} + {:.3} x, proved within {:.0e} of the optimum",
            config.loss,
            fit.intercept,
            fit.coefficients[0],
            fit.relative_gap.unwrap_or(f64::NAN)
        );
    }
    Ok(())
}
