"""Weight matching and merging against NumPy + SciPy, the `lapjv` and `lap` packages and mergekit, where they are installed.

    python benches/rivals/matching.py [--data DIR] [--width 2048] [--lap 4096] [--quick] [--only matching|assignments|merging] [--threads N] [--out DIR]

writes run.json and summary.md to benches/runs/<date>-merge/. The rival of `subspan match` is coordinate descent as published,
written here on its own: the full Gram matrix of every layer in every sweep, SciPy's linear_sum_assignment, acceptance by the
objective. `--data` adds the pairs of checkpoints in DIR (three orders of layers each). Runs of either are interleaved. On a machine with
other work compare one thread with one (OPENBLAS_NUM_THREADS=1, --threads 1): NumPy's threads wait for each other in loops.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import machine  # noqa: E402
from assignments import assignments, made_up  # noqa: E402

ROOT = HERE.parents[1]
PROGRAM = ROOT / "target" / "release" / "subspan"
BENCHES = ROOT / "target" / "release" / "subspan-benches"
ORDERS = 3
MERGES = 15
MATCHES, PATIENCE = 7, 20
MOST_MATCHES, SHORT = 41, 2
PAUSE = 0.05
say = lambda text: print(text, file=sys.stderr, flush=True)


def read(path):
    """The floating tensors of a safetensors file."""
    data = Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    out = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            values = np.frombuffer(data[8 + length + start : 8 + length + end], "<f4")
            out[name] = values.reshape(entry["shape"])
    return out


def write(path, tensors, dtype="F32"):
    header, at = {}, 0
    blobs = []
    for name, value in tensors.items():
        blob = value.astype("<f4").tobytes() if dtype == "F32" else bfloat16(value)
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for blob in blobs:
            file.write(blob)


def bfloat16(value):
    return (value.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


def chain(tensors):
    """Axes of an MLP: tensor -> for each axis a list of (perm, positions of its units)."""
    weights = sorted((n for n in tensors if n.endswith("weight")), key=lambda n: int("".join(filter(str.isdigit, n))))
    spec = {}
    for k, name in enumerate(weights):
        n_out, n_in = tensors[name].shape
        rows = [(k, np.arange(n_out))] if k + 1 < len(weights) else []
        columns = [(k - 1, np.arange(n_in))] if k else []
        spec[name] = [rows, columns]
        bias = name.replace("weight", "bias")
        if bias in tensors and rows:
            spec[bias] = [rows]
    return spec


def resnet(tensors):
    """Axes of a CIFAR ResNet whose shortcuts pad zero channels on both sides."""
    spec = {}
    width = tensors["conv1.weight"].shape[0]
    stream = [("r1", np.arange(width))]

    def put(conv, norm, out, into):
        spec[f"{conv}.weight"] = [out, into, [], []]
        for part in ("weight", "bias"):
            spec[f"{norm}.{part}"] = [out]

    put("conv1", "bn1", stream, [])
    stage = 1
    while f"layer{stage}.0.conv1.weight" in tensors:
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in tensors:
            name = f"layer{stage}.{block}"
            n = tensors[f"{name}.conv2.weight"].shape[0]
            old = stream
            if n != width:
                side = (n - width) // 2
                stream = [(p, x + side) for p, x in stream]
                stream.append((f"r{stage}", np.concatenate([np.arange(side), np.arange(side + width, n)])))
                width = n
            inner = [(name, np.arange(n))]
            put(f"{name}.conv1", f"{name}.bn1", inner, old)
            put(f"{name}.conv2", f"{name}.bn2", stream, inner)
            block += 1
        stage += 1
    spec["linear.weight"] = [[], stream]
    return spec


def moved(b, axes, perms, but=None):
    for axis, pieces in enumerate(axes):
        for perm, places in pieces:
            if perm != but and perm in perms:
                index = np.arange(b.shape[axis])
                index[places] = places[perms[perm]]
                b = np.take(b, index, axis)
    return b


def gram(a, b, spec, perms, perm, size):
    total = np.zeros((size, size), np.float32)
    for name, axes in spec.items():
        for axis, pieces in enumerate(axes):
            for p, places in pieces:
                if p == perm:
                    left = np.moveaxis(np.take(a[name], places, axis), axis, 0).reshape(size, -1)
                    right = np.moveaxis(np.take(moved(b[name], axes, perms, perm), places, axis), axis, 0).reshape(size, -1)
                    total += left @ right.T
    return total


def objective(a, b, spec, perms):
    dot = lambda x, y: float(np.vdot(x.astype(np.float64), y.astype(np.float64)))
    return sum(dot(a[n], moved(b[n], axes, perms)) for n, axes in spec.items())


def descend(a, b, spec, seed, trace=None):
    """Coordinate descent; the permutations, sweeps, and seconds spent on assignments."""
    sizes = {p: len(x) for axes in spec.values() for pieces in axes for p, x in pieces}
    perms = {p: np.arange(n) for p, n in sizes.items()}
    order = np.random.default_rng(seed)
    names = list(perms)
    assigning = 0.0
    for sweep in range(100):
        changed = False
        for k in order.permutation(len(names)):
            perm = names[k]
            g = gram(a, b, spec, perms, perm, sizes[perm])
            if trace is not None and perm == names[0]:
                trace.append(-g)
            start = time.perf_counter()
            _, columns = linear_sum_assignment(g, maximize=True)
            assigning += time.perf_counter() - start
            rows = np.arange(len(columns))
            now, then = g[rows, columns].sum(dtype=np.float64), g[rows, perms[perm]].sum(dtype=np.float64)
            if now > then + 1e-7 * np.abs(g[rows, perms[perm]]).sum(dtype=np.float64):
                perms[perm], changed = columns, True
        if not changed:
            break
    return perms, sweep + 1, assigning


def ours(a_path, b_path, seed, flags):
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        command = [PROGRAM, "match", a_path, b_path, "-o", Path(out) / "o", "--json", "-q", "--seed", str(seed), *flags]
        record = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True).stdout)
        return record, time.perf_counter() - start


def match(name, a_path, b_path, kind, trace, threads):
    """Subspan and NumPy + SciPy on a pair of files, the same number of orders each."""
    say(f"{name}: matching")
    a, b = read(a_path), read(b_path)
    spec = chain(a) if kind == "chain" else resnet(a)
    flags = ["--threads", str(threads)] if threads else []
    rounds = []
    # As many interleaved rounds as take some seconds, seven at most, or more if they are short: what takes a millisecond
    # is disturbed often.
    spent = lambda: sum(r["seconds"] for found in rounds for r in found[0])
    while not rounds or (len(rounds) < MATCHES and spent() < PATIENCE) or (len(rounds) < MOST_MATCHES and spent() < SHORT):
        rival, own = [], []
        for seed in range(ORDERS):
            start = time.perf_counter()
            perms, sweeps, assigning = descend(a, b, spec, seed, trace if seed == 0 and not rounds else None)
            rival.append({"seconds": time.perf_counter() - start, "assigning": assigning, "sweeps": sweeps,
                          "objective": objective(a, b, spec, perms)})
            # Right after NumPy caches are its own, and its threads still wait in loops: a moment for either.
            time.sleep(PAUSE)
            record, wall = ours(a_path, b_path, seed, flags)
            results = record["results"]
            own.append({"seconds": wall, "solve": record["seconds"]["solve"], "sweeps": results["sweeps"],
                        "objective": results["objective_after"], "certified": results["certified"],
                        "distance_reduction": results["distance_reduction"]})
        rounds.append((rival, own))
    best = lambda runs: max(r["objective"] for r in runs)
    total = lambda runs, key: sum(r[key] for r in runs)
    faster = sorted(total(r, "seconds") / total(o, "solve") for r, o in rounds)
    middle = lambda runs, key: sum(statistics.median(r[seed][key] for r in runs) for seed in range(ORDERS))
    medians = middle([r for r, _ in rounds], "seconds") / middle([o for _, o in rounds], "solve")
    # Of every order the shortest run: what a machine with other work to do disturbs least.
    least = lambda runs, key: sum(min(r[seed][key] for r in runs) for seed in range(ORDERS))
    shortest = least([r for r, _ in rounds], "seconds") / least([o for _, o in rounds], "solve")
    # The round in the middle by our time.
    rival, own = sorted(rounds, key=lambda found: total(found[1], "solve"))[len(rounds) // 2]
    return {"name": name, "numpy + scipy": rival, "subspan": {
        "runs": own, "objective_ratio": best(own) / best(rival), "times_faster": medians,
        "times_faster_by_round": faster, "times_faster_by_shortest_runs": shortest}}


def merging(folder, megabytes):
    """A plain mean of two bfloat16 files against copying the output.

    Rounds are interleaved, every other one backwards. The inputs, and what is copied, are in the page cache; no output exists
    before a run, and removing it is not timed. Ours is durable before it has its name, as a copy is after `sync`, but for `--no-sync`.
    """
    say(f"merging two files of {megabytes} MB")
    rows = megabytes * 2**20 // (2 * 4096 * 8)
    rng = np.random.default_rng(0)
    paths = [folder / f"half{k}.safetensors" for k in range(2)]
    for path in paths:
        block = rng.standard_normal((rows, 4096), np.float32)
        write(path, {f"layer{k}.weight": np.roll(block, k) for k in range(8)}, "BF16")
    merged, copy = folder / "merged.safetensors", folder / "copy"
    command = [str(PROGRAM), "merge", *map(str, paths), "--no-match", "-o", str(merged), "--json", "-q"]
    ways = {"subspan merge": command, "subspan merge --no-sync": [*command, "--no-sync"], "cp": ["cp", paths[0], copy], "cp and sync": ["sh", "-c", f"cp {paths[0]} {copy} && sync {copy}"],
            "disk alone": ["dd", f"if={paths[0]}", f"of={copy}", "bs=4M", "oflag=direct", "conv=fsync", "status=none"]}
    runs, record = {name: [] for name in ways}, {}
    for round in range(MERGES):
        for name in list(ways)[:: 1 if round % 2 else -1]:
            for path in (merged, copy):
                path.unlink(missing_ok=True)
            # What was removed is given back before the clock runs: allocations wait for that.
            os.sync()
            start = time.perf_counter()
            out = subprocess.run(ways[name], check=True, capture_output=True).stdout
            runs[name].append(time.perf_counter() - start)
            record = json.loads(out) if name == "subspan merge" else record
    copy.unlink(missing_ok=True)
    against = lambda a, b: sorted(x / y for x, y in zip(runs[a], runs[b]))
    ratio = {name: against(name, "subspan merge") for name in ways if name != "subspan merge"}
    ratio["cp, against --no-sync"] = against("cp", "subspan merge --no-sync")
    return {"name": f"mean of two files of {megabytes} MB", "seconds": runs, "peak_rss_bytes": record["peak_rss_bytes"],
            "times_faster_by_round": ratio}


def llama(folder, name, layers, hidden=2048, inner=5632, vocabulary=4096):
    """A bfloat16 checkpoint of the shapes of a Llama with random weights, in the layout mergekit reads."""
    home = folder / name
    home.mkdir()
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    for k in range(layers):
        for part in "qkvo":
            shapes[f"model.layers.{k}.self_attn.{part}_proj.weight"] = (hidden, hidden)
        shapes[f"model.layers.{k}.mlp.gate_proj.weight"] = shapes[f"model.layers.{k}.mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"model.layers.{k}.mlp.down_proj.weight"] = (hidden, inner)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{k}.{norm}.weight"] = (hidden,)
    rng = np.random.default_rng(len(name))
    write(home / "model.safetensors", {n: rng.standard_normal(shape, np.float32) for n, shape in shapes.items()}, "BF16")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner,
              "num_hidden_layers": layers, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": vocabulary,
              "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16", "tie_word_embeddings": False}
    (home / "config.json").write_text(json.dumps(config))
    return home


def watched(command):
    """Seconds of a command and its largest anonymous memory, as far as looks every 10 ms see it."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    largest = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            largest = max(largest, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)
        except (FileNotFoundError, ProcessLookupError):
            break
        time.sleep(0.01)
    errors = process.stderr.read()
    if process.wait():
        raise RuntimeError(f"{command[0]}: {errors[-500:]}")
    return time.perf_counter() - start, largest * 1024


