"""Scores of arrays: right, of any layout, without copies; bad input is told apart."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import heavy_table

import subspan


def leverage(a):
    return np.sum(np.linalg.qr(a)[0] ** 2, axis=1)


def test_leverage_is_that_of_qr():
    a = heavy_table(40_000, 7)
    scores = subspan.leverage_scores(a)
    assert scores.dtype == np.float64 and scores.shape == (40_000,)
    np.testing.assert_allclose(scores, leverage(a), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [1, 1.5, 4])
def test_lewis_weights_are_the_fixed_point(p):
    a = heavy_table(2000, 5)
    w = subspan.lewis_weights(a, p)
    half = w ** (0.5 - 1 / p)
    np.testing.assert_allclose(leverage(half[:, None] * a), w, rtol=1e-5)


def test_sensitivities_lie_between_lewis_weights_and_their_share():
    a = heavy_table(200, 4)
    sigma, w = subspan.sensitivities(a, 1.5), subspan.lewis_weights(a, 1.5)
    assert (sigma <= w * (1 + 1e-4)).all() and (sigma >= w / 4**0.25 * (1 - 1e-4)).all()


@pytest.mark.parametrize("score", [
    subspan.leverage_scores, lambda x: subspan.lewis_weights(x, 1), lambda x: subspan.sensitivities(x[:300], 1),
])
def test_every_layout_gives_the_same_bits(score, tmp_path):
    a = heavy_table(20_000, 5, dtype=np.float32)
    expected = score(a.astype(np.float64))
    np.save(tmp_path / "a.npy", a)
    wide = np.zeros((40_000, 7), np.float32)
    wide[::2, 1:6] = a
    layouts = {
        "single": a,
        "by columns": np.asfortranarray(a),
        "double by columns": np.asfortranarray(a, dtype=np.float64),
        "strided": wide[::2, 1:6],
        "backwards": a[::-1].copy()[::-1],
        "mapped": np.load(tmp_path / "a.npy", mmap_mode="r"),
        "read-only": np.frombuffer(a.tobytes(), np.float32).reshape(a.shape),
    }
    for name, layout in layouts.items():
        assert np.array_equal(score(layout), expected), name


def test_integers_and_booleans_are_numbers():
    a = np.random.default_rng(0).integers(-3, 4, (100, 3))
    assert np.array_equal(subspan.leverage_scores(a), subspan.leverage_scores(a.astype(float)))
    assert subspan.leverage_scores(np.eye(3, dtype=bool)).tolist() == [1, 1, 1]
    assert subspan.leverage_scores([[1, 0], [0, 2]]).tolist() == [1, 1]


@pytest.mark.parametrize("x, words", [
    (np.array([["a", "b"]], dtype=object), "objects"),
    (np.array([["a", "b"]]), "must hold numbers"),
    (np.array([[1.0, np.nan], [2.0, 3.0]]), "NaN at row 0, column 1"),
    (np.array([[1.0, 2.0], [np.inf, 3.0]]), "inf at row 1, column 0"),
    (np.array([[1.0, np.nan]], np.float32), "NaN at row 0"),
    (np.ones(3), "2 dimensions, not 1"),
    (np.ones((2, 2, 2)), "2 dimensions, not 3"),
    (np.float64(1), "2 dimensions, not 0"),
    (np.ones((0, 3)), "0 sample"),
    (np.ones((3, 0)), "0 feature"),
    (np.ones((3, 2), ">f8"), "byte order"),
    (np.ones((3, 2), ">f4"), "byte order"),
    (np.ones((3, 2), complex), "[Cc]omplex"),
    (np.zeros((3, 2)), "zero"),
])
def test_bad_arrays_are_told_apart(x, words):
    for score in (subspan.leverage_scores, lambda x: subspan.lewis_weights(x, 1), lambda x: subspan.sample(x, 2)):
        with pytest.raises(ValueError, match=words):
            score(x)


@pytest.mark.parametrize("call, words", [
    (lambda x: subspan.lewis_weights(x, 0.5), "p must be a finite number of at least 1, not 0.5"),
    (lambda x: subspan.lewis_weights(x, "two"), "p must be a number"),
    (lambda x: subspan.leverage_scores(x, n_threads=0), "n_threads"),
    (lambda x: subspan.leverage_scores(x, n_threads=1.5), "whole number"),
    (lambda x: subspan.leverage_scores(x, progress=3), "progress"),
    (lambda x: subspan.sample(x), "n_rows or epsilon"),
    (lambda x: subspan.sample(x, -1), "negative"),
    (lambda x: subspan.sample(x, 0), "rows must be at least 1, not 0"),
    (lambda x: subspan.sample(x, 5, rule="best"), "rule must be one of auto"),
    (lambda x: subspan.sample(x, 5, draw="twice"), "draw must be one of"),
    (lambda x: subspan.sample(x, epsilon=2.0), "epsilon must be between 0 and 1, not 2"),
    (lambda x: subspan.sample(x, 5, random_state=-1), "random_state"),
    (lambda x: subspan.sample(x, 5, columns=["c0"]), "columns is for files"),
])
def test_bad_parameters_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(heavy_table(50, 3))


def test_threads_do_not_change_a_bit():
    a = heavy_table(100_000, 5)
    one, two = (subspan.leverage_scores(a, n_threads=n) for n in (1, 2))
    assert np.array_equal(one, two)


def test_progress_hears_every_phase_and_all_rows():
    heard = []
    a = heavy_table(50_000, 4)
    subspan.sample(a, 100, progress=lambda *told: heard.append(told))
    assert [name for name, done, _ in heard if name in ("score", "draw", "certify")]
    assert heard[-1][0] == "certify" and {"score", "draw"} <= {name for name, *_ in heard}
    assert max(done for name, done, _ in heard if name == "score") >= 50_000
    assert all(total in (None, 50_000) for *_, total in heard)


def test_what_progress_raises_ends_the_work():
    class Enough(Exception):
        pass

    def stop(*_):
        raise Enough

    with pytest.raises(Enough):
        subspan.lewis_weights(heavy_table(50_000, 4), 1, progress=stop)


def test_other_threads_of_python_run_meanwhile():
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    subspan.lewis_weights(heavy_table(200_000, 12), 1, n_threads=1)
    done.set()
    thread.join()
    assert len(ticks) > 10


def test_ctrl_c_stops_the_work():
    program = """
