//! Reductions and shortest augmenting paths on the whole matrix.

use rayon::prelude::*;
use subspan_linalg::Real;
use subspan_linalg::scan::{Frontier, TwoSmallest, column_minima, two_smallest};

use super::{Cost, FREE, Problem, State};

/// Passes of augmenting row reduction: as in the paper.
pub(super) const REDUCTION_PASSES: usize = 2;
/// Steps of row reduction per row at most, over all passes. Each step lowers a dual; on costs with many near-ties the steps can
/// be tiny and many, and searches are the better tool.
const REDUCTION_STEPS: usize = 2;
/// An edge counts as cheapest if it is so up to so many roundings of its cost and dual: searches leave about one.
const ROUNDINGS: f64 = 4.0;
/// In square problems of at least this side, ...
const CANDIDATE_SIDE: usize = 768;
/// ... after as many steps of row reduction as the rows divided by this, which are enough for easy problems, ...
const EASY_SHARE: usize = 8;
/// ... at least so many free rows are first given columns among candidates, ...
const CANDIDATE_ROWS: usize = 16;
/// ... which are chosen anew at most so many times.
const CANDIDATE_ROUNDS: usize = 3;
/// Where more rows than one of so many are left by all reductions, most want the same columns. What those were bid down to is a
/// worse start for the searches than nothing.
const CONTESTED_SHARE: usize = 4;
/// Matrices of at least this side are scanned row by row in parallel where rows are independent.
const PARALLEL_SIDE: usize = 512;

/// A solver at work in precision `T`. Assigned edges are always cheapest in their row: `c − v` is the row's minimum.
pub(super) struct Search<'a, C, T> {
    pub(super) problem: &'a Problem<'a, C>,
    pub(super) duals: Vec<T>,
    /// Column of each row or [`FREE`].
    pub(super) columns: Vec<usize>,
    /// Row of each column or [`FREE`].
    pub(super) rows: Vec<usize>,
    /// Rows that needed a search on the whole matrix.
    pub(super) searches: usize,
    frontier: Frontier<T>,
}

