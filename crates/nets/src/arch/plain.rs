//! Chains: multilayer perceptrons and convolutional networks without shortcuts.
//!
//! Dense layers follow convolutions, ReLU follows all but the last, a BatchNorm stands between a layer and its ReLU. Names say
//! the order only within a stem (`fc1`, `fc2`); between stems the sizes must. Where a network pools is in the gaps of the
//! numbers of an `nn.Sequential` (`features.0`, `features.3`: a ReLU and a pooling between); without such numbers it is found by
//! trying, and must be the only way that ends at the size of the first dense layer.

use crate::error::{NetError, Result};
use crate::graph::{Activation, Dims, Net, NodeId};

use super::modules::Module;

/// Most convolutions whose poolings are searched for.
const MOST_SEARCHED: usize = 8;

/// Layers in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plain {
    convs: Vec<Layer>,
    linears: Vec<Layer>,
}

/// A layer and the BatchNorm after it.
#[derive(Debug, Clone, PartialEq)]
struct Layer {
    module: Module,
    norm: Option<Module>,
}

/// One way to pool.
#[derive(Debug, Clone, Default)]
struct Plan {
    /// After which convolutions.
    pools: Vec<bool>,
    /// Whether convolutions keep the size.
    same: bool,
    /// Whether a mean over cells may end the convolutional part, and the one that does.
    adaptive: bool,
    mean_to: Option<usize>,
}

impl Plain {
    pub(crate) fn recognise(modules: &[Module]) -> Result<Self> {
        let order = |pick: fn(&Module) -> bool| chain(modules.iter().filter(|m| pick(m)).collect());
        let (convs, linears) = (order(Module::is_conv)?, order(Module::is_linear)?);
        let Some(last) = linears.last() else {
            return Err(NetError::architecture("no dense layer that gives the outputs"));
        };
        let mut layers: Vec<Layer> =
            convs.iter().chain(&linears).map(|m| Layer { module: (*m).clone(), norm: None }).collect();
        for norm in modules.iter().filter(|m| m.norm.is_some()) {
            let free = |i: &usize| layers[*i].norm.is_none() && layers[*i].module.prefix != last.prefix;
            let Some(at) = owner(norm, &layers).filter(free) else {
                return Err(NetError::architecture(format!("no layer that BatchNorm {} follows", norm.prefix)));
            };
            layers[at].norm = Some(norm.clone());
        }
        let linears = layers.split_off(convs.len());
        Ok(Self { convs: layers, linears })
    }

    pub(crate) fn image_channels(&self) -> Option<usize> {
        self.convs.first().map(|l| l.module.n_in())
    }

    pub(crate) fn build(&self, input: Dims) -> Result<Net> {
        let first = &self.linears[0].module;
        let wanted = first.n_in();
        if self.convs.is_empty() {
            if input.iter().product::<usize>() != wanted {
                return Err(NetError::Input { found: input.to_vec(), expected: format!("{wanted} values") });
            }
            return self.assemble(input, &Plan::default());
        }
        let mut fitting = Vec::new();
        for plan in self.plans() {
            let Ok(net) = self.features(input, &plan) else { continue };
            let dims = net.node(net.output()).dims;
            if dims.iter().product::<usize>() == wanted {
                fitting.push(plan);
            } else if plan.adaptive && wanted.is_multiple_of(dims[0]) {
                let side = (wanted / dims[0]).isqrt();
                if side * side * dims[0] == wanted {
                    fitting.push(Plan { mean_to: Some(side), ..plan });
                }
            }
        }
        // The plain ways first: a mean over cells explains almost any size.
        if fitting.iter().any(|p| p.mean_to.is_none()) {
            fitting.retain(|p| p.mean_to.is_none());
        }
        let (h, w, name) = (input[1], input[2], &first.prefix);
        match fitting.as_slice() {
            [plan] => self.assemble(input, plan),
            [] => Err(NetError::architecture(format!(
                "from images of {h} x {w} no pooling leads to the {wanted} inputs of {name}.weight"
            ))),
            several => Err(NetError::architecture(format!(
                "{} ways of pooling lead from images of {h} x {w} to the {wanted} inputs of {name}.weight",
                several.len()
            ))),
        }
    }

    /// The ways in which the convolutional part may pool.
    fn plans(&self) -> Vec<Plan> {
        let n = self.convs.len();
        if let Some(inner) = self.pools_by_gaps() {
            let plan = |last: bool, adaptive: bool| {
                let pools = inner.iter().copied().chain([last]).collect();
                Plan { pools, same: true, adaptive, mean_to: None }
            };
            return vec![plan(false, false), plan(true, true)];
        }
        let mut out = Vec::new();
        for same in [true, false] {
            for bits in 0..1usize << n.min(MOST_SEARCHED) {
                let pools = (0..n).map(|i| i < MOST_SEARCHED && bits >> i & 1 == 1).collect();
                out.push(Plan { pools, same, adaptive: false, mean_to: None });
            }
        }
        out
    }

