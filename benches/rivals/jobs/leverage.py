"""Leverage scores of a table in memory: QR and Gram+Cholesky in NumPy against `sample::leverage_scores`."""

import contest
import report
import solvers
import workloads
from contest import Contestant
from processes import Ours, Rivals

OURS = "subspan leverage_scores"


def run(bench):
    shapes = [(20_000, 20)] if bench.quick else [(10**6, 20), (10**6, 100)]
    return (section(bench, workloads.matrix(bench.folder, "heavy", *shape)) for shape in shapes)


def section(bench, workload):
    bench.say(workload)
    rivals, ours = Rivals(workload, has_target=False), Ours(workload)
    rivals.load()
    saved = bench.folder / "scores.f64"

    def our_call(threads):
        def call(seed):
            reply = ours.request(f"leverage --threads {threads} --save {saved}")
            return reply | rivals.request("score_error_of_file", path=str(saved)) if "seconds" in reply else reply

        return call

    theirs = [
        Contestant(name, threads, lambda seed, n=name, t=threads: rivals.request("run", solver=n, threads=t, seed=seed),
                   repeats=bench.repeats)
        for name in solvers.LEVERAGE for threads in (1, 2)
    ]
    mine = [Contestant(OURS, t, our_call(t), ours=True, repeats=bench.repeats) for t in (1, 2, 1, 2, 1, 2)[: len(theirs)]]
    records = merged(contest.run(contest.turns(theirs, mine)))
    rivals.stop()
    ours.stop()
    return {"title": f"Leverage scores, {workload.name}", "workload": workload.describe(), "blas": rivals.blas,
            "records": records, "tables": [shown(records)], "targets": targets(workload, records)}


def merged(records):
    """Ours takes a turn after every rival: its turns are one record per thread count."""
    whole = {}
    for record in records:
        known = whole.setdefault((record["name"], record["threads"]), record)
        if known is not record:
            known["runs"] += record["runs"]
    return list(whole.values())


def shown(records):
    rows = []
    for r in records:
        ratios = [report.times_faster(contest.ratio(records, (r["name"], r["threads"]), (OURS, t))) for t in (1, 2)]
        errors = [x["error"] for x in r["runs"] if "error" in x]
        rows.append([r["name"], r["threads"], report.seconds(r), *ratios, f"{max(errors):.1e}" if errors else "-",
                     report.failed(r)])
    checks = [x["check_seconds"] for r in records if r["ours"] for x in r["runs"] if "check_seconds" in x]
    share = f"Ours includes the check for non-finite values: {report.figure(min(checks))} s of its time." if checks else ""
    return report.table(["", "threads", "seconds: median (min-max)", "/ ours, 1 thread", "/ ours, 2 threads",
                         "largest relative error against QR", ""], rows) + "\n\n" + share


def targets(workload, records):
    what = f"leverage {workload.name}"
    fastest = lambda threads: best(records, [n for n in solvers.LEVERAGE if "Cholesky" in n], threads)
    plain = "numpy Gram+Cholesky"
    return [
        report.target(f"{what}: numpy QR (1 thread) / ours (2)", contest.ratio(records, ("numpy QR", 1), (OURS, 2)), 40),
        report.target(f"{what}: numpy QR (2 threads) / ours (2)", contest.ratio(records, ("numpy QR", 2), (OURS, 2)), 40),
        report.target(f"{what}: {plain} (1 thread) / ours (2)", contest.ratio(records, (plain, 1), (OURS, 2)), 3),
        report.target(f"{what}: {plain} (1 thread) / ours (1)", contest.ratio(records, (plain, 1), (OURS, 1)), 1.5),
        report.target(f"{what}: {plain} (2 threads) / ours (2)", contest.ratio(records, (plain, 2), (OURS, 2)), 1.5),
        report.target(f"{what}: fastest Gram+Cholesky (1 thread) / ours (1)",
                      contest.ratio(records, fastest(1), (OURS, 1)), 1.5),
        report.target(f"{what}: fastest Gram+Cholesky (2 threads) / ours (2)",
                      contest.ratio(records, fastest(2), (OURS, 2)), 1.5),
    ]


def best(records, names, threads):
    """(name, threads) of the fastest of the rivals."""
    times = {n: contest.median_time(contest.find(records, n, threads)) for n in names}
    return min((n for n in names if times[n]), key=times.get, default=names[0]), threads
