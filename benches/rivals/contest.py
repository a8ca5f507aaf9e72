"""Interleaved repeats of several contestants on one workload."""

import statistics
import sys
import time
from dataclasses import dataclass

#: Idle threads of a BLAS spin for some ten milliseconds after a call; the next contestant must not share a core with them.
SETTLE_SECONDS = 0.2
#: A contestant whose first call took longer than this runs three times only.
SLOW_SECONDS, SLOW_REPEATS = 15.0, 3


@dataclass
class Contestant:
    """`call(seed)` answers {"seconds": ..., ...} or {"failure": ...}."""

    name: str
    threads: int
    call: object
    ours: bool = False
    repeats: int = 5


def run(contestants):
    """One record per contestant. Rivals and ours take turns: every repeat goes through all of them."""
    records = [{"name": c.name, "threads": c.threads, "ours": c.ours, "runs": []} for c in contestants]
    left = [c.repeats for c in contestants]
    for repeat in range(max(left)):
        for k, (contestant, record) in enumerate(zip(contestants, records)):
            if repeat >= left[k]:
                continue
            time.sleep(SETTLE_SECONDS)
            reply = contestant.call(repeat)
            record["runs"].append(reply)
            if reply.get("seconds", 0) > SLOW_SECONDS:
                left[k] = min(left[k], SLOW_REPEATS)
            if "no answer" in reply.get("failure", ""):
                left[k] = 0
            shown = f"{reply['seconds']:.3f} s" if "seconds" in reply else reply.get("failure")
            print(f"  {repeat + 1}  {contestant.name}, {contestant.threads} threads: {shown}", file=sys.stderr, flush=True)
    return records


def turns(rivals, ours):
    """rival, ours, rival, ours, ...; who has more goes on alone."""
    order = []
    for k in range(max(len(rivals), len(ours))):
        order += rivals[k : k + 1] + ours[k : k + 1]
    return order


def times(record):
    return [r["seconds"] for r in record["runs"] if "seconds" in r]


def median_time(record):
    """None for a contestant that never finished."""
    return statistics.median(times(record)) if times(record) else None


def failures(record):
    return [r["failure"] for r in record["runs"] if "failure" in r]


def find(records, name, threads):
    """The record, or None when the contestant did not take part."""
    return next((r for r in records if r["name"] == name and r["threads"] == threads), None)


def ratio(records, rival, ours):
    """How many times longer the rival (name, threads) took than ours; None when one of them has no time."""
    pair = [find(records, *who) for who in (rival, ours)]
    medians = [median_time(r) if r else None for r in pair]
    return medians[0] / medians[1] if all(medians) else None
