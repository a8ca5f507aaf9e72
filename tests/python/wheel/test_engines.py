"""Sampling on clusters: the bits of a local run, also when workers die; an error when all do."""

import os
import signal
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import heavy_table

import subspan
from subspan import _cluster, _native

distributed = pytest.importorskip("distributed")
import subspan.dask  # noqa: E402

N_CHUNKS = 24


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    a = heavy_table(24_000, 5, seed=5)
    path = tmp_path_factory.mktemp("table") / "t.parquet"
    columns = {f"c{j}": a[:, j] for j in range(5)} | {"kind": np.where(a[:, 0] > 0, "up", "down")}
    pq.write_table(pa.table(columns), path, row_group_size=1000)
    return path


def two_workers():
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


client = pytest.fixture(scope="module")(two_workers)
fresh_client = pytest.fixture(two_workers)


def equal(a, b):
    return (
        np.array_equal(a.indices_, b.indices_)
        and np.array_equal(a.weights_, b.weights_)
        and a.certificate_ == b.certificate_
        and a.summary_ == b.summary_
    )


@pytest.mark.parametrize("settings", [
    dict(p=2), dict(p=1), dict(p=1.5, rule="lewis"), dict(p=4, columns=["c0", "c1", "c2"]), dict(p=2, draw="priority"),
    dict(p=2, draw="systematic"), dict(p=1, rule="sensitivity", certify=False),
])
def test_dask_gives_the_bits_of_a_local_run(client, table, tmp_path, settings):
    local = subspan.sample(table, 300, random_state=3, output=tmp_path / "local.parquet", **settings)
    spread = subspan.dask.sample(
        table, 300, random_state=3, client=client, output=tmp_path / "dask.parquet", **settings
    )
    assert equal(local, spread)
    assert (tmp_path / "local.parquet").read_bytes() == (tmp_path / "dask.parquet").read_bytes()


def slowly(function, chunk, task):
    """Long enough for a worker to be killed in the middle."""
    time.sleep(0.15)
    return function(chunk, task)


def run_and_kill(client, table, kill_in_pass, monkeypatch):
    """Samples while one worker is killed; returns the sample and what was seen at the kill."""
    passes, seen = [], {}
    fold_all = subspan.dask._fold_all

    def watched(client, function, task, n_chunks, *rest):
        import functools

        passes.append(task)
        if len(passes) == kill_in_pass:
            threading.Thread(target=kill, args=(n_chunks,)).start()
        return fold_all(client, functools.partial(slowly, function), task, n_chunks, *rest)

    def kill(n_chunks):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            running = {address: keys for address, keys in client.processing().items() if keys}
            done = sum(len(keys) for keys in client.has_what().values())
            if running and 0 < done < n_chunks and len(workers) == 2:
                address = next(iter(running))
                pids = client.run(os.getpid)
                seen.update(done=done, in_flight=len(running[address]), pid=pids[address])
                os.kill(pids[address], signal.SIGKILL)
                return
            time.sleep(0.05)

    monkeypatch.setattr(subspan.dask, "_fold_all", watched)
    drawn = subspan.dask.sample(table, 300, p=2, random_state=3, client=client)
    return drawn, seen, passes


@pytest.mark.parametrize("kill_in_pass", [1, 2])
def test_a_killed_worker_changes_nothing(fresh_client, table, monkeypatch, kill_in_pass):
    drawn, seen, passes = run_and_kill(fresh_client, table, kill_in_pass, monkeypatch)
    assert len(passes) == 2
    assert 0 < seen["done"] < N_CHUNKS and seen["in_flight"] > 0
    fresh_client.wait_for_workers(2, timeout=60)
    assert seen["pid"] not in fresh_client.run(os.getpid).values()
    assert equal(drawn, subspan.sample(table, 300, p=2, random_state=3))


def test_without_workers_the_run_ends_in_bounded_time_without_an_output(table, tmp_path):
    cluster = distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=None, silence_logs=50)
    with cluster, distributed.Client(cluster) as client:
        start = time.monotonic()
        with pytest.raises(subspan.dask.NoWorkersError, match="24 chunks"):
            subspan.dask.sample(table, 300, client=client, worker_timeout=2, output=tmp_path / "o.parquet")
        assert time.monotonic() - start < 30
    assert list(tmp_path.iterdir()) == []


