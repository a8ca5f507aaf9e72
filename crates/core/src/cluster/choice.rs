//! What is tried and what wins: preparations, graphs and recipes at one number of clusters, and the number itself.

use super::candidates::{
    Recipe, SCORED_NEIGHBOURS, Space, compared_neighbours, smoothed_points, spectral_points, spectrum,
};
use super::config::AffinityKind;
use super::count::{self, Count, Evidence, Tried};
use super::eigen::Pairs;
use super::graph::Scaled;
use super::join::{Edges, Joined};
use super::kmeans;
use super::neighbours::Affinity;
use super::outcome::Candidate;
use super::pursuit;
use super::run::Job;
use super::unequal::{Unequal, embedded};
use crate::error::{Error, Result};
use crate::observe::{self, Event};

/// Sizes of the graph that are tried, each with the effective number of neighbours: few for images, where near ones mean most,
/// more for embeddings of text, where near ones mislead.
pub(crate) const GRAPHS: [(usize, f64); 3] = [(15, 10.0), (7, 5.0), (64, 30.0)];
/// One more where clusters are small, since wider graphs tie thin ones to each other. To count, it cuts too much.
const THIN: (usize, f64) = (4, 8.0 / 3.0);
/// The graph by which clusters are counted that are too small for those: of its edges fewer leave a cluster of ten rows.
pub(crate) const NARROW: (usize, f64) = (5, 10.0 / 3.0);
/// Most rows per cluster, on average, for which that graph counts: twice the neighbours of the first graph, which sees larger ones.
const NARROW_ROWS: usize = 2 * GRAPHS[0].0;
/// The graph of a pursuit: all it chose, of which the larger coefficients count.
const PURSUED: (usize, f64) = (pursuit::STEPS, 4.0);
/// Number of clusters at which the way to a partition is chosen before the number is known.
const PROVISIONAL: usize = 20;
/// Starts of k-means while candidates are compared; the chosen one gets all.
pub(crate) const TRIAL_STARTS: usize = 3;
/// Rows times clusters squared, the work of a step of k-means among eigenvectors, above which there is one start, one graph (but for thin
/// clusters), and nothing is joined.
const LARGE_WORK: usize = 1_000_000_000;
/// Clusters of a partition that is joined, times those asked for, and rows that each has on average at least.
const FINER: usize = 2;
const FEWEST_ROWS: usize = 5;
/// Starts of k-means for one partition that is joined.
const JOINED_SHARE: usize = 3;
/// Information that joined clusters may lose for a nat of entropy.
const PRICE: f64 = 0.25;
/// The same while clusters are counted: close to the price they are counted at.
const COUNTED_PRICE: f64 = 0.5;
/// Eigenvectors per cluster in which peaks of density are looked for: as many as clusters would show as many peaks, whatever the rows.
pub(crate) const MODES_SHARE: usize = 2;
/// What part of the labels' entropy edges may lose at most for clusters to count as nearly closed, ...
const NEARLY_CLOSED: f64 = 0.03;
/// ... and how often the information of closed ones counts: enough for clusters of a twentieth of the rows beside one that could be cut at the
/// loss of a few edges, not enough for some odd rows apart from all others.
const CLOSED_COUNT: f64 = 3.0;
/// Largest number of clusters considered when it is not given, and rows per cluster that it leaves.
const MAX_CLUSTERS: (usize, usize) = (200, 8);

/// A graph of one preparation, as far as it has been computed.
pub(crate) struct Tie {
    pub(crate) neighbours: usize,
    pub(crate) perplexity: f64,
    pub(crate) scaled: Scaled,
    pub(crate) pairs: Pairs,
}

/// A partition with where it came from.
pub(crate) struct Partition {
    pub(crate) recipe: Recipe,
    pub(crate) labels: Vec<u32>,
    /// Across edges of the nearest rows.
    pub(crate) information: f64,
    /// How often information counts, more the closer clusters are to closed.
    count: f64,
    /// Information across edges of more rows, so counted.
    worth: f64,
}

impl Partition {
    pub(crate) fn of(space: &Space, recipe: Recipe, labels: Vec<u32>, clusters: usize) -> Self {
        let edges = space.edges(&labels, clusters);
        let closed = (1.0 - (1.0 - edges.kept()) / NEARLY_CLOSED).clamp(0.0, 1.0);
        let count = 1.0 + (CLOSED_COUNT - 1.0) * closed;
        let near = space.near_edges(&labels, clusters);
        let information = near.as_ref().unwrap_or(&edges).information();
        Self { recipe, labels, information, count, worth: edges.information() * count }
    }

    /// Whether it is a better partition of the same points: by information across edges. That of closed clusters counts more, since information
    /// likes large clusters cut.
    fn improves(&self, other: &Self) -> bool {
        self.worth > other.worth
    }

