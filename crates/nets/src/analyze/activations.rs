//! Matching by activations: units that fire together are the same unit.
//!
//! `P = argmax ⟨P, corr(Z_A, Z_B)⟩` at every place where a perm's units are read, positions of an image counting as samples
//! (Ainsworth et al., 2209.04836, section 3.1; correlations are blind to the units' scale).

use subspan::assign::lap;
use subspan::merge::{Layout, Permutations, Solve};

use crate::error::{NetError, Result};
use crate::evaluate::Labelled;
use crate::graph::Net;
use crate::moments::{Site, Units, pair_moments};
use crate::tensor::Params;

/// The permutations for the second of two models that maximise the correlation of activations on `data`. One assignment per
/// perm, no iteration. Perms with groups, fixed ones and those that no layer of the network reads stay as they are.
///
/// # Errors
/// Parameters or samples that do not fit the network.
pub fn match_activations(
    net: &Net,
    layout: &Layout,
    params: [&Params<f32>; 2],
    data: &Labelled<'_, f32>,
) -> Result<Permutations> {
    let mut ids = Vec::new();
    let mut units = Vec::new();
    for (at, (id, perm)) in layout.perms.iter().enumerate() {
        if perm.solve != Solve::Match || perm.groups.is_some() {
            continue;
        }
        let mut sites = Vec::new();
        for tensor in layout.tensors.iter().filter(|t| t.axes.len() >= 2 && net.layer_of(&t.name).is_some()) {
            for place in tensor.axes[1].iter().filter(|p| p.perm == at && !p.outer && p.depth == 0) {
                let places = place.slots.iter().map(|s| *s as usize).collect();
                sites.push(Site { weight: tensor.name.clone(), places });
            }
        }
        if !sites.is_empty() {
            ids.push(id.clone());
            units.push(Units { size: perm.size, sites });
        }
    }
    let mut out = Permutations::identity(layout.spec());
    for (id, moments) in ids.iter().zip(pair_moments(net, params, data, &units)?) {
        let correlation = moments.correlation();
        let costs: Vec<f64> = correlation.as_slice().iter().map(|v| -v).collect();
        let found = lap::minimize(&costs, correlation.n_cols(), None);
        let found = found.map_err(|_| NetError::NonFinite { what: format!("activations of {id}") })?;
        out.set(id, found.columns);
    }
    Ok(out)
}
