"""Netlists in Icarus: without delays it counts exactly what the bit-parallel simulation counts, with them more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vsquant.errors import DataError, SynthesisError
from vsquant.hardware import Lane
from vsquant.hardware.energy.dataflow import normal_operands
from vsquant.hardware.energy.loads import energy_per_cycle, loads_of
from vsquant.hardware.energy.operands import stimulus
from vsquant.hardware.energy.timed import simulate_timed
from vsquant.hardware.energy.zero_delay import simulate
from vsquant.hardware.lane_costing import GROUPS, LaneRequest, cost_lanes, read_costs
from vsquant.hardware.synthesis import Library, SynthesizedLane, read_library, synthesize_lane
from vsquant.spec.layer import LayerSpec

TINY = Path(__file__).parents[1] / "hardware" / "cells" / "tiny.lib"
SMALL = "w2a3-s2/3-v4-p3"


@pytest.fixture(scope="module")
def library() -> Library:
    return read_library(TINY)


@pytest.fixture(scope="module")
def small(library: Library) -> SynthesizedLane:
    return synthesize_lane(Lane.for_spec(LayerSpec.parse(SMALL)), library)


def test_without_delays_both_count_the_same(small: SynthesizedLane) -> None:
    fed = stimulus(small.lane, normal_operands(small.lane, groups=8, depth=8), streams=1)
    ours = simulate(small.netlist, fed, streams=1)
    theirs = simulate_timed(small.netlist, None, fed, period_ps=1000.0)
    assert np.array_equal(ours.toggles, theirs.toggles) and ours.cycles == theirs.cycles and ours.toggles.sum() > 0


def test_delays_add_glitches_and_never_take_a_transition(small: SynthesizedLane, library: Library) -> None:
    fed = stimulus(small.lane, normal_operands(small.lane, groups=8, depth=8), streams=1)
    loads = loads_of(small.netlist, library)
    settled = simulate(small.netlist, fed, streams=1)
    timed = simulate_timed(small.netlist, loads, fed, period_ps=1000.0)
    assert timed.toggles.sum() > settled.toggles.sum()
    outputs = [gate.nets["Q"] for gate in small.netlist.flip_flops]
    assert np.array_equal(timed.toggles[outputs], settled.toggles[outputs])
    both = [energy_per_cycle(small.netlist, loads, activity) for activity in (settled, timed)]
    assert both[1].total_fj > both[0].total_fj and both[1].clock_fj == pytest.approx(both[0].clock_fj)


def test_a_clock_too_fast_for_the_delays_shows(small: SynthesizedLane, library: Library) -> None:
    fed = stimulus(small.lane, normal_operands(small.lane, groups=8, depth=8), streams=1)
    timed = simulate_timed(small.netlist, loads_of(small.netlist, library), fed, period_ps=200.0)
    settled = simulate(small.netlist, fed, streams=1)
    outputs = [gate.nets["Q"] for gate in small.netlist.flip_flops]
    assert not np.array_equal(timed.toggles[outputs], settled.toggles[outputs])


def test_a_sweep_goes_on_where_it_was(library: Library, tmp_path: Path) -> None:
    path = tmp_path / "lanes.json"
    requests = [LaneRequest(spec=LayerSpec.parse(SMALL)), LaneRequest(spec=LayerSpec.parse("w2a2"), vector_size=4)]
    seen: list[str] = []

    def operands(lane: Lane) -> dict[str, object]:
        seen.append(str(lane.weight_bits))
        return {"normal": normal_operands(lane, groups=GROUPS, depth=4)}

    def measured(count: int) -> list[float]:
        costs = cost_lanes(requests[:count], library, operands, path, source="tests", about={"a": 1})
        assert costs.lanes == read_costs(path).lanes
        return [lane.simulation_seconds for lane in costs.lanes]

    first = measured(1)
    before = json.loads(path.read_text())["lanes"][0]
    both = measured(2)
    assert both[0] == first[0] and json.loads(path.read_text())["lanes"][0] == before
    assert measured(2) == both and len(seen) == 5
    assert before["energy_fj_per_mac"] > 0 and before["vector_size"] == 4
    path.write_text("[]")
    with pytest.raises(DataError, match="must be a table of lanes"):
        measured(1)


def test_without_icarus_the_install_line_is_said(small: SynthesizedLane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(SynthesisError, match="apt-get install iverilog"):
        simulate_timed(small.netlist, None, {}, period_ps=1.0)
