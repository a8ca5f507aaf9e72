"""`subspan cluster` against scikit-learn on real and generated sets, labels in the scorer only.

    python benches/rivals/cluster.py --data DIR [--sets coil20,orl,...] [--seeds 5] [--out DIR]

DIR holds `mnist/`, `subspace/`, `text/` and `features/` as described in its own manifest; nothing of it is kept. Every set is clustered with
the number of classes given and, with --auto, without. Rivals get the rows centred and unit (as ours do), kNN-spectral also half-whitened PCA,
each by scikit-learn and with eigenvectors' rows brought to length one; SSC-OMP and EnSC get up to 6,000 unit rows, centred and not. Where ours
gets features of images (--features), k-means, the mixture, kNN-spectral and EnSC get those, too, as the winning preparation has them
("same_features").
Generated sets are drawn anew with every seed. Medians and worst cases over seeds go to run.json.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score
from sklearn.mixture import GaussianMixture

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import machine  # noqa: E402
from self_expressive import elastic_net, nearest, pursuits, scikit_spectral, spectral  # noqa: E402

ROOT = HERE.parents[1]


def idx(path, offset):
    return np.frombuffer(gzip.open(path).read(), dtype=np.uint8, offset=offset)


def mnist(data, part, count=None):
    prefix = {"train": "train", "test": "t10k"}[part]
    images = idx(data / "mnist" / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = idx(data / "mnist" / f"{prefix}-labels-idx1-ubyte.gz", 8)
    return images[:count], labels[:count]


def fashion(data, count=None):
    images = idx(data / "fashion_mnist" / "train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return images[:count], idx(data / "fashion_mnist" / "train-labels-idx1-ubyte.gz", 8)[:count]


def slices(x, y, count, seed):
    """The rows from `seed` times so many on, beginning again after the last whole slice."""
    at = seed % (len(y) // count) * count
    return x[at : at + count], y[at : at + count]


def subspace(data, name):
    archive = np.load(data / "subspace" / f"{name}.npz")
    return archive["x"], archive["y"].ravel()


def text(data, name):
    return np.load(data / "text" / f"{name}_minilm384.f16.npy"), np.load(data / "text" / f"{name}_labels.i16.npy")


def cifar(data):
    features = np.load(data / "features" / "cifar10_mobilenetv1_train_512.u8.npy")
    return features, np.load(data / "cifar10" / "cifar10_10k_2k_jpeg.npz")["train_y"]


def few(x, y, count, seed):
    """So many rows of every class."""
    rng = np.random.default_rng(seed)
    keep = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:count] for c in np.unique(y)])
    return x[keep], y[keep]


def both_parts(data):
    (a, b), (c, d) = mnist(data, "train"), mnist(data, "test")
    return np.concatenate([a, c]), np.concatenate([b, d])


def falling(classes, last):
    """Geometrically falling shares of classes, from one to the last."""
    return {c: last ** (i / (len(classes) - 1)) for i, c in enumerate(classes)}


def drawn(x, y, rng, share):
    """Every row with the probability that its class has."""
    keep = rng.random(len(y)) < np.vectorize(share.get)(y)
    return x[keep], y[keep]


def thinned(x, y, rng, kind):
    """Odd classes halved, or classes of geometrically falling size down to a tenth."""
    classes = np.unique(y)
    share = {c: 0.5 if i % 2 else 1.0 for i, c in enumerate(classes)} if kind == "odd" else falling(classes, 0.1)
    return drawn(x, y, rng, share)


def imbalanced(data, seed, kind, load=lambda d: mnist(d, "test", 5000)):
    return thinned(*load(data), np.random.default_rng(seed), kind)


def shuffled_tail(x, y, seed):
    """Classes in a random order, of geometrically falling size down to a fifth, a tenth or a twentieth, by the seed."""
    rng = np.random.default_rng(100 + seed)
    classes = rng.permutation(np.unique(y))
    return drawn(x, y, rng, falling(classes, 1 / (5, 10, 20)[seed % 3]))


def union_of_subspaces(seed, ambient, count, dim, per, noise):
    """Points evenly on the unit sphere of random subspaces, and noise of that length in all directions together."""
    rng = np.random.default_rng(seed)
    x, y = [], []
    for c in range(count):
        basis = np.linalg.qr(rng.normal(size=(ambient, dim)))[0]
        points = rng.normal(size=(per, dim))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        x.append(points @ basis.T + noise / np.sqrt(ambient) * rng.normal(size=(per, ambient)))
        y.append(np.full(per, c))
    return np.concatenate(x).astype(np.float32), np.concatenate(y)


def curve_and_point(seed):
    """100 points along most of a circle on the sphere, 100 at a place beside it."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(0, 1.5 * np.pi, 100)
    curve = np.stack([np.cos(t), np.sin(t), np.full(100, 0.3)], 1)
    point = np.array([0.0, 0.0, -1.0]) + np.zeros((100, 3))
    x = np.concatenate([curve, point]) + 0.02 * rng.normal(size=(200, 3))
    return x.astype(np.float32), np.repeat([0, 1], 100)


