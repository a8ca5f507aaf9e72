//! The search for the worst direction, for any `p`: it finds how bad a sample is at least, not at most.
//!
//! `F(x) = log Σ uᵢ|aᵢx|^p − log ‖Ax‖_p^p` is climbed up and down from many starts, all of them at once: one pass over the
//! rows evaluates every direction and its gradient. Directions live on the unit sphere of the whitened space (`‖Ax‖₂ = 1`).

use subspan_linalg::{Mat, Whitener, apply, eigh, par_row_norms_sq};

use super::extremes::null_below;
use super::sums::{WeightedTable, abs_power_sums, sums_and_gradients};
use super::{Certificate, CertificateKind, certificate_of_ratios};
use crate::draw::Stream;
use crate::error::{Error, Result};
use crate::observe::{Event, Observer};
use crate::sample::power::norm;

/// First step length, and what a success and a failure multiply it by.
const STEP: (f64, f64, f64) = (0.3, 1.3, 0.5);

/// Starts of each informed kind: extreme singular vectors of the sample, heavy rows of the sample, heavy rows of the reference.
const INFORMED_STARTS: usize = 4;

/// Directions kept per side for evaluation on more rows.
const KEPT: usize = 4;

/// How hard to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// Starting directions, each followed up and down: some thirteen informed ones, Gaussian ones up to this number.
    pub starts: usize,
    /// Gradient steps, 35 to 60.
    pub iterations: usize,
    /// Whether the last column is a label, whose axis is a start of its own.
    pub label: bool,
}

