"""Least absolute deviations to 1 %: sample and solve, against exact solvers and against other samples of the same size."""

import contest
import report
import workloads
from jobs.lad import EXACT, Field, all_good, fastest

#: Rows of a sample per column of the table.
ROWS_PER_COLUMN = (50, 100, 250)
RULES = {"subspan sample": "auto", "plain leverage, same solver": "leverage", "uniform, same solver": "uniform"}


def run(bench):
    shapes = [(20_000, 20)] if bench.quick else [(10**6, d) for d in bench.columns]
    kinds = ("gaussian", "heavy", "rare")
    return (section(bench, workloads.regression(bench.folder, kind, *shape)) for shape in shapes for kind in kinds)


def section(bench, workload):
    field = Field(bench, workload)
    slow = min(3, bench.repeats)
    rivals = [field.rival("pinball pfn", t) for t in (1, 2)] + [field.rival("pinball fn", t, slow) for t in (1, 2)]
    rivals.append(field.rival("statsmodels QuantReg", 2, slow))
    # The optimum of tables on which every rival fails.
    ours = [field.our(EXACT, "exact", 2, 3)]
    sizes = [per_column * workload.n_cols for per_column in ROWS_PER_COLUMN]
    for rows in sizes:
        for name, rule in RULES.items():
            for threads in (1, 2) if rule == "auto" else (2,):
                ours.append(field.our(f"{name}, {rows} rows", f"l1 --rows {rows} --rule {rule}", threads, bench.seeds))
    records = field.contest(rivals, ours)
    return field.section("l1 to 1 %", records, targets(workload, records, sizes))


def targets(workload, records, sizes):
    """The smallest sample that was good for every seed stands for each rule."""
    what = f"l1 to 1 % {workload.name}"

    def chosen(name, threads):
        names = [f"{name}, {rows} rows" for rows in sizes]
        return next(((n, threads) for n in names if all_good(contest.find(records, n, threads))), None)

    ours = chosen("subspan sample", 2)
    ratio = lambda rival: contest.ratio(records, rival, ours) if ours else None
    seeds = f"all {len(contest.find(records, *ours)['runs'])} seeds within 1 %" if ours else "no size good for every seed"
    pfn = fastest(records, ["pinball pfn"])
    rows = [
        report.target(f"{what}: pfn ({pfn[1]} threads) / {ours[0] if ours else 'ours'} (2 threads; {seeds})", ratio(pfn), 8),
        report.target(f"{what}: statsmodels / ours", ratio(("statsmodels QuantReg", 2)), 100),
    ]
    for name in list(RULES)[1:]:
        other = chosen(name, 2)
        rows.append({"target": f"{what}: {name}, its smallest good sample ({other[0] if other else 'none'}) / ours",
                     "bar": "shown", "measured": report.figure(ratio(other) if other else None), "verdict": "-"})
    return rows
