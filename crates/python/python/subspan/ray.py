"""Sampling on a Ray cluster: same result as :func:`subspan.sample`, on as many machines as read the files.

Every node must see the files under the same path.
"""

try:
    import ray
except ImportError as e:
    raise ImportError("subspan.ray needs Ray: pip install ray") from e

from . import _check, _cluster, _sample

__all__ = ["sample"]


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
    if not ray.is_initialized():
        ray.init()
    driver = _cluster.Driver(table, columns, exclude, missing)
    fields = _sample.job(p, n_rows, epsilon, rule, draw, certify)
    retries = _check.count(retries, "retries")

    def fold_all(function, task, n_chunks):
        remote = ray.remote(max_retries=retries, num_cpus=1)(function.func)
        shared = ray.put(task)
        running = [remote.remote(*function.args, chunk, shared) for chunk in range(n_chunks)]
        try:
            return ray.get(running, timeout=timeout)
        except ray.exceptions.GetTimeoutError as e:
            raise TimeoutError(f"the pass took more than {timeout} s") from e
        finally:
            for reference in running:
                ray.cancel(reference)

    return driver.sample(fields, random_state, fold_all, output, progress)
