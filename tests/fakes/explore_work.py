"""Work for executors that ends as the method of its point says: a module, so that worker processes find it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from vsquant.explore.executors.base import Failure, Job, Outcome, Settings
from vsquant.results.points import PointRecord
from vsquant.results.records import Provenance


def work(settings: Settings, job: Job) -> Outcome:
    how, _, log = job.point.method.partition("@")
    if log:
        with Path(log).open("a") as lines:
            lines.write(f"{job.key}\n")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        return Outcome(job=job, failure=Failure(reason="ValueError: poisoned", traceback="Traceback"))
    if how == "refuse":
        return Outcome(job=job, failure=Failure(reason="cannot be run", final=True))
    record = PointRecord(
        point=job.point,
        title="nothing",
        scores=None,
        weight_bytes=settings.threads or 0,
        model_bytes=os.getpid(),
        layers=(),
        quantize_seconds=0.0,
        evaluate_seconds=0.0,
        provenance=Provenance(vsquant="", torch="", machine="", created=""),
    )
    return Outcome(job=job, record=record)
