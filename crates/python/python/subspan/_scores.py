"""Importance of every row of a table."""

from . import _check, _native


def leverage_scores(X, *, n_threads=None, progress=None):
    """Statistical leverage of every row: how much of it no other row can explain.

    ``leverage[i] = a_i' (A'A)^+ a_i``, between 0 and 1; the scores add up to the rank of the table. Two passes of
    ``n d^2`` multiply-adds; sums are in double precision whatever the precision of ``X``.

    Parameters
    ----------
    X : array of shape (n_rows, n_columns)
        float32 or float64, in any memory order or memory-mapped; it is read in place.
    n_threads : int, optional
        One per core by default; the result does not depend on it.
    progress : callable, optional
        Called with ``(phase, done, total)`` now and then.

    Returns
    -------
    array of shape (n_rows,), float64

    Examples
    --------
    >>> import numpy as np, subspan
    >>> subspan.leverage_scores(np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 2.0]])).round(12).tolist()
    [1.0, 0.5, 0.5]
    """
    x = _check.matrix(X)
    return _native.leverage_scores(x, _check.callback(progress), _check.count(n_threads, "n_threads"))


def lewis_weights(X, p, *, n_threads=None, progress=None):
    """l_p Lewis weights of every row, to a relative error of 1e-6.

    The weights ``w`` with ``w_i = (a_i' Q^+ a_i)^(p/2)`` and ``Q = sum of w_i^(1-2/p) a_i a_i'``; they add up to the rank. For
    ``p = 2`` they are the leverage scores. One pass per iteration, 14 or so.

    Parameters
    ----------
    X, n_threads, progress
        As in :func:`leverage_scores`.
    p : float
        At least 1.

    Returns
    -------
    array of shape (n_rows,), float64
    """
    x = _check.matrix(X)
    return _native.lewis_weights(
        x, _check.number(p, "p"), _check.callback(progress), _check.count(n_threads, "n_threads")
    )


def sensitivities(X, p, *, n_threads=None, progress=None):
    """l_p sensitivity of every row: the largest share ``|a_i x|^p / ||A x||_p^p`` that it can have, over all ``x``.

    What is returned is a certified upper bound, within 1e-6 of the truth (4e-3 at ``p = 1``). One convex problem per row: for
    tables of up to some 10^4 rows, of which a whitened copy is made.

    Parameters
    ----------
    X, n_threads, progress
        As in :func:`leverage_scores`.
    p : float
        At least 1.

    Returns
    -------
    array of shape (n_rows,), float64
    """
    x = _check.matrix(X)
    return _native.sensitivities(
        x, _check.number(p, "p"), _check.callback(progress), _check.count(n_threads, "n_threads")
    )
