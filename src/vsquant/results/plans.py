"""What a sweep will do, as it is shown before it begins."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PlanSummary:
    """Counts of a sweep: all points and those that the store has, quantizations of weights that differ, evaluations
    that are missing, and how long these would take the float networks one after the other.

    ``impossible`` has the combinations that are no points, and why.
    """

    points: int
    finished: int
    weight_quantizations: int
    evaluations: int
    float_evaluations_seconds: float
    impossible: tuple[tuple[str, str], ...] = ()
