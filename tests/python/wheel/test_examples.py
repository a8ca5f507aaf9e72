"""The examples run and say what they promise; so do the docstrings."""

import doctest
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import subspan
import subspan._clustering
import subspan._estimators
import subspan._scores

EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "python").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path):
    if "torch" in path.read_text() and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("module", [subspan, subspan._scores, subspan._estimators, subspan._clustering, subspan._scattering])
def test_docstrings_are_true(module):
    assert doctest.testmod(module).failed == 0


def test_everything_public_is_documented_and_typed():
    stub = (Path(subspan.__file__).parent / "__init__.pyi").read_text()
    for name in subspan.__all__:
        assert name in stub
        if name != "__version__":
            assert getattr(subspan, name).__doc__
    assert {"leverage_scores", "ManifoldClustering", "torch", "dask"} <= set(dir(subspan))
    with pytest.raises(AttributeError, match="nothing"):
        subspan.nothing
