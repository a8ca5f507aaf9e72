"""What training does to a representation: `subspan cluster --method mlc` on real sets, labels in the scorer only.

    python benches/rivals/cluster_linear.py --data DIR [--sets coil20,orl,...] [--seeds 3] [--rows 5000] [--out DIR]

The paper's claim is that the learned representation is linear: every cluster near a subspace of few dimensions, different subspaces apart.
Compared are the rows as they come (centred, unit; for scattering the features that the projection prepared), the representation of the
projection and the one of the trained head, whichever was kept, on the same rows:

- ranks: directions that carry 95 % of the squares of a class or of a found cluster (median), effective rank (exponential of the entropy of the
  spectrum), and the same of all rows together, which is small if the representation collapsed;
- the coding rate of all rows over its largest possible value, and the mean absolute cosine of rows of different classes;
- clusterings that know nothing of `subspan`, number of clusters given: SSC-OMP and EnSC (sparse and elastic-net self-representation), and
  kNN-spectral. The first two get the rows as they come both centred and not, and the better counts.

Sets with more than --rows rows are cut to a seeded choice. Results go to run.json and summary.md after every set.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import kneighbors_graph

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import machine  # noqa: E402
from cluster import BINARY, ROOT, SETS, scores, unit  # noqa: E402

CHOSEN = ("coil20", "orl", "digits", "mnist_5k_scattering", "cifar10_mobilenet", "banking77")
# Sparse representations of rows near subspaces of few dimensions fall into many pieces: that is part of the result.
warnings.filterwarnings("ignore", message="Graph is not fully connected")
EPS2 = 0.1
METHODS = ("ssc_omp", "ensc", "knn_spectral")


def spectrum(rows):
    """Squared singular values, descending."""
    return np.linalg.svd(rows, compute_uv=False) ** 2


def ranks(rows):
    """Directions of 95 % of the squares, and the exponential of the spectrum's entropy."""
    share = spectrum(rows) / max((rows**2).sum(), 1e-300)
    share = share[share > 0]
    return int(np.searchsorted(np.cumsum(share), 0.95 - 1e-12) + 1), float(np.exp(-(share * np.log(share)).sum()))


def coding_rate(rows):
    """`logdet(I + d/(n eps2) Z'Z)` over the value of rows spread evenly over all dimensions."""
    n, d = rows.shape
    return float(np.log1p(d / (n * EPS2) * spectrum(rows)).sum() / (d * np.log1p(1 / EPS2)))


def shape(rows, classes, found):
    out = {"dimensions": rows.shape[1], "rate": coding_rate(rows)}
    out["rank_of_all"], out["effective_rank_of_all"] = ranks(rows)
    for name, labels in (("class", classes), ("cluster", found)):
        each = [ranks(rows[labels == c]) for c in np.unique(labels)]
        out[f"rank_of_{name}"], out[f"effective_rank_of_{name}"] = (float(np.median(v)) for v in zip(*each))
    cosines = np.abs(rows @ rows.T)
    out["cosine_apart"] = float(cosines[classes[:, None] != classes[None]].mean())
    return out


def pursuit(rows, steps=6):
    """Coefficients of each row by orthogonal matching pursuit over all others, at most `steps` of them."""
    gram = rows @ rows.T
    at, to, values = [], [], []
    for i, products in enumerate(gram):
        left, chosen, coefficients = products.copy(), [], np.zeros(0)
        for _ in range(steps):
            left[[i, *chosen]] = 0
            best = int(np.abs(left).argmax())
            if abs(left[best]) < 1e-6:
                break
            chosen.append(best)
            system = gram[np.ix_(chosen, chosen)]
            coefficients = np.linalg.lstsq(system, products[chosen], rcond=None)[0]
            left = products - coefficients @ gram[chosen]
        at += [i] * len(chosen)
        to += chosen
        values += list(np.abs(coefficients) / max(np.abs(coefficients).max(initial=0), 1e-12))
    found = csr_matrix((values, (at, to)), shape=gram.shape)
    return found + found.T


