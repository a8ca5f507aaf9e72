"""One file per comparison. Each has `run(bench) -> [section]`; see `run.py`."""
