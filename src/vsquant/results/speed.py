"""What a speed measurement found: frozen records of contenders side by side, and their JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, TypeAlias

Bound: TypeAlias = Literal["memory", "operations"]
Clock: TypeAlias = Literal["cpu", "wall"]
CLOCKS: Final[dict[bool, Clock]] = {True: "cpu", False: "wall"}
"""One thread is timed by process CPU time, which other processes do not add to; several by the wall clock."""

BUSY_CORES: Final = 0.1
"""Of other processes: more than this and the machine is called busy."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds a call takes on ``threads`` threads: median and 10th percentile, and the median of every round.

    The rounds of all contenders of a case are interleaved, so that the n-th rounds belong together.
    """

    threads: int
    clock: Clock
    median_seconds: float
    low_seconds: float
    samples: int
    round_seconds: tuple[float, ...]

    @classmethod
    def of(cls, threads: int, rounds: Sequence[Sequence[float]]) -> Timing:
        """Summarize the samples of every round."""
        samples = sorted(sample for round_ in rounds for sample in round_)
        return cls(
            threads=threads,
            clock=CLOCKS[threads == 1],
            median_seconds=statistics.median(samples),
            low_seconds=samples[len(samples) // 10],
            samples=len(samples),
            round_seconds=tuple(statistics.median(round_) for round_ in rounds),
        )

    def times_faster(self, other: Timing) -> tuple[float, float, float]:
        """How many times faster than ``other``: least, median and largest ratio, round by round."""
        ratios = [theirs / ours for ours, theirs in zip(self.round_seconds, other.round_seconds, strict=False)]
        return min(ratios), statistics.median(ratios), max(ratios)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender of a case. ``reason`` says why it has no timings; ``error`` is its distance from float."""

    name: str
    ours: bool
    reason: str = ""
    setting: str = ""
    checked: str = ""
    error: float | None = None
    allowed_error: float | None = None
    weight_bytes: int = 0
    timings: tuple[Timing, ...] = ()

    def timing(self, threads: int) -> Timing | None:
        """The timing on that many threads, if there is one."""
        return next((timing for timing in self.timings if timing.threads == threads), None)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The least time the machine's measured ceilings allow on ``threads`` threads, and which of them binds."""

    threads: int
    seconds: float
    bound: Bound


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One target of a case: at least (``value >= wanted``) or at most, of the first spec on one thread."""

    what: str
    wanted: float
    reached: float | None
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.reached is not None and (
            self.reached <= self.wanted if self.at_most else self.reached >= self.wanted
        )


@dataclass(frozen=True, kw_only=True)
class CaseSpeed:
    """All contenders of one case, measured side by side; ``reference`` names a row that is no peer (a copy, float).

    ``floor_bytes`` must come out of memory in every call; ``touched_bytes`` are all weights, activations and results.
    """

    name: str
    group: str
    title: str
    rows: tuple[Row, ...]
    operations: int = 0
    floor_bytes: int = 0
    touched_bytes: int = 0
    floors: tuple[Floor, ...] = ()
    goals: tuple[Goal, ...] = ()
    reference: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def threads(self) -> tuple[int, ...]:
        """Thread counts that were measured."""
        return tuple(sorted({timing.threads for row in self.rows for timing in row.timings}))

    @property
    def wrong(self) -> tuple[Row, ...]:
        """Rows of ours that were refused: their results were not those of the definition."""
        return tuple(row for row in self.rows if row.ours and row.checked == "red")

    def best_peer(self, threads: int, patterns: Sequence[str] = ("*",)) -> Row | None:
        """The fastest peer by median, of those whose names match a pattern; None where none ran."""
        named = [row for row in self.rows if any(fnmatchcase(row.name, pattern) for pattern in patterns)]
        timed = [(timing.median_seconds, row.name, row) for row in named
                 if self.is_peer(row) and (timing := row.timing(threads))]  # fmt: skip
        return min(timed)[2] if timed else None

    def is_peer(self, row: Row) -> bool:
        """Whether the row is another library's, rather than ours or the reference."""
        return not row.ours and row.name != self.reference

    def floor(self, threads: int) -> Floor | None:
        """The floor on that many threads, where ceilings were measured."""
        return next((floor for floor in self.floors if floor.threads == threads), None)

    def row(self, name: str) -> Row | None:
        """The row of that name."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def others_busy_cores(self) -> float | None:
        """Cores that other processes kept busy on average while contenders were timed; None where not known."""
        cores: float | None = self.provenance.get("machine", {}).get("others_busy_cores")
        return cores

    @property
    def busy(self) -> bool:
        """Whether other processes kept more than a tenth of a core busy."""
        return (self.others_busy_cores or 0.0) > BUSY_CORES


def speed_to_json(speed: CaseSpeed) -> dict[str, Any]:
    """The record as plain types."""
    return asdict(speed)


def speed_from_json(data: Mapping[str, Any]) -> CaseSpeed:
    """Inverse of `speed_to_json`.

    Raises:
        TypeError: a key is unknown or missing.
        KeyError: a row or its timings are missing.
    """
    rows = tuple(
        Row(
            **{
                **row,
                "timings": tuple(Timing(**{**t, "round_seconds": tuple(t["round_seconds"])}) for t in row["timings"]),
            }
        )
        for row in data["rows"]
    )
    floors = tuple(Floor(**floor) for floor in data["floors"])
    goals = tuple(Goal(**goal) for goal in data["goals"])
    return CaseSpeed(**{**data, "rows": rows, "floors": floors, "goals": goals})


def _timing(data: Mapping[str, Any]) -> Timing:
    return Timing(**{**data, "round_seconds": tuple(data["round_seconds"])})
