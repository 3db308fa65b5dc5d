"""Where a result comes from: machine, versions, commit and command, kept beside every figure."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch

import vsquant


def provenance(measured_at: str | None = None) -> dict[str, object]:
    """What a result file says of the run that made it; ``measured_at`` is the commit that measured, if not this one."""
    root = Path(__file__).resolve().parent.parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {
        "command": "python benchmarks/" + shlex.join(command),
        "commit": measured_at or commit.stdout.strip() or "unknown",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": _processor(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "vsquant": vsquant.__version__},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()
