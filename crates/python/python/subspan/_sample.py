"""Samples of arrays and of files: few weighted rows that stand for all."""

import json
import os
from typing import NamedTuple, Optional

import numpy as np

from . import _check, _native


class Certificate(NamedTuple):
    """How far a sample's sums are off: ``lower <= sum(w |a x|^p) / ||A x||_p^p - 1 <= upper`` over all ``x``.

    ``kind`` is ``"exact"`` (the true extremes), ``"bound"`` (they lie inside) or ``"searched"`` (the worst that a search found:
    they may lie outside); ``reference`` says what the sample was compared with.
    """

    lower: float
    upper: float
    kind: str
    reference: str


class Sample:
    """A weighted sample of a table's rows.

    Attributes
    ----------
    indices_ : array of int64
        Positions of the rows in the table, increasing.
    weights_ : array of float64
        What multiplies each row's loss.
    probabilities_ : array of float64
        Probability with which each row was drawn; one over the weight.
    certificate_ : Certificate or None
        The sample's measured distortion.
    rows_ : array of shape (n_rows_out, n_columns), float64
        The rows themselves, text columns as 0/1 columns.
    columns_ : list of str
        Names of their columns.
    summary_ : dict
        How the sample came about, as in the command line's run record.
    """

    def __init__(self, found):
        _take(self, found)
        self.rows_ = found["rows"]
        self.columns_ = found.get("columns") or [f"c{j}" for j in range(self.rows_.shape[1])]

    def __len__(self):
        return len(self.indices_)

    def __repr__(self):
        return f"<{len(self)} rows of {self.summary_['rows_in']}, rule {self.summary_['rule']}>"


def _take(to, found):
    """Sets the attributes that every sample has."""
    to.indices_ = found["indices"]
    to.weights_ = found["weights"]
    to.probabilities_ = found["probabilities"]
    certificate = json.loads(found["certificate"])
    to.certificate_ = certificate and Certificate(**certificate)
    to.summary_ = json.loads(found["summary"])


def job(p, n_rows, epsilon, rule, draw, certify):
    """The fields of a sampling job, checked one by one."""
    if epsilon is not None:
        epsilon = _check.number(epsilon, "epsilon")
    elif n_rows is None:
        raise ValueError("n_rows or epsilon is needed")
    return {
        "p": _check.number(p, "p"),
        "n_rows": _check.count(n_rows, "n_rows"),
        "epsilon": epsilon,
        "rule": str(rule),
        "draw": str(draw),
        "certify": bool(certify),
    }


def table_options(columns, exclude, missing, target=None, drop_first_level=False):
    """Which columns of a file to use, and how."""
    return {
        "columns": None if columns is None else [str(c) for c in columns],
        "exclude": [str(c) for c in exclude],
        "missing": str(missing),
        "target": None if target is None else str(target),
        "drop_first_level": bool(drop_first_level),
    }


def sample(
    table,
    n_rows=None,
    p=2,
    rule="auto",
    random_state=0,
    *,
    epsilon=None,
    draw="poisson",
    certify=True,
    columns=None,
    exclude=(),
    missing="error",
    output=None,
    n_threads=None,
    progress=None,
):
    """Draws few weighted rows that stand for all rows of a table: ``sum(w |a x|^p)`` is close to ``||A x||_p^p`` for every ``x``.

    Parameters
    ----------
    table : str, path or array
        A file as the command line takes it (``.parquet``, a directory or pattern of them, ``.csv``, ``.csv.gz``, ``.arrow``,
        ``.feather``, ``.npy``, ``.npz:KEY``), read in bounded memory; or an array.
    n_rows : int
        Expected number of rows; exact for ``draw="priority"``.
    p : float
        The norm, at least 1. 2 for least squares, 1 for absolute and quantile losses.
    rule : str
        ``auto``, ``uniform``, ``leverage``, ``root-leverage``, ``lewis``, ``sensitivity``, ``sensitivity+leverage`` or ``paper``.
    random_state : int, numpy Generator or RandomState, or None
        The seed. Equal seeds give equal samples, here and on the command line.
    epsilon : float, optional
        Instead of ``n_rows``: as many rows as this distortion needs, for ``p`` up to 2.
    draw : str
        ``poisson``, ``systematic`` or ``priority``.
    certify : bool
        Whether to measure the distortion.
    columns, exclude : lists of str
        Columns of the file to use, or not.
    missing : str
        ``error`` or ``drop``: what to do with rows that lack a value (files only; arrays must be finite).
    output : path, optional
        Where to write the sample as parquet: ``row_id``, ``probability``, ``weight``, then the file's columns.
    n_threads : int, optional
        One per core by default; the result does not depend on it.
    progress : callable, optional
        Called with ``(phase, done, total)`` now and then.

    Returns
    -------
    Sample
        With ``indices_``, ``weights_``, ``certificate_`` and more.
    """
    fields = job(p, n_rows, epsilon, rule, draw, certify)
    last = (_check.callback(progress), _check.count(n_threads, "n_threads"))
    if isinstance(table, (str, os.PathLike)):
        options = table_options(columns, exclude, missing)
        target = None if output is None else os.fspath(output)
        found = _native.sample_table(os.fspath(table), options, fields, _check.seed(random_state), target, *last)
        return Sample(found)
    for given, name in [(columns, "columns"), (exclude or None, "exclude"), (output, "output")]:
        if given is not None:
            raise ValueError(f"{name} is for files; the table is an array")
    return Sample(_native.sample_array(_check.matrix(table, "table"), fields, _check.seed(random_state), *last))


def take_sample(estimator, X, fields, seed, progress: Optional[object], n_threads):
    """Samples an array into an estimator's attributes."""
    found = _native.sample_array(X, fields, seed, progress, n_threads)
    _take(estimator, found)
    estimator.indices_ = np.asarray(estimator.indices_)