    /// Whether it beats a partition of other points: likewise while clusters are still to be counted, then by information across edges of
    /// rows nearer to each other, so counted.
    fn beats(&self, other: &Self, counted: bool) -> bool {
        if counted { self.information * self.count > other.information * other.count } else { self.improves(other) }
    }
}

/// A space with its best graph and partition.
pub(crate) struct Entrant {
    pub(crate) space: Space,
    pub(crate) tie: Tie,
    pub(crate) partition: Partition,
    /// Its place among the candidates.
    pub(crate) index: usize,
}

/// All candidates at one number of clusters, and the best spaces.
#[derive(Default)]
pub(crate) struct Contest {
    pub(crate) tried: Vec<Candidate>,
    /// Best first.
    pub(crate) best: Vec<Entrant>,
    pub(crate) unequal: Unequal,
    /// Whether peaks of density are looked for, too.
    peaks: bool,
    /// Whether the number of clusters is the final one.
    counted: bool,
}

/// Spaces among which the number of clusters may change the order.
const FINALISTS: usize = 3;

impl Contest {
    /// At the final number of clusters, for one winner, with peaks of density or without.
    pub(crate) fn last(peaks: bool) -> Self {
        Self { counted: true, peaks, ..Self::default() }
    }

    /// Keeps the best; of equals the earlier.
    fn admit(&mut self, entrant: Entrant) {
        let beaten = |e: &Entrant| entrant.partition.beats(&e.partition, self.counted);
        let at = self.best.iter().position(beaten).unwrap_or(self.best.len());
        self.best.insert(at, entrant);
        self.best.truncate(if self.counted { 1 } else { FINALISTS });
    }
}

