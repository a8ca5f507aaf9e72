//! What a user may choose.

use std::str::FromStr;

use crate::error::{Error, Result};

/// How many clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clusters {
    /// Chosen on the data, see [`super::Count`].
    Auto,
    /// As many.
    Fixed(usize),
}

/// How the membership of rows is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Doubly stochastic projection of the rows' affinities: nothing is trained.
    Projection,
    /// A head trained by manifold linearizing and clustering, beside the projection: the better one is kept.
    Mlc,
}

/// Every method by its name.
const METHODS: [(Method, &str); 2] = [(Method::Projection, "projection"), (Method::Mlc, "mlc")];

impl Method {
    /// The names, as typed.
    pub fn names() -> [&'static str; METHODS.len()] {
        METHODS.map(|(_, name)| name)
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(METHODS.iter().find(|(m, _)| m == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = METHODS.iter().find(|(_, n)| *n == name);
        found.map(|(m, _)| *m).ok_or_else(|| Error::parameter("method", name, Self::names().join(" or ")))
    }
}

/// What counts as near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AffinityKind {
    /// Cosine of two rows; opposite directions are strangers.
    Cosine,
    /// Its absolute value: clusters are lines, planes and so on through the mean.
    Absolute,
    /// Coefficients of the least-squares representation of each row by all others: for subspaces that overlap.
    LeastSquares,
    /// Coefficients of the representation of each row by few others (orthogonal matching pursuit): for subspaces that overlap so much
    /// that together they fill the space.
    Pursuit,
}

/// Every affinity by its name.
const AFFINITIES: [(AffinityKind, &str); 4] = [
    (AffinityKind::Cosine, "cosine"),
    (AffinityKind::Absolute, "abs"),
    (AffinityKind::LeastSquares, "lsr"),
    (AffinityKind::Pursuit, "omp"),
];

impl AffinityKind {
    /// The names, as typed.
    pub fn names() -> [&'static str; AFFINITIES.len()] {
        AFFINITIES.map(|(_, name)| name)
    }
}

impl std::fmt::Display for AffinityKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(AFFINITIES.iter().find(|(a, _)| a == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for AffinityKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = AFFINITIES.iter().find(|(_, n)| *n == name);
        found.map(|(a, _)| *a).ok_or_else(|| Error::parameter("affinity", name, Self::names().join(", ")))
    }
}

/// What is done with rows that equal the mean: centred, they have no direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroRows {
    /// They are an error.
    Refuse,
    /// They are left out, counted, and labelled like new rows.
    Drop,
}

/// Configuration of a clustering.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Number of clusters.
    pub clusters: Clusters,
    /// How membership is found.
    pub method: Method,
    /// What counts as near; `None` tries cosine and, for few rows, least squares.
    pub affinity: Option<AffinityKind>,
    /// Neighbours per row of the graph; `None` tries 7, 15 and 64, and 4 where clusters are small.
    pub neighbours: Option<usize>,
    /// Largest number of clusters that `Auto` considers.
    pub max_clusters: Option<usize>,
    /// Starts of k-means.
    pub starts: usize,
    /// Most training rows that a model keeps to vote, up to one of each cluster more; `None` keeps up to 16,384.
    pub anchors: Option<usize>,
    /// Rows without direction.
    pub zero_rows: ZeroRows,
    /// Whether clusters, whose number is given, are known to be of very different sizes: peaks of density then win wherever more speaks for them.
    /// Otherwise, of up to 32 clusters of many rows, they win where the evidence is clear.
    pub unequal: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clusters: Clusters::Auto,
            method: Method::Projection,
            affinity: None,
            neighbours: None,
            max_clusters: None,
            starts: 10,
            anchors: None,
            zero_rows: ZeroRows::Refuse,
            unequal: false,
        }
    }
}

/// Most neighbours of a row: of more the graph is no longer sparse.
const MAX_NEIGHBOURS: usize = 4096;
/// Fewest rows that can be clustered at all.
const MIN_ROWS: usize = 3;
/// Fewest rows whose number of clusters can be chosen.
const MIN_AUTO_ROWS: usize = 10;

impl Config {
    /// Checks what can be checked without data.
    ///
    /// # Errors
    /// [`Error::Parameter`].
    pub fn check(&self) -> Result<()> {
        let at_least_one = |name, value: Option<usize>| match value {
            Some(0) => Err(Error::parameter(name, 0, "at least 1")),
            _ => Ok(()),
        };
        if self.clusters == Clusters::Fixed(0) {
            return Err(Error::parameter("clusters", 0, "at least 1, or auto"));
        }
        if self.unequal && self.clusters == Clusters::Auto {
            return Err(Error::parameter("clusters", "auto", "a number where clusters are unequal"));
        }
        if let Some(affinity) = self.affinity.filter(|a| self.unequal && *a == AffinityKind::Pursuit) {
            return Err(Error::parameter("affinity", affinity, "another one where clusters are unequal"));
        }
        if let (Clusters::Fixed(_), Some(m)) = (self.clusters, self.max_clusters) {
            return Err(Error::parameter("max-clusters", m, "left out where the number of clusters is given"));
        }
        at_least_one("neighbours", self.neighbours)?;
        if let Some(k) = self.neighbours.filter(|k| *k > MAX_NEIGHBOURS) {
            return Err(Error::parameter("neighbours", k, format!("at most {MAX_NEIGHBOURS}")));
        }
        at_least_one("anchors", self.anchors)?;
        if let Some(m) = self.max_clusters.filter(|m| *m < 2) {
            return Err(Error::parameter("max-clusters", m, "at least 2"));
        }
        at_least_one("starts", Some(self.starts))
    }

    /// Checks the configuration against the number of rows.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::TooFewRows`].
    pub fn check_rows(&self, n_rows: usize) -> Result<()> {
        self.check()?;
        if n_rows < MIN_ROWS {
            return Err(Error::TooFewRows { found: n_rows, needed: MIN_ROWS, hint: None });
        }
        match self.clusters {
            Clusters::Auto if n_rows < MIN_AUTO_ROWS => Err(Error::TooFewRows {
                found: n_rows,
                needed: MIN_AUTO_ROWS,
                hint: Some("give the number with --clusters K"),
            }),
            Clusters::Fixed(k) if k > n_rows => {
                Err(Error::parameter("clusters", k, format!("at most the number of rows, {n_rows}")))
            }
            _ => Ok(()),
        }
    }
}