impl<'a, C: Cost, T: Real + From<C>> Search<'a, C, T>
where
    f64: From<C>,
{
    pub(super) fn new(problem: &'a Problem<'a, C>, state: State) -> Self {
        Self {
            problem,
            duals: state.duals.iter().map(|v| T::from_f64(*v)).collect(),
            columns: state.columns,
            rows: vec![FREE; problem.n_cols],
            searches: state.searches,
            frontier: Frontier::default(),
        }
    }

    /// Completes the assignment: all rows from nothing (`cold`), or those whose column is not their cheapest any more.
    pub(super) fn complete(&mut self, cold: bool) {
        let problem = self.problem;
        let square = problem.is_square();
        let scan = |i, duals: &[T]| two_smallest(problem.row(i), duals);
        let mut free = match (cold, square) {
            (false, _) => self.keep_cheapest(),
            (true, true) => self.reduce_columns(),
            (true, false) => (0..problem.n_rows).collect(),
        };
        // Columns that lose their row must keep the dual 0 in a rectangular problem.
        let rounds = if square && problem.n_cols >= CANDIDATE_SIDE { CANDIDATE_ROUNDS } else { 0 };
        if rounds > 0 {
            free = self.reduce_rows(free, 1, problem.n_rows / EASY_SHARE, scan);
        }
        for _ in 0..rounds {
            if free.len() < CANDIDATE_ROWS || !self.assign_candidates(&free) {
                break;
            }
            free = self.keep_cheapest();
        }
        free = self.reduce_rows(free, REDUCTION_PASSES, REDUCTION_STEPS * problem.n_rows, scan);
        if cold && square && free.len() > problem.n_rows / CONTESTED_SHARE {
            free = self.start_over();
        }
        self.searches += free.len();
        let mut open: Vec<usize> = (0..problem.n_cols).filter(|j| self.rows[*j] == FREE).collect();
        free.into_iter().for_each(|row| self.augment(row, &mut open));
    }

    /// Forgets all: no row has a column, no column a dual.
    fn start_over(&mut self) -> Vec<usize> {
        self.duals.fill(T::default());
        self.columns.fill(FREE);
        self.rows.fill(FREE);
        (0..self.problem.n_rows).collect()
    }

    fn assign(&mut self, row: usize, column: usize) {
        self.columns[row] = column;
        self.rows[column] = row;
    }

    /// Whether an edge is as cheap as `minimum` up to rounding.
    fn is_cheapest(&self, row: usize, column: usize, minimum: T) -> bool {
        let (cost, dual) = (T::from(self.problem.row(row)[column]), self.duals[column]);
        let size = cost.to_f64().abs() + dual.to_f64().abs();
        (cost - dual - minimum).to_f64() <= ROUNDINGS * T::EPSILON * size
    }

    /// Keeps rows whose column is still a cheapest one; gives others their cheapest column if nobody has it. The rest is free.
    fn keep_cheapest(&mut self) -> Vec<usize> {
        let problem = self.problem;
        let minima = {
            let duals = &self.duals;
            let scan = |i| two_smallest(problem.row(i), duals);
            if problem.n_rows >= PARALLEL_SIDE {
                (0..problem.n_rows).into_par_iter().with_min_len(64).map(scan).collect::<Vec<_>>()
            } else {
                (0..problem.n_rows).map(scan).collect()
            }
        };
        self.rows.fill(FREE);
        let mut moved = Vec::new();
        for (i, minimum) in minima.iter().enumerate() {
            let old = self.columns[i];
            if old != FREE && self.is_cheapest(i, old, minimum.first) {
                assert_eq!(self.rows[old], FREE, "a start that is an assignment");
                self.rows[old] = i;
            } else {
                self.columns[i] = FREE;
                moved.push(i);
            }
        }
        moved.retain(|i| {
            let column = minima[*i].column;
            let taken = self.rows[column] != FREE;
            if !taken {
                self.assign(*i, column);
            }
            taken
        });
        moved
    }

    /// Column reduction and reduction transfer: every column's cheapest row takes it, if it has none yet; a row that is cheapest
    /// for one column only lowers that column's dual as far as it can. The rows without a column.
    fn reduce_columns(&mut self) -> Vec<usize> {
        let (problem, n) = (self.problem, self.problem.n_cols);
        let mut minima = problem.row(0).to_vec();
        let mut cheapest = vec![0u32; n];
        for i in 1..problem.n_rows {
            column_minima(i, problem.row(i), &mut minima, &mut cheapest);
        }
        self.duals = minima.iter().map(|m| T::from(*m)).collect();
        let mut wanted = vec![0u32; problem.n_rows];
        for j in (0..n).rev() {
            let row = cheapest[j] as usize;
            wanted[row] += 1;
            if wanted[row] == 1 {
                self.assign(row, j);
            }
        }
        for i in (0..problem.n_rows).filter(|i| wanted[*i] == 1) {
            let column = self.columns[i];
            let row = problem.row(i);
            let (dual, cost) = (self.duals[column], T::from(row[column]));
            // The smallest reduced cost of the other columns.
            let found = two_smallest(row, &self.duals);
            let other = if found.column == column { found.second } else { found.first };
            let lowered = cost - other;
            if lowered < dual && lowered.to_f64().is_finite() {
                self.duals[column] = lowered;
            }
        }
        (0..problem.n_rows).filter(|i| wanted[*i] == 0).collect()
    }

    /// Augmenting row reduction: each free row takes its cheapest column and lowers that column's dual until the next one is as
    /// cheap; who had the column is free in turn. `scan` finds a row's two cheapest columns. What is left is tried again, `passes`
    /// times, with so many steps in all. The rows that are left then.
    pub(super) fn reduce_rows(
        &mut self,
        mut free: Vec<usize>,
        passes: usize,
        mut steps: usize,
        scan: impl Fn(usize, &[T]) -> TwoSmallest<T>,
    ) -> Vec<usize> {
        for _ in 0..passes {
            free = free.into_iter().filter_map(|row| self.reduce_row(row, &mut steps, &scan)).collect();
        }
        free
    }

    /// A free row and those that are free in turn; the one that is left, if any.
    fn reduce_row(
        &mut self,
        mut row: usize,
        steps: &mut usize,
        scan: impl Fn(usize, &[T]) -> TwoSmallest<T>,
    ) -> Option<usize> {
        while *steps > 0 {
            *steps -= 1;
            let found = scan(row, &self.duals);
            let column = found.column;
            let lowered = self.duals[column] - (found.second - found.first);
            // A gain below the last digit is a tie: no dual moves, and going on could take for ever.
            let gains = lowered < self.duals[column] && found.second.to_f64().is_finite();
            let owner = self.rows[column];
            if gains {
                self.duals[column] = lowered;
            } else if owner != FREE {
                return Some(row);
            }
            self.assign(row, column);
            if owner == FREE {
                return None;
            }
            self.columns[owner] = FREE;
            row = owner;
        }
        Some(row)
    }

    /// A shortest augmenting path from a free row to one of the columns without a row, which it is taken from. Of columns as near as
    /// each other those without a row come first: where many edges cost the same, a search would go through all the others.
    fn augment(&mut self, start: usize, open: &mut Vec<usize>) {
        let problem = self.problem;
        let mut frontier = std::mem::take(&mut self.frontier);
        frontier.start(&self.duals);
        let mut scanned: Vec<(usize, T)> = Vec::new();
        let (mut row, mut base) = (start, T::default());
        let (end, length) = loop {
            let (column, distance) = frontier.relax(row, problem.row(row), base);
            let found = match self.rows[column] {
                FREE => open.iter().position(|j| *j == column),
                _ => open.iter().position(|j| frontier.distance[*j] <= distance),
            };
            if let Some(at) = found {
                break (open.swap_remove(at), distance);
            }
            scanned.push((column, distance));
            frontier.close(column);
            row = self.rows[column];
            // The row's own edge is its cheapest, so that going on from it costs `distance`.
            base = T::from(problem.row(row)[column]) - self.duals[column] - distance;
        };
        self.move_along(start, end, &frontier.before, &scanned, length);
        self.frontier = frontier;
    }

    /// Lowers the duals of scanned columns and moves the rows along the path that ends at a free column.
    pub(super) fn move_along(&mut self, start: usize, end: usize, before: &[u32], scanned: &[(usize, T)], length: T) {
        for (column, distance) in scanned {
            self.duals[*column] += *distance - length;
        }
        let mut column = end;
        loop {
            let row = before[column] as usize;
            let next = self.columns[row];
            self.assign(row, column);
            if row == start {
                break;
            }
            column = next;
        }
    }
}
