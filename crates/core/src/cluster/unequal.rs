//! Clusters of very different sizes: peaks of density against cuts, judged by the edges of all spaces and by each other.
//!
//! Information across edges is at most the entropy of the labels, so it likes clusters of one size: large ones cut, small ones joined.
//! Here the *share* of that entropy counts which edges keep. It is measured in every space, since that of a partition's own space likes what
//! happens to be in it, and peaks that are there come back in other graphs, which is their *agreement*. The sum of both decides if sizes are
//! known to differ. Else peaks win only where the evidence is clear, and never over a partition that is one into peaks as well: what
//! both ways find, stands.

use rayon::prelude::*;

use super::candidates::{Recipe, Space, edges, spectral_points};
use super::choice::{Contest, Entrant, MODES_SHARE, Partition, Tie, candidate};
use super::config::Config;
use super::modes::modes;
use super::neighbours::{Affinity, Neighbours};
use super::run::Job;
use super::score::nmi;
use crate::error::Result;

/// Neighbours whose labels are compared.
const JUDGED_NEIGHBOURS: usize = 10;

/// Unasked, peaks of up to so many clusters are looked for, and so many clusters times rows: eigenvectors of more take half of a run's time
/// again, searches for near rows among them several times that of all others.
const UNASKED: usize = 32;
const UNASKED_WORK: usize = 1_000_000;
/// They win then if their sum is larger by so much, ...
const CLEARLY_MORE: f64 = 0.03;
/// ... if they agree so well with other peaks, ...
const AGREED: f64 = 0.88;
/// ... and if none agrees better than this with what edges prefer.
const FOUND_TOO: f64 = 0.9;

/// What is kept of spaces and graphs after they have been tried.
#[derive(Default)]
pub(crate) struct Unequal {
    /// How many have been tried.
    spaces: usize,
    /// The nearest rows of each, in every space in which near rows are alike.
    near: Vec<Neighbours>,
    peaks: Vec<Peaks>,
}

/// A partition into peaks of density.
struct Peaks {
    /// Among the candidates.
    index: usize,
    /// Among all spaces.
    space: usize,
    graph: (usize, f64),
    recipe: Recipe,
    /// Whether no path leads from one to another.
    apart: bool,
}

/// What speaks for a partition.
struct Evidence {
    /// Share of the entropy of labels that is information across edges, mean of those spaces.
    kept: f64,
    /// Mean NMI with the other partitions of its kind.
    agreement: f64,
}

/// Eigenvectors of several graphs, and how many of each.
pub(crate) type Embedded = (Vec<f32>, usize);

/// Unit rows of all eigenvectors of a graph, for peaks of density.
pub(crate) fn embedded(tie: &Tie) -> Embedded {
    let count = tie.pairs.values.len();
    (spectral_points(&tie.pairs, count), count)
}

/// Eigenvectors of all graphs side by side: products are means of those of the graphs.
fn side_by_side(graphs: &[Embedded]) -> Embedded {
    let width = graphs.iter().map(|g| g.1).sum();
    let n = graphs.first().map_or(0, |g| g.0.len() / g.1);
    let scale = (graphs.len() as f32).sqrt().recip();
    let row = |i: usize| graphs.iter().flat_map(move |(points, d)| &points[i * d..(i + 1) * d]);
    ((0..n).flat_map(row).map(|v| v * scale).collect(), width)
}

