//! Loss, accuracy and gradient of a classifier on labelled samples.

use rayon::prelude::*;
use subspan_linalg::Real;

use crate::error::{NetError, Result};
use crate::forward::{Keep, Mode};
use crate::graph::Net;
use crate::tensor::{Params, Tensor};

/// Most values of one node that a batch may hold: a few MiB per node in use.
const BATCH_VALUES: usize = 1 << 20;
/// Most samples per batch; fixed limits, so that batches do not depend on the machine.
const MAX_BATCH: usize = 256;

/// Samples with their classes, in memory.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a, T> {
    /// One sample per row, normalised.
    pub x: &'a [T],
    /// Its class, an output of the network.
    pub y: &'a [u32],
}

impl<'a, T> Labelled<'a, T> {
    /// Values per sample.
    fn per_sample(&self) -> usize {
        self.x.len() / self.y.len().max(1)
    }

    /// The first `n` samples (all, if there are fewer).
    pub fn first(&self, n: usize) -> Self {
        let n = n.min(self.y.len());
        Self { x: &self.x[..n * self.per_sample()], y: &self.y[..n] }
    }

    fn batches(&self, size: usize) -> Vec<Self> {
        let rows = self.x.chunks(size * self.per_sample().max(1));
        rows.zip(self.y.chunks(size)).map(|(x, y)| Self { x, y }).collect()
    }
}

/// How a classifier does on labelled samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Mean cross-entropy, nats per sample.
    pub loss: f64,
    /// Share of samples whose largest output is their class (the first of several largest).
    pub accuracy: f64,
}

/// Samples per batch for this network.
pub(crate) fn batch_size(net: &Net) -> usize {
    let largest = (0..net.nodes().len()).map(|id| net.len_at(id)).max().unwrap_or(1);
    (BATCH_VALUES / largest).clamp(1, MAX_BATCH)
}

/// Checks parameters, samples and labels against the network.
pub(crate) fn check<T: Real>(net: &Net, params: &Params<T>, data: &Labelled<'_, T>) -> Result<()> {
    net.check(params)?;
    let per_sample = net.len_at(Net::INPUT);
    if data.y.is_empty() || data.x.len() != data.y.len() * per_sample {
        return Err(NetError::Input { found: vec![data.per_sample()], expected: format!("{per_sample} values") });
    }
    let classes = net.len_at(net.output());
    match data.y.iter().position(|y| *y as usize >= classes) {
        Some(row) => Err(NetError::Label { label: data.y[row].to_string(), row, classes }),
        None => Ok(()),
    }
}

/// Loss and accuracy of the network; batches in parallel, their sums in order.
///
/// # Errors
/// Parameters, samples or labels that do not fit the network. A loss that is not finite is handed back as it is.
///
/// ```
/// use subspan_nets::{Labelled, Net, Params, Tensor, evaluate};
/// let mut net = Net::new([2, 1, 1]);
/// net.linear(Net::INPUT, "fc", 2, false);
/// let params = Params::from([("fc.weight".to_string(), Tensor::new(vec![2, 2], vec![1.0, 0.0, 0.0, 1.0]))]);
/// let scores = evaluate(&net, &params, &Labelled { x: &[0.0, 0.0, 0.0, 9.0], y: &[0, 1] })?;
/// assert!(scores.accuracy == 1.0 && (scores.loss - (2f64.ln() + (-9f64).exp().ln_1p()) / 2.0).abs() < 1e-12);
/// # Ok::<(), subspan_nets::NetError>(())
/// ```
pub fn evaluate<T: Real>(net: &Net, params: &Params<T>, data: &Labelled<'_, T>) -> Result<Scores> {
    check(net, params, data)?;
    let classes = net.len_at(net.output());
    let parts: Vec<(f64, usize)> = data
        .batches(batch_size(net))
        .par_iter()
        .map(|batch| {
            let logits = net.forward(params, batch.x);
            let rows = logits.chunks_exact(classes).zip(batch.y);
            rows.fold((0.0, 0), |(loss, right), (row, y)| {
                (loss + cross_entropy(row, *y as usize).0, right + usize::from(argmax(row) == *y as usize))
            })
        })
        .collect();
    let (loss, right) = parts.iter().fold((0.0, 0), |(l, r), (loss, right)| (l + loss, r + right));
    let n = data.y.len() as f64;
    Ok(Scores { loss: loss / n, accuracy: right as f64 / n })
}

/// Mean cross-entropy of all samples and its gradient with respect to the parameters (BatchNorm as in evaluation).
///
/// # Errors
/// As [`evaluate`].
pub fn loss_and_gradient<T: Real>(net: &Net, params: &Params<T>, data: &Labelled<'_, T>) -> Result<(f64, Params<T>)> {
    check(net, params, data)?;
    let n = data.y.len();
    let parts: Vec<(f64, Params<T>)> = data
        .batches(batch_size(net))
        .par_iter()
        .map(|batch| batch_gradient(net, params, batch, n, Mode::Eval))
        .collect();
    let mut parts = parts.into_iter();
    let (mut loss, mut sum) = parts.next().unwrap_or_default();
    for (l, gradient) in parts {
        loss += l;
        for (name, tensor) in gradient {
            let into: &mut Tensor<T> = sum.get_mut(&name).expect("every batch has the same parameters");
            into.values.iter_mut().zip(&tensor.values).for_each(|(s, v)| *s += *v);
        }
    }
    Ok((loss / n as f64, sum))
}

/// Sum of the losses of a batch, and the gradient of that sum divided by `n`.
pub(crate) fn batch_gradient<T: Real>(
    net: &Net,
    params: &Params<T>,
    batch: &Labelled<'_, T>,
    n: usize,
    mode: Mode,
) -> (f64, Params<T>) {
    let trace = net.trace(params, batch.x, mode, Keep::All);
    let (loss, seed) = seed(trace.values(net.output()), batch.y, net.len_at(net.output()), n);
    (loss, net.backward(params, &trace, vec![(net.output(), seed)]))
}

/// Sum of cross-entropies, and its derivative by the logits divided by `n`.
fn seed<T: Real>(logits: &[T], y: &[u32], classes: usize, n: usize) -> (f64, Vec<T>) {
    let mut loss = 0.0;
    let mut out = Vec::with_capacity(logits.len());
    for (row, y) in logits.chunks_exact(classes).zip(y) {
        let (value, log_sum) = cross_entropy(row, *y as usize);
        loss += value;
        out.extend(row.iter().enumerate().map(|(c, v)| {
            let p = (v.to_f64() - log_sum).exp();
            T::from_f64((p - f64::from(u8::from(c == *y as usize))) / n as f64)
        }));
    }
    (loss, out)
}

/// `−ln softmax(row)[y]` and `ln Σ exp(row)`.
fn cross_entropy<T: Real>(row: &[T], y: usize) -> (f64, f64) {
    let largest = row.iter().map(|v| v.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    let log_sum = largest + row.iter().map(|v| (v.to_f64() - largest).exp()).sum::<f64>().ln();
    (log_sum - row[y].to_f64(), log_sum)
}

/// Index of the first largest value.
fn argmax<T: Real>(row: &[T]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}
