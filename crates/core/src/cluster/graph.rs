//! The membership of all rows: a nearest-neighbour graph, a temperature per row, a doubly stochastic scaling.

use rayon::prelude::*;
use subspan_linalg::add_rows;

use super::eigen::Operator;
use super::neighbours::Neighbours;
use crate::assign::sinkhorn::{self, Kernel, Scaling, exp_capped};
use crate::draw::Stream;

/// A sparse symmetric matrix without diagonal, rows in ascending column order, plus a rank-one background.
///
/// Entry `(i, j)`, `i ≠ j`, is the stored value (or nothing) plus `spread_i spread_j`; the diagonal is zero. Rows sum to their mass, one
/// where all rows weigh the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Membership {
    /// The entries of row `i` are `offsets[i]..offsets[i + 1]`.
    pub offsets: Vec<usize>,
    /// Column of every entry.
    pub columns: Vec<u32>,
    /// Value of every entry.
    pub values: Vec<f32>,
    /// The factor of the background; zeros if there is none.
    pub spread: Vec<f64>,
}

impl Membership {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.spread.len()
    }

    /// Columns and values of row `i`.
    pub fn row(&self, i: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[i]..self.offsets[i + 1];
        (&self.columns[range.clone()], &self.values[range])
    }

    /// The part of each row's mass that the background spreads over all other rows.
    pub fn background(&self) -> Vec<f32> {
        let total: f64 = self.spread.iter().sum();
        self.spread.iter().map(|s| (s * (total - s)) as f32).collect()
    }

    /// `exp` of the mean entropy of the rows: over how many rows a row's mass is spread.
    pub fn effective_support(&self) -> f64 {
        let background = self.background();
        let n = self.n_rows() as f64;
        let entropy: f64 = (0..self.n_rows())
            .map(|i| {
                let values = self.row(i).1;
                let mass = values.iter().map(|v| f64::from(*v)).sum::<f64>() + f64::from(background[i]);
                let own: f64 = values.iter().map(|v| surprise(f64::from(*v) / mass)).sum();
                let rest = f64::from(background[i]) / mass;
                own + surprise(rest) + rest * n.ln()
            })
            .sum();
        (entropy / n).exp()
    }
}

/// `−p ln p`.
fn surprise(p: f64) -> f64 {
    if p > 0.0 { -p * p.ln() } else { 0.0 }
}

impl Operator for Membership {
    fn side(&self) -> usize {
        self.n_rows()
    }

    fn apply(&self, x: &[f64], width: usize, out: &mut [f64]) {
        // Partial sums over fixed chunks of rows, so that their order is that of the rows.
        let parts: Vec<Vec<f64>> = x
            .par_chunks(SUM_ROWS * width)
            .zip(self.spread.par_chunks(SUM_ROWS))
            .map(|(x, spread)| {
                let mut sum = vec![0.0; width];
                for (row, s) in x.chunks_exact(width).zip(spread) {
                    sum.iter_mut().zip(row).for_each(|(t, v)| *t += s * v);
                }
                sum
            })
            .collect();
        let mut total = vec![0.0; width];
        parts.iter().for_each(|p| total.iter_mut().zip(p).for_each(|(t, v)| *t += v));
        out.par_chunks_mut(width).enumerate().for_each(|(i, out)| {
            let s = self.spread[i];
            let own = &x[i * width..(i + 1) * width];
            out.iter_mut().zip(&total).zip(own).for_each(|((o, t), v)| *o = s * (t - s * v));
            let (columns, values) = self.row(i);
            add_rows(x, columns, values, out);
        });
    }
}

/// Rows per partial sum.
const SUM_ROWS: usize = 4096;

/// The kernel before scaling: sparse values plus a constant between all other pairs.
struct Sparse<'a> {
    offsets: &'a [usize],
    columns: &'a [u32],
    values: &'a [f64],
    constant: f64,
}

impl Kernel for Sparse<'_> {
    fn side(&self) -> usize {
        self.offsets.len() - 1
    }

    fn mul(&self, x: &[f64], out: &mut [f64]) {
        let parts: Vec<f64> = x.par_chunks(SUM_ROWS).map(|x| x.iter().sum()).collect();
        let total: f64 = parts.iter().sum();
        out.par_iter_mut().enumerate().for_each(|(i, out)| {
            let range = self.offsets[i]..self.offsets[i + 1];
            let own: f64 =
                self.columns[range.clone()].iter().zip(&self.values[range]).map(|(j, v)| v * x[*j as usize]).sum();
            *out = own + self.constant * (total - x[i]);
        });
    }
}

