"""A table that general solvers can still take: HiGHS (alone and inside scikit-learn), statsmodels, pinball, ours."""

import contest
import report
import workloads
from jobs.lad import EXACT, FULL, Field

SAMPLED = "subspan sample, 2000 rows"


def run(bench):
    n_rows = 2_000 if bench.quick else 20_000
    kinds = ("gaussian", "heavy", "rare")
    return (section(bench, workloads.regression(bench.folder, kind, n_rows, 20)) for kind in kinds)


def section(bench, workload):
    field = Field(bench, workload)
    rivals = [field.rival(name, 1) for name in ("pinball pfn", "pinball fn", "statsmodels QuantReg", "scipy HiGHS, dual form")]
    rivals += [field.rival(name, 1, 3) for name in ("scipy HiGHS", "scikit-learn QuantileRegressor")]
    ours = [field.our(EXACT, "exact", 1), field.our(FULL, "full", 1), field.our(SAMPLED, "l1 --rows 2000", 1, bench.seeds)]
    records = field.contest(rivals, ours)
    rows = []
    for record in records:
        if not record["ours"]:
            ratio = contest.ratio(records, (record["name"], 1), (EXACT, 1))
            rows.append({"target": f"{workload.name}: {record['name']} / {EXACT} (1 thread)", "bar": "shown",
                         "measured": report.times_faster(ratio), "verdict": "-"})
    return field.section("l1, small table", records, rows)
