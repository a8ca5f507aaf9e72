"""What a run was measured with: versions and hardware, no names of hosts or folders."""

import importlib.metadata
import os
import platform
import re
import subprocess

from processes import ROOT

PACKAGES = ("numpy", "scipy", "scikit-learn", "statsmodels", "pinball-qr", "pyarrow", "threadpoolctl")


def describe():
    return {
        "cpu": first_match("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.processor(),
        "cpu_family_model": [first_match("/proc/cpuinfo", rf"{key}\s*:\s*(\d+)") for key in ("cpu family", "model")],
        "simd": [flag for flag in ("avx2", "fma", "avx512f") if flag in open("/proc/cpuinfo").read()],
        "cores": os.cpu_count(),
        "memory_gib": round(int(first_match("/proc/meminfo", r"MemTotal:\s*(\d+)")) / 2**20, 1),
        "os": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "rustc": command("rustc", "--version").split(" (")[0],
        "commit": command("git", "rev-parse", "--short", "HEAD"),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def first_match(path, pattern):
    found = re.search(pattern, open(path).read())
    return found and found.group(1).strip()


def command(*words):
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip()