def elastic_net(rows, candidates=128, share=0.9, gain=50, iterations=120):
    """Coefficients of the elastic net `share |c|_1 + (1 - share)/2 |c|^2 + gamma/2 |x - X'c|^2` over the rows of largest absolute product, with
    `gamma` `gain` times where they all vanish (You, Li, Robinson, Vidal, CVPR 2016); by accelerated proximal steps, rows together."""
    gram = (rows @ rows.T).astype(np.float32)
    n, k = len(gram), min(candidates, len(gram) - 1)
    np.fill_diagonal(gram, 0)
    near = np.argpartition(-np.abs(gram), k - 1, axis=1)[:, :k]
    np.fill_diagonal(gram, 1)
    values = np.zeros((n, k), dtype=np.float32)
    for first in range(0, n, 64):
        own = slice(first, min(first + 64, n))
        parts = gram[near[own][:, :, None], near[own][:, None, :]]
        target = np.take_along_axis(gram[own], near[own], 1)
        gamma = gain * share / np.maximum(np.abs(target).max(1, keepdims=True), 1e-6)
        v = np.ones_like(target)
        for _ in range(10):
            v = np.matmul(parts, v[:, :, None])[:, :, 0]
            v /= np.linalg.norm(v, axis=1, keepdims=True)
        largest = 1.1 * np.linalg.norm(np.matmul(parts, v[:, :, None])[:, :, 0], axis=1, keepdims=True)
        step = 1 / (gamma * largest + 1 - share)
        c, ahead, t = np.zeros_like(target), np.zeros_like(target), 1.0
        for _ in range(iterations):
            slope = gamma * (np.matmul(parts, ahead[:, :, None])[:, :, 0] - target) + (1 - share) * ahead
            moved = ahead - step * slope
            new = np.sign(moved) * np.maximum(np.abs(moved) - step * share, 0)
            later = 0.5 * (1 + np.sqrt(1 + 4 * t * t))
            ahead, c, t = new + (t - 1) / later * (new - c), new, later
        values[own] = np.abs(c) / np.maximum(np.abs(c).max(1, keepdims=True), 1e-12)
    found = csr_matrix((values.ravel(), (np.repeat(np.arange(n), k), near.ravel())), shape=gram.shape)
    found.eliminate_zeros()
    return found + found.T


def spectral(graph, clusters, seed):
    method = SpectralClustering(clusters, affinity="precomputed", random_state=seed, assign_labels="kmeans")
    return method.fit_predict(graph)


def clusterings(versions, classes, seed):
    """SSC-OMP and EnSC on each version of the rows, the better counting, and kNN-spectral on the first."""
    clusters = int(classes.max()) + 1

    def best(represent):
        return max((scores(spectral(represent(rows), clusters, seed), classes) for rows in versions), key=lambda s: s["accuracy"])

    near = kneighbors_graph(versions[0], 10, mode="connectivity", include_self=False)
    return {"ssc_omp": best(pursuit), "ensc": best(elastic_net), "knn_spectral": scores(spectral(0.5 * (near + near.T), clusters, seed), classes)}


def measure(folder, x, classes, seed, flags):
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", classes.astype(np.int64))
    outcomes = {}
    for method in ("projection", "mlc"):
        command = [BINARY, "cluster", folder / "x.npy", "--clusters", classes.max() + 1, "--truth", folder / "y.npy", "--seed", seed,
                   "--method", method, "--json", "-q", "-o", folder / method, *flags]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
        outcomes[method] = json.loads(done.stdout)
    results = outcomes["mlc"]["results"]
    projected = np.load(folder / "projection" / "representation.npy").astype(np.float64)
    trained = np.load(folder / "mlc" / "trained-representation.npy").astype(np.float64)
    found = {"projection": np.load(folder / "projection" / "labels.npy"), "trained": np.load(folder / "mlc" / "trained-labels.npy")}
    spaces = {"projection": [projected], "trained": [trained]}
    if "scattering" not in flags:
        rows = x.reshape(len(x), -1).astype(np.float64)
        spaces["input"] = [unit(rows - rows.mean(0)), unit(rows)]
    out = {"learned": results["learned"], "seconds": outcomes["mlc"]["seconds"]["total"]}
    candidate = outcomes["projection"]["results"]
    out["prepared"] = candidate["candidates"][candidate["chosen"]]["preparation"]
    for name, versions in spaces.items():
        own = found["trained" if name == "trained" else "projection"]
        out[name] = shape(versions[0], classes, own) | clusterings(versions, classes, seed)
    return out


