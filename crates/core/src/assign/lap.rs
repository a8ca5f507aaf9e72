//! The linear assignment problem: a cheapest way to give every row a column of its own, with a proof.
//!
//! Numbers `u`, `v` with `c_ij ≥ u_i + v_j` (feasible duals) bound every assignment's cost from below by `Σu + Σv`, so an
//! assignment that reaches the bound is optimal. The solver looks for both at once (R. Jonker, A. Volgenant, "A shortest
//! augmenting path algorithm for dense and sparse linear assignment problems", Computing 38, 1987): reductions assign most rows
//! cheaply, shortest augmenting paths the others.
//!
//! **Warm start.** For *any* `v`, `u_i = min_j (c_ij − v_j)` is feasible. So the `v` of a similar problem costs one pass over the
//! matrix, after which every row whose old column still attains its minimum keeps it; only the other rows are searched for. If
//! the old assignment is still optimal, nothing is left to do.
//!
//! **Certificate.** In double precision, from `v` alone: `gap = Σ c − Σu − Σv ≥ 0` bounds how far the assignment is from optimal.
//! Single-precision searches that leave a gap are finished in double precision from the same `v`.

use rayon::prelude::*;
use subspan_linalg::Real;
use subspan_linalg::scan::{Frontier, column_minima, max_abs, two_smallest};

/// A gap below this, relative to the sum of the chosen costs' sizes, counts as a proof: the rounding of single-precision costs.
pub const CERTIFIED: f64 = 1e-6;

/// Passes of augmenting row reduction: as in the paper.
const REDUCTION_PASSES: usize = 2;
/// Steps of row reduction per row at most, over all passes. Each step lowers a dual; on costs with many near-ties the steps can
/// be tiny and many, and searches are the better tool.
const REDUCTION_STEPS: usize = 6;
/// Matrices of at least this side are scanned row by row in parallel where rows are independent.
const PARALLEL_SIDE: usize = 512;

/// Why there is no assignment.
#[derive(Debug, Clone, PartialEq)]
pub enum LapError {
    /// A cost that is no finite number.
    NonFinite {
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
}

impl std::fmt::Display for LapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NonFinite { row, column } => write!(f, "the cost at row {row}, column {column} is not finite"),
        }
    }
}

impl std::error::Error for LapError {}

/// How good an assignment provably is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Certificate {
    /// `Σ c[i, column[i]]`, double precision.
    pub value: f64,
    /// No assignment costs less than `value − gap`.
    pub gap: f64,
    /// The gap relative to `Σ |c[i, column[i]]|` (or to the rounding of the largest cost, if that is more).
    pub relative: f64,
}

impl Certificate {
    /// Whether the gap is no more than rounding: [`CERTIFIED`].
    pub fn holds(&self) -> bool {
        self.relative <= CERTIFIED
    }
}

/// An optimal assignment.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The column of every row. With more rows than columns some rows have none: `usize::MAX`.
    pub columns: Vec<usize>,
    /// A dual per column, the start for a similar problem.
    pub duals: Vec<f64>,
    /// The proof.
    pub certificate: Certificate,
    /// Rows that needed a search.
    pub searches: usize,
}

/// A solution of a similar problem of the same shape.
#[derive(Debug, Clone, Copy)]
pub struct Warm<'a> {
    /// A column per row, each at most once.
    pub columns: &'a [usize],
    /// A dual per column: any finite numbers.
    pub duals: &'a [f64],
}