def trefoils(seed):
    """Two trefoil knots of 500 points in R^100, in subspaces of their own that share the origin."""
    rng = np.random.default_rng(seed)
    x = []
    for _ in range(2):
        t = rng.uniform(0, 2 * np.pi, 500)
        knot = np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], 1)
        basis = np.linalg.qr(rng.normal(size=(100, 3)))[0]
        x.append(knot @ basis.T + 0.02 * rng.normal(size=(500, 100)))
    return np.concatenate(x).astype(np.float32), np.repeat([0, 1], 500)


def double_spiral(seed):
    """Two spirals on the sphere that wind around each other, 500 points each."""
    rng = np.random.default_rng(seed)
    x = []
    for turn in (0.0, np.pi):
        t = rng.uniform(0.15, 1.0, 500)
        polar, around = 0.5 * np.pi * t, 2 * np.pi * t + turn
        x.append(np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], 1))
    x = np.concatenate(x) + 0.01 * rng.normal(size=(1000, 3))
    return x.astype(np.float32), np.repeat([0, 1], 500)


def digits():
    found = load_digits()
    return found.data.astype(np.float32), found.target


SCATTERING = ["--features", "scattering"]
TURNED = ["--features", "scattering-turned"]
UNEQUAL = [*TURNED, "--unequal"]
CONV4 = ["--features", "conv4"]
OMP = ["--affinity", "omp"]
# What makes a set of data and a seed, and the flags that it needs.
SETS = {
    "orl": (lambda d, s: subspace(d, "orl_32x32"), []),
    "extended_yale_b": (lambda d, s: subspace(d, "extended_yale_b_48x42"), []),
    "coil20": (lambda d, s: subspace(d, "coil20_32x32"), []),
    "digits": (lambda d, s: digits(), []),
    "mnist_5k_scattering": (lambda d, s: mnist(d, "test", 5000), SCATTERING),
    "banking77": (lambda d, s: text(d, "banking77"), []),
    "clinc150": (lambda d, s: text(d, "clinc150"), []),
    "coil20_10_per_class": (lambda d, s: few(*subspace(d, "coil20_32x32"), 10, s), []),
    "banking77_10_per_class": (lambda d, s: few(*text(d, "banking77"), 10, s), []),
    "clinc150_8_per_class": (lambda d, s: few(*text(d, "clinc150"), 8, s), []),
    "cifar10_mobilenet": (lambda d, s: cifar(d), []),
    "mnist_odd_halved": (lambda d, s: imbalanced(d, s, "odd"), SCATTERING),
    "mnist_long_tail": (lambda d, s: imbalanced(d, s, "tail"), SCATTERING),
    "subspaces_5x6_in_9_n250": (lambda d, s: union_of_subspaces(s, 9, 5, 6, 250, 0.0), OMP),
    "subspaces_5x6_in_9_n1000": (lambda d, s: union_of_subspaces(s, 9, 5, 6, 1000, 0.0), OMP),
    "subspaces_10x6_in_100": (lambda d, s: union_of_subspaces(s, 100, 10, 6, 200, 0.0), []),
    "subspaces_10x6_in_100_noise_0.2": (lambda d, s: union_of_subspaces(s, 100, 10, 6, 200, 0.2), []),
    "subspaces_10x6_in_100_noise_0.4": (lambda d, s: union_of_subspaces(s, 100, 10, 6, 200, 0.4), []),
    "curve_and_point": (lambda d, s: curve_and_point(s), []),
    "trefoils": (lambda d, s: trefoils(s), []),
    "double_spiral": (lambda d, s: double_spiral(s), []),
    "mnist_10k": (lambda d, s: mnist(d, "test"), []),
    "mnist_70k_scattering": (lambda d, s: both_parts(d), SCATTERING),
    "mnist_70k_long_tail": (lambda d, s: imbalanced(d, s, "tail", both_parts), SCATTERING),
    "mnist_5k_turned": (lambda d, s: mnist(d, "test", 5000), TURNED),
    "mnist_odd_halved_turned": (lambda d, s: imbalanced(d, s, "odd"), TURNED),
    "mnist_long_tail_turned": (lambda d, s: imbalanced(d, s, "tail"), TURNED),
    "mnist_slices_turned": (lambda d, s: slices(*mnist(d, "train"), 5000, s), TURNED),
    "mnist_shuffled_tails_turned": (lambda d, s: shuffled_tail(*slices(*mnist(d, "train"), 6000, s), s), TURNED),
    "mnist_70k_long_tail_turned": (lambda d, s: imbalanced(d, s, "tail", both_parts), TURNED),
    "fashion_slices_turned": (lambda d, s: slices(*fashion(d), 5000, s), TURNED),
    "fashion_shuffled_tails_turned": (lambda d, s: shuffled_tail(*slices(*fashion(d), 8000, s), s), TURNED),
    "mnist_5k_unequal": (lambda d, s: mnist(d, "test", 5000), UNEQUAL),
    "mnist_odd_halved_unequal": (lambda d, s: imbalanced(d, s, "odd"), UNEQUAL),
    "mnist_long_tail_unequal": (lambda d, s: imbalanced(d, s, "tail"), UNEQUAL),
    "mnist_70k_long_tail_unequal": (lambda d, s: imbalanced(d, s, "tail", both_parts), UNEQUAL),
    "mnist_5k_conv4": (lambda d, s: mnist(d, "test", 5000), CONV4),
    "mnist_long_tail_conv4": (lambda d, s: imbalanced(d, s, "tail"), CONV4),
    "coil20_conv4": (lambda d, s: subspace(d, "coil20_32x32"), CONV4),
    "fashion_mnist_5k_conv4": (lambda d, s: fashion(d, 5000), CONV4),
}


