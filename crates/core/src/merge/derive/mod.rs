//! Specs out of names and shapes.
//!
//! A family of models is recognised by its names; every tensor must then fit the family, or the derivation is refused with the
//! tensor named: a wrong spec would silently change what a model computes. Fewer perms than possible are always safe.

mod chain;
mod resnet;
mod table;
mod transformers;

use serde_json::Value;

use super::error::{MergeError, Result};
use super::model::Model;
use super::spec::{Solve, Spec};

/// A derived spec and what it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Derived {
    /// The spec.
    pub spec: Spec,
    /// What the model was read as.
    pub family: String,
    /// What was assumed or left out, for the user.
    pub notes: Vec<String>,
}

/// Derives a spec from a model's tensors and, if there is one, its `config.json`. With `residual`, a transformer's residual
/// stream may move too; otherwise it is fixed and every other perm can be solved alone.
///
/// # Errors
/// [`MergeError::Derivation`] for a recognised family with a tensor that does not fit; [`MergeError::NoSpec`] if nothing is
/// recognised.
pub fn derive(model: &dyn Model, config: Option<&Value>, residual: bool) -> Result<Derived> {
    let mut derived = match transformers::derive(model, config)? {
        Some(derived) => derived,
        None => match resnet::derive(model)? {
            Some(derived) => derived,
            None => chain::derive(model)?,
        },
    };
    if residual {
        let Some(perm) = derived.spec.perms.get_mut(RESIDUAL) else {
            return Err(MergeError::Unsupported {
                what: format!("{} has no residual stream of its own perm", derived.family),
                hint: Some("--residual is for transformers".into()),
            });
        };
        perm.solve = Solve::Match;
    }
    derived.spec.check()?;
    Ok(derived)
}

/// The perm of a transformer's residual stream.
const RESIDUAL: &str = "resid";

/// A tensor that does not fit.
fn refuse<T>(family: &str, tensor: &str, detail: impl Into<String>) -> Result<T> {
    Err(MergeError::Derivation { family: family.into(), tensor: tensor.into(), detail: detail.into() })
}

/// Splits a name into texts and numbers, so that `layer10` comes after `layer9`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut key = Vec::new();
    let (mut text, mut digits) = (String::new(), String::new());
    for c in name.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
        } else {
            if !digits.is_empty() {
                key.push((std::mem::take(&mut text), digits.parse().unwrap_or(u64::MAX)));
                digits.clear();
            }
            text.push(c);
        }
    }
    key.push((text, digits.parse().unwrap_or(0)));
    key
}

#[cfg(test)]
mod tests;
