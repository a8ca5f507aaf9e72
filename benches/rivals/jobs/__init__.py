"""One file per comparison. Each has `run(bench)`, which measures one section after another."""
