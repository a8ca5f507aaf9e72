//! Clusters as Gaussians around the origin: labels for rows whose subspaces fill the space.
//!
//! Where five six-dimensional subspaces share nine dimensions, a row's sparse representation takes some rows of other subspaces, and
//! votes are wrong for one row in thirteen even if all voters are right. A cluster of many rows knows its subspace far better than
//! any one row's neighbours do: `Σ_c = (ε²/q) I + Σ x xᵀ / m_c` over its rows, and a row belongs where
//! `−ln(m_c/m) + ½ ln det Σ_c + ½ xᵀ Σ_c⁻¹ x` nats are least (the code length that coding lengths add up, Ma et al., TPAMI 2007).

use subspan_linalg::{Mat, cholesky, par_row_norms_sq, par_weighted_gram};

use super::coding::members;
use crate::error::Result;

/// `ε²`, the noise of unit rows over all directions: small, because subspaces that share a space differ in few directions.
const NOISE: f64 = 0.01;
/// Rows whose lengths are held at a time.
const ROWS: usize = 1 << 13;
/// Rounds of labelling and fitting; it takes a handful.
const MAX_ROUNDS: usize = 50;

/// One Gaussian per cluster.
pub(crate) struct Gaussians {
    /// `Σ_c = (F Fᵀ)⁻¹` and the part of the code length that all rows share; `None` for a cluster without rows.
    clusters: Vec<Option<(Mat, f64)>>,
    n_cols: usize,
}

impl Gaussians {
    /// Of labelled rows of `n_cols` values, each counting by its mass.
    ///
    /// # Errors
    /// For rows that are not finite.
    pub(crate) fn new(rows: &[f32], n_cols: usize, mass: &[f64], labels: &[u32], clusters: usize) -> Result<Self> {
        let all: f64 = mass.iter().sum();
        let of = |members: &Vec<usize>| -> Result<Option<(Mat, f64)>> {
            if members.is_empty() {
                return Ok(None);
            }
            let own: Vec<f64> = members.iter().map(|i| mass[*i]).collect();
            let count: f64 = own.iter().sum();
            let values = members.iter().flat_map(|i| &rows[i * n_cols..(i + 1) * n_cols]);
            let gram = par_weighted_gram(&values.map(|v| f64::from(*v)).collect::<Vec<_>>(), n_cols, &own);
            let noise = NOISE / n_cols as f64;
            let sigma = Mat::from_fn(n_cols, n_cols, |i, j| gram[(i, j)] / count + if i == j { noise } else { 0.0 });
            let factor = cholesky(&sigma)?;
            Ok(Some((factor.inverse_upper(), 0.5 * factor.log_det() - (count / all).ln())))
        };
        let clusters = members(labels, clusters).iter().map(of).collect::<Result<_>>()?;
        Ok(Self { clusters, n_cols })
    }

    /// Nats of every row in every cluster, cluster after cluster: `clusters x n`. Cost: `n_cols²` flop for each.
    fn lengths(&self, rows: &[f32]) -> Vec<Vec<f64>> {
        let values: Vec<f64> = rows.iter().map(|v| f64::from(*v)).collect();
        let of = |cluster: &Option<(Mat, f64)>| match cluster {
            None => vec![f64::INFINITY; rows.len() / self.n_cols],
            Some((factor, shared)) => {
                let squares = par_row_norms_sq(&values, factor, true);
                squares.into_iter().map(|square| shared + 0.5 * square).collect()
            }
        };
        self.clusters.iter().map(of).collect()
    }

    /// The cluster of every row and its probability; with `shares` those of all clusters, `n x clusters`.
    pub(crate) fn choose(&self, rows: &[f32], shares: bool) -> (Vec<u32>, Vec<f32>, Vec<f32>) {
        let n = rows.len() / self.n_cols;
        let (mut labels, mut confidence, mut all) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::new());
        for block in rows.chunks(ROWS * self.n_cols) {
            let lengths = self.lengths(block);
            for i in 0..block.len() / self.n_cols {
                let row = || lengths.iter().map(|l| l[i]);
                let (label, least) = row()
                    .zip(0..)
                    .fold((0, f64::INFINITY), |best, (length, c)| if length < best.1 { (c, length) } else { best });
                let total: f64 = row().map(|length| (least - length).exp()).sum();
                labels.push(label);
                confidence.push((1.0 / total) as f32);
                if shares {
                    all.extend(row().map(|length| ((least - length).exp() / total) as f32));
                }
            }
        }
        (labels, confidence, all)
    }
}

