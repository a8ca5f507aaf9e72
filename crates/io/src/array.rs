//! A numeric array in a file: where its bytes are, and how rows of it become numbers.

use half::{bf16, f16};

use crate::bytes::ByteSource;
use crate::error::{IoError, Result};

/// Storage type of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)] // The names say it.
pub enum DType {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The name NumPy and safetensors users know, e.g. `f32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// Whether single precision holds every value.
    pub(crate) fn fits_f32(self) -> bool {
        !matches!(self, Self::U32 | Self::U64 | Self::I32 | Self::I64 | Self::F64)
    }

    /// Whether values may be non-finite.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }
}

/// An array whose bytes stay where they are until rows are asked for.
#[derive(Debug, Clone)]
pub(crate) struct StoredArray {
    /// As the user named it, for errors.
    pub(crate) path: String,
    pub(crate) source: ByteSource,
    /// Where in `source` the first element is.
    pub(crate) offset: u64,
    pub(crate) dtype: DType,
    pub(crate) big_endian: bool,
    /// Column-major.
    pub(crate) fortran: bool,
    /// At least one dimension; [`StoredArray::check`] proved that its bytes are there.
    pub(crate) shape: Vec<u64>,
}

impl StoredArray {
    /// Checks that the shape is one of at least one dimension, does not overflow and fills the source exactly.
    pub(crate) fn check(self) -> Result<Self> {
        let count = element_count(&self.shape).and_then(|n| n.checked_mul(self.dtype.size() as u64));
        let available = self.source.len().saturating_sub(self.offset);
        match count {
            _ if self.shape.is_empty() => Err(IoError::unsupported(&self.path, "a single number, not an array")),
            None => Err(IoError::corrupt(&self.path, "header", format!("impossible shape {:?}", self.shape))),
            Some(bytes) if bytes > available => Err(IoError::corrupt(
                &self.path,
                "data",
                format!("truncated: {bytes} bytes declared, {available} present"),
            )),
            Some(bytes) if bytes < available => Err(IoError::corrupt(
                &self.path,
                "data",
                format!("{} bytes follow the declared array", available - bytes),
            )),
            Some(_) => Ok(self),
        }
    }

    /// First dimension.
    pub(crate) fn n_rows(&self) -> u64 {
        self.shape[0]
    }

    /// Product of the other dimensions.
    pub(crate) fn n_cols(&self) -> usize {
        // `check` proved that the product fits; an empty array may have absurd other dimensions.
        element_count(&self.shape[1..]).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX)
    }

    /// The bytes of `n` rows from `first`, row-major in the array's own element type.
    pub(crate) fn read_raw(&self, first: u64, n: usize, out: &mut Vec<u8>) -> Result<()> {
        let (size, n_cols) = (self.dtype.size(), self.n_cols());
        let row_bytes = n_cols * size;
        out.resize(n * row_bytes, 0);
        let fail = |e| IoError::read(&self.path, "data")(e);
        if !self.fortran {
            return self.source.read_exact_at(out, self.offset + first * row_bytes as u64).map_err(fail);
        }
        let mut column = vec![0; n * size];
        for (j, stored) in self.stored_columns().enumerate() {
            let start = (stored as u64 * self.n_rows() + first) * size as u64;
            self.source.read_exact_at(&mut column, self.offset + start).map_err(fail)?;
            for (i, element) in column.chunks_exact(size).enumerate() {
                out[i * row_bytes + j * size..][..size].copy_from_slice(element);
            }
        }
        Ok(())
    }

    /// For each column in row-major order of the trailing dimensions, its place in column-major order.
    fn stored_columns(&self) -> impl Iterator<Item = usize> {
        let dims: Vec<usize> = self.shape[1..].iter().map(|d| *d as usize).collect();
        (0..self.n_cols()).map(move |mut j| {
            let mut digits = vec![0; dims.len()];
            for (digit, d) in digits.iter_mut().zip(&dims).rev() {
                *digit = j % d;
                j /= d;
            }
            digits.iter().zip(&dims).rev().fold(0, |place, (digit, d)| place * d + digit)
        })
    }

    /// Whether the bytes of rows are those of `f64` in memory, row-major.
    pub(crate) fn is_native(&self) -> bool {
        self.dtype == DType::F64 && !self.fortran && self.big_endian == cfg!(target_endian = "big")
    }

    /// `n` rows from `first` as `f64`, row-major; `scratch` is reused between calls.
    pub(crate) fn read_f64(&self, first: u64, n: usize, scratch: &mut Vec<u8>, out: &mut Vec<f64>) -> Result<()> {
        out.resize(n * self.n_cols(), 0.0);
        if self.is_native() {
            let start = self.offset + first * (8 * self.n_cols() as u64);
            let fail = |e| IoError::read(&self.path, "data")(e);
            return self.source.read_exact_at(bytemuck::cast_slice_mut(out), start).map_err(fail);
        }
        self.read_raw(first, n, scratch)?;
        decode(self.dtype, self.big_endian, scratch, out);
        Ok(())
    }
}

/// Product of the dimensions, unless it overflows.
fn element_count(shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(1_u64, |n, d| n.checked_mul(*d))
}

/// Elements as `f64`. 64-bit integers beyond 2^53 are rounded.
pub(crate) fn decode(dtype: DType, big_endian: bool, bytes: &[u8], out: &mut [f64]) {
    macro_rules! each {
        ($size:literal, $le:expr, $be:expr) => {{
            let elements = bytes.as_chunks::<$size>().0;
            if big_endian {
                out.iter_mut().zip(elements).for_each(|(o, b)| *o = $be(*b))
            } else {
                out.iter_mut().zip(elements).for_each(|(o, b)| *o = $le(*b))
            }
        }};
    }
    macro_rules! number {
        ($size:literal, $type:ty) => {
            each!($size, |b| <$type>::from_le_bytes(b) as f64, |b| <$type>::from_be_bytes(b) as f64)
        };
    }
    match dtype {
        DType::Bool => each!(1, |b: [u8; 1]| f64::from(b[0] != 0), |b: [u8; 1]| f64::from(b[0] != 0)),
        DType::U8 => number!(1, u8),
        DType::I8 => number!(1, i8),
        DType::U16 => number!(2, u16),
        DType::I16 => number!(2, i16),
        DType::U32 => number!(4, u32),
        DType::I32 => number!(4, i32),
        DType::U64 => number!(8, u64),
        DType::I64 => number!(8, i64),
        DType::F32 => number!(4, f32),
        DType::F64 => number!(8, f64),
        DType::F16 => each!(2, |b| f16::from_le_bytes(b).to_f64(), |b| f16::from_be_bytes(b).to_f64()),
        DType::BF16 => each!(2, |b| bf16::from_le_bytes(b).to_f64(), |b| bf16::from_be_bytes(b).to_f64()),
    }
}