impl Job<'_> {
    /// Tries graphs with every recipe on a space; the contest keeps it if it is among the best.
    pub(crate) fn enter(
        &self,
        space: Space,
        clusters: usize,
        graphs: &[(usize, f64)],
        contest: &mut Contest,
    ) -> Result<()> {
        let recipes = self.recipes();
        let steps = graphs.len() * (recipes.len() + usize::from(contest.peaks));
        observe::phase(self.observer, "partition", Some(steps as u64));
        let mut best: Option<(Tie, Partition, usize)> = None;
        let mut found = Vec::new();
        for graph in graphs {
            let tie = self.tie(&space, *graph, if contest.peaks { MODES_SHARE * clusters } else { clusters })?;
            let mut won: Option<(Partition, usize)> = None;
            for recipe in recipes {
                let starts = self.config.starts.min(if self.is_large(clusters) { 1 } else { TRIAL_STARTS });
                let partition = self.partition(&space, &tie, *recipe, clusters, starts);
                contest.tried.push(candidate(&partition, tie.neighbours, &space));
                let beaten = best.iter().map(|b| &b.1).chain(won.iter().map(|w| &w.0));
                if beaten.into_iter().all(|p| partition.beats(p, contest.counted)) {
                    won = Some((partition, contest.tried.len() - 1));
                }
                self.observer.event(Event::Advance { steps: 1 });
            }
            found.extend(contest.peaks.then(|| embedded(&tie)));
            if let Some((partition, index)) = won {
                best = Some((tie, partition, index));
            }
        }
        if contest.peaks {
            self.seek_peaks(&space, graphs, &found, clusters, contest);
            self.observer.event(Event::Advance { steps: graphs.len() as u64 });
        }
        if let Some((tie, partition, index)) = best {
            contest.admit(Entrant { space, tie, partition, index });
        }
        Ok(())
    }

    /// A graph of a space with so many of its eigenvectors.
    pub(crate) fn tie(&self, space: &Space, (neighbours, perplexity): (usize, f64), count: usize) -> Result<Tie> {
        self.check_cancelled()?;
        let scaled = space.graph(neighbours, perplexity, self.seed);
        let pairs = spectrum(&scaled.membership, space.mass(), count, self.seed)?;
        Ok(Tie { neighbours, perplexity, scaled, pairs })
    }

    /// The graphs by which clusters are counted.
    pub(crate) fn wide_graphs(&self) -> Vec<(usize, f64)> {
        let others = self.features.n_rows() - 1;
        let graphs = match self.config.neighbours.map(|k| k.min(others)) {
            // Two thirds as in the smaller of the default graphs.
            Some(k) => vec![(k, (2.0 * k as f64 / 3.0).max(1.0))],
            None if self.config.affinity == Some(AffinityKind::Pursuit) => vec![PURSUED],
            None => GRAPHS.to_vec(),
        };
        graphs.into_iter().map(|(k, perplexity)| (k.min(others), perplexity)).collect()
    }

    /// The graphs that are tried once the number of clusters is known. Peaks of density need more than a few neighbours.
    pub(crate) fn graphs(&self, clusters: usize) -> Vec<(usize, f64)> {
        let mut graphs = self.wide_graphs();
        let thin = self.small(clusters) && graphs.len() > 1 && !self.config.unequal;
        if self.is_large(clusters) {
            graphs.truncate(1);
        }
        graphs.extend(thin.then_some(THIN));
        graphs
    }

    /// Whether looking for so many clusters is so much work that less is tried.
    pub(crate) fn is_large(&self, clusters: usize) -> bool {
        self.features.n_rows().saturating_mul(clusters).saturating_mul(clusters) > LARGE_WORK
    }

    /// Whether so many clusters are small for the graphs that are tried.
    pub(crate) fn small(&self, clusters: usize) -> bool {
        compared_neighbours(self.features.n_rows(), clusters) < SCORED_NEIGHBOURS
    }

    /// The best partition by the information across edges, of several starts of k-means and of finer ones that are joined.
    pub(crate) fn partition(
        &self,
        space: &Space,
        tie: &Tie,
        recipe: Recipe,
        clusters: usize,
        starts: usize,
    ) -> Partition {
        let (points, width) = points(space, tie, recipe, clusters);
        let mass = space.mass();
        let runs = kmeans::kmeans(&points, width, mass, clusters, starts, self.seed);
        let mut found: Vec<Vec<u32>> = runs.into_iter().map(|run| run.labels).collect();
        let finer = (FINER * clusters).min(mass.len() / FEWEST_ROWS);
        if finer > clusters && !self.is_large(clusters) {
            for run in kmeans::kmeans(&points, width, mass, finer, starts.div_ceil(JOINED_SHARE), self.seed) {
                let edges = Edges::of(&tie.scaled.membership, &run.labels, finer);
                let joined = Joined::down_to(&edges, PRICE, clusters).labels(&run.labels, clusters);
                let settled = kmeans::settle(&points, width, mass, clusters, &joined).labels;
                // Averaged rows are points of a shape that joined clusters leave; eigenvectors have it in them.
                found.extend((recipe == Recipe::Spectral).then_some(joined).into_iter().chain([settled]));
            }
        }
        let scored = found.into_iter().map(|labels| Partition::of(space, recipe, labels, clusters));
        // At least one start is made.
        scored
            .reduce(|best, new| if new.improves(&best) { new } else { best })
            .unwrap_or_else(|| Partition::of(space, recipe, vec![0; mass.len()], clusters))
    }

    /// The largest number of clusters considered, and the one at which the way to a partition is chosen first.
    fn numbers(&self) -> (usize, usize) {
        let n = self.features.n_rows();
        let largest =
            self.config.max_clusters.unwrap_or_else(|| (n / MAX_CLUSTERS.1).clamp(2, MAX_CLUSTERS.0)).min(n - 1);
        (largest, PROVISIONAL.min(largest))
    }

    /// The number of clusters and the spaces worth a try at that number. Where the usual graphs hardly see clusters, these may be
    /// smaller than a row's neighbourhood, and are counted on a narrower graph, which has to see them clearly
    /// and that small.
    pub(crate) fn counted(&self) -> Result<(Count, Vec<Entrant>)> {
        let (largest, provisional) = self.numbers();
        let first = self.survey(provisional, &self.wide_graphs(), Contest::default())?.best;
        let n = self.features.n_rows();
        let curve = self.curve(first.first().ok_or(Error::AllZero)?, largest)?;
        let wide = count::choose(curve, n, self.coded.1);
        let given = self.config.neighbours.is_some() || self.config.affinity == Some(AffinityKind::Pursuit);
        if given || !wide.faint() || n > NARROW_ROWS * largest {
            return Ok((wide, first));
        }
        let best = self.survey(provisional, &[NARROW], Contest::default())?.best;
        let narrow = count::narrow(self.curve(best.first().ok_or(Error::AllZero)?, largest)?, n);
        let seen = n <= NARROW_ROWS * narrow.clusters && !narrow.faint();
        Ok(if seen { (narrow, best) } else { (wide, first) })
    }

    /// What tells the number of clusters, on the way to a partition that was best at a provisional number.
    fn curve(&self, entrant: &Entrant, largest: usize) -> Result<Vec<Tried>> {
        let Entrant { space, tie, partition, .. } = entrant;
        let grid = count::grid(largest);
        observe::phase(self.observer, "count", Some(grid.len() as u64));
        let pairs = match partition.recipe {
            Recipe::Spectral => Some(spectrum(&tie.scaled.membership, space.mass(), largest, self.seed)?),
            Recipe::Smoothed | Recipe::Modes | Recipe::ModesOfAll => None,
        };
        let fixed = points(space, tie, Recipe::Smoothed, 0);
        let points = |k: usize| match &pairs {
            Some(pairs) => (spectral_points(pairs, k), k),
            None => fixed.clone(),
        };
        let (rows, mass) = (points(largest), space.mass());
        let finer = (FINER * largest).min(mass.len() / FEWEST_ROWS).max(largest);
        let run = &kmeans::kmeans(&rows.0, rows.1, mass, finer, 1, self.seed)[0];
        let membership = &tie.scaled.membership;
        let joined = Joined::down_to(&Edges::of(membership, &run.labels, finer), COUNTED_PRICE, 1);
        let coded = [&self.coded, &self.coarse];
        let evidence = Evidence { coded, mass, membership, joined: &joined };
        count::curve(&grid, &points, &evidence, self.seed, self.observer)
    }
}

