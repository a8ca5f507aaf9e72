//! Shortest augmenting paths along each row's cheapest edges only (A. Volgenant, "Linear and semi-assignment problems: a core
//! oriented approach", Computers & Operations Research 23, 1996).
//!
//! Optimal assignments hardly ever use an edge that is dear in its row, so that a search along a few dozen edges per row finds
//! nearly what a search along all of them would, at a hundredth of the work. What it misses is left to the whole matrix.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rayon::prelude::*;
use subspan_linalg::scan::{TwoSmallest, two_smallest};
use subspan_linalg::{Real, values_above};

use super::search::{REDUCTION_PASSES, Search};
use super::{Cost, FREE, Problem};

/// Edges per row.
const EDGES: usize = 32;
/// Steps of row reduction per row at most, over all passes: a step looks at [`EDGES`] values only.
const REDUCTION_STEPS: usize = 60;
/// Of how many rows one may find no column among candidates.
const FAILED_SHARE: usize = 128;
/// Values of a row looked at before the threshold is raised.
const BLOCK: usize = 1024;

/// The cheapest edges of every row under some duals.
struct Candidates<T> {
    edges: Vec<(u32, T)>,
    /// The dearest of each row: edges that are not candidates cost no less, since duals only fall.
    dearest: Vec<T>,
}

impl<T: Real> Candidates<T> {
    /// Of a problem of at least [`EDGES`] columns. Cost: one pass over the matrix, in parallel.
    fn of<C: Cost>(problem: &Problem<'_, C>, duals: &[T]) -> Self
    where
        T: From<C>,
        f64: From<C>,
    {
        let mut edges = vec![(0, T::default()); problem.n_rows * EDGES];
        let fill = |found: &mut Vec<(f32, u32)>, (i, edges): (usize, &mut [(u32, T)])| {
            let row = problem.row(i);
            let cheapest = two_smallest(row, duals).first;
            let mut saved = [0f32; BLOCK];
            let mut threshold = f32::NEG_INFINITY;
            found.clear();
            let n_blocks = row.len().div_ceil(BLOCK);
            for block in 0..n_blocks {
                // Every row begins at its own place, so that rows alike, all of whose edges cost the same, get different ones.
                let first = (i / BLOCK + block) % n_blocks * BLOCK;
                let own = first..(first + BLOCK).min(row.len());
                let (costs, duals) = (&row[own.clone()], &duals[own]);
                // Minus how much dearer than the cheapest; only a choice hangs on it, so that single precision will do.
                for ((s, c), v) in saved.iter_mut().zip(costs).zip(duals) {
                    *s = (cheapest + *v - T::from(*c)).to_f64() as f32;
                }
                values_above(&saved[..costs.len()], threshold, first as u32, found);
                if found.len() > EDGES {
                    let ahead = |j: u32| (j as usize + row.len() - i) % row.len();
                    let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(ahead(a.1).cmp(&ahead(b.1)));
                    found.select_nth_unstable_by(EDGES - 1, order);
                    found.truncate(EDGES);
                    threshold = found[EDGES - 1].0;
                }
            }
            // Fewer than all only if reduced costs overflow single precision: the first edge again does no harm.
            let columns = found.iter().map(|(_, j)| *j).chain(std::iter::repeat(0));
            edges.iter_mut().zip(columns).for_each(|(e, j)| *e = (j, T::from(row[j as usize])));
        };
        edges.par_chunks_mut(EDGES).enumerate().with_min_len(16).for_each_init(Vec::new, fill);
        let reduced = |(column, cost): &(u32, T)| *cost - duals[*column as usize];
        let largest = |row: &[(u32, T)]| {
            row.iter().map(reduced).fold(T::from_f64(f64::NEG_INFINITY), |m, x| if x > m { x } else { m })
        };
        let dearest = edges.chunks_exact(EDGES).map(largest).collect();
        Self { edges, dearest }
    }

    fn row(&self, i: usize) -> &[(u32, T)] {
        &self.edges[i * EDGES..(i + 1) * EDGES]
    }

    /// As [`two_smallest`], of a row's candidates, as far as they tell: an edge that is none may be the second.
    fn two_smallest(&self, i: usize, duals: &[T]) -> TwoSmallest<T> {
        let infinity = T::from_f64(f64::INFINITY);
        let mut found = TwoSmallest { first: infinity, column: 0, second: infinity };
        for (column, cost) in self.row(i) {
            let x = *cost - duals[*column as usize];
            if x < found.first {
                found = TwoSmallest { first: x, column: *column as usize, second: found.first };
            } else if x < found.second {
                found.second = x;
            }
        }
        let beyond = self.dearest[i];
        if found.second > beyond {
            found.second = if found.first < beyond { beyond } else { found.first };
        }
        found
    }
}

/// A column that a search has reached.
#[derive(PartialEq)]
struct Reached<T> {
    distance: T,
    column: u32,
}

impl<T: Real> Eq for Reached<T> {}

impl<T: Real> PartialOrd for Reached<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Real> Ord for Reached<T> {
    /// The nearest is the greatest, of several the first.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_distance = other.distance.partial_cmp(&self.distance).unwrap_or(Ordering::Equal);
        by_distance.then(other.column.cmp(&self.column))
    }
}

