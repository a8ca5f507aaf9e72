"""What a step of the optimizer of class subspaces costs: ours against the published update, geoopt and our own rule in PyTorch.

    target/rivals/venv/bin/python benches/rivals/step.py [--shapes 1000,2048,8 ...] [--threads 1 2]

writes benches/runs/<date>-step/: run.json (command, versions, machine, every figure) and summary.md. A step is momentum, projection on
the tangent space and the move, of C frames of k rows of D values in single precision. All contestants of a shape run one after the
other on as many threads, from equal frames, buffers and gradients, a warm-up and nine rounds each; ratios are of medians.

The rivals, written from the published formulas with PyTorch's batched operations:
- published: the update as its authors describe it, by a thin singular value decomposition of the tangent direction and a QR
  decomposition every fifth step (a fifth of its time is added to the step's);
- geoopt: `RiemannianSGD` on `EuclideanStiefel` (another manifold and a retraction instead of the geodesic: a comparison of cost only);
- rewritten: our rule, without a decomposition, in batched products: what anyone could do with PyTorch.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import machine  # noqa: E402
import report  # noqa: E402

ROOT = HERE.parents[1]
SHAPES = ["1000,2048,8", "1000,2048,1", "1000,2048,16", "1000,2048,32", "1000,768,8", "1000,384,8", "100,512,8"]
#: Least ratios to the published update and to geoopt.
BARS = {"1000,2048,8": (10, 5), "1000,2048,1": (15, 15)}
OTHERS = (5, 3)
GFLOPS = 50
ROUNDS = 9
LR, MOMENTUM, QR_EVERY = 0.1, 0.9, 5


def inputs(shape, seed=0):
    """Orthonormal rows (C, k, D), an empty buffer and a gradient whose steps are as long as in training."""
    import torch

    c, d, k = shape
    generator = torch.Generator().manual_seed(seed)
    frames = torch.linalg.qr(torch.randn(c, d, k, generator=generator))[0].mT.contiguous()
    return frames, 1e-3 * (2 * torch.rand(c, k, d, generator=generator) - 1)


class Published:
    """Momentum, projection, thin SVD, geodesic; columns are the transposed rows, as LAPACK wants them."""

    def __init__(self, frames, gradient):
        self.frames, self.gradient, self.buffer = frames, gradient, frames.new_zeros(frames.shape)

    def step(self):
        import torch

        self.buffer.mul_(MOMENTUM).add_(self.gradient)
        s, m = self.frames.mT, self.buffer.mT
        direction = m - s @ (s.mT @ m)
        u, sigma, vh = torch.linalg.svd(direction, full_matrices=False)
        angle = (-LR * sigma).unsqueeze(-2)
        moved = ((s @ vh.mT) * torch.cos(angle) + u * torch.sin(angle)) @ vh
        self.frames.copy_(moved.mT)

    def restore(self):
        import torch

        q, r = torch.linalg.qr(self.frames.mT)
        self.frames.copy_((q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1)).unsqueeze(-2)).mT)


class Geoopt:
    def __init__(self, frames, gradient):
        import geoopt

        columns = frames.mT.contiguous()
        self.point = geoopt.ManifoldParameter(columns, manifold=geoopt.EuclideanStiefel())
        self.gradient = gradient.mT.contiguous()
        self.optimizer = geoopt.optim.RiemannianSGD([self.point], lr=LR, momentum=MOMENTUM)

    def step(self):
        self.point.grad = self.gradient.clone()
        self.optimizer.step()


class Rewritten:
    """Cosine and sine of the step by five terms of their series in the Gram matrix of the direction."""

    TERMS = 5

    def __init__(self, frames, gradient):
        import torch

        self.frames, self.gradient, self.buffer = frames, gradient, frames.new_zeros(frames.shape)
        self.eye = torch.eye(frames.shape[1]).expand(len(frames), -1, -1)

    def step(self):
        import torch

        self.buffer.mul_(MOMENTUM).add_(self.gradient)
        p, m = self.frames, self.buffer
        w = m @ p.mT
        t = LR**2 * (m @ m.mT - w @ w.mT)
        cos, sinc = self.eye, self.eye
        for j in range(self.TERMS, 0, -1):
            cos = torch.baddbmm(self.eye, t, cos, alpha=-1 / ((2 * j - 1) * 2 * j))
            sinc = torch.baddbmm(self.eye, t, sinc, alpha=-1 / (2 * j * (2 * j + 1)))
        self.frames = torch.baddbmm((cos + LR * sinc @ w) @ p, sinc, m, alpha=-LR)


def timed(call):
    call()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def rivals(shape, threads):
    """Seconds of every round, by contestant."""
    import torch

    torch.set_num_threads(threads)
    frames, gradient = inputs(shape)
    out = {}
    with torch.no_grad():
        published = Published(frames.clone(), gradient)
        out["published"] = timed(published.step)
        out["published, QR"] = timed(published.restore)
        out["rewritten"] = timed(Rewritten(frames.clone(), gradient).step)
    del published
    out["geoopt"] = timed(Geoopt(frames, gradient).step)
    return out


def ours(program, shape, threads):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([program, "step", shape, "--threads", str(threads), "--json", file.name], check=True, capture_output=True)
        return json.load(open(file.name))["shapes"][0]


def contest(program, shape, threads):
    own = ours(program, shape, threads)
    seconds = rivals([int(n) for n in shape.split(",")], threads)
    ms = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    ms["published"] += ms.pop("published, QR") / QR_EVERY
    ratios = {name: value / own["ms"] for name, value in ms.items()}
    print(shape, threads, f"ours {own['ms']:.3g} ms, {own['gflops']:.0f} GFLOP/s", {n: f"{r:.1f}x" for n, r in ratios.items()}, flush=True)
    return {"shape": shape, "threads": threads, "ours": own, "rival_ms": ms, "ratios": ratios, "rival_seconds": seconds}


def targets(rows):
    out = []
    for row in rows:
        if row["threads"] > 1:
            continue
        published, geoopt = BARS.get(row["shape"], OTHERS)
        out.append(report.target(f"{row['shape']}: times the published update's speed", row["ratios"]["published"], published))
        out.append(report.target(f"{row['shape']}: times geoopt's speed", row["ratios"]["geoopt"], geoopt))
        if not row["shape"].endswith(",1"):
            out.append(report.target(f"{row['shape']}: GFLOP/s on one core", row["ours"]["gflops"], GFLOPS))
    return out


def summary(run):
    m = run["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in m["packages"].items())
    lines = [f"# A step of class subspaces, {run['date']}", f"`{run['command']}`",
             f"{m['cpu']} ({', '.join(m['simd'])}), {m['cores']} cores, {m['memory_gib']} GiB; {m['os']}; {m['rustc']}; "
             f"commit {m['commit']}; Python {m['python']}, {packages}.",
             "Milliseconds, median of nine rounds. GFLOP/s count 7 D k² flop for each class; the floor is the flop at the rate of a large "
             "single-precision product or the bytes (frames, buffers and gradient read, the first two written) at the bandwidth of a sum, "
             "whichever takes longer. The last two columns restore orthonormal rows in every step and carry the buffer along."]
    if run["note"]:
        lines.append(run["note"])
    lines += ["## Targets (one thread)", report.targets(targets(run["rows"]))]
    header = ["C, D, k", "threads", "ours", "GFLOP/s", "of floor", "published", "geoopt", "rewritten", "ours, restoring", "ours, transported"]
    rows = []
    for row in run["rows"]:
        own, ms, ratios = row["ours"], row["rival_ms"], row["ratios"]
        beside = [f"{ms[name]:.3g} ({ratios[name]:.1f}x)" for name in ("published", "geoopt", "rewritten")]
        rows.append([row["shape"], row["threads"], f"{own['ms']:.3g}", f"{own['gflops']:.0f}", f"{100 * own['of_floor']:.0f} %", *beside,
                     f"{own['ms_restoring']:.3g}", f"{own['ms_transported']:.3g}"])
    return "\n\n".join([*lines, "## All figures", report.table(header, rows)]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="C,D,K")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--program", default=str(ROOT / "target" / "release" / "subspan-benches"))
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    machine.PACKAGES = ("numpy", "torch", "geoopt")
    date = datetime.date.today().isoformat()
    rows = [contest(options.program, shape, threads) for threads in options.threads for shape in options.shapes]
    command = " ".join(["python benches/rivals/step.py", *(a if not a.startswith("/") else "DIR" for a in sys.argv[1:])])
    run = {"date": date, "command": command, "note": options.note, "machine": machine.describe(), "rounds": ROUNDS, "rows": rows}
    run["targets"] = targets(rows)
    out = options.out or ROOT / "benches" / "runs" / f"{date}-step"
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(run, indent=1) + "\n")
    (out / "summary.md").write_text(summary(run))
    print(summary(run))


if __name__ == "__main__":
    main()
