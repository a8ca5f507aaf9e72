//! Matrices: features or images that are taken into memory whole.

use subspan::Error;
use subspan::precision::Rounding;
use subspan::record::InputRecord;
use subspan::rows::RowSource;

use crate::array::StoredArray;
use crate::bytes::fingerprint;
use crate::error::{IoError, Result, own};
use crate::table::{SAMPLE_COLUMNS, SAMPLE_WEIGHT, Table, TableOptions};
use crate::{idx, npy, npz, path_and_part, tensors};

/// Matrix formats, for the hint of an unknown one.
const SUPPORTED: &str = ".npy, .npz:KEY, .safetensors:TENSOR, idx or idx.gz, .parquet";
/// Values converted at a time.
const BLOCK_VALUES: usize = 1 << 18;

/// An array of numbers in a file, one sample per row; further dimensions (of images) are flattened in row-major order.
#[derive(Debug)]
pub struct Matrix {
    path: String,
    file: String,
    shape: Vec<u64>,
    n_rows: usize,
    n_cols: usize,
    content: Content,
    /// Whether the rows are those of a sample, with their weights.
    sampled: bool,
}

#[derive(Debug)]
pub(crate) enum Content {
    Array(StoredArray),
    /// Columns of numbers.
    Table(Box<Table>),
}

impl Matrix {
    /// Opens `path` and reads its header; the values stay in the file until they are asked for (compressed ones are unpacked).
    ///
    /// # Errors
    /// [`IoError`]: no such file or part, malformed, not numbers, no rows or columns.
    pub fn open(path: &str) -> Result<Self> {
        let (file, part) = path_and_part(path, &[".npz:", ".safetensors:"]);
        let lower = file.to_ascii_lowercase();
        let array = if lower.ends_with(".npy") {
            npy::open(file)?
        } else if lower.ends_with(".npz") {
            npz::open(file, part)?
        } else if lower.ends_with(".safetensors") {
            tensors::open(file, part)?
        } else if idx::is_name(file) {
            idx::open(file)?
        } else if lower.ends_with(".parquet") {
            return Self::from_table(path);
        } else {
            return Err(IoError::unknown_format(path, file, SUPPORTED));
        };
        let shape = array.shape.clone();
        Self::new(path, file, shape, array.n_rows(), array.n_cols(), Content::Array(array))
    }

    fn from_table(path: &str) -> Result<Self> {
        let mut table = Table::open(path, &TableOptions::default()).map_err(own)?;
        // What `sample` writes beside the input's columns is no feature.
        let sampled = table.is_sample();
        if sampled {
            let exclude = SAMPLE_COLUMNS.map(String::from).to_vec();
            table = Table::open(path, &TableOptions { exclude, ..TableOptions::default() }).map_err(own)?;
        }
        if let Some(column) = table.text_column() {
            return Err(IoError::Unsupported {
                path: path.into(),
                what: format!("column {column} holds text, a matrix has only numbers"),
                hint: Some("write the columns that are features to a file of their own".into()),
            });
        }
        let (n_rows, n_cols) = (table.n_input_rows(), table.n_cols());
        let matrix =
            Self::new(path, path, vec![n_rows, n_cols as u64], n_rows, n_cols, Content::Table(Box::new(table)))?;
        Ok(Self { sampled, ..matrix })
    }

    /// The weights of rows that `subspan sample` wrote; `None` for any other matrix.
    ///
    /// # Errors
    /// Failed reads, [`IoError::Missing`].
    pub fn sample_weights(&self) -> Result<Option<Vec<f64>>> {
        if !self.sampled {
            return Ok(None);
        }
        let options = TableOptions { columns: Some(vec![SAMPLE_WEIGHT.into()]), ..TableOptions::default() };
        let table = Table::open(&self.path, &options).map_err(own)?;
        let mut weights = Vec::with_capacity(self.n_rows);
        for chunk in 0..table.n_chunks() {
            table
                .scan(chunk, &mut |block| {
                    weights.extend_from_slice(block.values);
                    Ok(())
                })
                .map_err(own)?;
        }
        Ok(Some(weights))
    }

