//! The lift for even `p`: rows whose *squared* inner products are the `p`-th powers of the original ones.
//!
//! `lift(a)` holds the `C(d + p/2 − 1, p/2)` monomials of degree `p/2` in the entries of `a`, each times the square root of its
//! multinomial coefficient. By the multinomial theorem `⟨lift(a), lift(x)⟩ = (a·x)^(p/2)`, so
//! `Σ|aᵢx|^p = ‖lift(A) lift(x)‖²`: sensitivities are at most the leverages of the lifted rows, their sum is at most the rank
//! of the lifted matrix, and spectral bounds of a lifted sample are rigorous for the original one.
//!
//! Lifting raises a matrix's condition number to its `p/2`-th power: scale the columns first ([`LiftedRows::scaled`]), by powers
//! of two to lose nothing.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::remote::{Origin, RowMap};
use crate::rows::{Records, RowBlock, RowIds, RowSource};

/// Above this many lifted columns the lift costs more than it tells: its Gram takes `n L²` multiply-adds.
pub const MAX_LIFTED_COLUMNS: usize = 2000;

/// Above this a lift is refused: the Gram matrix of so many columns would take 8 TiB.
const REFUSED_COLUMNS: usize = 1 << 20;

/// Number of columns of the lift of `d` columns: `C(d + p/2 − 1, p/2)`; `None` if `p` is not an even number or the lift
/// is too large to hold.
///
/// ```
/// use subspan::sample::lifted_dim;
/// assert_eq!(lifted_dim(20, 4.0), Some(210));
/// assert_eq!((lifted_dim(20, 3.0), lifted_dim(1000, 40.0)), (None, None));
/// ```
pub fn lifted_dim(d: usize, p: f64) -> Option<usize> {
    if !(p >= 2.0 && p <= REFUSED_COLUMNS as f64 && p % 2.0 == 0.0) {
        return None;
    }
    let degree = (p / 2.0) as usize;
    if d == 0 {
        return Some(0);
    }
    // C(d − 1 + k, k) = Π (d − 1 + t)/t, and every partial product is a binomial coefficient, hence an integer.
    let mut dim = 1usize;
    for t in 1..=degree {
        dim = dim.checked_mul(d - 1 + t)? / t;
        if dim > REFUSED_COLUMNS {
            return None;
        }
    }
    Some(dim)
}

/// The map from rows of `d` columns to rows of [`lifted_dim`] columns.
///
/// ```
/// use subspan::sample::Lift;
/// let lift = Lift::new(2, 4.0).unwrap();
/// let mut out = [0.0; 3];
/// lift.lift_rows(&[3.0, 2.0], &mut out);
/// // 9, √2 · 6, 4: the inner product of two such rows is the square of the original one.
/// assert!((out[1] - 6.0 * 2f64.sqrt()).abs() < 1e-12 && out[2] == 4.0);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lift {
    n_cols: usize,
    /// `starts[t][i]`: where the monomials of degree `t + 1` whose smallest variable is at least `i` begin. They are a suffix of
    /// all monomials of that degree, because monomials are ordered by their smallest variable first.
    starts: Vec<Vec<usize>>,
    /// Square roots of the multinomial coefficients, one per monomial.
    roots: Vec<f64>,
}

impl Lift {
    /// The lift of `n_cols` columns for an even `p`.
    ///
    /// # Errors
    /// [`Error::Parameter`] if there is none ([`lifted_dim`]).
    pub fn new(n_cols: usize, p: f64) -> Result<Self> {
        let Some(dim) = lifted_dim(n_cols, p) else {
            return Err(Error::parameter(
                "p",
                p,
                format!("an even number with a lift of at most {REFUSED_COLUMNS} columns"),
            ));
        };
        let degree = (p / 2.0) as usize;
        let mut starts: Vec<Vec<usize>> = vec![(0..n_cols).collect()];
        // Multinomial coefficients grow with the monomials: k! / Π eⱼ! = Π over the factors of (position / run length).
        let mut level: Vec<Monomial> =
            (0..n_cols).map(|i| Monomial { smallest: i, run: 1, coefficient: 1.0 }).collect();
        for t in 2..=degree {
            let below = &starts[t - 2];
            let mut next = Vec::new();
            let mut next_starts = Vec::with_capacity(n_cols);
            for i in 0..n_cols {
                next_starts.push(next.len());
                for m in &level[below[i]..] {
                    let run = if m.smallest == i { m.run + 1 } else { 1 };
                    next.push(Monomial { smallest: i, run, coefficient: m.coefficient * t as f64 / run as f64 });
                }
            }
            level = next;
            starts.push(next_starts);
        }
        debug_assert_eq!(level.len(), dim);
        Ok(Self { n_cols, starts, roots: level.iter().map(|m| m.coefficient.sqrt()).collect() })
    }

