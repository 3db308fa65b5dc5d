"""A mapped netlist: gates of library cells in an order in which each follows what it reads, and flip-flops."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from vsquant.errors import SynthesisError
from vsquant.hardware.synthesis.liberty import Cell, Library

CLOCK: Final = "clk"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One cell: its name in the netlist, and the net of each pin."""

    name: str
    cell: Cell
    nets: dict[str, int]

    @property
    def input_nets(self) -> list[int]:
        """The nets it reads, the clock of a flip-flop aside."""
        clock = self.cell.flip_flop.clock if self.cell.flip_flop else None
        return [self.nets[pin] for pin in self.cell.inputs if pin != clock]


@dataclass(frozen=True, kw_only=True)
class Netlist:
    """``levels``: combinational gates by depth; ``ports``: nets of each port, lowest bit first; ``net_count`` nets.

    Invariants: every net but those of input ports is driven by one pin, and every flip-flop's clock is the port clk.
    """

    levels: list[list[Gate]]
    flip_flops: list[Gate]
    inputs: dict[str, list[int]]
    outputs: dict[str, list[int]]
    net_count: int = field(repr=False)

    @property
    def gates(self) -> list[Gate]:
        """The combinational gates, each after those that it reads."""
        return [gate for level in self.levels for gate in level]

    @property
    def cells(self) -> list[Gate]:
        """All cells."""
        return [*self.gates, *self.flip_flops]

    @property
    def area(self) -> float:
        """Area of all cells in the library's unit."""
        return sum(gate.cell.area for gate in self.cells)

    @property
    def sequential_area(self) -> float:
        """Area of the flip-flops."""
        return sum(gate.cell.area for gate in self.flip_flops)

    @cached_property
    def readers(self) -> list[list[tuple[Gate, str]]]:
        """For every net, the gates and pins that read it."""
        found: list[list[tuple[Gate, str]]] = [[] for _ in range(self.net_count)]
        for gate in self.cells:
            for pin in gate.cell.inputs:
                found[gate.nets[pin]].append((gate, pin))
        return found


def read_netlist(module: dict[str, Any], library: Library) -> Netlist:
    """The netlist of a module in yosys' JSON.

    Raises:
        SynthesisError: a cell is not of the library, a pin is open, or gates form a loop.
    """
    numbers: dict[int | str, int] = {}

    def net(bit: int | str) -> int:
        return numbers.setdefault(bit, len(numbers))

    ports = {name: (port["direction"], [net(bit) for bit in port["bits"]]) for name, port in module["ports"].items()}
    gates = []
    for name, cell in module["cells"].items():
        if cell["type"] not in library.cells:
            raise SynthesisError(f"the netlist must have cells of {library.name!r} alone, not {cell['type']}")
        gates.append(
            Gate(
                name=name,
                cell=library.cells[cell["type"]],
                nets={pin: net(bits[0]) for pin, bits in cell["connections"].items()},
            )
        )
    inputs = {name: bits for name, (direction, bits) in ports.items() if direction == "input"}
    flip_flops = [gate for gate in gates if gate.cell.flip_flop]
    known = {bit for bits in inputs.values() for bit in bits}
    known |= {gate.nets[pin] for gate in flip_flops for pin in gate.cell.outputs}
    return Netlist(
        levels=_levels([gate for gate in gates if not gate.cell.flip_flop], known),
        flip_flops=flip_flops,
        inputs=inputs,
        outputs={name: bits for name, (direction, bits) in ports.items() if direction == "output"},
        net_count=len(numbers),
    )


def _levels(gates: list[Gate], known: set[int]) -> list[list[Gate]]:
    """Gates by depth: a gate stands behind all that drive its inputs."""
    depth = dict.fromkeys(known, 0)
    drivers = {gate.nets[pin]: gate for gate in gates for pin in gate.cell.outputs}
    open_gates: set[int] = set()
    for gate in gates:
        stack = [gate]
        while stack:
            top = stack[-1]
            waiting = [drivers[net] for net in top.input_nets if net in drivers and net not in depth]
            if waiting:
                if id(top) in open_gates:
                    raise SynthesisError(f"the netlist must have no loop of gates; {top.name} is in one")
                open_gates.add(id(top))
                stack.extend(waiting)
                continue
            stack.pop()
            open_gates.discard(id(top))
            if any(net not in depth for net in top.input_nets):
                raise SynthesisError(f"every net must be driven; an input of {top.name} is not")
            for pin in top.cell.outputs:
                depth[top.nets[pin]] = 1 + max((depth[net] for net in top.input_nets), default=0)
    levels: dict[int, list[Gate]] = {}
    for gate in gates:
        levels.setdefault(depth[gate.nets[next(iter(gate.cell.outputs))]], []).append(gate)
    return [levels[level] for level in sorted(levels)]