/// Labels that are those of their own Gaussians, from the given ones on (hard expectation maximization), of rows of given mass.
///
/// # Errors
/// As [`Gaussians::new`].
pub(crate) fn settled(
    rows: &[f32],
    n_cols: usize,
    mass: &[f64],
    mut labels: Vec<u32>,
    clusters: usize,
) -> Result<Vec<u32>> {
    for _ in 0..MAX_ROUNDS {
        let next = Gaussians::new(rows, n_cols, mass, &labels, clusters)?.choose(rows, false).0;
        if next == labels {
            break;
        }
        labels = next;
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    /// Unit rows of three planes of dimension two in space, in turn; any two share a line.
    fn planes(n: usize) -> (Vec<f32>, Vec<u32>) {
        let mut rng = Stream::new(1, "planes").rng(0);
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for i in 0..n {
            let missing = i % 3;
            let angle = std::f64::consts::TAU * rng.uniform();
            let mut row = [angle.cos() as f32, angle.sin() as f32, 0.0];
            row.swap(missing, 2);
            rows.extend(row);
            labels.push(missing as u32);
        }
        (rows, labels)
    }

    #[test]
    fn labels_that_are_wrong_for_one_row_in_six_are_mended() {
        let (rows, truth) = planes(600);
        let wrong = truth.iter().enumerate().map(|(i, l)| if i % 6 == 1 { (l + 1) % 3 } else { *l }).collect();
        let found = settled(&rows, 3, &[1.0; 600], wrong, 3).unwrap();
        let right = found.iter().zip(&truth).filter(|(a, b)| a == b).count();
        // Rows near a line that two planes share are anybody's.
        assert!(right >= 570, "{right} of 600");
    }

    #[test]
    fn lengths_are_those_of_the_definition_and_an_empty_cluster_gets_nothing() {
        let rows = [0.6f32, 0.8, 1.0, 0.0];
        let gaussians = Gaussians::new(&rows, 2, &[1.0; 2], &[0, 0], 2).unwrap();
        // Up to single precision, Σ = 0.005 I + F'F/2 with F'F = [[1.36, 0.48], [0.48, 0.64]].
        let (a, b, c): (f64, f64, f64) = (0.685, 0.24, 0.325);
        let det = a * c - b * b;
        let lengths = gaussians.lengths(&[1.0, 0.0]);
        assert!((lengths[0][0] - (0.5 * det.ln() + 0.5 * c / det)).abs() < 1e-6);
        assert_eq!(lengths[1][0], f64::INFINITY);
        assert_eq!(gaussians.choose(&[1.0, 0.0], true), (vec![0], vec![1.0], vec![1.0, 0.0]));
    }

    #[test]
    fn a_row_of_weight_three_is_three_rows() {
        let (rows, labels) = planes(60);
        let repeat = |i: usize| 1 + 2 * (i % 2);
        let mass: Vec<f64> = (0..60).map(|i| repeat(i) as f64).collect();
        let each: Vec<usize> = (0..60).flat_map(|i| std::iter::repeat_n(i, repeat(i))).collect();
        let many: Vec<f32> = each.iter().flat_map(|i| &rows[3 * i..3 * i + 3]).copied().collect();
        let many_labels: Vec<u32> = each.iter().map(|i| labels[*i]).collect();
        let [weighted, repeated] = [
            Gaussians::new(&rows, 3, &mass, &labels, 3).unwrap(),
            Gaussians::new(&many, 3, &vec![1.0; each.len()], &many_labels, 3).unwrap(),
        ]
        .map(|g| g.lengths(&rows).concat());
        assert!(weighted.iter().zip(&repeated).all(|(a, b)| (a - b).abs() < 1e-9));
    }
}