    /// The even `p` that it is for.
    pub fn p(&self) -> f64 {
        2.0 * self.starts.len() as f64
    }

    /// Columns of the original rows.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Columns of the lifted rows.
    pub fn dim(&self) -> usize {
        self.roots.len()
    }

    /// Lifts every row of `rows` (whole rows of `n_cols`) into the matching row of `out` (rows of `dim`).
    ///
    /// Cost: about `dim` multiplications per row and degree.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    pub fn lift_rows(&self, rows: &[f64], out: &mut [f64]) {
        let (d, dim) = (self.n_cols, self.dim());
        assert_eq!(rows.len() * dim, out.len() * d, "one lifted row per row");
        let (mut below, mut above) = (Vec::with_capacity(dim), Vec::with_capacity(dim));
        for (row, out) in rows.chunks_exact(d.max(1)).zip(out.chunks_exact_mut(dim.max(1))) {
            below.clear();
            below.extend_from_slice(row);
            for starts in &self.starts[..self.starts.len() - 1] {
                above.clear();
                for (x, start) in row.iter().zip(starts) {
                    above.extend(below[*start..].iter().map(|m| x * m));
                }
                std::mem::swap(&mut below, &mut above);
            }
            out.iter_mut().zip(&below).zip(&self.roots).for_each(|((o, m), c)| *o = c * m);
        }
    }
}

/// A monomial `x_smallest · ...`: `run` is the exponent of its smallest variable.
struct Monomial {
    smallest: usize,
    run: usize,
    coefficient: f64,
}

/// A source of lifted rows: same rows, ids, chunks and records as the source it wraps, with [`Lift::dim`] columns.
pub struct LiftedRows<'a> {
    source: &'a dyn RowSource,
    lift: &'a Lift,
    scale: Option<Vec<f64>>,
}

/// Values of a lifted piece: 2 MiB, whatever the size of the original's blocks.
const PIECE_VALUES: usize = 1 << 18;

impl<'a> LiftedRows<'a> {
    /// The lifted rows of `source`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lift is for another number of columns.
    pub fn new(source: &'a dyn RowSource, lift: &'a Lift) -> Result<Self> {
        if source.n_cols() != lift.n_cols() {
            return Err(Error::Shape { what: "the lift", found: lift.n_cols(), expected: source.n_cols() });
        }
        Ok(Self { source, lift, scale: None })
    }

    /// Multiplies column `j` of the original rows by `scale[j]` before lifting.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one factor per column.
    pub fn scaled(mut self, scale: Vec<f64>) -> Result<Self> {
        if scale.len() != self.lift.n_cols() {
            return Err(Error::Shape { what: "the column scales", found: scale.len(), expected: self.lift.n_cols() });
        }
        self.scale = Some(scale);
        Ok(self)
    }
}

