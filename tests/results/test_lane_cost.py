"""Lane costs: ratios and overheads of figures that a hand can divide, and what they print as."""

from __future__ import annotations

import json

import pytest

from vsquant.errors import DataError
from vsquant.hardware.lane_costing import shipped_costs
from vsquant.report.lane_cost import lane_costs_text
from vsquant.results.lane_cost import LaneCost, LaneCosts, LaneEnergy
from vsquant.results.lane_overhead import overheads


def lane(spec: str, area: float, size: int = 16, **energies: float) -> LaneCost:
    return LaneCost(
        spec=spec, vector_size=size, key=spec, multiplier="plain", delay_ps=900.0, area_um2=area,
        sequential_um2=area / 2,
        components_um2={"dot product": area}, cells={"INV": 3}, synthesis_seconds=1.0, simulation_seconds=2.0,
        energies=tuple(
            LaneEnergy(operands=name.replace("_", " "), switching_fj=value / 2, internal_fj=value / 4,
                       clock_fj=value / 4, zero_delay_fj=value / 2, cycles=9)
            for name, value in energies.items()
        ),
    )  # fmt: skip


COSTS = LaneCosts(
    source="by hand",
    about={"period_ps": 1000},
    lanes=(
        lane("w8a8", 1000, net=1600, shared_net=2000),
        lane("w4a4", 400, net=320, shared_net=640),
        lane("w4a4-s4/4-v16", 600, net=960),
        lane("w4a4-s4/4-v16-p4", 500, net=720),
        lane("w4a4-s4/4-v8", 400, 8, net=600),
        lane("w4a4", 250, 8, net=200),
    ),
)


def test_ratios_are_per_multiply_accumulate() -> None:
    vectors, small = COSTS.lanes[2], COSTS.lanes[4]
    assert COSTS.relative_area(vectors) == 0.6 and COSTS.relative_area(small) == 0.8
    assert COSTS.relative_energy(vectors) == 0.6 and COSTS.relative_energy(small) == 0.75
    assert COSTS.relative_energy(vectors, "net") == 0.6 and COSTS.relative_energy(vectors, "other") is None
    assert COSTS.relative_energy_on_vectors(vectors) == pytest.approx(0.48)
    assert COSTS.relative_energy_on_vectors(COSTS.lanes[1]) == pytest.approx(0.32)
    assert vectors.energy_fj_per_mac() == 60


def test_overheads_and_what_rounding_removes() -> None:
    whole, rounded, small = overheads(COSTS)
    assert (whole.spec, whole.area_removed, whole.energy_removed) == ("w4a4-s4/4-v16", None, None)
    assert whole.area == pytest.approx(0.5) and whole.energy_structure == pytest.approx(0.5)
    assert whole.energy_own == pytest.approx(2.0)
    assert rounded.area_removed == pytest.approx(0.5) and rounded.energy_removed == pytest.approx(0.75)
    assert small.area == pytest.approx(0.6) and small.energy_own == pytest.approx(2.0)


def test_json_keeps_everything() -> None:
    assert LaneCosts.from_json(json.loads(json.dumps(COSTS.to_json()))) == COSTS
    with pytest.raises(DataError, match="must be one that vsquant hw synth wrote"):
        LaneCosts.from_json({"lanes": [{}]})


def test_text_fits_eighty_columns() -> None:
    for costs in (COSTS, shipped_costs(), LaneCosts(source="x", about={}, lanes=COSTS.lanes[1:])):
        text = lane_costs_text(costs)
        assert max(map(len, text.splitlines())) <= 80
    assert "w4a4-s4/4-p4" in lane_costs_text(COSTS) and "+50 %" in lane_costs_text(COSTS)


def test_without_the_baseline_figures_stand_as_they_are() -> None:
    alone = LaneCosts(source="by hand", about={"period_ps": 1000}, lanes=(lane("w4a4-s4/4-v16-p4", 500, net=720),))
    text = lane_costs_text(alone)
    assert "for ratios synthesize w8a8" in " ".join(text.split())
    row = next(line.split() for line in text.splitlines() if line.startswith("w4a4-s4/4-p4"))
    assert row[4:6] == ["500", "45.00"]
