//! From the user's rows to unit rows: centre, optionally project and whiten, bring to length one.

use std::borrow::Cow;

use rayon::prelude::*;
use subspan_linalg::{Mat, eigh, gemm, par_weighted_gram};

use super::eigen;
use crate::error::{Error, Result};
use crate::rows::check_samples;

/// Rows in memory, checked once.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    values: &'a [f32],
    n_cols: usize,
    weights: Option<&'a [f64]>,
}

impl<'a> Features<'a> {
    /// Row-major `values` of `n_cols` columns.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Shape`] if the last row is not whole, [`Error::NonFinite`].
    ///
    /// ```
    /// use subspan::cluster::Features;
    /// assert!(Features::new(&[1.0, 2.0, 3.0], 2).is_err());
    /// assert!(Features::new(&[1.0, f32::NAN], 2).is_err());
    /// ```
    pub fn new(values: &'a [f32], n_cols: usize) -> Result<Self> {
        check_samples(values, n_cols)?;
        Ok(Self { values, n_cols, weights: None })
    }

    /// The same rows, each standing for as many as its weight says: rows drawn from a larger table with their weights, or different
    /// rows with their counts. Only ratios of weights matter.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one per row, [`Error::Parameter`] for a weight that is not positive and finite.
    ///
    /// ```
    /// use subspan::cluster::Features;
    /// let rows = Features::new(&[1.0, 2.0, 3.0, 4.0], 2)?;
    /// assert!(rows.weighted(&[1.0]).is_err() && rows.weighted(&[1.0, 0.0]).is_err());
    /// # Ok::<(), subspan::Error>(())
    /// ```
    pub fn weighted(self, weights: &'a [f64]) -> Result<Self> {
        if weights.len() != self.n_rows() {
            return Err(Error::Shape { what: "weights", found: weights.len(), expected: self.n_rows() });
        }
        match weights.iter().position(|w| !(*w > 0.0 && w.is_finite())) {
            Some(row) => Err(Error::parameter("weights", weights[row], format!("positive numbers, as at row {row}"))),
            None => Ok(Self { weights: Some(weights), ..self }),
        }
    }

    /// The weights, if rows do not all count alike.
    pub fn weights(&self) -> Option<&'a [f64]> {
        self.weights
    }

    /// The weights with a mean of one.
    pub(crate) fn mass(&self) -> Vec<f64> {
        match self.weights {
            None => vec![1.0; self.n_rows()],
            Some(weights) => {
                // The largest first, so that the sum is finite.
                let largest = weights.iter().copied().fold(0.0, f64::max);
                let mean = weights.iter().map(|w| w / largest).sum::<f64>() / weights.len() as f64;
                weights.iter().map(|w| w / largest / mean).collect()
            }
        }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.n_cols
    }

    /// Values per row.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// All values, row-major.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }
}

/// What is done with rows before they are brought to length one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Preparation {
    /// The mean is subtracted; rows wider than the limit, if one is given, are projected to that many principal directions.
    Centered(Option<usize>),
    /// Rows stay as they are, around the origin: for subspaces through it, which a shift of the origin would turn into others.
    /// Rows wider than the limit, if one is given, are projected to that many principal directions.
    Uncentered(Option<usize>),
    /// So many principal components, each divided by its standard deviation to the given power: 0 keeps them as they are,
    /// ½ halves the differences between them on a logarithmic scale, 1 makes them equal.
    Whitened(usize, f64),
}

impl std::fmt::Display for Preparation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Centered(None) => f.write_str("centered"),
            Self::Centered(Some(p)) => write!(f, "centered, {p} components"),
            Self::Uncentered(None) => f.write_str("as they come"),
            Self::Uncentered(Some(p)) => write!(f, "as they come, {p} components"),
            Self::Whitened(p, power) if *power == 1.0 => write!(f, "whitened, {p} components"),
            Self::Whitened(p, power) if *power == 0.5 => write!(f, "half whitened, {p} components"),
            Self::Whitened(p, power) => write!(f, "whitened to the power {power}, {p} components"),
        }
    }
}

