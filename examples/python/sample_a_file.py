"""A few weighted rows of a file stand for all of it, for every linear model at once."""

import tempfile
from pathlib import Path

import numpy as np

import subspan

rng = np.random.default_rng(0)
table = rng.standard_normal((50_000, 6)) * np.abs(rng.standard_t(1.5, (50_000, 1)))

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "table.npy"
    np.save(path, table)
    drawn = subspan.sample(path, n_rows=2_000, p=1)

x = rng.standard_normal(6)
whole = np.abs(table @ x).sum()
small = drawn.weights_ @ np.abs(drawn.rows_ @ x)
print(f"{len(drawn)} of {len(table)} rows: the sum of |a x| is off by {small / whole - 1:+.2%}")
print(f"over all x a search found errors from {drawn.certificate_.lower:+.1%} to {drawn.certificate_.upper:+.1%}")

try:
    import matplotlib.pyplot as plt
except ImportError:
    pass
else:
    plt.hist(np.log10(drawn.weights_), bins=40)
    plt.xlabel("log10 of a row's weight")
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        plt.savefig(file)
