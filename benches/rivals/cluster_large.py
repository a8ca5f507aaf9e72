"""Ten million rows clustered through a weighted sample: sample, cluster, predict, each a command of its own.

    python benches/rivals/cluster_large.py [--rows 10000000] [--sample 5000] [--runs given,unequal,...] [--json FILE]

The table is generated (20 columns, 12 classes of a fifth to an eightieth of the rows each, every class near a plane of its own with noise in all
directions) and deleted afterwards. The labels of all rows are compared with the classes. The same sample with its weights ignored shows
what they are for, and with --unequal what is gained by saying that sizes differ. Runs that FILE already has and that are not repeated stay in it.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import normalized_mutual_info_score

import machine

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "subspan"
COLUMNS, CLASSES, BLOCK = 20, 12, 1_000_000
RUNS = {
    "given": ["--clusters", CLASSES],
    "auto": [],
    "weights_ignored": ["--clusters", CLASSES, "--weights", "none"],
    "unequal": ["--clusters", CLASSES, "--unequal"],
}


def generate(path, rows):
    rng = np.random.default_rng(0)
    # Geometric sizes.
    share = np.geomspace(1, 1 / 15, CLASSES)
    share /= share.sum()
    bases = rng.normal(size=(CLASSES, 2, COLUMNS)) / np.sqrt(COLUMNS)
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, COLUMNS))
    truth = np.empty(rows, np.int8)
    for first in range(0, rows, BLOCK):
        n = min(BLOCK, rows - first)
        y = rng.choice(CLASSES, n, p=share)
        along = np.stack([2 + 0.3 * rng.normal(size=n), 0.5 * rng.normal(size=n)], 1)
        table[first : first + n] = np.einsum("nk,nkd->nd", along, bases[y]) + 0.1 * rng.normal(size=(n, COLUMNS)) / np.sqrt(COLUMNS) * 4
        truth[first : first + n] = y
    table.flush()
    return truth, share


def run(*arguments):
    start = time.perf_counter()
    process = subprocess.Popen([BINARY, *map(str, arguments), "--json", "-q"], stdout=subprocess.PIPE, text=True)
    record = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return record, {"seconds": time.perf_counter() - start, "peak_rss_bytes": 1024 * usage.ru_maxrss}


def score(found, truth):
    table = np.zeros((found.max() + 1, CLASSES), np.int64)
    np.add.at(table, (found, truth), 1)
    a, b = linear_sum_assignment(-table)
    return {"accuracy": float(table[a, b].sum() / len(truth)), "nmi": float(normalized_mutual_info_score(truth, found))}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--sample", type=int, default=5000)
    parser.add_argument("--runs", type=lambda s: s.split(","), default=list(RUNS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    before = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    out = before | {"machine": machine.describe(), "rows": options.rows, "columns": COLUMNS, "classes": CLASSES}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        truth, share = generate(folder / "x.npy", options.rows)
        out["class_shares"] = sorted(share.tolist(), reverse=True)
        record, out["sample"] = run("sample", folder / "x.npy", "--rows", options.sample, "-o", folder / "s.parquet")
        out["sample"]["rows"] = record["results"]["rows_out"]
        for name in options.runs:
            record, entry = run("cluster", folder / "s.parquet", *RUNS[name], "-o", folder / name)
            results = record["results"]
            entry |= {"clusters": results["clusters"], "interval": results.get("interval"), "shares": results["shares"]}
            _, entry["predict"] = run("predict", folder / name / "model.safetensors", folder / "x.npy", "-o", folder / "y.npy")
            entry |= score(np.load(folder / "y.npy"), truth)
            out[name] = entry
            print(name, {k: entry[k] for k in ("clusters", "accuracy", "nmi", "seconds")}, "predict", entry["predict"], flush=True)
            if options.json:
                options.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
