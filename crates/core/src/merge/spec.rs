//! The permutation spec: which positions of which axes move together.
//!
//! A **perm** is a set of interchangeable hidden units. An axis of a tensor is a list of **pieces**; a piece gives each unit of a
//! perm some positions (slots) on the axis, and positions in no piece are fixed. Moving unit `perm[i]` to the place of unit `i`
//! moves slot k of the one to slot k of the other, on every axis of every tensor that names the perm. A [`Spec`] says this for
//! names; a [`Layout`](super::Layout) is a spec checked against the shapes of a model.

use std::collections::BTreeMap;

use super::error::{MergeError, Result};

/// Ending of the derived perm of a grouped one: `heads.outer` moves the groups of `heads` as wholes.
pub const OUTER: &str = ".outer";

/// Whether a perm may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Solve {
    /// Matching chooses it.
    #[default]
    Match,
    /// Matching leaves it as it is.
    Fixed,
}

/// A perm: a number of units that may change places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermInfo {
    /// Units.
    pub size: usize,
    /// Whether matching may choose it.
    pub solve: Solve,
    /// With `Some(g)`, units lie in g equal groups and a permutation may map groups onto groups only; `ID.outer`, of size g, can
    /// be used in pieces for tensors with one row block per group.
    pub groups: Option<usize>,
}

impl PermInfo {
    /// A perm without groups that matching may choose.
    pub fn new(size: usize) -> Self {
        Self { size, solve: Solve::Match, groups: None }
    }

    /// Whether matching may choose it.
    pub fn is_free(&self) -> bool {
        self.solve == Solve::Match
    }

    /// Units per group; all units without groups.
    pub fn group_size(&self) -> usize {
        self.size / self.groups.unwrap_or(1)
    }
}

/// Positions of an axis that belong to units of a perm: unit `j` in `from..from + len` owns `at + r·stride + (j − from)·block + t`
/// for `r < tile`, `t < block`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Perm id, or `ID.outer`.
    pub perm: String,
    /// Position of the first slot.
    pub at: usize,
    /// First unit; 0 by default.
    pub from: usize,
    /// Units; all by default.
    pub len: Option<usize>,
    /// Adjacent positions of a unit; 1 by default.
    pub block: usize,
    /// Repetitions; 1 by default.
    pub tile: usize,
    /// Distance of repetitions; size · block by default.
    pub stride: Option<usize>,
    /// The piece, if alone on its axis, must fill it: set where nothing but perm, block and tile is given.
    pub fills: bool,
}

impl Piece {
    /// A perm that fills an axis, one position per unit.
    pub fn whole(perm: impl Into<String>) -> Self {
        Self { perm: perm.into(), at: 0, from: 0, len: None, block: 1, tile: 1, stride: None, fills: true }
    }

    /// A perm that fills an axis, `block` adjacent positions per unit.
    pub fn blocks(perm: impl Into<String>, block: usize) -> Self {
        Self { block, ..Self::whole(perm) }
    }

    /// The same piece at a place of the axis, of which it may leave positions fixed.
    pub fn at(self, at: usize) -> Self {
        Self { at, fills: false, ..self }
    }

    /// The same piece for some of the units.
    pub fn units(self, from: usize, len: usize) -> Self {
        Self { from, len: Some(len), fills: false, ..self }
    }
}

/// The pieces of every axis of a tensor.
pub type Axes = Vec<Vec<Piece>>;

/// Perms and the axes they are on, by name.
///
/// ```
/// use subspan::merge::{Piece, PermInfo, Spec};
/// let mut spec = Spec::default();
/// spec.perms.insert("h".into(), PermInfo::new(512));
/// spec.tensors.insert("fc1.weight".into(), vec![vec![Piece::whole("h")], vec![]]);
/// spec.tensors.insert("fc1.bias".into(), vec![vec![Piece::whole("h")]]);
/// spec.tensors.insert("fc2.weight".into(), vec![vec![], vec![Piece::whole("h")]]);
/// spec.check()?;
/// # Ok::<(), subspan::merge::MergeError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spec {
    /// Perm id to perm.
    pub perms: BTreeMap<String, PermInfo>,
    /// Tensor name to its axes.
    pub tensors: BTreeMap<String, Axes>,
}

impl Spec {
    /// Checks what can be checked without shapes: sizes, groups, and that pieces name perms and units that exist.
    ///
    /// # Errors
    /// The law that is broken, with its perm and tensor.
    pub fn check(&self) -> Result<()> {
        for (id, perm) in &self.perms {
            if perm.size == 0 {
                return Err(MergeError::spec(format!("perm {id} has size 0")));
            }
            if id.is_empty() || id.ends_with(OUTER) {
                return Err(MergeError::spec(format!("{id:?} cannot be the name of a perm")));
            }
            if let Some(groups) = perm.groups
                && (groups == 0 || !perm.size.is_multiple_of(groups))
            {
                return Err(MergeError::spec(format!("perm {id}: {} units do not make {groups} groups", perm.size)));
            }
        }
        for (tensor, axes) in &self.tensors {
            for piece in axes.iter().flatten() {
                self.check_piece(tensor, piece)?;
            }
        }
        Ok(())
    }

    fn check_piece(&self, tensor: &str, piece: &Piece) -> Result<()> {
        let size = self.size_of(&piece.perm, tensor)?;
        let bad =
            |what: String| Err(MergeError::spec(format!("tensor {tensor}, piece of perm {}: {what}", piece.perm)));
        if piece.block == 0 || piece.tile == 0 || piece.len == Some(0) {
            return bad("len, block and tile must be at least 1".into());
        }
        let len = piece.len.unwrap_or(size.saturating_sub(piece.from));
        match piece.from.checked_add(len) {
            Some(end) if end <= size && len > 0 => {}
            _ => return bad(format!("units from {} on, {len} of them, but the perm has {size}", piece.from)),
        }
        let stride = piece.stride.unwrap_or(size.saturating_mul(piece.block));
        if piece.tile > 1 && stride < len.saturating_mul(piece.block) {
            return bad(format!("repetitions at distance {stride} overlap"));
        }
        let reach = stride.checked_mul(piece.tile - 1).and_then(|r| r.checked_add(len.checked_mul(piece.block)?));
        match reach.and_then(|r| r.checked_add(piece.at)) {
            Some(end) if end <= MAX_AXIS => Ok(()),
            _ => bad("it ends beyond any axis".into()),
        }
    }

    /// Size of a perm or of the groups of one.
    pub(super) fn size_of(&self, perm: &str, tensor: &str) -> Result<usize> {
        let outer = perm.strip_suffix(OUTER);
        let size = match outer {
            Some(id) => self.perms.get(id).and_then(|p| p.groups),
            None => self.perms.get(perm).map(|p| p.size),
        };
        size.ok_or_else(|| MergeError::UnknownPerm { perm: perm.into(), tensor: tensor.into() })
    }
}

/// Longest axis a spec may speak of: far above any model, so that positions never overflow.
const MAX_AXIS: usize = 1 << 31;
