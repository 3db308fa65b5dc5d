"""Runs yosys commands, one a line of standard input: a process of its own, so that a crash or a hang stays in it."""

from __future__ import annotations

import sys

BROKEN = 87
"""Exit status where pyosys is there but does not load."""


def main() -> None:
    """Run every line; yosys itself prints, and ends the process at the first error."""
    try:
        from pyosys import libyosys
    except ImportError as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(BROKEN)

    design = libyosys.Design()
    for line in sys.stdin:
        libyosys.run_pass(line.strip(), design)


if __name__ == "__main__":
    main()
