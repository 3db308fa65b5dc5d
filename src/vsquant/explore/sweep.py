"""The driver of a sweep: the only writer of the store, and the owner of retries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

import vsquant
from vsquant.explore.executors.base import Executor, Failure, Job, Outcome
from vsquant.explore.plan import Plan
from vsquant.progress import Progress, silent
from vsquant.results.points import FailedPoint, PointRecord
from vsquant.results.records import Provenance
from vsquant.results.store import ResultsStore, content_key

POINTS = "points"
"""The step whose units are a sweep's points."""
ATTEMPTS = 2
"""How often a point may raise, or kill its worker, before it is recorded as failed."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep found: every record of the plan's points, and the points that could not be evaluated."""

    records: tuple[PointRecord, ...]
    failed: tuple[FailedPoint, ...]
    seconds: float


def run_sweep(plan: Plan, executor: Executor, store: ResultsStore, *, progress: Progress = silent) -> Sweep:
    """Evaluate the jobs of a plan; each record is stored as it comes, so that what ends the sweep loses no other.

    A point that fails is tried again once, unless that would end the same, and then recorded as failed.

    Raises:
        StoreError: a record cannot be stored.
    """
    start, records, failed = time.perf_counter(), list(plan.finished), list[FailedPoint]()
    progress(POINTS, len(records), plan.points)
    for outcome in _settled(plan, executor):
        for cell in outcome.cells:
            store.put(content_key(cell.inputs), cell.inputs, cell.record)
        key, inputs = outcome.job.key, plan.inputs[outcome.job.key]
        if outcome.record is not None:
            store.put_point(key, inputs, outcome.record)
            records.append(outcome.record)
        elif outcome.failure is not None:
            failure = _failed(outcome.job, outcome.failure)
            store.put_failure(key, inputs, failure)
            failed.append(failure)
        progress(POINTS, len(records) + len(failed), plan.points)
    return Sweep(records=tuple(records), failed=tuple(failed), seconds=time.perf_counter() - start)


def _settled(plan: Plan, executor: Executor) -> Iterator[Outcome]:
    """One outcome for every job: failures that another attempt may mend are not among them."""
    attempts: dict[str, int] = {}
    for job in plan.jobs:
        executor.submit(job)
    for outcome in executor.outcomes():
        key = outcome.job.key
        attempts[key] = attempts.get(key, 0) + 1
        if outcome.failure is not None and not outcome.failure.final and attempts[key] < ATTEMPTS:
            executor.submit(outcome.job)
            continue
        yield outcome


def _failed(job: Job, failure: Failure) -> FailedPoint:
    return FailedPoint(
        point=job.point,
        reason=failure.reason,
        traceback=failure.traceback,
        attempts=1 if failure.final else ATTEMPTS,
        provenance=Provenance.here(vsquant=vsquant.__version__, torch=torch.__version__),
    )
