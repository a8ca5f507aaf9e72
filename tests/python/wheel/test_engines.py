"""Sampling and regression on clusters: the bits of a local run, also when workers die; an error when all do."""

import functools
import os
import signal
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import heavy_table

import subspan
from subspan import _cluster, _native, _regress, _sample

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


@pytest.fixture(scope="module")
def long_table(tmp_path_factory):
    """Long enough for the exact mode to draw a pilot."""
    a = heavy_table(120_000, 4, seed=6)
    path = tmp_path_factory.mktemp("table") / "long.parquet"
    columns = {f"c{j}": a[:, j] for j in range(3)} | {"kind": np.where(a[:, 0] > 0, "up", "down")}
    y = a[:, :3].sum(axis=1) + a[:, 3]
    pq.write_table(pa.table(columns | {"y": y, "up": (y > 0).astype(np.int8)}), path, row_group_size=5000)
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
        and settled(a) == settled(b)
        and abs(a.summary_["passes"] - b.summary_["passes"]) <= 1
    )


def settled(drawn):
    """All that is said of a sample, but for the passes: where the scores are very uneven, an engine needs one more."""
    return {name: value for name, value in drawn.summary_.items() if name != "passes"}


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


def equal_fits(a, b):
    return (
        np.array_equal(a.coef_, b.coef_)
        and np.array_equal(a.intercept_, b.intercept_)
        and np.array_equal(a.objective_, b.objective_)
        and a.relative_gap_ == b.relative_gap_
        and a.rows_used_ == b.rows_used_
        and a.feature_names_in_.tolist() == b.feature_names_in_.tolist()
    )


@pytest.mark.parametrize("settings", [
    dict(n_rows=500), dict(n_rows=500, loss="quantile", quantile=[0.1, 0.9], fit_intercept=False),
    dict(n_rows=500, loss="huber", delta=0.5), dict(n_rows=500, loss="lp", p=4), dict(n_rows=500, loss="l2"),
    dict(exact=True), dict(exact=True, loss="lp", p=1.5), dict(exact=True, loss="huber", delta=0.5), dict(loss="l2"),
])
def test_dask_fits_with_the_bits_of_a_local_run(client, long_table, settings):
    local = subspan.regress(long_table, "y", random_state=3, exclude=["up"], **settings)
    spread = subspan.dask.regress(long_table, "y", random_state=3, exclude=["up"], client=client, **settings)
    assert equal_fits(local, spread)


@pytest.mark.parametrize("settings", [dict(n_rows=500), dict(exact=True), dict(exact=True, l2=2.0)])
def test_dask_fits_classes_with_the_bits_of_a_local_run(client, long_table, settings):
    local = subspan.regress(long_table, "up", loss="logistic", columns=["c0", "kind"], **settings)
    spread = subspan.dask.regress(long_table, "up", loss="logistic", columns=["c0", "kind"], client=client, **settings)
    assert equal_fits(local, spread)


def test_an_error_of_the_data_is_told_as_locally(client, long_table):
    with pytest.raises(ValueError, match="the target must be 0 or 1"):
        subspan.dask.regress(long_table, "y", 500, loss="logistic", client=client)


def slowly(function, chunks, task):
    """Long enough for a worker to be killed in the middle."""
    time.sleep(0.15 * len(chunks))
    return function(chunks, task)


def run_and_kill(client, job, kill_in_pass, monkeypatch):
    """Runs a job while one worker is killed; returns its result and what was seen at the kill."""
    passes, seen = [], {}
    fold_all = subspan.dask._fold_all

    def watched(client, function, task, n_chunks, *rest):
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
    return job(client), seen, passes


def was_killed(client, seen):
    assert 0 < seen["done"] < N_CHUNKS and seen["in_flight"] > 0
    client.wait_for_workers(2, timeout=60)
    return seen["pid"] not in client.run(os.getpid).values()