def against_mergekit(folder, layers):
    """The linear merge of two Llama-shaped checkpoints, whole commands, beside mergekit where it is installed."""
    program = Path(sys.executable).parent / "mergekit-yaml"
    if not program.exists():
        say("mergekit is not installed")
        return None
    models = [llama(folder, name, layers) for name in ("one", "other")]
    size = sum(f.stat().st_size for f in models[0].iterdir())
    say(f"mergekit: two checkpoints of {size / 2**20:.0f} MB")
    recipe = folder / "recipe.yml"
    recipe.write_text("merge_method: linear\ndtype: bfloat16\nmodels:\n" +
                      "".join(f"  - model: {m}\n    parameters: {{weight: 0.5}}\n" for m in models))
    ours = [PROGRAM, "merge", *(m / "model.safetensors" for m in models), "--no-match", "-o", folder / "ours.safetensors", "-q"]
    theirs = [program, recipe, folder / "theirs", "--no-copy-tokenizer"]
    seconds = {"subspan merge": [], "mergekit linear": [], "mergekit, nothing to do": []}
    memory = {"subspan merge": [], "mergekit linear": []}
    for _ in range(3):
        for name, command in (("subspan merge", ours), ("mergekit linear", theirs), ("mergekit, nothing to do", [program, "--help"])):
            took, largest = watched(command)
            seconds[name].append(took)
            if name in memory:
                memory[name].append(largest)
        own = read_raw(folder / "ours.safetensors")
        other = {}
        for shard in sorted((folder / "theirs").glob("*.safetensors")):
            other |= read_raw(shard)
        different = sum(int(np.count_nonzero(own[n] != other[n])) for n in own)
        shutil.rmtree(folder / "theirs")
    return {"name": f"linear merge of two Llama-shaped checkpoints of {size / 2**20:.0f} MB", "seconds": seconds,
            "anonymous_bytes": memory, "values_that_differ": different}


