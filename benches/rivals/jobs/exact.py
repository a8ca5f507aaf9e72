"""Least absolute deviations to the optimum: `--exact` (proved gap 1e-8) and `--full` against pfn and fn."""

import contest
import report
import workloads
from jobs.lad import EXACT, FULL, Field, fastest, values


def run(bench):
    shapes = [(200_000, 20)] if bench.quick else [(10**6, d) for d in bench.columns]
    kinds = ("gaussian", "heavy", "rare")
    return (section(bench, workloads.regression(bench.folder, kind, *shape)) for shape in shapes for kind in kinds)


def section(bench, workload):
    field = Field(bench, workload)
    rivals = [field.rival(name, t) for name in ("pinball pfn", "pinball fn") for t in (1, 2)]
    ours = [field.our(name, name.split()[1], t) for name in (EXACT, FULL) for t in (1, 2)]
    records = field.contest(rivals, ours)
    return field.section("l1 to the optimum", records, targets(workload, records))


def targets(workload, records):
    what = f"exact {workload.name}"
    mine = contest.find(records, EXACT, 2)
    gaps = values(mine, "relative_gap")
    rows = [report.target(f"{what}: proved gap, worst of {len(mine['runs'])}", max(gaps, default=None), 1e-8, "at most")]
    failed = [contest.failures(contest.find(records, "pinball pfn", t)) for t in (1, 2)]
    if all(failed):
        done = len(values(mine, "excess")) == len(mine["runs"])
        rows.append({"target": f"{what}: ours succeeds where pfn fails", "bar": "yes", "measured": failed[0][0],
                     "verdict": "met" if done else "**missed**"})
    else:
        for t in (1, 2):
            ratio = contest.ratio(records, ("pinball pfn", t), (EXACT, t))
            rows.append(report.target(f"{what}: pfn / ours, {t} threads each", ratio, 2))
        pfn = fastest(records, ["pinball pfn"])
        rows.append(report.target(f"{what}: fastest pfn ({pfn[1]} threads) / ours (2)",
                                  contest.ratio(records, pfn, (EXACT, 2)), 2))
    return rows
