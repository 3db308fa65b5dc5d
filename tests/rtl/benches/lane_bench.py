"""Runs in the simulator: every case's lane, ``lane_<number>`` of the top (or the top itself), side by side."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

LATENCY_CYCLES = 4
HELD_CYCLES = 2
"""A vector's dot and scale product are in the registers before the scale multiplier so many cycles after it was fed."""


async def check_lane(dut: Any, prefix: str, case: dict[str, Any], lane: Any) -> None:
    handles = [getattr(dut, prefix + name) for name in case["inputs"]]
    columns = [[int(word, 16) for word in words] for words in case["inputs"].values()]
    acc_valid, acc = getattr(dut, f"{prefix}acc_valid"), getattr(dut, f"{prefix}acc")
    vectors = case["vectors"]
    gated = {cycle - LATENCY_CYCLES + HELD_CYCLES for cycle, _, gates in vectors if gates} if case["has_scales"] else ()
    held, seen = None, 0
    for cycle in range(len(columns[0]) + LATENCY_CYCLES):
        if cycle < len(columns[0]):
            for handle, words in zip(handles, columns, strict=True):
                handle.value = words[cycle]
        else:
            getattr(dut, f"{prefix}a_valid").value = 0
        await FallingEdge(dut.clk)
        if acc_valid.value == 1:
            value = acc.value.to_signed()
            assert [cycle, value] == vectors[seen][:2], f"{prefix}: {value} in cycle {cycle}, not {vectors[seen]}"
            seen += 1
        if lane is not None and case["has_scales"]:
            registers = lane.vector_mac.dot_held.value, lane.vector_mac.g_per_vector.scale_held.value
            assert cycle not in gated or registers == held, f"{prefix}: a multiplier switches for nothing in {cycle}"
            held = registers
        await RisingEdge(dut.clk)
    assert seen == len(vectors)


@cocotb.test()
async def every_sum_is_exact_and_in_its_cycle(dut: Any) -> None:
    cases = json.loads(Path(os.environ["VSQUANT_CASE"]).read_text())
    dut.rst.value = 1
    for prefix, case in cases.items():
        for name in case["inputs"]:
            getattr(dut, prefix + name).value = 0
    Clock(dut.clk, 2, unit="step").start(start_high=False)
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    tasks = [
        cocotb.start_soon(check_lane(dut, prefix, case, getattr(dut, f"{prefix}lane", None) if prefix else None))
        for prefix, case in cases.items()
    ]
    for task in tasks:
        await task
