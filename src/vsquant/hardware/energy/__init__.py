"""What a netlist takes: switching counted without delays or with them, and what a transition costs."""

from vsquant.hardware.energy.loads import EnergyParts, Loads, energy_per_cycle, loads_of
from vsquant.hardware.energy.operands import LaneOperands
from vsquant.hardware.energy.timed import simulate_timed
from vsquant.hardware.energy.zero_delay import Activity, simulate

__all__ = [
    "Activity",
    "EnergyParts",
    "LaneOperands",
    "Loads",
    "energy_per_cycle",
    "loads_of",
    "simulate",
    "simulate_timed",
]
