"""How well `subspan classify` classifies real data, beside what people use today.

    target/rivals/venv/bin/python benches/rivals/classify.py --data DIR [--sets fashion,banking77,...] [--skip svm,mlp]

writes benches/runs/<date>-classify/: run.json (command, versions, machine, every figure) and summary.md. DIR holds the idx files
of Fashion-MNIST (fashion_mnist/), sentence embeddings of banking77 and clinc150 with their official splits (text/) and pooled
MobileNet features of CIFAR-10 images (features/, cifar10/). Ours runs once per seed, with its own linear head, LDA and CLAFIC; the
rivals are scikit-learn's, tuned on a tenth of the training samples and fitted again on all of them. Nothing sees the test samples
before it is scored on them. The open-set part trains on six classes of Fashion-MNIST and asks which test samples are of others.
"""

import argparse
import datetime
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import machine  # noqa: E402
import report  # noqa: E402

ROOT = HERE.parents[1]
SEEDS = 3
BINS = 15
KNOWN = 6


class Data:
    """A data set in memory: what sklearn sees; `ours` are the flags that read the same from files."""

    def __init__(self, name, note, k, train, test, folder, scale=1.0):
        self.name, self.note, self.k, self.folder, self.scale = name, note, k, folder, scale
        (self.x, self.y), (self.x_test, self.y_test) = train, test
        for part, (x, y) in {"train": train, "test": test}.items():
            np.save(folder / f"{name}-{part}.npy", x)
            np.save(folder / f"{name}-{part}-labels.npy", y.astype(np.int64))

    def path(self, part):
        return str(self.folder / f"{self.name}-{part}.npy")

    def floats(self):
        return self.x.astype(np.float32) * self.scale, self.x_test.astype(np.float32) * self.scale


def idx(path):
    raw = gzip.open(path).read()
    shape = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def fashion(data, folder):
    def part(name):
        images = idx(data / "fashion_mnist" / f"{name}-images-idx3-ubyte.gz")
        return images, idx(data / "fashion_mnist" / f"{name}-labels-idx1-ubyte.gz").astype(np.int64)

    train, test = part("train"), part("t10k")
    return Data("fashion", "Fashion-MNIST, raw pixels, 60,000 and 10,000 samples", 16, train, test, folder, 1 / 255)


def text(name, k, note):
    def load(data, folder):
        import pyarrow.parquet as pq

        x = np.load(data / "text" / f"{name}_minilm384.f16.npy").astype(np.float32)
        y = np.load(data / "text" / f"{name}_labels.i16.npy").astype(np.int64)
        split = np.array(pq.read_table(data / "text" / f"{name}.parquet", columns=["split"])["split"].to_pylist())
        # A validation part, where there is one, belongs to the training side: every contestant holds out its own.
        test = split == "test"
        return Data(name, note, k, (x[~test], y[~test]), (x[test], y[test]), folder)

    return load


def cifar(data, folder):
    images = np.load(data / "cifar10" / "cifar10_10k_2k_jpeg.npz")

    def part(name):
        return np.load(data / "features" / f"cifar10_mobilenetv1_{name}_512.u8.npy"), images[f"{name}_y"].astype(np.int64)

    note = "CIFAR-10 subset, MobileNetV1-0.5 pooled features, 10,000 and 2,000 samples"
    return Data("cifar", note, "auto", part("train"), part("test"), folder, 0.023528477)


SETS = {
    "fashion": fashion,
    "banking77": text("banking77", "auto", "banking77, MiniLM sentence embeddings, official split"),
    "clinc150": text("clinc150", "auto", "clinc150, MiniLM sentence embeddings, official split"),
    "cifar": cifar,
}


def ours(data, program, seed, flags):
    """One run of the program: its own scores and those of the classifiers it fits beside."""
    model = str(data.folder / f"{data.name}.safetensors")
    command = [program, "classify", data.path("train"), "--labels", data.path("train-labels"), "-k", str(data.k), "--test",
               data.path("test"), "--test-labels", data.path("test-labels"), "--seed", str(seed), "--json", "-q", "-o", model, *flags]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    record = json.loads(done.stdout)
    results = record["results"]
    own = {"accuracy": results["test_accuracy"], "nll": results["test_nll"], "ece": results["test_ece"], "k": results["k"],
           "epochs": results["epochs_used"], "center": results.get("center"), "temperature": results["temperature"],
           "seconds": record["seconds"], "wall": time.perf_counter() - start, "seed": seed}
    return own, results["rival_scores"]


