"""What the adapters to engines share: a driver that hands out tasks, and workers that fold chunks.

A job is a list of chunks. Each pass of it is a task (bytes) that a worker applies to a range of chunks; what comes back is a
sealed state for each, bytes that tell whether they were damaged. The driver takes each chunk's state once, in chunk order: a retried chunk
replaces its state, it never adds to it. So the result has the bits of a local run, and a run that cannot be completed is an
error, never a partial answer.
"""

import functools
import json
import os
import uuid

from . import _check, _native, _sample


@functools.lru_cache(maxsize=8)
def _open(path, options, job):
    """The table as this worker sees it, opened once per job."""
    return _native.Table(path, json.loads(options))


def fold_chunks(path, options, job, shape, chunks, task):
    """Runs on a worker: the sealed states of some chunks."""
    table = _open(path, options, job)
    if (table.n_rows, table.n_chunks) != tuple(shape):
        raise ValueError(
            f"{path} has {table.n_rows} rows in {table.n_chunks} chunks on this worker, "
            f"but {shape[0]} rows in {shape[1]} chunks where the job was started"
        )
    return [table.fold_chunk(chunk, task) for chunk in chunks]


# Ranges of chunks per worker: few enough that handing them out costs nothing, enough that no worker waits long for another.
_RANGES_PER_WORKER = 4


def ranges(n_chunks, n_workers):
    """The chunks as ranges to hand out; one by one where no worker is known."""
    n = min(n_chunks, _RANGES_PER_WORKER * n_workers) or n_chunks
    cuts = [i * n_chunks // n for i in range(n + 1)] if n else []
    return [range(a, b) for a, b in zip(cuts, cuts[1:])]


class Driver:
    """A job on an engine.

    `fold_all(function, task, n_chunks)` returns the states of all chunks, in any order; `function(chunks, task)` is what workers run.
    """

    def __init__(self, table, options):
        # Workers may run in other folders.
        self.path = os.path.abspath(os.fspath(table))
        self.options = json.dumps(options)
        self.table = _native.Table(self.path, json.loads(self.options))
        self.worker = functools.partial(
            fold_chunks, self.path, self.options, uuid.uuid4().hex, (self.table.n_rows, self.table.n_chunks)
        )

    def sample(self, fields, random_state, fold_all, output, progress):
        """Samples the table."""
        target = None if output is None else os.fspath(output)
        fold, seed = self._fold(fold_all), _check.seed(random_state)
        return _sample.Sample(self.table.sample(fields, seed, fold, target, _check.callback(progress)))

    def regress(self, job, fold_all, progress):
        """Fits the table's target."""
        return job.take(self.table.fit(job.fields, job.seed, self._fold(fold_all), _check.callback(progress)))

    def _fold(self, fold_all):
        return lambda task: fold_all(self.worker, task, self.table.n_chunks)
