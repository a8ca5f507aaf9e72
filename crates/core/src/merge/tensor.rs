//! Tensors of a checkpoint as bytes with a shape: what a file holds, what a merge writes.

use half::{bf16, f16};
use subspan_linalg::bf16::round;

/// How the elements of a tensor are stored, always little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// Double precision.
    F64,
    /// Single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// Anything else (integers, booleans, 8-bit floats): elements that can be moved and compared, not computed with.
    Opaque {
        /// The file format's name of the type.
        name: &'static str,
        /// Bytes of an element.
        size: usize,
    },
}

impl DType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Opaque { size, .. } => size,
        }
    }

    /// Whether elements are numbers this crate computes with.
    pub fn is_float(self) -> bool {
        !matches!(self, Self::Opaque { .. })
    }

    /// The name in safetensors files.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Opaque { name, .. } => name,
        }
    }
}

/// A tensor in someone else's memory (often a mapped file): row-major bytes, in no particular alignment.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Its name in the checkpoint.
    pub name: &'a str,
    /// How elements are stored.
    pub dtype: DType,
    /// Length of every axis; empty for a scalar.
    pub shape: &'a [usize],
    /// `product(shape) · dtype.size()` bytes, row-major, little-endian.
    pub data: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// All elements in single precision. Cost: one pass.
    ///
    /// # Panics
    /// If the elements are not floating numbers ([`DType::is_float`]).
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n_elements()];
        widen_f32(self.dtype, self.data, &mut out);
        out
    }

    /// All elements in double precision. Cost: one pass.
    ///
    /// # Panics
    /// If the elements are not floating numbers.
    pub fn to_f64(&self) -> Vec<f64> {
        let mut out = vec![0.0; self.n_elements()];
        widen_f64(self.dtype, self.data, &mut out);
        out
    }

    /// A copy that owns its bytes.
    pub fn to_owned(&self) -> Tensor {
        Tensor { dtype: self.dtype, shape: self.shape.to_vec(), data: self.data.to_vec() }
    }
}

/// A tensor that owns its bytes; see [`TensorView`] for the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// How elements are stored.
    pub dtype: DType,
    /// Length of every axis.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<u8>,
}

impl Tensor {
    /// A tensor of these values, stored as `dtype`.
    ///
    /// # Panics
    /// If the number of values is not the product of the shape, or `dtype` is no floating type.
    ///
    /// ```
    /// use subspan::merge::{DType, Tensor};
    /// let t = Tensor::from_f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0], DType::BF16);
    /// assert_eq!((t.data.len(), t.view("w").to_f32()), (8, vec![1.0, 2.0, 3.0, 4.0]));
    /// ```
    pub fn from_f32(shape: &[usize], values: &[f32], dtype: DType) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "one value per element");
        let mut data = vec![0; values.len() * dtype.size()];
        narrow_f32(dtype, values, &mut data);
        Self { dtype, shape: shape.to_vec(), data }
    }

    /// The tensor under a name.
    pub fn view<'a>(&'a self, name: &'a str) -> TensorView<'a> {
        TensorView { name, dtype: self.dtype, shape: &self.shape, data: &self.data }
    }
}

