//! NumPy arrays as outputs: `.npy`, version 1.

use std::io::{self, Write};

use crate::atomic::AtomicFile;
use crate::error::{IoError, Result};

/// Headers end on a multiple of this, so that data can be mapped; the format's own rule.
const ALIGNMENT: usize = 64;

/// Writes single-precision values of the given shape, row-major.
///
/// # Errors
/// [`IoError::Write`].
///
/// # Panics
/// If the shape does not have that many values.
pub fn write_npy_f32(values: &[f32], shape: &[usize], file: AtomicFile) -> Result<()> {
    assert_eq!(values.len(), shape.iter().product::<usize>(), "values of shape {shape:?}");
    write(file, "<f4", shape, values.iter().map(|v| v.to_le_bytes()))
}

/// Rows of single-precision values, written as they come: for more rows than memory holds.
#[derive(Debug)]
pub struct NpyRows {
    file: AtomicFile,
    /// Values still to come.
    left: usize,
}

impl NpyRows {
    /// Begins an array of this shape.
    ///
    /// # Errors
    /// [`IoError::Write`].
    pub fn begin(mut file: AtomicFile, n_rows: usize, n_cols: usize) -> Result<Self> {
        put(&mut file, [header("<f4", &[n_rows, n_cols])])?;
        Ok(Self { file, left: n_rows * n_cols })
    }

    /// The next values.
    ///
    /// # Errors
    /// [`IoError::Write`].
    ///
    /// # Panics
    /// If they are more than the array has left.
    pub fn add(&mut self, values: &[f32]) -> Result<()> {
        assert!(values.len() <= self.left, "{} values too many", values.len() - self.left);
        self.left -= values.len();
        put(&mut self.file, values.iter().map(|v| v.to_le_bytes()))
    }

    /// Gives the whole array its name.
    ///
    /// # Errors
    /// [`IoError::Write`].
    ///
    /// # Panics
    /// If values are missing.
    pub fn finish(self) -> Result<()> {
        assert_eq!(self.left, 0, "values still to come");
        self.file.commit()
    }
}

/// Writes 64-bit integers, one per sample.
///
/// # Errors
/// [`IoError::Write`].
pub fn write_npy_i64(values: impl ExactSizeIterator<Item = i64>, file: AtomicFile) -> Result<()> {
    write(file, "<i8", &[values.len()], values.map(i64::to_le_bytes))
}

/// Writes one class name per sample: as 64-bit integers if every name is one, else as text.
///
/// # Errors
/// [`IoError::Write`].
///
/// # Panics
/// If a code names no class.
pub fn write_npy_labels(codes: &[u32], classes: &[String], file: AtomicFile) -> Result<()> {
    let integers: Option<Vec<i64>> =
        classes.iter().map(|c| c.parse().ok().filter(|i: &i64| i.to_string() == *c)).collect();
    if let Some(integers) = integers {
        return write(file, "<i8", &[codes.len()], codes.iter().map(|c| integers[*c as usize].to_le_bytes()));
    }
    let width = classes.iter().map(|c| c.chars().count()).max().unwrap_or(0).max(1);
    let padded = |class: &String| -> Vec<u8> {
        let units = class.chars().map(u32::from).chain(std::iter::repeat(0)).take(width);
        units.flat_map(u32::to_le_bytes).collect()
    };
    let names: Vec<Vec<u8>> = classes.iter().map(padded).collect();
    write(file, &format!("<U{width}"), &[codes.len()], codes.iter().map(|c| &names[*c as usize]))
}

/// The bytes before the values.
pub(crate) fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let dims: String = shape.iter().map(|d| format!("{d}, ")).collect();
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    const PREFIX: usize = 10;
    let padding = ALIGNMENT - (PREFIX + text.len() + 1) % ALIGNMENT;
    text.extend(std::iter::repeat_n(' ', padding % ALIGNMENT));
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
    out
}

fn write(
    mut file: AtomicFile,
    descr: &str,
    shape: &[usize],
    values: impl Iterator<Item = impl AsRef<[u8]>>,
) -> Result<()> {
    put(&mut file, [header(descr, shape)])?;
    put(&mut file, values)?;
    file.commit()
}

/// Appends pieces of bytes.
fn put(file: &mut AtomicFile, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<()> {
    let path = file.target().display().to_string();
    let mut out = io::BufWriter::new(file);
    let written = pieces.into_iter().try_for_each(|piece| out.write_all(piece.as_ref()));
    written.and_then(|()| out.flush()).map_err(IoError::write(&path))
}
