"""`subspan sample` on files: wall time against two plain reads of the same file, and peak memory."""

import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import report
from processes import HERE, ROOT

BINARY = ROOT / "target" / "release" / "subspan"
BLOCK_BYTES = 8 << 20
SAMPLE_ROWS = 2000
#: Wall time in units of two reads of the file, and resident bytes besides the sample.
MAX_READS, MAX_RSS = 1.3, 200e6


def run(bench):
    shapes = {"npy": [(10**6, 20)], "parquet": [(10**6, 20)]} if bench.quick else {
        "npy": [(10**7, 20), (10**7, 32)], "parquet": [(10**7, 20)]}
    if bench.large:
        shapes["npy"].append((125_000_000, 20))
    return (section(bench, kind, *shape) for kind, of_kind in shapes.items() for shape in of_kind)


def section(bench, kind, n_rows, n_cols):
    path = bench.folder / f"stream-{n_rows}x{n_cols}.{kind}"
    print(f"{path.name}: generating", file=sys.stderr, flush=True)
    {"npy": write_npy, "parquet": write_parquet}[kind](path, n_rows, n_cols)
    size = path.stat().st_size
    try:
        records = [measure(bench, path, *case) for case in ((2, 2, "cold"), (2, 2, "warm"), (1, 2, "warm"), (2, 1, "warm"))]
    finally:
        path.unlink()
    rows = [[f"p = {r['p']}, {r['cache']}", r["threads"], spread(r["read"]), spread(r["decode"]), spread(r["wall"]),
             f"{r['ratio']:.2f}", f"{r['rss'] / 1e6:.0f} MB", r["passes"], phases(r)] for r in records]
    header = ["", "threads", "two reads, s", "two decodes (pyarrow), s", "wall, s", "wall / two reads", "peak RSS", "passes",
              "phases of the last run, s"]
    what = f"{n_rows} x {n_cols} {kind}"
    workload = {"name": what, "n_rows": n_rows, "n_cols": n_cols, "note": f"{size / 1e9:.2f} GB, rows scaled by |t_1.5|"}
    targets = []
    for r in records:
        if r["p"] == 2 and r["threads"] == 2:
            targets.append(report.target(f"{what}, {r['cache']}: wall / two reads", r["ratio"], MAX_READS, "at most"))
            targets.append(report.target(f"{what}, {r['cache']}: peak RSS - sample, MB", (r["rss"] - r["sample"]) / 1e6,
                                         MAX_RSS / 1e6, "at most"))
    return {"title": f"Out of core, {what}", "workload": workload, "records": records,
            "tables": [report.table(header, rows)], "targets": targets}


def measure(bench, path, p, threads, cache):
    """Interleaved: two reads, then a run that reads twice, under the same state of the page cache."""
    size = path.stat().st_size
    repeats = 3 if size > 8e9 else bench.repeats
    result = {"p": p, "threads": threads, "cache": cache, "read": [], "decode": [], "wall": [], "rss": 0}
    prepare = (lambda: drop_from_cache(path)) if cache == "cold" else (lambda: None)
    if cache == "warm":
        read(path)
    for seed in range(repeats):
        prepare()
        result["read"].append(timed(lambda: (read(path), read(path))))
        if path.suffix == ".parquet":
            prepare()
            result["decode"].append(timed(lambda: (decode(path), decode(path))))
        prepare()
        wall, rss, record, written = sample(path, p, threads, seed)
        result["wall"].append(wall)
        result["rss"] = max(result["rss"], rss)
        result |= {"passes": record["results"].get("passes", "-"), "sample": written, "phases": record["seconds"]}
        print(f"  {path.name} p={p} {threads} threads {cache}: wall {wall:.2f} s, two reads {result['read'][-1]:.2f} s, "
              f"RSS {rss / 1e6:.0f} MB", file=sys.stderr, flush=True)
    result["ratio"] = statistics.median(result["wall"]) / statistics.median(result["read"])
    return result


def sample(path, p, threads, seed):
    """Wall seconds, peak resident bytes and record of one run of the command line, and the size of its output."""
    output = path.with_name("sample.parquet")
    words = ["sample", path, "--rows", SAMPLE_ROWS, "-p", p, "--threads", threads, "--seed", seed, "--json", "-o", output]
    command = [sys.executable, str(HERE / "launch.py"), str(BINARY), *map(str, words)]
    figures, record = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n", 1)
    figures = json.loads(figures)
    if figures["status"] != 0:
        raise RuntimeError(f"subspan sample ended with {figures['status']}")
    written = output.stat().st_size
    output.unlink()
    return figures["wall"], figures["rss"], json.loads(record), written


def phases(record):
    return ", ".join(f"{name} {report.figure(s)}" for name, s in record["phases"].items() if name != "total")


def read(path):
    buffer = bytearray(BLOCK_BYTES)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def decode(path):
    import pyarrow.parquet as pq

    for _ in pq.ParquetFile(path).iter_batches(batch_size=65_536):
        pass


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def drop_from_cache(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def blocks(n_rows, n_cols):
    rng = np.random.default_rng([10, n_rows, n_cols])
    block = 250_000
    for first in range(0, n_rows, block):
        rows = min(block, n_rows - first)
        yield rng.standard_normal((rows, n_cols)) * np.abs(rng.standard_t(1.5, (rows, 1)))


def write_npy(path, n_rows, n_cols):
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (n_rows, n_cols)})
        for block in blocks(n_rows, n_cols):
            block.tofile(file)


def write_parquet(path, n_rows, n_cols):
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(f"c{j}", pa.float64()) for j in range(n_cols)])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for block in blocks(n_rows, n_cols):
            writer.write_table(pa.Table.from_arrays(list(np.ascontiguousarray(block.T)), schema=schema))


def spread(numbers):
    if not numbers:
        return "-"
    return f"{report.figure(statistics.median(numbers))} ({report.figure(min(numbers))}-{report.figure(max(numbers))})"
