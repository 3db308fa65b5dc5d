"""Workers on this machine: this process itself where one is enough, else processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, TypeAlias

from vsquant.errors import VsquantError
from vsquant.explore.executors.base import Executor, Failure, Job, Outcome, Settings

Work: TypeAlias = Callable[[Settings, Job], Outcome]
"""Evaluates one job; a function of a module, so that another process can find it."""

WORKER_BYTES: Final = 2 << 30
"""Memory that a worker is reckoned to need: PyTorch, a model twice, its batches."""
_MEMORY: Final = Path("/proc/meminfo")


def suitable_workers() -> int:
    """As many workers as there are cores for this process, and free memory for; at least one."""
    return max(1, min(available_cores(), _free_bytes() // WORKER_BYTES))


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_executor(work: Work, settings: Settings, *, workers: int) -> Executor:
    """An executor of ``workers`` on this machine, which divide its cores.

    Raises:
        VsquantError: there would be no worker.
    """
    if workers < 1:
        raise VsquantError(f"workers must be at least 1, not {workers}")
    if workers == 1:
        return InProcess(work, settings)
    return ProcessPool(work, replace(settings, threads=max(1, available_cores() // workers)), workers=workers)


class InProcess(Executor):
    """One job after the other, in this process: nothing is loaded twice, but a job that kills its worker ends all."""

    def __init__(self, work: Work, settings: Settings) -> None:
        self._work = work
        self._settings = settings
        self._waiting: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._waiting.append(job)

    def outcomes(self) -> Iterator[Outcome]:
        """Outcomes in the order of submission."""
        while self._waiting:
            yield self._work(self._settings, self._waiting.popleft())

    def close(self) -> None:
        """Forget what was not begun."""
        self._waiting.clear()


@dataclass(kw_only=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


class ProcessPool(Executor):
    """Processes that each take one job at a time. One that dies is replaced, and its job alone fails."""

    def __init__(self, work: Work, settings: Settings, *, workers: int) -> None:
        self._work = work
        self._settings = settings
        self._count = workers
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._waiting: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._waiting.append(job)

    def outcomes(self) -> Iterator[Outcome]:
        """Outcomes as they are completed."""
        while self._waiting or any(worker.job for worker in self._workers):
            self._hand_out()
            busy = {worker.pipe: worker for worker in self._workers if worker.job is not None}
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                yield self._received(busy[pipe])

    def close(self) -> None:
        """Kill the workers."""
        self._waiting.clear()
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _hand_out(self) -> None:
        while len(self._workers) < min(self._count, len(self._waiting) + len(self._workers)):
            self._workers.append(self._started())
        for worker in self._workers:
            if worker.job is None and self._waiting:
                worker.job = self._waiting.popleft()
                with suppress(BrokenPipeError):  # it died idle: the job's outcome will say so
                    worker.pipe.send(worker.job)

    def _received(self, worker: _Worker) -> Outcome:
        """The outcome that a worker sent, or that it died."""
        job = worker.job
        assert job is not None
        worker.job = None
        try:
            outcome = worker.pipe.recv()
            assert isinstance(outcome, Outcome)
            return outcome
        except (EOFError, ConnectionError):
            self._workers.remove(worker)
            worker.process.join()
            worker.pipe.close()
            return Outcome(job=job, failure=Failure(reason=f"its worker died ({_ending(worker.process.exitcode)})"))

    def _started(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._work, self._settings), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process=process, pipe=ours)


def _serve(pipe: Connection, work: Work, settings: Settings) -> None:
    """What a worker does: jobs from the pipe until it closes. An interrupt is for the driver to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(work(settings, job))


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"


def _free_bytes() -> int:
    """Memory that can be had without swapping, as far as the system says."""
    if _MEMORY.is_file():
        found = re.search(r"^MemAvailable:\s*([0-9]+) kB", _MEMORY.read_text("ascii"), re.MULTILINE)
        if found is not None:
            return int(found[1]) << 10
    return available_cores() * WORKER_BYTES
