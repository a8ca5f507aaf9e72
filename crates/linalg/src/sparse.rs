//! Rows that are mostly zeros (one-hot columns, say), found while a kernel runs.
//!
//! The dense kernels add products in a fixed order by fused multiply-add, and adding a product with zero changes nothing. So a
//! kernel may skip the zeros of a tile whenever that is faster: the bits stay the same, and no caller has to know.

/// Tables of fewer columns are faster dense.
pub(crate) const MIN_COLS: usize = 128;

/// Rows of which at most this part is not zero are taken apart. A skipped value saves the kernels a vector's work, a kept one
/// costs them an access of its own.
const MOST_NONZERO: f64 = 1.0 / 12.0;

/// The values of some rows that are not zero, row after row.
#[derive(Default)]
pub(crate) struct Nonzeros {
    columns: Vec<u32>,
    values: Vec<f64>,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl Nonzeros {
    /// Takes the rows apart if each of them is mostly zeros. The first that is not ends the search, so that dense tables cost
    /// next to nothing.
    #[inline(always)]
    pub(crate) fn gather(&mut self, rows: &[f64], n_cols: usize) -> bool {
        if n_cols < MIN_COLS {
            return false;
        }
        let most = (MOST_NONZERO * n_cols as f64) as usize;
        self.columns.clear();
        self.values.clear();
        self.ends.clear();
        for row in rows.chunks_exact(n_cols) {
            let before = self.values.len();
            for (c, chunk) in row.chunks(CHUNK).enumerate() {
                // All bits but the sign.
                if chunk.iter().fold(0, |bits, v| bits | (v.to_bits() << 1)) == 0 {
                    continue;
                }
                for (i, v) in chunk.iter().enumerate().filter(|(_, v)| **v != 0.0) {
                    self.columns.push((c * CHUNK + i) as u32);
                    self.values.push(*v);
                }
                if self.values.len() - before > most {
                    return false;
                }
            }
            self.ends.push(self.values.len());
        }
        true
    }

    /// Number of rows.
    #[inline(always)]
    pub(crate) fn n_rows(&self) -> usize {
        self.ends.len()
    }

    /// Columns, increasing, and values of a row.
    #[inline(always)]
    pub(crate) fn row(&self, i: usize) -> (&[u32], &[f64]) {
        let range = if i == 0 { 0 } else { self.ends[i - 1] }..self.ends[i];
        (&self.columns[range.clone()], &self.values[range])
    }
}

/// Values looked at together.
const CHUNK: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_zero_is_kept_in_order() {
        let d = 130;
        let mut rows = vec![0.0; 3 * d];
        for (at, v) in [(0, 1.0), (15, -2.0), (16, f64::MIN_POSITIVE / 4.0), (129, 3.0), (2 * d + 128, 4.0), (5, -0.0)]
        {
            rows[at] = v;
        }
        let mut found = Nonzeros::default();
        assert!(found.gather(&rows, d));
        assert_eq!(found.n_rows(), 3);
        assert_eq!(found.row(0), (&[0, 15, 16, 129][..], &[1.0, -2.0, f64::MIN_POSITIVE / 4.0, 3.0][..]));
        assert_eq!(found.row(1), (&[][..], &[][..]));
        assert_eq!(found.row(2), (&[128][..], &[4.0][..]));
    }

    #[test]
    fn a_dense_row_and_a_narrow_table_are_left_alone() {
        let d = 200;
        let mut rows = vec![0.0; 2 * d];
        rows[d..d + d / 12 + 1].fill(1.0);
        assert!(!Nonzeros::default().gather(&rows, d));
        rows[d] = 0.0;
        assert!(Nonzeros::default().gather(&rows, d));
        assert!(!Nonzeros::default().gather(&[0.0; 100], 100));
    }
}
