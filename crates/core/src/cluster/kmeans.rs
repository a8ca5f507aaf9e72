//! k-means with seeded k-means++ starts, for rows of an embedding.

use rayon::prelude::*;
use subspan_linalg::{gemm, nearest_centers};

use crate::draw::{Rng, Stream};

/// The result of one start.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KMeans {
    pub(crate) labels: Vec<u32>,
    /// Sum of squared distances to the own centre.
    pub(crate) inertia: f64,
}

/// Lloyd iterations per start.
const MAX_ITERATIONS: usize = 100;
/// Relative decrease of the inertia below which a start has settled.
const SETTLED: f64 = 1e-5;
/// Rows per task and per partial sum.
const ROWS: usize = 512;

/// Clusters rows of `d` values and given mass from several starts, keyed by (seed, number); all results.
///
/// # Panics
/// If there are fewer rows than clusters.
pub(crate) fn kmeans(points: &[f32], d: usize, mass: &[f64], k: usize, starts: usize, seed: u64) -> Vec<KMeans> {
    let n = points.len() / d;
    assert!(k >= 1 && k <= n && mass.len() == n, "between one cluster and one per row");
    let stream = Stream::new(seed, "k-means");
    let squares: Vec<f32> = points.par_chunks(d).map(square).collect();
    (0..starts)
        .into_par_iter()
        .map(|s| Run { points, d, mass, k, squares: &squares }.start(&mut stream.rng(s as u64)))
        .collect()
}

/// Goes on from a partition instead of drawn centres.
pub(crate) fn settle(points: &[f32], d: usize, mass: &[f64], k: usize, labels: &[u32]) -> KMeans {
    let squares: Vec<f32> = points.par_chunks(d).map(square).collect();
    let run = Run { points, d, mass, k, squares: &squares };
    let centers = run.means(labels, &mut vec![0.0; labels.len()], &vec![0.0; k * d]);
    run.lloyd(centers)
}

fn square(row: &[f32]) -> f32 {
    row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() as f32
}

struct Run<'a> {
    points: &'a [f32],
    d: usize,
    mass: &'a [f64],
    k: usize,
    squares: &'a [f32],
}

