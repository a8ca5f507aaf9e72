//! Parameters: named arrays of one precision.

use std::collections::BTreeMap;

use subspan_linalg::Real;

/// An array, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<T> {
    /// Size of each dimension; weights are `(out, in)`, kernels `(out, in, height, width)`.
    pub shape: Vec<usize>,
    /// The values, last dimension fastest.
    pub values: Vec<T>,
}

/// The parameters and statistics of a network, by name.
pub type Params<T> = BTreeMap<String, Tensor<T>>;

impl<T: Real> Tensor<T> {
    /// An array of the given shape.
    ///
    /// # Panics
    /// If there is not one value per entry.
    pub fn new(shape: Vec<usize>, values: Vec<T>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "one value per entry of {shape:?}");
        Self { shape, values }
    }

    /// An array of one value throughout.
    pub fn filled(shape: Vec<usize>, value: T) -> Self {
        let n = shape.iter().product();
        Self { shape, values: vec![value; n] }
    }

    /// The same values in another precision.
    pub fn cast<U: Real>(&self) -> Tensor<U> {
        Tensor { shape: self.shape.clone(), values: self.values.iter().map(|v| U::from_f64(v.to_f64())).collect() }
    }
}

/// The same parameters in another precision.
pub fn cast<T: Real, U: Real>(params: &Params<T>) -> Params<U> {
    params.iter().map(|(name, tensor)| (name.clone(), tensor.cast())).collect()
}

/// `(1 − α) a + α b` for every tensor of `a`, computed in double precision and rounded once.
///
/// # Panics
/// If `b` lacks a tensor of `a` or has it in another shape.
///
/// ```
/// use subspan_nets::{Params, Tensor, lerp};
/// let one = |v: f32| Params::from([("w".to_string(), Tensor::new(vec![1], vec![v]))]);
/// assert_eq!(lerp(&one(1.0), &one(3.0), 0.25), one(1.5));
/// ```
pub fn lerp<T: Real>(a: &Params<T>, b: &Params<T>, alpha: f64) -> Params<T> {
    a.iter()
        .map(|(name, x)| {
            let y = &b[name];
            assert_eq!(x.shape, y.shape, "shapes of {name}");
            let mix = |(x, y): (&T, &T)| T::from_f64((1.0 - alpha) * x.to_f64() + alpha * y.to_f64());
            (name.clone(), Tensor { shape: x.shape.clone(), values: x.values.iter().zip(&y.values).map(mix).collect() })
        })
        .collect()
}