/// The precisions of stored costs.
pub trait Cost: Real {
    /// Searches in the cost's own precision.
    #[doc(hidden)]
    fn search(problem: &Problem<'_, Self>, state: State, cold: bool) -> State;
}

impl Cost for f32 {
    fn search(problem: &Problem<'_, Self>, state: State, cold: bool) -> State {
        problem.search::<f32>(state, cold)
    }
}

impl Cost for f64 {
    fn search(problem: &Problem<'_, Self>, state: State, cold: bool) -> State {
        problem.search::<f64>(state, cold)
    }
}

/// The cheapest assignment of rows to columns; `costs` is row-major with `n_cols` columns. With unequal numbers the smaller side
/// is assigned wholly. Cost: `O(n³)` at worst, near `n²·⁵` in practice, `n²` for a warm start that is still optimal. The result
/// does not depend on the number of threads. Among equally good columns, a warm start's column is kept.
///
/// # Errors
/// [`LapError::NonFinite`].
///
/// # Panics
/// If `costs` does not hold whole rows, or `warm` is of another shape or no assignment.
///
/// ```
/// use subspan::assign::lap::minimize;
/// let found = minimize(&[4.0, 1.0, 3.0, 2.0, 0.0, 5.0, 3.0, 2.0, 2.0], 3, None)?;
/// assert_eq!((found.columns, found.certificate.value), (vec![1, 0, 2], 5.0));
/// # Ok::<(), subspan::assign::lap::LapError>(())
/// ```
pub fn minimize<C: Cost + Into<f64>>(costs: &[C], n_cols: usize, warm: Option<Warm<'_>>) -> Result<Assignment, LapError>
where
    f64: From<C>,
{
    if costs.is_empty() {
        let certificate = Certificate { value: 0.0, gap: 0.0, relative: 0.0 };
        return Ok(Assignment { columns: Vec::new(), duals: vec![0.0; n_cols], certificate, searches: 0 });
    }
    assert!(n_cols > 0 && costs.len().is_multiple_of(n_cols), "whole rows");
    let n_rows = costs.len() / n_cols;
    let largest = largest(costs, n_cols)?;
    if n_rows > n_cols {
        let transposed: Vec<C> = (0..n_cols).flat_map(|j| (0..n_rows).map(move |i| costs[i * n_cols + j])).collect();
        let problem = Problem { costs: &transposed, n_rows: n_cols, n_cols: n_rows };
        let (state, certificate) = problem.solve(None, largest);
        let mut columns = vec![usize::MAX; n_rows];
        for (column, row) in state.columns.iter().enumerate() {
            columns[*row] = column;
        }
        // The duals of the transposed problem's rows.
        let duals = (0..n_cols).map(|j| problem.row_minimum(j, &state.duals)).collect();
        return Ok(Assignment { columns, duals, certificate, searches: state.searches });
    }
    let problem = Problem { costs, n_rows, n_cols };
    let (state, certificate) = problem.solve(warm, largest);
    Ok(Assignment { columns: state.columns, duals: state.duals, certificate, searches: state.searches })
}

/// The certificate of any assignment (a column per row) from any duals of a square problem, or of one with more columns than rows
/// if no dual is positive.
///
/// # Panics
/// If the shapes differ.
pub fn certify<C: Cost>(costs: &[C], columns: &[usize], duals: &[f64]) -> Certificate
where
    f64: From<C>,
{
    assert_eq!(costs.len(), columns.len() * duals.len(), "a column per row, a dual per column");
    let largest = costs.iter().fold(0.0, |m: f64, c| m.max(f64::from(*c).abs()));
    Problem { costs, n_rows: columns.len(), n_cols: duals.len() }.certify(columns, duals, largest)
}

/// The largest cost's size.
fn largest<C: Cost>(costs: &[C], n_cols: usize) -> Result<f64, LapError> {
    let sizes: Vec<f64> = costs.par_chunks(n_cols).with_min_len(64).map(max_abs).collect();
    match sizes.iter().position(|s| !s.is_finite()) {
        Some(row) => {
            let costs = &costs[row * n_cols..(row + 1) * n_cols];
            let column = costs.iter().position(|c| !c.to_f64().is_finite()).unwrap_or_default();
            Err(LapError::NonFinite { row, column })
        }
        None => Ok(sizes.into_iter().fold(0.0, f64::max)),
    }
}

/// A matrix with at least as many columns as rows.
#[doc(hidden)]
pub struct Problem<'a, C> {
    costs: &'a [C],
    n_rows: usize,
    n_cols: usize,
}

/// An assignment being made, with duals.
#[doc(hidden)]
pub struct State {
    /// Column of each row or [`FREE`].
    columns: Vec<usize>,
    duals: Vec<f64>,
    searches: usize,
}

/// No column, or no row.
const FREE: usize = usize::MAX;

impl<C: Cost> Problem<'_, C>
where
    f64: From<C>,
{
    fn row(&self, i: usize) -> &[C] {
        &self.costs[i * self.n_cols..(i + 1) * self.n_cols]
    }

    fn is_square(&self) -> bool {
        self.n_rows == self.n_cols
    }

    fn solve(&self, warm: Option<Warm<'_>>, largest: f64) -> (State, Certificate) {
        // Unassigned columns of a rectangular problem must keep the dual 0, which a warm start does not promise.
        let warm = warm.filter(|_| self.is_square());
        let cold = warm.is_none();
        let state = match warm {
            Some(w) => {
                assert!(w.columns.len() == self.n_rows && w.duals.len() == self.n_cols, "a start of the same shape");
                State { columns: w.columns.to_vec(), duals: w.duals.to_vec(), searches: 0 }
            }
            None => State { columns: vec![FREE; self.n_rows], duals: vec![0.0; self.n_cols], searches: 0 },
        };
        let mut state = C::search(self, state, cold);
        let mut certificate = self.certify(&state.columns, &state.duals, largest);
        if !certificate.holds() {
            if !self.is_square() {
                state = State { columns: vec![FREE; self.n_rows], duals: vec![0.0; self.n_cols], ..state };
            }
            state = self.search::<f64>(state, !self.is_square());
            certificate = self.certify(&state.columns, &state.duals, largest);
        }
        (state, certificate)
    }

    fn row_minimum(&self, i: usize, duals: &[f64]) -> f64 {
        two_smallest(self.row(i), duals).first
    }

    fn certify(&self, columns: &[usize], duals: &[f64], largest: f64) -> Certificate {
        let per_row = |i: usize| (self.row_minimum(i, duals), f64::from(self.row(i)[columns[i]]));
        let rows: Vec<(f64, f64)> = (0..self.n_rows).into_par_iter().with_min_len(64).map(per_row).collect();
        // Row by row, so that large terms cancel before they add up.
        let mut gap = 0.0;
        let mut used = vec![false; self.n_cols];
        for (i, (u, c)) in rows.iter().enumerate() {
            gap += (c - duals[columns[i]]) - u;
            used[columns[i]] = true;
        }
        // Duals of columns without a row are part of the bound too.
        gap -= duals.iter().zip(&used).filter(|(_, used)| !**used).map(|(v, _)| v).sum::<f64>();
        let value: f64 = rows.iter().map(|(_, c)| c).sum();
        let size: f64 = rows.iter().map(|(_, c)| c.abs()).sum();
        let floor = self.n_rows as f64 * C::EPSILON * largest;
        let scale = size.max(floor);
        let relative = if gap <= 0.0 || scale == 0.0 { 0.0 } else { gap / scale };
        Certificate { value, gap: gap.max(0.0), relative }
    }

    /// Completes the assignment: all rows from nothing (`cold`), or those whose column is not their cheapest any more.
    fn search<T: Real + From<C>>(&self, state: State, cold: bool) -> State {
        let mut search = Search {
            problem: self,
            duals: state.duals.iter().map(|v| T::from_f64(*v)).collect(),
            columns: state.columns,
            rows: vec![FREE; self.n_cols],
            frontier: Frontier::default(),
        };
        let mut free = if !cold {
            search.keep_cheapest()
        } else if self.is_square() {
            search.reduce_columns()
        } else {
            (0..self.n_rows).collect()
        };
        let mut steps = REDUCTION_STEPS * self.n_rows;
        for _ in 0..REDUCTION_PASSES {
            free = search.reduce_rows(free, &mut steps);
        }
        let searches = state.searches + free.len();
        free.into_iter().for_each(|row| search.augment(row));
        State { columns: search.columns, duals: search.duals.iter().map(|v| v.to_f64()).collect(), searches }
    }
}

/// A solver at work in precision `T`. Assigned edges are always cheapest in their row: `c − v` is the row's minimum.
struct Search<'a, C, T> {
    problem: &'a Problem<'a, C>,
    duals: Vec<T>,
    columns: Vec<usize>,
    rows: Vec<usize>,
    frontier: Frontier<T>,
}

