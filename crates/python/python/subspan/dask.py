"""Sampling and regression on a Dask cluster: same results as :func:`subspan.sample` and :func:`subspan.regress`, on as many
machines as read the files.

Every worker must see the files under the same path.
"""

import time

try:
    import distributed
except ImportError as e:
    raise ImportError("subspan.dask needs Dask's scheduler: pip install distributed") from e

from . import _check, _cluster, _regress, _sample

__all__ = ["NoWorkersError", "regress", "sample"]


class NoWorkersError(RuntimeError):
    """Every worker of the cluster was lost, and none came back in time."""


def sample(
    table,
    n_rows=None,
    p=2,
    rule="auto",
    random_state=0,
    *,
    client=None,
    retries=3,
    worker_timeout=60.0,
    epsilon=None,
    draw="poisson",
    certify=True,
    columns=None,
    exclude=(),
    missing="error",
    output=None,
    progress=None,
):
    """Draws few weighted rows that stand for all rows of a table; the same bits as :func:`subspan.sample`.

    A chunk of a lost worker is folded again by another one, which changes nothing in the result.

    Parameters
    ----------
    table : str or path
        As of :func:`subspan.sample`; every worker reads it.
    client : distributed.Client, optional
        The current one by default.
    retries : int
        How often a chunk that raised an error is tried again.
    worker_timeout : float
        Seconds without any worker after which the run ends with :class:`NoWorkersError`.
    n_rows, p, rule, random_state, epsilon, draw, certify, columns, exclude, missing, output, progress
        As of :func:`subspan.sample`. The output is written by the calling process.

    Returns
    -------
    subspan.Sample
    """
    fold_all = _folder(client, retries, worker_timeout)
    driver = _cluster.Driver(table, _sample.table_options(columns, exclude, missing))
    fields = _sample.job(p, n_rows, epsilon, rule, draw, certify)
    return driver.sample(fields, random_state, fold_all, output, progress)


def regress(
    table,
    target,
    n_rows=None,
    loss="l1",
    *,
    client=None,
    retries=3,
    worker_timeout=60.0,
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
    progress=None,
):
    """Fits a linear model of one column of a table to the others; the same bits as :func:`subspan.regress`.

    With ``n_rows`` or ``exact`` every pass over the table is made by the workers and the small problems are solved by the calling
    process. A fit on all rows (neither given) is solved in the memory of the calling process, which reads the table itself; only
    its last pass is made by the workers.

    Parameters
    ----------
    table, client, retries, worker_timeout
        As of :func:`sample`.
    target, n_rows, loss, p, quantile, delta, l2, exact, fit_intercept, random_state, columns, exclude, missing, progress
        As of :func:`subspan.regress`.

    Returns
    -------
    subspan.LpRegressor
        Fitted.
    """
    fold_all = _folder(client, retries, worker_timeout)
    job = _regress.Job(
        table, target, n_rows, loss, p=p, quantile=quantile, delta=delta, l2=l2, exact=exact, fit_intercept=fit_intercept,
        random_state=random_state, columns=columns, exclude=exclude, missing=missing,
    )
    return _cluster.Driver(job.path, job.options).regress(job, fold_all, progress)


def _folder(client, retries, worker_timeout):
    """A function that folds all chunks on a cluster."""
    client = client if client is not None else distributed.get_client()
    retries, timeout = _check.count(retries, "retries"), _check.number(worker_timeout, "worker_timeout")
    return lambda function, task, n_chunks: _fold_all(client, function, task, n_chunks, retries, timeout)


# Seconds between two looks at the workers.
_TICK = 0.5


def _fold_all(client, function, task, n_chunks, retries, worker_timeout):
    """The states of all chunks."""
    ranges = _cluster.ranges(n_chunks, sum(worker["nthreads"] for worker in _workers(client).values()))
    # Part of the graph, not scattered: the copy of a lost worker would be lost with it.
    futures = client.map(function, ranges, task=task, retries=retries, pure=False)
    try:
        sizes = {future.key: len(chunks) for future, chunks in zip(futures, ranges)}
        waiting = set(futures)
        seen = time.monotonic()
        while waiting:
            try:
                done, waiting = distributed.wait(waiting, timeout=_TICK, return_when="FIRST_COMPLETED")
            except (TimeoutError, distributed.TimeoutError):
                done = ()
            for future in done:
                if future.status == "error":
                    future.result()
            now = time.monotonic()
            if done or _workers(client):
                seen = now
            elif now - seen > worker_timeout:
                missing = sum(sizes[future.key] for future in waiting)
                raise NoWorkersError(f"no worker has been there for {worker_timeout:g} s; {missing} chunks are missing")
        return [state for states in client.gather(futures) for state in states]
    finally:
        client.cancel(futures)


def _workers(client):
    """What the scheduler knows of its workers, by address."""
    return client.scheduler_info(n_workers=-1)["workers"]
