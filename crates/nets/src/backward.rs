//! Gradients: reverse accumulation through the nodes.

use subspan_linalg::Real;

use crate::forward::{Mode, Trace};
use crate::graph::{Net, Node, NodeId, Op};
use crate::layers::{act, conv, linear, norm, pool};
use crate::tensor::{Params, Tensor};

impl Net {
    /// The gradient of `Σ ⟨seed, value of its node⟩` with respect to every parameter that takes part, by name.
    ///
    /// This is the whole interface to losses: a loss `L` of the values `Z` of some nodes (two heads, say) has the same
    /// gradient as `Σ ⟨G, Z⟩` with `G = dL/dZ` held fixed, so its owner hands in `G` per node. `trace` must come from
    /// [`Net::trace`] with [`Keep::All`](crate::Keep::All), the same parameters and, for BatchNorm, the mode that is meant.
    /// Running statistics are no parameters in this sense.
    ///
    /// # Panics
    /// If a seed does not have the size of its node.
    pub fn backward<T: Real>(&self, params: &Params<T>, trace: &Trace<T>, seeds: Vec<(NodeId, Vec<T>)>) -> Params<T> {
        let mut at: Vec<Option<Vec<T>>> = vec![None; self.nodes().len()];
        for (id, seed) in seeds {
            assert_eq!(seed.len(), trace.n * self.len_at(id), "a seed has the size of its node");
            accumulate(&mut at[id], seed);
        }
        let mut out = Params::new();
        for id in (1..self.nodes().len()).rev() {
            if let Some(dy) = at[id].take() {
                self.step_back(id, params, trace, dy, &mut at, &mut out);
            }
        }
        out
    }

    fn step_back<T: Real>(
        &self,
        id: NodeId,
        params: &Params<T>,
        trace: &Trace<T>,
        mut dy: Vec<T>,
        at: &mut [Option<Vec<T>>],
        out: &mut Params<T>,
    ) {
        let Node { op, inputs, dims } = self.node(id);
        let from = self.node(inputs[0]).dims;
        let x = trace.values(inputs[0]);
        let needs_input = inputs[0] != Self::INPUT;
        let get = |name: &String| params[name].values.as_slice();
        let mut layer = |weight: &String, bias: Option<&String>, dw: Vec<T>, db: Vec<T>| {
            store(out, weight, params[weight].shape.clone(), dw);
            if let Some(bias) = bias {
                store(out, bias, vec![dims[0]], db);
            }
        };
        let dx = match op {
            Op::Input => return,
            Op::Linear { weight, bias } => {
                let w = needs_input.then(|| get(weight));
                let (dw, db, dx) = linear::backward(x, w, &dy, from.iter().product(), dims[0]);
                layer(weight, bias.as_ref(), dw, db);
                dx
            }
            Op::Conv { weight, bias, .. } => {
                let w = needs_input.then(|| get(weight));
                let (dw, db, dx) = conv::backward(x, w, &dy, &self.geometry(id, params));
                layer(weight, bias.as_ref(), dw, db);
                dx
            }
            Op::Norm { prefix, affine } => {
                let part = |p: &str| get(&format!("{prefix}.{p}"));
                let wide = |p: &str| -> Vec<f64> { part(p).iter().map(|v| v.to_f64()).collect() };
                let batch = trace.mode == Mode::Batch;
                let (mean, var) = match trace.norms.get(&id).filter(|_| batch) {
                    Some(m) => (m.mean.clone(), m.var.clone()),
                    None => (wide("running_mean"), wide("running_var")),
                };
                let weight = affine.then(|| part("weight"));
                let (dw, db) = norm::backward(x, &mut dy, from[1] * from[2], &mean, &var, weight, batch);
                if *affine {
                    store(out, &format!("{prefix}.weight"), vec![dims[0]], dw);
                    store(out, &format!("{prefix}.bias"), vec![dims[0]], db);
                }
                Some(dy)
            }
            Op::Act(function) => {
                act::backward(x, &mut dy, *function);
                Some(dy)
            }
            Op::MaxPool { size, stride, pad } => Some(pool::max_back(x, &dy, from, *dims, [*size, *stride, *pad])),
            Op::AvgPool { .. } => Some(pool::mean_back(&dy, from, *dims)),
            Op::Add => {
                accumulate(&mut at[inputs[1]], dy.clone());
                Some(dy)
            }
            Op::Shortcut { stride, before, .. } => Some(pool::shortcut_back(&dy, from, *dims, *stride, *before)),
        };
        if let Some(dx) = dx {
            accumulate(&mut at[inputs[0]], dx);
        }
    }
}

fn accumulate<T: Real>(into: &mut Option<Vec<T>>, add: Vec<T>) {
    match into {
        Some(sum) => sum.iter_mut().zip(&add).for_each(|(s, v)| *s += *v),
        None => *into = Some(add),
    }
}

/// Adds to the gradient of a parameter, which several nodes may share.
fn store<T: Real>(out: &mut Params<T>, name: &str, shape: Vec<usize>, values: Vec<T>) {
    match out.get_mut(name) {
        Some(sum) => sum.values.iter_mut().zip(&values).for_each(|(s, v)| *s += *v),
        None => {
            out.insert(name.to_string(), Tensor { shape, values });
        }
    }
}
