"""The estimators, on scikit-learn's base classes where those are installed."""

import json
import os

import numpy as np

from . import _check, _native, _sample
from ._base import HAVE_SKLEARN, BaseEstimator, ClassifierMixin, RegressorMixin, available_if, need, read, warn


class RowSampler(BaseEstimator):
    """Few weighted rows that stand for all rows of a table, for every linear model at once.

    Parameters
    ----------
    p : float
        The norm: ``sum(w |a x|^p)`` over the sample is close to ``||A x||_p^p`` for every ``x``.
    n_rows : int
        Expected number of rows; exact for ``draw="priority"``.
    rule, epsilon, draw, certify
        As in :func:`subspan.sample`.
    random_state : int, numpy Generator or RandomState, or None
        The seed.
    n_threads : int, optional
        One per core by default; the result does not depend on it.
    progress : callable, optional
        Called with ``(phase, done, total)`` now and then.

    Attributes
    ----------
    indices_, weights_, probabilities_, certificate_, summary_
        As of :class:`subspan.Sample`.

    Examples
    --------
    >>> import numpy as np, subspan
    >>> X = np.random.default_rng(0).standard_normal((10_000, 5))
    >>> sampler = subspan.RowSampler(n_rows=500).fit(X)
    >>> small = X[sampler.indices_] * np.sqrt(sampler.weights_)[:, None]
    >>> bool(np.linalg.norm(small.T @ small - X.T @ X, 2) < 0.5 * np.linalg.norm(X.T @ X, 2))
    True
    """

    def __init__(
        self,
        p=2,
        n_rows=2000,
        rule="auto",
        *,
        epsilon=None,
        draw="poisson",
        certify=True,
        random_state=0,
        n_threads=None,
        progress=None,
    ):
        self.p = p
        self.n_rows = n_rows
        self.rule = rule
        self.epsilon = epsilon
        self.draw = draw
        self.certify = certify
        self.random_state = random_state
        self.n_threads = n_threads
        self.progress = progress

    def fit(self, X, y=None):
        """Draws the sample. ``y`` is ignored."""
        X = read(self, X, reset=True)
        fields = _sample.job(self.p, self.n_rows, self.epsilon, self.rule, self.draw, self.certify)
        threads = _check.count(self.n_threads, "n_threads")
        _sample.take_sample(self, X, fields, _check.seed(self.random_state), _check.callback(self.progress), threads)
        return self

    def fit_resample(self, X, y=None):
        """The sampled rows of ``X`` (and of ``y``, if given); their weights are in ``weights_``."""
        self.fit(X)
        rows = _rows(X, self.indices_)
        return rows if y is None else (rows, _rows(y, self.indices_))


def _rows(table, indices):
    return table.iloc[indices] if hasattr(table, "iloc") else np.asarray(table)[indices]


