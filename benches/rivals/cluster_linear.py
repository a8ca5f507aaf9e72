"""What training does to a representation: `subspan cluster --method mlc` on real sets, labels in the scorer only.

    python benches/rivals/cluster_linear.py --data DIR [--sets coil20,orl,...] [--seeds 3] [--rows 5000] [--out DIR]

The paper's claim is that the learned representation is linear: every cluster near a subspace of few dimensions, different subspaces apart.
Compared are the rows as they come (centred, unit; pixels for conv4; for scattering the features that the projection prepared), the
representation of the projection (for conv4 of the backbone's features) and the one trained for the clusters that were kept, on the same rows:

- ranks: directions that carry 95 % of the squares of a class or of a found cluster (median), effective rank (exponential of the entropy of the
  spectrum), and the same of all rows together, which is small if the representation collapsed;
- the coding rate of all rows over its largest possible value, and the mean absolute cosine of rows of different classes;
- clusterings that know nothing of `subspan`, number of clusters given: SSC-OMP and EnSC (sparse and elastic-net self-representation), and
  kNN-spectral. They get the rows as they come both centred and not, eigenvectors both with unit rows and as scikit-learn takes them, SSC-OMP
  every length of the pursuit in STEPS and every residual in RESIDUALS to stop at, and the best by the true classes counts, on all sides alike.
  What each setting gave is in run.json.

Sets with more than --rows rows are cut to a seeded choice. Results go to run.json and summary.md after every set.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from cluster import BINARY, SETS, arguments, opened, scores, unit  # noqa: E402
from self_expressive import elastic_net, nearest, pursuits, scikit_spectral, spectral  # noqa: E402

CHOSEN = ("coil20", "orl", "digits", "mnist_5k_scattering", "cifar10_mobilenet", "banking77", "mnist_5k_conv4", "coil20_conv4", "fashion_mnist_5k_conv4")
SPACES = ("input", "projection", "trained")
STEPS = (3, 6, 10)
# Squared lengths of what is left of a unit row: nothing, and the noise that training allows for.
RESIDUALS = (1e-6, 0.1)
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


def edges(graph, classes):
    """Connected pieces of a graph and the share of its weight within classes."""
    parts = graph.tocoo()
    within = classes[parts.row] == classes[parts.col]
    return {"pieces": int(connected_components(graph, directed=False)[0]), "within": float(parts.data[within].sum() / parts.data.sum())}


def clusterings(versions, classes, seed):
    """SSC-OMP, EnSC and kNN-spectral on each version of the rows, the best counting."""
    clusters = int(classes.max()) + 1

    def best(represent):
        tried = []
        for version, rows in enumerate(versions):
            for setting, graph in represent(rows).items():
                told = {"version": version, "setting": setting} | edges(graph, classes)
                for cut in (spectral, scikit_spectral):
                    tried.append(told | {"cut": cut.__name__} | scores(cut(graph, clusters, seed), classes))
        return max(tried, key=lambda s: s["accuracy"]) | {"tried": tried}

    return {
        "ssc_omp": best(lambda rows: pursuits(rows, STEPS, RESIDUALS)),
        "ensc": best(lambda rows: {"": elastic_net(rows)}),
        "knn_spectral": best(lambda rows: {"": nearest(rows, 10)}),
    }


def measure(folder, x, classes, seed, flags):
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", classes.astype(np.int64))

    def run(method):
        command = [BINARY, "cluster", folder / "x.npy", "--clusters", classes.max() + 1, "--truth", folder / "y.npy", "--seed", seed,
                   "--method", method, "--json", "-q", "-o", folder / method, *flags]
        return json.loads(subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True).stdout)

    outcome, candidate = run("mlc"), run("projection")["results"]
    learned, seconds = outcome["results"]["learned"], outcome["seconds"]["total"]
    folders = {"projection": folder / "projection", "trained": folder / "mlc"}
    found = {space: np.load(own / "labels.npy") for space, own in folders.items()}
    spaces = {space: [np.load(own / "representation.npy").astype(np.float64)] for space, own in folders.items()}
    if "scattering" not in flags:
        rows = x.reshape(len(x), -1).astype(np.float64)
        spaces["input"] = [unit(rows - rows.mean(0)), unit(rows)]
    out = {"learned": learned, "seconds": seconds, "prepared": candidate["candidates"][candidate["chosen"]]["preparation"]}
    for name, versions in spaces.items():
        out[name] = shape(versions[0], classes, found["trained"]) | clusterings(versions, classes, seed)
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
        for space in [s for s in SPACES if s in entry["runs"][0]]:
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
    parser = arguments(__doc__, CHOSEN, 3, "2026-11-29-cluster-linear-2")
    parser.add_argument("--rows", type=int, default=5000)
    options = parser.parse_args()
    path, run = opened(options)
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
                row = {"seed": seed} | measure(Path(folder), x, classes, seed, flags + options.flags)
            runs.append(row)
            print(name, seed, {s: {m: round(float(row[s][m]["accuracy"]), 3) for m in METHODS} for s in SPACES if s in row}, flush=True)
            run["sets"][name] = {"shape": list(x.shape), "classes": int(classes.max()) + 1, "flags": flags, "runs": runs}
            path.write_text(json.dumps(run, indent=1) + "\n")
            (options.out / "summary.md").write_text(summarize(run))


if __name__ == "__main__":
    main()