impl Run<'_> {
    fn start(&self, rng: &mut Rng) -> KMeans {
        self.lloyd(self.spread_centers(rng))
    }

    fn lloyd(&self, mut centers: Vec<f32>) -> KMeans {
        let (mut labels, mut distances) = self.assign(&centers);
        let mut inertia = self.sum(&distances);
        for _ in 0..MAX_ITERATIONS {
            centers = self.means(&labels, &mut distances, &centers);
            (labels, distances) = self.assign(&centers);
            let reached = self.sum(&distances);
            let settled = inertia - reached <= SETTLED * inertia;
            inertia = reached;
            if settled {
                break;
            }
        }
        KMeans { labels, inertia }
    }

    fn point(&self, i: usize) -> &[f32] {
        &self.points[i * self.d..(i + 1) * self.d]
    }

    /// Greedy k-means++ (Arthur and Vassilvitskii, SODA 2007): of a few candidates drawn by squared distance, the best.
    fn spread_centers(&self, rng: &mut Rng) -> Vec<f32> {
        let n = self.squares.len();
        let trials = 2 + (self.k as f64).ln() as usize;
        let mut centers = self.point(rng.below(n as u64) as usize).to_vec();
        let mut nearest = self.distances(&centers);
        let mut up_to = vec![0.0; n];
        for _ in 1..self.k {
            let mut total = 0.0;
            for (up_to, (v, m)) in up_to.iter_mut().zip(nearest.iter().zip(self.mass)) {
                total += m * f64::from(*v);
                *up_to = total;
            }
            let mut draw = || {
                let goal = rng.uniform() * total;
                up_to.partition_point(|v| *v < goal).min(n - 1)
            };
            let candidates: Vec<usize> = (0..trials).map(|_| draw()).collect();
            let rows: Vec<f32> = candidates.iter().flat_map(|i| self.point(*i)).copied().collect();
            let all = self.distances(&rows);
            let mut reached = vec![0.0; trials];
            for ((row, v), m) in all.chunks_exact(trials).zip(&nearest).zip(self.mass) {
                reached.iter_mut().zip(row).for_each(|(sum, r)| *sum += m * f64::from(r.min(*v)));
            }
            let best = (1..trials).fold(0, |best, t| if reached[t] < reached[best] { t } else { best });
            nearest.iter_mut().zip(all.chunks_exact(trials)).for_each(|(v, row)| *v = v.min(row[best]));
            centers.extend_from_slice(self.point(candidates[best]));
        }
        centers
    }

    /// Squared distances of every point to every row of `others`, `n x m`.
    fn distances(&self, others: &[f32]) -> Vec<f32> {
        let m = others.len() / self.d;
        let own: Vec<f32> = others.chunks_exact(self.d).map(square).collect();
        let mut out = vec![0f32; self.squares.len() * m];
        gemm::mul_transposed(self.points, others, self.d, &mut out);
        out.par_chunks_mut(m).zip(self.squares).for_each(|(row, s)| {
            row.iter_mut().zip(&own).for_each(|(v, o)| *v = (s + o - 2.0 * *v).max(0.0));
        });
        out
    }

    /// The nearest centre of each point and the squared distance to it.
    fn assign(&self, centers: &[f32]) -> (Vec<u32>, Vec<f32>) {
        let own: Vec<f32> = centers.chunks_exact(self.d).map(square).collect();
        let mut labels = vec![0u32; self.squares.len()];
        let mut distances = vec![0f32; labels.len()];
        let parts = labels.par_chunks_mut(ROWS).zip(distances.par_chunks_mut(ROWS));
        let inputs = self.points.par_chunks(ROWS * self.d).zip(self.squares.par_chunks(ROWS));
        parts.zip(inputs).for_each(|((labels, distances), (points, squares))| {
            let mut products = vec![0f32; squares.len() * self.k];
            gemm::mul_transposed(points, centers, self.d, &mut products);
            nearest_centers(&products, &own, labels, distances);
            distances.iter_mut().zip(squares).for_each(|(v, s)| *v = (s + *v).max(0.0));
        });
        (labels, distances)
    }

    /// Means of the clusters; an empty one takes the point farthest from its centre.
    fn means(&self, labels: &[u32], distances: &mut [f32], before: &[f32]) -> Vec<f32> {
        let mut sums = vec![0f64; self.k * self.d];
        let mut counts = vec![0f64; self.k];
        for ((point, label), mass) in self.points.chunks_exact(self.d).zip(labels).zip(self.mass) {
            let c = *label as usize;
            counts[c] += mass;
            sums[c * self.d..(c + 1) * self.d].iter_mut().zip(point).for_each(|(s, v)| *s += mass * f64::from(*v));
        }
        let mut centers = before.to_vec();
        for (c, center) in centers.chunks_exact_mut(self.d).enumerate() {
            if counts[c] > 0.0 {
                let from = &sums[c * self.d..(c + 1) * self.d];
                center.iter_mut().zip(from).for_each(|(v, s)| *v = (s / counts[c]) as f32);
            } else {
                let far = (0..distances.len()).fold(0, |m, i| if distances[i] > distances[m] { i } else { m });
                center.copy_from_slice(self.point(far));
                distances[far] = 0.0;
            }
        }
        centers
    }

    /// The sum over all points of their mass times a value.
    fn sum(&self, values: &[f32]) -> f64 {
        values.iter().zip(self.mass).map(|(v, m)| m * f64::from(*v)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separate_blobs_are_found_and_the_result_is_a_function_of_the_seed() {
        let mut rng = Stream::new(0, "blobs").rng(0);
        let points: Vec<f32> = (0..600)
            .flat_map(|i| [(i % 6) as f32 * 10.0, (i % 6 / 3) as f32 * 10.0])
            .map(|v| v + rng.normal() as f32 * 0.5)
            .collect();
        let best = |runs: Vec<KMeans>| runs.into_iter().min_by(|a, b| a.inertia.total_cmp(&b.inertia)).unwrap();
        let even = [1.0; 600];
        let found = best(kmeans(&points, 2, &even, 6, 5, 3));
        for i in 0..600 {
            assert_eq!(found.labels[i], found.labels[i % 6]);
        }
        assert!(found.inertia < 600.0);
        assert_eq!(found, best(kmeans(&points, 2, &even, 6, 5, 3)));
    }

    #[test]
    fn a_point_of_mass_three_is_three_points() {
        let points: Vec<f32> = vec![0.0, 1.0, 4.0, 20.0, 21.0];
        let run = &kmeans(&points, 1, &[3.0, 1.0, 1.0, 1.0, 1.0], 2, 3, 0)[0];
        // Means 1 and 20.5: 3·1 + 0 + 9, and twice a quarter.
        assert!((run.inertia - 12.5).abs() < 1e-5, "{}", run.inertia);
    }

    #[test]
    fn a_settled_partition_is_the_end_of_lloyds_iterations() {
        let points: Vec<f32> = vec![0.0, 1.0, 2.0, 9.0, 10.0, 11.0];
        let run = settle(&points, 1, &[1.0; 6], 2, &[0, 1, 0, 1, 0, 1]);
        assert!(
            run.labels[..3].iter().all(|l| *l == run.labels[0]) && run.labels[3..].iter().all(|l| *l == run.labels[3])
        );
        assert!(run.labels[0] != run.labels[3] && (run.inertia - 4.0).abs() < 1e-5);
    }

    #[test]
    fn as_many_clusters_as_points_leave_nothing_over() {
        let points: Vec<f32> = (0..7).map(|i| (i * i) as f32).collect();
        assert!(kmeans(&points, 1, &[1.0; 7], 7, 3, 0).iter().all(|run| run.inertia < 1e-3));
    }
}
