"""What the comparisons of least absolute deviations have in common: contestants, optimum, tables."""

import statistics

import contest
import report
from contest import Contestant
from processes import Ours, Rivals

EXACT, FULL = "subspan exact", "subspan full"
#: "to 1 %": the largest relative excess of the objective over the optimum.
GOOD = 0.01


class Field:
    """One workload with its two processes."""

    def __init__(self, bench, workload):
        bench.say(workload)
        self.bench, self.workload = bench, workload
        self.rivals, self.ours = Rivals(workload, has_target=True), Ours(workload)
        self.rivals.load()

    def rival(self, name, threads, repeats=None):
        call = lambda seed: self.rivals.request("run", solver=name, threads=threads, seed=seed, timeout=self.bench.timeout)
        return Contestant(name, threads, call, repeats=repeats or self.bench.repeats)

    def our(self, name, arguments, threads, repeats=None):
        def call(seed):
            reply = self.ours.request(f"{arguments} --threads {threads} --seed {seed}", self.bench.timeout)
            if "coefficients" in reply:
                # The same function judges everybody.
                reply |= self.rivals.request("objective_of", coefficients=reply["coefficients"])
            return reply

        return Contestant(name, threads, call, ours=True, repeats=repeats or self.bench.repeats)

    def contest(self, rivals, ours):
        """Records with the relative excess of every run over the best objective that anyone found."""
        records = contest.run(contest.turns(rivals, ours))
        self.rivals.stop()
        self.ours.stop()
        runs = [r for record in records for r in record["runs"] if "objective" in r]
        best = min(runs, key=lambda r: r["objective"])
        for r in runs:
            r["excess"] = r["objective"] / best["objective"] - 1
            if self.workload.rare_columns:
                pairs = [(r["coefficients"][j], best["coefficients"][j]) for j in self.workload.rare_columns]
                r["rare_error"] = max(abs(x - b) for x, b in pairs)
        return records

    def section(self, title, records, targets):
        return {"title": f"{title}, {self.workload.name}", "workload": self.workload.describe(), "blas": self.rivals.blas,
                "records": records, "tables": [self.table(records)], "targets": targets}

    def table(self, records):
        rare = bool(self.workload.rare_columns)
        rows = []
        for r in records:
            row = [r["name"], r["threads"], report.seconds(r), excess(r), within(r), gap(r)]
            rows.append(row + ([rare_error(r)] if rare else []) + [report.failed(r)])
        header = ["", "threads", "seconds: median (min-max)", "excess objective: median (max)", "within 1 %", "proved gap"]
        return report.table(header + (["worst rare coefficient: median (max)"] if rare else []) + [""], rows)


def values(record, key):
    return [r[key] for r in record["runs"] if r.get(key) is not None]


def spread(numbers):
    return f"{statistics.median(numbers):.1e} ({max(numbers):.1e})" if numbers else "-"


def excess(record):
    return spread(values(record, "excess"))


def rare_error(record):
    return spread(values(record, "rare_error"))


def gap(record):
    gaps = values(record, "relative_gap")
    return f"{max(gaps):.0e}" if gaps else "-"


def n_good(record):
    return sum(x <= GOOD for x in values(record, "excess"))


def within(record):
    return f"{n_good(record)}/{len(record['runs'])}"


def all_good(record):
    return record is not None and n_good(record) == len(record["runs"])


def fastest(records, names, threads=(1, 2)):
    """The rival (name, threads) with the smallest median."""
    candidates = [(n, t) for n in names for t in threads]
    timed = {c: contest.median_time(r) for c in candidates if (r := contest.find(records, *c)) and contest.median_time(r)}
    return min(timed, key=timed.get, default=candidates[0])
