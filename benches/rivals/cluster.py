"""`subspan cluster` against scikit-learn on real sets, labels in the scorer only.

    python benches/rivals/cluster.py --data DIR [--sets coil20,orl,...] [--seeds 5] [--out DIR]

DIR holds `mnist/`, `subspace/`, `text/` and `features/` as described in its own manifest; nothing of it is kept. Every set is clustered with
the number of classes given and, with --auto, without. Rivals get the rows centred and unit (as ours do), and the better of that and
half-whitened PCA for kNN-spectral. Medians and worst cases over seeds go to run.json.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import HDBSCAN, KMeans, SpectralClustering
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import kneighbors_graph

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import machine  # noqa: E402

ROOT = HERE.parents[1]


def idx(path, offset):
    return np.frombuffer(gzip.open(path).read(), dtype=np.uint8, offset=offset)


def mnist(data, part, count=None):
    prefix = {"train": "train", "test": "t10k"}[part]
    images = idx(data / "mnist" / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = idx(data / "mnist" / f"{prefix}-labels-idx1-ubyte.gz", 8)
    return images[:count], labels[:count]


def subspace(data, name):
    archive = np.load(data / "subspace" / f"{name}.npz")
    return archive["x"], archive["y"].ravel()


def text(data, name):
    return np.load(data / "text" / f"{name}_minilm384.f16.npy"), np.load(data / "text" / f"{name}_labels.i16.npy")


def cifar(data):
    features = np.load(data / "features" / "cifar10_mobilenetv1_train_512.u8.npy")
    return features, np.load(data / "cifar10" / "cifar10_10k_2k_jpeg.npz")["train_y"]


def both_parts(data):
    (a, b), (c, d) = mnist(data, "train"), mnist(data, "test")
    return np.concatenate([a, c]), np.concatenate([b, d])


SETS = {
    "coil20": (lambda d: subspace(d, "coil20_32x32"), []),
    "orl": (lambda d: subspace(d, "orl_32x32"), []),
    "extended_yale_b": (lambda d: subspace(d, "extended_yale_b_48x42"), []),
    "banking77": (lambda d: text(d, "banking77"), []),
    "clinc150": (lambda d: text(d, "clinc150"), []),
    "cifar10_mobilenet": (cifar, []),
    "mnist_10k": (lambda d: mnist(d, "test"), []),
    "mnist_5k_scattering": (lambda d: mnist(d, "test", 5000), ["--features", "scattering"]),
    "mnist_70k_scattering": (both_parts, ["--features", "scattering"]),
}


def scores(found, truth):
    kept = found >= 0
    table = np.zeros((found.max() + 1, truth.max() + 1), dtype=np.int64)
    np.add.at(table, (found[kept], truth[kept]), 1)
    rows, columns = linear_sum_assignment(-table)
    return {"accuracy": table[rows, columns].sum() / len(truth), "nmi": normalized_mutual_info_score(truth, found)}


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def ours(folder, clusters, flags, seed):
    out = folder / "out"
    binary = ROOT / "target" / "release" / "subspan"
    command = [binary, "cluster", folder / "x.npy", "--clusters", str(clusters), "--truth", folder / "y.npy", "--seed", str(seed),
               "--json", "-q", "-o", out, *flags]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        return {"failure": done.stderr.strip()}
    record = json.loads(done.stdout)
    results = record["results"]
    kept = ("accuracy", "nmi", "ari", "clusters", "interval", "chosen_by", "anchor_agreement", "learned")
    out = {key: results[key] for key in kept if key in results}
    out["chosen"] = {k: v for k, v in results["candidates"][results["chosen"]].items() if k != "information"}
    return out | {"seconds": record["seconds"]["total"], "peak_rss_bytes": record["peak_rss_bytes"]}


def rivals(x, truth, clusters, seed):
    rows = unit(x - x.mean(0))
    if rows.shape[1] > 256 and len(rows) > 256:
        rows = PCA(256, random_state=0).fit_transform(rows)
    half = PCA(min(50, *x.shape), random_state=0).fit_transform(x)
    half = unit(half / np.sqrt(half.std(0)))

    def spectral(points, k):
        graph = kneighbors_graph(points, k, mode="connectivity", include_self=False)
        method = SpectralClustering(clusters, affinity="precomputed", random_state=seed, assign_labels="kmeans")
        return method.fit_predict(0.5 * (graph + graph.T))

    contestants = {
        "kmeans": lambda: KMeans(clusters, n_init=10, random_state=seed).fit_predict(rows),
        "gmm": lambda: GaussianMixture(clusters, covariance_type="diag", random_state=seed, reg_covar=1e-4).fit_predict(rows),
        "knn_spectral": lambda: spectral(rows, 10),
        "knn_spectral_half_whitened": lambda: spectral(half, 10),
    }
    if seed == 0 and len(rows) <= 20_000:
        contestants["hdbscan"] = lambda: HDBSCAN(min_cluster_size=10).fit_predict(half)
    out = {}
    for name, run in contestants.items():
        start = time.perf_counter()
        try:
            out[name] = scores(np.asarray(run()), truth)
        except (ValueError, MemoryError, np.linalg.LinAlgError) as e:
            out[name] = {"failure": str(e)[:200]}
        out[name]["seconds"] = time.perf_counter() - start
    return out


def summary(runs):
    """Median and worst of accuracy and NMI of every contestant."""
    names = {"subspan": [r["subspan"] for r in runs]}
    for r in runs:
        for name, value in r.get("rivals", {}).items():
            names.setdefault(name, []).append(value)
    out = {}
    for name, values in names.items():
        good = [v for v in values if "accuracy" in v]
        if good:
            out[name] = {m: {"median": float(np.median([v[m] for v in good])), "worst": min(v[m] for v in good)} for m in ("accuracy", "nmi")}
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", type=lambda s: s.split(","), default=[s for s in SETS if s != "mnist_70k_scattering"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rival-seeds", type=int, default=None, help="seeds of the rivals (default: as many)")
    parser.add_argument("--auto", action="store_true", help="choose the number of clusters as well, once per set")
    parser.add_argument("--flags", default="", help="further flags of subspan cluster")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "runs" / "2026-11-24-cluster")
    options = parser.parse_args()
    if not options.no_build:
        subprocess.run(["cargo", "build", "--release", "-p", "subspan-cli"], cwd=ROOT, check=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "run.json"
    run = json.loads(path.read_text()) if path.exists() else {"machine": machine.describe(), "sets": {}}
    for name in options.sets:
        load, flags = SETS[name]
        x, truth = load(options.data)
        truth = np.unique(truth, return_inverse=True)[1]
        clusters = int(truth.max()) + 1
        flat = x.reshape(len(x), -1).astype(np.float32)
        runs = []
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            np.save(folder / "x.npy", x)
            np.save(folder / "y.npy", truth.astype(np.int64))
            more = flags + options.flags.split()
            for seed in range(options.seeds):
                row = {"seed": seed, "subspan": ours(folder, clusters, more, seed)}
                if seed < (options.seeds if options.rival_seeds is None else options.rival_seeds):
                    row["rivals"] = rivals(flat, truth, clusters, seed)
                runs.append(row)
                print(name, seed, {k: v for k, v in row["subspan"].items() if k in ("accuracy", "nmi", "seconds")}, flush=True)
            entry = {"shape": list(x.shape), "classes": clusters, "flags": more, "summary": summary(runs), "runs": runs}
            if options.auto:
                entry["auto"] = ours(folder, "auto", more, 0)
        run["sets"][name] = entry
        # After every set: a later one that dies takes nothing with it.
        path.write_text(json.dumps(run, indent=1) + "\n")
        print(name, json.dumps(entry["summary"]), flush=True)


if __name__ == "__main__":
    main()
