"""Write constraints.txt: every package that make installs, pinned for Python 3.10 to 3.13. Run by ``make lock``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXTRAS = ("demo", "transformers", "vision", "efficientnet", "hw", "explore", "cluster", "docs", "dev")
"""The extras that make installs; timm is left out because its torchvision has no build without CUDA everywhere."""
FIXED = "torch==2.13.0\n"
BUILD = "hatchling>=1.27\neditables\n"
LEFT_OUT = ("nvidia-", "cuda-", "triton")
HEADER = """\
# Every package that make installs, pinned for Python 3.10 to 3.13. Written by `make lock`, not by hand.
# CUDA packages are left out: torch pins its own where it needs them.
"""


def resolve(folder: Path) -> list[str]:
    """The resolved pins, one a line; ``folder`` takes the two small input files."""
    fixed, build = folder / "fixed.txt", folder / "build.txt"
    fixed.write_text(FIXED)
    build.write_text(BUILD)
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.10"]
    command += ["--no-annotate", "--no-header", "pyproject.toml", str(build), "--constraints", str(fixed)]
    for extra in EXTRAS:
        command += ["--extra", extra]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def main() -> None:
    """Resolve, then replace constraints.txt in one step."""
    folder = Path("build/lock")
    folder.mkdir(parents=True, exist_ok=True)
    pins = [line for line in resolve(folder) if line and not line.startswith(("#", *LEFT_OUT))]
    draft = Path("constraints.txt.new")
    draft.write_text(HEADER + "\n".join(pins) + "\n")
    os.replace(draft, "constraints.txt")
    print(f"constraints.txt: {len(pins)} pins")


if __name__ == "__main__":
    main()
