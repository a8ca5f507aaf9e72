//! Scans of reduced costs `c_j − v_j` over one row: the inner loops of assignment solvers.
//!
//! Costs are stored as `C`, computed with as `T` (the same or wider). Each scan is compiled for every vector width and the widest
//! one of the machine runs; lanes are fixed, so the results do not depend on it. Floor: one read of the row and of the duals.

use pulp::{Simd, WithSimd};

use crate::real::Real;
use crate::simd::dispatch;

/// Independent minima side by side.
const LANES: usize = 16;

/// The smallest of the reduced costs of a row and the next one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoSmallest<T> {
    /// The smallest.
    pub first: T,
    /// Its column, the first of several.
    pub column: usize,
    /// The next one, at any other column; equal to `first` in a tie; infinite for a row of one column.
    pub second: T,
}

/// The two smallest of `c_j − v_j`.
///
/// # Panics
/// If the lengths differ.
///
/// ```
/// let found = subspan_linalg::scan::two_smallest(&[3.0f32, 1.0, 2.0], &[0.0f64, 0.0, 1.5]);
/// assert_eq!((found.column, found.first, found.second), (2, 0.5, 1.0));
/// ```
pub fn two_smallest<C: Real, T: Real + From<C>>(costs: &[C], duals: &[T]) -> TwoSmallest<T> {
    assert_eq!(costs.len(), duals.len(), "one dual per column");
    dispatch(FindTwoSmallest { costs, duals })
}

// Each scan is a struct, not a closure: a closure's body is not inlined where the vector width is known.
struct FindTwoSmallest<'a, C, T> {
    costs: &'a [C],
    duals: &'a [T],
}

impl<C: Real, T: Real + From<C>> WithSimd for FindTwoSmallest<'_, C, T> {
    type Output = TwoSmallest<T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> TwoSmallest<T> {
        two_smallest_here(self.costs, self.duals)
    }
}

#[inline(always)]
fn two_smallest_here<C: Real, T: Real + From<C>>(costs: &[C], duals: &[T]) -> TwoSmallest<T> {
    let infinity = T::from_f64(f64::INFINITY);
    let (mut first, mut second, mut block_of) = ([infinity; LANES], [infinity; LANES], [0u32; LANES]);
    let (costs, costs_rest) = costs.as_chunks::<LANES>();
    let (duals, duals_rest) = duals.as_chunks::<LANES>();
    for (block, (c, v)) in costs.iter().zip(duals).enumerate() {
        for l in 0..LANES {
            let x = T::from(c[l]) - v[l];
            let less = x < first[l];
            let loser = if less { first[l] } else { x };
            second[l] = if loser < second[l] { loser } else { second[l] };
            first[l] = if less { x } else { first[l] };
            block_of[l] = if less { block as u32 } else { block_of[l] };
        }
    }
    let mut found = TwoSmallest { first: infinity, column: usize::MAX, second: infinity };
    let mut offer = |x: T, column: usize| {
        if x < found.first || x == found.first && column < found.column {
            found.second = found.first;
            (found.first, found.column) = (x, column);
        } else if x < found.second {
            found.second = x;
        }
    };
    for l in 0..LANES {
        offer(first[l], block_of[l] as usize * LANES + l);
    }
    for (l, (c, v)) in costs_rest.iter().zip(duals_rest).enumerate() {
        offer(T::from(*c) - *v, costs.len() * LANES + l);
    }
    for x in second {
        if x < found.second {
            found.second = x;
        }
    }
    found
}

/// Shortest distances to the columns of an assignment problem, while a search grows.
#[derive(Debug, Clone, Default)]
pub struct Frontier<T> {
    /// Distance of every column not yet scanned; infinite for scanned ones.
    pub distance: Vec<T>,
    /// The row before each column on its shortest path.
    pub before: Vec<u32>,
    /// Duals of columns not yet scanned; minus infinity for scanned ones.
    pub open_duals: Vec<T>,
}

impl<T: Real> Frontier<T> {
    /// Begins a search with nothing reached.
    pub fn start(&mut self, duals: &[T]) {
        self.distance.clear();
        self.distance.resize(duals.len(), T::from_f64(f64::INFINITY));
        self.before.resize(duals.len(), 0);
        self.open_duals.clear();
        self.open_duals.extend_from_slice(duals);
    }

    /// Closes a column.
    pub fn close(&mut self, column: usize) {
        self.distance[column] = T::from_f64(f64::INFINITY);
        self.open_duals[column] = T::from_f64(f64::NEG_INFINITY);
    }

    /// Shortens distances by the edges of `row` (`c_j − v_j − base`); the open column that is nearest afterwards, the first of
    /// several, and its distance.
    ///
    /// # Panics
    /// If the row has another number of columns.
    pub fn relax<C: Real>(&mut self, row: usize, costs: &[C], base: T) -> (usize, T)
    where
        T: From<C>,
    {
        assert!(costs.len() == self.distance.len() && costs.len() == self.before.len(), "one cost per column");
        dispatch(Relax { frontier: self, row: row as u32, costs, base })
    }
}

struct Relax<'a, C, T> {
    frontier: &'a mut Frontier<T>,
    row: u32,
    costs: &'a [C],
    base: T,
}

impl<C: Real, T: Real + From<C>> WithSimd for Relax<'_, C, T> {
    type Output = (usize, T);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (usize, T) {
        relax_here(self.frontier, self.row, self.costs, self.base)
    }
}

