"""What a case is to reach, so that a miss is printed beside the figure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Peers whose names match a pattern, and how many times faster than the fastest of them a case is to be."""

    name: str
    patterns: tuple[str, ...]
    times: float


@dataclass(frozen=True, kw_only=True)
class Target:
    """Goals of a case's first spec; None where there is none.

    ``over_best_peer`` is how many times faster than the fastest peer; ``rivals`` the same for some of the peers;
    ``of_floor`` the share of the measured ceiling; ``times_reference`` the most times the work named by ``reference``
    (a copy, the float network) it may take.
    """

    over_best_peer: float | None = None
    rivals: tuple[Rival, ...] = ()
    of_floor: float | None = None
    reference: str = ""
    times_reference: float | None = None


NO_TARGET = Target()
