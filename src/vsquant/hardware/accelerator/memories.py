"""Energy and area of memories and of post-processing, from the table of published figures that ships."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any, Final

from vsquant.errors import AcceleratorError

TABLE: Final = "tables/memories.json"

_DIVISION_STEPS: Final = 4
"""Additions of an output beside those of its division."""


@cache
def memory_table() -> dict[str, Any]:
    """The figures with their sources."""
    table: dict[str, Any] = json.loads((files("vsquant.hardware") / TABLE).read_text("utf-8"))
    return table


def sram_pj_per_bit(capacity_bits: int) -> float:
    """Energy of reading or writing one bit of a memory of that capacity."""
    table = memory_table()["sram_energy"]
    points = [(point["bytes"] * 8, point["picojoules"] / table["access_bits"]) for point in table["points"]]
    smallest, least = points[0]
    if capacity_bits <= smallest:
        return float(least * math.sqrt(capacity_bits / smallest))
    pairs = list(pairwise(points))
    (low, at_low), (high, at_high) = next((pair for pair in pairs if capacity_bits <= pair[1][0]), pairs[-1])
    exponent = math.log(at_high / at_low) / math.log(high / low)
    return float(at_low * (capacity_bits / low) ** exponent)


def sram_um2(capacity_bits: int) -> float:
    """Area of a memory of that capacity."""
    table = memory_table()["sram_area"]
    return float(capacity_bits * table["cell_um2"] / table["array_efficiency"])


def registers_um2(bits: int) -> float:
    """Area of that many flip-flops."""
    return float(bits * memory_table()["register_area"]["bit_um2"])


def dram_pj_per_bit(kind: str) -> float:
    """Energy of moving one bit to or from memory off the chip.

    Raises:
        AcceleratorError: the table has no such memory.
    """
    table = memory_table()["dram_energy"]
    if kind not in table["kinds"]:
        raise AcceleratorError(f"dram.kind must be one of {', '.join(sorted(table['kinds']))}, not {kind!r}")
    return float(table["kinds"][kind] / table["access_bits"])


def post_processing_pj(bits: int) -> float:
    """Energy of one output of ``bits``."""
    table = memory_table()["post_processing"]
    steps = _DIVISION_STEPS + bits
    return float(table["multiply_32_picojoules"] + steps * table["add_32_picojoules"])


def post_processing_um2(bits: int) -> float:
    """Area of a unit for one output of ``bits`` a cycle."""
    table = memory_table()["post_processing"]
    return float(table["multiply_32_um2"] + (_DIVISION_STEPS + bits) * table["add_32_um2"])
