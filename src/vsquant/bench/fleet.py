"""The processes of a run: one for each library, started when first needed, started anew after a crash."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

from vsquant.bench.contender import ParityError, RefusedError

_SECONDS: Final = 600.0
"""A command that takes longer has hung."""


class CrashedError(Exception):
    """A library's process ended or hung in the middle of a command."""


class Fleet:
    """A process for each library, spoken to one command at a time. Leaving the block ends them all."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for library in list(self._processes):
            self._end(library)

    def ask(self, library: str, environment: Mapping[str, str], command: Mapping[str, Any]) -> dict[str, Any]:
        """One command's answer.

        Raises:
            RefusedError: the contender cannot do it, and why.
            CrashedError: the process ended; the next command starts another, which has forgotten everything.
        """
        process = self._processes.get(library) or self._start(library, environment)
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._crashed(library) from None
        if not select.select([process.stdout], [], [], _SECONDS)[0]:
            self._end(library)
            raise CrashedError(f"took more than {_SECONDS:.0f} s")
        line = process.stdout.readline()
        if not line:
            raise self._crashed(library)
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise (ParityError if answer.get("wrong") else RefusedError)(answer["refused"])
        return answer

    def running(self) -> tuple[str, ...]:
        """Libraries whose process runs."""
        return tuple(self._processes)

    def process_ids(self) -> tuple[int, ...]:
        """Of the processes that run."""
        return tuple(process.pid for process in self._processes.values())

    def _start(self, library: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "vsquant.bench.worker"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._processes[library] = process
        return process

    def _crashed(self, library: str) -> CrashedError:
        status = self._end(library)
        return CrashedError(f"its process ended with {f'signal {-status}' if status < 0 else f'status {status}'}")

    def _end(self, library: str) -> int:
        process = self._processes.pop(library)
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
        try:
            return process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
