"""Runs a command and prints its wall seconds and peak resident bytes as JSON, its output following.

A process of its own: what the kernel reports as the peak of a child is at least the size of the process that forked it.
"""

import json
import os
import subprocess
import sys
import time


def main():
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    print(json.dumps({"wall": wall, "rss": usage.ru_maxrss * 1024, "status": process.returncode}))
    print(output.decode())


if __name__ == "__main__":
    main()
