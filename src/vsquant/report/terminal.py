"""A table in the terminal, in the poster's layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vsquant.report.numbers import difference_text, metric_text
from vsquant.report.wording import (
    Severity,
    calibrator_text,
    column_family,
    column_title,
    float_text,
    notes,
    rows_title,
    sample_text,
    setting_text,
    severity,
)
from vsquant.results import Table

_STYLES: Final[dict[Severity, str]] = {"kept": "green", "slight": "yellow", "lost": "bold red"}
_GAP: Final = 2


def render_table(table: Table, width: int = 100) -> RenderableType:
    """The table for a terminal ``width`` columns wide; columns that do not fit follow in a further block."""
    grid = {(row, column): _cell(table, row, column) for row in table.rows for column in table.columns}
    blocks = [_block(table, columns, grid) for columns in _fitting(table, grid, width)]
    return Group(_title(table), *blocks, *(Text(line, style="dim") for line in _notes(table)))


def _title(table: Table) -> Text:
    unit = f" {table.unit}" if table.unit else ""
    title = Text(table.title, style="bold")
    title.append(f"  {table.metric}{unit}, {float_text(table)}", style="bold cyan")
    title.append(f"\n{setting_text(table)}; {sample_text(table)}", style="dim")
    return title


def _cell(table: Table, row: str, column: str) -> Text:
    """Value with the published one beside it, beneath it the drop, beneath that the calibrators of per-channel."""
    record = table.cell(row, column)
    published = table.published_cell(row, column)
    beside = "" if published is None else f" ({published:.1f})"
    if record is None:
        return Text(f"{table.missing(row, column)}{beside}", style="dim")
    drop = table.drops[row, column]
    text = Text(metric_text(record.scores.value(), table.unit), style="bold")
    text.append(beside, style="not bold dim")
    text.append(f"\n{difference_text(drop, table.unit)}", style=f"not bold {_STYLES[severity(table, drop)]}")
    if column_family(column) == "per-channel" and calibrator_text(record):
        text.append(f"\n{calibrator_text(record)}", style="not bold dim")
    return text


def _fitting(table: Table, grid: dict[tuple[str, str], Text], width: int) -> list[list[str]]:
    """The columns in order, in as few blocks as fit ``width``."""
    labels = max(len(name) for name in (rows_title(table), *table.rows))
    blocks: list[list[str]] = [[]]
    used = labels
    for column in table.columns:
        lines = [line for row in table.rows for line in grid[row, column].plain.split("\n")]
        needed = max(len(line) for line in (column_title(column), *lines)) + _GAP
        if blocks[-1] and used + needed > width:
            blocks.append([])
            used = labels
        blocks[-1].append(column)
        used += needed
    return blocks


def _block(table: Table, columns: Sequence[str], grid: dict[tuple[str, str], Text]) -> RichTable:
    shown = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, leading=1)
    shown.add_column(rows_title(table), style="bold", no_wrap=True)
    for column in columns:
        shown.add_column(column_title(column), justify="right", no_wrap=True)
    for row in table.rows:
        shown.add_row(row, *(grid[row, column] for column in columns))
    return shown


def _notes(table: Table) -> list[str]:
    brackets = "; in brackets the published figure" if table.published else ""
    lines = [f"Under each value: its drop from float ± the paired standard error{brackets}."]
    lines += notes(table)
    if table.caveat:
        lines.append(table.caveat)
    return lines
