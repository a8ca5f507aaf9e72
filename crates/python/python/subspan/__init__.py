"""Subspan finds, samples, learns and aligns linear structure.

- :func:`leverage_scores`, :func:`lewis_weights`, :func:`sensitivities`: how much each row of a table matters
- :func:`sample`, :class:`RowSampler`: few weighted rows that stand for all rows of a file or an array
- :func:`regress`, :class:`LpRegressor`: robust regression of a file or an array, on a sample, on all rows, or with a proof of optimality
- :class:`ManifoldClustering`: clusters that are subspaces, and how many there are; :func:`scattering`: features of images for it
- :class:`GrassmannClassifier`: every class a subspace, with calibrated probabilities
- :func:`match`, :func:`merge`, :func:`analyze`: checkpoints of one architecture
- ``subspan.torch``, ``subspan.dask``, ``subspan.ray``: the same in PyTorch and on clusters; imported when asked for

NumPy is all it needs; with scikit-learn installed the estimators are scikit-learn's.
"""

import importlib

from ._merge import Analysis, Match, Merged, analyze, match, merge
from ._native import __version__
from ._regress import regress
from ._sample import Certificate, Sample, sample
from ._scattering import scattering
from ._scores import leverage_scores, lewis_weights, sensitivities

_ESTIMATORS = {
    "GrassmannClassifier": "_estimators",
    "LpRegressor": "_estimators",
    "ManifoldClustering": "_clustering",
    "RowSampler": "_estimators",
}
_MODULES = ("dask", "ray", "torch")

__all__ = [
    "Analysis",
    "Certificate",
    "GrassmannClassifier",
    "LpRegressor",
    "ManifoldClustering",
    "Match",
    "Merged",
    "RowSampler",
    "Sample",
    "__version__",
    "analyze",
    "leverage_scores",
    "lewis_weights",
    "match",
    "merge",
    "regress",
    "sample",
    "scattering",
    "sensitivities",
]


def __getattr__(name):
    """Estimators and adapters when first asked for: their libraries take long to import."""
    if name in _ESTIMATORS:
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_ESTIMATORS[name]}"), name)
        return value
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, *_MODULES])
