"""Subspan against what people use today, on the same data, in turns.

    python -m venv target/rivals/venv
    target/rivals/venv/bin/pip install -r benches/rivals/requirements.txt
    target/rivals/venv/bin/python benches/rivals/run.py leverage l1 exact small [--quick] [--data DIR]

writes benches/runs/<date>-rivals-<jobs>/: run.json (command, versions, machine, every single timing) and summary.md. Fair means
here: the same table in the memory of one Python and one Rust process, contestants take turns, thread counts are stated, one
NumPy function judges every answer on all rows, a failure is recorded as one, and whoever loses is shown too.
"""

import argparse
import datetime
import importlib
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import machine  # noqa: E402
import report  # noqa: E402

ROOT = HERE.parents[1]
JOBS = ("leverage", "l1", "exact", "small", "real", "out_of_core")


class Bench:
    """What the jobs need to know."""

    def __init__(self, options):
        self.quick, self.large, self.data = options.quick, options.large, options.data
        self.repeats, self.seeds, self.timeout = options.repeats, options.seeds, options.timeout
        self.columns = options.columns
        self.folder = options.folder
        self.folder.mkdir(parents=True, exist_ok=True)

    def say(self, workload):
        print(f"{workload.name}: {workload.note}", file=sys.stderr, flush=True)


def main():
    options = arguments()
    build()
    now = datetime.datetime.now(datetime.UTC)
    name = f"{now:%Y-%m-%d}-rivals-{'-'.join(options.jobs)}" + ("-quick" if options.quick else "")
    out = options.out or ROOT / "benches" / "runs" / name
    out.mkdir(parents=True, exist_ok=True)
    run = {"command": shown_command(), "date": f"{now:%Y-%m-%d}", "quick": options.quick, "machine": machine.describe(),
           "sections": []}
    bench = Bench(options)
    for job in options.jobs:
        for section in importlib.import_module(f"jobs.{job}").run(bench):
            run["sections"].append(section)
            # After every section: a later one that dies takes nothing with it.
            (out / "run.json").write_text(json.dumps(run, indent=1) + "\n")
            (out / "summary.md").write_text(summary(run))
    print(summary(run))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="+", choices=JOBS)
    parser.add_argument("--quick", action="store_true", help="small tables: tells whether everything works, not how fast")
    parser.add_argument("--data", type=Path, help="folder of public tables, for the job `real`")
    parser.add_argument("--columns", type=lambda s: [int(n) for n in s.split(",")], default=[20],
                        help="columns of the 10^6-row tables of `l1` and `exact` (default 20)")
    parser.add_argument("--large", action="store_true", help="a 20 GB file as well, for the job `out_of_core`")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=900, help="seconds after which a call is a failure")
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "rivals" / "tables", help="where tables are kept")
    parser.add_argument("--out", type=Path, help="where results go")
    return parser.parse_args()


def build():
    command = ["cargo", "build", "--release", "-p", "subspan-benches", "-p", "subspan-cli"]
    subprocess.run(command, cwd=ROOT, check=True)


def shown_command():
    """As typed, without the folders of this machine."""
    words, skip = [], False
    for word in sys.argv[1:]:
        words.append("DIR" if skip else word)
        skip = word in ("--data", "--folder", "--out")
    return " ".join(["python benches/rivals/run.py", *words])


def summary(run):
    m = run["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in m["packages"].items())
    lines = [
        f"# Rivals, {run['date']}" + (" (quick: figures mean nothing)" if run["quick"] else ""),
        f"`{run['command']}`",
        f"{m['cpu']} ({', '.join(m['simd'])}), {m['cores']} cores, {m['memory_gib']} GiB; {m['os']}; {m['rustc']}; "
        f"commit {m['commit']}; Python {m['python']}, {packages}.",
    ]
    targets = [t for section in run["sections"] for t in section["targets"]]
    if targets:
        lines += ["## Targets", report.targets(targets)]
    for section in run["sections"]:
        lines += [f"## {section['title']}", section["workload"]["note"] + ".", *section["tables"]]
        if "blas" in section:
            kernels = (f"{b['version']} {b['architecture']} ({b['threading_layer']})" for b in section["blas"])
            lines.append(f"BLAS of the rivals: OpenBLAS {'; '.join(kernels)}.")
    return "\n\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
