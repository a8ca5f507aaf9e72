//! A factor that is applied again and again, by several threads or on several machines.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{Apply, Out, Panels, Prepare};
use crate::Mat;
use crate::simd::dispatch;

/// A factor prepared for many blocks of rows: like [`row_norms_sq`](super::row_norms_sq) and [`map_rows`](super::map_rows), with the same bits, but the factor is
/// rearranged only once. Clones share it. As data it is the factor, not its arrangement, which depends on the machine.
///
/// ```
/// use subspan_linalg::{Mat, apply::RowFactor};
/// let factor = RowFactor::new(&Mat::from_rows(&[[1.0, 1.0], [0.0, 2.0]]), true);
/// let mut out = [0.0];
/// factor.norms_sq(&[1.0, 2.0], &mut out);
/// assert_eq!(out, [26.0]);
/// ```
#[derive(Clone)]
pub struct RowFactor {
    given: Arc<Mat>,
    panels: Arc<Panels>,
}

impl RowFactor {
    /// Prepares `factor`; `upper` says that it is upper triangular (square), and what is below the diagonal is not read.
    ///
    /// # Panics
    /// If `upper` and not square.
    pub fn new(factor: &Mat, upper: bool) -> Self {
        assert!(!upper || factor.n_rows() == factor.n_cols(), "an upper triangular factor is square");
        let mut panels = Panels::default();
        dispatch(Prepare { factor, upper, panels: &mut panels });
        Self { given: Arc::new(factor.clone()), panels: Arc::new(panels) }
    }

    /// The factor.
    pub fn matrix(&self) -> &Mat {
        &self.given
    }

    /// Whether it counts as upper triangular.
    pub fn is_upper(&self) -> bool {
        self.panels.upper
    }

    /// `out[i] = ‖aᵢ F‖²`.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    pub fn norms_sq(&self, rows: &[f64], out: &mut [f64]) {
        assert_eq!(rows.len(), out.len() * self.panels.d, "one result per row");
        dispatch(Apply { rows, panels: &self.panels, out: Out::Norms(out) });
    }

    /// `out = A F`, row-major.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    pub fn map_rows(&self, rows: &[f64], out: &mut [f64]) {
        assert_eq!(rows.len() * self.panels.r, out.len() * self.panels.d, "one mapped row per row");
        dispatch(Apply { rows, panels: &self.panels, out: Out::Rows(out) });
    }
}

impl Serialize for RowFactor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.matrix(), self.is_upper()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RowFactor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (factor, upper) = <(Mat, bool)>::deserialize(deserializer)?;
        if upper && factor.n_rows() != factor.n_cols() {
            return Err(D::Error::custom("an upper triangular factor is square"));
        }
        Ok(Self::new(&factor, upper))
    }
}
