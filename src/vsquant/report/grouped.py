"""Tables of many alike things: equal ones stand together under one name, each line within 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions
from rich.text import Text

_GAP: Final = "  "


@dataclass(frozen=True, kw_only=True)
class Group:
    """Things of one kind: what they are called together, their figures, and what is to be said of them all.

    ``style`` is that of the figures, ``note_style`` of the notes, in rich's words.
    """

    name: str
    cells: tuple[str, ...]
    notes: tuple[str, ...] = ()
    style: str = ""
    note_style: str = "dim"


@dataclass(frozen=True, kw_only=True)
class GroupedTable:
    """For each group a line of names, one of figures under the ``headings``, and one for each of its notes.

    Figures that no group has are left out, and where the terminal is narrow those of the ``dispensable`` columns too,
    the first of them first; the columns in ``left`` are aligned so.
    """

    headings: tuple[str, ...]
    groups: tuple[Group, ...]
    left: tuple[int, ...] = ()
    dispensable: tuple[int, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The lines, for a terminal of the width in ``options``."""
        rows = [group.cells for group in self.groups]
        kept = [column for column in range(len(self.headings)) if any(row[column] for row in rows)]
        widths = {column: max(len(row[column]) for row in (self.headings, *rows)) for column in kept}
        for column in self.dispensable:
            if _total(widths) > options.max_width:
                widths.pop(column, None)
        yield Text(self._line(self.headings, widths), style="bold")
        yield Text("─" * min(_total(widths), options.max_width), style="dim")
        for group in self.groups:
            yield Text(group.name, style="cyan")
            yield Text(self._line(group.cells, widths), style=group.style)
            for note in group.notes:
                yield Text(note, style=group.note_style)

    def _line(self, cells: Sequence[str], widths: Mapping[int, int]) -> str:
        aligned = [
            cells[column].ljust(width) if column in self.left else cells[column].rjust(width)
            for column, width in widths.items()
        ]
        return _GAP.join(aligned).rstrip()


def common_name(names: Sequence[str]) -> str:
    """Several names as one, numbers in them as ``*``: ``encoder.*.{key, query}``; a single name as it is."""
    if len(names) == 1:
        return names[0]
    patterns = [pattern.split(".") for pattern in dict.fromkeys(_pattern(name) for name in names)]
    prefix = _common_prefix(patterns)
    rests = [".".join(pattern[len(prefix) :]) for pattern in patterns]
    inside = "{" + ", ".join(rests) + "}" if prefix and len(rests) > 1 else ", ".join(rests)
    return ".".join([*prefix, inside])


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _common_prefix(paths: list[list[str]]) -> list[str]:
    """The parts that all paths begin with, of which none is a whole path unless it is the only one."""
    if len(paths) == 1:
        return []
    shortest = min(len(path) for path in paths) - 1
    same = (column for column in range(shortest) if len({path[column] for path in paths}) > 1)
    return paths[0][: next(same, shortest)]
