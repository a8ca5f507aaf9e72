"""One training step of manifold linearizing and clustering against PyTorch's unpacked one: seconds and memory.

    python benches/rivals/cluster_step.py [--threads 2] [--repeats 5] [--json FILE]

Both compute R, Rc and the gradient by features and membership for a batch of 1024 rows of 128 values in single precision. PyTorch forms
the 1024 covariances as one tensor and differentiates the log-determinants by autograd, as published implementations do. Each runs in a process
of its own: the memory is the process's peak less what it had before the first step.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
B, D, EPS2 = 1024, 128, 0.1


def torch_step(threads, repeats):
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(B, D), dim=1)
    a = (z @ z.T).abs() / 0.1
    gamma = torch.softmax(a, dim=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        x, g = z.clone().requires_grad_(), gamma.clone().requires_grad_()
        start = time.perf_counter()
        eye = torch.eye(D)
        whole = torch.logdet(eye + D / EPS2 / B * x.T @ x)
        parts = torch.logdet(eye + D / EPS2 * torch.einsum("bd,bj,be->jde", x, g, x)).mean()
        (whole - parts).backward()
        seconds.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_bytes": 1024 * after, "bytes_of_steps": 1024 * (after - before)}


def own_step(kind, threads, repeats):
    binary = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "subspan-benches"
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}

    def run(count):
        process = subprocess.Popen([binary, "cluster-step", kind, str(count)], stdout=subprocess.PIPE, env=environment)
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{binary} failed")
        return json.loads(out), 1024 * usage.ru_maxrss

    _, before = run(0)
    found, after = run(repeats)
    return {"seconds": found["seconds"], "peak_bytes": after, "bytes_of_steps": after - before}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch:
        print(json.dumps(torch_step(options.threads, options.repeats)))
        return
    found = {kind: own_step(kind, options.threads, options.repeats) for kind in ("exact", "fast")}
    rival = [sys.executable, __file__, "--torch", "--threads", str(options.threads), "--repeats", str(options.repeats)]
    found["torch"] = json.loads(subprocess.run(rival, check=True, capture_output=True, text=True).stdout)
    for name, value in found.items():
        value["median"] = statistics.median(value["seconds"])
        print(f"{name:6} {value['median']:.3f} s  {value['bytes_of_steps'] / 2**20:.0f} MiB for steps, {value['peak_bytes'] / 2**20:.0f} MiB in all")
    torch, exact = found["torch"], found["exact"]
    print(f"PyTorch takes {torch['median'] / exact['median']:.1f} times the time and {torch['bytes_of_steps'] / exact['bytes_of_steps']:.1f} times the memory")
    if options.json:
        options.json.write_text(json.dumps({"threads": options.threads, "batch": [B, D], "parts": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