/// A fitted map from rows to unit rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Transform {
    /// Whether rows are brought to length one before anything else.
    pub unit_first: bool,
    /// Subtracted from every row.
    pub center: Vec<f32>,
    /// `p x n_cols`, applied to the centred row; without it the row stays as wide as it is.
    pub map: Option<Vec<f32>>,
}

/// Rows per task; also the unit to which inputs are padded, so that a row's image does not depend on its company.
pub(crate) const BLOCK: usize = 64;

impl Transform {
    /// Values of an image.
    pub fn n_out(&self) -> usize {
        self.map.as_ref().map_or(self.center.len(), |m| m.len() / self.center.len())
    }

    /// The unit images of rows (`n x n_cols`); a row that equals the mean becomes zero. The image of a row does not depend on
    /// which rows come with it.
    ///
    /// # Panics
    /// If `values` does not hold whole rows.
    pub fn apply(&self, values: &[f32]) -> Vec<f32> {
        let (d, p) = (self.center.len(), self.n_out());
        assert!(values.len().is_multiple_of(d), "whole rows");
        let mut out = vec![0f32; values.len() / d * p];
        out.par_chunks_mut(BLOCK * p).zip(values.par_chunks(BLOCK * d)).for_each(|(out, values)| {
            let mut centered = vec![0f32; BLOCK * d];
            for (c, v) in centered.chunks_exact_mut(d).zip(values.chunks_exact(d)) {
                c.copy_from_slice(v);
                if self.unit_first {
                    to_unit(c);
                }
                center(c, &self.center);
            }
            match &self.map {
                None => out.copy_from_slice(&centered[..out.len()]),
                Some(map) => {
                    let mut images = vec![0f32; BLOCK * p];
                    gemm::mul_transposed(&centered, map, d, &mut images);
                    out.copy_from_slice(&images[..out.len()]);
                }
            }
            out.chunks_exact_mut(p).for_each(to_unit);
        });
        out
    }
}

/// Subtracts the centre. Only directions count, so rows whose products might overflow, or vanish, are scaled by a power of two.
fn center(row: &mut [f32], center: &[f32]) {
    let apart = |v: f32, m: f32| f64::from(v) - f64::from(m);
    let largest = row.iter().zip(center).fold(0.0, |most: f64, (v, m)| most.max(apart(*v, *m).abs()));
    if largest == 0.0 || MAGNITUDES.contains(&largest) {
        row.iter_mut().zip(center).for_each(|(v, m)| *v -= m);
    } else {
        let scale = (-largest.log2().floor()).exp2();
        row.iter_mut().zip(center).for_each(|(v, m)| *v = (apart(*v, *m) * scale) as f32);
    }
}

/// Of values whose products with whitened directions single precision holds.
const MAGNITUDES: std::ops::RangeInclusive<f64> = 1e-15..=1e15;

/// Brings a row to length one; a row of zeros stays.
pub(crate) fn to_unit(row: &mut [f32]) {
    let square: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    if square > 0.0 {
        let inverse = square.sqrt().recip();
        row.iter_mut().for_each(|v| *v = (f64::from(*v) * inverse) as f32);
    }
}

/// Principal directions of centred rows.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    pub(crate) mean: Vec<f32>,
    /// Variances, descending.
    pub(crate) variances: Vec<f64>,
    /// One direction per row, `count x n_cols`.
    pub(crate) directions: Vec<f32>,
}

/// Most columns whose Gram matrix is made: half a gigabyte.
const GRAM_COLUMNS: usize = 8192;
/// Rows converted to double precision at a time.
const GRAM_ROWS: usize = 4096;
/// Most rows from which directions of wide data are computed, evenly spaced; the Gram matrix of rows has this side then.
const WIDE_ROWS: usize = 3000;

/// A row as it comes, or brought to length one.
fn taken(row: &[f32], unit_first: bool) -> Cow<'_, [f32]> {
    let mut row = Cow::Borrowed(row);
    if unit_first {
        to_unit(row.to_mut());
    }
    row
}

