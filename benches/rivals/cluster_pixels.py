"""Images clustered by their pixels, by wavelets and by a network trained on them, K given, labels in the scorer only.

    python benches/rivals/cluster_pixels.py --data DIR [--sets mnist_5k,...] [--features raw,...] [--seeds 3] [--out DIR]

DIR holds `mnist/`, `fashion_mnist/` and `subspace/` as described in its own manifest; nothing of it is kept. Every run is one call of
`subspan cluster` with the usual settings on one thread. Runs that run.json already has are not repeated; summary.md is made of all of them.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import machine
from cluster import BINARY, ROOT, fashion, mnist, ours, subspace


SETS = {
    "mnist_5k": lambda d: mnist(d, "train", 5000),
    "fashion_mnist_5k": lambda d: fashion(d, 5000),
    "coil20": lambda d: subspace(d, "coil20_32x32"),
}
FEATURES = ["raw", "scattering", "conv4"]


def table(run):
    """A row per set and kind of features: median and worst of accuracy and NMI, and the seconds of a run."""
    lines = ["| images | features | seeds | accuracy, median (worst) | NMI, median (worst) | seconds |", "|--|--|--|--|--|--|"]
    for name, kinds in run["sets"].items():
        for kind in FEATURES:
            good = [r for r in kinds.get(kind, {}).values() if "accuracy" in r]
            if good:
                figures = [[r[m] for r in good] for m in ("accuracy", "nmi")]
                cells = [f"{np.median(f):.3f} ({min(f):.3f})" for f in figures]
                seconds = f"{np.median([r['seconds'] for r in good]):.0f}"
                lines.append(f"| {name} | {kind} | {len(good)} | {cells[0]} | {cells[1]} | {seconds} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", type=lambda s: s.split(","), default=list(SETS))
    parser.add_argument("--features", type=lambda s: s.split(","), default=FEATURES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--binary", type=Path, help="another program than the release build")
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "runs" / "2026-11-28-cluster-pixels")
    options = parser.parse_args()
    if options.binary is None:
        subprocess.run(["cargo", "build", "--release", "-p", "subspan-cli"], cwd=ROOT, check=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "run.json"
    run = json.loads(path.read_text()) if path.exists() else {"machine": machine.describe(), "sets": {}}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in options.sets:
            x, truth = SETS[name](options.data)
            truth = np.unique(truth, return_inverse=True)[1]
            np.save(folder / "x.npy", x)
            np.save(folder / "y.npy", truth.astype(np.int64))
            for kind in options.features:
                runs = run["sets"].setdefault(name, {}).setdefault(kind, {})
                for seed in range(options.seeds):
                    if str(seed) not in runs:
                        flags = ["--features", kind, "--threads", "1"]
                        runs[str(seed)] = ours(folder, int(truth.max()) + 1, flags, seed, options.binary or BINARY)
                        # After every run: a later one that dies takes nothing with it.
                        path.write_text(json.dumps(run, indent=1) + "\n")
                    print(name, kind, seed, {k: runs[str(seed)].get(k) for k in ("accuracy", "nmi", "seconds", "failure")}, flush=True)
    notes = options.out / "notes.md"
    text = f"# Clusters of images from their pixels\n\n{table(run)}\n"
    (options.out / "summary.md").write_text(text + ("\n" + notes.read_text() if notes.exists() else ""))


if __name__ == "__main__":
    main()
