"""Sampling and regression on a Ray cluster: same results as :func:`subspan.sample` and :func:`subspan.regress`, on as many
machines as read the files.

Every node must see the files under the same path.
"""

try:
    import ray
except ImportError as e:
    raise ImportError("subspan.ray needs Ray: pip install ray") from e

from . import _check, _cluster, _regress, _sample

__all__ = ["regress", "sample"]


def sample(
    table,
    n_rows=None,
    p=2,
    rule="auto",
    random_state=0,
    *,
    retries=3,
    timeout=None,
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

    A chunk whose worker died is folded again by another one, which changes nothing in the result.

    Parameters
    ----------
    table : str or path
        As of :func:`subspan.sample`; every node reads it.
    retries : int
        How often a chunk whose worker died is tried again.
    timeout : float, optional
        Seconds that a pass may take; more is a ``TimeoutError``.
    n_rows, p, rule, random_state, epsilon, draw, certify, columns, exclude, missing, output, progress
        As of :func:`subspan.sample`. The output is written by the calling process.

    Returns
    -------
    subspan.Sample
    """
    fold_all = _folder(retries, timeout)
    driver = _cluster.Driver(table, _sample.table_options(columns, exclude, missing))
    fields = _sample.job(p, n_rows, epsilon, rule, draw, certify)
    return driver.sample(fields, random_state, fold_all, output, progress)


def regress(
    table,
    target,
    n_rows=None,
    loss="l1",
    *,
    retries=3,
    timeout=None,
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
    table, retries, timeout
        As of :func:`sample`.
    target, n_rows, loss, p, quantile, delta, l2, exact, fit_intercept, random_state, columns, exclude, missing, progress
        As of :func:`subspan.regress`.

    Returns
    -------
    subspan.LpRegressor
        Fitted.
    """
    fold_all = _folder(retries, timeout)
    job = _regress.Job(
        table, target, n_rows, loss, p=p, quantile=quantile, delta=delta, l2=l2, exact=exact, fit_intercept=fit_intercept,
        random_state=random_state, columns=columns, exclude=exclude, missing=missing,
    )
    return _cluster.Driver(job.path, job.options).regress(job, fold_all, progress)


def _folder(retries, timeout):
    """A function that folds all chunks on the cluster."""
    if not ray.is_initialized():
        ray.init()
    retries = _check.count(retries, "retries")

    def fold_all(function, task, n_chunks):
        remote = ray.remote(max_retries=retries, num_cpus=1)(function.func)
        shared = ray.put(task)
        ranges = _cluster.ranges(n_chunks, int(ray.cluster_resources().get("CPU", 0)))
        running = [remote.remote(*function.args, chunks, shared) for chunks in ranges]
        try:
            return [state for states in ray.get(running, timeout=timeout) for state in states]
        except ray.exceptions.GetTimeoutError as e:
            raise TimeoutError(f"the pass took more than {timeout} s") from e
        finally:
            # Only what still runs: to cancel a task that has just finished can abort the driver.
            for reference in ray.wait(running, num_returns=len(running), timeout=0)[1]:
                ray.cancel(reference)

    return fold_all
