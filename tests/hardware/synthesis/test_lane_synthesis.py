"""Lanes as gates: they compute what the model does, their parts add up, and what goes wrong says so."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from vsquant.errors import MissingExtraError, SynthesisError
from vsquant.hardware import Lane
from vsquant.hardware.energy.dataflow import normal_operands
from vsquant.hardware.energy.operands import LaneOperands, expected_sums, stimulus
from vsquant.hardware.energy.zero_delay import simulate
from vsquant.hardware.lane_costing import check_sums
from vsquant.hardware.lane_model import run_lane
from vsquant.hardware.synthesis import Library, read_library, read_netlist, synthesize_lane, yosys
from vsquant.hardware.synthesis.lane_synthesis import TOP, lane_parameters, lane_sources
from vsquant.spec.layer import LayerSpec

SMALL = "w2a3-s2/3-v4-p3"


def lane_of(spec: str) -> Lane:
    return Lane.for_spec(LayerSpec.parse(spec), max_reduction_length=64)


def extreme_operands(lane: Lane) -> LaneOperands:
    """Every corner of codes and scales in 64 streams of one group, four positions each."""
    generator = np.random.default_rng(1)
    size, weight, activation = lane.vector_size, lane.weight, lane.activation
    corners_w, corners_a = (weight.qmin, weight.qmax), (activation.qmin, activation.qmax)

    def scales(top: int, shape: tuple[int, ...]) -> np.ndarray:
        return generator.choice([1, top], shape)

    return LaneOperands(
        weight_codes=generator.choice(corners_w, (64, 1)).repeat(size, axis=1),
        weight_scale=scales(weight.scale_top, (64,)) if weight.two_level else None,
        activation_codes=generator.choice(corners_a, (64, 4, 1)).repeat(size, axis=2),
        activation_scale=scales(activation.scale_top, (64, 4)) if activation.two_level else None,
    )


@pytest.mark.parametrize("booth", [False, True], ids=["plain", "booth"])
@pytest.mark.parametrize("spec", [SMALL, "w3a2u", "w3a3-s2/x-v2", "w2a2-s3/2-v2-full-top-p3"])
def test_gates_compute_what_the_model_does(spec: str, booth: bool, tiny_library: Library) -> None:
    lane = lane_of(spec) if "-v" in spec else Lane.for_spec(LayerSpec.parse(spec), vector_size=4)
    mapped = yosys.map_to_cells(lane_sources(), TOP, lane_parameters(lane), tiny_library, period_ps=1000.0, booth=booth)
    netlist = read_netlist(mapped.netlist, tiny_library)
    for operands in (normal_operands(lane, groups=64, depth=12), extreme_operands(lane)):
        activity = simulate(netlist, stimulus(lane, operands), streams=64)
        check_sums(netlist, lane, operands, activity, 64)


def test_wrong_gates_are_found(tiny_library: Library) -> None:
    lane = lane_of(SMALL)
    mapped = yosys.map_to_cells(lane_sources(), TOP, lane_parameters(lane), tiny_library, period_ps=1e3, booth=False)
    for cell in mapped.netlist["cells"].values():
        if cell["type"] == "XOR2":
            cell["type"] = "NOR2"
    netlist = read_netlist(mapped.netlist, tiny_library)
    operands = normal_operands(lane, groups=64, depth=12)
    activity = simulate(netlist, stimulus(lane, operands), streams=64)
    with pytest.raises(SynthesisError, match="the netlist must compute what the lane's model does"):
        check_sums(netlist, lane, operands, activity, 64)


@pytest.mark.parametrize("spec", [SMALL, "w3a3-s2/x-v2", "w2a2-s3/2-v2-full-top-p3"])
def test_expected_sums_are_the_plain_models(spec: str) -> None:
    lane = lane_of(spec)
    operands = normal_operands(lane, groups=3, depth=5)
    for group, sums in enumerate(expected_sums(lane, operands)):
        depth = operands.depth
        weight_scale, activation_scale = operands.weight_scale, operands.activation_scale
        steps = run_lane(
            lane,
            [operands.weight_codes[group].tolist()] * depth,
            None if weight_scale is None else [int(weight_scale[group])] * depth,
            operands.activation_codes[group].tolist(),
            None if activation_scale is None else activation_scale[group].tolist(),
        )
        assert [step.accumulator for step in steps] == sums.tolist()


def test_the_parts_add_up_and_the_smaller_is_taken(tiny_library: Library) -> None:
    found = synthesize_lane(lane_of(SMALL), tiny_library)
    assert sum(found.components.values()) == pytest.approx(found.netlist.area)
    assert {"dot product", "scale product", "accumulator"} <= set(found.components)
    assert found.netlist.sequential_area == 8 * found.cell_counts["DFF"] < found.netlist.area
    for booth in (False, True):
        mapped = yosys.map_to_cells(
            lane_sources(), TOP, lane_parameters(found.lane), tiny_library, period_ps=1000.0, booth=booth
        )
        assert read_netlist(mapped.netlist, tiny_library).area >= found.netlist.area


def test_a_missed_clock_is_no_point(tiny_library: Library) -> None:
    with pytest.raises(SynthesisError, match=r"a lane must meet 10 ps in tiny; the fastest took [\d.]+ ps\. Ask for"):
        synthesize_lane(lane_of(SMALL), tiny_library, period_ps=10.0)


def test_a_pyosys_that_does_not_load_is_said(
    tiny_library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyosys").mkdir()
    (tmp_path / "pyosys" / "__init__.py").write_text("raise ImportError('libffi.so.9: no such file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SynthesisError, match=r"does not: libffi.so.9: no such file. Install it again with:  pip inst"):
        yosys.map_to_cells({}, "top", {}, tiny_library, period_ps=1000.0, booth=False)


def test_without_yosys_the_install_line_is_said(tiny_library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vsquant\[hw\]'"):
        synthesize_lane(lane_of(SMALL), tiny_library)


@pytest.mark.parametrize(
    ("sources", "limit", "wanted"),
    [
        ({"top.sv": "module top (; endmodule"}, 60.0, "yosys ended with status"),
        (None, 0.01, r"synthesis must take at most 0\.01 s"),
    ],
)
def test_what_yosys_does_stays_in_its_process(
    sources: dict[str, str] | None, limit: float, wanted: str, tiny_library: Library
) -> None:
    with pytest.raises(SynthesisError, match=wanted):
        yosys.map_to_cells(
            sources or lane_sources(), TOP, {}, tiny_library, period_ps=1e3, booth=False, time_limit_s=limit
        )


def test_cells_of_another_library_are_refused(tiny_library: Library) -> None:
    cell = {"type": "AND9", "connections": {}}
    with pytest.raises(SynthesisError, match="must have cells of 'tiny' alone, not AND9"):
        read_netlist({"ports": {}, "cells": {"a": cell}}, tiny_library)


def test_a_loop_of_gates_is_refused(tiny_library: Library) -> None:
    cells = {
        "a": {"type": "INV", "connections": {"A": [3], "Y": [2]}},
        "b": {"type": "INV", "connections": {"A": [2], "Y": [3]}},
    }
    with pytest.raises(SynthesisError, match="must have no loop of gates"):
        read_netlist({"ports": {}, "cells": cells}, tiny_library)


@pytest.mark.data
@pytest.mark.parametrize("spec", ["w8a8", "w8a8-s6/10", "w4a4-s4/4-p4", "w4a4u-s4/6-p6", "w4a4-s4/4-v64"])
def test_lanes_meet_a_nanosecond_in_a_real_library(spec: str, vsquant_data: Path) -> None:
    library = read_library(vsquant_data / "liberty" / "asap7_rvt_tt_subset.lib.gz")
    lane = Lane.for_spec(LayerSpec.parse(spec))
    found = synthesize_lane(lane, library)
    assert found.delay_ps <= 1000.0
    operands = normal_operands(lane, groups=64, depth=16)
    activity = simulate(found.netlist, stimulus(lane, operands), streams=64)
    check_sums(found.netlist, lane, operands, activity, 64)
