"""Which channels were reordered: in the terminal and as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vsquant.report.grouped import common_name
from vsquant.results.permutation import PermutedChannels


def render_permuted(groups: Sequence[PermutedChannels]) -> RenderableType:
    """One line per group of channels: who takes them, how many, and the gain; fits 80 columns."""
    if not groups:
        return Text("no channels were reordered: none are free, or all are in the best order found", style="dim")
    shown = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    shown.add_column("channels into", overflow="fold")
    for heading in ("channels", "predicted dB", "weight SQNR dB"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for group in groups:
        shown.add_row(
            Text(common_name(group.consumers)),
            str(group.channels),
            f"{group.predicted_gain_db:+.2f}",
            f"{_decibels(group.sqnr_before_db)} → {_decibels(group.sqnr_after_db)}",
        )
    return shown


def permuted_to_json(groups: Sequence[PermutedChannels]) -> list[dict[str, Any]]:
    """The groups as plain values."""
    return [dataclasses.asdict(group) for group in groups]


def _decibels(value: float | None) -> str:
    return "∞" if value is None else f"{value:.1f}"
