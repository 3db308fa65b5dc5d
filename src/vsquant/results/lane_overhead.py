"""What vector scales add to a lane, and how much of it rounding the scale product takes back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from vsquant.results.lane_cost import SHARED, LaneCost, LaneCosts
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import LayerSpec


@dataclass(frozen=True, kw_only=True)
class LaneOverhead:
    """A lane with vector scales against the per-channel one of the same bits and V, as fractions of it.

    ``energy_structure`` is on identical operands, ``energy_own`` on the codes that each lane's format makes.
    ``area_removed`` and ``energy_removed`` (on identical operands) are the parts of the overhead without rounding that
    are not there: None for the lane that does not round.
    """

    spec: str
    vector_size: int
    area: float
    energy_structure: float | None
    energy_own: float | None
    area_removed: float | None
    energy_removed: float | None


def overheads(costs: LaneCosts) -> tuple[LaneOverhead, ...]:
    """The overhead of every lane with vector scales whose per-channel lane of the same V is in the table too."""
    return tuple(found for lane in costs.lanes if (found := _overhead(costs, lane)) is not None)


def _overhead(costs: LaneCosts, lane: LaneCost) -> LaneOverhead | None:
    spec = LayerSpec.parse(lane.spec)
    plain = _per_channel(costs, spec, lane.vector_size)
    if spec.vector_size is None or plain is None:
        return None
    whole = costs.of(str(dataclasses.replace(spec, product_bits=None)), lane.vector_size)
    rounds = spec.product_bits is not None and whole is not None
    area, structure = _area(lane, plain), _energy(lane, plain, shared=True)
    full_structure = _energy(whole, plain, shared=True) if whole is not None else None
    return LaneOverhead(
        spec=lane.spec,
        vector_size=lane.vector_size,
        area=area,
        energy_structure=structure,
        energy_own=_energy(lane, plain, shared=False),
        area_removed=1 - area / _area(whole, plain) if rounds and whole is not None else None,
        energy_removed=1 - structure / full_structure if rounds and structure and full_structure else None,
    )


def _per_channel(costs: LaneCosts, spec: LayerSpec, vector_size: int) -> LaneCost | None:
    formats = (spec.weight, spec.activation)
    if not all(isinstance(fmt, IntegerFormat) for fmt in formats):
        return None
    weight, activation = (
        dataclasses.replace(fmt, scale=None, vector_size=None, scale_top_pow2=False)
        for fmt in formats
        if isinstance(fmt, IntegerFormat)
    )
    return costs.of(str(LayerSpec(weight=weight, activation=activation)), vector_size)


def _area(lane: LaneCost, plain: LaneCost) -> float:
    return lane.area_um2 / plain.area_um2 - 1


def _energy(lane: LaneCost, plain: LaneCost, *, shared: bool) -> float | None:
    """Per multiply-accumulate, the mean over what both were simulated on."""
    ratios = []
    for name in lane.operands:
        mine, other = lane.energy_fj_per_mac(name), plain.energy_fj_per_mac(SHARED + name if shared else name)
        if mine is not None and other is not None:
            ratios.append(mine / other - 1)
    return sum(ratios) / len(ratios) if ratios else None