/// Elements of `data` in single precision.
///
/// # Panics
/// If `out` has another number of elements or `dtype` is no floating type.
pub fn widen_f32(dtype: DType, data: &[u8], out: &mut [f32]) {
    assert_eq!(data.len(), out.len() * dtype.size(), "one value per element");
    match dtype {
        DType::F32 => {
            for (o, b) in out.iter_mut().zip(data.as_chunks().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
        DType::F64 => {
            for (o, b) in out.iter_mut().zip(data.as_chunks().0) {
                *o = f64::from_le_bytes(*b) as f32;
            }
        }
        DType::BF16 => {
            for (o, b) in out.iter_mut().zip(data.as_chunks().0) {
                *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
        DType::F16 => {
            for (o, b) in out.iter_mut().zip(data.as_chunks().0) {
                *o = f16::from_le_bytes(*b).to_f32();
            }
        }
        DType::Opaque { name, .. } => panic!("{name} is no floating type"),
    }
}

/// Elements of `data` in double precision.
///
/// # Panics
/// If `out` has another number of elements or `dtype` is no floating type.
pub fn widen_f64(dtype: DType, data: &[u8], out: &mut [f64]) {
    assert_eq!(data.len(), out.len() * dtype.size(), "one value per element");
    match dtype {
        DType::F32 => {
            for (o, b) in out.iter_mut().zip(data.as_chunks().0) {
                *o = f32::from_le_bytes(*b).into();
            }
        }
        DType::F64 => {
            for (o, b) in out.iter_mut().zip(data.as_chunks().0) {
                *o = f64::from_le_bytes(*b);
            }
        }
        DType::BF16 => {
            for (o, b) in out.iter_mut().zip(data.as_chunks().0) {
                *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16).into();
            }
        }
        DType::F16 => {
            for (o, b) in out.iter_mut().zip(data.as_chunks().0) {
                *o = f16::from_le_bytes(*b).to_f64();
            }
        }
        DType::Opaque { name, .. } => panic!("{name} is no floating type"),
    }
}

/// Stores single-precision values as `dtype`, each rounded once to the nearest.
///
/// # Panics
/// If `out` has another number of elements or `dtype` is no floating type.
pub fn narrow_f32(dtype: DType, values: &[f32], out: &mut [u8]) {
    assert_eq!(out.len(), values.len() * dtype.size(), "one element per value");
    match dtype {
        DType::F32 => {
            for (b, v) in out.as_chunks_mut().0.iter_mut().zip(values) {
                *b = v.to_le_bytes();
            }
        }
        DType::F64 => {
            for (b, v) in out.as_chunks_mut().0.iter_mut().zip(values) {
                *b = f64::from(*v).to_le_bytes();
            }
        }
        DType::BF16 => {
            for (b, v) in out.as_chunks_mut().0.iter_mut().zip(values) {
                *b = round(*v).to_le_bytes();
            }
        }
        DType::F16 => {
            for (b, v) in out.as_chunks_mut().0.iter_mut().zip(values) {
                *b = f16::from_f32(*v).to_le_bytes();
            }
        }
        DType::Opaque { name, .. } => panic!("{name} is no floating type"),
    }
}

/// Stores double-precision values as `dtype`, each rounded once to the nearest.
///
/// # Panics
/// If `out` has another number of elements or `dtype` is no floating type.
pub fn narrow_f64(dtype: DType, values: &[f64], out: &mut [u8]) {
    assert_eq!(out.len(), values.len() * dtype.size(), "one element per value");
    match dtype {
        DType::F32 => {
            for (b, v) in out.as_chunks_mut().0.iter_mut().zip(values) {
                *b = (*v as f32).to_le_bytes();
            }
        }
        DType::F64 => {
            for (b, v) in out.as_chunks_mut().0.iter_mut().zip(values) {
                *b = v.to_le_bytes();
            }
        }
        DType::BF16 => {
            for (b, v) in out.as_chunks_mut().0.iter_mut().zip(values) {
                *b = bf16::from_f64(*v).to_le_bytes();
            }
        }
        DType::F16 => {
            for (b, v) in out.as_chunks_mut().0.iter_mut().zip(values) {
                *b = f16::from_f64(*v).to_le_bytes();
            }
        }
        DType::Opaque { name, .. } => panic!("{name} is no floating type"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_rounds_to_the_nearest_and_widening_is_exact() {
        let values =
            [0.0f32, -0.0, 1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 3.1e38, f32::INFINITY, f32::NAN, 1e-41, -7.7];
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
            let mut bytes = vec![0; values.len() * dtype.size()];
            narrow_f32(dtype, &values, &mut bytes);
            let mut wide = vec![0f32; values.len()];
            widen_f32(dtype, &bytes, &mut wide);
            let mut again = vec![0; bytes.len()];
            narrow_f32(dtype, &wide, &mut again);
            assert_eq!(bytes, again, "{dtype:?}");
            let mut wider = vec![0f64; values.len()];
            widen_f64(dtype, &bytes, &mut wider);
            assert!(wide.iter().zip(&wider).all(|(a, b)| f64::from(*a).to_bits() == b.to_bits() || a.is_nan()));
            narrow_f64(dtype, &wider, &mut again);
            assert_eq!(bytes, again, "{dtype:?}");
        }
        for v in values {
            assert_eq!(round(v), bf16::from_f32(v).to_bits(), "{v}");
        }
    }
}
