"""Writes summary.md beside the run.json of cluster.py: python benches/rivals/cluster_summary.py FOLDER"""

import json
import sys
from pathlib import Path

HERE = Path(sys.argv[1])
RIVALS = {
    "kmeans": "k-means", "gmm": "GMM", "kmeans_same_features": "k-means, same features", "gmm_same_features": "GMM, same features",
    "knn_spectral": "kNN-spectral", "knn_spectral_half_whitened": "half whitened",
    "knn_spectral_same_features": "kNN-spectral, same features",
    "knn_unit_spectral": "kNN-spectral, unit rows", "knn_unit_spectral_same_features": "unit rows, same features", "knn_unit_spectral_half_whitened": "the same, half whitened",
    "hdbscan": "HDBSCAN", "ssc_omp": "SSC-OMP", "ssc_omp_centered": "SSC-OMP, centred", "ensc": "EnSC", "ensc_centered": "EnSC, centred", "ensc_same_features": "EnSC, same features",
}

sets = json.loads((HERE / "run.json").read_text())["sets"]
# Columns of contestants that took part.
RIVALS = {name: title for name, title in RIVALS.items() if any(name in entry["summary"] for entry in sets.values())}
lines = [
    "# Clustering against scikit-learn",
    "",
    "`python benches/rivals/cluster.py --data DIR`: accuracy / NMI, medians over seeds (worst accuracy in brackets), the number of clusters given;",
    "with `--auto`, the last column is what `--clusters auto` chose, with its interval. Seconds in run.json are of a busy machine.",
    "",
    "| " + " | ".join(["set (classes, seeds)", "subspan", *RIVALS.values(), "auto"]) + " |",
    "|---" * (3 + len(RIVALS)) + "|",
]
for name, entry in sets.items():
    cell = lambda v: f"{v['accuracy']['median']:.3f} / {v['nmi']['median']:.3f}" if v else ""  # noqa: E731
    found = entry["summary"]
    own = found["subspan"]
    auto = entry.get("auto", {})
    chosen = f"{auto['clusters']} {auto['interval']}" if "clusters" in auto else ""
    row = [f"{name} ({entry['classes']}, {len(entry['runs'])})", f"{cell(own)} ({own['accuracy']['worst']:.3f})"]
    lines.append("| " + " | ".join(row + [cell(found.get(r)) for r in RIVALS] + [chosen]) + " |")
speed = HERE / "speed.json"
if speed.exists():
    lines += ["", "## Speed", "", "`subspan-benches cluster`, two threads, quiet machine; raw data in speed.json.", ""]
    for name, part in json.loads(speed.read_text())["parts"].items():
        for entry in part if isinstance(part, list) else [part]:
            shown = {k: (float(f"{v:.3g}") if isinstance(v, float) else v) for k, v in entry.items() if k != "raw"}
            lines.append(f"- {name}: " + ", ".join(f"{k} {v}" for k, v in shown.items()))
(HERE / "summary.md").write_text("\n".join(lines) + "\n")
