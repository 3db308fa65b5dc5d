"""The contenders of one library in a process of its own: commands in, answers out, one JSON object a line.

Their CPU time, thread pools, environment and crashes are then their own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from vsquant.bench.contender import Call, ParityError, Prepared, RefusedError
from vsquant.bench.contenders import find_contender
from vsquant.bench.precision import relative_error
from vsquant.bench.registry import find_case

_BATCH_SECONDS = 0.0003
_SLOW_SECONDS = 0.2


class Worker:
    """Holds the prepared contenders of one case and times their calls."""

    def __init__(self) -> None:
        self._prepared: dict[str, Prepared] = {}
        self._calls: dict[str, tuple[Call, int]] = {}

    def prepare(self, case: str, contender: str) -> dict[str, Any]:
        """Quantize, run once and compare with float."""
        work = find_case(case)
        prepared = find_contender(work, contender).prepare(work)
        y = prepared.output()
        if y.shape != prepared.expected.shape:
            raise RefusedError(f"its result has shape {tuple(y.shape)}, not {tuple(prepared.expected.shape)}")
        error = relative_error(y, prepared.expected)
        if not error <= prepared.error:
            raise ParityError(f"relative error {error:.3g} where its format explains {prepared.error:.3g}")
        self._prepared[contender] = prepared
        return {
            "error": error,
            "allowed_error": prepared.error,
            "checked": prepared.checked,
            "weight_bytes": prepared.weight_bytes,
            "setting": prepared.setting,
        }

    def start(self, contender: str, threads: int) -> dict[str, Any]:
        """Be ready to run on that many threads, and settle how many calls make a sample."""
        import torch

        torch.set_num_threads(threads)
        call = self._prepared[contender].start(threads)
        seconds = _wall(call)
        for _ in range(2):
            seconds = min(seconds, _wall(call)) if seconds < _SLOW_SECONDS else seconds
        self._calls[contender] = call, max(1, int(_BATCH_SECONDS / max(seconds, 1e-7)))
        return {"seconds": seconds}

    def sample(self, contender: str, seconds: float, warm: bool) -> dict[str, Any]:
        """Process CPU and wall time of one call, again and again for that long, after one uncounted (``warm``)."""
        call, calls = self._calls[contender]
        cpu: list[float] = []
        wall: list[float] = []
        if warm:
            call()
        end = time.perf_counter() + seconds
        while not wall or time.perf_counter() < end:
            cpu_start, wall_start = time.process_time_ns(), time.perf_counter_ns()
            for _ in range(calls):
                call()
            wall.append((time.perf_counter_ns() - wall_start) / calls / 1e9)
            cpu.append((time.process_time_ns() - cpu_start) / calls / 1e9)
        return {"cpu": cpu, "wall": wall}

    def release(self) -> dict[str, Any]:
        """Forget the case."""
        self._prepared, self._calls = {}, {}
        return {}


def _wall(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def serve(worker: Worker, commands: TextIO, answers: TextIO) -> None:
    """Carry out one command a line until there are no more."""
    handlers: dict[str, Callable[..., dict[str, Any]]] = {
        "prepare": worker.prepare, "start": worker.start, "sample": worker.sample, "release": worker.release,
    }  # fmt: skip
    for line in commands:
        command = json.loads(line)
        try:
            answer = handlers[command.pop("do")](**command)
        except RefusedError as refusal:
            answer = {"refused": str(refusal), "wrong": isinstance(refusal, ParityError)}
        except Exception as failure:  # noqa: BLE001  # whatever another library raises becomes its row's reason
            text = str(failure).strip().splitlines()
            answer = {"refused": f"{type(failure).__name__}: {text[0] if text else ''}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serve; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(Worker(), sys.stdin, answers)


if __name__ == "__main__":
    main()
