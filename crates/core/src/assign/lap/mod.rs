//! The linear assignment problem: a cheapest way to give every row a column of its own, with a proof.
//!
//! Numbers `u`, `v` with `c_ij ≥ u_i + v_j` (feasible duals) bound every assignment's cost from below by `Σu + Σv`, so an
//! assignment that reaches the bound is optimal. The solver looks for both at once (R. Jonker, A. Volgenant, "A shortest
//! augmenting path algorithm for dense and sparse linear assignment problems", Computing 38, 1987): reductions assign most rows
//! cheaply, shortest augmenting paths the others, or all if reductions get nowhere. Large square problems are first solved among
//! each row's cheapest edges, whose duals are then checked against the whole matrix; only rows that fail are searched for there.
//!
//! **Warm start.** For *any* `v`, `u_i = min_j (c_ij − v_j)` is feasible. So the `v` of a similar problem costs one pass over the
//! matrix, after which every row whose old column still attains its minimum keeps it; only the other rows are searched for. If
//! the old assignment is still optimal, nothing is left to do.
//!
//! **Certificate.** In double precision, from `v` alone: `gap = Σ c − Σu − Σv ≥ 0` bounds how far the assignment is from optimal.
//! Single-precision searches that leave a gap are finished in double precision from the same `v`.

use rayon::prelude::*;
use subspan_linalg::Real;
use subspan_linalg::scan::{max_abs, two_smallest};

use self::search::Search;

mod candidates;
mod search;

/// A gap below this, relative to the sum of the chosen costs' sizes, counts as a proof: the rounding of single-precision costs.
pub const CERTIFIED: f64 = 1e-6;

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
    /// Rows that needed a search on the whole matrix.
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
            // Duals beyond single precision are no start.
            let cold = !self.is_square() || state.duals.iter().any(|v| !v.is_finite());
            if cold {
                state = State { columns: vec![FREE; self.n_rows], duals: vec![0.0; self.n_cols], ..state };
            }
            state = self.search::<f64>(state, cold);
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

    /// See [`Search::complete`].
    fn search<T: Real + From<C>>(&self, state: State, cold: bool) -> State {
        let mut search = Search::<C, T>::new(self, state);
        search.complete(cold);
        State {
            columns: search.columns,
            duals: search.duals.iter().map(|v| v.to_f64()).collect(),
            searches: search.searches,
        }
    }
}

#[cfg(test)]
mod tests;