def test_all_workers_killed_is_an_error_in_bounded_time(table, tmp_path, monkeypatch):
    import functools

    fold_all = subspan.dask._fold_all
    slow = lambda client, function, *rest: fold_all(client, functools.partial(slowly, function), *rest)  # noqa: E731
    monkeypatch.setattr(subspan.dask, "_fold_all", slow)
    # Worker processes without a nanny are not started again.
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as cluster:
        import subprocess
        import sys

        call = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--no-nanny",
                "--nthreads", "1", "--no-dashboard"]
        workers = [subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
        try:
            with distributed.Client(cluster) as client:
                client.wait_for_workers(2, timeout=60)
                killer = threading.Timer(1.0, lambda: [worker.kill() for worker in workers])
                killer.start()
                with pytest.raises(subspan.dask.NoWorkersError):
                    subspan.dask.sample(table, 300, client=client, worker_timeout=2, output=tmp_path / "o.parquet")
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    assert list(tmp_path.iterdir()) == []


def driver(table):
    return _cluster.Driver(table, None, ["kind"], "error")


def run(driver, fold_all):
    from subspan import _sample

    fields = _sample.job(2, 300, None, "auto", "poisson", True)
    return driver.sample(fields, 3, fold_all, None, None)


def states(function, task, n_chunks):
    return [function(chunk, task) for chunk in range(n_chunks)]


def test_states_may_come_in_any_order(table):
    drawn = run(driver(table), lambda *job: states(*job)[::-1])
    assert equal(drawn, subspan.sample(table, 300, random_state=3, exclude=["kind"]))


@pytest.mark.parametrize("spoil, words", [
    (lambda all: all[:-1], "chunk 23 is missing"),
    (lambda all: all[:4] + all[5:], "chunk 4 is missing"),
    (lambda all: [*all, all[4]], "chunk 4 is there twice"),
    (lambda all: [*all[:3], all[3][:-20] + b"x" + all[3][-19:], *all[4:]], "damaged"),
    (lambda all: [], "chunk 0 is missing"),
])
def test_missing_double_and_damaged_states_are_refused(table, spoil, words):
    with pytest.raises(ValueError, match=words):
        run(driver(table), lambda *job: spoil(states(*job)))


def test_states_of_another_pass_are_refused(table):
    first = []

    def fold_all(*job):
        first.extend([] if first else states(*job))
        return first

    with pytest.raises(ValueError, match="of another run or pass"):
        run(driver(table), fold_all)


def test_a_worker_that_sees_another_file_is_refused(table, tmp_path):
    other = tmp_path / "t.parquet"
    pq.write_table(pq.read_table(table).slice(0, 5000), other)
    shape = (24_000, N_CHUNKS)
    with pytest.raises(ValueError, match="5000 rows in 1 chunks on this worker"):
        _cluster.fold_chunk(str(other), driver(table).options, "job", shape, 0, b"")


def test_bytes_that_are_no_task_are_refused(table):
    opened = _native.Table(str(table), {"columns": None, "exclude": [], "missing": "error"})
    for task in (b"", b"nonsense", bytes(100)):
        with pytest.raises(ValueError, match="task"):
            opened.fold_chunk(0, task)
    with pytest.raises(ValueError, match="not of this table"):
        opened.fold_chunk(99, b"")


def test_what_the_engine_raises_comes_through(table):
    def fold_all(*_):
        raise ZeroDivisionError("the engine")

    with pytest.raises(ZeroDivisionError, match="the engine"):
        run(driver(table), fold_all)


def test_ray_gives_the_bits_of_a_local_run(table):
    ray = pytest.importorskip("ray")
    import subspan.ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for settings in (dict(p=2), dict(p=1)):
            assert equal(subspan.ray.sample(table, 300, random_state=3, **settings),
                         subspan.sample(table, 300, random_state=3, **settings))
    finally:
        ray.shutdown()
