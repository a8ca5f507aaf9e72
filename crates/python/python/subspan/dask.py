"""Sampling on a Dask cluster: same result as :func:`subspan.sample`, on as many machines as read the files.

Every worker must see the files under the same path.
"""

import time

try:
    import distributed
except ImportError as e:
    raise ImportError("subspan.dask needs Dask's scheduler: pip install distributed") from e

from . import _check, _cluster, _sample

__all__ = ["NoWorkersError", "sample"]


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
    client = client if client is not None else distributed.get_client()
    retries = _check.count(retries, "retries")
    driver = _cluster.Driver(table, columns, exclude, missing)
    fields = _sample.job(p, n_rows, epsilon, rule, draw, certify)

    def fold_all(function, task, n_chunks):
        return _fold_all(client, function, task, n_chunks, retries, _check.number(worker_timeout, "worker_timeout"))

    return driver.sample(fields, random_state, fold_all, output, progress)


# Seconds between two looks at the workers.
_TICK = 0.5


def _fold_all(client, function, task, n_chunks, retries, worker_timeout):
    """The states of all chunks."""
    # Part of the graph, not scattered: the copy of a lost worker would be lost with it.
    futures = client.map(function, range(n_chunks), task=task, retries=retries, pure=False)
    try:
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
            if done or client.scheduler_info(n_workers=-1)["workers"]:
                seen = now
            elif now - seen > worker_timeout:
                raise NoWorkersError(f"no worker has been there for {worker_timeout:g} s; {len(waiting)} chunks are missing")
        return client.gather(futures)
    finally:
        client.cancel(futures)
