"""Clusters that are subspaces, as a scikit-learn estimator where scikit-learn is installed."""

import json
import os

from . import _check, _native
from ._base import BaseEstimator, ClusterMixin, TransformerMixin, need, read, warn


class ManifoldClustering(ClusterMixin, TransformerMixin, BaseEstimator):
    """Clusters rows by the subspaces they lie near, and finds out how many clusters there are.

    For embeddings and other features whose directions mean something; raw coordinates in one or two dimensions have no subspaces.

    Parameters
    ----------
    n_clusters : int, optional
        Chosen on the data if ``None``.
    method : str
        ``projection``, or ``mlc``: a head trained by manifold linearizing and clustering besides, kept if its clusters describe the rows
        better, and a representation in which the clusters kept are subspaces. What it came to is ``summary_["learned"]``.
    affinity : str, optional
        What counts as near: ``cosine``, ``abs``, ``lsr`` or ``omp``; cosine and, up to 20,000 rows, ``lsr`` are tried and chosen between
        without labels if ``None``.
    n_neighbors : int, optional
        Of the graph; tried and chosen if ``None``.
    max_clusters : int, optional
        The most that are considered; only where the number is not given.
    n_anchors : int, optional
        Training rows that the model keeps to label new rows.
    unequal : bool
        Whether clusters are known to differ in size by ten times and more: peaks of density then win wherever more speaks for them,
        otherwise only where the evidence is clear; needs ``n_clusters``.
    random_state, n_threads, progress
        As of :class:`subspan.RowSampler`.

    Attributes
    ----------
    labels_ : array of int64
        Clusters are numbered by decreasing size.
    n_clusters_ : int
    confidence_ : array of float32
        Share of the votes for each row's label.
    subspaces_ : list of arrays of shape (p, dimension)
        An orthonormal basis of every cluster, in the space of :meth:`transform`.
    representation_ : array of shape (n_rows, p), float32
        The unit rows in which clusters are subspaces.
    medoids_ : list of int
        The typical row of every cluster, ``None`` for one without rows.
    summary_ : dict
        Figures of the run.
    """

    def __init__(
        self,
        n_clusters=None,
        *,
        method="projection",
        affinity=None,
        n_neighbors=None,
        max_clusters=None,
        n_anchors=None,
        unequal=False,
        random_state=0,
        n_threads=None,
        progress=None,
    ):
        self.n_clusters = n_clusters
        self.method = method
        self.affinity = affinity
        self.n_neighbors = n_neighbors
        self.max_clusters = max_clusters
        self.n_anchors = n_anchors
        self.unequal = unequal
        self.random_state = random_state
        self.n_threads = n_threads
        self.progress = progress

    def fit(self, X, y=None):
        """Clusters the rows. ``y`` is ignored."""
        X = read(self, X, reset=True)
        if X.shape[0] == 1:
            raise ValueError("n_samples = 1: one row is no cluster")
        if X.shape[1] == 1:
            raise ValueError("n_features = 1: rows of one feature have no directions to cluster by")
        fields = {
            "n_clusters": _check.count(self.n_clusters, "n_clusters"),
            "method": str(self.method),
            "affinity": None if self.affinity is None else str(self.affinity),
            "neighbours": _check.count(self.n_neighbors, "n_neighbors"),
            "max_clusters": _check.count(self.max_clusters, "max_clusters"),
            "anchors": _check.count(self.n_anchors, "n_anchors"),
            "unequal": bool(self.unequal),
        }
        threads = _check.count(self.n_threads, "n_threads")
        self.model_, found = _native.find_clusters(
            X, fields, _check.seed(self.random_state), _check.callback(self.progress), threads
        )
        self.labels_ = found["labels"]
        self.confidence_ = found["confidence"]
        self.representation_ = found["representation"]
        self.subspaces_ = found["subspaces"]
        self.medoids_ = found["medoids"]
        self.n_clusters_ = len(found["sizes"])
        self.summary_ = json.loads(found["summary"])
        warn(self.summary_["warnings"])
        return self

    def predict(self, X):
        """The cluster of every row."""
        return self._predict(X)[0]

    def ood_score(self, X):
        """Strangeness of every row: 0 where training rows are, 1 orthogonal to all of them and for rows without direction."""
        return self._predict(X)[2]

    def transform(self, X):
        """The unit rows in which clusters are subspaces."""
        need(self, "model_")
        return self.model_.transform(read(self, X, reset=False), _check.count(self.n_threads, "n_threads"))

    def fit_predict(self, X, y=None):
        """Labels of the rows."""
        return self.fit(X).labels_

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of :meth:`transform`."""
        import numpy as np

        need(self, "representation_")
        return np.array([f"manifoldclustering{j}" for j in range(self.representation_.shape[1])], dtype=object)

    def _predict(self, X):
        need(self, "model_")
        return self.model_.predict(read(self, X, reset=False), _check.count(self.n_threads, "n_threads"))

    def save(self, path):
        """Writes the model as ``subspan cluster`` does; ``subspan predict`` reads it."""
        need(self, "model_")
        self.model_.save(os.fspath(path))

    @classmethod
    def load(cls, path):
        """A clustering from a file of :meth:`save` or of ``subspan cluster``; it labels and transforms new rows."""
        self = cls()
        self.model_ = _native.Clustering.load(os.fspath(path))
        self.n_features_in_ = self.model_.n_features
        return self

    def __sklearn_is_fitted__(self):
        return hasattr(self, "model_")
