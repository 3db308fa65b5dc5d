"""Energy of netlists small enough to count by hand, and operands in dataflow order."""

from __future__ import annotations

import numpy as np
import pytest

from vsquant.errors import ShapeError, WidthError
from vsquant.hardware import Lane
from vsquant.hardware.energy.dataflow import dataflow_operands, interleaved, normal_operands
from vsquant.hardware.energy.loads import energy_per_cycle, loads_of
from vsquant.hardware.energy.operands import LaneOperands, stimulus
from vsquant.hardware.energy.zero_delay import WARM_UP_CYCLES, simulate
from vsquant.hardware.lane_model import LaneOperand
from vsquant.hardware.synthesis import Library, read_netlist
from vsquant.spec.layer import LayerSpec

TOGGLING = {
    "ports": {
        "clk": {"direction": "input", "bits": [1]},
        "d": {"direction": "input", "bits": [2]},
        "q": {"direction": "output", "bits": [4]},
    },
    "cells": {
        "r": {"type": "DFF", "connections": {"CK": [1], "D": [2], "Q": [3]}},
        "g": {"type": "INV", "connections": {"A": [3], "Y": [4]}},
    },
}
"""A register and an inverter behind it."""


def toggling(library: Library, rate: int):
    """Activity where the input of every stream changes every ``rate`` cycles."""
    netlist = read_netlist(TOGGLING, library)
    cycles = WARM_UP_CYCLES + 60
    bits = (np.arange(cycles) // rate % 2).astype(np.uint64) * np.uint64(2**64 - 1)
    return netlist, simulate(netlist, {"d": bits.reshape(-1, 1, 1)}, streams=64)


@pytest.mark.parametrize("rate", [1, 2, 3])
def test_energy_is_what_a_hand_counts(rate: int, tiny_library: Library) -> None:
    netlist, activity = toggling(tiny_library, rate)
    assert activity.cycles == 60 * 64
    d, q, y = (netlist.inputs["d"][0], netlist.flip_flops[0].nets["Q"], netlist.outputs["q"][0])
    assert [int(activity.toggles[net]) for net in (d, q, y)] == [60 * 64 // rate] * 3
    parts = energy_per_cycle(netlist, loads_of(netlist, tiny_library, wire_ff_per_reader=0.5), activity)
    assert parts.switching_fj == pytest.approx(
        2 * 0.5 * 1.5 / rate
    )  # d and q have a pin of 1 fF and wire, y has neither
    q_table, y_table = (
        0.15 + 0.1 / 9,
        0.15 + 0.1 / 9,
    )  # both at a slew of 20 ps, at which each table has 1/9 of its step
    loads = loads_of(netlist, tiny_library, wire_ff_per_reader=0.5)
    assert loads.internal_fj[q] == pytest.approx(q_table, abs=1e-6)
    assert parts.internal_fj == pytest.approx((loads.internal_fj[q] + loads.internal_fj[y]) / rate)
    assert loads.internal_fj[y] == pytest.approx(y_table, abs=0.02)
    assert parts.clock_fj == pytest.approx(1.5 + 0.7 - 0.4 / rate)


def test_delays_grow_with_load(tiny_library: Library) -> None:
    netlist = read_netlist(TOGGLING, tiny_library)
    q = netlist.flip_flops[0].nets["Q"]
    light, heavy = (loads_of(netlist, tiny_library, wire_ff_per_reader=wire) for wire in (0.0, 2.0))
    assert light.rise_ps[q] == pytest.approx(20 + 10 / 9) and heavy.rise_ps[q] == pytest.approx(30 + 10 / 9)
    assert light.fall_ps[q] < light.rise_ps[q]


def test_streams_are_independent(tiny_library: Library) -> None:
    lane = Lane.for_spec(LayerSpec.parse("w4a4-s4/4"))
    operands = normal_operands(lane, groups=128, depth=4)
    together, alone = stimulus(lane, operands), stimulus(lane, operands.first(2), streams=1)
    for port, words in alone.items():
        assert np.array_equal(words & np.uint64(1), together[port][:8] & np.uint64(1))


def test_a_weight_vector_is_held_while_positions_stream() -> None:
    lane = Lane.for_spec(LayerSpec.parse("w4a4-s4/4"))
    fed = stimulus(lane, normal_operands(lane, groups=64, depth=16))
    assert fed["w"].shape == (16, 64, 1) and fed["sw"].shape == (16, 4, 1)
    assert (fed["w"] == fed["w"][0]).all() and not (fed["a"] == fed["a"][0]).all()
    assert fed["w_load"][0, 0, 0] == 2**64 - 1 and not fed["w_load"][1:].any()


def test_tiles_go_vector_by_vector() -> None:
    weight = LaneOperand(codes=np.arange(12).reshape(2, 3, 2), vector_scale=np.arange(6).reshape(2, 3))
    activation = LaneOperand(codes=np.arange(24).reshape(4, 3, 2), vector_scale=np.arange(12).reshape(4, 3))
    drawn = dataflow_operands(weight, activation, groups=6, depth=4)
    assert drawn.groups == 6 and drawn.depth == 4
    for group in range(6):
        vector = group % 3
        assert drawn.weight_codes[group].tolist() in weight.codes[:, vector].tolist()
        assert drawn.activation_codes[group].tolist() == activation.codes[:, vector].tolist()
        assert drawn.activation_scale[group].tolist() == activation.vector_scale[:, vector].tolist()


def test_layers_take_turns() -> None:
    lane = Lane.for_spec(LayerSpec.parse("w4a4"))
    parts = [normal_operands(lane, groups=8, depth=2, seed=seed) for seed in (1, 2)]
    both = interleaved(parts, 4)
    assert np.array_equal(both.weight_codes[:4], parts[0].weight_codes[:4])
    assert np.array_equal(both.weight_codes[4:8], parts[1].weight_codes[:4])
    assert np.array_equal(both.activation_codes[12:], parts[1].activation_codes[4:])
    with pytest.raises(ShapeError, match="of whole chunks of 3 groups"):
        interleaved(parts, 3)


def test_operands_must_fit_the_lane() -> None:
    lane = Lane.for_spec(LayerSpec.parse("w4a4-s4/4"))
    good = normal_operands(lane, groups=64, depth=2)
    with pytest.raises(WidthError, match=r"codes must be -7\.\.7, not"):
        stimulus(lane, LaneOperands(**vars(good) | {"weight_codes": good.weight_codes + 8}))
    with pytest.raises(WidthError, match=r"vector scales must be 0\.\.15, and there"):
        stimulus(lane, good.without_scales())
    with pytest.raises(ShapeError, match="in a multiple of 64 groups"):
        stimulus(lane, good.first(3))
    with pytest.raises(ShapeError, match="activation_codes must be of shape"):
        LaneOperands(**vars(good) | {"activation_codes": good.activation_codes[:, :, :3]})