/// What k-means clusters, and its width.
fn points(space: &Space, tie: &Tie, recipe: Recipe, clusters: usize) -> (Vec<f32>, usize) {
    match recipe {
        Recipe::Spectral => (spectral_points(&tie.pairs, clusters), clusters),
        Recipe::Modes | Recipe::ModesOfAll => embedded(tie),
        Recipe::Smoothed => {
            (smoothed_points(&tie.scaled.membership, &space.rows, space.n_rows_out()), space.n_rows_out())
        }
    }
}

pub(crate) fn candidate(partition: &Partition, neighbours: usize, space: &Space) -> Candidate {
    Candidate {
        preparation: space.name.clone(),
        affinity: match space.affinity {
            Affinity::Cosine => AffinityKind::Cosine,
            Affinity::Absolute => AffinityKind::Absolute,
            Affinity::Weighted => AffinityKind::LeastSquares,
            Affinity::Pursuit => AffinityKind::Pursuit,
        }
        .to_string(),
        neighbours,
        recipe: partition.recipe.to_string(),
        information: partition.information,
        contrast: None,
        kept: None,
        agreement: None,
        labels: partition.labels.clone(),
    }
}

#[cfg(test)]
mod tests {
    use crate::Silent;
    use crate::cluster::{Clusters, Config, Features, agreement, run};
    use crate::draw::Stream;

    /// Rows around random directions, so many around each.
    fn bundles(sizes: &[usize], d: usize, noise: f64) -> (Vec<f32>, Vec<u32>) {
        let mut rng = Stream::new(7, "bundles").rng(0);
        let (mut rows, mut truth) = (Vec::new(), Vec::new());
        for (c, size) in sizes.iter().enumerate() {
            let center: Vec<f64> = (0..d).map(|_| rng.normal()).collect();
            for _ in 0..*size {
                rows.extend(center.iter().map(|v| (v + noise * rng.normal()) as f32));
                truth.push(c as u32);
            }
        }
        (rows, truth)
    }

    #[test]
    fn many_clusters_of_few_rows_are_counted_though_describing_each_costs_more_than_its_rows() {
        let (rows, truth) = bundles(&[15; 30], 80, 0.9);
        let config = Config { clusters: Clusters::Auto, ..Config::default() };
        let found = run(&Features::new(&rows, 80).unwrap(), &config, 0, &Silent).unwrap();
        let count = found.summary.count.unwrap();
        assert!((26..=34).contains(&count.clusters), "{} of 30, {}", count.clusters, count.by);
        assert!(count.interval[0] <= count.clusters && count.clusters <= count.interval[1]);
        assert!(agreement(&found.labels, &truth).nmi > 0.95);
    }

    #[test]
    fn clusters_smaller_than_a_neighbourhood_are_counted_on_a_narrower_graph() {
        let (rows, _) = bundles(&[10; 40], 80, 1.2);
        let config = Config { clusters: Clusters::Auto, ..Config::default() };
        let count = run(&Features::new(&rows, 80).unwrap(), &config, 0, &Silent).unwrap().summary.count.unwrap();
        // Of 15 neighbours, six or more are from other clusters.
        assert!((20..=50).contains(&count.clusters), "{} of 40, {}", count.clusters, count.by);
        assert_eq!(count.by, "information across edges of five neighbours");
    }

    #[test]
    fn rows_without_clusters_are_not_cut_into_many() {
        let (rows, _) = bundles(&[1000], 6, 1.0);
        let config = Config { clusters: Clusters::Auto, ..Config::default() };
        let summary = run(&Features::new(&rows, 6).unwrap(), &config, 0, &Silent).unwrap().summary;
        let count = summary.count.unwrap();
        assert!(count.clusters <= 5, "{}, {}", count.clusters, count.by);
        assert!(summary.warnings.iter().any(|w| w.contains("number is uncertain")), "{:?}", summary.warnings);
    }
}
