"""Where a figure comes from: machine, load, versions, commit and command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import vsquant

_FLAGS: Final = ("avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")


def provenance(command: str, packages: Iterable[str], settings: dict[str, Any]) -> dict[str, Any]:
    """What a result says of the run that made it."""
    return {
        "command": command,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(packages),
        "settings": settings,
    }


def machine() -> dict[str, Any]:
    """Processor, the instruction sets that matter here, cores, and how busy the machine was."""
    info = _cpuinfo()
    flags = info.get("flags", info.get("Features", "")).split()
    return {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python, vsquant and those of the packages that are installed."""
    found = {"python": platform.python_version(), "vsquant": vsquant.__version__}
    installed = {name: list(importlib.metadata.distributions(name=name)) for name in sorted(set(packages))}
    return found | {name: homes[0].version for name, homes in installed.items() if homes}


def commit() -> str:
    """The checkout's commit, with ``+`` where files differ from it; "" outside of a checkout."""
    root = Path(__file__).resolve().parents[3]
    head = _git(root, "rev-parse", "HEAD") if (root / "native").is_dir() else ""
    return head + ("+" if head and _git(root, "status", "--porcelain", "--", "src", "native") else "")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