def scored(probabilities, y):
    """Accuracy, negative log-likelihood and expected calibration error."""
    best, confidence = probabilities.argmax(1), probabilities.max(1)
    hit = best == y
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    ece = sum(abs(confidence[bins == b].sum() - hit[bins == b].sum()) for b in range(BINS)) / len(y)
    nll = -np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-12)).mean()
    return {"accuracy": float(hit.mean()), "nll": float(nll), "ece": float(ece)}


def logistic(c):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=2000)


def ridge(alpha):
    from sklearn.linear_model import RidgeClassifier

    return RidgeClassifier(alpha=alpha)


def lda(shrinkage):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)


def svm(c):
    from sklearn.svm import SVC

    return SVC(C=c, cache_size=1000)


def mlp(seed):
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((512,), early_stopping=True, max_iter=60, n_iter_no_change=5, random_state=seed)


GRIDS = {
    "logistic": (logistic, {"fashion": (0.03, 0.3, 3), "cifar": (1e-3, 0.01, 0.1), None: (1, 3, 10, 30, 100)}),
    "ridge": (ridge, {"fashion": (10, 100, 1000), "cifar": (30, 300, 3000), None: (0.1, 0.3, 1, 3)}),
    "lda": (lda, {None: (1e-3, 1e-2, 0.1)}),
    "svm": (svm, {"fashion": (10,), None: (3, 10, 30)}),
}


def tuned(data, name):
    """The setting of best held-out accuracy, fitted again on all training samples."""
    make, grids = GRIDS[name]
    x, x_test = data.floats()
    x, x_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
    held = held_out(data.y)
    start = time.perf_counter()
    grid, tried = grids.get(data.name, grids[None]), []
    for setting in grid:
        if len(grid) > 1:
            fitted = make(setting).fit(x[~held], data.y[~held])
            tried.append((float((fitted.predict(x[held]) == data.y[held]).mean()), setting))
        else:
            tried.append((0.0, setting))
    setting = max(tried)[1]
    refit = time.perf_counter()
    fitted = make(setting).fit(x, data.y)
    stop = time.perf_counter()
    out = {"setting": setting, "tuning_seconds": refit - start, "fit_seconds": stop - refit, "tried": tried}
    if hasattr(fitted, "predict_proba"):
        return out | scored(fitted.predict_proba(x_test), data.y_test)
    return out | {"accuracy": float((fitted.predict(x_test) == data.y_test).mean())}


def nets(data):
    x, x_test = data.floats()
    x, x_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
    runs = []
    for seed in range(SEEDS):
        start = time.perf_counter()
        fitted = mlp(seed).fit(x, data.y)
        runs.append(scored(fitted.predict_proba(x_test), data.y_test) | {"fit_seconds": time.perf_counter() - start})
    return {"runs": runs} | {key: statistics.median(run[key] for run in runs) for key in ("accuracy", "nll", "ece", "fit_seconds")}


