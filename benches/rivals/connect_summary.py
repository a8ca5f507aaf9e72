"""Writes summary.md beside the run.json of `subspan-benches merge`: python benches/rivals/connect_summary.py FOLDER"""

import json
import statistics
import sys
from pathlib import Path

HERE = Path(sys.argv[1])
run = json.loads((HERE / "run.json").read_text())
lines = ["# Linear mode connectivity", "", "`subspan-benches merge DIR OUT`: the loss (nats) and accuracy half-way between two models against the mean of "
         "their ends, on test images. A range is over pairs and seeds of the order of matching.", ""]


def span(values, digits=3, factor=1.0):
    values = [factor * v for v in values]
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def seeds(results):
    pairs = [results] if isinstance(results, dict) else [r["found"] for r in results]
    return [s for pair in pairs for s in pair["seeds"]]


def at(curve, gamma):
    return next(point for point in curve if abs(point[0] - gamma) < 1e-9)


names = {"mnist_pair": "MNIST, the recorded pair", "fresh_mnist": "MNIST, fresh pairs", "fresh_fashion": "Fashion-MNIST, fresh pairs"}
parts = [(names[k], seeds(run[k]["results"])) for k in names if k in run]
lines += ["MLPs of 3 x 512 units.", "", "| | barrier before | after | accuracy drop before, points | after | distance less, % | R(0.3) before | after |",
          "|---|---|---|---|---|---|---|---|"]
for name, found in parts:
    lines.append(f"| {name} ({len(found)}) | {span([s['raw']['loss'] for s in found], 2)} | {span([s['matched']['loss'] for s in found], 4)} | "
                 f"{span([s['raw']['accuracy'] for s in found], 1, 100)} | {span([s['matched']['accuracy'] for s in found], 2, 100)} | "
                 f"{span([s['distance_reduction'] for s in found], 1, 100)} | {span([at(s['alignment_curve'], 0.3)[1] for s in found])} | "
                 f"{span([at(s['alignment_curve'], 0.3)[2] for s in found])} |")
arms = [a["arm"] for a in parts[0][1][0]["intervention"]["arms"]]
gamma = parts[0][1][0]["intervention"]["gamma"]
lines += ["", f"## Which directions matter (γ = {gamma})", "", "Barrier of the loss when only some singular directions are matched; in brackets how much less the "
          "distance is, in per cent.", "", "| | " + " | ".join(arms) + " |", "|---" * (len(arms) + 1) + "|"]
for name, found in parts:
    cells = []
    for arm in arms:
        taken = [next(a for a in s["intervention"]["arms"] if a["arm"] == arm) for s in found]
        cells.append(f"{span([a['barrier']['loss'] for a in taken], 4)} ({span([a['distance_reduction'] for a in taken], 1, 100)})")
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
for part, title, word in (("width", "Width", "units"), ("weight_decay", "Weight decay", "decay")):
    if part not in run:
        continue
    lines += ["", f"## {title}", "", f"| {word} | loss alone | barrier before | after | accuracy drop after, points | distance less, % | R before | after |",
              "|---|---|---|---|---|---|---|---|"]
    rows = run[part]["results"]
    for value in sorted({r["value"] for r in rows}):
        same = [r for r in rows if r["value"] == value]
        middle = statistics.median([x for r in same for x in (r["loss"] if isinstance(r["loss"], list) else [r["loss"]])])
        pick = lambda key: [r[key] for r in same]  # noqa: B023, E731
        lines.append(f"| {value:g} ({len(same)}) | {middle:.3f} | {span(pick('barrier_before'))} | {span(pick('barrier_after'), 4)} | "
                     f"{span(pick('accuracy_drop'), 2, 100)} | {span(pick('distance_reduction'), 1, 100)} | {span(pick('alignment_before'))} | "
                     f"{span(pick('alignment_after'))} |")
if "resnet" in run:
    found = run["resnet"]["results"]
    ends = ", ".join(f"{100 * e['accuracy']:.1f} %" for e in found["alone"])
    lines += ["", "## ResNet-20 of width 16, CIFAR-10 (1,000 recompressed images)", "", f"Ends {ends}.", "",
              "| | objective | distance less, % | accuracy half-way, BatchNorm averaged | measured anew |", "|---|---|---|---|---|"]
    for w in found["ways"]:
        lines.append(f"| {w['way']} | {w['objective']:.1f} | {100 * w['distance_reduction']:.1f} | "
                     f"{100 * w['middle_without_reset']['accuracy']:.1f} % | {100 * w['middle']['accuracy']:.1f} % |")
lines += ["", "Parts in run.json: " + ", ".join(run) + ". Seconds there are of a busy machine."]
(HERE / "summary.md").write_text("\n".join(lines) + "\n")