/// The mean of rows, as they come or brought to length one, of a mass that is one on average.
pub(crate) fn mean(features: &Features<'_>, unit_first: bool, mass: &[f64]) -> Vec<f32> {
    let (n, d) = (features.n_rows(), features.n_cols);
    let parts: Vec<Vec<f64>> = features
        .values
        .par_chunks(GRAM_ROWS * d)
        .zip(mass.par_chunks(GRAM_ROWS))
        .map(|(rows, mass)| {
            let mut sum = vec![0.0; d];
            for (row, m) in rows.chunks_exact(d).zip(mass) {
                sum.iter_mut().zip(&*taken(row, unit_first)).for_each(|(s, v)| *s += m * f64::from(*v));
            }
            sum
        })
        .collect();
    (0..d).map(|j| (parts.iter().map(|p| p[j]).sum::<f64>() / n as f64) as f32).collect()
}

impl Principal {
    /// At most `count` leading directions of rows, as they come or brought to length one, of a mass that is one on average; fewer where
    /// the data has fewer.
    pub(crate) fn fit(
        features: &Features<'_>,
        unit_first: bool,
        mass: &[f64],
        count: usize,
        seed: u64,
    ) -> Result<Self> {
        let (n, d) = (features.n_rows(), features.n_cols);
        let mean = mean(features, unit_first, mass);
        let centered = |row: &[f32]| -> Vec<f64> {
            let row = taken(row, unit_first);
            row.iter().zip(&mean).map(|(v, m)| f64::from(*v) - f64::from(*m)).collect()
        };
        let (variances, directions) = if d <= n && d <= GRAM_COLUMNS {
            let mut gram = Mat::zeros(d, d);
            for (rows, mass) in features.values.chunks(GRAM_ROWS * d).zip(mass.chunks(GRAM_ROWS)) {
                let block: Vec<f64> = rows.par_chunks(d).flat_map_iter(&centered).collect();
                let part = par_weighted_gram(&block, d, mass);
                gram.as_mut_slice().iter_mut().zip(part.as_slice()).for_each(|(g, p)| *g += p);
            }
            gram.as_mut_slice().iter_mut().for_each(|g| *g /= n as f64);
            let (values, vectors) = leading(&gram, count, seed)?;
            let k = values.len();
            let directions: Vec<f32> =
                (0..k).flat_map(|j| (0..d).map(move |i| (i, j))).map(|(i, j)| vectors[i * k + j] as f32).collect();
            (values, directions)
        } else {
            // Rows of the Gram matrix are samples: its vectors combine samples to directions.
            let step = n.div_ceil(WIDE_ROWS);
            let kept = features.values.chunks_exact(d).zip(mass).step_by(step);
            let rows: Vec<f64> = kept.flat_map(|(row, m)| centered(row).into_iter().map(|v| v * m.sqrt())).collect();
            let m = rows.len() / d;
            let mut gram = Mat::zeros(m, m);
            gemm::mul_transposed(&rows, &rows, d, gram.as_mut_slice());
            gram.as_mut_slice().iter_mut().for_each(|g| *g /= m as f64);
            let (values, vectors) = leading(&gram, count, seed)?;
            let k = values.len();
            let mut directions = vec![0.0; k * d];
            gemm::transposed_mul(&vectors, k, &rows, d, &mut directions);
            for (direction, value) in directions.chunks_exact_mut(d).zip(&values) {
                let inverse = (value * m as f64).sqrt().recip();
                direction.iter_mut().for_each(|v| *v *= inverse);
            }
            (values, directions.into_iter().map(|v| v as f32).collect())
        };
        Ok(Self { mean, variances, directions })
    }

    /// The transform that keeps `count` components, each divided by its standard deviation to `power`.
    pub(crate) fn transform(&self, count: usize, power: f64) -> Transform {
        let d = self.mean.len();
        // Only ratios between directions count.
        let first = self.variances.first().copied().unwrap_or(1.0);
        let unit = if MAGNITUDES.contains(&first.sqrt()) { 1.0 } else { first };
        let map = self
            .directions
            .chunks_exact(d)
            .zip(&self.variances)
            .take(count)
            .flat_map(|(direction, variance)| {
                let scale = (variance / unit).powf(-0.5 * power) as f32;
                direction.iter().map(move |v| v * scale)
            })
            .collect();
        Transform { unit_first: false, center: self.mean.clone(), map: Some(map) }
    }
}

/// Variances below this share of the largest are rounding of single-precision data, not directions.
const NEGLIGIBLE: f64 = 1e-9;