    /// Whether a pooling stands after each convolution but the last, from the numbers of one `nn.Sequential`.
    fn pools_by_gaps(&self) -> Option<Vec<bool>> {
        let last_of = |l: &Layer| l.norm.as_ref().unwrap_or(&l.module).index();
        let stem = self.convs[0].module.stem();
        self.convs[0].module.index()?;
        let pairs = self.convs.windows(2).map(|pair| {
            let gap = pair[1].module.index()?.checked_sub(last_of(&pair[0])?)?;
            match (gap, pair[1].module.stem() == stem) {
                (2, true) => Some(false),
                (3, true) => Some(true),
                _ => None,
            }
        });
        pairs.collect()
    }

    fn features(&self, input: Dims, plan: &Plan) -> Result<Net> {
        let mut net = Net::new(input);
        let mut at = Net::INPUT;
        for (i, layer) in self.convs.iter().enumerate() {
            let m = &layer.module;
            let size = m.weight[2];
            let pad = if plan.same { size / 2 } else { 0 };
            at = net.conv(at, &m.prefix, m.n_out(), size, [1, pad], m.bias)?;
            at = finish(&mut net, at, layer);
            if plan.pools[i] {
                at = net.max_pool(at, 2, 2, 0)?;
            }
        }
        if let Some(side) = plan.mean_to {
            net.avg_pool(at, [side, side]);
        }
        Ok(net)
    }

    fn assemble(&self, input: Dims, plan: &Plan) -> Result<Net> {
        let mut net = self.features(input, plan)?;
        let mut at = net.output();
        let last = self.linears.len() - 1;
        for (i, layer) in self.linears.iter().enumerate() {
            let m = &layer.module;
            at = net.linear(at, &m.prefix, m.n_out(), m.bias);
            if i < last {
                at = finish(&mut net, at, layer);
            }
        }
        Ok(net)
    }
}

fn finish(net: &mut Net, mut at: NodeId, layer: &Layer) -> NodeId {
    if let Some(norm) = &layer.norm {
        at = net.norm(at, &norm.prefix, norm.affine());
    }
    net.act(at, Activation::Relu)
}

/// The layer that a BatchNorm follows: the one before it in a numbered sequence, or the one of the same number.
fn owner(norm: &Module, layers: &[Layer]) -> Option<usize> {
    let fits = |i: &usize| layers[*i].module.n_out() == norm.n_out();
    if norm.index().is_some() {
        let in_sequence = |i: &usize| {
            let m = &layers[*i].module;
            m.stem() == norm.stem() && m.index() < norm.index()
        };
        if let Some(at) = (0..layers.len()).filter(in_sequence).max_by_key(|i| layers[*i].module.index()) {
            return Some(at).filter(fits);
        }
    }
    // `conv1` and `fc1` beside `bn1`: BatchNorm belongs to convolutions first, which come first.
    (0..layers.len()).find(|i| layers[*i].module.digits() == norm.digits() && fits(i))
}

/// The only order in which each layer takes what the one before gives, layers of one stem staying in the order of their numbers.
fn chain(modules: Vec<&Module>) -> Result<Vec<&Module>> {
    let mut found: Vec<Vec<usize>> = Vec::new();
    search(&modules, &mut Vec::new(), &mut found);
    match found.as_slice() {
        [order] => Ok(order.iter().map(|i| modules[*i]).collect()),
        [] => {
            let broken = modules.windows(2).find(|w| w[1].n_in() != w[0].n_out());
            let name = broken.map_or_else(String::new, |w| w[1].prefix.clone());
            Err(NetError::architecture(format!("{name}.weight takes what no layer before it gives")))
        }
        _ => {
            let names: Vec<&str> = modules.iter().map(|m| m.prefix.as_str()).collect();
            Err(NetError::architecture(format!("several orders of {} are possible", names.join(", "))))
        }
    }
}

/// Depth-first over orders; stops at the second one found.
fn search(modules: &[&Module], path: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
    if path.len() == modules.len() {
        found.push(path.clone());
        return;
    }
    for next in 0..modules.len() {
        let earlier_of_stem = (0..next).any(|i| !path.contains(&i) && modules[i].stem() == modules[next].stem());
        let follows = path.last().is_none_or(|p| modules[*p].n_out() == modules[next].n_in());
        if found.len() < 2 && !path.contains(&next) && !earlier_of_stem && follows {
            path.push(next);
            search(modules, path, found);
            path.pop();
        }
    }
}

impl std::fmt::Display for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let widths = |layers: &[Layer]| -> String {
            layers.iter().map(|l| l.module.n_out().to_string()).collect::<Vec<_>>().join("-")
        };
        match self.convs.is_empty() {
            true => write!(f, "mlp {}-{}", self.linears[0].module.n_in(), widths(&self.linears)),
            false => write!(f, "conv net {}, dense {}", widths(&self.convs), widths(&self.linears)),
        }
    }
}
