"""Three models into one: straight-through estimators against weight matching, both forms, on networks trained here with PyTorch.

    pip install torch && python benches/rivals/three_models.py --data DIR [--sets mnist,fashion_mnist] [--seeds 3] [--out DIR]

For every set and seed three multilayer perceptrons (3 x 512 units, Adam 1e-3, batches of 500, 5 epochs) are trained from different starts and merged
with equal weights by `subspan merge`: as they are, matched by weights (to the first, and all to each other's mean), by activations and by
both straight-through estimators (10,000 training images). Loss and accuracy of the mean on the 10,000 test images are computed here.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import cluster
import machine
import matching

WAYS = {
    "as they are": ["--no-match"],
    "weights, to the first": ["--many", "anchor"],
    "weights, to each other's mean": ["--many", "merge-many"],
    "activations": ["--method", "activations"],
    "straight-through, projected": ["--method", "ste", "--ste", "projected"],
    "straight-through, latent": ["--method", "ste", "--ste", "latent"],
}
SAMPLES = 10_000


def images(data, name):
    """Training and test images in 0..255 and their classes."""
    def part(prefix):
        folder = data / name
        x = cluster.idx(folder / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 784)
        return x, cluster.idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 8).astype(np.int64)

    return part("train"), part("t10k")


def train(x, y, seed):
    torch.manual_seed(seed)
    sizes = [784, 512, 512, 512, 10]
    layers = [torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:])]
    optimizer = torch.optim.Adam([p for l in layers for p in l.parameters()], lr=1e-3)
    x, y = torch.from_numpy(x.astype(np.float32) / 255), torch.from_numpy(y)
    for _ in range(5):
        for batch in torch.randperm(len(x)).split(500):
            h = x[batch]
            for layer in layers[:-1]:
                h = torch.relu(layer(h))
            loss = torch.nn.functional.cross_entropy(layers[-1](h), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    out = {}
    for k, layer in enumerate(layers):
        out[f"layer{k}.weight"], out[f"layer{k}.bias"] = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return out


def score(model, x, y):
    h = x.astype(np.float64) / 255
    for k in range(4):
        h = h @ model[f"layer{k}.weight"].T.astype(np.float64) + model[f"layer{k}.bias"]
        h = np.maximum(h, 0) if k < 3 else h
    h -= h.max(1, keepdims=True)
    log_p = h - np.log(np.exp(h).sum(1, keepdims=True))
    return {"loss": float(-log_p[np.arange(len(y)), y].mean()), "accuracy": float((h.argmax(1) == y).mean())}


def merge(folder, models, flags, seed):
    merged = folder / "merged.safetensors"
    samples = ["--data", folder / "x.npy"] + (["--labels", folder / "y.npy"] if "ste" in flags else [])
    more = samples + ["--normalize", "unit"] if "--method" in flags else []
    command = [matching.PROGRAM, "merge", *models, "-o", merged, "-q", *flags, *more]
    start = time.perf_counter()
    subprocess.run([str(c) for c in command + ["--seed", seed]], check=True, capture_output=True)
    return matching.read(merged), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", type=lambda s: s.split(","), default=["mnist", "fashion_mnist"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run = {"machine": machine.describe(), "runs": []}
    for name in options.sets:
        (x, y), (x_test, y_test) = images(options.data, name)
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                folder = Path(folder)
                np.save(folder / "x.npy", x[:SAMPLES])
                np.save(folder / "y.npy", y[:SAMPLES])
                files = [folder / f"{k}.safetensors" for k in range(3)]
                entry = {"set": name, "seed": seed, "ends": [], "ways": {}}
                for k, file in enumerate(files):
                    model = train(x, y, 3 * seed + k)
                    matching.write(file, model)
                    entry["ends"].append(score(model, x_test, y_test))
                for way, flags in WAYS.items():
                    model, seconds = merge(folder, files, flags, seed)
                    entry["ways"][way] = score(model, x_test, y_test) | {"seconds": seconds}
                    print(name, seed, way, entry["ways"][way], flush=True)
            run["runs"].append(entry)
            (options.out / "run.json").write_text(json.dumps(run, indent=1) + "\n")
    (options.out / "summary.md").write_text(summary(run, options))
    print(summary(run, options))


def summary(run, options):
    lines = ["# Three models into one", "", f"`python benches/rivals/three_models.py --data DIR`: MLPs of 3 x 512 units, {options.seeds} seeds, "
             "test loss / accuracy of the mean, medians (worst loss).", ""]
    for name in options.sets:
        runs = [r for r in run["runs"] if r["set"] == name]
        ends = [e for r in runs for e in r["ends"]]
        lines += [f"**{name}**, ends {np.median([e['loss'] for e in ends]):.3f} / {100 * np.median([e['accuracy'] for e in ends]):.2f} %", "",
                  "| | loss | accuracy |", "|---|---|---|"]
        for way in WAYS:
            losses = [r["ways"][way]["loss"] for r in runs]
            accuracy = np.median([r["ways"][way]["accuracy"] for r in runs])
            lines.append(f"| {way} | {np.median(losses):.4f} ({max(losses):.4f}) | {100 * accuracy:.2f} % |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
