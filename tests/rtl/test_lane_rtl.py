"""The lane in the simulator: every format of the published tables against the bit-true model, and awkward ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.rtl.lane_cases import lane_case

from vsquant.hardware import Lane
from vsquant.spec import PRESETS, LayerSpec

PUBLISHED = [preset.spec for preset in PRESETS.values() if preset.spec.has_integer_sums]
COSTS = [
    "w8a8",
    "w6a8",
    "w4a8",
    "w6a6",
    "w4a4",
    "w4a4u",
    "w3a4",
    "8/8/6/10",
    "6/8/6/10",
    "4/8/6/10",
    "6/6/4/6",
    "4/4/4/4",
    "4/4U/4/6",
    "3/4/4/4",
]
AWKWARD = [
    "w6a8-s6/10-p6", "w4a8-s6/10-p8", "w4a8-s6/10-p6", "w4a8-s6/10-p4", "w6a6-s4/6-p6", "w6a6-s4/6-p4",
    "w4a4-s4/4-p6", "w4a4-s4/4-p4", "w4a4u-s4/6-p6", "w4a4u-s4/6-p4", "w3a4-s4/4-p4", "w4a4-s4/4-v8",
    "w4a4-s4/4-v32", "w4a4-s4/4-v64", "w2a2", "w2a2u-full", "w8a8u-full", "w4a4-s4/4-top",
    "w4a4u-s4/4-v16-p8-top-full", "w4a4-s2/2-p3-top", "w4a8-s4/x", "w4a8u-sx/6", "w4a4-s4/4-v16-p1",
    "w4a4-s10/10-v7-p19-top-full-g16",
]  # fmt: skip
SPECS = list(dict.fromkeys([*PUBLISHED, *map(LayerSpec.parse, COSTS), *map(LayerSpec.parse, AWKWARD)]))
GROUPS = 4
"""Simulations; each has many lanes, because starting one takes longer than what it then does."""


def wrapper(lanes: list[Lane]) -> str:
    """A module with all lanes side by side, whose inputs are variables."""
    parts = ["module lanes;\n  logic clk, rst;"]
    for i, lane in enumerate(lanes):
        parameters = lane.verilog_parameters()
        del parameters["MAX_VECTORS"]
        widths = {
            "w": lane.vector_size * lane.weight_bits,
            "sw": max(1, lane.weight_scale_bits),
            "a": lane.vector_size * lane.activation_bits,
            "sa": max(1, lane.activation_scale_bits),
            "w_load": 1,
            "a_valid": 1,
            "first": 1,
            "acc_valid": 1,
            "acc": lane.accumulator_bits,
        }
        parts += [f"  logic [{width - 1}:0] l{i}_{name};" for name, width in widths.items()]
        values = ", ".join(f".{name}({value})" for name, value in parameters.items())
        ports = ", ".join(f".{name}(l{i}_{name})" for name in widths)
        parts.append(f"  vsq_mac_lane #({values}) l{i}_lane (.clk(clk), .rst(rst), {ports});")
    return "\n".join([*parts, "endmodule\n"])


@pytest.mark.parametrize("group", range(GROUPS))
def test_the_lane_equals_the_model(group, simulate, rtl_sources, tmp_path: Path) -> None:
    lanes = [Lane.for_spec(spec, max_reduction_length=512) for spec in SPECS[group::GROUPS]]
    (tmp_path / "lanes.sv").write_text(wrapper(lanes))
    cases = {f"l{i}_": lane_case(lane, seed=i) for i, lane in enumerate(lanes)}
    assert all(np.ptp([total for _, total, _ in case["vectors"]]) > 0 for case in cases.values())
    simulate("lanes", "lane_bench", cases, sources=[*rtl_sources, tmp_path / "lanes.sv"])
