"""The two processes that are compared, each with its own copy of the table: rivals (Python) and ours (Rust)."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: A machine may pin the kernels of OpenBLAS in its environment, for the sake of old versions; a current one must choose.
PINNED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


class LineProcess:
    """A process that answers each line with a line."""

    def __init__(self, command, environment=None):
        self.command, self.environment = command, environment
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line, timeout):
        """The reply; a failure when there is none in time, then the process is gone."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        ready = select.select([self.process.stdout], [], [], timeout)[0]
        reply = self.process.stdout.readline() if ready else ""
        if reply:
            return json.loads(reply)
        self.stop()
        return {"failure": "the process died" if ready else f"no answer after {timeout:.0f} s"}

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None


class Rivals(LineProcess):
    """Every rival, in one Python process."""

    def __init__(self, workload, has_target):
        environment = {k: v for k, v in os.environ.items() if k not in PINNED}
        super().__init__([sys.executable, str(HERE / "worker.py")], environment)
        self.workload, self.has_target = workload, has_target
        self.blas = self.choose_kernels()

    def choose_kernels(self):
        """An old OpenBLAS does not know a new processor and falls back to its slowest kernels. Then all of them are told
        to run what the newest chose."""
        blas = self.request("environment")["blas"]
        newest = max(blas, key=lambda b: [int(n) for n in b["version"].split(".") if n.isdigit()])
        if any(b["architecture"] != newest["architecture"] for b in blas):
            self.stop()
            self.environment["OPENBLAS_CORETYPE"] = newest["architecture"]
            blas = self.request("environment")["blas"]
        return blas

    def request(self, do, timeout=600, **arguments):
        if self.process is None:
            self.start()
            if do not in ("load", "environment"):
                self.load()
        return self.ask(json.dumps({"do": do, **arguments}), timeout)

    def load(self):
        return self.request("load", path=str(self.workload.path), has_target=self.has_target)


class Ours(LineProcess):
    """The library, through the job runner of the benches package."""

    def __init__(self, workload):
        binary = ROOT / "target" / "release" / "subspan-benches"
        super().__init__([str(binary), "job", "serve", str(workload.path)])

    def request(self, line, timeout=600):
        """The one repeat of the job, or its failure."""
        if self.process is None:
            self.start()
        reply = self.ask(line, timeout)
        return reply["repeats"][0] if "repeats" in reply else reply