class LpRegressor(RegressorMixin, BaseEstimator):
    """Robust linear regression: on all rows, on an importance sample with a certified gap, or with a proof of optimality.

    Parameters
    ----------
    loss : str
        ``l1`` (the conditional median), ``l2`` (the mean), ``lp``, ``quantile``, ``huber`` or ``logistic`` (targets 0/1 or -1/+1).
    p : float
        The exponent of ``loss="lp"``.
    quantile : float or list of float
        The level or levels of ``loss="quantile"``, which share one sample.
    delta : float
        Where ``loss="huber"`` turns from quadratic to linear, in units of the target.
    l2 : float
        Ridge penalty of ``loss="logistic"``: ``l2/2`` times the sum of squared coefficients.
    n_rows : int, optional
        Solve on a sample of about so many rows; on all rows if ``None``.
    exact : bool
        Find the optimum over all rows and prove it to a relative gap of 1e-8, through a sample; for ``l1`` and ``quantile``.
    fit_intercept : bool
        Whether to add a constant term.
    random_state, n_threads, progress
        As of :class:`subspan.RowSampler`.

    Attributes
    ----------
    coef_ : array of shape (n_features,), or (n_quantiles, n_features) for a list of quantiles
    intercept_ : float, or array of shape (n_quantiles,)
    objective_ : float, or array of shape (n_quantiles,)
        Plain sum of the losses over all rows.
    relative_gap_ : float or None, or a list of them
        Certified upper bound of ``(objective - optimum) / optimum``.
    rows_used_ : int
        Rows the solver worked on.
    n_iter_ : int
        Iterations of the solver, the most of all quantiles.

    Examples
    --------
    >>> import numpy as np, subspan
    >>> X = np.arange(5.0)[:, None]
    >>> model = subspan.LpRegressor().fit(X, [1, 3, 5, 700, 9])   # y = 1 + 2 x, but for one gross error
    >>> model.predict([[10.0]]).round(6).tolist()
    [21.0]
    """

    def __init__(
        self,
        loss="l1",
        *,
        p=1.5,
        quantile=0.5,
        delta=1.0,
        l2=0.0,
        n_rows=None,
        exact=False,
        fit_intercept=True,
        random_state=0,
        n_threads=None,
        progress=None,
    ):
        self.loss = loss
        self.p = p
        self.quantile = quantile
        self.delta = delta
        self.l2 = l2
        self.n_rows = n_rows
        self.exact = exact
        self.fit_intercept = fit_intercept
        self.random_state = random_state
        self.n_threads = n_threads
        self.progress = progress

    def fit(self, X, y):
        """Fits the model."""
        if y is None:
            raise ValueError("LpRegressor requires y to be passed, but the target y is None")
        X = read(self, X, reset=True)
        y = _check.column(y, X.shape[0])
        threads = _check.count(self.n_threads, "n_threads")
        seed, progress = _check.seed(self.random_state), _check.callback(self.progress)
        return self._take(_native.fit(X, y, self._fields(), seed, progress, threads))

    def _fields(self):
        """The job as the library wants it, checked one by one."""
        return {
            "loss": str(self.loss),
            "p": _check.number(self.p, "p"),
            "quantiles": [_check.number(q, "quantile") for q in np.atleast_1d(self.quantile).tolist()],
            "delta": _check.number(self.delta, "delta"),
            "l2": _check.number(self.l2, "l2"),
            "n_rows": _check.count(self.n_rows, "n_rows"),
            "exact": bool(self.exact),
            "intercept": bool(self.fit_intercept),
        }

    def _take(self, found):
        """Becomes the fit that the library found."""
        warn(found["warnings"])
        several = self.loss == "quantile" and np.ndim(self.quantile) > 0
        one = slice(None) if several else 0
        self.coef_ = found["coefficients"][one]
        self.intercept_ = found["intercepts"][one]
        self.objective_ = found["objectives"][one]
        self.relative_gap_ = found["relative_gaps"][one]
        self.rows_used_ = found["rows_used"]
        self.n_iter_ = max(1, *found["iterations"], 1)
        return self

    def predict(self, X):
        """Predicted targets; for a list of quantiles one column each, for ``logistic`` the log-odds of class 1."""
        need(self, "coef_")
        X = read(self, X, reset=False)
        predicted = X @ self.coef_.T + self.intercept_
        if not np.isfinite(predicted).all():
            _refuse_non_finite(X)
        return predicted

    def __sklearn_is_fitted__(self):
        return hasattr(self, "coef_")


def _refuse_non_finite(X):
    bad = np.argwhere(~np.isfinite(X))
    if len(bad):
        row, column = bad[0]
        value = "NaN" if np.isnan(X[row, column]) else "inf"
        raise ValueError(f"Input X contains {value}: non-finite value {value} at row {row}, column {column}")


