//! One permutation per perm of a spec.

use std::collections::BTreeMap;

use super::error::{MergeError, Result};
use super::spec::{OUTER, PermInfo, Solve, Spec};
use crate::draw::Stream;

/// A permutation for every perm id, in gather form: aligned unit `i` is unit `perm[i]` of the model that is moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permutations(BTreeMap<String, Vec<usize>>);

impl Permutations {
    /// Nothing moves.
    pub fn identity(spec: &Spec) -> Self {
        Self(spec.perms.iter().map(|(id, p)| (id.clone(), (0..p.size).collect())).collect())
    }

    /// Every perm with [`Solve::Match`] (every perm at all with `fixed_too`) uniformly at random, within its groups' law.
    pub fn random(spec: &Spec, seed: u64, fixed_too: bool) -> Self {
        let stream = Stream::new(seed, "permutations");
        let draw = |(at, (id, p)): (usize, (&String, &PermInfo))| {
            let mut rng = stream.rng(at as u64);
            let perm = match (p.solve, p.groups) {
                (Solve::Fixed, _) if !fixed_too => (0..p.size).collect(),
                (_, None) => rng.permutation(p.size),
                (_, Some(groups)) => {
                    let size = p.group_size();
                    let outer = rng.permutation(groups);
                    outer.iter().flat_map(|g| rng.permutation(size).into_iter().map(move |i| g * size + i)).collect()
                }
            };
            (id.clone(), perm)
        };
        Self(spec.perms.iter().enumerate().map(draw).collect())
    }

    /// Given permutations; perms of the spec that are not given stay as they are.
    ///
    /// # Errors
    /// A perm the spec does not declare, of another size, with a repeated unit, or that tears a group apart.
    pub fn new(spec: &Spec, given: BTreeMap<String, Vec<usize>>) -> Result<Self> {
        let mut all = Self::identity(spec);
        for (id, perm) in given {
            let Some(info) = spec.perms.get(&id) else {
                return Err(MergeError::NotAPermutation { perm: id, detail: "the spec does not declare it".into() });
            };
            check(&perm, info).map_err(|detail| MergeError::NotAPermutation { perm: id.clone(), detail })?;
            all.0.insert(id, perm);
        }
        Ok(all)
    }

    /// The permutation of `id`.
    pub fn get(&self, id: &str) -> Option<&[usize]> {
        self.0.get(id).map(Vec::as_slice)
    }

    /// Ids and permutations, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.0.iter().map(|(id, p)| (id.as_str(), p.as_slice()))
    }

    /// Replaces one permutation.
    ///
    /// # Panics
    /// If there is no such perm or the size differs.
    pub fn set(&mut self, id: &str, perm: Vec<usize>) {
        let old = self.0.get_mut(id).expect("a perm of the spec");
        assert_eq!(old.len(), perm.len(), "the size of the perm");
        *old = perm;
    }

    /// Whether nothing moves.
    pub fn is_identity(&self) -> bool {
        self.0.values().all(|p| p.iter().enumerate().all(|(i, j)| i == *j))
    }

    /// Units that change their place.
    pub fn n_moved(&self) -> usize {
        self.0.values().map(|p| p.iter().enumerate().filter(|(i, j)| i != *j).count()).sum()
    }

    /// Every permutation changed by `f`.
    pub(super) fn map(&self, f: impl Fn(&[usize]) -> Vec<usize>) -> Self {
        Self(self.0.iter().map(|(id, p)| (id.clone(), f(p))).collect())
    }

    /// The permutation of a perm, or of its groups for `ID.outer`.
    pub(super) fn of(&self, id: &str, info: &PermInfo, outer: bool) -> Vec<usize> {
        let id = id.strip_suffix(OUTER).unwrap_or(id);
        let perm = &self.0[id];
        if outer { groups_of(perm, info) } else { perm.clone() }
    }
}

/// How groups move.
pub(super) fn groups_of(perm: &[usize], info: &PermInfo) -> Vec<usize> {
    let size = info.group_size();
    perm.iter().step_by(size).map(|j| j / size).collect()
}

/// The permutation that undoes `p`.
pub(super) fn inverse(p: &[usize]) -> Vec<usize> {
    let mut q = vec![0; p.len()];
    for (i, j) in p.iter().enumerate() {
        q[*j] = i;
    }
    q
}

/// Whether `perm` is one of `info`; what is wrong otherwise.
fn check(perm: &[usize], info: &PermInfo) -> Result<(), String> {
    if perm.len() != info.size {
        return Err(format!("{} units, the spec says {}", perm.len(), info.size));
    }
    let mut seen = vec![false; perm.len()];
    for (i, j) in perm.iter().enumerate() {
        match seen.get_mut(*j) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => return Err(format!("unit {j} appears twice")),
            None => return Err(format!("place {i} holds unit {j} of {}", perm.len())),
        }
    }
    let size = info.group_size();
    match perm.chunks(size).position(|g| g.iter().any(|j| j / size != g[0] / size)) {
        Some(group) => Err(format!("group {group} is made of units of several groups")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        let mut spec = Spec::default();
        spec.perms.insert("h".into(), PermInfo::new(7));
        spec.perms.insert("heads".into(), PermInfo { groups: Some(3), ..PermInfo::new(12) });
        spec
    }

    #[test]
    fn random_ones_keep_groups() {
        let spec = spec();
        let p = Permutations::random(&spec, 1, false);
        let again = Permutations::new(&spec, p.0.clone()).unwrap();
        assert_eq!(p, again);
        assert!(!p.is_identity());
        assert_eq!(p.of("heads.outer", &spec.perms["heads"], true).len(), 3);
    }

    #[test]
    fn what_is_no_permutation_is_refused() {
        let spec = spec();
        let try_one = |id: &str, p: Vec<usize>| {
            Permutations::new(&spec, BTreeMap::from([(id.to_string(), p)])).unwrap_err().to_string()
        };
        assert!(try_one("x", vec![0]).contains("does not declare"));
        assert!(try_one("h", vec![0; 7]).contains("appears twice"));
        assert!(try_one("h", vec![0, 1]).contains("2 units"));
        assert!(try_one("h", vec![0, 1, 2, 3, 4, 5, 9]).contains("unit 9"));
        assert!(try_one("heads", vec![0, 4, 2, 3, 1, 5, 6, 7, 8, 9, 10, 11]).contains("group 0"));
    }
}
