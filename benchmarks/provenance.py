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

_ROOT = Path(__file__).resolve().parent.parent


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    return run.stdout.strip()


def _commit() -> str:
    """The commit checked out, and whether what runs is another: results and pages may differ, code may not."""
    changed = _git("status", "--porcelain", "--", "src", "native", "benchmarks/*.py", "pyproject.toml")
    return (_git("rev-parse", "HEAD") or "unknown") + (" with uncommitted changes" if changed else "")


SOURCE_COMMIT = _commit()
"""As the program starts: what is committed while it runs did not measure."""


def provenance(measured_at: str | None = None) -> dict[str, object]:
    """What a result file says of the run that made it; ``measured_at`` is the commit that measured, if not this one."""
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {
        "command": "python benchmarks/" + shlex.join(command),
        "commit": measured_at or SOURCE_COMMIT,
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