def read_raw(path):
    """The 16-bit words of every bfloat16 tensor of a file."""
    data = np.memmap(path, np.uint8, "r")
    length = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8 : 8 + length].tobytes())
    return {n: np.frombuffer(data[8 + length + e["data_offsets"][0] : 8 + length + e["data_offsets"][1]], "<u2")
            for n, e in header.items() if n != "__metadata__"}


def random_mlp(path, width, seed):
    rng = np.random.default_rng(seed)
    sizes = [784, width, width, width, 10]
    layer = lambda k: (rng.standard_normal((sizes[k + 1], sizes[k])) / np.sqrt(sizes[k])).astype(np.float32)
    write(path, {f"layer{k}.weight": layer(k) for k in range(4)})


def random_resnet(path, width, seed):
    """A CIFAR ResNet-20 of three blocks a stage whose shortcuts pad channels."""
    rng = np.random.default_rng(seed)
    tensors = {}

    def put(conv, norm, n_out, n_in):
        tensors[f"{conv}.weight"] = (rng.standard_normal((n_out, n_in, 3, 3)) / np.sqrt(9 * n_in)).astype(np.float32)
        for part, start in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            tensors[f"{norm}.{part}"] = (start + 0.1 * rng.random(n_out)).astype(np.float32)

    put("conv1", "bn1", width, 3)
    for stage in range(3):
        n = width << stage
        for block in range(3):
            name = f"layer{stage + 1}.{block}"
            put(f"{name}.conv1", f"{name}.bn1", n, n // 2 if stage and not block else n)
            put(f"{name}.conv2", f"{name}.bn2", n, n)
    tensors["linear.weight"] = rng.standard_normal((10, n)).astype(np.float32)
    tensors["linear.bias"] = np.zeros(10, np.float32)
    write(path, tensors)


def summary(run):
    lines = ["# Matching and merging", "", f"`{run['command']}`, {run['date']}, {run['machine']['cpu']}.", ""]
    median = lambda v: sorted(v)[len(v) // 2]
    for m in run["matching"]:
        rival = " ".join(f"{r['objective']:.2f}" for r in m["numpy + scipy"])
        lines += [f"**{m['name']}**: NumPy + SciPy reaches {rival} in {sum(r['seconds'] for r in m['numpy + scipy']):.3f} s.", ""]
        own = m["subspan"]
        found = " ".join(f"{r['objective']:.2f}" for r in own["runs"])
        lines += [f"Subspan: {found} in {sum(r['solve'] for r in own['runs']):.3f} s; best objective {own['objective_ratio']:.6f} x "
                  f"the rival's, {own['times_faster']:.2f} x as fast by the median of each order over {len(own['times_faster_by_round'])} rounds (rounds "
                  f"{own['times_faster_by_round'][0]:.2f} to {own['times_faster_by_round'][-1]:.2f}), {own['times_faster_by_shortest_runs']:.2f} x by the shortest runs.", ""]
    for part in run["assignments"] + run["merging"]:
        lines += [f"**{part['name']}**", "", "| | median seconds | least | most |", "|---|---|---|---|"]
        lines += [f"| {name} | {median(v):.3f} | {min(v):.3f} | {max(v):.3f} |" for name, v in part["seconds"].items()] + [""]
        for name, v in part.get("times_faster_by_round", {}).items():
            lines += [f"{name}: {median(v):.2f} x as long as subspan in the same round (median of {len(v)}; quartiles {v[len(v) // 4]:.2f} "
                      f"and {v[3 * len(v) // 4]:.2f}).", ""]
        for name, v in part.get("anonymous_bytes", {}).items():
            lines += [f"{name}: {median(v) / 2**20:.0f} MB of memory of its own.", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the pairs of checkpoints")
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--lap", type=int, default=4096)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--quick", action="store_true", help="small sizes: width 256, n 512, 64 MB")
    parser.add_argument("--threads", type=int, help="threads of ours; NumPy's are those of OPENBLAS_NUM_THREADS")
    parser.add_argument("--only", choices=("matching", "assignments", "merging"), help="leave out the rest")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.width, options.lap, options.megabytes = 256, 512, 64
    build = ["cargo", "build", "--release", "-q", "-p", "subspan-cli", "-p", "subspan-benches"]
    subprocess.run(build, cwd=ROOT, check=True)
    now = datetime.datetime.now(datetime.UTC)
    out = options.out or ROOT / "benches" / "runs" / f"{now:%Y-%m-%d}-merge{'-quick' if options.quick else ''}"
    out.mkdir(parents=True, exist_ok=True)
    command = "python benches/rivals/matching.py" + (" --data DIR" if options.data else "") + (" --quick" if options.quick else "")
    told = {n: getattr(options, n) for n in ("threads", "only", "megabytes")}
    command += "".join(f" --{n} {v}" for n, v in told.items() if v != parser.get_default(n) and not (options.quick and n == "megabytes"))
    run = {"command": command, "date": f"{now:%Y-%m-%d}", "machine": machine.describe(),
           "matching": [], "assignments": [], "merging": []}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        pairs = []
        if options.data:
            pairs += [("MNIST MLP 3 x 512", "mnist_mlp512x3_seed1", "mnist_mlp512x3_seed2", "chain"),
                      ("ResNet-20", "resnet20_cifar10_A", "resnet20_cifar10_B", "resnet")]
            pairs = [(n, options.data / f"{a}.safetensors", options.data / f"{b}.safetensors", k) for n, a, b, k in pairs]
        made = [folder / f"mlp{k}.safetensors" for k in range(2)]
        for k, path in enumerate(made):
            random_mlp(path, options.width, k)
        pairs.append((f"random MLP 3 x {options.width}", *made, "chain"))
        wide = [folder / f"resnet{k}.safetensors" for k in range(2)]
        for k, path in enumerate(wide):
            random_resnet(path, options.width // 16, k)
        pairs.append((f"random ResNet-20 of width {options.width // 16}", *wide, "resnet"))
        for name, a, b, kind in pairs if options.only in (None, "matching") else []:
            trace = []
            run["matching"].append(match(name, a, b, kind, trace, options.threads))
            if not options.only:
                run["assignments"].append(assignments(BENCHES, f"recorded while matching {name}", trace, 3))
        if options.only in (None, "assignments"):
            run["assignments"] += [assignments(BENCHES, name, [costs], 3) for name, costs in made_up(options.lap)]
        if options.only in (None, "merging"):
            run["merging"].append(merging(folder, options.megabytes))
            beside = against_mergekit(folder, 2 if options.quick else 8)
            run["merging"] += [beside] if beside else []
        (out / "run.json").write_text(json.dumps(run, indent=1) + "\n")
        (out / "summary.md").write_text(summary(run) + "\n")
    print(summary(run))


if __name__ == "__main__":
    main()
