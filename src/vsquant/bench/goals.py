"""How far a case came towards its target."""

from __future__ import annotations

from vsquant.bench.cases import Case
from vsquant.results.speed import CaseSpeed, Goal, Row


def goals(speed: CaseSpeed, case: Case) -> tuple[Goal, ...]:
    """The goals of the first spec, on the fewest threads measured; not reached where it has no timing."""
    target = case.target
    threads = min(speed.threads, default=1)
    ours = next(row for row in speed.rows if row.ours)
    found = []
    if target.over_best_peer is not None:
        peer = speed.best_peer(threads)
        name = f"best peer ({peer.name if peer else 'none ran'})"
        found.append(_over(peer, name, target.over_best_peer, ours, threads))
    found += [_over(speed.best_peer(threads, r.patterns), r.name, r.times, ours, threads) for r in target.rivals]
    if target.of_floor is not None:
        found.append(Goal(what="of the floor", wanted=target.of_floor, reached=_share(speed, ours, threads)))
    if target.times_reference is not None:
        ratio = _times_faster(speed.row(target.reference), ours, threads)
        reached = None if ratio is None else 1 / ratio
        what = f"times {target.reference}"
        found.append(Goal(what=what, wanted=target.times_reference, reached=reached, at_most=True))
    return tuple(found)


def _over(peer: Row | None, name: str, wanted: float, ours: Row, threads: int) -> Goal:
    return Goal(what=f"times faster than {name}", wanted=wanted, reached=_times_faster(peer, ours, threads))


def _times_faster(peer: Row | None, ours: Row, threads: int) -> float | None:
    theirs = peer.timing(threads) if peer else None
    timing = ours.timing(threads)
    return timing.times_faster(theirs)[1] if timing and theirs else None


def _share(speed: CaseSpeed, ours: Row, threads: int) -> float | None:
    floor, timing = speed.floor(threads), ours.timing(threads)
    return floor.seconds / timing.median_seconds if floor and timing else None
