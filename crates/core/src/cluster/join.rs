//! Clusters joined pair by pair, so that little is lost of what the label at one end of an edge says of the label at the other.
//!
//! A partition finer than asked for follows the shapes that k-means cuts through; joining it is agglomerative information bottleneck
//! (Slonim, Tishby, "Agglomerative information bottleneck", NIPS 1999) on the edges of the membership graph.

use rayon::prelude::*;

use super::graph::Membership;

/// The share of a graph's edges between every two clusters: symmetric, with sum one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Edges {
    clusters: usize,
    shares: Vec<f64>,
}

impl Edges {
    /// From weights between clusters, `clusters x clusters`, symmetric.
    pub(crate) fn new(mut weights: Vec<f64>, clusters: usize) -> Self {
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= total);
        Self { clusters, shares: weights }
    }

    /// The edges of a membership, without its background.
    pub(crate) fn of(membership: &Membership, labels: &[u32], clusters: usize) -> Self {
        let mut weights = vec![0.0; clusters * clusters];
        for (i, label) in labels.iter().enumerate() {
            let row = &mut weights[*label as usize * clusters..(*label as usize + 1) * clusters];
            let (columns, values) = membership.row(i);
            columns.iter().zip(values).for_each(|(j, v)| row[labels[*j as usize] as usize] += f64::from(*v));
        }
        // Both ways round of an edge are summed in different orders.
        let even = (0..clusters * clusters)
            .map(|at| 0.5 * (weights[at] + weights[at % clusters * clusters + at / clusters]))
            .collect();
        Self::new(even, clusters)
    }

    /// Share of the ends of edges in each cluster.
    fn ends(&self) -> Vec<f64> {
        self.shares.chunks_exact(self.clusters).map(|row| row.iter().sum()).collect()
    }

    /// Mutual information of the labels at both ends of an edge, nats: the score of a degree-corrected block model.
    pub(crate) fn information(&self) -> f64 {
        self.shares.iter().map(|s| x_ln_x(*s)).sum::<f64>() + 2.0 * self.entropy()
    }

    /// Share of that entropy which is information; nothing of nothing.
    pub(crate) fn kept(&self) -> f64 {
        self.information() / self.entropy().max(f64::MIN_POSITIVE)
    }

    /// Entropy of the label at an end of an edge, nats.
    pub(crate) fn entropy(&self) -> f64 {
        -self.ends().into_iter().map(x_ln_x).sum::<f64>()
    }
}

fn x_ln_x(x: f64) -> f64 {
    if x > 0.0 { x * x.ln() } else { 0.0 }
}

/// Twice what two cells of a symmetric table gain in `x ln x` when they become one; each cell comes with its own `x ln x`.
fn together(a: (f64, f64), b: (f64, f64)) -> f64 {
    if a.0 > 0.0 && b.0 > 0.0 { 2.0 * (x_ln_x(a.0 + b.0) - a.1 - b.1) } else { 0.0 }
}

/// Clusters joined one pair after the other, down to one.
pub(crate) struct Joined {
    clusters: usize,
    /// The cluster that takes in, and the one that is taken in.
    pairs: Vec<(usize, usize)>,
    /// Information and entropy before each pair, and at the end.
    steps: Vec<(f64, f64)>,
}

impl Joined {
    /// Joins the pair that loses least of the information less `price` times the entropy, until `least` clusters are left. At a price of
    /// zero small clusters are joined first, whatever is between them; at a price of one those with most edges between them. Cost:
    /// `k³` logarithms.
    pub(crate) fn down_to(edges: &Edges, price: f64, least: usize) -> Self {
        let k = edges.clusters;
        let mut table = Table::new(edges);
        let mut out = Self { clusters: k, pairs: Vec::new(), steps: vec![(edges.information(), edges.entropy())] };
        while table.left.len() > least.max(1) {
            let (kept, gone, step) = table.best(price);
            let (information, entropy) = out.steps[out.steps.len() - 1];
            out.steps.push((information + step.information, entropy + step.entropy));
            out.pairs.push((kept, gone));
            table.join(kept, gone);
        }
        out
    }

    /// Information and entropy when so many clusters are left.
    ///
    /// # Panics
    /// If there were never so many.
    pub(crate) fn at(&self, clusters: usize) -> (f64, f64) {
        self.steps[self.clusters - clusters]
    }

