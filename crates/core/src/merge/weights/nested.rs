//! Perms whose groups stay together: an assignment of groups whose costs are assignments of units.
//!
//! The best inner assignment of a pair of groups does not depend on the other pairs, so the nested solution is exact.

use rayon::prelude::*;

use super::super::error::Result;
use super::solve::Found;
use crate::assign::lap;

/// The cheapest permutation of `n` units that maps each of `n_groups` groups onto one; `inner` are costs of units, `outer` of
/// groups as wholes.
pub(super) fn minimize(inner: Option<&[f32]>, outer: Option<&[f32]>, n: usize, n_groups: usize) -> Result<Found> {
    let size = n / n_groups;
    let pairs: Vec<(Vec<usize>, f64, f64)> = (0..n_groups * n_groups)
        .into_par_iter()
        .map(|pair| -> Result<_> {
            let Some(costs) = inner else { return Ok(((0..size).collect(), 0.0, 0.0)) };
            let (i, j) = (pair / n_groups * size, pair % n_groups * size);
            let block: Vec<f32> =
                (i..i + size).flat_map(|r| costs[r * n + j..r * n + j + size].iter().copied()).collect();
            let found = lap::minimize(&block, size, None)?;
            Ok((found.columns, found.certificate.value, found.certificate.gap))
        })
        .collect::<Result<_>>()?;
    let costs: Vec<f64> = (0..pairs.len()).map(|k| pairs[k].1 + outer.map_or(0.0, |o| f64::from(o[k]))).collect();
    let found = lap::minimize(&costs, n_groups, None)?;
    // A pair's true cost may be lower than its value by its gap, on whichever pairs the true optimum uses.
    let worst = |i: usize| (0..n_groups).map(|j| pairs[i * n_groups + j].2).fold(0.0, f64::max);
    let gap = found.certificate.gap + (0..n_groups).map(worst).sum::<f64>();
    let place =
        |(i, j): (usize, &usize)| pairs[i * n_groups + j].0.iter().map(|unit| j * size + unit).collect::<Vec<_>>();
    let perm = found.columns.iter().enumerate().flat_map(place).collect();
    Ok(Found { perm, duals: Vec::new(), value: found.certificate.value, gap })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Stream;

    /// All permutations of `0..n`.
    fn permutations(n: usize) -> Vec<Vec<usize>> {
        if n == 0 {
            return vec![Vec::new()];
        }
        let insert = |p: Vec<usize>| (0..n).map(move |at| [&p[..at], &[n - 1], &p[at..]].concat());
        permutations(n - 1).into_iter().flat_map(insert).collect()
    }

    #[test]
    fn no_permutation_of_groups_is_cheaper() {
        let (n, n_groups, size) = (6, 3, 2);
        for seed in 0..20 {
            let mut rng = Stream::new(seed, "nested").rng(0);
            let inner: Vec<f32> = (0..n * n).map(|_| rng.normal() as f32).collect();
            let outer: Vec<f32> = (0..n_groups * n_groups).map(|_| rng.normal() as f32).collect();
            let found = minimize(Some(&inner), Some(&outer), n, n_groups).unwrap();
            let cost = |p: &[usize]| -> Option<f64> {
                let whole = p.chunks(size).all(|g| g.iter().all(|j| j / size == g[0] / size));
                let units = p.iter().enumerate().map(|(i, j)| f64::from(inner[i * n + j])).sum::<f64>();
                let groups = |(g, c): (usize, &[usize])| f64::from(outer[g * n_groups + c[0] / size]);
                whole.then(|| units + p.chunks(size).enumerate().map(groups).sum::<f64>())
            };
            let best = permutations(n).iter().filter_map(|p| cost(p)).fold(f64::INFINITY, f64::min);
            assert!((found.value - best).abs() < 1e-6 && (cost(&found.perm).unwrap() - best).abs() < 1e-6);
        }
    }
}
