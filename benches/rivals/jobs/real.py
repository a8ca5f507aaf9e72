"""Public tables, from `--data`: casp (45730 rows) and flights (3 million rows, whole numbers, many ties)."""

import workloads
from jobs.lad import EXACT, FULL, Field


def run(bench):
    for name in ["casp"] if bench.quick else ["casp", "flights3m"]:
        workload = workloads.real(bench.folder, bench.data, name)
        if workload is None:
            print(f"skipped {name}: no such table under --data", flush=True)
            continue
        yield section(bench, workload)


def section(bench, workload):
    field = Field(bench, workload)
    rivals = [field.rival("pinball pfn", 1), field.rival("pinball fn", 1, 3), field.rival("statsmodels QuantReg", 1, 3)]
    ours = [field.our(EXACT, "exact", 2), field.our(FULL, "full", 2)]
    ours += [field.our(f"subspan sample, {m} rows", f"l1 --rows {m}", 2, bench.seeds) for m in (500, 2000, 10_000)]
    ours.append(field.our("uniform, same solver, 2000 rows", "l1 --rows 2000 --rule uniform", 2, bench.seeds))
    return field.section("l1, public table", field.contest(rivals, ours), [])
