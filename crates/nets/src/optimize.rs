//! Steps down a gradient: Adam and SGD with momentum.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::tensor::Params;

/// Values per task.
const CHUNK: usize = 1 << 14;

/// How a gradient becomes a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Adam (Kingma and Ba, arXiv 1412.6980) with β 0.9 and 0.999, ε 1e-8.
    Adam,
    /// Momentum as PyTorch's: `v ← m v + g`, `θ ← θ − lr v`.
    Sgd {
        /// The share of the last step that is kept.
        momentum: f32,
    },
}

/// An optimizer with its state, one slot per parameter it has seen.
///
/// ```
/// use subspan_nets::{Optimizer, Params, Rule, Tensor};
/// let one = |v: f32| Params::from([("w".to_string(), Tensor::new(vec![1], vec![v]))]);
/// let mut w = one(1.0);
/// let mut sgd = Optimizer::new(Rule::Sgd { momentum: 0.0 }, 0.5, 0.0);
/// sgd.step(&mut w, &one(1.0));
/// assert_eq!(w, one(0.5));
/// ```
#[derive(Debug, Clone)]
pub struct Optimizer {
    rule: Rule,
    /// Learning rate; may be changed between steps.
    pub lr: f32,
    weight_decay: f32,
    steps: i32,
    state: BTreeMap<String, [Vec<f32>; 2]>,
}

impl Optimizer {
    /// An optimizer; `weight_decay` is added to the gradient as `weight_decay · θ`, for every parameter (PyTorch's convention).
    pub fn new(rule: Rule, lr: f32, weight_decay: f32) -> Self {
        Self { rule, lr, weight_decay, steps: 0, state: BTreeMap::new() }
    }

    /// One step for every parameter that has a gradient.
    ///
    /// # Panics
    /// If a gradient has no parameter or another size.
    pub fn step(&mut self, params: &mut Params<f32>, gradient: &Params<f32>) {
        self.steps += 1;
        for (name, g) in gradient {
            let theta = &mut params.get_mut(name).expect("a gradient belongs to a parameter").values;
            assert_eq!(theta.len(), g.values.len(), "size of the gradient of {name}");
            let n = theta.len();
            let [first, second] = self.state.entry(name.clone()).or_insert_with(|| [vec![0.0; n], vec![0.0; n]]);
            let (rule, lr, decay, steps) = (self.rule, self.lr, self.weight_decay, self.steps);
            theta
                .par_chunks_mut(CHUNK)
                .zip(g.values.par_chunks(CHUNK))
                .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
                .for_each(|((theta, g), (first, second))| match rule {
                    Rule::Adam => adam(theta, g, first, second, lr, decay, steps),
                    Rule::Sgd { momentum } => {
                        for ((t, g), v) in theta.iter_mut().zip(g).zip(first) {
                            *v = momentum * *v + (g + decay * *t);
                            *t -= lr * *v;
                        }
                    }
                });
        }
    }
}

fn adam(theta: &mut [f32], g: &[f32], first: &mut [f32], second: &mut [f32], lr: f32, decay: f32, steps: i32) {
    const BETA: [f32; 2] = [0.9, 0.999];
    const EPS: f32 = 1e-8;
    let unbias = BETA.map(|b| 1.0 - b.powi(steps));
    let (step, root) = (lr / unbias[0], unbias[1].sqrt());
    for (((t, g), m), v) in theta.iter_mut().zip(g).zip(first).zip(second) {
        let g = g + decay * *t;
        *m = BETA[0] * *m + (1.0 - BETA[0]) * g;
        *v = BETA[1] * *v + (1.0 - BETA[1]) * g * g;
        *t -= step * *m / (v.sqrt() / root + EPS);
    }
}
