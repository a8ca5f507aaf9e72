//! Small `.npy` files.

/// Rows of `n_cols` single-precision values.
pub(crate) fn npy(values: &[f32], n_cols: usize) -> Vec<u8> {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes());
    file("<f4", values.len() / n_cols, n_cols, bytes)
}

/// The same in double precision.
pub(crate) fn npy_f64(values: &[f64], n_cols: usize) -> Vec<u8> {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes());
    file("<f8", values.len() / n_cols, n_cols, bytes)
}

/// Rows of `n_cols` bytes.
pub(crate) fn npy_u8(values: &[u8], n_cols: usize) -> Vec<u8> {
    file("|u1", values.len() / n_cols, n_cols, values.iter().copied())
}

fn file(descr: &str, n_rows: usize, n_cols: usize, data: impl Iterator<Item = u8>) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({n_rows}, {n_cols}), }}");
    let header = format!("{header:<117}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

/// What follows the header.
fn data(bytes: &[u8]) -> &[u8] {
    &bytes[10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))..]
}

/// The values of a file of `<f4`.
pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    data(bytes).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The values of a file of `<i8`.
pub(crate) fn integers(bytes: &[u8]) -> Vec<i64> {
    data(bytes).chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}