def held_out(y):
    """A tenth of each class."""
    rng = np.random.default_rng(0)
    out = np.zeros(len(y), bool)
    for c in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == c))
        out[rows[:max(1, len(rows) // 10)]] = True
    return out


def spread(runs, key):
    values = [run[key] for run in runs]
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def contest(data, options):
    runs, beside = [], []
    for seed in range(SEEDS):
        own, rivals = ours(data, options.program, seed, options.flags)
        runs.append(own)
        beside.append(rivals)
    section = {"set": data.name, "note": data.note, "runs": runs, "own_rivals": beside,
               "ours": {key: spread(runs, key) for key in ("accuracy", "nll", "ece", "wall")}, "rivals": {}}
    for name in GRIDS:
        if name not in options.skip:
            section["rivals"][name] = tuned(data, name)
    if "mlp" not in options.skip:
        section["rivals"]["mlp"] = nets(data)
    section["targets"] = targets(data.name, section)
    return section


def targets(name, section):
    ours, rivals = section["ours"], section["rivals"]
    out = []
    linear = max((rivals[r]["accuracy"] for r in ("logistic", "ridge") if r in rivals), default=None)
    if name == "fashion":
        clafic = max(r["clafic"]["accuracy"] for r in section["own_rivals"])
        out.append(report.target("Fashion-MNIST accuracy", ours["accuracy"]["median"], 0.868))
        if linear:
            out.append(report.target("above logistic regression, points", 100 * (ours["accuracy"]["median"] - linear), 1.5))
        out.append(report.target("above CLAFIC, points", 100 * (ours["accuracy"]["median"] - clafic), 1.5))
        out.append(report.target("calibration error", ours["ece"]["median"], 0.02, "at most"))
        if "logistic" in rivals:
            nll = rivals["logistic"]["nll"]
            out.append(report.target("negative log-likelihood over logistic regression's", ours["nll"]["median"] / nll, 1, "at most"))
    elif linear:
        out.append(report.target(f"{name}: above the best of logistic regression and ridge, points",
                                 100 * (ours["accuracy"]["median"] - linear), -0.5))
    return out


def auroc(known, strange):
    """Probability that a stranger scores higher than a known sample."""
    scores = np.concatenate([known, strange])
    order = scores.argsort(kind="stable")
    ranks = np.empty(len(scores))
    values = scores[order]
    first, last = np.searchsorted(values, values, "left"), np.searchsorted(values, values, "right")
    ranks[order] = (first + last + 1) / 2
    n, m = len(known), len(strange)
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))


def tensors(path):
    """The f32 tensors of a safetensors file."""
    raw = Path(path).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    out = {}
    for name, info in header.items():
        if name != "__metadata__":
            dtype = {"F32": "<f4", "F64": "<f8", "U32": "<u4"}[info["dtype"]]
            begin, end = info["data_offsets"]
            out[name] = np.frombuffer(raw[8 + size + begin:8 + size + end], dtype).reshape(info["shape"])
    return out


def open_set(data, folder, options):
    """Trains on `KNOWN` classes of Fashion-MNIST and scores how strange all test samples are."""
    splits = [list(range(KNOWN))] + [sorted(np.random.default_rng(s).permutation(10)[:KNOWN].tolist()) for s in range(SEEDS)]
    runs = []
    for i, known in enumerate(splits):
        keep, inside = np.isin(data.y, known), np.isin(data.y_test, known)
        part = Data("open", "", 16, (data.x[keep], data.y[keep]), (data.x_test[inside], data.y_test[inside]), folder)
        np.save(folder / "open-all.npy", data.x_test)
        own, _ = ours(part, options.program, i, ["--no-rivals", *options.flags])
        model = str(folder / "open.safetensors")
        outputs = {name: str(folder / f"open-{name}.npy") for name in ("labels", "proba", "ood")}
        subprocess.run([options.program, "predict", model, str(folder / "open-all.npy"), "-q", "-o", outputs["labels"], "--proba",
                        outputs["proba"], "--ood", outputs["ood"]], check=True)
        model = tensors(model)
        x = data.x_test.reshape(len(data.x_test), -1).astype(np.float64)
        x -= model.get("center", 0.0)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        z = x @ model["subspaces"].T.astype(np.float64)
        lengths = np.sqrt(np.add.reduceat(z**2, model["offsets"][:-1], axis=1)).max(1)
        scores = {"strangeness": np.load(outputs["ood"]), "max softmax": -np.load(outputs["proba"]).max(1),
                  "trained projection": -lengths}
        runs.append({"known": known, "accuracy": own["accuracy"]}
                    | {name: auroc(s[inside], s[~inside]) for name, s in scores.items()})
    first = runs[0]
    bars = [report.target("open set, classes 0 to 5 known: AUROC", first["strangeness"], 0.72),
            report.target("open set, median of all class splits", statistics.median(r["strangeness"] for r in runs), 0.72),
            report.target("above the trained projection's AUROC", first["strangeness"] - first["trained projection"], 0.2)]
    return {"set": "open", "note": "Fashion-MNIST, six classes known, four strange", "runs": runs, "targets": bars}


def summary(run):
    m = run["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in m["packages"].items())
    lines = [f"# Classifiers, {run['date']}", f"`{run['command']}`",
             f"{m['cpu']} ({', '.join(m['simd'])}), {m['cores']} cores, {m['memory_gib']} GiB; {m['os']}; {m['rustc']}; "
             f"commit {m['commit']}; Python {m['python']}, {packages}."]
    if run["note"]:
        lines.append(run["note"])
    lines += ["## Targets", report.targets([t for s in run["sections"] for t in s["targets"]])]
    for section in run["sections"]:
        lines += [f"## {section['note']}", open_table(section) if section["set"] == "open" else table(section)]
    return "\n\n".join(lines) + "\n"


def percent(v):
    return f"{100 * v:.2f} %"


def table(section):
    rows = []
    own = section["ours"]
    runs = section["runs"]
    k = "/".join(str(k) for k in sorted({r["k"] for r in runs}))
    rows.append([f"**subspan, k = {k}**", f"{percent(own['accuracy']['median'])} ({percent(own['accuracy']['min'])} to "
                 f"{percent(own['accuracy']['max'])})", f"{own['nll']['median']:.3f}", f"{own['ece']['median']:.3f}",
                 f"{statistics.median(r['seconds'].get('solve', 0) for r in runs):.1f}"])
    for name in section["own_rivals"][0]:
        scores = [r[name] for r in section["own_rivals"]]
        rows.append([f"subspan's {name}", percent(statistics.median(s["accuracy"] for s in scores)),
                     f"{statistics.median(s['nll'] for s in scores):.3f}", f"{statistics.median(s['ece'] for s in scores):.3f}", ""])
    for name, r in section["rivals"].items():
        setting = f" ({r['setting']:g})" if "setting" in r else ""
        rows.append([name + setting, percent(r["accuracy"]), f"{r['nll']:.3f}" if "nll" in r else "-",
                     f"{r['ece']:.3f}" if "ece" in r else "-", f"{r['fit_seconds']:.1f}"])
    return report.table(["classifier", "test accuracy", "NLL", "ECE", "training, s"], rows)


def open_table(section):
    names = ("strangeness", "max softmax", "trained projection")
    rows = [[", ".join(map(str, r["known"])), *(f"{r[name]:.3f}" for name in names)] for r in section["runs"]]
    return report.table(["known classes", *(f"AUROC, {name}" for name in names)], rows)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--sets", type=lambda s: s.split(","), default=[*SETS, "open"])
    parser.add_argument("--skip", type=lambda s: s.split(","), default=[], help="rivals left out: " + ", ".join([*GRIDS, "mlp"]))
    parser.add_argument("--program", default=str(ROOT / "target" / "release" / "subspan"), help="the program (default: built here)")
    parser.add_argument("--flags", type=str.split, default=[], help="further flags of the program")
    parser.add_argument("--note", default="", help="said in the summary, such as how busy the machine was")
    parser.add_argument("--out", type=Path, help="where results go")
    return parser.parse_args()


def main():
    options = arguments()
    if options.program == str(ROOT / "target" / "release" / "subspan"):
        subprocess.run(["cargo", "build", "--release", "-q", "-p", "subspan-cli"], cwd=ROOT, check=True)
    now = datetime.datetime.now(datetime.UTC)
    out = options.out or ROOT / "benches" / "runs" / f"{now:%Y-%m-%d}-classify"
    out.mkdir(parents=True, exist_ok=True)
    words = ["DIR" if sys.argv[i] in ("--data", "--program", "--out") else word for i, word in enumerate(sys.argv[1:])]
    run = {"command": " ".join(["python benches/rivals/classify.py", *words]), "date": f"{now:%Y-%m-%d}",
           "machine": machine.describe(), "note": options.note, "sections": []}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in options.sets:
            if name == "open":
                section = open_set(fashion(options.data, folder), folder, options)
            else:
                section = contest(SETS[name](options.data, folder), options)
            run["sections"].append(section)
            # After every set: a later one that dies takes nothing with it.
            (out / "run.json").write_text(json.dumps(run, indent=1) + "\n")
            (out / "summary.md").write_text(summary(run))
            print(json.dumps(section.get("ours", section["runs"])), file=sys.stderr, flush=True)
    print(summary(run))


if __name__ == "__main__":
    main()
