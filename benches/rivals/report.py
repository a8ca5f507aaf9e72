"""Records to Markdown."""

import statistics

import contest


def seconds(record):
    times = contest.times(record)
    if not times:
        return "-"
    return f"{figure(statistics.median(times))} ({figure(min(times))}-{figure(max(times))}, n={len(times)})"


def figure(x):
    """Three significant digits."""
    return f"{x:.3g}" if x is not None else "-"


def times_faster(x):
    return f"{x:.2f}x" if x is not None else "-"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "--|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def target(name, measured, bar, kind="at least"):
    """A row of the table of targets; `measured` is None when it could not be measured."""
    if measured is None:
        verdict = "not measured"
    else:
        met = measured >= bar if kind == "at least" else measured <= bar
        verdict = "met" if met else "**missed**"
    return {"target": name, "bar": f"{kind} {bar:g}", "measured": figure(measured), "verdict": verdict}


def targets(rows):
    keys = ("target", "bar", "measured", "verdict")
    return table(keys, [[row[k] for k in keys] for row in rows])


def failed(record):
    """`2 of 5: LinAlgError: ...`, or nothing."""
    failures = contest.failures(record)
    return f"failed {len(failures)} of {len(record['runs'])}: {failures[0]}" if failures else ""
