//! How the hidden units of two networks go together on data: means, variances and products of their activations, streamed.

use subspan_linalg::{Mat, gemm};

use crate::error::Result;
use crate::evaluate::{Labelled, batch_size, check};
use crate::forward::{Keep, Mode};
use crate::graph::{Net, NodeId, Op};
use crate::tensor::Params;

/// Rows summed in single precision before they join the double-precision sums.
const ROWS: usize = 4096;

/// Where a set of units can be seen: on the inputs of the layers that read them.
#[derive(Debug, Clone, PartialEq)]
pub struct Units {
    /// Number of units.
    pub size: usize,
    /// The layers.
    pub sites: Vec<Site>,
}

/// The units' places on axis 1 of one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Name of the weight.
    pub weight: String,
    /// For unit `i`, its positions `places[i·k .. (i + 1)·k]`, the same number `k` for each.
    pub places: Vec<usize>,
}

/// Sums over samples and positions of the activations `a` and `b` of two networks' units.
#[derive(Debug, Clone, PartialEq)]
pub struct PairMoments {
    /// Samples times positions.
    pub count: u64,
    /// `Σ a`, `Σ b`.
    pub sums: [Vec<f64>; 2],
    /// `Σ a²`, `Σ b²`.
    pub squares: [Vec<f64>; 2],
    /// `Σ a bᵀ`, the first network's units as rows.
    pub cross: Mat,
}

impl PairMoments {
    fn new(size: usize) -> Self {
        let zeros = || [vec![0.0; size], vec![0.0; size]];
        Self { count: 0, sums: zeros(), squares: zeros(), cross: Mat::zeros(size, size) }
    }

    /// `Σ (a − ā)(b − b̄)ᵀ`.
    pub fn centred(&self) -> Mat {
        let n = self.count as f64;
        let [a, b] = &self.sums;
        Mat::from_fn(a.len(), b.len(), |i, j| self.cross[(i, j)] - a[i] * b[j] / n)
    }

    /// Correlations; a unit that does not vary has none, its row or column is zero.
    pub fn correlation(&self) -> Mat {
        let n = self.count as f64;
        // Below this share of the second moment a variance is rounding of the sums.
        const ROUNDING: f64 = 1e-10;
        let inverse = |k: usize, i: usize| {
            let variance = self.squares[k][i] - self.sums[k][i] * self.sums[k][i] / n;
            if variance > ROUNDING * self.squares[k][i] { 1.0 / variance.sqrt() } else { 0.0 }
        };
        let scale: Vec<Vec<f64>> = (0..2).map(|k| (0..self.sums[k].len()).map(|i| inverse(k, i)).collect()).collect();
        let centred = self.centred();
        Mat::from_fn(scale[0].len(), scale[1].len(), |i, j| centred[(i, j)] * scale[0][i] * scale[1][j])
    }

    fn add(&mut self, a: &[f32], b: &[f32]) {
        let size = self.sums[0].len();
        for (a, b) in a.chunks(ROWS * size).zip(b.chunks(ROWS * size)) {
            self.count += (a.len() / size) as u64;
            for (k, rows) in [a, b].into_iter().enumerate() {
                for row in rows.chunks_exact(size) {
                    for (i, v) in row.iter().enumerate() {
                        let v = f64::from(*v);
                        self.sums[k][i] += v;
                        self.squares[k][i] += v * v;
                    }
                }
            }
            let mut product = vec![0f32; size * size];
            gemm::transposed_mul(a, size, b, size, &mut product);
            self.cross.as_mut_slice().iter_mut().zip(&product).for_each(|(s, v)| *s += f64::from(*v));
        }
    }
}

/// The joint moments of two networks of one architecture for each set of units. A unit that several layers read at one place is
/// counted once.
///
/// # Errors
/// Parameters or samples that do not fit; a weight that is no layer of the network.
pub fn pair_moments(
    net: &Net,
    params: [&Params<f32>; 2],
    data: &Labelled<'_, f32>,
    units: &[Units],
) -> Result<Vec<PairMoments>> {
    params.iter().try_for_each(|p| check(net, p, data))?;
    let views: Vec<Vec<View<'_>>> = units.iter().map(|u| views(net, u)).collect::<Result<_>>()?;
    let mut nodes: Vec<NodeId> = views.iter().flatten().map(|v| v.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut out: Vec<PairMoments> = units.iter().map(|u| PairMoments::new(u.size)).collect();
    let per_sample = net.len_at(Net::INPUT);
    for x in data.x.chunks(batch_size(net) * per_sample) {
        let [a, b] = params.map(|p| net.trace(p, x, Mode::Eval, Keep::Nodes(&nodes)));
        for (moments, views) in out.iter_mut().zip(&views) {
            for view in views {
                let size = moments.sums[0].len();
                let rows = |values: &[f32]| view.rows(values, net.len_at(view.node), size);
                moments.add(&rows(a.values(view.node)), &rows(b.values(view.node)));
            }
        }
    }
    Ok(out)
}

/// A node on which units are seen: position `p` of the axis covers `area` adjacent values.
struct View<'a> {
    node: NodeId,
    places: &'a [usize],
    area: usize,
}

fn views<'a>(net: &Net, units: &'a Units) -> Result<Vec<View<'a>>> {
    let mut out: Vec<View<'a>> = Vec::new();
    for site in &units.sites {
        let missing = || crate::NetError::Missing { tensor: site.weight.clone() };
        let layer = net.layer_of(&site.weight).ok_or_else(missing)?;
        let node = net.node(layer).inputs[0];
        let dims = net.node(node).dims;
        let area = if matches!(net.node(layer).op, Op::Conv { .. }) { dims[1] * dims[2] } else { 1 };
        if !out.iter().any(|v| v.node == node && v.places == site.places && v.area == area) {
            out.push(View { node, places: &site.places, area });
        }
    }
    Ok(out)
}

impl View<'_> {
    /// One row per sample and position of a unit, one column per unit.
    fn rows(&self, values: &[f32], per_sample: usize, size: usize) -> Vec<f32> {
        let slots = self.places.len() / size;
        let mut out = Vec::with_capacity(values.len() / per_sample * self.area * self.places.len());
        for sample in values.chunks_exact(per_sample) {
            for slot in 0..slots {
                for at in 0..self.area {
                    out.extend((0..size).map(|i| sample[self.places[i * slots + slot] * self.area + at]));
                }
            }
        }
        out
    }
}