impl Job<'_> {
    /// Whether peaks of density are looked for: if asked for, and wherever several graphs of many rows per cluster can agree on them.
    pub(crate) fn seeks_peaks(&self, clusters: usize) -> bool {
        let Config { unequal, affinity, neighbours, .. } = self.config;
        let affordable = clusters <= UNASKED && clusters * self.features.n_rows() <= UNASKED_WORK;
        *unequal || affordable && affinity.is_none() && neighbours.is_none() && !self.small(clusters)
    }

    /// Adds the partitions of a space into peaks of density, of every graph and of all graphs together. Rows that represent each
    /// other may be far apart, so graphs of such rows say nothing of density.
    pub(crate) fn seek_peaks(
        &self,
        space: &Space,
        graphs: &[(usize, f64)],
        found: &[Embedded],
        clusters: usize,
        contest: &mut Contest,
    ) {
        let at = contest.unequal.spaces;
        contest.unequal.spaces += 1;
        if space.affinity == Affinity::Weighted {
            return;
        }
        let together = (found.len() > 1).then(|| side_by_side(found));
        // What is found in all graphs votes along the edges of the first.
        let ways = found.iter().zip(graphs).map(|(points, graph)| (points, *graph, Recipe::Modes));
        let ways = ways.chain(together.iter().map(|points| (points, graphs[0], Recipe::ModesOfAll)));
        for ((points, width), graph, recipe) in ways {
            let Some(found) = modes(points, *width, clusters) else { continue };
            let partition = Partition::of(space, recipe, found.labels, clusters);
            let mut tried = candidate(&partition, graph.0, space);
            tried.contrast = Some(found.contrast);
            let index = contest.tried.len();
            contest.unequal.peaks.push(Peaks { index, space: at, graph, recipe, apart: found.apart });
            contest.tried.push(tried);
        }
        contest.unequal.near.push(space.nearest(JUDGED_NEIGHBOURS));
    }

    /// Lets the best peaks win where enough speaks for them; `space` makes their space anew.
    pub(crate) fn let_peaks_win(
        &self,
        contest: &mut Contest,
        clusters: usize,
        space: impl Fn(usize) -> Result<Space>,
    ) -> Result<()> {
        let Unequal { near, peaks, .. } = std::mem::take(&mut contest.unequal);
        if peaks.is_empty() {
            return Ok(());
        }
        let (of_peaks, others) = (0..contest.tried.len()).partition(|i| contest.tried[*i].contrast.is_some());
        let [peaked, other] =
            [of_peaks, others].map(|family: Vec<usize>| self.evidence(&near, &family, clusters, contest));
        // A partition that is the only one of its kind has nothing to agree with.
        let compared = peaked.len().min(other.len()) > 1;
        let worth = |e: &Evidence| e.kept + if compared { e.agreement } else { 0.0 };
        let most = other.iter().map(worth).fold(f64::NEG_INFINITY, f64::max);
        let asked = self.config.unequal;
        // Of equals the first.
        let ranked = peaks.iter().zip(&peaked).map(|(p, e)| (asked && p.apart, e, p));
        let best = ranked.reduce(|best, new| if (new.0, worth(new.1)) > (best.0, worth(best.1)) { new } else { best });
        let Some((apart, evidence, best)) = best else { return Ok(()) };
        let wins = if asked {
            apart || worth(evidence) > most
        } else {
            let preferred = contest.best.first().map(|e| &e.partition.labels);
            let found_too =
                |labels: &Vec<u32>| peaks.iter().any(|p| nmi(labels, &contest.tried[p.index].labels) > FOUND_TOO);
            worth(evidence) > most + CLEARLY_MORE && evidence.agreement > AGREED && !preferred.is_some_and(found_too)
        };
        if !wins {
            return Ok(());
        }
        let space = space(best.space)?;
        let tie = self.tie(&space, best.graph, MODES_SHARE * clusters)?;
        let labels = contest.tried[best.index].labels.clone();
        let partition = Partition::of(&space, best.recipe, labels, clusters);
        contest.best = vec![Entrant { space, tie, partition, index: best.index }];
        Ok(())
    }

    /// What speaks for each of some candidates; it is noted with them. Cost: a pass over two labels per row and pair of candidates.
    fn evidence(&self, near: &[Neighbours], family: &[usize], clusters: usize, contest: &mut Contest) -> Vec<Evidence> {
        let labels = |i: usize| &contest.tried[family[i]].labels;
        let count = family.len();
        let all: Vec<Evidence> = (0..count)
            .into_par_iter()
            .map(|i| {
                let shares = near.iter().map(|near| edges(near, &self.mass, false, labels(i), clusters).kept());
                let others = (0..count).filter(|j| *j != i).map(|j| nmi(labels(i), labels(j)));
                Evidence {
                    kept: shares.sum::<f64>() / near.len() as f64,
                    agreement: others.sum::<f64>() / count.saturating_sub(1).max(1) as f64,
                }
            })
            .collect();
        for (i, evidence) in family.iter().zip(&all) {
            (contest.tried[*i].kept, contest.tried[*i].agreement) = (Some(evidence.kept), Some(evidence.agreement));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use crate::Silent;
    use crate::cluster::prepare::to_unit;
    use crate::cluster::{Clusters, Config, Features, Outcome, agreement, run};
    use crate::draw::Stream;

    /// Rows of ever smaller classes: each along a piece of a circle in a plane of its own, with noise.
    fn arcs(sizes: &[usize], noise: f64) -> (Vec<f32>, Vec<u32>) {
        let d = 2 * sizes.len();
        let mut rng = Stream::new(5, "arcs").rng(0);
        let (mut rows, mut truth) = (Vec::new(), Vec::new());
        for (c, size) in sizes.iter().enumerate() {
            for _ in 0..*size {
                let along = 0.5 * rng.normal();
                let mut row: Vec<f32> = (0..d).map(|_| (noise * rng.normal()) as f32).collect();
                row[2 * c] += along.cos() as f32;
                row[2 * c + 1] += along.sin() as f32;
                to_unit(&mut row);
                rows.extend(row);
                truth.push(c as u32);
            }
        }
        (rows, truth)
    }

    fn found(rows: &[f32], d: usize, config: &Config) -> Outcome {
        run(&Features::new(rows, d).unwrap(), config, 0, &Silent).unwrap()
    }

    #[test]
    fn of_classes_of_falling_size_none_is_cut() {
        let sizes = [640, 320, 160, 80, 40, 20];
        let (rows, truth) = arcs(&sizes, 0.25);
        for neighbours in [None, Some(12)] {
            let config = Config { clusters: Clusters::Fixed(6), unequal: true, neighbours, ..Config::default() };
            let outcome = found(&rows, 12, &config);
            let accuracy = agreement(&outcome.labels, &truth).accuracy;
            assert!(accuracy > 0.97, "{neighbours:?}: {accuracy}");
            let chosen = &outcome.summary.candidates[outcome.summary.chosen];
            assert!(chosen.contrast.is_some() && chosen.kept > Some(0.5), "{chosen:?}");
        }
    }

    fn chose_peaks(outcome: &Outcome) -> bool {
        outcome.summary.candidates[outcome.summary.chosen].contrast.is_some()
    }

    #[test]
    fn unasked_peaks_win_where_sizes_differ_and_not_where_they_are_alike() {
        let config = Config { clusters: Clusters::Fixed(6), ..Config::default() };
        for (sizes, won) in [([1280, 640, 320, 160, 80, 40], true), ([200; 6], false)] {
            let (rows, truth) = arcs(&sizes, 0.25);
            let outcome = found(&rows, 12, &config);
            let accuracy = agreement(&outcome.labels, &truth).accuracy;
            assert!(accuracy > 0.97, "{sizes:?}: {accuracy}");
            assert_eq!(chose_peaks(&outcome), won, "{sizes:?}");
            assert!(outcome.summary.candidates.iter().any(|c| c.contrast.is_some() && c.agreement > Some(0.5)));
        }
    }

    #[test]
    fn unasked_peaks_are_not_looked_for_where_graphs_cannot_agree_on_them() {
        let (rows, _) = arcs(&[200, 100, 50], 0.25);
        let fixed = Config { clusters: Clusters::Fixed(3), ..Config::default() };
        let cosine = Some(crate::cluster::AffinityKind::Cosine);
        for config in [
            fixed.clone(),
            Config { clusters: Clusters::Auto, max_clusters: Some(2), ..fixed.clone() },
            Config { clusters: Clusters::Fixed(2), neighbours: Some(12), ..fixed.clone() },
            Config { clusters: Clusters::Fixed(2), affinity: cosine, ..fixed },
        ] {
            let outcome = found(&rows, 6, &config);
            assert!(outcome.summary.candidates.iter().all(|c| c.contrast.is_none() && c.kept.is_none()));
        }
    }

    #[test]
    fn a_single_way_is_compared_by_its_edges_alone() {
        let (rows, truth) = arcs(&[500, 60, 20], 0.2);
        let (clusters, affinity) = (Clusters::Fixed(3), Some(crate::cluster::AffinityKind::Cosine));
        let config = Config { clusters, affinity, neighbours: Some(12), unequal: true, ..Config::default() };
        let outcome = found(&rows, 6, &config);
        let peaks: Vec<usize> = (0..outcome.summary.candidates.len())
            .filter(|i| outcome.summary.candidates[*i].contrast.is_some())
            .collect();
        assert_eq!(peaks, [outcome.summary.chosen]);
        let accuracy = agreement(&outcome.labels, &truth).accuracy;
        assert!(accuracy > 0.97, "{accuracy}");
    }
}