#[inline(always)]
fn relax_here<C: Real, T: Real + From<C>>(frontier: &mut Frontier<T>, row: u32, costs: &[C], base: T) -> (usize, T) {
    let infinity = T::from_f64(f64::INFINITY);
    let (mut best, mut block_of) = ([infinity; LANES], [0u32; LANES]);
    let (distances, distances_rest) = frontier.distance.as_chunks_mut::<LANES>();
    let (befores, befores_rest) = frontier.before.as_chunks_mut::<LANES>();
    let (duals, duals_rest) = frontier.open_duals.as_chunks::<LANES>();
    let (costs, costs_rest) = costs.as_chunks::<LANES>();
    for (block, (((d, b), v), c)) in distances.iter_mut().zip(befores).zip(duals).zip(costs).enumerate() {
        for l in 0..LANES {
            let x = T::from(c[l]) - v[l] - base;
            let less = x < d[l];
            d[l] = if less { x } else { d[l] };
            b[l] = if less { row } else { b[l] };
            let nearer = d[l] < best[l];
            best[l] = if nearer { d[l] } else { best[l] };
            block_of[l] = if nearer { block as u32 } else { block_of[l] };
        }
    }
    let (mut nearest, mut column) = (infinity, usize::MAX);
    for l in 0..LANES {
        let at = block_of[l] as usize * LANES + l;
        if best[l] < nearest || best[l] == nearest && best[l] < infinity && at < column {
            (nearest, column) = (best[l], at);
        }
    }
    let first = costs.len() * LANES;
    for (l, (((d, b), v), c)) in distances_rest.iter_mut().zip(befores_rest).zip(duals_rest).zip(costs_rest).enumerate()
    {
        let x = T::from(*c) - *v - base;
        if x < *d {
            (*d, *b) = (x, row);
        }
        if *d < nearest {
            (nearest, column) = (*d, first + l);
        }
    }
    (column, nearest)
}

/// Lowers each column's minimum by a row, and says which row it was: `minima[j] = min(minima[j], costs[j])`.
///
/// # Panics
/// If the lengths differ.
pub fn column_minima<C: Real>(row: usize, costs: &[C], minima: &mut [C], rows: &mut [u32]) {
    assert!(costs.len() == minima.len() && costs.len() == rows.len(), "one minimum per column");
    dispatch(ColumnMinima { row: row as u32, costs, minima, rows });
}

struct ColumnMinima<'a, C> {
    row: u32,
    costs: &'a [C],
    minima: &'a mut [C],
    rows: &'a mut [u32],
}

impl<C: Real> WithSimd for ColumnMinima<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((c, m), r) in self.costs.iter().zip(self.minima).zip(self.rows) {
            let less = *c < *m;
            *m = if less { *c } else { *m };
            *r = if less { self.row } else { *r };
        }
    }
}

/// The largest absolute value of a row; not finite if any value is not.
pub fn max_abs<C: Real>(costs: &[C]) -> f64 {
    dispatch(MaxAbs { costs })
}

struct MaxAbs<'a, C> {
    costs: &'a [C],
}

impl<C: Real> WithSimd for MaxAbs<'_, C> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let mut largest = [0.0f64; LANES];
        // A NaN is never larger, so its presence is kept apart: 0 · x is 0 for finite numbers only.
        let mut unlike = [0.0f64; LANES];
        let (blocks, rest) = self.costs.as_chunks::<LANES>();
        for block in blocks {
            for l in 0..LANES {
                let x = block[l].to_f64();
                let size = x.abs();
                largest[l] = if size > largest[l] { size } else { largest[l] };
                unlike[l] += 0.0 * x;
            }
        }
        for (l, c) in rest.iter().enumerate() {
            let x = c.to_f64();
            largest[l] = largest[l].max(x.abs());
            unlike[l] += 0.0 * x;
        }
        largest.iter().copied().fold(0.0, f64::max) + unlike.iter().sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::test::noise;

    #[test]
    fn scans_agree_with_sorting() {
        for n in [1usize, 2, 15, 16, 17, 40, 333] {
            let costs: Vec<f32> = noise(n, n as u64).iter().map(|x| (x * 4.0).round() as f32).collect();
            let duals: Vec<f64> = noise(n, 5).iter().map(|x| (x * 2.0).round()).collect();
            let mut reduced: Vec<(f64, usize)> = (0..n).map(|j| (f64::from(costs[j]) - duals[j], j)).collect();
            let mut frontier = Frontier::default();
            frontier.start(&duals);
            let relaxed = frontier.relax(3, &costs, 0.5);
            reduced.sort_by(|a, b| a.partial_cmp(b).unwrap());
            let found = two_smallest(&costs, &duals);
            assert_eq!((found.first, found.column), reduced[0]);
            assert_eq!(found.second, reduced.get(1).map_or(f64::INFINITY, |s| s.0));
            assert_eq!(relaxed, (reduced[0].1, reduced[0].0 - 0.5));
            frontier.close(reduced[0].1);
            let next = frontier.relax(4, &costs, -1e9);
            assert_eq!(next.0, if n > 1 { reduced[1].1 } else { usize::MAX });
        }
    }

    #[test]
    fn what_is_not_finite_is_found() {
        for (bad, n) in [(f32::NAN, 40), (f32::INFINITY, 17), (f32::NEG_INFINITY, 3)] {
            let mut costs = vec![1.0f32; n];
            assert_eq!(max_abs(&costs), 1.0);
            costs[n - 1] = bad;
            assert!(!max_abs(&costs).is_finite());
        }
    }
}
