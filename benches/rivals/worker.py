"""A process that holds one table in memory and runs rivals on it: JSON lines in, JSON lines out."""

import json
import os
import sys
import time

import numpy as np
import solvers
from threadpoolctl import threadpool_info, threadpool_limits


class Worker:
    def __init__(self):
        self.a = self.y = self.reference = None

    def load(self, path, has_target):
        table = np.load(path)
        self.y = np.ascontiguousarray(table[:, -1]) if has_target else None
        self.a = np.ascontiguousarray(table[:, :-1]) if has_target else table
        self.reference = None
        return {"shape": self.a.shape}

    def run(self, solver, threads, seed):
        """One timed call; the answer is checked outside the timing."""
        np.random.seed(seed)  # pfn draws its subsample from the global generator
        if solver in solvers.LEVERAGE:
            call = lambda: solvers.LEVERAGE[solver](self.a)
        else:
            call = lambda: solvers.L1[solver](self.a, self.y)
        with threadpool_limits(threads, user_api="blas"):
            start = time.perf_counter()
            answer = call()
            seconds = time.perf_counter() - start
        if solver in solvers.LEVERAGE:
            return {"seconds": seconds, "error": self.score_error(answer)}
        return {"seconds": seconds, "coefficients": list(map(float, answer)), "objective": self.objective(answer)}

    def objective(self, coefficients):
        """Sum of absolute residuals over all rows, the same function for everybody."""
        return float(np.abs(self.y - self.a @ np.asarray(coefficients)).sum())

    def score_error(self, scores):
        """Largest relative error against QR."""
        if self.reference is None:
            self.reference = solvers.qr(self.a)
        return float(np.max(np.abs(scores / self.reference - 1)))

    def score_error_of_file(self, path):
        return {"error": self.score_error(np.fromfile(path, dtype="<f8"))}

    def objective_of(self, coefficients):
        return {"objective": self.objective(coefficients)}

    def environment(self):
        """Which BLAS kernels run: asked once everything that brings its own is loaded."""
        import pinball._native  # noqa: F401

        keys = ("internal_api", "version", "architecture", "num_threads", "threading_layer")
        blas = [{k: lib[k] for k in keys if k in lib} | {"library": os.path.basename(lib["filepath"])}
                for lib in threadpool_info() if lib["user_api"] == "blas"]
        return {"blas": blas}


def main():
    # A rival that prints must not break the protocol.
    replies, sys.stdout = sys.stdout, sys.stderr
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        method = getattr(worker, request.pop("do"))
        try:
            reply = method(**request)
        except Exception as e:
            reply = {"failure": f"{type(e).__name__}: {e}".splitlines()[0][:200]}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
