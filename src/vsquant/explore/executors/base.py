"""What an executor is: jobs go in, outcomes come out as they are completed; all of it plain data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from vsquant.results.points import PointRecord, PointSpec
from vsquant.results.records import CellRecord


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all jobs of a sweep share: where tasks find data and models, and how points are evaluated.

    ``latency`` says whether points are timed, ``threads`` how many threads each worker computes with (None: as torch
    is set), ``commit`` the source they are computed by.
    """

    data: Path | None = None
    model: str | None = None
    limit: int | None = None
    calibration_samples: int = 128
    latency: bool = True
    threads: int | None = None
    commit: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One point to evaluate, under the key of its record; ``cell`` is its accuracy where the store has that already."""

    key: str
    point: PointSpec
    cell: CellRecord | None = None


@dataclass(frozen=True, kw_only=True)
class NewCell:
    """A cell that a job evaluated, for the driver to store."""

    inputs: Mapping[str, Any]
    record: CellRecord


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job has no record. ``final`` where another attempt would end the same: the format cannot be run."""

    reason: str
    traceback: str = ""
    final: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job: a record, with the cells that were evaluated for it, or a failure."""

    job: Job
    record: PointRecord | None = None
    cells: tuple[NewCell, ...] = field(default_factory=tuple)
    failure: Failure | None = None


class Executor(ABC):
    """Evaluates jobs somewhere. It never writes results and never retries: the driver does both.

    A worker that dies ends its job with a failure; others go on.
    """

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take a job; also while `outcomes` is read."""

    @abstractmethod
    def outcomes(self) -> Iterator[Outcome]:
        """Outcomes as they are completed, until every submitted job has had one."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once, whatever they are doing."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