    fn new(path: &str, file: &str, shape: Vec<u64>, n_rows: u64, n_cols: usize, content: Content) -> Result<Self> {
        if n_rows == 0 || n_cols == 0 {
            let what = if n_rows == 0 { "rows" } else { "columns" };
            return Err(IoError::Empty { path: path.into(), what });
        }
        // What does not fit the address space was refused with the file's length; a table's rows may still be too many.
        let n_rows = usize::try_from(n_rows).map_err(|_| IoError::unsupported(path, "too many rows"))?;
        Ok(Self { path: path.into(), file: file.into(), shape, n_rows, n_cols, content, sampled: false })
    }

    /// Number of samples.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Values per sample.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// The dimensions before flattening, samples first.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// Storage type, e.g. `u8`; `mixed` for a table.
    pub fn dtype(&self) -> &'static str {
        match &self.content {
            Content::Array(array) => array.dtype.name(),
            Content::Table(_) => "mixed",
        }
    }

    /// All values, row-major.
    ///
    /// # Errors
    /// [`IoError::Missing`] with the place of the first non-finite value; failed reads.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        self.collect(|v| v)
    }

    /// All values, row-major, rounded to single precision.
    ///
    /// # Errors
    /// As [`Matrix::to_f64`]; values beyond the range of `f32` are refused as too large.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.collect(|v| v as f32)
    }

    /// All values, row-major, in single precision, in which rows are compared.
    ///
    /// # Errors
    /// As [`Matrix::to_f32`]; a column whose differences single precision does not tell is refused.
    pub fn to_features(&self) -> Result<Vec<f32>> {
        let exact = match &self.content {
            Content::Array(array) => array.dtype.fits_f32(),
            Content::Table(_) => false,
        };
        if exact {
            return self.to_f32();
        }
        let mut columns = Rounding::new(self.n_cols);
        let out = self.collect(|v| columns.round(v))?;
        columns.check().map_err(|e| IoError::Unsupported {
            path: self.path.clone(),
            what: e.to_string(),
            hint: e.hint(),
        })?;
        Ok(out)
    }

    fn collect<T: Copy + Into<f64>>(&self, mut convert: impl FnMut(f64) -> T) -> Result<Vec<T>> {
        let too_large = || IoError::unsupported(&self.path, "the matrix does not fit in memory");
        let count = self.n_rows.checked_mul(self.n_cols).ok_or_else(too_large)?;
        let mut out = Vec::new();
        out.try_reserve_exact(count).map_err(|_| too_large())?;
        let mut push = |values: &[f64]| {
            let from = out.len();
            out.extend(values.iter().map(|v| convert(*v)));
            match out[from..].iter().position(|v| !(*v).into().is_finite()) {
                None => Ok(()),
                Some(at) => Err(self.non_finite(from + at, values[at])),
            }
        };
        match &self.content {
            Content::Array(array) => {
                let step = (BLOCK_VALUES / self.n_cols).max(1);
                let (mut bytes, mut values) = (Vec::new(), Vec::new());
                for first in (0..self.n_rows).step_by(step) {
                    array.read_f64(first as u64, step.min(self.n_rows - first), &mut bytes, &mut values)?;
                    push(&values)?;
                }
            }
            Content::Table(table) => {
                for chunk in 0..table.n_chunks() {
                    table.scan(chunk, &mut |block| push(block.values).map_err(Error::from)).map_err(own)?;
                }
            }
        }
        Ok(out)
    }

    fn non_finite(&self, at: usize, value: f64) -> IoError {
        let value = match value {
            v if v.is_nan() => "NaN",
            v if v.is_infinite() => "infinite",
            _ => "too large",
        };
        let column = format!("{}", at % self.n_cols);
        IoError::Missing { path: self.path.clone(), column, row: (at / self.n_cols) as u64, value }
    }

    /// What was read, for the run record. Reads up to 64 MiB of the file for the fingerprint.
    ///
    /// # Errors
    /// [`IoError`] if the file has gone.
    pub fn input_record(&self) -> Result<InputRecord> {
        Ok(InputRecord {
            path: self.path.clone(),
            shape: self.shape.clone(),
            dtype: self.dtype().into(),
            fingerprint: fingerprint(std::slice::from_ref(&self.file))?,
        })
    }
}