    /// The labels when so many clusters are left.
    pub(crate) fn labels(&self, labels: &[u32], clusters: usize) -> Vec<u32> {
        let mut into: Vec<usize> = (0..self.clusters).collect();
        for (kept, gone) in &self.pairs[..self.clusters - clusters] {
            into.iter_mut().filter(|c| *c == gone).for_each(|c| *c = *kept);
        }
        let mut names = vec![0; self.clusters];
        let left = (0..self.clusters).filter(|c| into[*c] == *c).collect::<Vec<_>>();
        left.iter().zip(0..).for_each(|(c, name)| names[*c] = name);
        labels.iter().map(|l| names[into[*l as usize]]).collect()
    }
}

/// What a join changes.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    information: f64,
    entropy: f64,
}

/// A symmetric table while its rows are joined. What belongs to pairs is kept for `a < b` of clusters that are left.
struct Table {
    clusters: usize,
    /// Shares, each with its `x ln x`, which most sums need.
    cells: Vec<(f64, f64)>,
    ends: Vec<f64>,
    /// For every pair, `Σ_t together(share to t, share to t)`.
    mixed: Vec<f64>,
    /// For every pair, the rest of what its join changes: it depends on the two alone.
    own: Vec<Step>,
    left: Vec<usize>,
}

impl Table {
    fn new(edges: &Edges) -> Self {
        let k = edges.clusters;
        let cells = edges.shares.iter().map(|x| (*x, x_ln_x(*x))).collect();
        let mut table =
            Self { clusters: k, cells, ends: edges.ends(), mixed: Vec::new(), own: Vec::new(), left: (0..k).collect() };
        let pairs = || (0..k).into_par_iter().flat_map_iter(|a| (0..k).map(move |b| (a, b)));
        table.mixed = pairs().map(|(a, b)| if a < b { table.mix(a, b) } else { 0.0 }).collect();
        table.own = pairs().map(|(a, b)| if a < b { table.alone(a, b) } else { Step::default() }).collect();
        table
    }

    fn cell(&self, a: usize, b: usize) -> (f64, f64) {
        self.cells[a * self.clusters + b]
    }

    fn mix(&self, a: usize, b: usize) -> f64 {
        self.left.iter().map(|t| together(self.cell(a, *t), self.cell(b, *t))).sum()
    }

    /// What a join changes but for [`Table::mixed`].
    fn alone(&self, a: usize, b: usize) -> Step {
        let (aa, bb, ab) = (self.cell(a, a), self.cell(b, b), self.cell(a, b));
        let twice = together(aa, ab) + together(bb, ab);
        let inner = x_ln_x(aa.0 + bb.0 + 2.0 * ab.0) - aa.1 - bb.1 - 2.0 * ab.1;
        let entropy = x_ln_x(self.ends[a]) + x_ln_x(self.ends[b]) - x_ln_x(self.ends[a] + self.ends[b]);
        Step { information: inner - twice + 2.0 * entropy, entropy }
    }

    fn step(&self, a: usize, b: usize) -> Step {
        let at = a * self.clusters + b;
        let Step { information, entropy } = self.own[at];
        Step { information: self.mixed[at] + information, entropy }
    }

    /// The pair that loses least; of equals the first.
    fn best(&self, price: f64) -> (usize, usize, Step) {
        let value = |s: &Step| s.information - price * s.entropy;
        let better = |best: (usize, usize, Step), new: (usize, usize, Step)| {
            if value(&new.2) > value(&best.2) { new } else { best }
        };
        let rows: Vec<(usize, usize, Step)> = self.left[..self.left.len() - 1]
            .par_iter()
            .enumerate()
            .map(|(at, a)| {
                let pairs = self.left[at + 1..].iter().map(|b| (*a, *b, self.step(*a, *b)));
                let worst = Step { information: f64::NEG_INFINITY, entropy: 0.0 };
                pairs.fold((*a, self.left[at + 1], worst), better)
            })
            .collect();
        rows[1..].iter().fold(rows[0], |best, new| better(best, *new))
    }