/// The state of a search, reused by the next one.
struct Paths<T> {
    /// Distance of every column; infinite where none has been found, minus infinity once its row has been searched.
    distance: Vec<T>,
    /// The row before each reached column.
    before: Vec<u32>,
    /// Columns reached, to be forgotten afterwards.
    reached: Vec<u32>,
    heap: BinaryHeap<Reached<T>>,
    /// Columns whose rows have been searched, with their final distances.
    scanned: Vec<(usize, T)>,
}

impl<T: Real> Paths<T> {
    fn new(n_cols: usize) -> Self {
        Self {
            distance: vec![T::from_f64(f64::INFINITY); n_cols],
            before: vec![0; n_cols],
            reached: Vec::new(),
            heap: BinaryHeap::new(),
            scanned: Vec::new(),
        }
    }

    fn forget(&mut self) {
        self.reached.drain(..).for_each(|j| self.distance[j as usize] = T::from_f64(f64::INFINITY));
        self.heap.clear();
        self.scanned.clear();
    }
}

impl<C: Cost, T: Real + From<C>> Search<'_, C, T>
where
    f64: From<C>,
{
    /// Gives free rows columns by reductions and shortest paths among the cheapest edges under the present duals. Some rows may be
    /// left with a column that is not their cheapest. If more than a few find none at all, everything stays as it is: where many rows
    /// want the same few columns, duals that those fight over among themselves are no good start for anything. Cost: a pass over the
    /// matrix, and little more.
    pub(super) fn assign_candidates(&mut self, free: &[usize]) -> bool {
        let before = (self.duals.clone(), self.columns.clone(), self.rows.clone());
        let candidates = Candidates::of(self.problem, &self.duals);
        let steps = REDUCTION_STEPS * self.problem.n_rows;
        let scan = |i, duals: &[T]| candidates.two_smallest(i, duals);
        let free = self.reduce_rows(free.to_vec(), REDUCTION_PASSES, steps, scan);
        let mut paths = Paths::new(self.problem.n_cols);
        let most = self.problem.n_rows / FAILED_SHARE;
        let failed = free.into_iter().filter(|row| !self.augment_among(&candidates, &mut paths, *row));
        let few = failed.take(most + 1).count() <= most;
        if !few {
            (self.duals, self.columns, self.rows) = before;
        }
        few
    }

    /// Gives a free row a column along a shortest path of candidates; false if there is none.
    fn augment_among(&mut self, candidates: &Candidates<T>, paths: &mut Paths<T>, start: usize) -> bool {
        paths.forget();
        let (mut row, mut base) = (start, T::default());
        // No path longer than one to a free column matters.
        let mut shortest = T::from_f64(f64::INFINITY);
        let (end, length) = loop {
            for (column, cost) in candidates.row(row) {
                let j = *column as usize;
                let distance = *cost - self.duals[j] - base;
                if distance < paths.distance[j] && distance < shortest {
                    if self.rows[j] == FREE {
                        shortest = distance;
                    }
                    paths.distance[j] = distance;
                    paths.before[j] = row as u32;
                    paths.reached.push(*column);
                    paths.heap.push(Reached { distance, column: *column });
                }
            }
            // Columns reached anew by a shorter path are in the heap more than once.
            let next = loop {
                match paths.heap.pop() {
                    Some(r) if r.distance > paths.distance[r.column as usize] => {}
                    other => break other,
                }
            };
            let Some(Reached { distance, column }) = next else { return false };
            let column = column as usize;
            if self.rows[column] == FREE {
                break (column, distance);
            }
            paths.scanned.push((column, distance));
            // Closed: rounding must not lead back here.
            paths.distance[column] = T::from_f64(f64::NEG_INFINITY);
            row = self.rows[column];
            // The row's own edge is its cheapest, so that going on from it costs `distance`.
            base = T::from(self.problem.row(row)[column]) - self.duals[column] - distance;
        };
        self.move_along(start, end, &paths.before, &paths.scanned, length);
        true
    }
}