import numpy as np, os, signal, subspan, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
a = np.random.default_rng(0).standard_normal((400, 60))
threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    while True:
        subspan.lewis_weights(np.repeat(a, 200, axis=0), 1, n_threads=1)
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "stopped", done.stderr


def test_a_forked_child_starts_its_own_threads():
    program = """
import numpy as np, os, sys, subspan
a = np.random.default_rng(0).standard_normal((50_000, 4))
expected = subspan.leverage_scores(a)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(subspan.leverage_scores(a), expected) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


# What a call may need beside its 320 MB of input, in MB: a few blocks and its results, what docs/python.md says is kept, and about 40 that the
# allocator has not given back yet, whatever the input's size. A copy in double precision would be 640.
BESIDE = {
    "subspan.leverage_scores(a)": 60,
    "subspan.leverage_scores(a.T[:2].T)": 60,
    "subspan.lewis_weights(a, 1)": 80,
    "subspan.RowSampler(n_rows=100).fit(a)": 40,
    "subspan.RowSampler(p=1, n_rows=100).fit(a)": 240,
    "subspan.sample(a, 100)": 40,
    "subspan.LpRegressor(n_rows=10_000).fit(a, y)": 310,
    "subspan.LpRegressor(exact=True).fit(a, y)": 270,
    "subspan.LpRegressor('l2', exact=True).fit(a, y)": 160,
    "subspan.GrassmannClassifier(k=2, epochs=1).fit(a, c)": 160,
    "subspan.GrassmannClassifier(k=2, method='clafic').fit(a, c)": 160,
}


@pytest.mark.parametrize("call", BESIDE)
def test_a_large_array_is_not_copied(call):
    program = f"""
import numpy as np, resource, subspan
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
a = np.random.default_rng(0).standard_normal((2_000_000, 40), dtype=np.float32)
y = a[:, 0].astype(np.float64)
c = (y > 0).astype(np.int8)
full = a, y, c
a, y, c = a[:2000], y[:2000], c[:2000]
{call}
a, y, c = full
before = peak()
{call}
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < BESIDE[call], done.stdout


def test_importing_needs_neither_scikit_learn_nor_torch():
    program = "import sys, subspan; assert not {'sklearn', 'scipy', 'torch', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
