"""Lookup tables of a Liberty library: delay, transition and energy over input slew and output load."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from vsquant.errors import LibraryError
from vsquant.hardware.synthesis.liberty_syntax import Group

LOAD_VARIABLES = ("total_output_net_capacitance", "equal_or_opposite_output_net_capacitance")
SLEW_VARIABLES = ("input_net_transition", "input_transition_time")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Values over slews (rows) and loads (columns), in the library's units; a table of one point is a constant."""

    slews: tuple[float, ...]
    loads: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    def at(self, slew: float, load: float) -> float:
        """Bilinear between the points, linear beyond them."""
        row, row_share = _position(self.slews, slew)
        column, column_share = _position(self.loads, load)
        rows = [self.values[row]] if len(self.slews) == 1 else [self.values[row], self.values[row + 1]]
        points = [
            line[column] if len(self.loads) == 1 else line[column] + column_share * (line[column + 1] - line[column])
            for line in rows
        ]
        return points[0] if len(points) == 1 else points[0] + row_share * (points[1] - points[0])


def read_table(group: Group, templates: dict[str, Group]) -> Table:
    """The table of a group such as ``cell_rise (template) { index_1 …; values …; }``.

    Raises:
        LibraryError: the template is unknown, its variables are neither slew nor load, or the values do not fill it.
    """
    values = [_numbers(line) for line in group.lists.get("values", ())]
    if group.name == "scalar" or group.name not in templates:
        if [len(line) for line in values] != [1]:
            raise LibraryError(f"table template {group.name!r} must be defined in the library")
        return Table(slews=(0.0,), loads=(0.0,), values=(values[0],))
    template = templates[group.name]
    axes: dict[str, tuple[float, ...]] = {}
    for number in (1, 2):
        variable = template.attributes.get(f"variable_{number}")
        index = group.lists.get(f"index_{number}", template.lists.get(f"index_{number}"))
        if variable is not None and index is not None:
            axes[_axis(variable)] = _numbers(" ".join(index))
    slews, loads = axes.get("slew", (0.0,)), axes.get("load", (0.0,))
    flat = [value for line in values for value in line]
    if len(flat) != len(slews) * len(loads):
        raise LibraryError(f"a table of {group.kind} must have {len(slews) * len(loads)} values, not {len(flat)}")
    if next(iter(axes), "slew") == "slew":
        rows = [tuple(flat[i * len(loads) : (i + 1) * len(loads)]) for i in range(len(slews))]
    else:
        rows = [tuple(flat[i :: len(slews)]) for i in range(len(slews))]
    return Table(slews=slews, loads=loads, values=tuple(rows))


def _axis(variable: str) -> str:
    if variable in SLEW_VARIABLES:
        return "slew"
    if variable in LOAD_VARIABLES:
        return "load"
    raise LibraryError(f"a table's variable must be input slew or output load, not {variable!r}")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise LibraryError(f"a table must have numbers, not {text[:40]!r}") from error


def _position(points: tuple[float, ...], value: float) -> tuple[int, float]:
    if len(points) == 1:
        return 0, 0.0
    at = min(max(bisect.bisect_right(points, value) - 1, 0), len(points) - 2)
    return at, (value - points[at]) / (points[at + 1] - points[at])
