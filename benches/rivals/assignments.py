"""Assignment problems for `subspan` and the solvers of others."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment


def gauss(n, seed):
    """Minus the Gram matrix of independent Gaussian weights."""
    rng = np.random.default_rng(seed)
    return -(rng.standard_normal((n, 512), np.float32) @ rng.standard_normal((n, 512), np.float32).T)


def dead(n, seed):
    """Minus the Gram matrix of activations of rectifiers, a third of which are zero for every sample."""
    rng = np.random.default_rng(seed)
    side = lambda: np.maximum(rng.standard_normal((n, 512), np.float32), 0) * (rng.random((n, 1)) > 1 / 3)  # noqa: E731
    return -(side() @ side().T).astype(np.float32)


def of_lengths(n, seed):
    """Minus the Gram matrix of rows whose lengths are log-normal."""
    rng = np.random.default_rng(seed)
    side = lambda: rng.standard_normal((n, 512), np.float32) * np.exp(rng.standard_normal((n, 1), np.float32))  # noqa: E731
    return -(side() @ side().T)


def heavy(n, seed):
    """Costs without a mean (Cauchy)."""
    return np.random.default_rng(seed).standard_cauchy((n, n)).astype(np.float32)


def made_up(n):
    """Names and cost matrices: of side `n` two that are easy, of half that side three in which many rows want the same columns."""
    half = n // 2
    return [
        (f"uniform, n = {n}", np.random.default_rng(0).random((n, n), np.float32)),
        (f"gauss, n = {n}", gauss(n, 0)),
        (f"a third of the units dead, n = {half}", dead(half, 0)),
        (f"rows of very different lengths, n = {half}", of_lengths(half, 0)),
        (f"Cauchy, n = {half}", heavy(half, 0)),
    ]


def contestants():
    """Other assignment solvers that are installed: name -> function of a cost matrix that gives the columns."""
    found = {"scipy": lambda c: linear_sum_assignment(c)[1]}
    try:
        from lapjv import lapjv

        found["lapjv"] = lambda c: lapjv(c)[0]
    except ImportError:
        print("lapjv is not installed", file=sys.stderr)
    try:
        import lap

        found["lapx"] = lambda c: lap.lapjv(c)[1]
    except ImportError:
        print("lapx is not installed", file=sys.stderr)
    return found


def assignments(program, name, matrices, repeats):
    """Cold and warm seconds of Subspan, cold seconds of the others, in all."""
    print(f"{name}: {len(matrices)} assignment problems", file=sys.stderr)
    values = {}
    seconds = {}
    for rival, solve in contestants().items():
        runs = []
        for _ in range(repeats):
            start = time.perf_counter()
            columns = [solve(c) for c in matrices]
            runs.append(time.perf_counter() - start)
        seconds[rival] = runs
        values[rival] = [float(c[np.arange(len(j)), j].sum(dtype=np.float64)) for c, j in zip(matrices, columns)]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for k, matrix in enumerate(matrices):
            files.append(str(Path(folder) / f"{k}.npy"))
            np.save(files[-1], matrix)
        out = subprocess.run([str(program), "lap", str(repeats), *files], check=True, capture_output=True).stdout
    own = json.loads(out)
    seconds["subspan, cold"] = [sum(run) for run in own["cold"]]
    seconds["subspan, warm"] = [sum(run) for run in own["warm"]]
    scale = max(abs(v) for v in values["scipy"]) or 1.0
    off = max(abs(v - s) for pair, s in zip(own["values"], values["scipy"]) for v in pair) / scale
    return {"name": name, "seconds": seconds, "largest_value_difference": off, "certified": own["certified"]}
