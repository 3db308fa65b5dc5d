"""How busy others keep the machine: from counted CPU time, without what our own processes used."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from vsquant.bench import load
from vsquant.bench.load import CpuUse, others_busy_cores


def use(wall: float, machine: float, **ours: float) -> CpuUse:
    processes = {int(name[1:]): seconds for name, seconds in ours.items()}
    return CpuUse(wall_seconds=wall, machine_seconds=machine, our_seconds=processes)


def test_ours_does_not_count() -> None:
    assert others_busy_cores(use(10, 100, p1=5, p2=1), use(20, 120, p1=12, p2=2, p3=2)) == 1.0
    assert others_busy_cores(use(10, 100, p1=5), use(20, 109.9, p1=15)) == 0.0


def test_what_is_not_known_is_none() -> None:
    known = use(10, 100, p1=5)
    assert others_busy_cores(None, known) is None and others_busy_cores(known, None) is None
    assert others_busy_cores(use(10, 100, p1=5, p2=1), use(20, 120, p1=6)) is None
    assert others_busy_cores(known, known) is None


def test_the_fields_of_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_PROC", tmp_path)
    monkeypatch.setattr(load, "_ticks", lambda: 100)
    (tmp_path / "stat").write_text("cpu  1000 200 300 9999 9999 40 50 9999 9999 9999\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    for process, name in ((os.getpid(), "python"), (7, "a (b) c")):
        (tmp_path / str(process)).mkdir()
        (tmp_path / str(process) / "stat").write_text(f"{process} ({name}) S 1 1 1 0 -1 0 0 0 0 0 150 50 9 9 20 0\n")
    found = CpuUse.now([7])
    assert found is not None and found.machine_seconds == 15.9
    assert found.our_seconds == {os.getpid(): 2.0, 7: 2.0}
    assert CpuUse.now([8]) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_this_process_is_not_another() -> None:
    before, started = CpuUse.now([]), time.process_time()
    while time.process_time() - started < 0.2:
        pass
    after = CpuUse.now([])
    assert before is not None and after is not None
    [ours] = after.our_seconds.values()
    assert ours - sum(before.our_seconds.values()) >= 0.15
    assert (others_busy_cores(before, after) or 0.0) < os.cpu_count()
