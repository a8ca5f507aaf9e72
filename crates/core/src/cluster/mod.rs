//! Clusters as subspaces: labels, how sure they are, how many there are, and a model that labels new rows.
//!
//! The method is doubly stochastic projection of the rows' affinities (Ding, Tong, Chan, Dai, Ma, Haeffele, "Unsupervised
//! manifold linearizing and clustering", ICCV 2023; Lim, Vidal, Haeffele, "Doubly stochastic subspace clustering", 2020) on a graph of
//! exact nearest neighbours with a temperature per row. Its leading eigenvectors, or the rows averaged over their neighbours, are
//! clustered by k-means. Which preparation of the rows, which graph and which of the two is chosen without labels: by the
//! mutual information across the edges of the graph of nearest rows. For sizes that differ, peaks of density (`modes`) compete with
//! k-means, and `unequal` judges them.
//!
//! `run` tells the story of a run, `choice` what is tried and what wins, `trained` how a trained head is judged against it, `outcome`
//! what is handed back. Rows may have weights: a row then counts like so many rows in means, directions, membership, k-means, coding
//! lengths and votes.

mod backbone;
mod candidates;
mod choice;
mod coding;
mod config;
mod count;
mod describe;
mod eigen;
mod gaussians;
mod graph;
mod join;
mod kmeans;
pub mod learn;
mod model;
mod modes;
mod neighbours;
mod outcome;
mod prepare;
mod pursuit;
pub mod rate;
mod represent;
mod run;
mod scatter;
mod score;
mod trained;
mod unequal;

pub use backbone::{Backbone, Convolution};
pub use candidates::Recipe;
pub use config::{AffinityKind, Clusters, Config, Method, ZeroRows};
pub use count::{Count, Tried};
pub use describe::Cluster;
pub use graph::Membership;
pub use learn::{Head, Layer, Learner, Problem};
pub use model::{Front, Model, Predictions};
pub use neighbours::{Affinity, Neighbours, Search};
pub use outcome::{Candidate, Learned, Outcome, Shape, Summary};
pub use prepare::{Features, Preparation, Transform};
pub use run::{run, run_learned};
pub use scatter::Scattering;
pub use score::{Agreement, agreement};
