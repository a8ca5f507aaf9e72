//! How much better one normal distribution of all samples explains a sample than that of its nearest class.
//!
//! With unit rows `x̂`, class means `m_c`, their mean `m`, the covariance `W` around the class means and `T` around `m`, both a little
//! shrunk: `min_c (x̂ − m_c)ᵀ W⁻¹ (x̂ − m_c) − (x̂ − m)ᵀ T⁻¹ (x̂ − m)`. After J. Ren, S. Fort, J. Liu, A. Roy, S. Padhy, B. Lakshminarayanan,
//! "A simple fix to Mahalanobis distance for improving near-OOD detection", 2021. What is unusual for every sample alike counts
//! for little; what lies between the classes counts for much. With `y = x̂ − m` it is `yᵀ (W⁻¹ − T⁻¹) y + min_c (a_c − 2 q_cᵀ y)`.

use subspan_linalg::{Mat, cholesky, gemm, par_gram};

use super::labelled::Labelled;
use super::linear::dot;
use super::samples::{for_blocks, normalize};
use crate::error::{Error, Result};
use crate::observe::Observer;

/// Share of a multiple of the identity in both covariances. Of 0.0003 to 0.3, the largest that loses to the sine alone on none of
/// eleven divisions of four data sets into known and strange classes.
const SHRINKAGE: f64 = 0.003;

/// The quadratic form and the linear ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Contrast {
    /// Of all unit samples (`n_cols`).
    pub mean: Vec<f32>,
    /// `W⁻¹ − T⁻¹`, symmetric (`n_cols x n_cols`).
    pub form: Vec<f32>,
    /// `−2 W⁻¹ (m_c − m)`, one row per class (`C x n_cols`).
    pub slopes: Vec<f32>,
    /// `(m_c − m)ᵀ W⁻¹ (m_c − m)`, one per class.
    pub constants: Vec<f32>,
    /// Mean and standard deviation over known samples of the sine of the angle to the nearest class, then of this measure.
    pub standards: [f64; 4],
    /// How much this measure counts beside the sine, 0 to 1.
    pub weight: f64,
}

/// Both measures of known samples, and what they would be if the sample's own class were not known.
#[derive(Default)]
pub(crate) struct Known {
    /// Sines, then contrasts.
    pub(crate) own: [Vec<f64>; 2],
    pub(crate) others: [Vec<f64>; 2],
}

/// Sums over unit samples, from which covariances follow.
pub(crate) struct Moments {
    gram: Mat,
    /// One row per class.
    sums: Mat,
    counts: Vec<f64>,
}

