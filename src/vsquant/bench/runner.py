"""Measuring cases: contenders in processes of their own, in interleaved rounds, every result checked first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from vsquant.bench.cases import Case
from vsquant.bench.contender import ParityError, RefusedError
from vsquant.bench.contenders import is_ours
from vsquant.bench.files import read_speeds, store_speed
from vsquant.bench.fleet import CrashedError, Fleet
from vsquant.bench.floors import CeilingsMeter, floors, moved_bytes, operations, our_isa, touched_bytes
from vsquant.bench.goals import goals
from vsquant.bench.load import CpuUse, others_busy_cores
from vsquant.bench.machine import commit, provenance
from vsquant.bench.request import BenchRequest
from vsquant.progress import Progress, silent
from vsquant.results.speed import CLOCKS, CaseSpeed, Row, Timing

_SLOW_SECONDS = 1.0
_VERY_SLOW_SECONDS = 4.0


def run_bench(request: BenchRequest, command: str, progress: Progress = silent) -> tuple[CaseSpeed, ...]:
    """Measure every case, or take it from its file if the same commit measured it in the same way.

    Each case is written to its group's file when it is done.

    Raises:
        OSError: a result file cannot be written.
        VsquantError: a result file there is, is no result file.
    """
    meter = CeilingsMeter(request.threads)
    speeds = []
    progress("cases", 0, len(request.cases))
    with Fleet() as fleet:
        for done, case in enumerate(request.cases):
            speed = _stored(request, case)
            if speed is None:
                speed = _CaseRun(request, case, fleet, progress).measure(meter, command)
                store_speed(request.folder, speed)
            speeds.append(speed)
            progress("cases", done + 1, len(request.cases))
    return tuple(speeds)


def _stored(request: BenchRequest, case: Case) -> CaseSpeed | None:
    """The case's stored measurement, if it is the one asked for."""
    speed = None if request.fresh else read_speeds(request.folder, case.group).get(case.name)
    if speed is None:
        return None
    now = commit()
    same = now and "+" not in now and speed.provenance["commit"] == now
    same = same and speed.provenance["settings"] == request.settings()
    names = tuple(contender.name for contender in request.contenders(case))
    return speed if same and tuple(row.name for row in speed.rows) == names else None


def _rounds(asked: int, seconds: float) -> int:
    """Fewer rounds where a call alone takes longer than a second."""
    return asked if seconds < _SLOW_SECONDS else min(asked, 3 if seconds < _VERY_SLOW_SECONDS else 2)


