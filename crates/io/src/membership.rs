//! Memberships as SciPy's sparse matrices: `.npz` with the rows compressed, and the background beside them.

use std::io::{Cursor, Write};

use subspan::cluster::Membership;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::atomic::AtomicFile;
use crate::error::{IoError, Result};
use crate::write_npy::header;

/// Writes what `scipy.sparse.load_npz` reads: symmetric, rows and `background` (f32, n) sum to one. Equal memberships give
/// equal bytes.
///
/// # Errors
/// [`IoError::Write`].
pub fn write_membership(membership: &Membership, mut file: AtomicFile) -> Result<()> {
    let path = file.target().display().to_string();
    let n = membership.n_rows();
    let bytes = archive(membership, n).map_err(|e| IoError::write(&path)(std::io::Error::other(e)))?;
    file.write_all(&bytes).map_err(IoError::write(&path))?;
    file.commit()
}

fn archive(membership: &Membership, n: usize) -> zip::result::ZipResult<Vec<u8>> {
    // A fixed time, so that equal content makes equal files.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default());
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut put = |name: &str, descr: &str, shape: &[usize], data: Vec<u8>| -> zip::result::ZipResult<()> {
        zip.start_file(format!("{name}.npy"), options.large_file(data.len() >= u32::MAX as usize))?;
        zip.write_all(&header(descr, shape))?;
        zip.write_all(&data)?;
        Ok(())
    };
    let i64s = |values: &mut dyn Iterator<Item = usize>| values.flat_map(|v| (v as i64).to_le_bytes()).collect();
    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    put("format", "|S3", &[], b"csr".to_vec())?;
    put("shape", "<i8", &[2], i64s(&mut [n, n].into_iter()))?;
    put("indptr", "<i8", &[n + 1], i64s(&mut membership.offsets.iter().copied()))?;
    put("indices", "<i8", &[membership.columns.len()], i64s(&mut membership.columns.iter().map(|c| *c as usize)))?;
    put("data", "<f4", &[membership.values.len()], f32s(&membership.values))?;
    put("background", "<f4", &[n], f32s(&membership.background()))?;
    Ok(zip.finish()?.into_inner())
}
