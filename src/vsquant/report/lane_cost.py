"""What lanes cost, as text of at most 80 columns."""

from __future__ import annotations

import textwrap
from typing import Final

from vsquant.results.lane_cost import BASELINE, SHARED, LaneCost, LaneCosts
from vsquant.results.lane_overhead import LaneOverhead, overheads
from vsquant.results.plain_table import plain_table

WIDTH: Final = 80
_HEADINGS: Final = {
    "weight registers": "weights",
    "activation registers": "inputs",
    "dot product": "dot",
    "scale product": "product",
    "scaled partial sum": "scaling",
    "accumulator": "sum",
}


def lane_costs_text(costs: LaneCosts) -> str:
    """Every lane against the 8/8 per-channel one, then what vector scales add and what rounding takes back."""
    names = sorted({name for lane in costs.lanes for name in lane.operands if not name.startswith(SHARED)})
    lanes = plain_table(
        ("lane", "V", "mult.", "ps", "area", *names, "same codes"), [_row(costs, lane, names) for lane in costs.lanes]
    )
    parts = [_wrapped(_meaning(costs, names)), lanes, _components(costs)]
    found = overheads(costs)
    if found:
        parts.append(
            _wrapped(
                "What vector scales add to the per-channel lane of the same bits and V: area, energy on the same "
                "codes, energy on each format's own; and how much of the area and of the energy on the same codes "
                "rounding the scale product to P bits removes"
            )
        )
        parts.append(
            plain_table(
                ("lane", "V", "area", "same codes", "own codes", "area removed", "energy removed"),
                [_overhead_row(one) for one in found],
            )
        )
    parts.append(_wrapped(costs.source))
    return "\n\n".join(parts)


def _meaning(costs: LaneCosts, names: list[str]) -> str:
    base, own = costs.of(BASELINE), f"of a multiply-accumulate on codes of the lane's own format ({', '.join(names)})"
    if base is None:
        return f"Area of a lane in um2, and energy {own} in fJ; for ratios synthesize {BASELINE} into the same table"
    return (
        f"Area, and energy {own} and on the same codes for lanes of the same bits, relative to "
        f"{BASELINE} ({base.area_um2:.0f} um2)"
    )


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH))


def _row(costs: LaneCosts, lane: LaneCost, names: list[str]) -> tuple[str, ...]:
    relative = costs.of(BASELINE) is not None
    energies = [costs.relative_energy(lane, name) if relative else lane.energy_fj_per_mac(name) for name in names]
    return (
        _short(lane.spec),
        str(lane.vector_size),
        lane.multiplier,
        f"{lane.delay_ps:.0f}",
        _ratio(costs.relative_area(lane)) if relative else f"{lane.area_um2:.0f}",
        *map(_ratio, energies),
        _ratio(costs.relative_energy_on_vectors(lane)),
    )


def _components(costs: LaneCosts) -> str:
    """Where the area is, as shares."""
    names = list(dict.fromkeys(name for lane in costs.lanes for name in lane.components_um2))
    rows = [
        (_short(lane.spec), *(f"{100 * lane.components_um2.get(name, 0.0) / lane.area_um2:.0f}" for name in names))
        for lane in costs.lanes
    ]
    return "Percent of a lane's area\n" + plain_table(("lane", *(_HEADINGS.get(name, name) for name in names)), rows)


def _overhead_row(found: LaneOverhead) -> tuple[str, ...]:
    figures = (found.area, found.energy_structure, found.energy_own)
    removed = (found.area_removed, found.energy_removed)
    return (
        _short(found.spec),
        str(found.vector_size),
        *("" if figure is None else f"{100 * figure:+.0f} %" for figure in figures),
        *("" if figure is None else f"{100 * figure:.0f} %" for figure in removed),
    )


def _short(spec: str) -> str:
    """The spec without V, which has a column of its own."""
    return "-".join(part for part in spec.split("-") if not part.startswith("v"))


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