/// Each row's temperature and the affinity of its nearest row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Temperatures {
    pub(crate) eta: Vec<f64>,
    pub(crate) top: Vec<f64>,
}

impl Temperatures {
    pub(crate) fn of(neighbours: &Neighbours, perplexity: f64) -> Self {
        let rows = neighbours.affinity.par_chunks(neighbours.k);
        let eta = rows.map(|row| temperature(row, perplexity)).collect();
        let top = neighbours.affinity.chunks_exact(neighbours.k).map(|row| f64::from(row[0])).collect();
        Self { eta, top }
    }
}

/// Bounds of a temperature, in parts of the largest affinity: below, one neighbour takes all; above, all neighbours count alike.
const ETA: [f64; 2] = [1e-4, 10.0];
/// Affinities that such parts are taken of: coefficients of self-representation are about the number of columns over that of rows.
const SCALES: [f64; 2] = [1e-9, 1.0];

/// The temperature at which the softmax of `affinity` has the exponential of its entropy at `perplexity`, within bounds.
pub(crate) fn temperature(affinity: &[f32], perplexity: f64) -> f64 {
    let top = affinity.iter().fold(f32::NEG_INFINITY, |m, a| m.max(*a));
    // The entropy and its derivative by the logarithm of the temperature: the variance of the exponents.
    let entropy = |log_eta: f64| {
        let inverse = (-log_eta).exp();
        let (mut sum, mut moment, mut square) = (0.0, 0.0, 0.0);
        for a in affinity {
            let e = f64::from(a - top) * inverse;
            let w = e.exp();
            sum += w;
            moment += w * e;
            square += w * e * e;
        }
        let mean = moment / sum;
        (sum.ln() - mean, square / sum - mean * mean)
    };
    let goal = perplexity.min(0.95 * affinity.len() as f64).max(1.0).ln();
    let scale = f64::from(top).clamp(SCALES[0], SCALES[1]);
    let [mut low, mut high] = ETA.map(|eta| (scale * eta).ln());
    if entropy(low).0 >= goal {
        return scale * ETA[0];
    }
    // Newton steps that stay between the bounds known so far, halvings where they would not.
    let mut at = 0.5 * (low + high);
    for _ in 0..MAX_STEPS {
        let (reached, slope) = entropy(at);
        if (reached - goal).abs() <= ENTROPY_TOLERANCE || high - low <= ENTROPY_TOLERANCE {
            break;
        }
        if reached < goal {
            low = at
        } else {
            high = at
        }
        let step = at + (goal - reached) / slope;
        at = if step > low && step < high { step } else { 0.5 * (low + high) };
    }
    at.exp()
}

/// Of an entropy, nats, and of a logarithm: far below what a kernel shows in single precision.
const ENTROPY_TOLERANCE: f64 = 1e-10;
/// Halvings alone would need 40 steps.
const MAX_STEPS: usize = 60;

/// The kernel between two rows of given affinity, temperatures and nearest affinities; symmetric in the rows.
pub(crate) fn kernel(affinity: f64, eta: [f64; 2], top: [f64; 2]) -> f64 {
    exp_capped(log_kernel(affinity, eta, top))
}

/// The logarithm of [`kernel`], not capped.
pub(crate) fn log_kernel(affinity: f64, eta: [f64; 2], top: [f64; 2]) -> f64 {
    (affinity - 0.5 * (top[0] + top[1])) / (eta[0] * eta[1]).sqrt()
}

/// A scaled graph.
#[derive(Debug, Clone)]
pub(crate) struct Scaled {
    pub(crate) membership: Membership,
    pub(crate) temperatures: Temperatures,
    pub(crate) scaling: Scaling,
}

/// Pairs sampled per row for the background: a small constant affinity of all other pairs, the mean kernel of sampled ones. Without it a
/// doubly stochastic scaling may not exist: rows whose only neighbours are a smaller set of hubs cannot all have unit mass.
const SAMPLED: u64 = 50;
/// Most of a row's kernel that the background may be before scaling: it is there so that a scaling exists. Whitened rows have so
/// many strangers at a moderate distance that their mean would take two thirds of the mass, and the clusters' eigenvectors with it.
const BACKGROUND: f64 = 0.01;

