//! The networks behind Subspan's checkpoints: run, differentiate, repair and train them.
//!
//! A [`Net`] is a list of operations (dense and convolutional layers, BatchNorm, pooling, shortcuts); its parameters are named
//! tensors ([`Params`]), the tensors of a checkpoint. [`Architecture`] finds the network from names and shapes.
//! Everything runs on the caller's rayon pool with bits that do not depend on its size, in `f32` or `f64`.
//!
//! | what | where |
//! |---|---|
//! | a network from a checkpoint | [`Architecture::infer`], [`Architecture::from_list`] |
//! | samples as it wants them | [`Samples`], [`Normalize`] |
//! | loss and accuracy, gradient | [`evaluate`], [`loss_and_gradient`] |
//! | statistics of activations | [`pair_moments`] |
//! | BatchNorm reset, REPAIR | [`reset_norms`], [`repair`] |
//! | two models matched, merged and explained | [`analyze`] |
//! | training of clustering heads | [`ManifoldLearner`] |
//! | features of images, trained without labels | [`train_backbone`], [`Augmentation`] |
//! | training of classifiers | [`mlp`], [`initialize`], [`train`] |
//!
//! # Losses of one's own
//! A loss that lives elsewhere needs no operation here. With the values `Z` of some nodes and the gradient `G = dL/dZ`, the
//! gradient of `Σ ⟨G, Z⟩` (`G` held fixed) with respect to the parameters is that of the loss. A trunk with two heads:
//!
//! ```
//! use subspan_nets::{Activation, Keep, Mode, Net, Optimizer, Rule, initialize};
//! let mut net = Net::new([8, 1, 1]);
//! let trunk = net.linear(Net::INPUT, "trunk.0", 16, true);
//! let trunk = net.norm(trunk, "trunk.1", true);
//! let trunk = net.act(trunk, Activation::Relu);
//! let features = net.linear(trunk, "features", 4, true);
//! let clusters = net.linear(trunk, "clusters", 4, true);
//! let mut params = initialize(&net, |_| 0, 0);
//! let mut adam = Optimizer::new(Rule::Adam, 1e-3, 0.0);
//!
//! let batch = vec![0.5f32; 6 * 8];
//! let trace = net.trace(&params, &batch, Mode::Batch, Keep::All);
//! let (z, q) = (trace.values(features), trace.values(clusters));
//! // The loss's owner computes dL/dz and dL/dq; here L = (|z|² + |q|²) / 2.
//! let gradient = net.backward(&params, &trace, vec![(features, z.to_vec()), (clusters, q.to_vec())]);
//! adam.step(&mut params, &gradient);
//! ```

pub mod analyze;
mod arch;
mod augment;
mod backward;
mod error;
mod evaluate;
mod forward;
mod graph;
mod input;
mod layers;
mod manifold;
mod moments;
mod optimize;
mod pixels;
mod repair;
mod tensor;
mod train;

pub use arch::Architecture;
pub use augment::{Augmentation, ViewKey};
pub use error::{NetError, Result};
pub use evaluate::{Labelled, Scores, evaluate, loss_and_gradient};
pub use forward::{Keep, Mode, Trace};
pub use graph::{Activation, Dims, NORM_EPS, Net, Node, NodeId, Op};
pub use input::{Normalize, Samples};
pub use manifold::{Manifold, ManifoldLearner};
pub use moments::{PairMoments, Site, Units, pair_moments};
pub use optimize::{Optimizer, Rule};
pub use pixels::{Pixels, Trunk, train_backbone};
pub use repair::{RESET_BATCH, repair, reset_norms};
pub use tensor::{Params, Tensor, cast, lerp};
pub use train::{Training, initialize, mlp, train};
