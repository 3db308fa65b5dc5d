"""From RTL to gates of a standard-cell library: yosys' recipe, the library, the netlist and its timing."""

from vsquant.hardware.synthesis.lane_synthesis import PERIOD_PS, SynthesizedLane, synthesize_lane
from vsquant.hardware.synthesis.liberty import Library, read_library
from vsquant.hardware.synthesis.netlist import Gate, Netlist, read_netlist

__all__ = [
    "PERIOD_PS",
    "Gate",
    "Library",
    "Netlist",
    "SynthesizedLane",
    "read_library",
    "read_netlist",
    "synthesize_lane",
]