impl Default for Search {
    fn default() -> Self {
        Self { starts: 20, iterations: 50, label: false }
    }
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Searched {
    /// The worst ratios on the reference.
    pub certificate: Certificate,
    /// The worst directions, `d x k` with `k ≤ 8`: for [`abs_power_sums_of`](super::abs_power_sums_of) the whole table.
    pub directions: Mat,
}

/// Searches for directions `x` in which `sample` misrepresents `reference`: extremes of
/// `Σ_sample u|a x|^p / Σ_reference v|a x|^p`.
///
/// The reference is the whole table, or a larger weighted sample of it; the certificate says which (`described`). The result
/// is of kind `searched`: the true extremes may lie further out. A sample that misses a direction of the reference altogether
/// gets `lower = −1`, exactly.
///
/// Cost: per iteration `8 n d` flop and `2 n` powers per start. Results do not depend on the number of threads.
///
/// # Errors
/// `p` below 1, tables of different width, [`Error::AllZero`] for the reference, [`Error::Cancelled`].
pub fn search(
    reference: &WeightedTable<'_>,
    sample: &WeightedTable<'_>,
    p: f64,
    config: &Search,
    described: &str,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Searched> {
    crate::sample::scores::check_p(p)?;
    let d = reference.n_cols();
    if sample.n_cols() != d {
        return Err(Error::Shape { what: "a row of the sample", found: sample.n_cols(), expected: d });
    }
    let whitener = reference.whitened()?;
    if whitener.rank == 0 {
        return Err(Error::AllZero);
    }
    let spectrum = eigh(&sample.mapped_gram(&whitener.factor))?;
    let misses_a_direction = spectrum.values[0] <= null_below(&spectrum.values, reference.n_rows() as u64);

    let starts = start_directions(reference, sample, p, config, &whitener, &spectrum.vectors, seed);
    let found = climb(reference, sample, p, config.iterations, &whitener.factor, &starts, observer)?;

    let directions = whitener.factor.mul(&columns(&found.points, &found.worst()));
    let ratios: Vec<f64> = abs_power_sums(sample, &directions, p)
        .iter()
        .zip(abs_power_sums(reference, &directions, p))
        .map(|(sample, all)| sample / all)
        .collect();
    let mut certificate = certificate_of_ratios(&ratios, CertificateKind::Searched, described);
    if misses_a_direction {
        certificate.lower = -1.0;
    }
    Ok(Searched { certificate, directions })
}

/// Starting points in whitened coordinates, one per column.
fn start_directions(
    reference: &WeightedTable<'_>,
    sample: &WeightedTable<'_>,
    p: f64,
    config: &Search,
    whitener: &Whitener,
    sample_directions: &Mat,
    seed: u64,
) -> Mat {
    let r = whitener.rank;
    let mut starts: Vec<Vec<f64>> = Vec::new();
    if config.label {
        // F ξ = e_d has the solution ξ = Fᵀ G e_d, because Fᵀ G F = I.
        let axis = reference.gram().col(reference.n_cols() - 1);
        starts.push(whitener.factor.transpose().mul_vec(&axis));
    }
    let smallest = (0..r.min(INFORMED_STARTS - 1)).map(|j| sample_directions.col(j));
    starts.extend(smallest.chain([sample_directions.col(r - 1)]));
    for rows in [sample, reference] {
        // Largest v‖z‖^p: the rows that weigh most in their own direction.
        let norms = par_row_norms_sq(rows.values(), &whitener.factor, whitener.upper);
        let size = |i: usize| rows.weight(i) * norms[i].powf(p / 2.0);
        let mut order: Vec<usize> = (0..rows.n_rows()).filter(|i| norms[*i] > 0.0 && rows.weight(*i) > 0.0).collect();
        let count = INFORMED_STARTS.min(order.len());
        if count < order.len() {
            order.select_nth_unstable_by(count, |a, b| size(*b).total_cmp(&size(*a)).then(a.cmp(b)));
            order.truncate(count);
            order.sort_unstable();
        }
        for i in order {
            let mut z = vec![0.0; r];
            apply::map_rows(rows.row(i), &whitener.factor, &mut z);
            starts.push(z);
        }
    }
    let stream = Stream::new(seed, "certificate");
    let mut k = 0;
    while starts.len() < config.starts {
        let mut rng = stream.rng(k);
        starts.push((0..r).map(|_| rng.normal()).collect());
        k += 1;
    }
    Mat::from_fn(r, starts.len(), |i, j| starts[j][i])
}

/// Directions with their objective, first all that climb, then all that descend.
struct Climbed {
    points: Mat,
    /// Signed so that larger is worse.
    badness: Vec<f64>,
}

impl Climbed {
    /// Columns of the worst directions of each side.
    fn worst(&self) -> Vec<usize> {
        let half = self.badness.len() / 2;
        let best_of = |from: usize| {
            let mut order: Vec<usize> = (from..from + half).collect();
            order.sort_by(|a, b| self.badness[*b].total_cmp(&self.badness[*a]).then(a.cmp(b)));
            order.truncate(KEPT);
            order
        };
        [best_of(0), best_of(half)].concat()
    }
}

/// Projected gradient ascent and descent on the unit sphere; keeps improvements only.
fn climb(
    reference: &WeightedTable<'_>,
    sample: &WeightedTable<'_>,
    p: f64,
    iterations: usize,
    factor: &Mat,
    starts: &Mat,
    observer: &dyn Observer,
) -> Result<Climbed> {
    let (r, half) = (starts.n_rows(), starts.n_cols());
    let sign = |j: usize| if j < half { 1.0 } else { -1.0 };
    let back = factor.transpose();
    let evaluate = |points: &Mat| {
        let x = factor.mul(points);
        let (above, above_gradient) = sums_and_gradients(sample, &x, p);
        let (below, below_gradient) = sums_and_gradients(reference, &x, p);
        // An underflowed reference cannot be judged; a sample that sees nothing cannot be worse.
        let badness: Vec<f64> = (0..2 * half)
            .map(|j| if below[j] > 0.0 { sign(j) * (above[j].ln() - below[j].ln()) } else { f64::NEG_INFINITY })
            .collect();
        let slope = |gradient: f64, sum: f64| if sum > 0.0 { gradient / sum } else { 0.0 };
        let gradient = Mat::from_fn(factor.n_rows(), 2 * half, |i, j| {
            sign(j) * (slope(above_gradient[(i, j)], above[j]) - slope(below_gradient[(i, j)], below[j]))
        });
        (badness, back.mul(&gradient))
    };

    let mut points = Mat::from_fn(r, 2 * half, |i, j| starts[(i, j % half)]);
    (0..2 * half).for_each(|j| normalize(&mut points, j));
    let (mut badness, mut gradient) = evaluate(&points);
    let mut steps = vec![STEP.0; 2 * half];
    for _ in 0..iterations {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let mut trial = points.clone();
        for j in 0..2 * half {
            let radial: f64 = (0..r).map(|i| gradient[(i, j)] * points[(i, j)]).sum();
            let tangent: Vec<f64> = (0..r).map(|i| gradient[(i, j)] - radial * points[(i, j)]).collect();
            let length = norm(&tangent, 2.0);
            if length > 0.0 && length.is_finite() {
                (0..r).for_each(|i| trial[(i, j)] += steps[j] * tangent[i] / length);
                normalize(&mut trial, j);
            }
        }
        let (trial_badness, trial_gradient) = evaluate(&trial);
        for j in 0..2 * half {
            if trial_badness[j] > badness[j] {
                badness[j] = trial_badness[j];
                for i in 0..r {
                    points[(i, j)] = trial[(i, j)];
                    gradient[(i, j)] = trial_gradient[(i, j)];
                }
                steps[j] *= STEP.1;
            } else {
                steps[j] *= STEP.2;
            }
        }
        observer.event(Event::Advance { steps: 1 });
    }
    Ok(Climbed { points, badness })
}

fn normalize(points: &mut Mat, j: usize) {
    let size = norm(&points.col(j), 2.0);
    if size > 0.0 {
        (0..points.n_rows()).for_each(|i| points[(i, j)] /= size);
    }
}

fn columns(of: &Mat, chosen: &[usize]) -> Mat {
    Mat::from_fn(of.n_rows(), chosen.len(), |i, j| of[(i, chosen[j])])
}
