//! Which rows a step sees.

use subspan::cluster::Problem;
use subspan::draw::{Rng, Stream};

/// Batches of rows, epoch by epoch.
pub(super) struct Batches<'a> {
    problem: &'a Problem<'a>,
    size: usize,
    order: Vec<usize>,
    at: usize,
    epoch: u64,
}

impl<'a> Batches<'a> {
    pub(super) fn new(problem: &'a Problem<'a>, size: usize) -> Self {
        let n = problem.rows.len() / problem.n_cols;
        Self { problem, size: size.min(n), order: Vec::new(), at: n, epoch: 0 }
    }

    /// The next batch of rows, by index.
    pub(super) fn next(&mut self) -> &[usize] {
        let Problem { weights, seed, .. } = *self.problem;
        if self.at + self.size > self.order.len() {
            let n = self.problem.rows.len() / self.problem.n_cols;
            let mut rng = Stream::new(seed, "head batches").rng(self.epoch);
            let drawn = drawn(n, weights, &mut rng);
            self.order = rng.permutation(n).into_iter().map(|i| drawn[i]).collect();
            (self.at, self.epoch) = (0, self.epoch + 1);
        }
        self.at += self.size;
        &self.order[self.at - self.size..self.at]
    }

    /// The values of the next batch, followed by those of its second views: one of each row's neighbours.
    pub(super) fn next_views(&mut self) -> Vec<f32> {
        let own = self.next().to_vec();
        let Problem { neighbours, k, seed, .. } = *self.problem;
        let partners = Stream::new(seed ^ self.epoch, "head views");
        let second = own.iter().map(|i| neighbours[i * k + partners.rng(*i as u64).below(k as u64) as usize] as usize);
        let all: Vec<usize> = own.iter().copied().chain(second).collect();
        self.values(&all)
    }

    /// The values of rows.
    pub(super) fn values(&self, which: &[usize]) -> Vec<f32> {
        let d = self.problem.n_cols;
        which.iter().flat_map(|i| &self.problem.rows[i * d..(i + 1) * d]).copied().collect()
    }
}

/// The rows of an epoch: all, or as many, each as often as its weight says, to within one (systematic sampling).
pub(crate) fn drawn(n: usize, weights: &[f64], rng: &mut Rng) -> Vec<usize> {
    if weights.is_empty() {
        return (0..n).collect();
    }
    let step = weights.iter().sum::<f64>() / n as f64;
    let (mut next, mut sum, mut out) = (rng.uniform() * step, 0.0, Vec::with_capacity(n));
    for (i, weight) in weights.iter().enumerate() {
        sum += weight;
        while next < sum && out.len() < n {
            out.push(i);
            next += step;
        }
    }
    // Rounding may leave the last place empty.
    out.resize(n, n - 1);
    out
}
