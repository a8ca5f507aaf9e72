//! Powers of non-negative numbers with one exponent for many of them: the cheap exponents take no `powf`.

/// `x ↦ x^p` for `x ≥ 0`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Power {
    p: f64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Zero,
    Half,
    One,
    OneHalf,
    Two,
    Three,
    Four,
    Other,
}

impl Power {
    pub(crate) fn new(p: f64) -> Self {
        let kinds = [
            (0.0, Kind::Zero),
            (0.5, Kind::Half),
            (1.0, Kind::One),
            (1.5, Kind::OneHalf),
            (2.0, Kind::Two),
            (3.0, Kind::Three),
            (4.0, Kind::Four),
        ];
        let kind = kinds.iter().find(|(q, _)| *q == p).map_or(Kind::Other, |(_, kind)| *kind);
        Self { p, kind }
    }

    /// `x^p`.
    #[inline]
    pub(crate) fn of(self, x: f64) -> f64 {
        match self.kind {
            Kind::Zero => 1.0,
            Kind::Half => x.sqrt(),
            Kind::One => x,
            Kind::OneHalf => x * x.sqrt(),
            Kind::Two => x * x,
            Kind::Three => x * x * x,
            Kind::Four => (x * x) * (x * x),
            Kind::Other => x.powf(self.p),
        }
    }
}

/// `(Σ|xᵢ|^p)^(1/p)`, free of overflow and underflow; the largest absolute value for `p = ∞`.
pub(crate) fn norm(x: &[f64], p: f64) -> f64 {
    let largest = x.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if largest == 0.0 || p == f64::INFINITY {
        return largest;
    }
    let power = Power::new(p);
    let sum: f64 = x.iter().map(|v| power.of(v.abs() / largest)).sum();
    largest * sum.powf(p.recip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_agree_with_powf() {
        for p in [0.0, 0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 7.0] {
            for x in [0.25, 1.0, 3.7] {
                assert!((Power::new(p).of(x) / f64::powf(x, p) - 1.0).abs() < 1e-15, "{x}^{p}");
            }
        }
    }

    #[test]
    fn norms_neither_overflow_nor_underflow() {
        assert!((norm(&[3e200, -4e200], 2.0) / 5e200 - 1.0).abs() < 1e-15);
        assert!((norm(&[1e-300; 16], 4.0) / 2e-300 - 1.0).abs() < 1e-14);
        assert_eq!(norm(&[-3.0, 2.0], f64::INFINITY), 3.0);
        assert_eq!(norm(&[0.0], 1.5), 0.0);
    }
}
