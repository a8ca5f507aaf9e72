"""The `subspan` command: the same program as the Rust one."""

import sys

from . import _native


def main():
    """Runs the command line of this process and ends it with its exit code."""
    sys.exit(_native.main(sys.argv))