class _CaseRun:
    """One case being measured: the rows so far, and who is still in."""

    def __init__(self, request: BenchRequest, case: Case, fleet: Fleet, progress: Progress) -> None:
        self._request, self._case, self._fleet, self._progress = request, case, fleet, progress
        self._contenders = {contender.name: contender for contender in request.contenders(case)}
        self._rows = {name: Row(name=name, ours=is_ours(c)) for name, c in self._contenders.items()}

    def measure(self, meter: CeilingsMeter, command: str) -> CaseSpeed:
        """Prepare all, then for each number of threads let them run in turn."""
        self._by_library(self._prepare, list(self._contenders), f"{self._case.title}: preparing")
        before = CpuUse.now(self._fleet.process_ids())
        if not any(row.checked == "red" for row in self._rows.values() if row.ours):
            for threads in self._request.threads:
                self._time(threads)
        busy = others_busy_cores(before, CpuUse.now(self._fleet.process_ids()))
        self._release()
        ceilings = meter.read()
        packages = [c.package for c in self._contenders.values() if c.package] + ["torch"]
        origin = provenance(command, packages, self._request.settings())
        origin["machine"]["others_busy_cores"] = busy
        origin["ceilings"] = {"reason": ceilings.reason, **{str(n): dict(r) for n, r in ceilings.rates.items()}}
        speed = CaseSpeed(
            name=self._case.name,
            group=self._case.group,
            title=self._case.title,
            rows=tuple(self._rows.values()),
            operations=operations(self._case),
            floor_bytes=moved_bytes(self._case),
            touched_bytes=touched_bytes(self._case),
            floors=floors(self._case, ceilings, our_isa() if self._request.isa == "native" else self._request.isa),
            reference=self._case.target.reference,
            provenance=origin,
        )
        return replace(speed, goals=goals(speed, self._case))

    def _by_library(self, work: Callable[[list[str]], None], names: Sequence[str], step: str) -> None:
        """``work`` on the contenders of each library, two libraries at a time; nothing is timed meanwhile."""
        libraries: dict[str, list[str]] = {}
        for name in names:
            libraries.setdefault(self._contenders[name].library, []).append(name)
        self._progress(step, 0, len(libraries))
        with ThreadPoolExecutor(max_workers=2) as pool:
            for done, _ in enumerate(pool.map(work, libraries.values())):
                self._progress(step, done + 1, len(libraries))

    def _prepare(self, names: list[str]) -> None:
        """Prepare each; when the process crashes, those that it held are prepared again in a new one."""
        waiting = list(names)
        while waiting:
            name = waiting.pop(0)
            try:
                answer = self._ask(name, do="prepare", case=self._case.name)
            except CrashedError as crash:
                waiting = [*self._dropped(name, crash), *waiting]
            except RefusedError as refusal:
                self._refuse(name, refusal)
            else:
                self._rows[name] = replace(self._rows[name], **answer | {"setting": self._setting(name, answer)})

    def _setting(self, name: str, answer: Mapping[str, Any]) -> str:
        """The contender's setting, and whether it runs wider instructions than were asked for."""
        isa = self._request.isa
        free = isa != "native" and self._contenders[name].environment(isa) is None
        return ", ".join(filter(None, (answer["setting"], f"not kept to {isa}" if free else "")))

    def _time(self, threads: int) -> None:
        """Interleaved rounds of all that can start."""
        durations: dict[str, float] = {}

        def start(names: list[str]) -> None:
            for name in names:
                try:
                    durations[name] = self._ask(name, do="start", threads=threads)["seconds"]
                except (RefusedError, CrashedError) as problem:
                    self._refuse(name, problem)

        self._by_library(start, self._running(), f"{self._case.title}: starting on {threads}")
        durations = {name: durations[name] for name in self._running() if name in durations}
        samples: dict[str, list[list[float]]] = {name: [] for name in durations}
        for round_ in range(self._request.rounds):
            self._progress(f"{self._case.title}, threads: {threads}", round_, self._request.rounds)
            for name, seconds in durations.items():
                if self._rows[name].reason or round_ >= _rounds(self._request.rounds, seconds):
                    continue
                try:
                    warm = seconds < _SLOW_SECONDS
                    answer = self._ask(name, do="sample", seconds=self._request.round_seconds, warm=warm)
                except (RefusedError, CrashedError) as problem:
                    self._refuse(name, problem)
                else:
                    samples[name].append(answer[CLOCKS[threads == 1]])
        for name in self._running():
            if samples.get(name):
                timing = Timing.of(threads, samples[name])
                self._rows[name] = replace(self._rows[name], timings=(*self._rows[name].timings, timing))

    def _ask(self, name: str, **command: Any) -> dict[str, Any]:
        contender = self._contenders[name]
        environment = contender.environment(self._request.isa) or {}
        return self._fleet.ask(contender.library, environment, {"contender": name, **command})

    def _running(self) -> list[str]:
        return [name for name, row in self._rows.items() if not row.reason]

    def _refuse(self, name: str, problem: Exception) -> None:
        checked = "red" if isinstance(problem, ParityError) else self._rows[name].checked
        self._rows[name] = replace(self._rows[name], reason=str(problem) or type(problem).__name__, checked=checked)

    def _dropped(self, name: str, crash: CrashedError) -> list[str]:
        """Refuse the one that crashed; the others that its process had prepared must be prepared again."""
        self._refuse(name, crash)
        library = self._contenders[name].library
        return [
            other
            for other, contender in self._contenders.items()
            if contender.library == library and self._rows[other].error is not None and not self._rows[other].reason
        ]

    def _release(self) -> None:
        for library in self._fleet.running():
            try:
                self._fleet.ask(library, {}, {"do": "release"})
            except CrashedError:
                continue