impl Moments {
    /// Of the given rows. Cost: `n d²` flop.
    pub(crate) fn of(
        data: &Labelled<'_>,
        rows: &[usize],
        center: Option<&[f32]>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let (d, n_classes) = (data.n_cols(), data.n_classes());
        let mut out = Self { gram: Mat::zeros(d, d), sums: Mat::zeros(n_classes, d), counts: vec![0.0; n_classes] };
        for_blocks(data.samples, rows, |rows, values| {
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            normalize(values, d, center);
            let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            add(out.gram.as_mut_slice(), par_gram(&values, d).as_slice());
            for (row, values) in rows.iter().zip(values.chunks_exact(d)) {
                let class = data.codes[*row] as usize;
                out.counts[class] += 1.0;
                add(out.sums.row_mut(class), values);
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// Those of both sets of rows.
    pub(crate) fn join(&mut self, other: &Self) {
        add(self.gram.as_mut_slice(), other.gram.as_slice());
        add(self.sums.as_mut_slice(), other.sums.as_slice());
        add(&mut self.counts, &other.counts);
    }

    /// The measure, not yet brought to a standard. Cost: two inverses of side `d`.
    pub(crate) fn contrast(&self) -> Result<Contrast> {
        let (d, n_classes) = (self.gram.n_rows(), self.counts.len());
        let n: f64 = self.counts.iter().sum();
        let mean: Vec<f64> = (0..d).map(|j| (0..n_classes).map(|c| self.sums[(c, j)]).sum::<f64>() / n).collect();
        // Class means minus the mean, and the same times their share of the samples.
        let offsets = Mat::from_fn(n_classes, d, |c, j| self.sums[(c, j)] / self.counts[c].max(1.0) - mean[j]);
        let weighted = Mat::from_fn(n_classes, d, |c, j| self.counts[c] / n * offsets[(c, j)]);
        let between = offsets.transpose().mul(&weighted);
        let total = Mat::from_fn(d, d, |i, j| self.gram[(i, j)] / n - mean[i] * mean[j]);
        let within = Mat::from_fn(d, d, |i, j| total[(i, j)] - between[(i, j)]);
        let one = Mat::from_fn(d, d, |i, j| f64::from(u8::from(i == j)));
        let (within, total) = (cholesky(&shrunk(&within))?, cholesky(&shrunk(&total))?);
        let (inverse, background) = (within.solve_mat(&one), total.solve_mat(&one));
        let slopes = within.solve_mat(&offsets.transpose()).transpose();
        Ok(Contrast {
            form: inverse.as_slice().iter().zip(background.as_slice()).map(|(w, t)| (w - t) as f32).collect(),
            constants: (0..n_classes).map(|c| dot(slopes.row(c), offsets.row(c)) as f32).collect(),
            slopes: slopes.as_slice().iter().map(|s| (-2.0 * s) as f32).collect(),
            mean: mean.iter().map(|m| *m as f32).collect(),
            standards: [0.0, 1.0, 0.0, 1.0],
            weight: 1.0,
        })
    }
}

fn add(sums: &mut [f64], values: &[f64]) {
    sums.iter_mut().zip(values).for_each(|(s, v)| *s += v);
}

/// Variances of unit samples, which are differences of nearly equal sums, up to which they are rounding.
const ROUNDING: f64 = 1e-12;

/// A covariance with a share of a multiple of the identity.
fn shrunk(covariance: &Mat) -> Mat {
    let d = covariance.n_rows();
    let level = (0..d).map(|i| covariance[(i, i)]).sum::<f64>() / d as f64;
    // Samples that do not vary: any multiple ranks the same. Those that hardly do: what rounding makes of them stays positive.
    let level = if level > f64::EPSILON { level } else { 1.0 };
    let ridge = (SHRINKAGE * level).max(ROUNDING);
    Mat::from_fn(d, d, |i, j| (1.0 - SHRINKAGE) * covariance[(i, j)] + if i == j { ridge } else { 0.0 })
}

impl Contrast {
    /// The measure of unit rows, without the given class of each if there are any; on the calling thread. Cost: `2 d (d + C)` flop a row.
    pub(crate) fn of(&self, unit: &[f32], without: Option<&[u32]>) -> Vec<f64> {
        let (d, n_classes) = (self.mean.len(), self.constants.len());
        let n = unit.len() / d;
        let y: Vec<f32> = unit.chunks_exact(d).flat_map(|row| row.iter().zip(&self.mean).map(|(x, m)| x - m)).collect();
        let (mut turned, mut along) = (vec![0f32; n * d], vec![0f32; n * n_classes]);
        gemm::mul_transposed_here(&y, &self.form, d, &mut turned);
        gemm::mul_transposed_here(&y, &self.slopes, d, &mut along);
        let rows = y.chunks_exact(d).zip(turned.chunks_exact(d)).zip(along.chunks_exact(n_classes));
        rows.enumerate()
            .map(|(i, ((y, turned), along))| {
                let square: f64 = y.iter().zip(turned).map(|(y, t)| f64::from(*y) * f64::from(*t)).sum();
                let classes = along.iter().zip(&self.constants).map(|(a, c)| f64::from(*a) + f64::from(*c));
                let counts = |c: usize| without.is_none_or(|classes| classes[i] as usize != c);
                let kept = classes.enumerate().filter(|(c, _)| counts(*c)).map(|(_, v)| v);
                square + kept.fold(f64::INFINITY, f64::min)
            })
            .collect()
    }

    /// Takes the means and deviations of both measures over known samples as the standard. The contrast counts as much as the sine, or
    /// less if it tells samples whose class is left out less well: where classes differ in their subspaces but not in their means it
    /// knows nothing.
    pub(crate) fn standardize(&mut self, known: &Known) {
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let deviation = |v: &[f64]| {
            let center = mean(v);
            (v.iter().map(|x| (x - center).powi(2)).sum::<f64>() / v.len() as f64).sqrt()
        };
        let mut gains = [0.0; 2];
        for i in 0..2 {
            let (own, others) = (&known.own[i], &known.others[i]);
            // Known samples that are all alike: the measure's own unit.
            let unit = if deviation(own) > 1e-6 * (1.0 + mean(own).abs()) { deviation(own) } else { 1.0 };
            (self.standards[2 * i], self.standards[2 * i + 1]) = (mean(own), unit);
            gains[i] = (mean(others) - mean(own)).max(0.0) / deviation(own).hypot(deviation(others)).max(1e-6);
        }
        self.weight = if gains[0] > gains[1] { gains[1] / gains[0] } else { 1.0 };
    }

    /// Both measures as one, from 0 to 1; one half is usual for a known sample.
    pub(crate) fn join(&self, sine: f64, measure: f64) -> f32 {
        let [a, b, c, d] = self.standards;
        let s = ((sine - a) / b + self.weight * (measure - c) / d) / (1.0 + self.weight);
        let share = s / s.hypot(1.0);
        // A sum that overflows is far from everything.
        if share.is_nan() { 1.0 } else { (0.5 + 0.5 * share) as f32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;
    use crate::classify::DenseSamples;
    use crate::draw::Stream;

    #[test]
    fn the_measure_is_that_of_the_definition() {
        let (n, d) = (60, 5);
        let mut rng = Stream::new(3, "contrast").rng(0);
        let codes: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
        let mut values: Vec<f32> = codes
            .iter()
            .flat_map(|c| (0..d).map(move |j| if j == *c as usize { 2.0 } else { 0.0 }))
            .map(|m| (m + 0.3 * rng.normal()) as f32)
            .collect();
        normalize(&mut values, d, None);
        let samples = DenseSamples::new(&values, d).unwrap();
        let classes = ["a", "b", "c"].map(String::from);
        let data = Labelled::new(&samples, &codes, &classes).unwrap();
        let mut moments = Moments::of(&data, &(0..20).collect::<Vec<_>>(), None, &Silent).unwrap();
        moments.join(&Moments::of(&data, &(20..n).collect::<Vec<_>>(), None, &Silent).unwrap());
        let found = moments.contrast().unwrap().of(&values, None);

        let rows: Vec<Vec<f64>> = values.chunks(d).map(|r| r.iter().map(|v| f64::from(*v)).collect()).collect();
        let mean_of = |rows: &[&Vec<f64>]| -> Vec<f64> {
            (0..d).map(|j| rows.iter().map(|r| r[j]).sum::<f64>() / rows.len() as f64).collect()
        };
        let of_class =
            |c: u32| -> Vec<&Vec<f64>> { rows.iter().zip(&codes).filter(|(_, k)| **k == c).map(|(r, _)| r).collect() };
        let (mean, means) = (mean_of(&rows.iter().collect::<Vec<_>>()), [0, 1, 2].map(|c| mean_of(&of_class(c))));
        let covariance = |center: &dyn Fn(usize) -> Vec<f64>| {
            Mat::from_fn(d, d, |i, j| {
                (0..n).map(|r| (rows[r][i] - center(r)[i]) * (rows[r][j] - center(r)[j])).sum::<f64>() / n as f64
            })
        };
        let within = cholesky(&shrunk(&covariance(&|r| means[codes[r] as usize].clone()))).unwrap();
        let total = cholesky(&shrunk(&covariance(&|_| mean.clone()))).unwrap();
        for (row, found) in rows.iter().zip(found) {
            let distance = |factor: &subspan_linalg::Cholesky, center: &[f64]| {
                let y: Vec<f64> = row.iter().zip(center).map(|(x, m)| x - m).collect();
                dot(&y, factor.solve_mat(&Mat::from_vec(d, 1, y.clone())).as_slice())
            };
            let nearest = means.iter().map(|m| distance(&within, m)).fold(f64::INFINITY, f64::min);
            let expected = nearest - distance(&total, &mean);
            assert!((found - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{found} {expected}");
        }
    }
}