@pytest.mark.parametrize("kill_in_pass", [1, 2])
def test_a_killed_worker_changes_nothing(fresh_client, table, monkeypatch, kill_in_pass):
    job = lambda client: subspan.dask.sample(table, 300, p=2, random_state=3, client=client)  # noqa: E731
    drawn, seen, passes = run_and_kill(fresh_client, job, kill_in_pass, monkeypatch)
    assert len(passes) in (2, 3)
    assert was_killed(fresh_client, seen)
    assert equal(drawn, subspan.sample(table, 300, p=2, random_state=3))


@pytest.mark.parametrize("kill_in_pass", [1, 2, 3, 4])
def test_a_killed_worker_changes_no_fit(fresh_client, long_table, monkeypatch, kill_in_pass):
    """The pilot's two passes, the one that splits the rows and the one that checks their signs."""
    settings = dict(exact=True, random_state=3, columns=["c0", "c1", "c2"])
    job = lambda client: subspan.dask.regress(long_table, "y", client=client, **settings)  # noqa: E731
    model, seen, passes = run_and_kill(fresh_client, job, kill_in_pass, monkeypatch)
    assert len(passes) >= 4
    assert was_killed(fresh_client, seen)
    assert equal_fits(model, subspan.regress(long_table, "y", **settings))