/// Relative residual of principal directions: what is done with them is blind to less.
const DIRECTION_TOLERANCE: f64 = 1e-3;

/// Leading eigenpairs of a positive semidefinite matrix, without negligible ones; vectors `side x found`.
fn leading(gram: &Mat, count: usize, seed: u64) -> Result<(Vec<f64>, Vec<f64>)> {
    let n = gram.n_rows();
    let count = count.min(n);
    let pairs = if 4 * count < n {
        eigen::largest(gram, count, 0.0, DIRECTION_TOLERANCE, seed)?
    } else {
        let e = eigh(gram)?;
        let vectors =
            (0..n).flat_map(|i| (0..count).map(move |j| (i, j))).map(|(i, j)| e.vectors[(i, n - 1 - j)]).collect();
        eigen::Pairs { values: e.values.into_iter().rev().take(count).collect(), vectors, residual: 0.0 }
    };
    let kept = pairs.values.iter().take_while(|v| **v > NEGLIGIBLE * pairs.values[0] && **v > 0.0).count();
    if kept == 0 {
        return Err(Error::Constant);
    }
    let vectors = pairs.vectors.chunks_exact(count).flat_map(|row| row[..kept].iter().copied()).collect();
    Ok((pairs.values[..kept].to_vec(), vectors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    fn noise(n: usize, d: usize) -> Vec<f32> {
        let mut rng = Stream::new(0, "noise").rng(0);
        (0..n * d).map(|at| (rng.normal() * (1.0 + (at % d) as f64) + 3.0) as f32).collect()
    }

    #[test]
    fn directions_are_orthonormal_and_whitening_makes_variances_equal_also_for_wide_rows() {
        for (n, d) in [(300, 6), (20, 50)] {
            let values = noise(n, d);
            let features = Features::new(&values, d).unwrap();
            let p = Principal::fit(&features, false, &vec![1.0; n], 5, 0).unwrap();
            let mut gram = vec![0f32; 25];
            gemm::mul_transposed(&p.directions, &p.directions, d, &mut gram);
            assert!((0..25).all(|at| (gram[at] - f32::from(u8::from(at / 5 == at % 5))).abs() < 1e-4), "{gram:?}");
            let map = p.transform(5, 1.0);
            for direction in map.map.as_ref().unwrap().chunks_exact(d) {
                let variance: f64 = values
                    .chunks_exact(d)
                    .map(|r| {
                        let v: f64 =
                            r.iter().zip(&p.mean).zip(direction).map(|((v, m), w)| f64::from((v - m) * w)).sum();
                        v * v / n as f64
                    })
                    .sum();
                assert!((variance - 1.0).abs() < 1e-3, "{variance}");
            }
        }
    }

    #[test]
    fn weights_count_like_copies_also_for_wide_rows() {
        for (n, d) in [(40, 5), (12, 30)] {
            let values = noise(n, d);
            let double: Vec<f32> = values.iter().chain(&values[..3 * d]).copied().collect();
            let weights: Vec<f64> = (0..n).map(|i| if i < 3 { 2.0 } else { 1.0 }).collect();
            let few = Features::new(&values, d).unwrap().weighted(&weights).unwrap();
            let many = Features::new(&double, d).unwrap();
            let few = Principal::fit(&few, false, &few.mass(), 3, 0).unwrap();
            let many = Principal::fit(&many, false, &many.mass(), 3, 0).unwrap();
            let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a / b - 1.0).abs() < 1e-5);
            assert!(few.mean.iter().zip(&many.mean).all(|(a, b)| (a - b).abs() < 1e-5));
            assert!(close(&few.variances, &many.variances), "{:?} {:?}", few.variances, many.variances);
        }
    }

    #[test]
    fn an_image_does_not_depend_on_its_company() {
        let (n, d) = (130, 7);
        let values = noise(n, d);
        let t =
            Principal::fit(&Features::new(&values, d).unwrap(), false, &vec![1.0; n], 4, 0).unwrap().transform(4, 0.5);
        let all = t.apply(&values);
        for i in [0, 63, 64, 129] {
            assert_eq!(t.apply(&values[i * d..(i + 1) * d]), all[i * 4..(i + 1) * 4]);
        }
    }
}
