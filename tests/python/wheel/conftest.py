"""What the tests of the wheel share: tables, and the command line that came with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

COMMAND = Path(sys.executable).parent / ("subspan.exe" if os.name == "nt" else "subspan")


@pytest.fixture
def command(tmp_path):
    """Runs the wheel's command in a folder of its own; returns the run record."""

    def run(*arguments):
        call = [str(COMMAND), *map(str, arguments), "--json"]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def heavy_table(n_rows, n_cols, seed=0, dtype=np.float64):
    """Gaussian rows, some of them much longer than the others."""
    rng = np.random.default_rng(seed)
    lengths = np.abs(rng.standard_t(1.5, (n_rows, 1)))
    return (rng.standard_normal((n_rows, n_cols)) * lengths).astype(dtype)


def blobs_of_lines(n_rows, n_cols=6, n_classes=4, k=2, seed=0):
    """Samples near one random subspace per class."""
    rng = np.random.default_rng(seed)
    frames = [np.linalg.qr(rng.standard_normal((n_cols, k)))[0] for _ in range(n_classes)]
    y = rng.integers(0, n_classes, n_rows)
    x = np.array([frames[c] @ rng.standard_normal(k) for c in y]) + 0.05 * rng.standard_normal((n_rows, n_cols))
    return x, y