def summarize(run):
    lines = ["# What training does to the representation", "",
             f"Machine: {run['machine'].get('cpu', 'unknown')}. Medians over seeds; accuracy and NMI in per cent.", "",
             "| set | rows | representation | SSC-OMP | EnSC | kNN-spectral | rank per class | per cluster | of all | effective, class / all | rate | cosine apart |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|"]

    def middle(entry, *path):
        values = []
        for row in entry["runs"]:
            for key in path:
                row = row[key]
            values.append(row)
        return float(np.median(values))

    for name, entry in run["sets"].items():
        for space in [s for s in ("input", "projection", "trained") if s in entry["runs"][0]]:
            pair = {m: " / ".join(f"{100 * middle(entry, space, m, k):.1f}" for k in ("accuracy", "nmi")) for m in METHODS}
            of = lambda key: middle(entry, space, key)  # noqa: E731
            title = f"projection ({entry['runs'][0]['prepared']})" if space == "projection" else space
            lines.append(f"| {name} | {entry['shape'][0]} | {title} | {pair['ssc_omp']} | {pair['ensc']} | {pair['knn_spectral']} | {of('rank_of_class'):g} | "
                         f"{of('rank_of_cluster'):g} | {of('rank_of_all'):g} of {of('dimensions'):g} | {of('effective_rank_of_class'):.1f} / "
                         f"{of('effective_rank_of_all'):.1f} | {of('rate'):.2f} | {of('cosine_apart'):.2f} |")
    lines += ["", "What `subspan` makes of each, and which it kept (code length of held-out rows and coding length of all, in bits):", "",
              "| set | seed | trained: accuracy / NMI | bits | projection: accuracy / NMI | bits | kept |", "|---|---|---|---|---|---|---|"]
    for name, entry in run["sets"].items():
        for row in entry["runs"]:
            learned = row["learned"]
            side = lambda s: f"{100 * learned[s]['accuracy']:.1f} / {100 * learned[s]['nmi']:.1f}"  # noqa: E731
            lines.append(f"| {name} | {row['seed']} | {side('trained')} | {learned['held_out']:.2f}, {learned['coding_length']:.2f} | "
                         f"{side('projection')} | {learned['projection_held_out']:.2f}, {learned['projection_coding_length']:.2f} | {'trained' if learned['kept'] else 'projection'} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", type=lambda s: s.split(","), default=list(CHOSEN))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--flags", default="", help="further flags of subspan cluster")
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "runs" / "2026-11-28-cluster-linear")
    options = parser.parse_args()
    if not options.no_build:
        subprocess.run(["cargo", "build", "--release", "-p", "subspan-cli"], cwd=ROOT, check=True)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "run.json"
    run = json.loads(path.read_text()) if path.exists() else {"machine": machine.describe(), "sets": {}}
    for name in options.sets:
        load, flags = SETS[name]
        runs = []
        for seed in range(options.seeds):
            x, classes = load(options.data, seed)
            classes = np.unique(classes, return_inverse=True)[1]
            if len(x) > options.rows:
                kept = np.sort(np.random.default_rng(seed).permutation(len(x))[: options.rows])
                x, classes = x[kept], classes[kept]
            with tempfile.TemporaryDirectory() as folder:
                row = {"seed": seed} | measure(Path(folder), x, classes, seed, flags + options.flags.split())
            runs.append(row)
            print(name, seed, {s: {m: round(float(row[s][m]["accuracy"]), 3) for m in METHODS} for s in ("input", "projection", "trained") if s in row}, flush=True)
            run["sets"][name] = {"shape": list(x.shape), "classes": int(classes.max()) + 1, "flags": flags, "runs": runs}
            path.write_text(json.dumps(run, indent=1) + "\n")
            (options.out / "summary.md").write_text(summarize(run))


if __name__ == "__main__":
    main()