impl<C: Cost, T: Real + From<C>> Search<'_, C, T>
where
    f64: From<C>,
{
    fn assign(&mut self, row: usize, column: usize) {
        self.columns[row] = column;
        self.rows[column] = row;
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
        let mut moved = Vec::new();
        for (i, minimum) in minima.iter().enumerate() {
            let old = self.columns[i];
            if T::from(problem.row(i)[old]) - self.duals[old] <= minimum.first {
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
    /// cheap; who had the column is free in turn. The rows that are left.
    fn reduce_rows(&mut self, free: Vec<usize>, steps: &mut usize) -> Vec<usize> {
        let mut left = Vec::new();
        for first in free {
            let mut row = first;
            loop {
                if *steps == 0 {
                    left.push(row);
                    break;
                }
                *steps -= 1;
                let found = two_smallest(self.problem.row(row), &self.duals);
                let column = found.column;
                let lowered = self.duals[column] - (found.second - found.first);
                // A gain below the last digit is a tie: no dual moves, and going on could take for ever.
                let gains = lowered < self.duals[column] && found.second.to_f64().is_finite();
                let owner = self.rows[column];
                if gains {
                    self.duals[column] = lowered;
                } else if owner != FREE {
                    left.push(row);
                    break;
                }
                self.assign(row, column);
                if owner == FREE {
                    break;
                }
                self.columns[owner] = FREE;
                row = owner;
            }
        }
        left
    }

    /// A shortest augmenting path from a free row.
    fn augment(&mut self, start: usize) {
        let problem = self.problem;
        let mut frontier = std::mem::take(&mut self.frontier);
        frontier.start(&self.duals);
        let mut scanned: Vec<(usize, T)> = Vec::new();
        let (mut row, mut base) = (start, T::default());
        let (end, length) = loop {
            let (column, distance) = frontier.relax(row, problem.row(row), base);
            if self.rows[column] == FREE {
                break (column, distance);
            }
            scanned.push((column, distance));
            frontier.close(column);
            row = self.rows[column];
            // The row's own edge is its cheapest, so that going on from it costs `distance`.
            base = T::from(problem.row(row)[column]) - self.duals[column] - distance;
        };
        for (column, distance) in &scanned {
            self.duals[*column] += *distance - length;
        }
        let mut column = end;
        loop {
            let row = frontier.before[column] as usize;
            let next = self.columns[row];
            self.assign(row, column);
            if row == start {
                break;
            }
            column = next;
        }
        self.frontier = frontier;
    }
}

#[cfg(test)]
mod tests;