class GrassmannClassifier(ClassifierMixin, BaseEstimator):
    """Every class a subspace: a sample belongs to the class on whose subspace its projection is longest.

    Parameters
    ----------
    k : int or "auto"
        Dimension of the class subspaces; ``auto`` chooses on held-out samples. More than ``n_features - 1`` counts as
        ``n_features - 1``: a subspace as large as the space contains every sample.
    method : str
        ``gcr`` (trained subspaces), ``clafic`` (closed form) or ``linear`` (softmax regression, the baseline).
    gamma : float
        Scale of the logits.
    lr, momentum, batch_size, epochs
        Of the training; ``epochs=None`` takes as many as make about 4000 steps.
    balanced : bool
        Weigh classes equally, however many samples each has.
    center : bool
        Subtract the mean of the samples first.
    held_out : float
        Share of each class on which to stop, to choose and to calibrate.
    online_lr : float
        Rate of :meth:`partial_fit` for its first sample; it falls like one over the root of their number.
    random_state, n_threads, progress
        As of :class:`subspan.RowSampler`.

    Attributes
    ----------
    classes_ : array
    k_ : int or None
        Dimension of the subspaces; ``None`` for a linear classifier.
    temperature_ : float
        Probabilities are the softmax of ``decision_function`` over this.
    summary_ : dict
        Figures of the training.
    """

    def __init__(
        self,
        k=8,
        *,
        method="gcr",
        gamma=25.0,
        lr=0.1,
        momentum=0.9,
        batch_size=256,
        epochs=None,
        balanced=False,
        center=False,
        held_out=0.1,
        online_lr=0.003,
        random_state=0,
        n_threads=None,
        progress=None,
    ):
        self.k = k
        self.method = method
        self.gamma = gamma
        self.lr = lr
        self.momentum = momentum
        self.batch_size = batch_size
        self.epochs = epochs
        self.balanced = balanced
        self.center = center
        self.held_out = held_out
        self.online_lr = online_lr
        self.random_state = random_state
        self.n_threads = n_threads
        self.progress = progress

    def fit(self, X, y):
        """Trains the classifier."""
        if y is None:
            raise ValueError("GrassmannClassifier requires y to be passed, but the target y is None")
        X = read(self, X, reset=True)
        y = _labels(y, X.shape[0])
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"classification needs at least 2 classes, but y holds only one class: {self.classes_[0]}")
        fields = {
            "method": str(self.method),
            "k": self._dimension(X),
            "gamma": _check.number(self.gamma, "gamma"),
            "lr": _check.number(self.lr, "lr"),
            "momentum": _check.number(self.momentum, "momentum"),
            "batch_size": _check.count(self.batch_size, "batch_size"),
            "epochs": _check.count(self.epochs, "epochs"),
            "balanced": bool(self.balanced),
            "center": bool(self.center),
            "held_out": _check.number(self.held_out, "held_out"),
        }
        names = [_name(c) for c in self.classes_.tolist()]
        codes = np.ascontiguousarray(codes.ravel(), dtype=np.uint32)
        threads = _check.count(self.n_threads, "n_threads")
        self._learner = None
        self.model_, summary = _native.train(
            X, codes, names, fields, _check.seed(self.random_state), _check.callback(self.progress), threads
        )
        self._take(json.loads(summary))
        return self

    @available_if(lambda self: self.method == "gcr")
    def partial_fit(self, X, y, classes=None):
        """Learns from more samples, in their order, each once: every class turns a little towards its samples and away from others'.

        Of trained subspaces only (``method="gcr"``). The first call names all ``classes``, unless :meth:`fit` came before, from whose subspaces it then goes on. Samples are
        predicted before they are learned from, which calibrates the probabilities. There is no :meth:`ood_score` afterwards.
        """
        if y is None:
            raise ValueError("GrassmannClassifier requires y to be passed, but the target y is None")
        first = not hasattr(self, "model_")
        X = read(self, X, reset=first)
        y = _labels(y, X.shape[0])
        if classes is not None:
            classes = np.unique(classes)
        if first:
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit")
        elif classes is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(f"classes={classes} is not the same as on the last call: {self.classes_}")
        names = classes if first else self.classes_
        codes = np.searchsorted(names, y)
        unknown = y[(codes == len(names)) | (names[np.minimum(codes, len(names) - 1)] != y)]
        if len(unknown):
            raise ValueError(f"y holds labels that are not among the classes: {np.unique(unknown)}")
        rate = _check.number(self.online_lr, "online_lr")
        learner = getattr(self, "_learner", None)
        if first:
            k = self._dimension(X)
            if k is None:
                raise ValueError("partial_fit cannot choose the dimension: k must be a number")
            names_in_file = [_name(c) for c in names.tolist()]
            learner = _native.Learner(names_in_file, X.shape[1], k, _check.number(self.gamma, "gamma"), rate)
        elif learner is None:
            learner = _native.Learner.of(self.model_, rate)
        learner.learn(X, np.ascontiguousarray(codes, dtype=np.uint32), _check.count(self.n_threads, "n_threads"))
        if first:
            self.classes_ = names
        self._learner = learner
        self.model_ = learner.classifier()
        self._take({"k": max(np.diff(self.model_.frames()[1]).tolist()), "samples_seen": learner.seen})
        return self

    def _dimension(self, X):
        """The dimension asked for, `None` to choose it."""
        k = None if self.k == "auto" else _check.count(self.k, "k")
        return k if k is None else min(k, max(1, X.shape[1] - 1))

    def _take(self, summary):
        self.summary_ = summary
        self.k_ = summary.get("k")
        self.temperature_ = self.model_.temperature

    def predict(self, X):
        """The most probable class of every sample."""
        codes = self._predict(X)[0]
        return self.classes_[codes]

    def predict_proba(self, X):
        """Calibrated probabilities, one column per class of ``classes_``."""
        return self._predict(X)[1]

    def ood_score(self, X):
        """Strangeness of every sample, from 0 to 1: one half is usual for samples of the classes, a zero sample has 1."""
        need(self, "model_")
        if not self.model_.has_reconstruction:
            raise ValueError("strangeness is measured against subspaces that only fit finds, not partial_fit: call fit")
        return self._predict(X)[2]

    def decision_function(self, X):
        """Logits, one column per class; for two classes the second's minus the first's."""
        need(self, "model_")
        logits = self.model_.logits(read(self, X, reset=False), _check.count(self.n_threads, "n_threads"))
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def class_angles(self):
        """Principal angles between the class subspaces, radians: an array of shape (n_classes, n_classes, k), ascending."""
        need(self, "model_")
        angles = self.model_.class_angles()
        if angles is None:
            raise ValueError("a linear classifier has no class subspaces")
        n = len(self.classes_)
        return np.asarray(angles).reshape(n, n, -1)

    def _predict(self, X):
        need(self, "model_")
        return self.model_.predict(read(self, X, reset=False), _check.count(self.n_threads, "n_threads"))

    def save(self, path):
        """Writes the model as ``subspan classify`` does; ``subspan predict`` and :meth:`load` read it."""
        need(self, "model_")
        self.model_.save(os.fspath(path))

    @classmethod
    def load(cls, path):
        """A classifier from a file; its classes are integers if all of them look so, else strings."""
        self = cls()
        self.model_ = _native.Classifier.load(os.fspath(path))
        names = self.model_.classes
        try:
            self.classes_ = np.array([int(name) for name in names])
        except ValueError:
            self.classes_ = np.array(names)
        self.n_features_in_ = self.model_.n_features
        frames = self.model_.frames()
        self._take({"k": frames and frames[1][1]})
        return self

    def __sklearn_is_fitted__(self):
        return hasattr(self, "model_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Subspaces pass through the origin: they cannot tell apart what differs in its distance from it only.
        tags.classifier_tags.poor_score = self.method != "linear"
        return tags


def _labels(y, n_rows):
    """One label per row."""
    if HAVE_SKLEARN:
        from sklearn.utils.multiclass import check_classification_targets
        from sklearn.utils.validation import column_or_1d

        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
    y = np.asarray(y)
    if y.ndim != 1:
        raise ValueError(f"y should be a 1d array, got an array of shape {y.shape} instead")
    if len(y) != n_rows:
        raise ValueError(f"y has {len(y)} labels for the {n_rows} rows of X: inconsistent numbers of samples")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError("Input y contains NaN or infinity")
    return y


def _name(label):
    """A label's name in a file: whole numbers without a point, as the command line reads them."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
