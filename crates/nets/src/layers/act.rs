//! Elementwise functions.

use subspan_linalg::Real;

use crate::graph::Activation;

/// The function, in place.
pub(crate) fn forward<T: Real>(x: &mut [T], function: Activation) {
    match function {
        Activation::Relu => {
            let zero = T::default();
            x.iter_mut().for_each(|v| *v = if *v > zero { *v } else { zero });
        }
        _ => x.iter_mut().for_each(|v| *v = T::from_f64(value(function, v.to_f64()))),
    }
}

/// `dy` times the derivative at `x`, in place.
pub(crate) fn backward<T: Real>(x: &[T], dy: &mut [T], function: Activation) {
    match function {
        Activation::Relu => {
            let zero = T::default();
            dy.iter_mut().zip(x).for_each(|(d, x)| *d = if *x > zero { *d } else { zero });
        }
        _ => dy.iter_mut().zip(x).for_each(|(d, x)| *d = *d * T::from_f64(slope(function, x.to_f64()))),
    }
}

/// `√(2/π)` and the cubic coefficient of the tanh form of GELU (Hendrycks and Gimpel, arXiv 1606.08415).
const GELU: [f64; 2] = [0.797_884_560_802_865_4, 0.044_715];

fn value(function: Activation, x: f64) -> f64 {
    match function {
        Activation::Relu => x.max(0.0),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + (GELU[0] * (x + GELU[1] * x * x * x)).tanh()),
    }
}

fn slope(function: Activation, x: f64) -> f64 {
    match function {
        Activation::Relu => f64::from(u8::from(x > 0.0)),
        Activation::Tanh => 1.0 - x.tanh().powi(2),
        Activation::Sigmoid => {
            let s = value(function, x);
            s * (1.0 - s)
        }
        Activation::Gelu => {
            let t = (GELU[0] * (x + GELU[1] * x * x * x)).tanh();
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * GELU[0] * (1.0 + 3.0 * GELU[1] * x * x)
        }
    }
}
