"""The program ``vsquant``, in this process and in one of its own, with a task that takes no time."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import vsquant.cli
from vsquant.tasks import registry

PROGRAM = Path(__file__).parents[1] / "fakes" / "tiny_program.py"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the program ended and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def program() -> Path:
    """The program's file, for a process of its own."""
    return PROGRAM


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    return runpy.run_path(str(PROGRAM))


@pytest.fixture
def vsquant_program(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, tiny: dict[str, Any]
) -> Callable[..., Ended]:
    """Runs ``vsquant`` with arguments, 80 columns wide, its caches in a folder of the test."""
    monkeypatch.setattr(registry, "TASKS", {**registry.TASKS, "tiny": tiny["make_tiny"]})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*arguments: object, columns: int = 80) -> Ended:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["vsquant", *map(str, arguments)])
        capfd.readouterr()
        status = 0
        try:
            vsquant.cli.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        out, err = capfd.readouterr()
        return Ended(status=status, out=out, err=err)

    return run


@pytest.fixture
def start_program(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts ``vsquant`` in a process of its own."""

    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(PROGRAM), *map(str, arguments)],
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any]) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    task = tiny["TinyTask"]()
    quantized = vsquant.quantize(task.load_model(), "w4a4u-s4/6", calibration=task.calibration_batches(32))
    vsquant.save(quantized, path, architecture=task.architecture())
    return path
