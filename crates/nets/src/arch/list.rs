//! Networks as lists of layers.

use crate::error::{NetError, Result};
use crate::graph::{Activation, Dims, Net};

use super::modules::Module;

enum Word<'a> {
    Act(Activation),
    MaxPool(usize),
    AvgPool(usize),
    Layer { module: &'a Module, stride: usize, pad: Option<usize> },
}

fn read<'a>(word: &str, modules: &'a [Module]) -> Result<Word<'a>> {
    let fail = |what: &str| Err(NetError::LayerList { word: word.into(), what: what.into() });
    let function = match word {
        "relu" => Some(Activation::Relu),
        "tanh" => Some(Activation::Tanh),
        "gelu" => Some(Activation::Gelu),
        "sigmoid" => Some(Activation::Sigmoid),
        _ => None,
    };
    if let Some(function) = function {
        return Ok(Word::Act(function));
    }
    let number = |prefix: &str| word.strip_prefix(prefix).map(|n| n.parse::<usize>().ok().filter(|n| *n > 0));
    match (number("maxpool"), number("avgpool")) {
        (Some(Some(n)), _) => return Ok(Word::MaxPool(n)),
        (_, Some(Some(n))) => return Ok(Word::AvgPool(n)),
        (Some(None), _) | (_, Some(None)) => return fail("a size is missing, as in maxpool2"),
        _ => {}
    }
    let (name, options) = word.split_once(':').unwrap_or((word, ""));
    let Some(module) = modules.iter().find(|m| m.prefix == name) else {
        return fail("no such layer in the checkpoint");
    };
    let (mut stride, mut pad) = (1, None);
    let mut rest = options;
    while let Some(option) = rest.chars().next() {
        let tail = &rest[option.len_utf8()..];
        let (digits, next) = tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len()));
        match (option, digits.parse::<usize>()) {
            ('s', Ok(n)) if n > 0 => stride = n,
            ('p', Ok(n)) => pad = Some(n),
            _ => return fail("options are sN (stride) and pN (padding)"),
        }
        rest = next;
    }
    Ok(Word::Layer { module, stride, pad })
}

/// Whether every word can be read.
pub(crate) fn check(words: &[String], modules: &[Module]) -> Result<()> {
    words.iter().try_for_each(|w| read(w, modules).map(|_| ()))
}

pub(crate) fn image_channels(words: &[String], modules: &[Module]) -> Option<usize> {
    let first = words.iter().find_map(|w| match read(w, modules) {
        Ok(Word::Layer { module, .. }) if module.norm.is_none() => Some(module),
        _ => None,
    })?;
    first.is_conv().then(|| first.n_in())
}

pub(crate) fn build(words: &[String], modules: &[Module], input: Dims) -> Result<Net> {
    let mut net = Net::new(input);
    let mut at = Net::INPUT;
    for word in words {
        let dims = net.node(at).dims;
        let takes = |takes: usize, come: usize, what: &str| match takes == come {
            true => Ok(()),
            false => {
                Err(NetError::LayerList { word: word.clone(), what: format!("it takes {takes} {what}, {come} come") })
            }
        };
        at = match read(word, modules)? {
            Word::Act(function) => net.act(at, function),
            Word::MaxPool(n) => net.max_pool(at, n, n, 0)?,
            Word::AvgPool(n) => net.avg_pool(at, [n, n]),
            Word::Layer { module, .. } if module.norm.is_some() => {
                takes(module.n_out(), dims[0], "channels")?;
                net.norm(at, &module.prefix, module.affine())
            }
            Word::Layer { module, .. } if module.is_linear() => {
                takes(module.n_in(), dims.iter().product(), "values")?;
                net.linear(at, &module.prefix, module.n_out(), module.bias)
            }
            Word::Layer { module, stride, pad } => {
                takes(module.n_in(), dims[0], "channels")?;
                let size = module.weight[2];
                net.conv(at, &module.prefix, module.n_out(), size, [stride, pad.unwrap_or(size / 2)], module.bias)?
            }
        };
    }
    Ok(net)
}
