"""What estimators share. With scikit-learn installed they are scikit-learn's estimators, without it they work alike.

scikit-learn takes most of a second to import, so `import subspan` does not: the estimator classes are made when first asked for
(see `__getattr__` of the package), and then on scikit-learn's base classes if those can be imported.
"""

import inspect
import warnings

import numpy as np

from . import _check

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, ClusterMixin, RegressorMixin, TransformerMixin
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.validation import validate_data

    HAVE_SKLEARN = True
except ImportError:
    HAVE_SKLEARN = False

    class NotFittedError(ValueError, AttributeError):
        """An estimator was asked before it was fitted."""

    def available_if(check):
        """Marks a method that some settings lack; here it stays and raises what its work raises."""
        return lambda method: method

    class BaseEstimator:
        """Parameters as scikit-learn keeps them: the constructor's arguments, unchanged, as attributes."""

        @classmethod
        def _names(cls):
            return sorted(name for name in inspect.signature(cls.__init__).parameters if name != "self")

        def get_params(self, deep=True):
            """The parameters by name."""
            return {name: getattr(self, name) for name in self._names()}

        def set_params(self, **params):
            """Sets parameters by name; returns the estimator."""
            for name, value in params.items():
                if name not in self._names():
                    raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(self._names())}")
                setattr(self, name, value)
            return self

        def __repr__(self):
            defaults = inspect.signature(type(self).__init__).parameters
            changed = [f"{k}={v!r}" for k, v in self.get_params().items() if v is not defaults[k].default]
            return f"{type(self).__name__}({', '.join(changed)})"

    class RegressorMixin:
        """Scores by the coefficient of determination."""

        def score(self, X, y):
            """R^2 of the predictions."""
            y = np.asarray(y, dtype=float)
            residual = np.sum((y - self.predict(X)) ** 2)
            return 1.0 - residual / np.sum((y - y.mean()) ** 2)

    class ClassifierMixin:
        """Scores by accuracy."""

        def score(self, X, y):
            """Share of samples whose class is predicted right."""
            return float(np.mean(self.predict(X) == np.asarray(y)))

    class ClusterMixin:
        """Fits and says which cluster each row is in."""

        def fit_predict(self, X, y=None):
            """Labels of the rows."""
            return self.fit(X).labels_

    class TransformerMixin:
        """Fits and transforms."""

        def fit_transform(self, X, y=None):
            """The transformed rows."""
            return self.fit(X).transform(X)


def read(estimator, X, reset):
    """`X` as a matrix; notes (`reset`) or checks the number and names of its columns."""
    if HAVE_SKLEARN:
        # Its checks of names, sparse matrices and the like; finiteness is checked where values are read.
        X = validate_data(
            estimator, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite=False, accept_sparse=False
        )
        return _check.matrix(X)
    X = _check.matrix(X)
    if reset:
        estimator.n_features_in_ = X.shape[1]
    elif X.shape[1] != estimator.n_features_in_:
        name = type(estimator).__name__
        raise ValueError(
            f"X has {X.shape[1]} features, but {name} is expecting {estimator.n_features_in_} features as input"
        )
    return X


def need(estimator, attribute):
    """Raises unless the estimator has been fitted."""
    if not hasattr(estimator, attribute):
        raise NotFittedError(f"This {type(estimator).__name__} is not fitted yet: call fit first")


def warn(messages):
    """Passes the library's warnings on."""
    for message in messages:
        warnings.warn(message, UserWarning, stacklevel=4)
