"""Runs the built `subspan` binary on small files that the tests write.

The binary's path is $SUBSPAN_BIN, else target/debug/subspan of this checkout.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("SUBSPAN_BIN", ROOT / "target" / "debug" / "subspan"))


@dataclass
class Drawn:
    """A sample as its file and its run record tell it."""

    record: dict
    table: object

    @property
    def results(self):
        return self.record["results"]

    def __getitem__(self, column):
        return self.table.column(column).to_numpy()

    def matrix(self, n_cols):
        return np.column_stack([self[f"c{j}"] for j in range(n_cols)])


class Cli:
    """The command line, in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, *arguments):
        command = [str(BINARY), *map(str, arguments)]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60)

    def json(self, *arguments):
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def sample(self, table, *arguments):
        record = self.json("sample", table, *arguments, "-o", "sample.parquet")
        return Drawn(record, pq.read_table(self.folder / "sample.parquet"))

    def regress(self, table, target, *arguments):
        """The model file's content."""
        self.json("regress", table, "--target", target, *arguments, "-o", "model.json")
        return json.loads((self.folder / "model.json").read_text())

    def npy(self, name, array):
        np.save(self.folder / name, array)
        return name


@pytest.fixture(scope="session", autouse=True)
def binary_is_built():
    if not BINARY.is_file():
        pytest.exit(f"{BINARY} is missing: build the command line first", returncode=1)


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path)
