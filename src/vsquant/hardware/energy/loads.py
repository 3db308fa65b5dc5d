"""What a netlist's nets carry and its cells take: capacitance, delay, and energy of one transition.

A net has the pins that read it and an estimated wire; a cell's tables are read at that load and at the mean slew of its
inputs, carried from the registers on. Several arcs of a cell are averaged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np
from jaxtyping import Float64

from vsquant.hardware.energy.zero_delay import Activity
from vsquant.hardware.synthesis.liberty import Library
from vsquant.hardware.synthesis.netlist import CLOCK, Gate, Netlist
from vsquant.hardware.synthesis.tables import Table

WIRE_FF_PER_READER: Final = 0.25
"""Wire for each pin that reads a net: about 1.5 µm, three pitches of a small cell, of 0.17 fF/µm."""
PORT_SLEW_PS: Final = 20.0
"""Slew at input ports and of the clock."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Loads:
    """By net: ``capacitance_ff``, and the driver's ``rise_ps``, ``fall_ps`` and ``internal_fj`` of one transition.

    ``clock_fj`` is what a flip-flop's clock takes in a cycle without a new output, by flip-flop; ``rise_fj`` is the
    part of it that a cycle with a new output has in its ``internal_fj`` already.
    """

    voltage: float
    capacitance_ff: Float64[np.ndarray, "nets"]
    rise_ps: Float64[np.ndarray, "nets"]
    fall_ps: Float64[np.ndarray, "nets"]
    internal_fj: Float64[np.ndarray, "nets"]
    clock_fj: Float64[np.ndarray, "flip_flops"]
    rise_fj: Float64[np.ndarray, "flip_flops"]

    @property
    def switching_fj(self) -> Float64[np.ndarray, "nets"]:
        """Half C V squared of each net: what one transition of it takes."""
        return 0.5 * self.capacitance_ff * self.voltage**2


@dataclass(frozen=True, kw_only=True)
class EnergyParts:
    """Energy of one cycle in fJ: charging of pins and wire, inside the cells, and the clock of the registers."""

    switching_fj: float
    internal_fj: float
    clock_fj: float

    @property
    def total_fj(self) -> float:
        """All of it."""
        return self.switching_fj + self.internal_fj + self.clock_fj


def energy_per_cycle(netlist: Netlist, loads: Loads, activity: Activity) -> EnergyParts:
    """What the activity takes in one cycle of one stream."""
    rates = activity.toggles / activity.cycles
    clock_nets = netlist.inputs.get(CLOCK, [])
    rates[clock_nets] = 0.0
    new_outputs = np.array([min(1.0, rates[gate.nets[next(iter(gate.cell.outputs))]]) for gate in netlist.flip_flops])
    clock = loads.clock_fj.sum() - (loads.rise_fj * new_outputs).sum()
    charging = 2 * float(loads.switching_fj[clock_nets].sum())
    return EnergyParts(
        switching_fj=float((loads.switching_fj * rates).sum()),
        internal_fj=float((loads.internal_fj * rates).sum()),
        clock_fj=float(clock) + charging,
    )


def loads_of(netlist: Netlist, library: Library, *, wire_ff_per_reader: float = WIRE_FF_PER_READER) -> Loads:
    """Capacitances, delays and energies of every net and register."""
    capacitance = np.array(
        [
            sum(gate.cell.inputs[pin].capacitance_ff * library.load_ff + wire_ff_per_reader for gate, pin in readers)
            for readers in netlist.readers
        ]
    )
    rise, fall, internal = (np.zeros(netlist.net_count) for _ in range(3))
    slews = np.full(netlist.net_count, PORT_SLEW_PS)
    unit_fj = library.energy_fj
    for gate in [*netlist.flip_flops, *netlist.gates]:
        slew = _slew_at(gate, slews)
        for pin, output in gate.cell.outputs.items():
            net = gate.nets[pin]
            point = slew / library.time_ps, capacitance[net] / library.load_ff
            rise[net] = _mean(output.timing["cell_rise"], point) * library.time_ps
            fall[net] = _mean(output.timing["cell_fall"], point) * library.time_ps
            transitions = [*output.timing["rise_transition"], *output.timing["fall_transition"]]
            slews[net] = _mean(transitions, point) * library.time_ps
            internal[net] = unit_fj * (_mean(output.rise_energy, point) + _mean(output.fall_energy, point)) / 2
    clock, risen = _clock_energy(netlist, library)
    return Loads(
        voltage=library.voltage,
        capacitance_ff=capacitance,
        rise_ps=rise,
        fall_ps=fall,
        internal_fj=internal,
        clock_fj=clock * unit_fj,
        rise_fj=risen * unit_fj,
    )


def _slew_at(gate: Gate, slews: Float64[np.ndarray, "nets"]) -> float:
    """Mean slew of what a gate reads; that of the clock for a register."""
    if gate.cell.flip_flop is not None or not gate.cell.inputs:
        return PORT_SLEW_PS
    return float(np.mean(slews[gate.input_nets]))


def _clock_energy(netlist: Netlist, library: Library) -> tuple[np.ndarray, np.ndarray]:
    """In the library's unit, per flip-flop: a cycle's rise and fall of the clock inside the cell, and the rise alone.

    Where the library gives nothing for a condition (the output changes, and its own table has it) that is left out.
    """
    point = PORT_SLEW_PS / library.time_ps, 0.0
    rises, falls = [], []
    for gate in netlist.flip_flops:
        assert gate.cell.flip_flop is not None
        clock = gate.cell.inputs[gate.cell.flip_flop.clock]
        rises.append(_mean([table for table in clock.rise_energy if table.values != ((0.0,),)], point))
        falls.append(_mean(clock.fall_energy, point))
    return np.array(rises) + np.array(falls), np.array(rises)


def _mean(tables: Iterable[Table], point: tuple[float, float]) -> float:
    values = [table.at(*point) for table in tables]
    return fmean(values) if values else 0.0
