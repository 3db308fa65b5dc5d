"""How busy other processes keep the machine while contenders are timed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_IDLE_FIELDS: Final = (3, 4, 7, 8, 9)
"""Of the first line of /proc/stat: idle, iowait, steal, and guests, which count as user time already."""
_USER_FIELD, _SYSTEM_FIELD = 11, 12
"""Of /proc/PID/stat behind the command's name."""


@dataclass(frozen=True, kw_only=True)
class CpuUse:
    """CPU seconds so far of the whole machine, and of each of our processes; ``wall_seconds`` is a clock's."""

    wall_seconds: float
    machine_seconds: float
    our_seconds: Mapping[int, float]

    @classmethod
    def now(cls, processes: Iterable[int]) -> CpuUse | None:
        """Of this process and ``processes``; None where the system does not tell."""
        try:
            fields = (_PROC / "stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
            ours = {process: _process_seconds(process) for process in (os.getpid(), *processes)}
        except (FileNotFoundError, ProcessLookupError):
            return None
        busy = sum(int(field) for i, field in enumerate(fields) if i not in _IDLE_FIELDS)
        return cls(wall_seconds=time.monotonic(), machine_seconds=busy / _ticks(), our_seconds=ours)


def others_busy_cores(before: CpuUse | None, after: CpuUse | None) -> float | None:
    """Cores that processes other than ours kept busy on average; None where that is not known, as after one of ours
    has ended.
    """
    if before is None or after is None or not before.our_seconds.keys() <= after.our_seconds.keys():
        return None
    ours = sum(after.our_seconds.values()) - sum(before.our_seconds.values())
    others = after.machine_seconds - before.machine_seconds - ours
    wall = after.wall_seconds - before.wall_seconds
    return round(max(0.0, others / wall), 2) if wall > 0 else None


def _process_seconds(process: int) -> float:
    fields = (_PROC / str(process) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[_USER_FIELD]) + int(fields[_SYSTEM_FIELD])) / _ticks()


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK")
