"""What vsquant runs on, in the terminal and as plain values."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vsquant.results import Surroundings


def render_surroundings(surroundings: Surroundings) -> RenderableType:
    """Versions, the kernels in use and why, and one line per instruction set."""
    sets = Table(box=None, show_header=False, pad_edge=False)
    for each in surroundings.instruction_sets:
        sets.add_row(Text(f"  {each.name}", style="bold" if each.used else ""), Text(surroundings.text_of(each)))
    return Group(Text(surroundings.versions_text), Text(surroundings.kernels_text, style="bold"), sets)


def surroundings_to_json(surroundings: Surroundings) -> dict[str, Any]:
    """The surroundings as plain values."""
    sets = [dataclasses.asdict(each) for each in surroundings.instruction_sets]
    return dataclasses.asdict(surroundings) | {"instruction_sets": sets}