    fn join(&mut self, kept: usize, gone: usize) {
        let k = self.clusters;
        let column = |t: usize, cells: &[(f64, f64)]| -> Vec<(f64, f64)> { (0..k).map(|a| cells[a * k + t]).collect() };
        let before = [kept, gone].map(|t| column(t, &self.cells));
        self.left.retain(|c| *c != gone);
        let of = |x: f64| (x, x_ln_x(x));
        for t in self.left.iter().copied().filter(|t| *t != kept) {
            let cell = of(before[0][t].0 + before[1][t].0);
            (self.cells[kept * k + t], self.cells[t * k + kept]) = (cell, cell);
        }
        self.cells[kept * k + kept] = of(before[0][kept].0 + 2.0 * before[0][gone].0 + before[1][gone].0);
        for t in 0..k {
            (self.cells[gone * k + t], self.cells[t * k + gone]) = ((0.0, 0.0), (0.0, 0.0));
        }
        self.ends[kept] += self.ends[gone];
        self.ends[gone] = 0.0;
        let (after, left) = (column(kept, &self.cells), &self.left);
        self.mixed.par_chunks_mut(k).enumerate().filter(|(a, _)| left.binary_search(a).is_ok()).for_each(|(a, row)| {
            for b in left.iter().copied().filter(|b| *b > a) {
                let old = together(before[0][a], before[0][b]) + together(before[1][a], before[1][b]);
                row[b] += together(after[a], after[b]) - old;
            }
        });
        let others: Vec<usize> = left.iter().copied().filter(|b| *b != kept).collect();
        let new: Vec<(usize, f64, Step)> = others
            .into_par_iter()
            .map(|b| {
                let (first, second) = (kept.min(b), kept.max(b));
                (first * k + second, self.mix(first, second), self.alone(first, second))
            })
            .collect();
        for (at, mixed, own) in new {
            (self.mixed[at], self.own[at]) = (mixed, own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    /// Weights between `k` clusters of which every three belong together.
    fn weights(k: usize, seed: u64) -> Edges {
        let mut rng = Stream::new(seed, "weights").rng(0);
        let mut all = vec![0.0; k * k];
        for a in 0..k {
            for b in 0..=a {
                let near = if a == b {
                    10.0
                } else if a / 3 == b / 3 {
                    3.0
                } else {
                    0.1
                };
                all[a * k + b] = near * (0.5 + rng.uniform());
                all[b * k + a] = all[a * k + b];
            }
        }
        Edges::new(all, k)
    }

    /// The table after labels are renamed, from its definition.
    fn coarser(edges: &Edges, names: &[u32], clusters: usize) -> Edges {
        let k = edges.clusters;
        let mut all = vec![0.0; clusters * clusters];
        for at in 0..k * k {
            all[names[at / k] as usize * clusters + names[at % k] as usize] += edges.shares[at];
        }
        Edges::new(all, clusters)
    }

    #[test]
    fn joins_find_what_belongs_together_and_say_what_they_lose() {
        let edges = weights(12, 3);
        let each: Vec<u32> = (0..12).collect();
        for price in [0.0, 0.25, 0.5, 1.0] {
            let joined = Joined::down_to(&edges, price, 1);
            for left in 1..=12 {
                let table = coarser(&edges, &joined.labels(&each, left), left);
                let (information, entropy) = joined.at(left);
                assert!((table.information() - information).abs() < 1e-12, "{left}");
                assert!((table.entropy() - entropy).abs() < 1e-12, "{left}");
            }
            let four = joined.labels(&each, 4);
            assert!((0..12).all(|c| four[c] == four[c / 3 * 3]), "{price}: {four:?}");
        }
    }

    #[test]
    fn every_join_is_the_best_pair() {
        let edges = weights(7, 5);
        let joined = Joined::down_to(&edges, 0.25, 6);
        let each: Vec<u32> = (0..7).collect();
        let value = |names: &[u32]| {
            let table = coarser(&edges, names, 6);
            table.information() - 0.25 * table.entropy()
        };
        let found = value(&joined.labels(&each, 6));
        for b in 1..7 {
            for a in 0..b {
                let names: Vec<u32> = (0..7)
                    .map(|c| {
                        if c == b {
                            a
                        } else if c > b {
                            c - 1
                        } else {
                            c
                        }
                    })
                    .collect();
                assert!(value(&names) <= found + 1e-12);
            }
        }
    }

    #[test]
    fn information_of_separate_clusters_is_their_entropy_and_of_unrelated_ones_nothing() {
        let apart = Edges::new(vec![3.0, 0.0, 0.0, 1.0], 2);
        assert!((apart.information() - apart.entropy()).abs() < 1e-12);
        assert!((apart.entropy() - (0.75 * (4.0f64 / 3.0).ln() + 0.25 * 4f64.ln())).abs() < 1e-12);
        assert!(Edges::new(vec![1.0; 9], 3).information().abs() < 1e-12);
    }
}
