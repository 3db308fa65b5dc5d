"""A lane as gates: plain and Booth multipliers are tried, and the smaller that meets the clock is the lane."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, Literal

from vsquant.errors import SynthesisError
from vsquant.hardware.lane import Lane
from vsquant.hardware.synthesis import yosys
from vsquant.hardware.synthesis.liberty import Library
from vsquant.hardware.synthesis.netlist import Gate, Netlist, read_netlist

PERIOD_PS: Final = 1000.0
TOP: Final = "vsq_mac_lane"
LANE_FILES: Final = ("vsq_scale_product.sv", "vsq_vector_mac.sv", "vsq_accumulator.sv", "vsq_mac_lane.sv")
SCALE_PRODUCT: Final = "scale product"
COMPONENTS: Final = {
    "weight registers": ("weight", "weight_scale"),
    "activation registers": ("activation", "activation_scale"),
    "dot product": ("dot_held",),
    SCALE_PRODUCT: ("scale_held", "zero_held"),
    "scaled partial sum": ("partial",),
    "accumulator": ("acc",),
}
"""Registers by what their value is for; the gates before a register are counted with it."""
CONTROL: Final = "control"

Multiplier = Literal["plain", "booth"]


@dataclass(frozen=True, kw_only=True)
class SynthesizedLane:
    """A lane in cells of a library; areas in the library's unit, ``delay_ps`` abc's longest path between registers."""

    lane: Lane
    multiplier: Multiplier
    delay_ps: float
    netlist: Netlist
    seconds: float

    @property
    def components(self) -> dict[str, float]:
        """Area by what the cells are for, adding up to the netlist's area."""
        return component_area(self.netlist)

    @property
    def cell_counts(self) -> dict[str, int]:
        """How many of each cell."""
        return dict(sorted(Counter(gate.cell.name for gate in self.netlist.cells).items()))


def synthesize_lane(lane: Lane, library: Library, *, period_ps: float = PERIOD_PS) -> SynthesizedLane:
    """The smaller of {plain, Booth} that meets the clock by abc's timing report.

    Raises:
        SynthesisError: neither meets it, or yosys failed.
        MissingExtraError: pyosys is not installed.
    """
    tried = [_synthesize(lane, library, period_ps, multiplier) for multiplier in ("plain", "booth")]
    met = [found for found in tried if found.delay_ps <= period_ps]
    if not met:
        fastest = min(found.delay_ps for found in tried)
        raise SynthesisError(
            f"a lane must meet {period_ps:g} ps in {library.name}; the fastest took {fastest:.1f} ps. "
            f"Ask for a longer period, or for a smaller vector or fewer scale bits"
        )
    best = min(met, key=lambda found: found.netlist.area)
    seconds = sum(found.seconds for found in tried)
    return SynthesizedLane(
        lane=lane, multiplier=best.multiplier, delay_ps=best.delay_ps, netlist=best.netlist, seconds=seconds
    )


def _synthesize(lane: Lane, library: Library, period_ps: float, multiplier: Multiplier) -> SynthesizedLane:
    start = time.monotonic()
    mapped = yosys.map_to_cells(
        lane_sources(),
        TOP,
        lane_parameters(lane),
        library,
        period_ps=period_ps,
        booth=multiplier == "booth",
    )
    netlist = read_netlist(mapped.netlist, library)
    return SynthesizedLane(
        lane=lane,
        multiplier=multiplier,
        delay_ps=mapped.delay_ps,
        netlist=netlist,
        seconds=time.monotonic() - start,
    )


@cache
def lane_sources() -> dict[str, str]:
    """The lane's SystemVerilog by file name."""
    folder = resources.files("vsquant.hardware") / "rtl"
    return {name: (folder / name).read_text() for name in LANE_FILES}


def lane_parameters(lane: Lane) -> dict[str, int]:
    """Those of the lane's RTL parameters that one lane has; how many vectors may be added is its user's to mind."""
    return {name: value for name, value in lane.verilog_parameters().items() if name != "MAX_VECTORS"}


def component_area(netlist: Netlist) -> dict[str, float]:
    """Area of each component: its registers and the gates that they alone, or they first, read.

    The scale product comes before the dot product, whose registers read it too: it says when they hold.
    """
    drivers = {gate.nets[pin]: gate for gate in netlist.cells for pin in gate.cell.outputs}
    counted: set[str] = set()
    areas: dict[str, float] = dict.fromkeys([*COMPONENTS, CONTROL], 0.0)
    for component in sorted(COMPONENTS, key=lambda name: name != SCALE_PRODUCT):
        stack = [gate for gate in netlist.flip_flops if _component(gate) == component]
        counted |= {gate.name for gate in stack}
        while stack:
            gate = stack.pop()
            areas[component] += gate.cell.area
            feeding = [drivers[net] for net in gate.input_nets if net in drivers]
            new = [driver for driver in feeding if not driver.cell.flip_flop and driver.name not in counted]
            for driver in new:
                if driver.name not in counted:
                    counted.add(driver.name)
                    stack.append(driver)
    areas[CONTROL] += netlist.area - sum(areas.values())
    return {component: area for component, area in areas.items() if area > 0}


def _component(gate: Gate) -> str:
    """A register's component by the name of what it holds: ``vector_mac.g_per_vector.scale_held[3]$_…``."""
    held = re.split(r"[\[$]", gate.name)[0].rsplit(".", 1)[-1]
    return next((component for component, names in COMPONENTS.items() if held in names), CONTROL)
