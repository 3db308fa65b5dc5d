"""Bit-parallel simulation of a netlist without delays: 64 streams a word. What switches then is the least that can."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt64

from vsquant.hardware.energy.operands import Stimulus
from vsquant.hardware.synthesis.boolean import Function
from vsquant.hardware.synthesis.netlist import CLOCK, Gate, Netlist

WARM_UP_CYCLES = 8
"""Cycles that are not counted: the pipeline fills."""

_POPCOUNT = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)


@dataclass(frozen=True, kw_only=True, eq=False)
class Activity:
    """How often each net switched, over how many cycles of all streams; ``outputs`` (cycles, bits, words) by port."""

    toggles: Int64[np.ndarray, "nets"]
    cycles: int
    outputs: dict[str, UInt64[np.ndarray, "cycles bits words"]]


class _Batch:
    """Gates of one cell on one level: nets of each pin as arrays."""

    def __init__(self, gates: list[Gate]) -> None:
        self._inputs = {pin: np.array([gate.nets[pin] for gate in gates]) for pin in gates[0].cell.inputs}
        self._outputs = [
            (output.function, np.array([gate.nets[pin] for gate in gates]))
            for pin, output in gates[0].cell.outputs.items()
        ]

    def settle(self, values: UInt64[np.ndarray, "nets words"]) -> None:
        """Evaluate all gates."""
        inputs = {pin: values[nets] for pin, nets in self._inputs.items()}
        for function, nets in self._outputs:
            values[nets] = function.evaluate(inputs)


class _Registers:
    """Flip-flops of one cell."""

    def __init__(self, gates: list[Gate]) -> None:
        flip_flop = gates[0].cell.flip_flop
        assert flip_flop is not None
        self._flip_flop = flip_flop
        (data,) = flip_flop.next_state.pins
        self._data_pin = data
        self._data = np.array([gate.nets[data] for gate in gates])
        self._outputs: list[tuple[Function, np.ndarray]] = [
            (output.function, np.array([gate.nets[pin] for gate in gates]))
            for pin, output in gates[0].cell.outputs.items()
        ]

    def next_values(self, values: UInt64[np.ndarray, "nets words"]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Nets and what they become at the clock's edge."""
        state = self._flip_flop.next_state.evaluate({self._data_pin: values[self._data]})
        states = {self._flip_flop.state: state, self._flip_flop.inverse: ~state}
        return [(nets, function.evaluate(states)) for function, nets in self._outputs]


def simulate(netlist: Netlist, stimulus: Stimulus, *, streams: int) -> Activity:
    """Runs all streams at once from registers that hold zero, and counts what switches after the warm-up."""
    batches = [_Batch(gates) for level in netlist.levels for gates in _by_cell(level)]
    registers = [_Registers(gates) for gates in _by_cell(netlist.flip_flops)]
    ports = {port: np.array(nets) for port, nets in netlist.inputs.items() if port != CLOCK}
    cycles, _, words = next(iter(stimulus.values())).shape
    mask = _stream_mask(streams, words)
    values = np.zeros((netlist.net_count, words), dtype=np.uint64)
    toggles = np.zeros(netlist.net_count, dtype=np.int64)
    outputs = {port: np.zeros((cycles, len(nets), words), np.uint64) for port, nets in netlist.outputs.items()}
    for cycle in range(cycles):
        before = values.copy()
        for nets, after in [change for register in registers for change in register.next_values(before)]:
            values[nets] = after
        for port, nets in ports.items():
            values[nets] = stimulus[port][cycle]
        for batch in batches:
            batch.settle(values)
        for port, bits in netlist.outputs.items():
            outputs[port][cycle] = values[bits]
        if cycle >= WARM_UP_CYCLES:
            changed = ((values ^ before) & mask).view(np.uint8)
            toggles += _POPCOUNT[changed].sum(axis=1, dtype=np.int64)
    return Activity(toggles=toggles, cycles=max(cycles - WARM_UP_CYCLES, 0) * streams, outputs=outputs)


def _by_cell(gates: list[Gate]) -> list[list[Gate]]:
    kinds: dict[str, list[Gate]] = {}
    for gate in gates:
        kinds.setdefault(gate.cell.name, []).append(gate)
    return list(kinds.values())


def _stream_mask(streams: int, words: int) -> UInt64[np.ndarray, "words"]:
    used = np.arange(words * 64) < streams
    mask: UInt64[np.ndarray, "words"] = np.packbits(used, bitorder="little").view(np.uint64)
    return mask