/// The union of all neighbour lists, with `affinity_of(i, j)` for sampled pairs, scaled to rows that sum to their mass.
pub(crate) fn scaled(
    neighbours: &Neighbours,
    perplexity: f64,
    affinity_of: &(dyn Fn(usize, usize) -> f64 + Sync),
    mass: &[f64],
    seed: u64,
) -> Scaled {
    let n = neighbours.index.len() / neighbours.k;
    let temperatures = Temperatures::of(neighbours, perplexity);
    let (offsets, columns, affinity) = union(neighbours, n);
    let (eta, top) = (&temperatures.eta, &temperatures.top);
    let between = |i: usize, j: usize, a: f64| kernel(a, [eta[i], eta[j]], [top[i], top[j]]);
    let of_row = |i: usize| {
        let range = offsets[i]..offsets[i + 1];
        let row = columns[range.clone()].iter().zip(&affinity[range]);
        row.map(move |(j, a)| between(i, *j as usize, f64::from(*a)))
    };
    let mut values: Vec<f64> = (0..n).into_par_iter().flat_map_iter(of_row).collect();
    let most = BACKGROUND * values.iter().sum::<f64>() / (n as f64).powi(2);
    let stream = Stream::new(seed, "background");
    let parts: Vec<(f64, u64)> = (0..n)
        .into_par_iter()
        .map(|i| {
            let mut rng = stream.rng(i as u64);
            let near = &columns[offsets[i]..offsets[i + 1]];
            let strangers = (0..SAMPLED.min(n as u64)).map(|_| rng.below(n as u64) as usize);
            let strangers = strangers.filter(|j| *j != i && near.binary_search(&(*j as u32)).is_err());
            strangers.fold((0.0, 0), |(sum, count), j| (sum + between(i, j, affinity_of(i, j)), count + 1))
        })
        .collect();
    let (sum, count) = parts.iter().fold((0.0, 0), |(s, c), p| (s + p.0, c + p.1));
    // Positive even where every sampled pair underflows: a scaling then exists.
    let constant = if count == 0 { f64::MIN_POSITIVE.sqrt() } else { (sum / count as f64).min(most).max(1e-12) };
    values.par_iter_mut().for_each(|v| *v = (*v - constant).max(0.0));
    let sparse = Sparse { offsets: &offsets, columns: &columns, values: &values, constant };
    let scaling = sinkhorn::scale_to(&sparse, mass, &sinkhorn::Options::default());
    let u: Vec<f64> = scaling.log_scale.iter().map(|f| f.exp()).collect();
    let of_row = |i: usize| {
        let range = offsets[i]..offsets[i + 1];
        let (u, row) = (&u, columns[range.clone()].iter().zip(&values[range]));
        row.map(move |(j, v)| (v * (u[i] * u[*j as usize])) as f32)
    };
    let gamma = (0..n).into_par_iter().flat_map_iter(of_row).collect();
    let spread = u.iter().map(|u| u * constant.sqrt()).collect();
    Scaled { membership: Membership { offsets, columns, values: gamma, spread }, temperatures, scaling }
}

/// Every pair of which one is among the other's neighbours, both ways round, with the larger affinity found.
fn union(neighbours: &Neighbours, n: usize) -> (Vec<usize>, Vec<u32>, Vec<f32>) {
    let k = neighbours.k;
    let edges = || (0..n * k).map(|at| (at / k, neighbours.index[at], neighbours.affinity[at]));
    let mut starts = vec![0; n + 1];
    edges().for_each(|(i, j, _)| [i, j as usize].into_iter().for_each(|row| starts[row + 1] += 1));
    (0..n).for_each(|i| starts[i + 1] += starts[i]);
    let mut entries = vec![(0u32, 0f32); 2 * n * k];
    let mut free = starts.clone();
    for (i, j, a) in edges() {
        for (row, column) in [(i, j), (j as usize, i as u32)] {
            entries[free[row]] = (column, a);
            free[row] += 1;
        }
    }
    let mut rest = entries.as_mut_slice();
    let rows: Vec<&mut [(u32, f32)]> = starts.windows(2).filter_map(|w| rest.split_off_mut(..w[1] - w[0])).collect();
    let kept: Vec<&[(u32, f32)]> = rows.into_par_iter().map(distinct).collect();
    let mut offsets = vec![0];
    offsets.extend(kept.iter().scan(0, |sum, row| {
        *sum += row.len();
        Some(*sum)
    }));
    let columns = kept.par_iter().flat_map_iter(|row| row.iter().map(|e| e.0)).collect();
    let affinity = kept.par_iter().flat_map_iter(|row| row.iter().map(|e| e.1)).collect();
    (offsets, columns, affinity)
}

/// Entries by ascending column, of those of one column the largest.
fn distinct(row: &mut [(u32, f32)]) -> &[(u32, f32)] {
    row.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut count = 0;
    for at in 0..row.len() {
        if count == 0 || row[count - 1].0 != row[at].0 {
            row[count] = row[at];
            count += 1;
        }
    }
    &row[..count]
}

