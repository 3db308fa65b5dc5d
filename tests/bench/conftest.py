"""A tiny case with contenders that behave in every way, and a fleet without processes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from vsquant.bench import contenders, fleet, floors, machine, registry, request, runner, worker
from vsquant.bench.cases import Case, LinearCase
from vsquant.bench.contender import Contender, ParityError, Prepared, RefusedError
from vsquant.bench.inputs import layer_inputs
from vsquant.bench.targets import Rival, Target

_spec = importlib.util.spec_from_file_location("command_line_fixtures", Path(__file__).parents[1] / "cli/conftest.py")
_fixtures = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _fixtures
_spec.loader.exec_module(_fixtures)
tiny, vsquant_program = _fixtures.tiny, _fixtures.vsquant_program

CASE = LinearCase(
    rows=3, inputs=32, outputs=16, specs=("w4a8-s4/x-token", "w4a8-s4/8-token"),
    target=Target(over_best_peer=1.5, rivals=(Rival(name="good", patterns=("g*d",), times=2.0),), of_floor=0.5),
)  # fmt: skip


class Good(Contender):
    name, package = "good", "numpy"

    def runs(self, case: Case) -> bool:
        return True

    def environment(self, isa: str) -> dict[str, str] | None:
        return {"KEPT": isa} if self.name == "good" else None

    def prepare(self, case: Case) -> Prepared:
        inputs = layer_inputs(case)
        call = lambda: torch.nn.functional.linear(inputs.x, inputs.weight)  # noqa: E731
        return Prepared(start=lambda threads: call, output=call, expected=inputs.expected, error=1e-5)


class Missing(Good):
    name, package = "missing", "no-such-package"

    def prepare(self, case: Case) -> Prepared:
        raise RefusedError("not installed: pip install it")


class Wrong(Good):
    name, package = "wrong", "wrong"

    def prepare(self, case: Case) -> Prepared:
        inputs = layer_inputs(case)
        return Prepared(start=lambda threads: int, output=lambda: -inputs.expected, expected=inputs.expected, error=0.1)


class Free(Good):
    name, package = "free", "free"


class Crashing(Good):
    name = "crashing"


class InProcess(fleet.Fleet):
    """Answers from a worker for each library in this process; what is asked of "crashing" ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: dict[str, worker.Worker] = {}

    def ask(self, library: str, environment: Mapping[str, str], command: Mapping[str, Any]) -> dict[str, Any]:
        held = self.workers.setdefault(library, worker.Worker())
        options = dict(command)
        if options.get("contender") == "crashing":
            del self.workers[library]
            raise fleet.CrashedError("its process ended with signal 11")
        return getattr(held, options.pop("do"))(**options)

    def running(self) -> tuple[str, ...]:
        return tuple(self.workers)


class Meter(floors.CeilingsMeter):
    """Ceilings that need no compiler."""

    def __init__(self, threads: tuple[int, ...]) -> None:
        self._threads = threads

    def read(self) -> floors.Ceilings:
        rates = {"read_bytes": 10.0, "avx512_vnni": 400.0, "avx2_vector_scaled": 300.0, "avx2": 200.0}
        return floors.Ceilings(rates=dict.fromkeys(self._threads, rates))


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> tuple[Contender, ...]:
    chosen = (Good(), Free(), Crashing(), Missing(), Wrong())
    for module in (contenders, request):
        monkeypatch.setattr(module, "PEERS", chosen)
    return chosen


@pytest.fixture
def tiny_bench(peers: tuple[Contender, ...], monkeypatch: pytest.MonkeyPatch) -> LinearCase:
    """The tiny case as the only one."""
    monkeypatch.setattr(registry, "CASES", (CASE,))
    monkeypatch.setattr(runner, "Fleet", InProcess)
    monkeypatch.setattr(runner, "CeilingsMeter", Meter)
    for module in (machine, runner):
        monkeypatch.setattr(module, "commit", lambda: "c0ffee")
    return CASE


@pytest.fixture
def red(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our kernels differ from the eager ones."""

    def differ(y: torch.Tensor, eager: torch.Tensor) -> None:
        raise ParityError("7 of 48 results differ from eager (error 0.1)")

    monkeypatch.setattr("vsquant.bench.ours.check_equal", differ)