def test_without_workers_the_run_ends_in_bounded_time_without_an_output(table, tmp_path):
    cluster = distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=None, silence_logs=50)
    with cluster, distributed.Client(cluster) as client:
        start = time.monotonic()
        with pytest.raises(subspan.dask.NoWorkersError, match="24 chunks"):
            subspan.dask.sample(table, 300, client=client, worker_timeout=2, output=tmp_path / "o.parquet")
        assert time.monotonic() - start < 30
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("job", [
    lambda table, folder, **engine: subspan.dask.sample(table, 300, output=folder / "o.parquet", **engine),
    lambda table, folder, **engine: subspan.dask.regress(table, "c0", 300, exclude=["kind"], **engine),
])
def test_all_workers_killed_is_an_error_in_bounded_time(table, tmp_path, monkeypatch, job):
    fold_all = subspan.dask._fold_all
    slow = lambda client, function, *rest: fold_all(client, functools.partial(slowly, function), *rest)  # noqa: E731
    monkeypatch.setattr(subspan.dask, "_fold_all", slow)
    # Worker processes without a nanny are not started again.
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as cluster:
        import subprocess

        call = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--no-nanny",
                "--nthreads", "1", "--no-dashboard"]
        workers = [subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
        try:
            with distributed.Client(cluster) as client:
                client.wait_for_workers(2, timeout=60)
                killer = threading.Timer(1.0, lambda: [worker.kill() for worker in workers])
                killer.start()
                start = time.monotonic()
                with pytest.raises(subspan.dask.NoWorkersError):
                    job(table, tmp_path, client=client, worker_timeout=2)
                assert time.monotonic() - start < 60
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    assert list(tmp_path.iterdir()) == []


def driver(table):
    return _cluster.Driver(table, _sample.table_options(None, ["kind"], "error"))


def run(driver, fold_all):
    fields = _sample.job(2, 300, None, "auto", "poisson", True)
    return driver.sample(fields, 3, fold_all, None, None)


def states(function, task, n_chunks):
    return function(range(n_chunks), task)


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


@pytest.mark.parametrize("spoil, words", [
    (lambda all: all[:-1], "chunk 23 is missing"),
    (lambda all: [*all, all[4]], "chunk 4 is there twice"),
    (lambda all: [*all[:3], all[3][:-20] + b"x" + all[3][-19:], *all[4:]], "damaged"),
])
@pytest.mark.parametrize("in_pass", [1, 2, 3])
def test_a_fit_refuses_missing_double_and_damaged_states_in_every_pass(table, spoil, words, in_pass):
    job = _regress.Job(table, "c0", 300, random_state=3, exclude=["kind"])
    passes = []

    def fold_all(function, task, n_chunks):
        passes.append(task)
        return spoil(states(function, task, n_chunks)) if len(passes) == in_pass else states(function, task, n_chunks)

    with pytest.raises(ValueError, match=words):
        _cluster.Driver(job.path, job.options).regress(job, fold_all, None)
    assert len(passes) == in_pass


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
        _cluster.fold_chunks(str(other), driver(table).options, "job", shape, [0], b"")


def test_bytes_that_are_no_task_are_refused(table):
    opened = _native.Table(str(table), _sample.table_options(None, [], "error"))
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


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    import subspan.ray  # noqa: F401

    # Workers do not find this module.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_ray_gives_the_bits_of_a_local_run(ray, table, long_table):
    for settings in (dict(p=2), dict(p=1)):
        assert equal(subspan.ray.sample(table, 300, random_state=3, **settings),
                     subspan.sample(table, 300, random_state=3, **settings))
    for settings in (dict(n_rows=500), dict(exact=True), dict(exact=True, loss="huber")):
        assert equal_fits(subspan.ray.regress(long_table, "y", random_state=3, **settings),
                          subspan.regress(long_table, "y", random_state=3, **settings))


def marked(folder, seconds, *work):
    """Leaves its process id and its chunks, takes its time for each."""
    *job, chunks, task = work
    states = []
    for chunk in chunks:
        (folder / f"{os.getpid()}-{chunk}").touch()
        time.sleep(seconds)
        states += _cluster.fold_chunks(*job, [chunk], task)
    return states


def marking(folder, seconds, in_pass, monkeypatch):
    """Makes the workers of a pass slow and seen; returns the tasks of the passes so far."""
    passes = []
    folder_of = subspan.ray._folder

    def watched(*engine):
        fold_all = folder_of(*engine)

        def fold(function, task, n_chunks):
            passes.append(task)
            if len(passes) == in_pass:
                function = functools.partial(marked, folder, seconds, *function.args)
            return fold_all(function, task, n_chunks)

        return fold

    monkeypatch.setattr(subspan.ray, "_folder", watched)
    return passes


RAY_JOBS = [
    (lambda table: subspan.ray.sample(table, 300, p=2, random_state=3),
     lambda table: subspan.sample(table, 300, p=2, random_state=3), equal),
    (lambda table: subspan.ray.regress(table, "c0", 300, random_state=3),
     lambda table: subspan.regress(table, "c0", 300, random_state=3), equal_fits),
]


@pytest.mark.parametrize("kill_in_pass", [1, 2])
@pytest.mark.parametrize("spread, local, same", RAY_JOBS)
def test_a_killed_ray_worker_changes_nothing(ray, table, tmp_path, monkeypatch, spread, local, same, kill_in_pass):
    passes = marking(tmp_path, 0.15, kill_in_pass, monkeypatch)
    seen = {}

    def kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            marks = [mark.name.split("-") for mark in tmp_path.iterdir()]
            if len(marks) >= 4:
                newest = max(marks, key=lambda mark: int(mark[1]))
                seen.update(pid=int(newest[0]), begun=len(marks))
                os.kill(seen["pid"], signal.SIGKILL)
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    found = spread(table)
    killer.join()
    assert len(passes) >= 2 and 0 < seen["begun"] < N_CHUNKS
    chunks = [mark.name.split("-")[1] for mark in tmp_path.iterdir()]
    assert len(chunks) > len(set(chunks)) == N_CHUNKS, "no chunk was folded again"
    assert same(found, local(table))


def test_a_ray_pass_that_takes_too_long_is_an_error_without_an_output(ray, table, tmp_path, monkeypatch):
    marks = tmp_path / "marks"
    marks.mkdir()
    marking(marks, 5.0, 2, monkeypatch)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="more than 8 s"):
        subspan.ray.sample(table, 300, timeout=8, output=tmp_path / "o.parquet")
    assert time.monotonic() - start < 60
    assert not (tmp_path / "o.parquet").exists()