#[cfg(test)]
mod tests {
    use super::super::neighbours::{Affinity, Search};
    use super::*;

    fn rows(n: usize, d: usize) -> Vec<f32> {
        let mut rng = Stream::new(4, "rows").rng(0);
        let mut rows: Vec<f32> = (0..n * d).map(|_| rng.normal() as f32).collect();
        rows.chunks_exact_mut(d).for_each(super::super::prepare::to_unit);
        rows
    }

    fn graph(n: usize, k: usize) -> Scaled {
        let d = 6;
        let rows = rows(n, d);
        let neighbours =
            Search { rows: &rows, n_cols: d, affinity: &Affinity::Cosine, weights: &[] }.nearest(&rows, &[], k, true);
        let dot =
            |i: usize, j: usize| (0..d).map(|c| f64::from(rows[i * d + c] * rows[j * d + c])).sum::<f64>().max(0.0);
        scaled(&neighbours, 5.0, &dot, &vec![1.0; n], 0)
    }

    #[test]
    fn rows_and_background_sum_to_one_and_the_matrix_is_symmetric() {
        let m = graph(300, 8);
        assert!(m.scaling.converged && m.temperatures.eta.iter().all(|e| *e > 0.0));
        let m = m.membership;
        let background = m.background();
        assert!(m.effective_support() > 2.0 && m.effective_support() < 300.0);
        for i in 0..300 {
            let (columns, values) = m.row(i);
            assert!((f64::from(background[i]) + values.iter().map(|v| f64::from(*v)).sum::<f64>() - 1.0).abs() < 1e-5);
            for (j, v) in columns.iter().zip(values) {
                let (back, there) = m.row(*j as usize);
                assert_eq!(there[back.binary_search(&(i as u32)).unwrap()], *v);
            }
        }
        let ones = vec![1.0; 300];
        let mut out = vec![0.0; 300];
        m.apply(&ones, 1, &mut out);
        assert!(out.iter().all(|s| (s - 1.0).abs() < 1e-5));
    }

    #[test]
    fn a_graph_of_all_pairs_is_the_dense_projection() {
        let n = 60;
        let full = graph(n, n - 1);
        let (eta, top) = (&full.temperatures.eta, &full.temperatures.top);
        let (d, rows) = (6, rows(n, 6));
        let dense: Vec<f64> = (0..n * n)
            .map(|at| {
                let (i, j) = (at / n, at % n);
                let a = (0..d).map(|c| f64::from(rows[i * d + c] * rows[j * d + c])).sum::<f64>().max(0.0);
                if i == j { 0.0 } else { kernel(a, [eta[i], eta[j]], [top[i], top[j]]) }
            })
            .collect();
        let u = sinkhorn::scale(&sinkhorn::Dense::new(&dense, n), &sinkhorn::Options::default()).log_scale;
        for i in 0..n {
            let (columns, values) = full.membership.row(i);
            for (j, v) in columns.iter().map(|j| *j as usize).zip(values) {
                assert!((f64::from(*v) - dense[i * n + j] * (u[i] + u[j]).exp()).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_hub_graph_needs_the_background() {
        // Three rows that are near one hub only.
        let neighbours = Neighbours { k: 1, index: vec![1, 0, 0, 0], affinity: vec![0.9, 0.9, 0.8, 0.7] };
        assert!(scaled(&neighbours, 5.0, &|_, _| 0.1, &[1.0; 4], 0).scaling.converged);
        let hub: Vec<f64> = (0..16).map(|at| f64::from(u8::from((at / 4 == 0) != (at % 4 == 0)))).collect();
        assert!(!sinkhorn::scale(&sinkhorn::Dense::new(&hub, 4), &sinkhorn::Options::default()).converged);
    }

    #[test]
    fn a_temperature_gives_the_perplexity_asked_for_whatever_the_scale_of_affinities() {
        for scale in [1.0, 0.01, 1e-5] {
            let affinity: Vec<f32> = (0..40).map(|i| scale * (1.0 - 0.02 * i as f32)).collect();
            let eta = temperature(&affinity, 12.0);
            let weights: Vec<f64> = affinity.iter().map(|a| ((f64::from(*a) - f64::from(scale)) / eta).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let entropy: f64 = weights.iter().map(|w| surprise(w / sum)).sum();
            assert!((entropy.exp() - 12.0).abs() < 1e-5, "{scale}: {}", entropy.exp());
        }
        assert_eq!(temperature(&[0.5; 30], 10.0), 0.5 * ETA[0]);
        assert!(temperature(&[0.0; 30], 10.0) > 0.0);
    }
}
