"""A standard-cell library: the cells that synthesis maps to, with area, capacitances, delays and internal energy.

Units are made one: picoseconds, femtofarads, femtojoules, volts; area is in the library's own unit (µm² as a rule).
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vsquant.errors import LibraryError
from vsquant.hardware.synthesis import boolean
from vsquant.hardware.synthesis.boolean import Function
from vsquant.hardware.synthesis.liberty_syntax import Group, parse
from vsquant.hardware.synthesis.tables import Table, read_table

_PREFIXES: Final = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0}
_TIMING: Final = ("cell_rise", "cell_fall", "rise_transition", "fall_transition")


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """An output pin: its function of the inputs (of the flip-flop's state names in a flip-flop) and its tables."""

    function: Function
    timing: dict[str, tuple[Table, ...]]
    rise_energy: tuple[Table, ...]
    fall_energy: tuple[Table, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """An input pin: its capacitance in fF, and the energy tables of its own transitions."""

    capacitance_ff: float
    rise_energy: tuple[Table, ...]
    fall_energy: tuple[Table, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipFlop:
    """A rising-edge flip-flop: the clock's pin, what the state becomes, and the names of state and inverse."""

    clock: str
    next_state: Function
    state: str
    inverse: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One standard cell; ``flip_flop`` is None for a combinational one."""

    name: str
    area: float
    inputs: dict[str, Input]
    outputs: dict[str, Output]
    flip_flop: FlipFlop | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """What is read from a Liberty file. ``time_ps`` and ``load_ff`` are what one unit of its tables is."""

    name: str
    voltage: float
    time_ps: float
    load_ff: float
    cells: dict[str, Cell]
    conditions: str
    text: str = field(repr=False)

    @property
    def energy_fj(self) -> float:
        """One unit of the energy tables: the unit of capacitance times a volt squared."""
        return self.load_ff

    def tie(self, value: str) -> tuple[str, str]:
        """The smallest cell that drives a constant "0" or "1", and its pin."""
        found = [
            (cell.area, cell.name, pin)
            for cell in self.cells.values()
            for pin, output in cell.outputs.items()
            if not cell.inputs and output.function == Function("const", pin=value)
        ]
        return min(found)[1:] if found else self._lacks(f"tie-{'high' if value == '1' else 'low'} cell")

    def check_complete(self) -> None:
        """Whether every kind of cell is there that synthesis needs.

        Raises:
            LibraryError: one is not, by its kind.
        """
        if not any(cell.flip_flop for cell in self.cells.values()):
            self._lacks("rising-edge flip-flop without set, reset and scan")
        for kind, texts in _NEEDED.items():
            wanted = [boolean.parse(text) for text in texts]
            if not any(_same(cell, function) for cell in self.cells.values() for function in wanted):
                self._lacks(kind)
        self.tie("0")
        self.tie("1")

    def _lacks(self, kind: str) -> tuple[str, str]:
        raise LibraryError(
            f"library {self.name!r} must have a cell that is a {kind}; none of its {len(self.cells)} usable cells is. "
            f"Add the library file that has it (cells of several files may be merged into one)"
        )


_NEEDED: Final = {"inverter": ("!A",), "buffer": ("A",), "two-input NAND or NOR": ("!(A*B)", "!(A+B)")}


def read_library(path: Path) -> Library:
    """Reads a Liberty file, plain or gzipped.

    Cells that are neither combinational nor plain rising-edge flip-flops (latches, set and reset, scan, tristate) are
    left out; synthesis does not use them here.

    Raises:
        LibraryError: the file is missing or is not Liberty, or it lacks a cell that synthesis needs.
    """
    if not path.is_file():
        raise LibraryError(f"--liberty must name a Liberty file (.lib or .lib.gz); {path} is none")
    text = _text(path)
    try:
        library = interpret(parse(text), text)
    except LibraryError as error:
        raise LibraryError(f"{path}: {error}") from error
    library.check_complete()
    return library


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise LibraryError(f"{path} must be a whole, readable Liberty file (.lib or .lib.gz): {error}") from error
    return plain.decode("utf-8", errors="replace")


def interpret(group: Group, text: str) -> Library:
    """The library that a parsed group describes."""
    templates = {inner.name: inner for inner in group.groups if inner.kind.endswith("_template")}
    amount, unit = group.lists.get("capacitive_load_unit", ("1", "pf"))
    voltage = float(group.attributes.get("nom_voltage", "0"))
    if voltage <= 0:
        raise LibraryError(f"library {group.name!r} must have a nom_voltage")
    cells = [_read_cell(inner, templates) for inner in group.inner("cell")]
    return Library(
        name=group.name,
        voltage=voltage,
        time_ps=_scale(group.attributes.get("time_unit", "1ns"), "s") / 1e-12,
        load_ff=float(amount) * _scale("1" + unit, "f") / 1e-15,
        cells={cell.name: cell for cell in cells if cell is not None},
        conditions=group.attributes.get("default_operating_conditions", ""),
        text=text,
    )


def _read_cell(group: Group, templates: dict[str, Group]) -> Cell | None:
    """The cell, or None for a kind that is not used."""
    if any(group.inner(kind) for kind in ("latch", "statetable", "test_cell", "bus", "bundle")):
        return None
    flip_flop = _read_flip_flop(group)
    if flip_flop is None and group.inner("ff"):
        return None
    pins = group.inner("pin")
    outputs = [pin for pin in pins if pin.attributes.get("direction") == "output"]
    if not outputs or any("function" not in pin.attributes or "three_state" in pin.attributes for pin in outputs):
        return None
    supplies = [pin.name for pin in group.inner("pg_pin") if pin.attributes.get("pg_type", "").endswith("_power")]
    return Cell(
        name=group.name,
        area=float(group.attributes.get("area", "0")),
        inputs={
            pin.name: _read_input(pin, templates, supplies)
            for pin in pins
            if pin.attributes.get("direction") == "input"
        },
        outputs={pin.name: _read_output(pin, templates, supplies) for pin in outputs},
        flip_flop=flip_flop,
    )


def _read_flip_flop(group: Group) -> FlipFlop | None:
    """The cell's flip-flop if it is a plain one: one rising edge of a pin, no set, no reset, no scan."""
    found = group.inner("ff")
    if len(found) != 1 or {"clear", "preset", "clocked_on_also"} & set(found[0].attributes):
        return None
    clock = boolean.parse(found[0].attributes.get("clocked_on", "0"))
    next_state = boolean.parse(found[0].attributes.get("next_state", "0"))
    if clock.operator != "pin" or len(next_state.pins) != 1 or len(found[0].arguments) != 2:
        return None
    state, inverse = found[0].arguments
    return FlipFlop(clock=clock.pin, next_state=next_state, state=state, inverse=inverse)


def _read_input(pin: Group, templates: dict[str, Group], supplies: list[str]) -> Input:
    rise, fall = _energy(pin, templates, supplies)
    return Input(
        capacitance_ff=float(pin.attributes.get("capacitance", "0")),
        rise_energy=rise,
        fall_energy=fall,
    )


def _read_output(pin: Group, templates: dict[str, Group], supplies: list[str]) -> Output:
    rise, fall = _energy(pin, templates, supplies)
    arcs = pin.inner("timing")
    timing = {
        kind: tuple(read_table(table, templates) for arc in arcs for table in arc.inner(kind)) for kind in _TIMING
    }
    function = boolean.parse(pin.attributes["function"])
    return Output(function=function, timing=timing, rise_energy=rise, fall_energy=fall)


def _energy(
    pin: Group, templates: dict[str, Group], supplies: list[str]
) -> tuple[tuple[Table, ...], tuple[Table, ...]]:
    """Tables of energy for a pin's rise and fall, of the supply alone: a ground's tables are the same current again."""
    groups = [
        group
        for group in pin.inner("internal_power")
        if "related_pg_pin" not in group.attributes or group.attributes["related_pg_pin"] in supplies
    ]
    both = [table for group in groups for table in group.inner("power")]
    rise, fall = (
        tuple(read_table(table, templates) for group in groups for table in group.inner(kind)) for kind in _ENERGY
    )
    shared = tuple(read_table(table, templates) for table in both)
    return rise + shared, fall + shared


_ENERGY: Final = ("rise_power", "fall_power")


def _same(cell: Cell, function: Function) -> bool:
    """Whether the cell has one output that is ``function`` of its inputs, in order, whatever they are called."""
    if cell.flip_flop is not None or len(cell.outputs) != 1 or len(cell.inputs) != len(function.pins):
        return False
    (output,) = cell.outputs.values()
    return _truth(output.function, sorted(cell.inputs)) == _truth(function, sorted(function.pins))


def _truth(function: Function, pins: list[str]) -> int:
    import numpy as np

    patterns = (0xAAAA_AAAA_AAAA_AAAA, 0xCCCC_CCCC_CCCC_CCCC)
    values = {pin: np.array(pattern, dtype=np.uint64) for pin, pattern in zip(pins, patterns, strict=False)}
    return int(function.evaluate(values))


def _scale(text: str, unit: str) -> float:
    match = re.fullmatch(rf"\s*([\d.]+)\s*([fpnum]?){unit}\s*", text, re.IGNORECASE)
    if match is None:
        raise LibraryError(f"a unit of the library must be such as 1p{unit}, not {text!r}")
    return float(match[1]) * _PREFIXES[match[2].lower()]
