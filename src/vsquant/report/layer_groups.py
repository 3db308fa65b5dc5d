"""Equal layers of a checkpoint as one: a network of twelve blocks is a handful of lines, each within 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions
from rich.text import Text

from vsquant.report.numbers import size_text
from vsquant.results import LayerInspection

HEADINGS: Final = ("layers", "spec", "shape", "weights", "packed", "bits", "σ codes", "SQNR dB")
_LEFT: Final = (1, 2)
_DISPENSABLE: Final = (4, 3, 6, 2)
_GAP: Final = "  "


@dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """Layers of one spec, shape and note; never empty."""

    layers: tuple[LayerInspection, ...]

    @property
    def name(self) -> str:
        """The layers' names as one."""
        return common_name([layer.name for layer in self.layers])

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands under `HEADINGS`: sums over the layers, and the least and the largest of the last two."""
        first, elements = self.layers[0], sum(layer.elements for layer in self.layers)
        stored = sum(layer.stored_bytes for layer in self.layers)
        return (
            str(len(self.layers)),
            first.spec,
            "×".join(str(length) for length in first.shape),
            f"{elements:,}",
            size_text(stored),
            f"{8 * stored / elements:.2f}" if elements else "",
            self._scale_codes,
            self._sqnr,
        )

    @property
    def _scale_codes(self) -> str:
        used = [str(layer.scale_codes_used) for layer in self.layers if layer.scale_codes_used is not None]
        return f"{_span(sorted(used, key=int))}/{self.layers[0].scale_codes_total}" if used else ""

    @property
    def _sqnr(self) -> str:
        known = sorted(layer.sqnr_db for layer in self.layers if layer.sqnr_db is not None)
        return _span([f"{decibels:.1f}" if math.isfinite(decibels) else "∞" for decibels in known])


def common_name(names: Sequence[str]) -> str:
    """Several names as one, numbers in them as ``*``: ``encoder.*.{key, query}``; a single name as it is."""
    if len(names) == 1:
        return names[0]
    patterns = [pattern.split(".") for pattern in dict.fromkeys(_pattern(name) for name in names)]
    prefix = _common_prefix(patterns)
    rests = [".".join(pattern[len(prefix) :]) for pattern in patterns]
    inside = "{" + ", ".join(rests) + "}" if prefix and len(rests) > 1 else ", ".join(rests)
    return ".".join([*prefix, inside])


def layer_groups(layers: Sequence[LayerInspection]) -> tuple[LayerGroup, ...]:
    """The layers by spec, shape and note, in the order in which the first of each appears."""
    groups: dict[tuple[str, str, tuple[int, ...], str], list[LayerInspection]] = {}
    for layer in layers:
        groups.setdefault((layer.kind, layer.spec, layer.shape, layer.note), []).append(layer)
    return tuple(LayerGroup(layers=tuple(group)) for group in groups.values())


@dataclass(frozen=True, kw_only=True)
class GroupTable:
    """For each group a line of names, one of figures under the headings, and one for a note; no figures is no group.

    Figures that no group has are left out, and where the terminal is narrow those in `_DISPENSABLE` too.
    """

    groups: tuple[LayerGroup, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The lines, for a terminal of the width in ``options``."""
        rows = [group.cells for group in self.groups]
        kept = [column for column in range(len(HEADINGS)) if any(row[column] for row in rows)]
        widths = {column: max(len(row[column]) for row in (HEADINGS, *rows)) for column in kept}
        for column in _DISPENSABLE:
            if _total(widths) > options.max_width:
                widths.pop(column, None)
        yield Text(_line(HEADINGS, widths), style="bold")
        yield Text("─" * min(_total(widths), options.max_width), style="dim")
        for group, row in zip(self.groups, rows, strict=True):
            yield Text(group.name, style="cyan")
            yield Text(_line(row, widths))
            if group.layers[0].note:
                yield Text(group.layers[0].note, style="dim")


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _line(cells: Sequence[str], widths: Mapping[int, int]) -> str:
    aligned = [
        cells[column].ljust(width) if column in _LEFT else cells[column].rjust(width)
        for column, width in widths.items()
    ]
    return _GAP.join(aligned).rstrip()


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _common_prefix(paths: list[list[str]]) -> list[str]:
    """The parts that all paths begin with, of which none is a whole path unless it is the only one."""
    if len(paths) == 1:
        return []
    shortest = min(len(path) for path in paths) - 1
    same = (column for column in range(shortest) if len({path[column] for path in paths}) > 1)
    return paths[0][: next(same, shortest)]


def _span(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]}–{texts[-1]}"
