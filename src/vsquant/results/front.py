"""Which points are worth having: none other is better in accuracy and no worse in what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from vsquant.results.points import PointRecord
from vsquant.results.scores import Scores

Standing: TypeAlias = Literal["front", "tied", "dominated", "unknown"]
"""On the front; on it by a difference in accuracy within its paired standard error; off it; or without the figure."""

Cost: TypeAlias = Callable[[PointRecord], float | None]

COSTS: Final[Mapping[str, Cost]] = MappingProxyType(
    {
        "bytes": lambda record: float(record.weight_bytes),
        "energy": lambda record: None if record.cost is None else record.cost.energy_ratio,
        "area": lambda record: None if record.cost is None else record.cost.area_ratio,
        "performance_per_area": lambda record: None if record.cost is None else -record.cost.performance_per_area_ratio,
        "latency": lambda record: None if record.latency is None else record.latency.seconds,
    }
)
"""What points cost, less being better; None where it is not known."""


def standings(records: Sequence[PointRecord], objective: str) -> tuple[Standing, ...]:
    """How each point stands in accuracy against one of `COSTS`, among the points of its own network.

    A point is off the front where another costs no more and scores better, or scores as well and costs less. One on the
    front is tied where a point that costs less, or as much, scores lower by no more than the standard error of the
    paired difference: the samples do not tell that its cost buys anything.
    """
    return tuple(_standing(record, records, COSTS[objective]) for record in records)


def _standing(record: PointRecord, records: Sequence[PointRecord], cost: Cost) -> Standing:
    mine, scores = cost(record), record.scores
    if mine is None or scores is None:
        return "unknown"
    tied = False
    for other in records:
        theirs, rival = cost(other), other.scores
        same = other is record or other.point.network != record.point.network
        if same or theirs is None or theirs > mine or rival is None:
            continue
        gain = _gain(rival, scores)
        if gain > 0 or (gain == 0 and theirs < mine):
            return "dominated"
        tied = tied or _within_error(rival, scores)
    return "tied" if tied else "front"


def _gain(scores: Scores, than: Scores) -> float:
    sign = 1 if scores.higher_is_better else -1
    return sign * (scores.value() - than.value())


def _within_error(scores: Scores, other: Scores) -> bool:
    difference = scores.difference(other)
    return abs(difference.value) <= difference.standard_error