impl RowSource for LiftedRows<'_> {
    fn n_cols(&self) -> usize {
        self.lift.dim()
    }

    fn n_rows(&self) -> Option<u64> {
        self.source.n_rows()
    }

    fn origin(&self) -> Option<Origin<'_>> {
        let scale = self.scale.iter().map(|scale| RowMap::Scale(scale.clone()));
        let maps = scale.chain([RowMap::Lift { p: self.lift.p() }]);
        Some(maps.fold(self.source.origin()?, Origin::then))
    }

    fn n_chunks(&self) -> usize {
        self.source.n_chunks()
    }

    fn scan(&self, chunk: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
        let (d, dim) = (self.lift.n_cols(), self.lift.dim());
        let piece_rows = (PIECE_VALUES / dim.max(1)).max(1);
        let (mut scaled, mut lifted) = (Vec::new(), Vec::new());
        self.source.scan(chunk, &mut |block| {
            for first in (0..block.n_rows()).step_by(piece_rows) {
                let end = block.n_rows().min(first + piece_rows);
                let rows = &block.values[first * d..end * d];
                lifted.resize((end - first) * dim, 0.0);
                match &self.scale {
                    None => self.lift.lift_rows(rows, &mut lifted),
                    Some(scale) => {
                        scaled.clear();
                        scaled.extend(rows.chunks_exact(d).flat_map(|row| row.iter().zip(scale).map(|(a, s)| a * s)));
                        self.lift.lift_rows(&scaled, &mut lifted);
                    }
                }
                let ids = match block.ids {
                    RowIds::From(id) => RowIds::From(id + first as u64),
                    RowIds::List(ids) => RowIds::List(&ids[first..end]),
                };
                let piece = block.records.map(|records| PieceRecords { records, first });
                let records = piece.as_ref().map(|p| p as &dyn Records);
                visit(&RowBlock { n_cols: dim, values: &lifted, ids, records })?;
            }
            Ok(())
        })
    }
}

/// The records of a piece of a block: local row `i` is row `first + i` of the block.
struct PieceRecords<'a> {
    records: &'a dyn Records,
    first: usize,
}

