"""Tables with fixed seeds: every contestant reads the same file."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

RARE_COLUMNS, RARE_ROWS = 4, 8


@dataclass
class Workload:
    """A table on disk. With a target, the target is the last column."""

    name: str
    path: Path
    n_rows: int
    n_cols: int
    note: str
    rare_columns: list = field(default_factory=list)

    def describe(self):
        return {"name": self.name, "n_rows": self.n_rows, "n_cols": self.n_cols, "note": self.note}


def design(kind, n_rows, n_cols, rng):
    """`gaussian`: unit normal entries. `heavy`: each row times |t_1.5|. `rare`: gaussian, but the first four columns are
    zero except on eight rows."""
    a = rng.standard_normal((n_rows, n_cols))
    if kind == "heavy":
        a *= np.abs(rng.standard_t(1.5, (n_rows, 1)))
    elif kind == "rare":
        rows = np.sort(rng.choice(n_rows, RARE_ROWS, replace=False))
        kept = a[rows, :RARE_COLUMNS].copy()
        a[:, :RARE_COLUMNS] = 0
        a[rows, :RARE_COLUMNS] = kept
    elif kind != "gaussian":
        raise ValueError(kind)
    return a


def regression(folder, kind, n_rows, n_cols):
    """A design of `n_cols` columns, coefficients of size one, t_2 noise; the target as one more column."""
    path = folder / f"regression-{kind}-{n_rows}x{n_cols}.npy"
    if not path.exists():
        rng = np.random.default_rng([2306, n_rows, n_cols])
        table = np.empty((n_rows, n_cols + 1))
        table[:, :-1] = design(kind, n_rows, n_cols, rng)
        table[:, -1] = table[:, :-1] @ rng.standard_normal(n_cols) + rng.standard_t(2, n_rows)
        save(path, table)
    rare = list(range(RARE_COLUMNS)) if kind == "rare" else []
    note = "t_2 noise; " + {"gaussian": "normal rows", "heavy": "rows scaled by |t_1.5|",
                            "rare": "4 columns live on 8 rows"}[kind]
    return Workload(f"{kind} {size(n_rows, n_cols)}", path, n_rows, n_cols, note, rare)


def matrix(folder, kind, n_rows, n_cols):
    """A design alone."""
    path = folder / f"matrix-{kind}-{n_rows}x{n_cols}.npy"
    if not path.exists():
        save(path, design(kind, n_rows, n_cols, np.random.default_rng([732, n_rows, n_cols])))
    return Workload(f"{kind} {size(n_rows, n_cols)}", path, n_rows, n_cols, kind)


def real(folder, data, name):
    """A public table from `data`, numeric columns and a column of ones; None when it is not there."""
    import pyarrow.parquet as pq

    file, target, features = {
        "casp": ("casp_protein.parquet", "RMSD", None),
        "flights3m": ("flights3m.parquet", "delay", ["month", "day", "hour", "minute", "distance"]),
    }[name]
    if data is None or not (Path(data) / file).exists():
        return None
    path = folder / f"real-{name}.npy"
    source = pq.read_table(Path(data) / file)
    features = features or [c for c in source.column_names if c != target]
    columns = [source.column(c).to_numpy().astype(float) for c in features]
    if not path.exists():
        save(path, np.column_stack([*columns, np.ones(source.num_rows), source.column(target).to_numpy()]))
    n_cols = len(features) + 1
    return Workload(f"{name} {size(source.num_rows, n_cols)}", path, source.num_rows, n_cols,
                    f"{target} on {', '.join(features)} and a constant")


def size(n_rows, n_cols):
    exponent = int(np.log10(n_rows))
    rows = f"10^{exponent}" if n_rows == 10**exponent else f"{n_rows}"
    return f"{rows} x {n_cols}"


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, array)
    partial.rename(path)
