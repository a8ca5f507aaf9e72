"""The wheel's speed: scores against NumPy, overhead of a call, time to import, memory, and a local Dask cluster.

    pip install . distributed && python benches/rivals/wheel.py [--out FILE.json] [--rows 10000000]

Needs 5 GB of memory and, for the Dask part, 1 GB of disk; a few minutes. Every figure is the best of several runs.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import subspan


def best(run, times=5):
    """Seconds of the fastest run."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def gram_cholesky(a):
    inverse = np.linalg.inv(np.linalg.cholesky(a.T @ a))
    return np.sum((a @ inverse.T) ** 2, axis=1)


def qr(a):
    return np.sum(np.linalg.qr(a)[0] ** 2, axis=1)


def scores():
    """Seconds for leverage scores, and how often as fast as NumPy."""
    out = {}
    for n_cols in (20, 100):
        a = np.random.default_rng(0).standard_normal((1_000_000, n_cols))
        ours = best(lambda: subspan.leverage_scores(a))
        out[f"1000000x{n_cols}"] = {
            "seconds": ours,
            "over_gram_cholesky": best(lambda: gram_cholesky(a), 3) / ours,
            "over_qr": best(lambda: qr(a), 1) / ours,
            "single_precision_seconds": best(lambda: subspan.leverage_scores(a.astype(np.float32)), 3),
        }
    return out


def overhead():
    """Microseconds of a call with next to nothing to do: the median of many."""
    tiny = np.eye(2)
    seconds = []
    for _ in range(5000):
        start = time.perf_counter()
        subspan.leverage_scores(tiny)
        seconds.append(time.perf_counter() - start)
    return 1e6 * float(np.median(seconds))


def import_time():
    """Milliseconds of `import subspan`, and those of NumPy that it includes."""
    def spent(what):
        call = f"import time; t = time.perf_counter(); import {what}; print(time.perf_counter() - t)"
        return 1e3 * min(float(subprocess.check_output([sys.executable, "-c", call])) for _ in range(5))

    return {"subspan": spent("subspan"), "numpy": spent("numpy")}


MEMORY = """
import numpy as np, resource, subspan
a = np.random.default_rng(0).standard_normal((2_500_000, 100), dtype=np.float32)
subspan.leverage_scores(a[:1000])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
subspan.leverage_scores(a)
print(a.nbytes / 2**20, peak() - before)
"""


def memory():
    """MiB of an array, and MiB more that scoring it took (its 19 MiB of scores included)."""
    array, more = subprocess.check_output([sys.executable, "-c", MEMORY], text=True).split()
    return {"array_mib": float(array), "more_mib": float(more)}


def dask(n_rows):
    """Seconds to sample a file locally on two threads and with two Dask workers, once they have started."""
    import distributed
    import pyarrow as pa
    import pyarrow.parquet as pq

    import subspan.dask

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        rng = np.random.default_rng(0)
        with pq.ParquetWriter(path, pa.schema([(f"c{j}", pa.float32()) for j in range(20)])) as writer:
            for _ in range(80):
                part = rng.standard_normal((n_rows // 80, 20), dtype=np.float32)
                writer.write_table(pa.table({f"c{j}": part[:, j] for j in range(20)}))
        local = best(lambda: subspan.sample(path, 20_000, n_threads=2), 3)
        start = time.perf_counter()
        with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            with distributed.Client(cluster) as client:
                started = time.perf_counter() - start
                first = subspan.dask.sample(path, 20_000, client=client)
                spread = best(lambda: subspan.dask.sample(path, 20_000, client=client), 3)
        same = bool(np.array_equal(first.weights_, subspan.sample(path, 20_000).weights_))
    return {"rows": n_rows, "local": local, "start": started, "dask": spread, "ratio": spread / local, "same_bits": same}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--rows", type=int, default=10_000_000)
    arguments = arguments.parse_args()
    found = {"subspan": subspan.__version__, "numpy": np.__version__, "cores": os.cpu_count(), "import_ms": import_time()}
    found |= {"call_us": overhead(), "memory": memory(), "leverage_scores": scores(), "dask": dask(arguments.rows)}
    found["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