impl Records for PieceRecords<'_> {
    fn encode(&self, rows: &[usize]) -> Result<Vec<Box<[u8]>>> {
        let rows: Vec<usize> = rows.iter().map(|i| self.first + i).collect();
        self.records.encode(&rows)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use subspan_linalg::{par_gram, whiten};

    use super::*;
    use crate::draw::Stream;
    use crate::observe::Silent;
    use crate::rows::{DenseRows, fold};

    fn lifted(rows: &[f64], d: usize, p: f64) -> (Vec<f64>, usize) {
        let lift = Lift::new(d, p).unwrap();
        let mut out = vec![0.0; rows.len() / d * lift.dim()];
        lift.lift_rows(rows, &mut out);
        (out, lift.dim())
    }

    fn lift_rank(rows: &[f64], d: usize, p: f64) -> usize {
        let (rows, dim) = lifted(rows, d, p);
        whiten(&par_gram(&rows, dim), (rows.len() / dim) as u64).unwrap().rank
    }

    fn gaussian(n: usize, seed: u64) -> Vec<f64> {
        let mut rng = Stream::new(seed, "test").rng(0);
        (0..n).map(|_| rng.normal()).collect()
    }

    proptest! {
        #[test]
        fn lifted_inner_products_are_powers(
            a in prop::collection::vec(-2.0..2.0f64, 1..6),
            seed in 0u64..1000,
            half in 1usize..6,
        ) {
            let (d, p) = (a.len(), 2.0 * half as f64);
            let x = gaussian(d, seed);
            let (la, dim) = lifted(&a, d, p);
            let (lx, _) = lifted(&x, d, p);
            prop_assert_eq!(Some(dim), lifted_dim(d, p));
            let inner: f64 = la.iter().zip(&lx).map(|(a, b)| a * b).sum();
            let dot: f64 = a.iter().zip(&x).map(|(a, b)| a * b).sum();
            // Both are sums whose terms are bounded by the power of the norms.
            let size = (la.iter().map(|v| v * v).sum::<f64>() * lx.iter().map(|v| v * v).sum::<f64>()).sqrt();
            prop_assert!((inner - dot.powi(half as i32)).abs() <= 1e-12 * size);
        }
    }

    #[test]
    fn lifted_dims_are_binomials() {
        assert_eq!(lifted_dim(10, 4.0), Some(55));
        assert_eq!(lifted_dim(20, 4.0), Some(210));
        assert_eq!(lifted_dim(3, 6.0), Some(10));
        assert_eq!(lifted_dim(7, 2.0), Some(7));
        for p in [1.0, 3.0, 2.5, 0.0, -4.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(lifted_dim(5, p), None, "p = {p}");
        }
        assert!(Lift::new(500, 10.0).is_err());
    }

    #[test]
    fn the_lifts_rank_reveals_the_structure() {
        let (n, d, p) = (400, 10, 4.0);
        assert_eq!(lift_rank(&gaussian(n * d, 1), d, p), 55);

        let chebyshev: Vec<f64> = (0..n)
            .flat_map(|i| {
                let angle = std::f64::consts::PI * (i as f64 + 0.5) / n as f64;
                (0..d).map(move |j| (j as f64 * angle).cos())
            })
            .collect();
        assert_eq!(lift_rank(&chebyshev, d, p), 19);

        let (left, right) = (gaussian(n * 3, 2), gaussian(3 * d, 3));
        let rank_three: Vec<f64> =
            (0..n * d).map(|k| (0..3).map(|t| left[k / d * 3 + t] * right[t * d + k % d]).sum()).collect();
        assert_eq!(lift_rank(&rank_three, d, p), 6);

        let one_hot: Vec<f64> = (0..n * d).map(|k| if k / d % d == k % d { 1.0 } else { 0.0 }).collect();
        assert_eq!(lift_rank(&one_hot, d, p), 10);
    }

    #[test]
    fn a_lifted_source_passes_rows_and_ids_through_in_bounded_pieces() {
        // Lifted to 2002 columns, a piece holds 130 rows; the block of 400 comes in four.
        let (n, d, p) = (400, 10, 10.0);
        let rows = gaussian(n * d, 4);
        let source = DenseRows::new(&rows, d).unwrap();
        let lift = Lift::new(d, p).unwrap();
        let scale: Vec<f64> = (0..d).map(|j| 2f64.powi(j as i32 - 5)).collect();
        let lifted_source = LiftedRows::new(&source, &lift).unwrap().scaled(scale.clone()).unwrap();
        let (values, ids, blocks) = fold(
            &lifted_source,
            &Silent,
            || (Vec::new(), Vec::new(), 0),
            |state, block| {
                state.0.extend_from_slice(block.values);
                state.1.extend((0..block.n_rows()).map(|i| block.id(i)));
                state.2 += 1;
                Ok(())
            },
            |_, _| unreachable!("one chunk"),
        )
        .unwrap();
        let scaled: Vec<f64> = rows.chunks(d).flat_map(|r| r.iter().zip(&scale).map(|(a, s)| a * s)).collect();
        assert_eq!(values, lifted(&scaled, d, p).0);
        assert_eq!(ids, (0..n as u64).collect::<Vec<_>>());
        assert_eq!(blocks, 4);
        assert!(LiftedRows::new(&source, &Lift::new(9, p).unwrap()).is_err());
    }

    #[test]
    fn records_are_asked_for_by_their_place_in_the_original_block() {
        struct Names;
        impl Records for Names {
            fn encode(&self, rows: &[usize]) -> Result<Vec<Box<[u8]>>> {
                Ok(rows.iter().map(|i| i.to_string().into_bytes().into_boxed_slice()).collect())
            }
        }
        struct OneBlock(Vec<f64>, Vec<u64>);
        impl RowSource for OneBlock {
            fn n_cols(&self) -> usize {
                10
            }
            fn n_rows(&self) -> Option<u64> {
                None
            }
            fn n_chunks(&self) -> usize {
                1
            }
            fn scan(&self, _: usize, visit: &mut dyn FnMut(&RowBlock<'_>) -> Result<()>) -> Result<()> {
                visit(&RowBlock { n_cols: 10, values: &self.0, ids: RowIds::List(&self.1), records: Some(&Names) })
            }
        }
        let source = OneBlock(vec![1.0; 3000], (0..300).map(|i| 7 * i).collect());
        let lift = Lift::new(10, 10.0).unwrap();
        let mut seen = Vec::new();
        LiftedRows::new(&source, &lift)
            .unwrap()
            .scan(0, &mut |block| {
                let last = block.n_rows() - 1;
                let text = block.records.unwrap().encode(&[0, last]).unwrap();
                let row: u64 = std::str::from_utf8(&text[1]).unwrap().parse().unwrap();
                assert_eq!(block.id(last), 7 * row);
                seen.push(String::from_utf8(text[0].to_vec()).unwrap());
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, ["0", "130", "260"]);
    }
}