def scores(found, truth):
    kept = found >= 0
    table = np.zeros((found.max() + 1, truth.max() + 1), dtype=np.int64)
    np.add.at(table, (found[kept], truth[kept]), 1)
    rows, columns = linear_sum_assignment(-table)
    return {"accuracy": table[rows, columns].sum() / len(truth), "nmi": normalized_mutual_info_score(truth, found)}


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "subspan"


def ours(folder, clusters, flags, seed, binary=BINARY):
    out = folder / "out"
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


def rivals(x, prepared, truth, clusters, seed, only=None):
    rows = unit(x - x.mean(0))
    if rows.shape[1] > 256 and len(rows) > 256:
        rows = PCA(256, random_state=0).fit_transform(rows)
    half = PCA(min(50, *x.shape), random_state=0).fit_transform(x)
    half = unit(half / np.sqrt(half.std(0)))

    def tied(points, cut):
        return cut(nearest(points, 10), clusters, seed)

    def pursued(points, steps=6):
        return spectral(*pursuits(points, [steps], [1e-6]).values(), clusters, seed)

    partitions = {
        "kmeans": lambda points: KMeans(clusters, n_init=10, random_state=seed).fit_predict(points),
        "gmm": lambda points: GaussianMixture(clusters, covariance_type="diag", random_state=seed, reg_covar=1e-4).fit_predict(points),
    }
    contestants = {
        "kmeans": lambda: partitions["kmeans"](rows),
        "gmm": lambda: partitions["gmm"](rows),
        "knn_spectral": lambda: tied(rows, scikit_spectral),
        "knn_spectral_half_whitened": lambda: tied(half, scikit_spectral),
        "knn_unit_spectral": lambda: tied(rows, spectral),
        "knn_unit_spectral_half_whitened": lambda: tied(half, spectral),
    }
    if len(rows) <= 6000:
        contestants |= {
            "ssc_omp": lambda: pursued(unit(x.astype(np.float64))),
            "ssc_omp_centered": lambda: pursued(unit((x - x.mean(0)).astype(np.float64))),
            "ensc": lambda: spectral(elastic_net(unit(x)), clusters, seed),
            "ensc_centered": lambda: spectral(elastic_net(unit(x - x.mean(0))), clusters, seed),
        }
        if prepared is not None:
            contestants["ensc_same_features"] = lambda: spectral(elastic_net(prepared), clusters, seed)
    if prepared is not None:
        for rival in ("kmeans", "gmm"):
            contestants[f"{rival}_same_features"] = lambda run=partitions[rival]: run(prepared)
        contestants["knn_spectral_same_features"] = lambda: tied(prepared, scikit_spectral)
        contestants["knn_unit_spectral_same_features"] = lambda: tied(prepared, spectral)
    if len(rows) > 20_000:
        # Its graph's eigenvectors take most of an hour there.
        contestants = {key: run for key, run in contestants.items() if key.startswith(("kmeans", "gmm"))}
    if seed == 0 and len(rows) <= 20_000:
        contestants["hdbscan"] = lambda: HDBSCAN(min_cluster_size=10).fit_predict(half)
    out = {}
    for name, run in contestants.items():
        if only and name not in only:
            continue
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


