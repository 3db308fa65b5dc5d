"""Cases for ``benches/ports_bench.py``: a plan's words, and when they leave by the cycle model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vsquant.hardware import Lane, streams
from vsquant.hardware.cycle_model import Ports, run_cycles
from vsquant.hardware.lane_model import LaneOperand
from vsquant.hardware.rtl.golden import Golden
from vsquant.hardware.tiling import Plan
from vsquant.spec.formats import IntegerFormat

Field = tuple[str, int]


def patterns(seed: int, willing: float = 0.7, length: int = 997) -> Ports:
    """Every port hesitates at random, each by itself."""
    rng = np.random.default_rng(seed)
    names = ("command", "weights", "activations", "constants", "sums", "codes")
    return Ports(**{name: tuple(bool(x) for x in rng.random(length) < willing) for name in names})


def random_layer(plan: Plan, seed: int) -> tuple[LaneOperand, LaneOperand]:
    """Codes and scales of a layer's weights and activations, each value as likely as any other."""
    rng, lane = np.random.default_rng(seed), plan.element.lane
    return (
        _random(rng, (plan.shape.outputs, plan.shape.vectors), lane, lane.weight),
        _random(rng, (plan.shape.positions, plan.shape.vectors), lane, lane.activation),
    )


def _random(rng: np.random.Generator, shape: tuple[int, int], lane: Lane, fmt: IntegerFormat) -> LaneOperand:
    return LaneOperand(
        codes=rng.integers(fmt.qmin, fmt.qmax + 1, (*shape, lane.vector_size)),
        vector_scale=rng.integers(fmt.scale_min, fmt.scale_top + 1, shape) if fmt.two_level else None,
    )


def case_of(found: Golden, ports: Ports) -> dict[str, Any]:
    """Every port's words and willingness, and in which cycles sums and codes leave."""
    run = run_cycles(found.plan, ports)
    fields = streams.port_fields(found.plan.element)
    given = {
        name: port(list(fields[name].items()), stream.words, getattr(ports, name))
        for name, stream in found.ports.items()
    }
    return {
        "patience": run.cycles + 1000,
        "leaves": {"sums": run.sums, "codes": run.codes},
        "sources": {name: given[name] for name in ("command", "weights", "activations", "constants")},
        "sinks": {name: given[name] for name in ("sums", "codes")},
    }


def port(fields: list[Field], words: Sequence[int], pattern: Sequence[bool]) -> dict[str, Any]:
    """What ``ports_bench`` needs to know of a port; the first field is the lowest."""
    return {
        "fields": _offsets(fields),
        "words": [f"{word:x}" for word in words],
        "pattern": [int(willing) for willing in pattern],
    }


def _offsets(fields: list[Field]) -> list[tuple[str, int, int]]:
    offset, placed = 0, []
    for name, bits in fields:
        placed.append((name, offset, bits))
        offset += bits
    return placed
