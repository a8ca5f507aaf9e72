"""Robust regression of a column of a file, out of core."""

import os

import numpy as np

from . import _check, _native, _sample


def regress(
    table,
    target,
    n_rows=None,
    loss="l1",
    *,
    p=1.5,
    quantile=0.5,
    delta=1.0,
    l2=0.0,
    exact=False,
    fit_intercept=True,
    random_state=0,
    columns=None,
    exclude=(),
    missing="error",
    n_threads=None,
    progress=None,
):
    """Fits a linear model of one column of a file to the others: on an importance sample with a certified gap, with a proof of
    optimality (``exact``), or on all rows. The first two read the file in bounded memory.

    Parameters
    ----------
    table : str or path
        A file as of :func:`subspan.sample`.
    target : str
        The column to explain; for ``logistic`` 0/1 or -1/+1.
    n_rows : int, optional
        Solve on a sample of about so many rows; on all rows, which must fit into memory, if ``None``.
    loss, p, quantile, delta, l2, exact, fit_intercept
        As of :class:`subspan.LpRegressor`.
    random_state : int, numpy Generator or RandomState, or None
        The seed. Equal seeds give equal fits, here and on the command line.
    columns, exclude : lists of str
        Columns of the file to explain it by, or not.
    missing : str
        ``error`` or ``drop``: what to do with rows that lack a value.
    n_threads, progress
        As of :func:`subspan.sample`.

    Returns
    -------
    subspan.LpRegressor
        Fitted. ``feature_names_in_`` are the columns; text columns have become 0/1 columns ``name=level``.
    """
    job = Job(
        table, target, n_rows, loss, p=p, quantile=quantile, delta=delta, l2=l2, exact=exact, fit_intercept=fit_intercept,
        random_state=random_state, columns=columns, exclude=exclude, missing=missing,
    )
    last = (_check.callback(progress), _check.count(n_threads, "n_threads"))
    return job.take(_native.fit_table(job.path, job.options, job.fields, job.seed, *last))


class Job:
    """A regression of a file, checked: what :func:`regress` and the adapters to engines share."""

    def __init__(self, table, target, n_rows=None, loss="l1", *, columns=None, exclude=(), missing="error", **settings):
        from ._estimators import LpRegressor

        self.model = LpRegressor(loss, n_rows=n_rows, **settings)
        self.path = os.fspath(table)
        # With a constant column one level of each text column is redundant.
        self.options = _sample.table_options(columns, exclude, missing, target, self.model.fit_intercept)
        self.fields = self.model._fields()
        self.seed = _check.seed(self.model.random_state)

    def take(self, found):
        """The fitted model."""
        model = self.model._take(found)
        model.feature_names_in_ = np.array(found["columns"], dtype=object)
        model.n_features_in_ = len(found["columns"])
        return model