def arguments(doc, sets, seeds, folder):
    """The options of every comparison of `subspan cluster` with others."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", type=lambda s: s.split(","), default=list(sets))
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--flags", type=str.split, default=[], help="further flags of subspan cluster")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "runs" / folder)
    return parser


def opened(options):
    """The program built, and run.json with what it already has."""
    if not options.no_build:
        subprocess.run(["cargo", "build", "--release", "-p", "subspan-cli"], cwd=ROOT, check=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "run.json"
    return path, json.loads(path.read_text()) if path.exists() else {"machine": machine.describe(), "sets": {}}


def main():
    parser = arguments(__doc__, (s for s in SETS if not s.startswith("mnist_70k")), 5, "2026-11-25-cluster")
    parser.add_argument("--rival-seeds", type=int, default=None, help="seeds of the rivals (default: as many)")
    parser.add_argument("--rivals", type=lambda s: s.split(","), help="these rivals alone, such as kmeans,gmm")
    parser.add_argument("--auto", action="store_true", help="choose the number of clusters as well, once per set")
    options = parser.parse_args()
    path, run = opened(options)
    for name in options.sets:
        load, flags = SETS[name]
        runs = []
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            more = flags + options.flags
            for seed in range(options.seeds):
                x, truth = load(options.data, seed)
                truth = np.unique(truth, return_inverse=True)[1]
                clusters = int(truth.max()) + 1
                np.save(folder / "x.npy", x)
                np.save(folder / "y.npy", truth.astype(np.int64))
                row = {"seed": seed, "subspan": ours(folder, clusters, more, seed)}
                if seed < (options.seeds if options.rival_seeds is None else options.rival_seeds):
                    prepared = np.load(folder / "out" / "representation.npy") if "--features" in flags else None
                    row["rivals"] = rivals(x.reshape(len(x), -1).astype(np.float32), prepared, truth, clusters, seed, options.rivals)
                if options.auto and seed == 0:
                    row["auto"] = ours(folder, "auto", more, 0)
                    print(name, "auto", {k: v for k, v in row["auto"].items() if k in ("clusters", "interval", "accuracy", "nmi", "failure")}, flush=True)
                runs.append(row)
                print(name, seed, {k: v for k, v in row["subspan"].items() if k in ("accuracy", "nmi", "seconds", "failure")}, flush=True)
            entry = {"shape": list(x.shape), "classes": clusters, "flags": more, "summary": summary(runs), "runs": runs}
            if "auto" in runs[0]:
                entry["auto"] = runs[0]["auto"]
        run["sets"][name] = entry
        # After every set: a later one that dies takes nothing with it.
        path.write_text(json.dumps(run, indent=1) + "\n")
        print(name, json.dumps(entry["summary"]), flush=True)


if __name__ == "__main__":
    main()
